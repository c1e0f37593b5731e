//! What a policy is seen to be, and what follows for the ledger.

use super::bound::{MOST_POLICIES, MOST_RULES};
use super::{Entry, Held, Known, Ledger, Terms, latest};
use crate::field::FieldPath;
use crate::guard::{History, Record, Subject};
use crate::policy::Identity;
use crate::split::{self, RuleChange, RuleKey, ServiceKey, Shares, Split, What};
use jiff::{SignedDuration, Timestamp};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

/// A policy as it was seen at one version of its object. One that is being deleted counts as gone.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// Which policy.
    pub policy: &'a Identity,
    /// The uid of its object.
    pub uid: &'a str,
    /// The version of its object; of one that is absent, that of the list without it, if known.
    pub version: Option<&'a str>,
    /// Its splits; none when it is gone.
    pub splits: &'a [Split],
    /// The splits before, where they are known for sure.
    pub before: Option<&'a [Split]>,
    /// Does it not exist any more?
    pub gone: bool,
    /// Was it read from the API server after the ledger was? Then nothing the ledger knows is newer.
    pub fresh: bool,
    /// When it became so, at the latest, as the watch tells; none when nobody knows how long ago: by now.
    pub at: Option<Timestamp>,
}

/// What a sight changed in the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noted {
    /// Reservations that turned out to be real.
    pub confirmed: usize,
    /// Reservations that did not and cannot happen.
    pub dropped: usize,
    /// Moves that passed without admission.
    pub observed: usize,
}

impl Noted {
    /// Is there anything to write?
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }
}

impl AddAssign for Noted {
    fn add_assign(&mut self, more: Self) {
        self.confirmed += more.confirmed;
        self.dropped += more.dropped;
        self.observed += more.observed;
    }
}

enum Fate {
    InFlight,
    Real,
    Void,
}

impl Ledger {
    /// Takes note of what a policy is seen to be: reservations are confirmed or dropped, and a move that nobody
    /// admitted is added, with `settle` to tell whether it is a way back. What is older than what the ledger knows
    /// says nothing.
    pub fn observe(&mut self, sight: &Sight, settle: SignedDuration, terms: &Terms, now: Timestamp) -> Noted {
        self.observe_as(sight, |ledger| ledger.digest(sight.splits), settle, terms, now)
    }

    /// [`Ledger::observe`] for whoever has [`Ledger::digest`] of the sight's splits at hand.
    pub fn observe_as(
        &mut self,
        sight: &Sight,
        digest: impl FnOnce(&Self) -> String,
        settle: SignedDuration,
        terms: &Terms,
        now: Timestamp,
    ) -> Noted {
        let now = self.entries.iter().map(|entry| entry.record.time).fold(now, Timestamp::max);
        let mut noted = Noted::default();
        let known = self.policies.iter().position(|known| known.policy == *sight.policy);
        let outdated = known.is_some_and(|known| !sight.is_newer(&self.policies[known]));
        if outdated && !self.outstanding().any(|(entry, _)| entry.record.policy == *sight.policy) {
            return noted;
        }
        let digest = if outdated { String::new() } else { digest(self) };
        let mut base = known.map(|known| self.policies[known].clone());
        let mut removed = None;
        let outstanding = |entry: &Entry| entry.reserved.is_some() && entry.record.policy == *sight.policy;
        let mut places: Vec<_> = (0..self.entries.len()).filter(|at| outstanding(&self.entries[*at])).collect();
        // Another object of the name was removed before this one was created, whoever was admitted first.
        places.sort_by_key(|at| self.entries[*at].uid == sight.uid);
        for at in places {
            let entry = &mut self.entries[at];
            match sight.fate(entry, outdated, &digest, terms, now) {
                Fate::InFlight => {}
                Fate::Void => entry.digest.clear(),
                Fate::Real => {
                    if entry.version.is_none() {
                        // Whoever creates it again was first rid of the one before.
                        removed = base.take().filter(|base| base.uid != entry.uid && !base.gone);
                    }
                    base = Some(entry.result());
                    entry.confirm(sight, terms, now);
                    noted.confirmed += 1;
                }
            }
        }
        let before = self.entries.len();
        self.entries.retain(|entry| !entry.digest.is_empty());
        noted.dropped = before - self.entries.len();
        if !outdated {
            let present = self.known(sight, digest);
            if let Some(removed) = removed {
                let gone = Known { gone: true, rules: Vec::new(), more: 0, ..removed.clone() };
                noted.observed += usize::from(self.miss(sight, &removed, &gone, settle, terms, now));
            }
            if let Some(base) = base.filter(|base| base.digest != present.digest) {
                noted.observed += usize::from(self.miss(sight, &base, &present, settle, terms, now));
            }
            self.policies.retain(|known| known.policy != *sight.policy);
            self.policies.push(present);
            // Whoever only looks writes nothing and bounds nothing.
            if self.policies.len() > MOST_POLICIES {
                self.policies.remove(0);
            }
        }
        self.entries.sort_by_key(|entry| entry.record.time);
        if noted.is_some() {
            self.put_in_order(sight.policy);
        }
        noted
    }

    /// A policy was written in the order of its versions, whatever the clocks say of those who saw it: the order tells
    /// which split was the stable one.
    fn put_in_order(&mut self, policy: &Identity) {
        let none = split::digest([]);
        // A removal may bear the version that it was admitted on.
        let version = |entry: &Entry| Some((entry.version.as_deref()?.parse::<u64>().ok()?, entry.digest == none));
        let seen = |entry: &Entry| entry.reserved.is_none() && entry.record.policy == *policy;
        let (places, versions): (Vec<_>, Vec<_>) = (0..self.entries.len())
            .filter(|at| seen(&self.entries[*at]))
            .filter_map(|at| Some((at, version(&self.entries[at])?)))
            .unzip();
        if versions.is_sorted() {
            return;
        }
        let mut ordered: Vec<Entry> = places.iter().map(|at| self.entries[*at].clone()).collect();
        ordered.sort_by_key(version);
        let mut later = Timestamp::MAX;
        for (at, mut entry) in places.into_iter().zip(ordered).rev() {
            // It happened before what follows it, so that no window forgets it early.
            if entry.record.time > later {
                entry.record = Arc::new(Record { time: later, ..Record::clone(&entry.record) });
            }
            later = entry.record.time;
            self.entries[at] = entry;
        }
        self.entries.sort_by_key(|entry| entry.record.time);
    }

    fn known(&self, sight: &Sight, digest: String) -> Known {
        let splits = || sight.splits.iter().filter(|split| self.is_of(split));
        let rules = splits().take(MOST_RULES);
        let mut known = Known {
            policy: sight.policy.clone(),
            uid: sight.uid.to_owned(),
            version: sight.version.map(str::to_owned),
            gone: sight.gone,
            digest,
            rules: rules.map(|split| Held { rule: split.rule.brief(), shares: split.shares() }).collect(),
            more: splits().skip(MOST_RULES).count(),
        };
        known.cut();
        known
    }

    /// Adds a move that nobody admitted; gives back whether any traffic moved.
    fn miss(
        &mut self,
        sight: &Sight,
        from: &Known,
        to: &Known,
        settle: SignedDuration,
        terms: &Terms,
        now: Timestamp,
    ) -> bool {
        let exact = sight.before.filter(|before| to.digest != from.digest && self.digest(before) == from.digest);
        let rules = match exact.filter(|_| self.digest(sight.splits) == to.digest) {
            Some(before) => split::change(before, sight.splits).rules,
            None => compared(&self.mesh, &self.destination, from, to),
        };
        let mut history = History::default();
        self.tell(&mut history, None, terms, now);
        let subjects = Subject::all(&rules);
        let ours = |subject: &&Subject| subject.mesh == self.mesh && *subject.destination == self.destination;
        let Some(subject) = subjects.iter().find(ours) else { return false };
        let mut record = subject.record(sight.policy, now);
        record.count(subject.forward(sight.policy, &history, settle, now).iter());
        record.cut();
        self.entries.push(Entry {
            record: Arc::new(record),
            uid: to.uid.clone(),
            version: to.version.clone(),
            digest: to.digest.clone(),
            reserved: None,
            observed: true,
        });
        true
    }
}

impl Sight<'_> {
    fn is_newer(&self, known: &Known) -> bool {
        match (self.version, known.version.as_deref()) {
            _ if self.fresh => true,
            // A uid never comes back.
            _ if known.gone && known.uid == self.uid => false,
            (Some(ours), Some(theirs)) => match order(ours, theirs) {
                Some(Ordering::Greater) => true,
                Some(Ordering::Equal) => self.gone && !known.gone,
                Some(Ordering::Less) => false,
                None => known.uid != self.uid || self.gone,
            },
            (None, _) => self.gone && !known.gone && known.uid == self.uid,
            (Some(_), None) => true,
        }
    }

    /// What became of a reservation.
    fn fate(&self, entry: &Entry, outdated: bool, digest: &str, terms: &Terms, now: Timestamp) -> Fate {
        // Where there is a watch, only a look after the lease is over tells that a write will never come.
        let over = (self.fresh || !terms.watched) && entry.is_overdue(terms, now);
        let Some(version) = entry.version.as_deref() else {
            // A new object: its uid alone proves it was created.
            let absent = self.uid != entry.uid || (self.gone && self.fresh);
            return match (absent, over) {
                (false, _) => Fate::Real,
                (true, true) => Fate::Void,
                (true, false) => Fate::InFlight,
            };
        };
        let newer = self.fresh || self.version.is_some_and(|ours| order(ours, version) == Some(Ordering::Greater));
        let same = self.version.is_some_and(|ours| ours == version);
        if self.uid != entry.uid {
            // The object it was admitted on is gone: a removal did happen, anything else cannot any more.
            let removal = entry.record.policy == *self.policy && entry.digest == split::digest([]);
            return match newer && !outdated {
                true if removal => Fate::Real,
                true => Fate::Void,
                false => Fate::InFlight,
            };
        }
        if same && !self.gone {
            return if over { Fate::Void } else { Fate::InFlight };
        }
        if outdated || !(newer || (same && self.gone) || self.version.is_none()) {
            return Fate::InFlight;
        }
        if entry.digest == digest { Fate::Real } else { Fate::Void }
    }
}

/// Versions of one kind of object are numbers that grow. Where they are not, only equal ones can be compared.
pub(super) fn order(a: &str, b: &str) -> Option<Ordering> {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => Some(a.cmp(&b)),
        _ => (a == b).then_some(Ordering::Equal),
    }
}

impl Entry {
    fn confirm(&mut self, sight: &Sight, terms: &Terms, now: Timestamp) {
        let Some(reserved) = self.reserved.take() else { return };
        // Where nobody knows how long ago it happened, it counts as if it just had: no window forgets it early.
        let seen = sight.at.or(terms.watched.then_some(now));
        let time = seen.map_or(self.record.time, |at| latest(at, self.record.time, reserved.until));
        if time != self.record.time {
            self.record = Arc::new(Record { time, ..(*self.record).clone() });
        }
        if sight.uid == self.uid {
            self.version = sight.version.map(str::to_owned);
        }
    }

    /// What the policy said of the destination right after the move.
    fn result(&self) -> Known {
        let gone = self.digest == split::digest([]);
        let held = |moved: &crate::guard::Moved| Held { rule: moved.rule.clone(), shares: moved.after.clone() };
        Known {
            policy: self.record.policy.clone(),
            uid: self.uid.clone(),
            version: self.version.clone(),
            gone,
            digest: self.digest.clone(),
            rules: if gone { Vec::new() } else { self.record.rules.iter().map(held).collect() },
            more: self.record.more,
        }
    }
}

/// The moves between two sights of which only the shares are known. A rule that one of them lacks is compared with
/// whatever may have served its requests, and the largest distance counts.
fn compared(mesh: &str, destination: &ServiceKey, from: &Known, to: &Known) -> Vec<RuleChange> {
    let change = |rule: &RuleKey, what, before: Shares, after: Shares| RuleChange {
        mesh: mesh.into(),
        destination: destination.clone(),
        namespace: None,
        rule: rule.clone(),
        what,
        shift: split::distance(&before, &after),
        field: FieldPath::root(),
        before,
        after,
        raised: Vec::new(),
        widened: false,
    };
    let mut rules: BTreeMap<&RuleKey, [Vec<&Shares>; 2]> = BTreeMap::new();
    for (side, known) in [from, to].into_iter().enumerate() {
        for held in &known.rules {
            rules.entry(&held.rule).or_default()[side].push(&held.shares);
        }
    }
    let mut found = Vec::new();
    for (rule, [old, new]) in rules {
        for position in 0..old.len().max(new.len()) {
            let (before, after) = (old.get(position), new.get(position));
            found.extend(match (before, after) {
                (Some(before), Some(after)) => Some(change(rule, What::Moved, (*before).clone(), (*after).clone())),
                // A rule that there was no room for may have been there.
                (None, Some(after)) if from.more == 0 => {
                    farthest(destination, from, after).map(|(served, after)| change(rule, What::Added, served, after))
                }
                (Some(before), None) if to.more == 0 => farthest(destination, to, before)
                    .map(|(served, before)| change(rule, What::Removed, before, served)),
                _ => None,
            });
        }
    }
    found
}

/// Who serves where a rule is missing, farthest from its shares; and those shares under comparable keys.
fn farthest(destination: &ServiceKey, other: &Known, shares: &Shares) -> Option<(Shares, Shares)> {
    let mut places: Vec<(Shares, Shares)> =
        other.rules.iter().map(|held| (held.shares.clone(), shares.clone())).collect();
    if !other.rules.iter().any(|held| held.rule.is_catch_all()) {
        // The destination itself, whose port nobody wrote.
        let merged = shares.renamed(|service| match service.unported() == destination.as_str() {
            true => destination.clone(),
            false => service.clone(),
        });
        places.push((Shares::from([(destination.clone(), 100.0)]), merged));
    }
    places.into_iter().max_by(|a, b| split::distance(&a.0, &a.1).total_cmp(&split::distance(&b.0, &b.1)))
}
