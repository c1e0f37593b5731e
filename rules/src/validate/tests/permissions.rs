//! MeshTrafficPermission.

use super::*;

fn permission(spec: Value) -> Value {
    universal("MeshTrafficPermission", spec)
}

#[test]
fn says_who_may_call_in_one_way() {
    let from = json!([{"targetRef": {"kind": "Mesh"}, "default": {"action": "Allow"}}]);
    let rules = json!([{"default": {"allow": [{"spiffeID": {"type": "Exact", "value": "spiffe://default/web"}}]}}]);
    accepts(&permission(json!({"from": from})), Version::V2_14);
    accepts(&permission(json!({"rules": rules})), Version::V2_14);
    let expected = [("spec", "field 'from' must be empty when 'rules' is defined")];
    refuses(&permission(json!({"from": from, "rules": rules})), Version::V2_14, Stage::Validator, &expected);
    accepts(&permission(json!({"from": from, "rules": rules})), Version::V3_0);
    let expected = [("spec", "at least one of 'from' or 'rules' has to be defined")];
    refuses(&permission(json!({"from": [], "rules": []})), Version::V2_14, Stage::Validator, &expected);
    let expected = [("spec", "policy must define rules")];
    refuses(&permission(json!({"from": from})), Version::V3_0, Stage::Validator, &expected);
}

#[test]
fn an_item_of_from_selects_callers_and_acts() {
    let from = json!([
        {"targetRef": {"kind": "Dataplane"}},
        {"targetRef": {"kind": "MeshService"}, "default": {}},
        {"targetRef": {"kind": "MeshSubset", "tags": {"": "x"}}, "default": {"action": "Deny"}},
    ]);
    let expected = [
        ("spec.from[0].default.action", "must be defined"),
        ("spec.from[0].targetRef.kind", "value 'Dataplane' is not supported"),
        ("spec.from[1].default.action", "must be defined"),
        ("spec.from[1].targetRef", "name or labels must be set when kind is MeshService"),
        ("spec.from[2].targetRef.tags", "tag name must be non-empty"),
    ];
    refuses(&permission(json!({"from": from})), Version::V2_14, Stage::Validator, &expected);
}

#[test]
fn a_rule_lists_identities_and_server_names() {
    let id = |value: &str| json!({"spiffeID": {"type": "Prefix", "value": value}});
    let sni = |value: &str| json!({"sni": {"type": "Exact", "value": value}});
    let rules = json!([
        {"default": {"allow": [id("spiffe://td/"), id("spiffe://td/ns"), {}], "deny": [sni(""), sni("a_b"), sni("a.b")]}},
        {"default": {"allow": []}},
        {"default": {"allowWithShadowDeny": [id("https://td")]}},
    ]);
    let expected = [
        ("spec.rules[0].allow[0].spiffeID", "must be a valid Spiffe ID: path cannot have a trailing slash"),
        ("spec.rules[0].deny[0].sni.value", "must be set"),
        ("spec.rules[0].deny[1].sni.value", "a lowercase RFC 1123 subdomain"),
        ("spec.rules[1]", "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined"),
        ("spec.rules[2].allowWithShadowDeny[0].spiffeID", "must be a valid Spiffe ID: scheme is missing or invalid"),
    ];
    for version in [Version::V2_14, Version::V3_0] {
        refuses(&permission(json!({"rules": rules})), version, Stage::Validator, &expected);
    }
}

#[test]
fn a_port_of_a_proxy_may_be_picked() {
    let target = json!({"kind": "Dataplane", "labels": {"app": "a"}, "sectionName": "http"});
    let rules = json!([{"default": {"deny": [{}]}}]);
    for version in [Version::V2_14, Version::V3_0] {
        accepts(&permission(json!({"targetRef": target, "rules": rules})), version);
    }
}
