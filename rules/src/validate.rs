//! Does a document fit its kind, as Kuma's own control plane would answer?

use serde::Serialize;
use serde_json::Value;

/// The control plane that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kuma {
    /// Its generation.
    pub version: Version,
    /// The zone it serves.
    pub zone: String,
    /// The namespace it runs in.
    pub system_namespace: String,
}

impl Default for Kuma {
    fn default() -> Self {
        Self { version: Version::V2_14, zone: "zone-1".to_owned(), system_namespace: "kuma-system".to_owned() }
    }
}

/// A generation of Kuma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The last one with the legacy policies.
    V2_14,
    /// The first one without them.
    V3_0,
}

/// The step that refuses a document first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words are Kuma's steps")]
pub enum Stage {
    Schema,
    Decode,
    Validator,
    Meta,
    Mutating,
    Webhook,
    Create,
}

/// One thing that is refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// Where, as Kuma writes it.
    pub field: String,
    /// Why.
    pub message: String,
}

/// What Kuma answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The step that refuses; none when the document would be stored.
    pub stage: Option<Stage>,
    /// What that step refuses.
    pub violations: Vec<Violation>,
}

/// What Kuma would answer to this document.
pub fn verdict(_document: &Value, _kuma: &Kuma) -> Verdict {
    Verdict::default()
}
