use super::*;
use serde_json::json;

fn service(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshService",
        "metadata": {"name": name, "namespace": "demo", "labels": labels},
        "spec": {"ports": [{"port": 80, "name": "http", "appProtocol": "http"}]}})
}

fn with(known: &Known, labels: Value) -> Vec<String> {
    let labels = labels.as_object().unwrap().clone();
    known.services_with("MeshService", "default", &labels).map(|service| service.name.to_string()).collect()
}

#[test]
fn finds_services_by_name_and_by_labels() {
    let mut known = Known::default();
    known.insert(&service("a", json!({"app": "x", "kuma.io/zone": "zone-1"})));
    known.insert(&service("b", json!({"app": "x", "tier": "gold"})));
    assert!(known.service("MeshService", "default", "demo", "a").unwrap().port(Wanted::Number(80)).is_some());
    assert!(known.service("MeshService", "default", "", "a").is_none());
    assert_eq!(with(&known, json!({"app": "x"})), ["a", "b"]);
    assert_eq!(with(&known, json!({"app": "x", "tier": "gold"})), ["b"]);
    assert_eq!(with(&known, json!({"kuma.io/display-name": "a", "k8s.kuma.io/namespace": "demo"})), ["a"]);
    assert_eq!(with(&known, json!({"kuma.io/zone": "zone-1"})), ["a"], "a label without an index");
    assert_eq!(with(&known, json!({"app": "y"})), [""; 0]);
}

#[test]
fn replaces_what_it_knew() {
    let mut known = Known::default();
    known.insert(&service("a", json!({"app": "x"})));
    known.insert(&service("a", json!({"app": "y"})));
    assert_eq!(with(&known, json!({"app": "x"})), [""; 0]);
    assert_eq!(with(&known, json!({"app": "y"})), ["a"]);
    known.remove(&json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshService", "metadata": {"name": "a", "namespace": "demo"}}));
    assert!(!known.has_any("MeshService", "default"));
}

#[test]
fn keeps_the_longest_timeout_of_a_target_and_falls_back_to_the_mesh() {
    let timeout = |name: &str, target: Value, timeout: &str| {
        json!({"type": "MeshTimeout", "name": name, "mesh": "default",
            "spec": {"to": [{"targetRef": target, "default": {"http": {"requestTimeout": timeout}}}]}})
    };
    let mut known = Known::default();
    let chat = json!({"kind": "MeshService", "labels": {"a": "1", "b": "2"}});
    let same = json!({"kind": "MeshService", "labels": {"b": "2", "a": "1"}});
    assert_eq!(known.request_timeout("default", &chat, ""), None);
    known.insert(&timeout("all", json!({"kind": "Mesh"}), "15s"));
    assert_eq!(known.request_timeout("default", &chat, ""), Some(15_000_000_000));
    known.insert(&timeout("one", chat.clone(), "1s"));
    known.insert(&timeout("two", same.clone(), "2s"));
    assert_eq!(known.request_timeout("default", &same, ""), Some(2_000_000_000));
    known.remove(&timeout("two", same, "2s"));
    assert_eq!(known.request_timeout("default", &chat, ""), Some(1_000_000_000));
    assert_eq!(known.request_timeout("other", &chat, ""), None);
}
