//! Does a document fit its kind, as Kuma's own control plane would answer?
//!
//! The answer has the control plane's steps, field paths and words, so that what is refused here is what a cluster or
//! the REST API would refuse. For TrafficRoute, MeshHTTPRoute, MeshTCPRoute and MeshTrafficPermission all steps are
//! walked; other kinds get the schema and the checks of names, labels and namespaces; unknown kinds pass. The zone is
//! taken to stand alone, the object to be new, and its mesh to exist. `testdata/validation/` holds the verdicts of the
//! real control planes that a test compares with.
//!
//! Known to differ: Go reads JSON keys of Universal documents whatever their case, this module does not.

mod decode;
mod grammar;
mod http_route;
mod kubernetes;
mod meta;
mod spiffe;
mod tags;
mod target_ref;
mod tcp_route;
mod traffic_permission;
mod traffic_route;
mod typed;
mod universal;

use crate::schema::{self, Form, Place};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

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

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2_14 => "2.14",
            Self::V3_0 => "3.0",
        })
    }
}

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown Kuma version `{0}`; write 2.14 or 3.0")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "2.14" => Ok(Self::V2_14),
            "3.0" => Ok(Self::V3_0),
            _ => Err(VersionError(text.to_owned())),
        }
    }
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

impl Verdict {
    fn refused(stage: Stage, mut violations: Vec<Violation>) -> Self {
        violations.sort();
        Self { stage: Some(stage), violations }
    }

    fn refused_text(stage: Stage, message: impl Into<String>) -> Self {
        Self::refused(stage, vec![Violation { field: String::new(), message: message.into() }])
    }
}

/// What Kuma would answer to this document.
///
/// Documents that are not Kuma's, and kinds that the version does not have, pass: they are somebody else's question
/// ([`schema::exists`] tells the second).
pub fn verdict(document: &Value, kuma: &Kuma) -> Verdict {
    let Some(form) = Form::of(document) else { return Verdict::default() };
    let kind = form.kind();
    let Some(schema) = schema::of(kind, kuma.version) else { return Verdict::default() };
    match form {
        Form::Kubernetes(_) => kubernetes::verdict(document, kind, schema, kuma),
        Form::Universal(_) => universal::verdict(document, kind, schema, kuma),
    }
}

/// The kinds whose rules are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    TrafficRoute,
    HttpRoute,
    TcpRoute,
    TrafficPermission,
}

impl Rules {
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "TrafficRoute" => Some(Self::TrafficRoute),
            "MeshHTTPRoute" => Some(Self::HttpRoute),
            "MeshTCPRoute" => Some(Self::TcpRoute),
            "MeshTrafficPermission" => Some(Self::TrafficPermission),
            _ => None,
        }
    }
}

/// Who may be selected depends on where a policy lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// In the system namespace, or Universal.
    System,
    /// In an application's namespace.
    Application,
}

/// What the rules of a kind found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, place: &Place<'_>, message: impl Into<String>) {
        self.0.push(Violation { field: place.to_string(), message: message.into() });
    }
}

/// The rules of a kind with a schema, on a spec that fits it. A missing or null spec is an empty one.
fn violations(rules: Rules, spec: Option<&Value>, role: Role, version: Version) -> Vec<Violation> {
    let mut found = Findings::default();
    let empty = serde_json::Map::new();
    let spec = spec.and_then(Value::as_object).unwrap_or(&empty);
    let place = Place::ROOT.field("spec");
    match rules {
        Rules::HttpRoute => http_route::check(spec, role, version, &place, &mut found),
        Rules::TcpRoute => tcp_route::check(spec, role, version, &place, &mut found),
        Rules::TrafficPermission => traffic_permission::check(spec, version, &place, &mut found),
        // Flat in Universal form and opaque on Kubernetes: its callers decode it.
        Rules::TrafficRoute => {}
    }
    found.0
}

#[cfg(test)]
mod tests;
