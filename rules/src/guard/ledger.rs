//! History of one destination that several processes share: reservations, and the moves that became real.
//!
//! Admission is no write: whatever was allowed may still be refused by another webhook, by a conflict or by etcd. So a
//! shift that is allowed is *reserved*, and what is seen of the policy afterwards *confirms* the reservation or makes
//! it void. Kubernetes writes an object only on exactly the version that admission saw; a retry asks again. Hence, of a
//! change that was admitted on version `v` of an object:
//!
//! - seen newer than `v` with the splits of the change: it happened;
//! - seen newer than `v` with other splits: it did not, and cannot any more;
//! - still at `v`: it may be in flight until the lease is over, which is longer than the API server lets a request last.
//!
//! # Clocks
//!
//! Records are stamped by the clocks of different replicas. With an error of at most `e` each, an age that one reads off
//! another's stamp is wrong by at most `2e`: that is [`Terms::tolerance`]. Windows and quiet times are longer by it, so
//! that a replica whose clock is ahead ages no record early: for a write at true time `C`, stamped `C - e` or later, and
//! a judgement at true time `J`, read as `J + e` at most, `J - C < W` implies `J + e - (C - e) < W + 2e`, so the write is
//! counted. A freeze holds from `e` before to `e` after. Time also never runs backwards: what is recorded has passed,
//! so a clock that is behind judges and stamps at the latest recorded moment.
//!
//! A write happens after its admission: while a reservation is outstanding, its shift counts as happening now, and
//! one that the watch confirms is stamped with that moment, at most with the end of its lease.

mod bound;
mod cover;
mod event;
mod observe;

pub use cover::{Cover, covered_splits};
pub use event::Event;
pub use observe::{Noted, Sight};

use super::time::Moment;
use super::{History, Record};
use crate::policy::Identity;
use crate::split::{self, RuleKey, ServiceKey, Shares, Split};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// History of one destination's traffic: the spec of a `ShiftLedger`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ledger {
    /// The mesh of the destination.
    pub mesh: String,
    /// Whose traffic, whatever the port.
    #[schemars(with = "String")]
    pub destination: ServiceKey,
    /// The policies that split the destination, as they were last seen; the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Known>,
    /// What moved or may be moving, in the order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
}

/// One move of the destination's traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// What history says of it.
    #[serde(with = "shared")]
    #[schemars(with = "Record")]
    pub record: Arc<Record>,
    /// The uid of the policy's object.
    pub uid: String,
    /// The version of the object: of a reservation the one it was admitted on, none when it creates the object;
    /// afterwards the one that showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// [`split::digest`] of what the policy says of the destination after the move.
    pub digest: String,
    /// Set while nobody has seen the move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reserved>,
    /// It passed without admission and was noticed afterwards.
    #[serde(default, skip_serializing_if = "is_false")]
    pub observed: bool,
}

fn is_false(observed: &bool) -> bool {
    !observed
}

/// A move that was allowed and has not been seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reserved {
    /// The replica that allowed it.
    pub by: String,
    /// From then on it is not in flight any more.
    #[serde(with = "super::time")]
    #[schemars(with = "Moment")]
    pub until: Timestamp,
}

/// What a policy said of the destination when it was last seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Known {
    /// Which policy.
    #[schemars(with = "super::history::PolicyIdentity")]
    pub policy: Identity,
    /// The uid of its object.
    pub uid: String,
    /// The version of its object; of one that is absent, that of the list without it, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Does it not exist any more?
    #[serde(default, skip_serializing_if = "is_false")]
    pub gone: bool,
    /// [`split::digest`] of its rules for the destination.
    pub digest: String,
    /// Its rules for the destination, in their order.
    pub rules: Vec<Held>,
    /// How many rules there was no room for.
    #[serde(default, skip_serializing_if = "super::history::is_zero")]
    pub more: usize,
}

/// One rule of a policy, and who answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// Which rule.
    #[schemars(with = "String")]
    pub rule: RuleKey,
    /// Who answers.
    #[schemars(with = "BTreeMap<String, f64>")]
    pub shares: Shares,
}

/// What all who write a ledger agree on.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long a change may be in flight after it was admitted: at least the API server's request timeout.
    pub lease: SignedDuration,
    /// How far apart the clocks of two replicas may be.
    pub tolerance: SignedDuration,
    /// Does a watch tell of every write? Without one a reservation is stamped with its admission, and what an
    /// object's review shows is all there is to end it.
    pub watched: bool,
}

/// What a change is known by: a retry comes with another version, and is the same change.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Which policy changes.
    pub policy: Identity,
    /// The uid of its object.
    pub uid: String,
    /// The version it is admitted on; none when it creates the object.
    pub version: Option<String>,
    /// [`Ledger::digest`] of the splits after the change.
    pub digest: String,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(mesh: impl Into<String>, destination: ServiceKey) -> Self {
        Self { mesh: mesh.into(), destination, policies: Vec::new(), entries: Vec::new() }
    }

    /// The name of a destination's `ShiftLedger`: readable, with a hash that tells apart what reads alike.
    pub fn name(mesh: &str, destination: &ServiceKey) -> String {
        let text = format!("{mesh}-{destination}").to_ascii_lowercase();
        let mut slug = String::new();
        for letter in text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }) {
            if slug.len() < LONGEST_SLUG && !(letter == '-' && (slug.is_empty() || slug.ends_with('-'))) {
                slug.push(letter);
            }
        }
        let slug = if slug.trim_matches('-').is_empty() { "ledger" } else { slug.trim_matches('-') };
        let hash = hex::encode(Sha256::digest(format!("{mesh}\0{destination}")));
        format!("{slug}-{}", &hash[..8])
    }

    /// What tells whether a policy says the same of this destination: the digest of that part of its splits.
    pub fn digest(&self, splits: &[Split]) -> String {
        split::digest(splits.iter().filter(|split| self.is_of(split)))
    }

    fn is_of(&self, split: &Split) -> bool {
        *split.mesh == *self.mesh && split.destination == self.destination
    }

    /// Adds what guards judge by to a history: everything but the change that is judged, should it be reserved already.
    pub fn tell(&self, history: &mut History, asked: Option<&Mark>, terms: &Terms, now: Timestamp) {
        history.tolerance = terms.tolerance;
        for entry in &self.entries {
            let Some(reserved) = &entry.reserved else {
                history.records.push(entry.record.clone());
                continue;
            };
            if asked.is_some_and(|asked| entry.is_same(asked)) {
                continue;
            }
            history.records.push(entry.told(reserved, terms, now));
        }
        history.records.sort_by_key(|record| record.time);
    }

    /// Reserves a change. The same change, reserved and not seen yet, is not reserved twice but begins a new lease. On a
    /// version that the ledger knows to be gone there is nothing to reserve: no write on it can succeed, and when another
    /// write led to the same splits, the reservation would pass for a second one.
    ///
    /// Gives back the end of the lease when it is a new reservation. No two leases of one change on one version end at the
    /// same moment.
    ///
    /// `record` is what history shall say of it, `by` the replica.
    pub fn reserve(
        &mut self,
        mark: &Mark,
        record: Record,
        by: &str,
        cover: &Cover,
        terms: &Terms,
    ) -> Option<Timestamp> {
        if self.is_past(mark) {
            return None;
        }
        let now = record.time;
        let Mark { uid, mut version, digest, .. } = mark.clone();
        let mut until = now.saturating_add(terms.lease).unwrap_or(Timestamp::MAX);
        let mut new = true;
        self.entries.retain(|entry| {
            let Some(reserved) = entry.reserved.as_ref().filter(|_| entry.is_same(mark)) else { return true };
            new = false;
            until = until.max(reserved.until.saturating_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MAX));
            // A review of an older version comes to nothing: the write that may succeed is the later one.
            let versions = entry.version.as_deref().zip(version.as_deref());
            if versions.is_some_and(|(known, asked)| observe::order(known, asked) == Some(Ordering::Greater)) {
                version = entry.version.clone();
            }
            false
        });
        let reserved = Some(Reserved { by: by.to_owned(), until });
        self.entries.push(Entry { record: Arc::new(record), uid, version, digest, reserved, observed: false });
        self.bound(cover, now);
        new.then_some(until)
    }

    /// Was the policy seen at a later version than the one the change is admitted on?
    fn is_past(&self, mark: &Mark) -> bool {
        let known = self.policies.iter().find(|known| known.policy == mark.policy);
        let versions = known.and_then(|known| known.version.as_deref()).zip(mark.version.as_deref());
        versions.is_some_and(|(known, asked)| observe::order(known, asked) == Some(Ordering::Greater))
    }

    /// Gives a reservation back whose lease ends then, because the change is refused after all. Where the same change was
    /// admitted once more meanwhile, the lease or the version is another, and the reservation stays for that one.
    pub fn release(&mut self, mark: &Mark, until: Timestamp) -> bool {
        let outstanding = self.entries.len();
        let is_it = |entry: &Entry| {
            let lease = entry.reserved.as_ref().is_some_and(|reserved| reserved.until == until);
            lease && entry.version == mark.version && entry.is_same(mark)
        };
        self.entries.retain(|entry| !is_it(entry));
        self.entries.len() < outstanding
    }

    /// The reservations that nobody has seen.
    pub fn outstanding(&self) -> impl Iterator<Item = (&Entry, &Reserved)> {
        self.entries.iter().filter_map(|entry| Some((entry, entry.reserved.as_ref()?)))
    }
}

const LONGEST_SLUG: usize = 48;

impl Entry {
    /// Is it the same change of the same object? What is outstanding began where the object is: had it moved, the
    /// reservation would be void. So the end of the change tells.
    fn is_same(&self, mark: &Mark) -> bool {
        self.uid == mark.uid && self.digest == mark.digest && self.record.policy == mark.policy
    }

    /// What history says of it while nobody has seen it: it may be written at any moment until its lease is over.
    fn told(&self, reserved: &Reserved, terms: &Terms, now: Timestamp) -> Arc<Record> {
        let record = &self.record;
        let time = if terms.watched { latest(now, record.time, reserved.until) } else { record.time };
        if time == record.time && !self.creates() {
            return record.clone();
        }
        let mut told = Record { time, ..Record::clone(record) };
        if self.creates() {
            told.forget_rules();
        }
        Arc::new(told)
    }

    /// Is it to create an object, and nobody has seen that one? Anybody may ask to create what exists, so that it proves
    /// of no other object of the name that it is gone: its shift counts, but no run of shifts begins with it.
    fn creates(&self) -> bool {
        self.reserved.is_some() && self.version.is_none()
    }

    /// Is its lease surely over, whoever's clock it was?
    pub fn is_overdue(&self, terms: &Terms, now: Timestamp) -> bool {
        let over = |reserved: &Reserved| now.duration_since(reserved.until) >= terms.tolerance;
        self.reserved.as_ref().is_some_and(over)
    }
}

/// `now` within these bounds; the latter may be the smaller one when stamps are made by hand.
fn latest(now: Timestamp, from: Timestamp, until: Timestamp) -> Timestamp {
    now.min(until).max(from)
}

/// A record that is shared reads and writes like the record.
mod shared {
    use super::{Arc, Record};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(record: &Arc<Record>, serializer: S) -> Result<S::Ok, S::Error> {
        record.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Record>, D::Error> {
        Record::deserialize(deserializer).map(Arc::new)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
