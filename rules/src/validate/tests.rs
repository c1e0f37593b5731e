//! The rules one by one, those first that recorded documents seldom reach.

use super::*;
use proptest::prelude::*;
use serde_json::json;

mod permissions;
mod properties;
mod routes;
mod traffic;

/// Asks a control plane with the default names.
fn ask(document: &Value, version: Version) -> Verdict {
    verdict(document, &Kuma { version, ..Kuma::default() })
}

/// A Universal resource of mesh `default`.
fn universal(kind: &str, spec: Value) -> Value {
    json!({"type": kind, "name": "a", "mesh": "default", "spec": spec})
}

/// A Kubernetes object.
fn object(kind: &str, namespace: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "kuma.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "a", "namespace": namespace, "labels": {"kuma.io/mesh": "default"}},
        "spec": spec,
    })
}

#[track_caller]
fn accepts(document: &Value, version: Version) {
    assert_eq!(ask(document, version), Verdict::default(), "{document}");
}

/// Holds the verdict to its step and to the start of each sentence, in the order of fields.
#[track_caller]
fn refuses(document: &Value, version: Version, stage: Stage, expected: &[(&str, &str)]) {
    let answer = ask(document, version);
    assert_eq!(answer.stage, Some(stage), "{answer:?} of {document}");
    let fits =
        answer.violations.len() == expected.len()
            && answer.violations.iter().zip(expected).all(|(violation, (field, message))| {
                violation.field == *field && violation.message.starts_with(message)
            });
    assert!(fits, "{:#?}\ninstead of {expected:#?}", answer.violations);
}

#[test]
fn reads_versions() {
    for version in [Version::V2_14, Version::V3_0] {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    let error = "2.15".parse::<Version>().unwrap_err();
    assert_eq!(error.to_string(), "unknown Kuma version `2.15`; write 2.14 or 3.0");
}

#[test]
fn lets_pass_what_is_not_kumas() {
    for document in [
        json!(null),
        json!([1]),
        json!({}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment"}),
        json!({"apiVersion": 1, "kind": "MeshHTTPRoute"}),
        json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshGlobalRateLimit", "spec": 1}),
        json!({"apiVersion": "kuma.io/v1alpha1"}),
        json!({"type": 5}),
        json!({"type": "Nope"}),
    ] {
        accepts(&document, Version::V2_14);
    }
    // Gone in 3.0: whoever calls asks `schema::exists`.
    accepts(&json!({"type": "TrafficRoute", "name": "A!"}), Version::V3_0);
}

#[test]
fn checks_names_meshes_and_labels_last() {
    let mut document = universal("MeshHTTPRoute", json!({}));
    accepts(&document, Version::V2_14);
    document["name"] = json!("Upper");
    document["mesh"] = json!("my_mesh/");
    document["labels"] = json!({
        "kuma.io/zone": "zone-9",
        "kuma.io/mesh": "other",
        "kuma.io/policy-role": "producer",
        "/x": "-",
        "Example.com/x": "",
    });
    let mut expected = vec![
        ("labels[\"/x\"]", "a valid label must be an empty string or consist of"),
        ("labels[\"/x\"]", "prefix part must be non-empty"),
        ("labels[\"Example.com/x\"]", "prefix part a lowercase RFC 1123 subdomain"),
        ("labels[\"kuma.io/mesh\"]", "kuma.io/mesh label must not differ from mesh set on resource"),
        ("labels[\"kuma.io/zone\"]", "kuma.io/zone label should have zone-1 value"),
        ("mesh", "invalid characters. Valid characters are numbers"),
        ("name", "invalid characters. A lowercase RFC 1123 subdomain"),
    ];
    refuses(&document, Version::V2_14, Stage::Meta, &expected);
    expected.insert(4, ("labels[\"kuma.io/policy-role\"]", "kuma.io/policy-role label should have system value, got"));
    refuses(&document, Version::V3_0, Stage::Meta, &expected);
}

#[test]
fn a_universal_resource_without_a_mesh_has_the_default_one() {
    let mut document = universal("MeshHTTPRoute", json!({}));
    for mesh in [Value::Null, json!("default")] {
        document["mesh"] = mesh;
        accepts(&document, Version::V3_0);
    }
    document["mesh"] = json!("");
    let expected = [("mesh", "cannot be empty"), ("mesh", "mesh from the URL has to be the same as in body")];
    refuses(&document, Version::V3_0, Stage::Meta, &expected);
}

#[test]
fn the_envelope_has_a_schema_too() {
    let document = json!({
        "type": "MeshTCPRoute", "name": null, "mesh": ["a"], "labels": {"a": 1, "b": null},
        "creationTime": "yesterday", "modificationTime": 5,
    });
    let expected = [
        ("", ".spec in body is required"),
        ("", "creationTime in body must be of type date-time: \"yesterday\""),
        ("", "labels.a in body must be of type string: \"number\""),
        ("", "labels.b in body must be of type string: \"null\""),
        ("", "mesh in body must be of type string: \"array\""),
        ("", "modificationTime in body must be of type date-time: \"float64\""),
        ("", "name in body must be of type string: \"null\""),
    ];
    refuses(&document, Version::V2_14, Stage::Schema, &expected);
}

#[test]
fn the_api_server_asks_for_names_it_can_use() {
    let mut route = object("MeshHTTPRoute", "demo", json!({}));
    route["metadata"] = json!({"generateName": "A-", "namespace": "Bad NS", "annotations": {"a b": "x"}});
    let expected = [
        ("metadata.annotations", "Invalid value: \"a b\": name part must consist of"),
        ("metadata.generateName", "Invalid value: \"A-\": a lowercase RFC 1123 subdomain"),
        ("metadata.labels", "Invalid value: \"Bad NS\": a valid label must be an empty string"),
        ("metadata.namespace", "Invalid value: \"Bad NS\": a lowercase RFC 1123 label"),
    ];
    refuses(&route, Version::V2_14, Stage::Schema, &expected);
    route["metadata"] = json!({"generateName": "canary-"});
    accepts(&route, Version::V2_14);
    route["metadata"] = json!({"name": {"a": 1}});
    let text = "MeshHTTPRoute in version \"v1alpha1\" cannot be handled as a MeshHTTPRoute: json: cannot unmarshal object \
                into Go struct field ObjectMeta.name of type string";
    refuses(&route, Version::V2_14, Stage::Schema, &[("", text)]);
    route["metadata"] = json!([]);
    refuses(&route, Version::V2_14, Stage::Schema, &[("", "MeshHTTPRoute in version")]);
}

#[test]
fn the_mesh_of_an_old_policy_must_be_written() {
    let mut route = json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "TrafficRoute", "metadata": {"name": "a"}, "mesh": "default",
        "spec": {
            "sources": [{"match": {"kuma.io/service": "*"}}],
            "destinations": [{"match": {"kuma.io/service": "*"}}],
            "conf": {"destination": {"kuma.io/service": "a"}},
        },
    });
    accepts(&route, Version::V2_14);
    route["mesh"] = Value::Null;
    refuses(&route, Version::V2_14, Stage::Meta, &[("mesh", "cannot be empty")]);
    // A policy of the newer kind has a label, and a default.
    let mut route = object("MeshTCPRoute", "demo", json!({}));
    route["metadata"]["labels"] = json!({});
    accepts(&route, Version::V2_14);
    route["metadata"]["labels"] = json!({"kuma.io/mesh": ""});
    refuses(&route, Version::V2_14, Stage::Meta, &[("mesh", "cannot be empty")]);
}

#[test]
fn only_2_14_looks_at_an_unknown_origin_on_kubernetes() {
    let mut route = object("MeshHTTPRoute", "demo", json!({}));
    route["metadata"]["labels"] = json!({"kuma.io/origin": "moon"});
    let expected = [("labels[\"kuma.io/origin\"]", "unknown resource origin \"moon\"")];
    refuses(&route, Version::V2_14, Stage::Meta, &expected);
    accepts(&route, Version::V3_0);
}
