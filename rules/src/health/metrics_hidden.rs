#![doc = include_str!("../../../testdata/rules/metrics-hidden/README.md")]

use super::Severity;
use super::object::{inside, items, text};
use super::rule::{Answer, Check, Look, Rule, quoted};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-O03",
    name: "metrics-hidden",
    severity: Severity::Medium,
    kinds: &["MeshMetric"],
    summary: "the metrics profile hides families that canary decisions count",
    explanation: include_str!("../../../testdata/rules/metrics-hidden/README.md"),
    check: Check::Object(check),
};

/// What the counts of a canary and of edges are made from.
const NEEDED: &[&str] = &[
    "envoy_cluster_upstream_rq_xx",
    "envoy_cluster_retry_upstream_rq_xx",
    "envoy_cluster_upstream_rq_time",
    "envoy_http_downstream_rq_xx",
    "envoy_rbac_denied",
];

fn check(look: &Look<'_>, answer: &mut Answer) {
    let profiles = inside(look.object.spec, &["default", "sidecar", "profiles"]);
    let at = "default.sidecar.profiles";
    let named = items(profiles, "appendProfiles");
    let includes = items(profiles, "include");
    // A proxy exports everything unless the only profiles are `None`.
    let none = !named.is_empty() && named.iter().all(|profile| text(profile, "name") == "None");
    if none && includes.is_empty() {
        let field = look.field(format_args!("{at}.appendProfiles"));
        let finding = RULE.at(field, "profile `None` without `include`: proxies export no metrics of Envoy");
        answer.found(finding.help("use the profile `Basic`, or include the families that you need"));
    }
    for (e, exclude) in items(profiles, "exclude").iter().enumerate() {
        let hidden = NEEDED.iter().find(|family| selects(exclude, family));
        let Some(hidden) = hidden.filter(|family| !includes.iter().any(|include| selects(include, family))) else {
            continue;
        };
        let field = look.field(format_args!("{at}.exclude[{e}].match"));
        let message = format!("{} hides `{hidden}`", quoted(text(exclude, "match")));
        answer.found(RULE.at(field, message).help("narrow it, or include the family again"));
    }
}

/// Regular expressions are left alone: which families they select, Envoy's own engine decides.
fn selects(selector: &Value, family: &str) -> bool {
    let wanted = text(selector, "match");
    match text(selector, "type") {
        "Exact" => family == wanted,
        "Prefix" => family.starts_with(wanted),
        "Contains" => family.contains(wanted),
        _ => false,
    }
}
