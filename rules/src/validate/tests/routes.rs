//! MeshHTTPRoute and MeshTCPRoute.

use super::*;

/// A rule with these filters and one backend.
fn rule(matches: Value, filters: Value) -> Value {
    let backends = json!([{"kind": "MeshService", "name": "b", "port": 80}]);
    json!({"matches": matches, "default": {"filters": filters, "backendRefs": backends}})
}

fn route(rules: Value) -> Value {
    universal("MeshHTTPRoute", json!({"to": [{"targetRef": {"kind": "MeshService", "name": "a"}, "rules": rules}]}))
}

fn prefix(value: &str) -> Value {
    json!([{"path": {"type": "PathPrefix", "value": value}}])
}

#[test]
fn checks_what_is_matched() {
    let matches = json!([
        {"path": {"type": "PathPrefix", "value": "v1/"}},
        {"path": {"type": "Exact", "value": "v1"}},
        {"path": {"type": "RegularExpression", "value": "v1/"}},
        {"path": {"type": "PathPrefix", "value": "/"}},
        {"headers": [{"name": "a", "type": "Absent", "value": "x"}, {"name": "a", "type": "Present"}]},
        {"queryParams": [
            {"type": "Exact", "name": "q", "value": "1"}, {"type": "Exact", "name": "q", "value": "2"},
        ]},
    ]);
    let expected = [
        ("spec.to[0].rules[0].matches[0].path.value", "does not need a trailing slash"),
        ("spec.to[0].rules[0].matches[0].path.value", "must be an absolute path"),
        ("spec.to[0].rules[0].matches[1].path.value", "must be an absolute path"),
        ("spec.to[0].rules[0].matches[4].headers[0].value", "must not be defined"),
        ("spec.to[0].rules[0].matches[5].queryParams[1].name", "multiple entries for name q"),
    ];
    refuses(&route(json!([rule(matches, json!([]))])), Version::V2_14, Stage::Validator, &expected);
}

#[test]
fn checks_what_a_filter_changes() {
    let header = |name: &str| json!({"name": name, "value": "1"});
    let filters = json!([
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {
            "set": [header("a")], "add": [header("a")], "remove": ["b", "b"],
        }},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {}},
        {"type": "RequestRedirect", "requestRedirect": {
            "hostname": "10.0.0.1", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/a"},
        }},
        {"type": "URLRewrite", "urlRewrite": {"hostname": "a.b", "hostToBackendHostname": true}},
        {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/a"}}},
        {"type": "RequestMirror", "requestMirror": {"backendRef": {"kind": "Mesh"}}},
        {"type": "RequestMirror"},
    ]);
    let at = "spec.to[0].rules[0].default.filters";
    let places = [
        (format!("{at}[0].requestHeaderModifier.add[0].name"), "duplicate header name"),
        (format!("{at}[0].requestHeaderModifier.remove[1].name"), "duplicate header name"),
        (format!("{at}[1].responseHeaderModifier"), "must have at least one defined: set, add, remove"),
        (format!("{at}[2].requestRedirect.hostname"), "cannot be an IP address"),
        (
            format!("{at}[2].requestRedirect.path.replacePrefixMatch"),
            "can only appear if all matches match a path prefix",
        ),
        (format!("{at}[3].urlRewrite.hostToBackendHostname"), "can only be set with MeshGateway"),
        (format!("{at}[3].urlRewrite.hostToBackendHostname"), "cannot be set together with hostname"),
        (format!("{at}[4].urlRewrite.path.replacePrefixMatch"), "can only appear if all matches match a path prefix"),
        (format!("{at}[5].requestMirror.backendRef.kind"), "value 'Mesh' is not supported"),
        (format!("{at}[6].requestMirror"), "must be defined"),
    ];
    let expected: Vec<(&str, &str)> = places.iter().map(|(place, text)| (place.as_str(), *text)).collect();
    let document = route(json!([rule(json!([{"method": "GET"}]), filters.clone())]));
    refuses(&document, Version::V2_14, Stage::Validator, &expected);

    // With prefixes everywhere a prefix may be replaced.
    let document = route(json!([rule(prefix("/v1"), json!([filters[4]]))]));
    accepts(&document, Version::V2_14);
}

#[test]
fn a_gateway_routes_the_mesh() {
    let gateway = |namespace: &str, to: Value| {
        object("MeshHTTPRoute", namespace, json!({"targetRef": {"kind": "MeshGateway", "name": "edge"}, "to": [to]}))
    };
    let redirect = json!([{"type": "RequestRedirect", "requestRedirect": {}}]);
    let empty = |filters: Value| {
        json!({
            "targetRef": {"kind": "Mesh"},
            "hostnames": ["a.com"],
            "rules": [{"matches": prefix("/"), "default": {"filters": filters}}],
        })
    };
    accepts(&gateway("kuma-system", empty(redirect)), Version::V2_14);
    let expected = [("spec.to[0].rules[0].default.backendRefs", "must not be empty")];
    refuses(&gateway("kuma-system", empty(json!([]))), Version::V2_14, Stage::Validator, &expected);
    let service = json!({"targetRef": {"kind": "MeshService", "name": "a"}, "rules": []});
    let expected = [
        ("spec.targetRef.kind", "value 'MeshGateway' is not supported"),
        ("spec.to[0].targetRef.kind", "value 'MeshService' is not supported"),
    ];
    refuses(&gateway("demo", service), Version::V2_14, Stage::Validator, &expected);
}

#[test]
fn hostnames_are_a_gateways() {
    let document = |hostnames: Value| {
        let target = json!({"kind": "MeshService", "labels": {"a": "b"}});
        universal("MeshHTTPRoute", json!({"to": [{"targetRef": target, "hostnames": hostnames, "rules": []}]}))
    };
    for version in [Version::V2_14, Version::V3_0] {
        let expected = [("spec.to[0].hostnames", "must not be defined")];
        refuses(&document(json!(["a.com"])), version, Stage::Validator, &expected);
        accepts(&document(json!([])), version);
    }
}

#[test]
fn each_kind_of_reference_has_its_fields() {
    let top = |target: Value| universal("MeshHTTPRoute", json!({"targetRef": target}));
    for (target, expected) in [
        (
            json!({"kind": "Mesh", "name": "a", "mesh": "b", "tags": {"a": "b"}, "sectionName": "s", "proxyTypes": []}),
            vec![
                ("spec.targetRef.mesh", "must not be set with kind Mesh"),
                ("spec.targetRef.name", "using name with kind Mesh is not yet supported"),
                ("spec.targetRef.proxyTypes", "must be undefined or have at least one element"),
                ("spec.targetRef.sectionName", "must not be set with kind Mesh"),
                ("spec.targetRef.tags", "must not be set with kind Mesh"),
            ],
        ),
        (
            json!({"kind": "MeshSubset", "tags": {"bad key!": "*", "a": ""}, "labels": {"a": "b"}}),
            vec![
                ("spec.targetRef.labels", "must not be set with kind MeshSubset"),
                ("spec.targetRef.tags[\"a\"]", "tag value must be non-empty"),
                ("spec.targetRef.tags[\"bad key!\"]", "tag name must consist of"),
                ("spec.targetRef.tags[\"bad key!\"]", "tag value must consist of"),
            ],
        ),
        (
            json!({"kind": "Dataplane", "name": "a", "labels": {"a": "b"}, "sectionName": "s", "tags": {"a": "b"}}),
            vec![
                ("spec.targetRef.labels", "either labels or name and namespace must be specified"),
                ("spec.targetRef.sectionName", "can only be used with inbound policies"),
                ("spec.targetRef.tags", "must not be set with kind Dataplane"),
            ],
        ),
        (
            json!({"kind": "MeshServiceSubset", "name": "A", "labels": {"a": "b"}, "tags": {"a": "b c"}}),
            vec![
                ("spec.targetRef.labels", "must not be set with kind MeshServiceSubset"),
                ("spec.targetRef.name", "invalid characters"),
                ("spec.targetRef.tags[\"a\"]", "tag value must consist of"),
            ],
        ),
        (
            json!({"kind": "MeshGateway", "namespace": "a", "tags": {"a": "*"}}),
            vec![
                ("spec.targetRef.name", "must be set when kind is MeshGateway"),
                ("spec.targetRef.namespace", "must not be set with kind MeshGateway"),
            ],
        ),
        (
            json!({"kind": "MeshService", "name": "a", "labels": {"a": "b"}, "mesh": "m", "proxyTypes": ["Sidecar"]}),
            vec![
                ("spec.targetRef.labels", "either labels or name and namespace must be specified"),
                ("spec.targetRef.mesh", "must not be set with kind MeshService"),
                ("spec.targetRef.proxyTypes", "must not be set with kind MeshService"),
            ],
        ),
    ] {
        refuses(&top(target), Version::V2_14, Stage::Validator, &expected);
    }
    let dropped = json!({"kind": "Dataplane", "name": "a", "namespace": "b", "tags": {"a": "b"}});
    accepts(&top(dropped), Version::V3_0);
    let expected = [("spec.targetRef.labels", "must not be set with kind Mesh")];
    refuses(&top(json!({"kind": "Mesh", "labels": {"a": "b"}})), Version::V3_0, Stage::Validator, &expected);
}

#[test]
fn backends_are_references_with_a_port() {
    let document = |backends: Value| {
        let target = json!({"kind": "MeshService", "name": "a", "labels": {}});
        let rules = json!([{"default": {"backendRefs": backends}}]);
        universal("MeshTCPRoute", json!({"to": [{"targetRef": target, "rules": rules}]}))
    };
    let at = "spec.to[0].rules[0].default.backendRefs";
    refuses(&document(json!([])), Version::V2_14, Stage::Validator, &[(at, "must be defined")]);
    let backends = json!([
        {"kind": "MeshMultiZoneService"},
        {"kind": "MeshExternalService", "sectionName": "s"},
        {"kind": "MeshService", "name": "kuma.io/unresolved-backend"},
        {"kind": "MeshSubset"},
    ]);
    let expected = [
        ("spec.to[0].rules[0].default.backendRefs[0].port", "must be defined with kind MeshMultiZoneService"),
        ("spec.to[0].rules[0].default.backendRefs[1]", "name or labels must be set when kind is MeshExternalService"),
        ("spec.to[0].rules[0].default.backendRefs[1].sectionName", "must not be set with kind MeshExternalService"),
        ("spec.to[0].rules[0].default.backendRefs[2].name", "invalid characters"),
        ("spec.to[0].rules[0].default.backendRefs[3].kind", "value 'MeshSubset' is not supported"),
    ];
    refuses(&document(backends), Version::V2_14, Stage::Validator, &expected);
    // What the Gateway API conversion writes is fine in a MeshHTTPRoute.
    let unresolved = json!([{"kind": "MeshService", "name": "kuma.io/unresolved-backend"}]);
    let rules = json!([{"matches": prefix("/"), "default": {"backendRefs": unresolved}}]);
    accepts(&route(rules), Version::V2_14);
}

#[test]
fn unsigned_numbers_fail_to_decode_after_the_schema() {
    let mirror = |mirror: Value| json!([{"type": "RequestMirror", "requestMirror": mirror}]);
    let backend = json!({"kind": "MeshService", "name": "b", "port": -7});
    let negative = route(json!([rule(prefix("/"), mirror(json!({"backendRef": backend})))]));
    let text = "invalid MeshHTTPRoute object: \"json: cannot unmarshal number -7 into Go struct field \
                BackendRef.spec.to.rules.default.filters.requestMirror.backendRef.port of type uint32\"";
    refuses(&negative, Version::V2_14, Stage::Decode, &[("", text)]);
    let large = mirror(json!({"percentage": 3_000_000_000_u64, "backendRef": {"kind": "MeshService", "name": "b"}}));
    let large = json!({"to": [{
        "targetRef": {"kind": "MeshService", "name": "a"}, "rules": [rule(prefix("/"), large)],
    }]});
    let text = "json: cannot unmarshal number 3000000000 into Go struct field \
                RequestMirror.spec.to.rules.default.filters.requestMirror.percentage of type int32";
    refuses(&object("MeshHTTPRoute", "demo", large), Version::V2_14, Stage::Mutating, &[("", text)]);
}

#[test]
fn a_cluster_fills_gaps_before_it_looks_at_the_schema() {
    let document = object("MeshHTTPRoute", "demo", json!({"to": [{"rules": [{}]}]}));
    let expected = [
        (
            "spec.to[0].rules[0].matches",
            "Invalid value: \"null\": spec.to[0].rules[0].matches in body must be of type array",
        ),
        ("spec.to[0].targetRef.kind", "Unsupported value: \"\": supported values: \"Mesh\", "),
    ];
    refuses(&document, Version::V2_14, Stage::Schema, &expected);
    // Gaps that are fine when filled.
    let target = json!({"kind": "MeshService", "name": "a"});
    let document =
        object("MeshHTTPRoute", "demo", json!({"to": [{"targetRef": target, "rules": [{"matches": [{}]}]}]}));
    accepts(&document, Version::V2_14);
    // A wrong type fails in the webhook, and so the schema's own answer is told.
    let document = object("MeshHTTPRoute", "demo", json!({"to": [{"targetRef": {"kind": 5}}]}));
    let expected = [
        ("spec.to[0].rules", "Required value"),
        (
            "spec.to[0].targetRef.kind",
            "Invalid value: \"integer\": spec.to[0].targetRef.kind in body must be of type string",
        ),
        ("spec.to[0].targetRef.kind", "Unsupported value: 5: supported values: "),
    ];
    refuses(&document, Version::V2_14, Stage::Schema, &expected);
}

#[test]
fn producers_and_consumers_do_not_mix() {
    let mixed = |namespace: &str, second: Value| {
        let to = [json!({"kind": "MeshService", "name": "a"}), second];
        let to: Vec<Value> = to.into_iter().map(|target| json!({"targetRef": target, "rules": []})).collect();
        object("MeshHTTPRoute", namespace, json!({"to": to}))
    };
    let text = "it's not allowed to mix producer and consumer items in the same policy";
    let other = json!({"kind": "MeshService", "name": "a", "namespace": "other"});
    refuses(&mixed("demo", other.clone()), Version::V2_14, Stage::Mutating, &[("", text)]);
    accepts(&mixed("kuma-system", other), Version::V2_14);
    accepts(&mixed("demo", json!({"kind": "MeshService", "name": "b", "namespace": "demo"})), Version::V2_14);
}

#[test]
fn repeated_headers_are_told_once_each_by_the_api_server() {
    let header = |name: &str| json!({"name": name, "value": "1"});
    let set = json!([header("a"), header("a"), header("a"), header("b"), header("b")]);
    let filters = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": set}}]);
    let target = json!({"kind": "MeshService", "name": "a"});
    let spec = json!({"to": [{"targetRef": target, "rules": [rule(prefix("/"), filters)]}]});
    let at = "spec.to[0].rules[0].default.filters[0].requestHeaderModifier.set";
    let places = [format!("{at}[1]"), format!("{at}[4]")];
    let expected = [
        (places[0].as_str(), "Duplicate value: {\"name\":\"a\"}"),
        (places[1].as_str(), "Duplicate value: {\"name\":\"b\"}"),
    ];
    refuses(&object("MeshHTTPRoute", "demo", spec.clone()), Version::V2_14, Stage::Schema, &expected);
    assert_eq!(ask(&universal("MeshHTTPRoute", spec), Version::V2_14).stage, Some(Stage::Validator));
}

#[test]
fn ten_thousand_rules_are_one_walk() {
    let rules: Vec<Value> = (0..10_000).map(|n| rule(prefix(&format!("/{n}/")), json!([]))).collect();
    let answer = ask(&route(json!(rules)), Version::V2_14);
    assert_eq!(answer.violations.len(), 10_000);
    assert_eq!(answer.stage, Some(Stage::Validator));
}
