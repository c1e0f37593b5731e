//! One change before the ledgers of its destinations.

use super::Asked;
use crate::world::World;
use jiff::Timestamp;
use sluice_rules::guard::{self, Concern, Cover, History, Mark, Outcome, Sight, Terms, Verdict};
use sluice_rules::policy::Identity;

/// A change and the ledgers of the destinations whose traffic it moves, in a stable order.
pub(super) struct Case<'a> {
    asked: &'a Asked,
    concern: Concern<'a>,
    world: &'a World,
    terms: &'a Terms,
    by: &'a str,
}

impl<'a> Case<'a> {
    pub(super) fn new(asked: &'a Asked, world: &'a World, terms: &'a Terms, by: &'a str) -> Self {
        let concern = Concern::of(&world.guards, &asked.request);
        Self { asked, concern, world, terms, by }
    }

    pub(super) fn covers(&self) -> Vec<Cover> {
        self.concern.covers()
    }

    pub(super) fn policy(&self) -> &Identity {
        &self.asked.request.identity
    }

    /// What the change is known by in a ledger.
    pub(super) fn mark(&self, ledger: &guard::Ledger) -> Mark {
        Mark {
            policy: self.asked.request.identity.clone(),
            uid: self.asked.uid.clone(),
            version: self.asked.version.clone(),
            digest: self.asked.after.digest_of(ledger),
        }
    }

    /// Takes note of the object as the review shows it. One that is created shows nothing: that another of its name is
    /// gone is not proved before it exists.
    pub(super) fn observe(&self, ledger: &mut guard::Ledger, cover: &Cover, now: Timestamp) -> guard::Noted {
        let Some(version) = self.asked.version.as_deref() else { return guard::Noted::default() };
        let sight = Sight {
            policy: &self.asked.request.identity,
            uid: &self.asked.uid,
            version: Some(version),
            splits: self.asked.before.of(ledger),
            before: None,
            gone: false,
            fresh: false,
            // Where a watch tells of writes at once, what it has not told of yet happened a moment ago at most.
            at: self.terms.watched.then_some(now),
        };
        let digest = |ledger: &guard::Ledger| self.asked.before.digest_of(ledger);
        ledger.observe_as(&sight, digest, cover.settle, self.terms, now)
    }

    pub(super) fn judge(&self, ledgers: &[&guard::Ledger], now: Timestamp) -> Verdict {
        let mut history = History::default();
        for ledger in ledgers {
            let mark = ledger.outstanding().next().map(|_| self.mark(ledger));
            ledger.tell(&mut history, mark.as_ref(), self.terms, now);
        }
        self.concern.judge(&history, &self.world.approvals, now)
    }

    /// Reserves what the verdict allows; gives back the end of the lease unless it was reserved already.
    pub(super) fn reserve(&self, ledger: &mut guard::Ledger, cover: &Cover, verdict: &Verdict) -> Option<Timestamp> {
        let order =
            |record: &guard::Record| (&record.mesh, &record.destination).cmp(&(&cover.mesh, &cover.destination));
        let place = verdict.records.binary_search_by(order).ok()?;
        let record = &verdict.records[place];
        ledger.reserve(&self.mark(ledger), record.clone(), self.by, cover, self.terms)
    }

    /// Does the verdict leave anything to reserve?
    pub(super) fn reserves(&self, verdict: &Verdict) -> bool {
        verdict.outcome != Outcome::Denied && !self.asked.dry_run
    }
}
