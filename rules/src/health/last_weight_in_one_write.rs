#![doc = include_str!("../../../testdata/rules/last-weight-in-one-write/README.md")]

use super::Severity;
use super::rule::{Answer, Check, Rule, quoted};
use crate::split::{Change, What};

pub(super) const RULE: Rule = Rule {
    id: "KMH-T10",
    name: "last-weight-in-one-write",
    severity: Severity::Medium,
    kinds: &["MeshHTTPRoute", "MeshTCPRoute", "TrafficRoute"],
    summary: "a backend loses its last weight in one write",
    explanation: include_str!("../../../testdata/rules/last-weight-in-one-write/README.md"),
    check: Check::Change(check),
};

/// A share that may go at once, in percentage points.
const SMALL: f64 = 10.0;

fn check(change: &Change, answer: &mut Answer) {
    for rule in change.rules.iter().filter(|rule| rule.what == What::Moved) {
        let emptied = rule.before.iter().filter(|(service, _)| !rule.after.contains(service));
        let Some((service, share)) = emptied.max_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
        let first = rule.after.services().find(|service| !rule.before.contains(service));
        let (name, share) = (quoted(service.as_str()), (share * 100.0).round() / 100.0);
        let message = match first {
            Some(first) => format!(
                "{name} gives up its last {share} % in the write that gives {} its first: requests fail for up to 100 ms",
                quoted(first.as_str())
            ),
            None if share > SMALL => {
                format!("{name} goes from {share} % to 0 at once: that share fails for up to 100 ms")
            }
            None => continue,
        };
        let help = "leave both a weight in between, such as 99 and 1; a rollback from a broken backend may do it";
        answer.found(RULE.at(rule.field.clone(), message).help(help));
    }
}
