//! The answer to a review: exactly what the API server reads, nothing more.

use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;

/// The answer to one request.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// The request's uid.
    pub uid: String,
    /// May it happen?
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What the client is shown although it may happen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the audit log keeps.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audit_annotations: BTreeMap<&'static str, String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The HTTP status that the client gets; the webhook's own answer is 200.
    pub code: u16,
    /// One word for machines, such as `Invalid`.
    pub reason: &'static str,
    /// One text for people.
    pub message: String,
    /// What kubectl prints instead of the message when the reason is `Invalid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// The object that is refused, and each reason on its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Details {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its group.
    pub group: String,
    /// The reasons.
    pub causes: Vec<Cause>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// One word for machines, such as `MaxStep`.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// Where in the object.
    pub field: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: &'a Response,
}

impl Response {
    /// The body of the answer.
    pub fn to_json(&self) -> Bytes {
        let envelope = Envelope { api_version: super::VERSION, kind: "AdmissionReview", response: self };
        // Texts, numbers and lists of them: there is nothing that JSON cannot hold.
        serde_json::to_vec(&envelope).unwrap_or_default().into()
    }
}
