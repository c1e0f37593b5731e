//! One destination whose traffic a change moves.

use super::matches::Traffic;
use super::{History, Moved, NOISE, Record, history};
use crate::policy::Identity;
use crate::split::{RuleChange, ServiceKey, Shares};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// The rules of a change that move one destination's traffic.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) mesh: &'a str,
    pub(super) destination: &'a ServiceKey,
    rules: Vec<&'a RuleChange>,
}

impl Record {
    /// Counts what does not move back; without any of it the record is a rollback.
    pub(super) fn count<'a>(&mut self, forward: impl Iterator<Item = &'a Forward<'a>>) {
        let largest = forward.map(|forward| forward.rule.shift).reduce(f64::max);
        self.rollback = largest.is_none();
        self.shift = largest.unwrap_or(self.shift);
    }
}

/// A rule that does not move back towards its stable split.
pub(super) struct Forward<'a> {
    pub(super) rule: &'a RuleChange,
    pub(super) stable: &'a Shares,
}

impl<'a> Subject<'a> {
    /// The destinations whose traffic the rules move, in the order of their names.
    pub(super) fn all(rules: &'a [RuleChange]) -> Vec<Self> {
        let mut subjects: BTreeMap<(&str, &ServiceKey), Vec<&RuleChange>> = BTreeMap::new();
        for rule in rules.iter().filter(|rule| rule.shift > NOISE) {
            subjects.entry((&rule.mesh, &rule.destination)).or_default().push(rule);
        }
        let subjects = subjects.into_iter();
        subjects.map(|((mesh, destination), rules)| Subject { mesh, destination, rules }).collect()
    }

    pub(super) fn traffic(&self, identity: &'a Identity) -> Traffic<'a> {
        let mut traffic = Traffic::new(self.mesh, identity.namespace.as_deref());
        traffic.add(self.destination);
        for rule in &self.rules {
            rule.before.services().chain(rule.after.services()).for_each(|service| traffic.add(service));
            traffic.add_namespace(rule.namespace.as_deref());
        }
        traffic
    }

    pub(super) fn forward(
        &self,
        policy: &Identity,
        history: &'a History,
        settle: SignedDuration,
        now: Timestamp,
    ) -> Vec<Forward<'a>> {
        let mut forward = Vec::new();
        for (place, rule) in self.rules.iter().enumerate() {
            let stable = history.stable(policy, (place, rule), settle, now);
            if !history::is_rollback(rule, stable) {
                forward.push(Forward { rule, stable });
            }
        }
        forward
    }

    pub(super) fn record(&self, policy: &Identity, time: Timestamp) -> Record {
        let moved = |rule: &&RuleChange| Moved {
            rule: rule.rule.brief(),
            before: rule.before.clone(),
            after: rule.after.clone(),
        };
        let mut rules: Vec<Moved> = self.rules.iter().map(moved).collect();
        // A long key is told briefly, and then stands elsewhere.
        rules.sort_by(|a, b| a.rule.cmp(&b.rule));
        Record {
            time,
            policy: policy.clone(),
            mesh: self.mesh.to_owned(),
            destination: self.destination.clone(),
            shift: self.rules.iter().map(|rule| rule.shift).fold(0.0, f64::max),
            automated: false,
            rollback: false,
            rules,
            more: 0,
        }
    }
}
