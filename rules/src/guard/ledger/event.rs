//! What a watch tells of a policy, and what follows for the ledger.

use super::{Entry, Ledger, Noted, Sight, Terms};
use crate::policy::Identity;
use crate::split::{self, Split};
use jiff::{SignedDuration, Timestamp};

/// A change of a policy that a watch tells of.
#[derive(Debug, Clone)]
pub struct Event {
    /// Which policy.
    pub policy: Identity,
    /// The uid of its object.
    pub uid: String,
    /// The version that the change led to.
    pub version: String,
    /// Its splits; of one that is gone, those it had at last.
    pub splits: Vec<Split>,
    /// Its splits before, where they are known for sure.
    pub before: Option<Vec<Split>>,
    /// Is it deleted, or being deleted?
    pub gone: bool,
    /// When it became so, at the latest; none when nobody knows how long ago: by now.
    pub at: Option<Timestamp>,
}

impl Ledger {
    /// [`Ledger::observe`] for what a watch tells: a deletion is two sights, the last state and the absence.
    pub fn follow(&mut self, event: &Event, settle: SignedDuration, terms: &Terms, now: Timestamp) -> Noted {
        let sight = Sight {
            policy: &event.policy,
            uid: &event.uid,
            version: Some(&event.version),
            splits: &event.splits,
            before: event.before.as_deref(),
            gone: false,
            fresh: false,
            at: event.at,
        };
        let unknown = !self.policies.iter().any(|known| known.policy == event.policy)
            && !self.outstanding().any(|(entry, _)| entry.record.policy == event.policy);
        if let Some(before) = event.before.as_deref().filter(|_| unknown) {
            // A first sight only tells what is; here it is known what was.
            let begin = Sight { version: None, splits: before, before: None, ..sight };
            self.observe(&begin, settle, terms, now);
        }
        // A deletion tells of the last state too, which may end a reservation that nobody saw. But where the deletion
        // itself was admitted, that state was seen then, at the version that the reservation names.
        let admitted = |entry: &Entry| entry.uid == event.uid && entry.digest == split::digest([]);
        let admitted = event.gone && self.outstanding().any(|(entry, _)| admitted(entry));
        let mut noted = Noted::default();
        if !admitted {
            noted = self.observe(&sight, settle, terms, now);
        }
        if event.gone {
            let gone = Sight { splits: &[], before: Some(&event.splits), gone: true, ..sight };
            noted += self.observe(&gone, settle, terms, now);
        }
        noted
    }
}
