//! What moved before, and which split is the stable one.

use super::NOISE;
use super::time::Moment;
use crate::policy::Identity;
use crate::split::{RuleChange, RuleKey, ServiceKey, Shares};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The shifts so far. Records of other destinations do no harm.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The shifts, in the order of time.
    pub records: Vec<Arc<Record>>,
    /// How far apart the clocks of those who judge and record may be, all of them together: windows and quiet times are
    /// this much longer, and a freeze holds half of it earlier and longer.
    pub tolerance: SignedDuration,
}

/// One change of one destination's traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// When.
    #[serde(with = "super::time")]
    #[schemars(with = "Moment")]
    pub time: Timestamp,
    /// By a change of which policy.
    #[schemars(with = "PolicyIdentity")]
    pub policy: Identity,
    /// The mesh of the destination.
    pub mesh: String,
    /// Whose traffic, whatever the port.
    #[schemars(with = "String")]
    pub destination: ServiceKey,
    /// How far, in percentage points: the largest over the rules that did not move back.
    pub shift: f64,
    /// By automation?
    pub automated: bool,
    /// Did all of it move back towards the stable split? Then no window counts it.
    pub rollback: bool,
    /// The rules that moved, in the order of their keys.
    pub rules: Vec<Moved>,
    /// How many rules moved that are not listed; each moved like one that is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

pub(super) fn is_zero(more: &usize) -> bool {
    *more == 0
}

/// What a schema says of an [`Identity`].
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) struct PolicyIdentity {
    kind: String,
    mesh: String,
    namespace: Option<String>,
    name: String,
}

/// One rule that moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// Which rule.
    #[schemars(with = "String")]
    pub rule: RuleKey,
    /// Who answered before.
    #[schemars(with = "BTreeMap<String, f64>")]
    pub before: Shares,
    /// Who answered after.
    #[schemars(with = "BTreeMap<String, f64>")]
    pub after: Shares,
}

impl History {
    /// The records of a destination, oldest first.
    pub fn of<'a>(&'a self, mesh: &'a str, destination: &'a ServiceKey) -> impl DoubleEndedIterator<Item = &'a Record> {
        let records = self.records.iter().map(Arc::as_ref);
        records.filter(move |record| record.mesh == mesh && record.destination == *destination)
    }

    /// The moment that a clock's `now` is: time that was recorded has passed.
    pub(super) fn now(&self, now: Timestamp) -> Timestamp {
        self.records.iter().map(|record| record.time).fold(now, Timestamp::max)
    }

    /// The split before the current run of shifts. A split that stood for `settle` ends a run.
    ///
    /// `place` is where the rule stands among those that change: in a record of the same rules it stands there too.
    pub(super) fn stable<'a>(
        &'a self,
        policy: &Identity,
        (place, rule): (usize, &'a RuleChange),
        settle: SignedDuration,
        now: Timestamp,
    ) -> &'a Shares {
        let settle = settle.saturating_add(self.tolerance);
        let key = rule.rule.brief();
        let mut stable = &rule.before;
        let mut later = now;
        for record in self.of(&rule.mesh, &rule.destination).rev().filter(|record| record.policy == *policy) {
            let Some(moved) = record.moved(place, &key, stable) else { continue };
            if later.duration_since(record.time) >= settle {
                break;
            }
            stable = &moved.before;
            later = record.time;
        }
        stable
    }
}

impl From<Vec<Record>> for History {
    fn from(records: Vec<Record>) -> Self {
        let mut history = Self::default();
        history.extend(records);
        history
    }
}

impl Extend<Record> for History {
    fn extend<T: IntoIterator<Item = Record>>(&mut self, records: T) {
        self.records.extend(records.into_iter().map(Arc::new));
    }
}

impl Record {
    /// What happened to a rule that led to these shares. A rule that the record has no room for moved like one that is
    /// listed.
    fn moved(&self, place: usize, rule: &RuleKey, to: &Shares) -> Option<&Moved> {
        let at = |place: usize| self.rules.get(place).filter(|moved| moved.rule == *rule);
        let listed = at(place).or_else(|| at(self.rules.partition_point(|moved| moved.rule < *rule)));
        listed.or_else(|| self.rules.iter().filter(|_| self.more > 0).find(|moved| moved.after == *to))
    }
}

/// Is no backend further from its stable share than before, and one nearer?
pub(super) fn is_rollback(rule: &RuleChange, stable: &Shares) -> bool {
    if rule.widened || rule.after.is_empty() {
        return false;
    }
    let stable = &under_keys_of(rule, stable);
    let mut nearer = false;
    for service in stable.services().chain(rule.before.services()).chain(rule.after.services()) {
        let goal = stable.of(service);
        let before = (rule.before.of(service) - goal).abs();
        let after = (rule.after.of(service) - goal).abs();
        if after > before + NOISE {
            return false;
        }
        nearer |= after + NOISE < before;
    }
    nearer
}

/// The stable shares under the keys of the change. Where no route was, the destination itself answers and nobody wrote
/// its port: a record of that and a rule that names the port mean the same service.
fn under_keys_of<'a>(rule: &RuleChange, stable: &'a Shares) -> Cow<'a, Shares> {
    let own = &rule.destination;
    let has_port = |key: &&ServiceKey| *key != own && key.unported() == own.as_str();
    let ports = |shares: &'_ Shares| shares.services().filter(has_port).cloned().collect::<Vec<_>>();
    if rule.before.contains(own) || rule.after.contains(own) {
        return Cow::Owned(stable.renamed(|key| if has_port(&key) { own.clone() } else { key.clone() }));
    }
    if stable.contains(own) {
        let known = [ports(&rule.before), ports(&rule.after)];
        // With several ports nobody knows which one it was.
        if let Some([port]) = known.iter().find(|ports| !ports.is_empty()).map(Vec::as_slice) {
            return Cow::Owned(stable.renamed(|key| if key == own { port.clone() } else { key.clone() }));
        }
    }
    Cow::Borrowed(stable)
}
