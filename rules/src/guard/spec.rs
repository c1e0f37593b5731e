//! What a `ShiftGuard` says.

use super::{Author, Freeze, Period, glob};
use crate::diagnostic::Diagnostic;
use crate::field::FieldPath;
use crate::health::Severity;
use crate::policy::{nullable, typed};
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Limits on shifts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShiftGuard {
    /// `sluice.dev/v1alpha1`.
    pub api_version: String,
    /// `ShiftGuard`.
    pub kind: String,
    /// The guard's name.
    pub metadata: Metadata,
    /// The limits.
    pub spec: Spec,
}

/// What Kubernetes keeps of an object; only the name matters here.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    /// The guard's name.
    pub name: String,
}

/// What a guard asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Which traffic it guards.
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Match")]
    pub r#match: Match,
    /// What happens to a change beyond a limit.
    pub enforcement: Enforcement,
    /// Whose changes count as automated.
    #[serde(deserialize_with = "nullable")]
    pub automation: Automation,
    /// How far shifts may go.
    #[serde(deserialize_with = "nullable")]
    pub caps: Caps,
    /// When there are no shifts.
    #[serde(deserialize_with = "nullable")]
    pub freeze: Vec<Freeze>,
    /// Which approvals lift the limits; without it none does.
    pub approvals: Option<Approvals>,
    /// What a policy's health must be.
    pub health: Option<Health>,
    /// How long a split stands before it is the stable one; a day if left out.
    pub settle: Option<Period>,
}

/// Which traffic a guard guards; `*` stands for any text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// The meshes.
    pub meshes: Vec<String>,
    /// The services: the destination or any of the backends, by key or plain name.
    pub services: Vec<String>,
    /// The namespaces: of the policy or of the destination.
    pub namespaces: Vec<String>,
}

impl Default for Match {
    fn default() -> Self {
        let any = || vec!["*".to_owned()];
        Self { meshes: any(), services: any(), namespaces: any() }
    }
}

/// What happens to a change beyond a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes with a warning.
    Warn,
    /// It passes and is recorded.
    Audit,
}

/// Whose changes count as automated.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Automation {
    /// Users or groups; `*` stands for any text. Left out: all service accounts.
    pub subjects: Vec<String>,
    /// Do the limits bind people too?
    pub human_needs_approval: bool,
}

impl Default for Automation {
    fn default() -> Self {
        Self { subjects: vec!["system:serviceaccount:*".to_owned()], human_needs_approval: false }
    }
}

/// How far shifts may go.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Caps {
    /// Percentage points in one change.
    pub max_step: Option<f64>,
    /// The sum over a sliding window.
    pub per_window: Option<PerWindow>,
    /// Quiet time between two shifts.
    pub min_interval: Option<Period>,
    /// The highest percentage a backend may be given without approval. What led the stable split is not given it.
    pub max_share: Option<f64>,
}

/// A cap on the sum of shifts in a sliding window.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PerWindow {
    /// Percentage points.
    pub shift: f64,
    /// The window's length.
    pub window: Period,
}

/// Which approvals lift the limits.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approvals {
    /// How many people.
    #[serde(default = "one")]
    pub required: u32,
    /// Groups of which each must be in one; `*` stands for any text. None: anybody.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How old an approval may be.
    #[serde(default)]
    pub max_age: Option<Period>,
}

fn one() -> u32 {
    1
}

/// What a policy's health must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Health {
    /// The lowest score, 0 to 100.
    #[serde(default)]
    pub min_score: Option<u8>,
    /// Findings from here on deny.
    #[serde(default)]
    pub deny_severity: Option<Severity>,
}

impl Spec {
    /// How long a split stands before it is the stable one.
    pub fn settle(&self) -> SignedDuration {
        self.settle.as_ref().map_or(SignedDuration::from_hours(24), |settle| settle.0)
    }
}

const MALFORMED: &str = "guard-malformed";

impl ShiftGuard {
    /// Reads a guard.
    ///
    /// # Errors
    ///
    /// Every value that is wrong, unknown or out of range, with its field path.
    pub fn read(value: &Value) -> Result<Self, Vec<Diagnostic>> {
        let (guard, mut wrong) = typed::<Self>(MALFORMED, value, &FieldPath::root());
        if let Some(guard) = &guard {
            wrong.extend(guard.out_of_range());
        }
        guard.filter(|_| wrong.is_empty()).ok_or(wrong)
    }

    /// The guard's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    pub(super) fn is_automated(&self, author: &Author) -> bool {
        let Author::Account { name, groups } = author else { return true };
        let subjects = &self.spec.automation.subjects;
        [name].into_iter().chain(groups).any(|text| subjects.iter().any(|pattern| glob(pattern, text)))
    }

    fn out_of_range(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let mut report = |field: &str, problem: String| {
            let field = field.parse().unwrap_or_default();
            found.push(Diagnostic::error(MALFORMED, field, problem));
        };
        for (field, is, shall) in
            [("apiVersion", &self.api_version, "sluice.dev/v1alpha1"), ("kind", &self.kind, "ShiftGuard")]
        {
            if is != shall {
                report(field, format!("must be `{shall}`, not `{is}`"));
            }
        }
        if self.metadata.name.is_empty() {
            report("metadata.name", "must not be empty".to_owned());
        }
        let Match { meshes, services, namespaces } = &self.spec.r#match;
        for (field, list) in [("meshes", meshes), ("services", services), ("namespaces", namespaces)] {
            if list.is_empty() {
                report(&format!("spec.match.{field}"), "an empty list matches nothing; write [\"*\"] for all".into());
            }
        }
        let caps = &self.spec.caps;
        let percentages = [("maxStep", caps.max_step), ("maxShare", caps.max_share)];
        for (field, value) in percentages.into_iter().filter_map(|(field, value)| Some((field, value?))) {
            if !(value > 0.0 && value <= 100.0) {
                report(&format!("spec.caps.{field}"), format!("must be above 0 and at most 100, not {value}"));
            }
        }
        if let Some(cap) = caps.per_window.as_ref().filter(|cap| cap.shift.is_nan() || cap.shift <= 0.0) {
            report("spec.caps.perWindow.shift", format!("must be above 0, not {}", cap.shift));
        }
        if self.spec.approvals.as_ref().is_some_and(|approvals| approvals.required == 0) {
            report("spec.approvals.required", "must be at least 1; leave `caps` out to limit nothing".to_owned());
        }
        if let Some(score) = self.spec.health.as_ref().and_then(|health| health.min_score).filter(|score| *score > 100)
        {
            report("spec.health.minScore", format!("must be at most 100, not {score}"));
        }
        found
    }
}
