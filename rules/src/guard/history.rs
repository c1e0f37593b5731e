//! What moved before, and which split is the stable one.

use super::NOISE;
use crate::policy::Identity;
use crate::split::{RuleChange, RuleKey, ServiceKey, Shares};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The shifts so far, in the order of time. Records of other destinations do no harm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    /// The shifts.
    pub records: Vec<Record>,
}

/// One change of one destination's traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// When.
    #[serde(with = "super::time")]
    pub time: Timestamp,
    /// By a change of which policy.
    pub policy: Identity,
    /// The mesh of the destination.
    pub mesh: String,
    /// Whose traffic, whatever the port.
    pub destination: ServiceKey,
    /// How far, in percentage points: the largest over the rules that did not move back.
    pub shift: f64,
    /// By automation?
    pub automated: bool,
    /// Did all of it move back towards the stable split? Then no window counts it.
    pub rollback: bool,
    /// The rules that moved.
    pub rules: Vec<Moved>,
}

/// One rule that moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// Which rule.
    pub rule: RuleKey,
    /// Who answered before.
    pub before: Shares,
    /// Who answered after.
    pub after: Shares,
}

impl History {
    /// The records of a destination, oldest first.
    pub fn of<'a>(&'a self, mesh: &'a str, destination: &'a ServiceKey) -> impl DoubleEndedIterator<Item = &'a Record> {
        self.records.iter().filter(move |record| record.mesh == mesh && record.destination == *destination)
    }

    /// The split before the current run of shifts. A split that stood for `settle` ends a run.
    pub(super) fn stable(
        &self,
        policy: &Identity,
        rule: &RuleChange,
        settle: SignedDuration,
        now: Timestamp,
    ) -> Shares {
        let mut stable = &rule.before;
        let mut later = now;
        for record in self.of(&rule.mesh, &rule.destination).rev().filter(|record| record.policy == *policy) {
            let Some(moved) = record.rules.iter().find(|moved| moved.rule == rule.rule) else { continue };
            if later.duration_since(record.time) >= settle {
                break;
            }
            stable = &moved.before;
            later = record.time;
        }
        stable.clone()
    }
}

/// Is no backend further from its stable share than before, and one nearer?
pub(super) fn is_rollback(rule: &RuleChange, stable: &Shares) -> bool {
    if rule.widened || rule.after.is_empty() {
        return false;
    }
    let share = |shares: &Shares, service| shares.get(service).copied().unwrap_or(0.0);
    let services = rule.before.keys().chain(rule.after.keys()).chain(stable.keys());
    let mut nearer = false;
    for service in services {
        let goal = share(stable, service);
        let before = (share(&rule.before, service) - goal).abs();
        let after = (share(&rule.after, service) - goal).abs();
        if after > before + NOISE {
            return false;
        }
        nearer |= after + NOISE < before;
    }
    nearer
}
