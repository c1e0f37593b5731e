//! AdmissionReview in, `rules`, AdmissionReview out.

use crate::ledger::Ledger;
use crate::world::Shared;
use bytes::Bytes;
use std::time::Instant;

/// The admission handler.
#[derive(Debug)]
pub struct Admission {
    /// What is known.
    pub world: Shared,
    /// Where history is kept.
    pub ledger: Ledger,
}

/// An answer: what goes over the wire, and what metrics and logs say of it.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status: 200 for every verdict; another only when there is no uid to echo.
    pub status: u16,
    /// The body, JSON.
    pub body: Bytes,
    /// What happened, for metrics and logs.
    pub summary: Summary,
}

/// What happened, for metrics and logs.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// `allowed`, `warned`, `denied`, `exempt`, `unavailable` or `malformed`.
    pub verdict: &'static str,
    /// The guards and their codes that decided, such as (`llm-serving`, `maxStep`).
    pub reasons: Vec<(String, &'static str)>,
    /// The uid of the review.
    pub uid: String,
    /// One line for a log: who, what, why.
    pub line: String,
}

impl Admission {
    /// Answers one review.
    pub async fn answer(&self, body: &[u8], deadline: Instant) -> Answer {
        let _ = (body, deadline);
        Answer { status: 500, body: Bytes::new(), summary: Summary::default() }
    }
}
