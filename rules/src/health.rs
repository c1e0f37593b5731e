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
use rule::{Answer, Look};
use schemars::JsonSchema;
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

/// What is examined.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The document, in Kubernetes or Universal form.
    pub document: &'a Value,
    /// What it changes, where the state before is known.
    pub change: Option<&'a Change>,
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

/// Examines a document. One that is not Kuma's, or has a kind that no rule looks at, has no findings and no score.
pub fn examine(subject: &Subject, known: &Known, kuma: &Kuma) -> Health {
    let mut health = Health::default();
    let Some(object) = Object::read(subject.document) else { return health };
    let look = Look::new(object, subject.change, known, kuma);
    let mut answer = Answer::default();
    let mut tally = score::Tally::default();
    for rule in RULES.iter().filter(|rule| rule.applies(&look)) {
        let state = answer.ask(rule, &look);
        tally.add(rule.severity, state);
    }
    (health.least, health.score, health.most) = tally.points();
    health.findings = answer.findings;
    health.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    health
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
