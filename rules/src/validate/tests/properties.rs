//! Whatever the document, there is an answer.

use super::*;
use proptest::sample::{Index, select};

/// Words that lead into the checks.
const WORDS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "type",
    "name",
    "mesh",
    "labels",
    "namespace",
    "targetRef",
    "to",
    "from",
    "rules",
    "matches",
    "default",
    "backendRefs",
    "filters",
    "weight",
    "conf",
    "split",
    "destination",
    "sources",
    "match",
    "allow",
    "spiffeID",
    "sni",
    "value",
    "path",
    "headers",
    "requestMirror",
    "percentage",
    "port",
    "tags",
    "proxyTypes",
];
const TEXTS: &[&str] = &[
    "kuma.io/v1alpha1",
    "MeshHTTPRoute",
    "MeshTCPRoute",
    "MeshTrafficPermission",
    "TrafficRoute",
    "Mesh",
    "MeshService",
    "MeshTimeout",
    "PathPrefix",
    "/",
    "",
    "spiffe://",
    "spiffe:///",
    "\u{0}",
    "ü",
    "1.2.3.4",
    "a.b",
    "null",
    "-",
    "1e999",
];

fn key() -> impl Strategy<Value = String> {
    prop_oneof![6 => select(WORDS).prop_map(str::to_owned), 1 => ".{0,3}"]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| serde_json::Number::from_f64(float).map_or(Value::Null, Value::Number)),
        select(TEXTS).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Documents that pass, of every kind that is looked into.
fn valid() -> Vec<(Value, Version)> {
    let backends = json!([{"kind": "MeshMultiZoneService", "labels": {"a": "b"}, "port": 80, "weight": 1}]);
    let header = json!([{"name": "a", "value": "b"}]);
    let http = json!({
        "targetRef": {"kind": "Mesh"},
        "to": [{
            "targetRef": {"kind": "MeshService", "labels": {"kuma.io/display-name": "a"}},
            "rules": [{
                "matches": [{
                    "path": {"type": "PathPrefix", "value": "/a"}, "method": "GET",
                    "headers": [{"name": "a", "type": "Exact", "value": "b"}],
                    "queryParams": [{"type": "Exact", "name": "a", "value": "b"}],
                }],
                "default": {
                    "filters": [
                        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": header, "remove": ["b"]}},
                        {"type": "URLRewrite", "urlRewrite": {
                            "hostname": "a.b", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"},
                        }},
                        {"type": "RequestMirror", "requestMirror": {"percentage": 5, "backendRef": {
                            "kind": "MeshService", "labels": {"a": "b"},
                        }}},
                        {"type": "RequestRedirect", "requestRedirect": {"port": 80, "statusCode": 301}},
                    ],
                    "backendRefs": backends,
                },
            }],
        }],
    });
    let tcp = json!({"to": [{
        "targetRef": {"kind": "MeshService", "labels": {"kuma.io/display-name": "a"}},
        "rules": [{"default": {"backendRefs": backends}}],
    }]});
    let matched =
        json!([{"spiffeID": {"type": "Exact", "value": "spiffe://a/b"}, "sni": {"type": "Exact", "value": "a"}}]);
    let permission = json!({"rules": [{"default": {"allow": matched, "deny": matched}}]});
    let mut documents = Vec::new();
    for version in [Version::V2_14, Version::V3_0] {
        for (kind, spec) in [("MeshHTTPRoute", &http), ("MeshTCPRoute", &tcp), ("MeshTrafficPermission", &permission)] {
            documents.push((universal(kind, spec.clone()), version));
            documents.push((object(kind, "demo", spec.clone()), version));
        }
    }
    let traffic = json!({
        "sources": [{"match": {"kuma.io/service": "*"}}],
        "destinations": [{"match": {"kuma.io/service": "a"}}],
        "conf": {
            "split": [{"weight": 1, "destination": {"kuma.io/service": "a"}}],
            "http": [{
                "match": {"path": {"prefix": "/a"}, "headers": {"a": {"exact": "b"}}},
                "modify": {"path": {"rewritePrefix": "/b"}, "requestHeaders": {"add": header, "remove": [{"name": "c"}]}},
                "destination": {"kuma.io/service": "b"},
            }],
            "loadBalancer": {"ringHash": {"hashFunction": "XX_HASH", "minRingSize": 1}},
        },
    });
    let mut flat = traffic.clone();
    flat["type"] = "TrafficRoute".into();
    flat["name"] = "a".into();
    flat["mesh"] = "default".into();
    documents.push((flat, Version::V2_14));
    documents.push((
        json!({
            "apiVersion": "kuma.io/v1alpha1", "kind": "TrafficRoute", "mesh": "default",
            "metadata": {"name": "a"}, "spec": traffic,
        }),
        Version::V2_14,
    ));
    documents
}

/// Puts a value at the place of that number, counted outside in; tells whether it did.
fn replace(value: &mut Value, left: &mut usize, new: &Value) -> bool {
    if *left == 0 {
        *value = new.clone();
        return true;
    }
    *left -= 1;
    match value {
        Value::Object(object) => object.values_mut().any(|value| replace(value, left, new)),
        Value::Array(list) => list.iter_mut().any(|value| replace(value, left, new)),
        _ => false,
    }
}

#[test]
fn accepts_what_the_properties_start_from() {
    for (document, version) in valid() {
        accepts(&document, version);
        assert_eq!(schema::unknown_fields(&document, version), []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn answers_any_json(document in json_value(), second in any::<bool>()) {
        let version = if second { Version::V3_0 } else { Version::V2_14 };
        let answer = ask(&document, version);
        prop_assert_eq!(answer.stage.is_some(), !answer.violations.is_empty());
        schema::unknown_fields(&document, version);
    }

    #[test]
    fn answers_any_change_of_a_valid_document(
        start in any::<Index>(),
        changes in proptest::collection::vec((0..80_usize, json_value()), 1..4),
    ) {
        let documents = valid();
        let (mut document, version) = start.get(&documents).clone();
        for (mut place, value) in changes {
            replace(&mut document, &mut place, &value);
        }
        let answer = ask(&document, version);
        prop_assert_eq!(answer.stage.is_some(), !answer.violations.is_empty());
        prop_assert!(answer.violations.is_sorted());
        schema::unknown_fields(&document, version);
    }
}
