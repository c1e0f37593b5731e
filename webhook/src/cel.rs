//! What of a guard the API server itself can hold: a ValidatingAdmissionPolicy in CEL, the belt that stays on while the
//! webhook is away.
//!
//! CEL sees one request. It has no history, no clock and no digest, so it holds less than the webhook does:
//!
//! - *Step and share* of a rule whose target and matches are as before. Only what backends gain that had less than half
//!   counts: a way back to the backend that leads is never stopped, here as in the webhook. A way back to one that no
//!   longer leads cannot be told from a step forward and is stopped; a person makes it.
//! - *Freezes* of the days to come, as times. The time of a request is what the API server itself has just written
//!   into `metadata.managedFields`: an entry that the old object does not have. Whoever forges entries adds some and
//!   cannot take this one away.
//! - Automation only. An approval binds to a digest that CEL cannot compute, so that an approved shift beyond a limit is
//!   stopped too: a person applies it, or the belt is taken off while it happens.
//!
//! Added and removed rules, creation, deletion, windows and quiet times are the webhook's alone. With a [`Lease`] that
//! the webhook renews the belt holds only while the webhook is away, and stands in nobody's way else.

mod expression;

use crate::admission::Settings;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_rules::guard::{Enforcement, ShiftGuard};

/// What the policies are made for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The time; freezes are written down from here on.
    pub now: Timestamp,
    /// How far into the future freezes are written down.
    pub horizon: SignedDuration,
    /// Whose renewals say that the webhook is there; without one the belt always holds.
    pub lease: Option<Lease>,
}

/// A Lease of `coordination.k8s.io/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::str::FromStr for Lease {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("write it as NAMESPACE/NAME".to_owned()),
        }
    }
}

/// A policy and its binding for each guard that says something CEL can hold.
pub fn policies(guards: &[ShiftGuard], settings: &Settings, options: &Options) -> Vec<Value> {
    guards.iter().filter_map(|guard| belt(guard, settings, options)).flatten().collect()
}

fn belt(guard: &ShiftGuard, settings: &Settings, options: &Options) -> Option<[Value; 2]> {
    let validations = expression::validations(guard, options);
    if validations.is_empty() {
        return None;
    }
    let name = format!("sluice-belt-{}", guard.name());
    let action = match guard.spec.enforcement {
        Enforcement::Enforce => "Deny",
        Enforcement::Warn => "Warn",
        Enforcement::Audit => "Audit",
    };
    let mut policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "sluice", "sluice.dev/guard": guard.name()}},
        "spec": {
            // An expression that fails, by its cost on a very wide route, must not stop what nobody judged.
            "failurePolicy": "Ignore",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["kuma.io"],
                "apiVersions": ["*"],
                "operations": ["UPDATE"],
                "resources": ["meshhttproutes", "meshtcproutes", "trafficroutes"],
            }]},
            "matchConditions": expression::conditions(guard, settings),
            "variables": expression::variables(options),
            "validations": validations,
        },
    });
    let mut binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "sluice", "sluice.dev/guard": guard.name()}},
        "spec": {"policyName": name, "validationActions": [action]},
    });
    if let Some(Lease { namespace, name }) = &options.lease {
        policy["spec"]["paramKind"] = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"});
        binding["spec"]["paramRef"] = json!({"name": name, "namespace": namespace, "parameterNotFoundAction": "Allow"});
    }
    Some([policy, binding])
}

/// The policies as YAML, with a comment that says what they are and until when they hold.
pub fn render(guards: &[ShiftGuard], settings: &Settings, options: &Options) -> Result<String, serde_yaml::Error> {
    let until = options.now.saturating_add(options.horizon).unwrap_or(Timestamp::MAX);
    let frozen = guards.iter().any(|guard| !guard.spec.freeze.is_empty());
    let mut text = String::from(
        "# Made by `sluice-webhook cel`: what CEL can hold of the ShiftGuards while the webhook is away.\n\
         # Holds step and share of rules that stay, for automation; no windows, quiet times, approvals, creations or deletions.\n\
         # A way back to a backend that has half of the traffic always passes; one to a backend that has less does not:\n\
         # a person makes it, or takes the bindings away (kubectl delete vapb -l app.kubernetes.io/managed-by=sluice).\n",
    );
    match &options.lease {
        Some(Lease { namespace, name }) => {
            text += &format!(
                "# Holds only while the Lease {namespace}/{name} is there and has not been renewed for a minute.\n"
            );
        }
        None => text += "# Always holds, beside the webhook too: an approval does not lift it.\n",
    }
    if frozen {
        text += &format!("# Freezes are written down until {until}: run the command again before.\n");
    }
    for document in policies(guards, settings, options) {
        text += "---\n";
        text += &serde_yaml::to_string(&document)?;
    }
    Ok(text)
}
