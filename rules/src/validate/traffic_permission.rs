//! The rules of a MeshTrafficPermission.

use super::http_route::{items, text};
use super::target_ref::{Allowed, TargetRef};
use super::{Findings, Version, grammar, spiffe};
use crate::schema::Place;
use serde_json::{Map, Value};

pub(super) fn check(spec: &Map<String, Value>, version: Version, place: &Place<'_>, found: &mut Findings) {
    let from = match version {
        Version::V2_14 => items(spec.get("from")),
        Version::V3_0 => &[],
    };
    let rules = items(spec.get("rules"));
    if let Some(target) = spec.get("targetRef").filter(|target| !target.is_null()) {
        let kinds: &[&str] = match version {
            Version::V2_14 => &["Mesh", "Dataplane", "MeshSubset", "MeshService", "MeshServiceSubset"],
            Version::V3_0 => &["Mesh", "Dataplane"],
        };
        let allowed = Allowed { inbound: !from.is_empty() || !rules.is_empty(), ..Allowed::kinds(kinds) };
        TargetRef::read(Some(target), version).check(allowed, version, &place.field("targetRef"), found);
    }
    match (version, from.is_empty(), rules.is_empty()) {
        (Version::V2_14, false, false) => found.add(place, "field 'from' must be empty when 'rules' is defined"),
        (Version::V2_14, true, true) => found.add(place, "at least one of 'from' or 'rules' has to be defined"),
        (Version::V3_0, _, true) => found.add(place, "policy must define rules"),
        _ => {}
    }
    for (index, rule) in rules.iter().enumerate() {
        check_rule(rule, &place.field("rules").index(index), found);
    }
    let place = place.field("from");
    for (index, item) in from.iter().enumerate() {
        let place = place.index(index);
        let allowed = Allowed::kinds(&["Mesh", "MeshSubset", "MeshService", "MeshServiceSubset"]);
        let target = TargetRef::read(item.get("targetRef"), version);
        target.check(allowed, version, &place.field("targetRef"), found);
        if item.get("default").is_none_or(|default| text(default, "action").is_empty()) {
            found.add(&place.field("default").field("action"), "must be defined");
        }
    }
}

/// Kuma leaves `default` out of these paths.
fn check_rule(rule: &Value, place: &Place<'_>, found: &mut Findings) {
    let lists = ["allow", "allowWithShadowDeny", "deny"]
        .map(|list| (list, items(rule.get("default").and_then(|default| default.get(list)))));
    if lists.iter().all(|(_, matches)| matches.is_empty()) {
        found.add(place, "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined");
    }
    for (list, matches) in lists {
        let place = place.field(list);
        for (index, matched) in matches.iter().enumerate() {
            check_match(matched, &place.index(index), found);
        }
    }
}

/// A match that asks for nothing is fine here, and matches everybody.
fn check_match(matched: &Value, place: &Place<'_>, found: &mut Findings) {
    if let Some(id) = matched.get("spiffeID").filter(|id| !id.is_null())
        && let Some(problem) = spiffe::problem(text(id, "value"))
    {
        found.add(&place.field("spiffeID"), format!("must be a valid Spiffe ID: {problem}"));
    }
    if let Some(sni) = matched.get("sni").filter(|sni| !sni.is_null()) {
        let place = place.field("sni");
        let place = place.field("value");
        match text(sni, "value") {
            "" => found.add(&place, "must be set"),
            value => {
                for sentence in grammar::subdomain(value) {
                    found.add(&place, sentence);
                }
            }
        }
    }
}
