//! A person's consent to one digest.

use super::time::Moment;
use super::{Approvals, Author, Request, ShiftGuard, glob};
use crate::diagnostic::Diagnostic;
use crate::field::FieldPath;
use crate::policy::typed;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// A person's consent to one digest: the spec of a `ShiftApproval`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approval {
    /// The digest of the change, as [`Change`](crate::split::Change) has it.
    pub digest: String,
    /// Who consents.
    pub approver: String,
    /// The approver's groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Since when; left out, since the object was created.
    #[serde(with = "super::time")]
    #[schemars(with = "Option<Moment>")]
    pub created: Timestamp,
    /// Until when; left out, the guard's `maxAge` alone decides.
    #[serde(default, with = "super::time::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Moment>")]
    pub expires: Option<Timestamp>,
    /// Why, or where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ShiftApproval {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: Value,
    spec: Approval,
}

const MALFORMED: &str = "approval-malformed";

impl Approval {
    /// Reads a `ShiftApproval`.
    ///
    /// # Errors
    ///
    /// Every value that is wrong or unknown, with its field path.
    pub fn read(value: &Value) -> Result<Self, Vec<Diagnostic>> {
        let dated = dated(value);
        let value = dated.as_ref().unwrap_or(value);
        let (document, mut wrong) = typed::<ShiftApproval>(MALFORMED, value, &FieldPath::root());
        let Some(ShiftApproval { api_version, kind, spec, .. }) = document else { return Err(wrong) };
        let mut report = |at: FieldPath, problem: &str| wrong.push(Diagnostic::error(MALFORMED, at, problem));
        let at = |key: &'static str| FieldPath::root().key(key);
        if api_version != "sluice.dev/v1alpha1" {
            report(at("apiVersion"), "must be `sluice.dev/v1alpha1`");
        }
        if kind != "ShiftApproval" {
            report(at("kind"), "must be `ShiftApproval`");
        }
        if spec.digest.len() != 64 || !spec.digest.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
            report(at("spec").key("digest"), "must be a SHA-256 digest, 64 digits of lower case hex");
        }
        if spec.approver.is_empty() {
            report(at("spec").key("approver"), "must not be empty");
        }
        if spec.expires.is_some_and(|expires| expires <= spec.created) {
            report(at("spec").key("expires"), "must be after `created`");
        }
        if wrong.is_empty() { Ok(spec) } else { Err(wrong) }
    }
}

/// The same document with its time of creation as the time of consent, where it names none.
fn dated(value: &Value) -> Option<Value> {
    if value.get("spec")?.get("created").is_some_and(|created| !created.is_null()) {
        return None;
    }
    let created = value.get("metadata")?.get("creationTimestamp")?.clone();
    let mut dated = value.clone();
    dated.get_mut("spec")?.as_object_mut()?.insert("created".to_owned(), created);
    Some(dated)
}

/// Who consents to the request in a way that this guard takes; `since` is the earliest time of consent.
pub(super) fn approvers<'a>(
    guard: &ShiftGuard,
    request: &Request,
    approvals: &'a [Approval],
    since: Option<Timestamp>,
    now: Timestamp,
) -> BTreeSet<&'a str> {
    let Some(Approvals { groups, max_age, .. }) = &guard.spec.approvals else { return BTreeSet::new() };
    let counts = |approval: &&Approval| {
        let ours = groups.is_empty() || approval.groups.iter().any(|has| groups.iter().any(|group| glob(group, has)));
        let young = max_age.is_none_or(|age| now.duration_since(approval.created) <= age.0);
        // Nobody approves their own change, and automation approves nothing.
        let account = Author::Account { name: approval.approver.clone(), groups: approval.groups.clone() };
        let own = matches!(&request.author, Author::Account { name, .. } if *name == approval.approver);
        approval.digest == request.change.digest
            && ours
            && young
            && approval.created <= now
            && approval.expires.is_none_or(|expires| now < expires)
            && since.is_none_or(|since| approval.created >= since)
            && !own
            && !guard.is_automated(&account)
    };
    approvals.iter().filter(counts).map(|approval| approval.approver.as_str()).collect()
}
