//! How healthy is a policy: rules, findings, score.
//!
//! A rule is one file of `health/`: what it sees, in which kinds, and how grave that is. [`examine`] runs every rule
//! that applies to a document. A rule that cannot tell, because what it needs is not known, says nothing and counts
//! neither way; what that leaves open is [`Health::least`] to [`Health::most`].

mod known;
mod object;
mod reference;
mod rule;
mod score;

mod access_log_without_caller;
mod backends_serve_nobody;
mod connect_timeout_above_request_timeout;
mod deprecated_dialect;
mod fault_injection_active;
mod field_without_effect;
mod health_check_slower_than_interval;
mod hostnames_collide;
mod http_route_to_tcp;
mod last_weight_in_one_write;
mod metrics_hidden;
mod passthrough_beside_external_services;
mod passthrough_wildcard_without_port;
mod patch_touches_security;
mod patch_without_owner;
mod reference_to_nothing;
mod request_timeout_disabled;
mod retry_never_after_timeout;
mod rule_unreachable;
mod self_signed_identity;
mod traffic_leaves_mesh;
mod weak_tls;
mod wide_allow;

pub use known::Known;
pub use rule::Rule;
pub use score::{Outcome, Score, State, score};

use crate::field::FieldPath;
use crate::split::Change;
use crate::validate::Kuma;
use object::Object;
use rule::{Answer, Check, Look};
use schemars::JsonSchema;
use score::Tally;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Every rule, in the order of the ids. An id keeps one meaning for good and is never given again.
pub const RULES: &[Rule] = &[
    access_log_without_caller::RULE,
    metrics_hidden::RULE,
    field_without_effect::RULE,
    patch_without_owner::RULE,
    deprecated_dialect::RULE,
    request_timeout_disabled::RULE,
    retry_never_after_timeout::RULE,
    health_check_slower_than_interval::RULE,
    fault_injection_active::RULE,
    connect_timeout_above_request_timeout::RULE,
    wide_allow::RULE,
    passthrough_beside_external_services::RULE,
    passthrough_wildcard_without_port::RULE,
    weak_tls::RULE,
    self_signed_identity::RULE,
    patch_touches_security::RULE,
    reference_to_nothing::RULE,
    rule_unreachable::RULE,
    backends_serve_nobody::RULE,
    http_route_to_tcp::RULE,
    traffic_leaves_mesh::RULE,
    hostnames_collide::RULE,
    last_weight_in_one_write::RULE,
];

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words are their meaning")]
pub enum Severity {
    Info,
    Low,
    #[serde(alias = "warning")]
    Medium,
    #[serde(alias = "error")]
    High,
    Critical,
}

impl Severity {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Something a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's stable id, such as `KMH-T05`.
    pub id: &'static str,
    /// How much it matters; never more than the severity of the rule.
    pub severity: Severity,
    /// Where it is.
    pub field: FieldPath,
    /// What is wrong, with names and numbers.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Finding {
    /// The same, with a remedy.
    #[must_use]
    pub(in crate::health) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The same, less grave.
    #[must_use]
    pub(in crate::health) fn only(mut self, severity: Severity) -> Self {
        self.severity = severity.min(self.severity);
        self
    }
}

/// What the rules say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// The findings, the gravest first.
    pub findings: Vec<Finding>,
    /// 0 to 100 over the rules that could tell; none when no rule applies or none could tell.
    pub score: Option<u8>,
    /// The score if every rule that cannot tell would find something.
    pub least: Option<u8>,
    /// The score if every rule that cannot tell would find nothing.
    pub most: Option<u8>,
}

/// What the rules say of a document, whatever its write changes.
#[derive(Debug, Clone, Default)]
pub struct Examination {
    tally: Tally,
    findings: Vec<Finding>,
    /// Those that look at what is changed.
    of_change: Vec<&'static Rule>,
}

/// Examines a document, in Kubernetes or Universal form. One that is not Kuma's, or has a kind that no rule looks at, has
/// no findings and no score.
pub fn examine(document: &Value, known: &Known, kuma: &Kuma) -> Examination {
    let mut examination = Examination::default();
    let Some(object) = Object::read(document) else { return examination };
    let look = Look::new(object, known, kuma);
    let mut answer = Answer::default();
    for rule in RULES.iter().filter(|rule| rule.kinds.contains(&object.kind)) {
        match rule.check {
            Check::Object(check) => {
                let state = answer.ask(|answer| check(&look, answer));
                examination.tally.add(rule.severity, state);
            }
            Check::Change(_) => examination.of_change.push(rule),
        }
    }
    examination.findings = answer.findings;
    examination
}

impl Examination {
    /// Its health, when a write changes this; nothing is said of a change that is not known.
    pub fn health(&self, change: Option<&Change>) -> Health {
        let Self { mut tally, findings, of_change } = self.clone();
        let mut answer = Answer::after(findings);
        for rule in of_change {
            if let (Check::Change(check), Some(change)) = (rule.check, change) {
                let state = answer.ask(|answer| check(change, answer));
                tally.add(rule.severity, state);
            }
        }
        let (least, score, most) = tally.points();
        let mut findings = answer.findings;
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Health { findings, score, least, most }
    }

    /// What was found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

/// Finds a rule by its id (`KMH-T05`), the short form of it (`T05`) or its name, whatever the case.
pub fn rule(name: &str) -> Option<&'static Rule> {
    let is = |rule: &&Rule| {
        [rule.id, rule.id.trim_start_matches("KMH-"), rule.name].iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    RULES.iter().find(is)
}

#[cfg(test)]
mod tests;
