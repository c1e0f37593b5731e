//! A change to one document, and why.
//!
//! Invariant: a proposal touches one document, so that each pull request can be reverted alone.

use crate::evidence::{Evidence, Subject};
use crate::field::FieldPath;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub mod body;

/// What a proposal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Raises the canary's share.
    Promote,
    /// Gives everything back to the stable arm.
    Rollback,
    /// Asks a person: merging does what the edit says, closing leaves things as they are.
    Ask,
}

/// One weight that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightChange {
    /// The weight's place in the document.
    pub field: FieldPath,
    /// The backend it belongs to, as the policy names it.
    pub backend: String,
    /// Before (the default 1 when absent).
    pub from: u64,
    /// After.
    pub to: u64,
}

/// A complete proposal but for its words, which [`body`] writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proposal {
    /// What it does.
    pub kind: Kind,
    /// What is on trial.
    pub subject: Subject,
    /// The file in the repository.
    pub path: String,
    /// The document in the file, from 0.
    pub document: usize,
    /// When the run began that this is about: the canary's first weight. What was merged or declined in one run says
    /// nothing about the next.
    #[serde(with = "crate::guard::time::option", skip_serializing_if = "Option::is_none")]
    pub begun: Option<Timestamp>,
    /// The weights to change.
    pub changes: Vec<WeightChange>,
    /// The canary's share before, in percent.
    pub from: f64,
    /// The canary's share after this write, in percent.
    pub to: f64,
    /// The shares after the writes that follow on the way to the rung, empty when this write reaches it.
    pub then: Vec<f64>,
    /// What the guards said, one sentence each; empty when nothing stands in the way.
    pub guards: Vec<String>,
    /// Why a person must decide; `None` when the bot may merge.
    pub person: Option<String>,
    /// What was seen, and what it means.
    pub evidence: Evidence,
}
