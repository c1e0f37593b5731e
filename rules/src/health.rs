//! How healthy is a policy: rules, findings, score.

mod known;

pub use known::Known;

use crate::field::FieldPath;
use crate::policy::Policy;
use crate::split::Change;
use crate::validate::Kuma;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// Something a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's stable id, such as `KMH-T05`.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// Where it is.
    pub field: FieldPath,
    /// What is wrong, with names and numbers.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// What is examined.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The document, in Kubernetes or Universal form.
    pub document: &'a Value,
    /// The same, typed, where it could be read.
    pub policy: Option<&'a Policy>,
    /// What it changes, where the state before is known.
    pub change: Option<&'a Change>,
}

/// What the rules say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// The findings, the gravest first.
    pub findings: Vec<Finding>,
    /// 0 to 100; none when no rule applies.
    pub score: Option<u8>,
}

/// Examines a document.
pub fn examine(_subject: &Subject, _known: &Known, _kuma: &Kuma) -> Health {
    Health::default()
}
