//! What the handler answers, without a socket.

#![allow(clippy::unwrap_used, reason = "a panic is the failure itself")]

mod bad_input;
mod cases;
mod memory;
mod objects;
mod policies;
mod recordings;

use serde_json::{Value, json};
use sluice_rules::guard::ShiftGuard;
use sluice_webhook::admission::{Admission, Answer, Clock};
use sluice_webhook::ledger::{Ledger, Memory};
use sluice_webhook::world::Shared;
use std::time::{Duration, Instant};

/// When every test takes place: a Wednesday.
const NOW: &str = "2026-11-25T12:00:00Z";
const BOT: &str = "system:serviceaccount:sluice-system:sluice-bot";
const FLUX: &str = "system:serviceaccount:flux-system:kustomize-controller";
const CONTROL_PLANE: &str = "system:serviceaccount:kuma-system:kuma-control-plane";

/// A handler with these guards.
fn admission(guards: Value) -> Admission {
    let world = Shared::default();
    let guards = guards.as_array().unwrap().iter().map(|guard| ShiftGuard::read(guard).unwrap()).collect::<Vec<_>>();
    world.update(|world| world.guards.clone_from(&guards));
    let mut admission = Admission::new(world, Ledger::Memory(Memory::default()));
    admission.clock = Clock::Fixed(NOW.parse().unwrap());
    admission
}

/// A guard with this spec.
fn guard(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard", "metadata": {"name": name}, "spec": spec})
}

fn answer(admission: &Admission, body: &[u8]) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admission.answer(body, Instant::now() + Duration::from_secs(5)))
}

/// The `response` to a review, which must be well-formed and echo its uid.
fn respond(admission: &Admission, review: &Value) -> Value {
    let answer = answer(admission, review.to_string().as_bytes());
    let response = well_formed(&answer);
    assert_eq!(response["uid"], review["request"]["uid"]);
    response
}

/// Checks an answer of HTTP status 200 against what the API server takes.
fn well_formed(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&body["apiVersion"], &body["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert_eq!(body.as_object().unwrap().len(), 3, "{body}");
    let response = &body["response"];
    let known = ["uid", "allowed", "status", "warnings", "auditAnnotations"];
    assert!(response.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{response}");
    assert!(response["uid"].as_str().is_some_and(|uid| !uid.is_empty()), "{response}");
    let allowed = response["allowed"].as_bool().unwrap();
    assert_eq!(allowed, response.get("status").is_none(), "{response}");
    if !allowed {
        let code = response["status"]["code"].as_u64().unwrap();
        assert!([400, 409, 422, 503].contains(&code), "{response}");
        assert!(
            !response["status"]["message"].as_str().unwrap().is_empty() && response["status"]["reason"].is_string()
        );
        assert_eq!(code == 422, response["status"]["details"]["causes"].is_array(), "{response}");
    }
    let warnings = response["warnings"].as_array().cloned().unwrap_or_default();
    let length = |warning: &Value| warning.as_str().unwrap().chars().count();
    assert!(warnings.len() <= 11 && warnings.iter().map(length).sum::<usize>() <= 4096, "{response}");
    assert!(warnings.iter().all(|warning| length(warning) <= 256), "{response}");
    for (key, value) in response["auditAnnotations"].as_object().into_iter().flatten() {
        assert!(key.len() <= 63 && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{key}");
        assert!(value.as_str().unwrap().len() <= 1024, "{key}");
    }
    let mut texts = Vec::new();
    collect_texts(response, &mut texts);
    assert!(texts.iter().all(|text| !text.chars().any(char::is_control)), "{response}");
    response.clone()
}

fn collect_texts<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        // What names the request is repeated as it is.
        Value::Object(map) => {
            map.iter().filter(|(key, _)| *key != "uid").for_each(|(_, value)| collect_texts(value, texts));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::String(text) => texts.push(text),
        _ => {}
    }
}

/// A review of a write; null sides are left out, as the API server does.
fn review(operation: &str, user: &str, old: &Value, new: &Value) -> Value {
    let object = if new.is_null() { old } else { new };
    let group =
        object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
    let mut request = json!({
        "uid": "7a9f6b1e-0001", "kind": {"group": group, "version": "v1alpha1", "kind": object["kind"]},
        "operation": operation, "userInfo": {"username": user, "groups": ["system:authenticated"]},
        "name": object["metadata"]["name"], "object": new, "oldObject": old,
    });
    if let Some(namespace) = object["metadata"].get("namespace") {
        request["namespace"] = namespace.clone();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

/// A route of `llm` over backends with these weights; `null` is no route.
fn route(weights: &Value) -> Value {
    let Value::Object(weights) = weights else { return Value::Null };
    let refs: Vec<_> = weights
        .iter()
        .map(|(name, weight)| json!({"kind": "MeshService", "name": name, "port": 80, "weight": weight}))
        .collect();
    json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
        "metadata": {"name": "llm-split", "namespace": "demo", "uid": "5d0c", "resourceVersion": "7",
            "labels": {"kuma.io/mesh": "default"}, "managedFields": [{"manager": "kubectl"}]},
        "spec": {"to": [{"targetRef": {"kind": "MeshService", "name": "llm"}, "rules": [
            {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "default": {"backendRefs": refs}}]}]},
    })
}

/// A review of a change of weights.
fn shift(user: &str, before: &Value, after: &Value) -> Value {
    let operation = if before.is_null() {
        "CREATE"
    } else if after.is_null() {
        "DELETE"
    } else {
        "UPDATE"
    };
    review(operation, user, &route(before), &route(after))
}

/// The causes of a denial, as `reason field: message`.
fn causes(response: &Value) -> Vec<String> {
    let text = |cause: &Value, key: &str| cause[key].as_str().unwrap().to_owned();
    let causes = response["status"]["details"]["causes"].as_array().into_iter().flatten();
    causes
        .map(|cause| format!("{} {}: {}", text(cause, "reason"), text(cause, "field"), text(cause, "message")))
        .collect()
}
