//! The real API server takes our definitions, and by them guards and approvals, right ones only.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod support {
    pub(crate) mod cluster;
}

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use sluice_rules::guard::{Approval, ShiftGuard};
use std::sync::Arc;
use support::cluster::Server;

async fn with_crds() -> Arc<Server> {
    let server = Server::shared().await;
    let definitions = sluice_webhook::crds::all();
    let files: Vec<_> = definitions.iter().map(|crd| sluice_webhook::crds::file(crd).unwrap().1).collect();
    server.install_crds(&files.join("---\n")).await;
    server
}

async fn create(server: &Server, object: &Value) -> kube::Result<Value> {
    let gvk = GroupVersionKind::gvk("sluice.dev", "v1alpha1", object["kind"].as_str().unwrap());
    let api: Api<DynamicObject> = Api::all_with(server.admin().await, &ApiResource::from_gvk(&gvk));
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let stored = api.create(&PostParams::default(), &object).await?;
    Ok(serde_json::to_value(stored).unwrap())
}

fn guard(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard", "metadata": {"name": name}, "spec": spec})
}

fn approval(name: &str, digest: &str) -> Value {
    let spec = json!({"digest": digest, "approver": "ann", "groups": ["oidc:sre"], "expires": "2030-01-01T00:00:00Z"});
    json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftApproval", "metadata": {"name": name}, "spec": spec})
}

fn whole() -> Value {
    json!({
        "match": {"meshes": ["default"], "services": ["llm-*"], "namespaces": ["*"]},
        "enforcement": "Warn",
        "automation": {"subjects": ["system:serviceaccount:argocd:*"], "humanNeedsApproval": true},
        "caps": {
            "maxStep": 12.5, "perWindow": {"shift": 30, "window": "1h30m"}, "minInterval": "10m", "maxShare": 50,
        },
        "freeze": [
            {"cron": "0 18 * * FRI", "duration": "62h", "timeZone": "Europe/Berlin", "reason": "weekend"},
        ],
        "approvals": {"required": 2, "groups": ["oidc:sre"], "maxAge": "24h"},
        "health": {"minScore": 70, "denySeverity": "critical"},
        "settle": "2d",
    })
}

#[tokio::test]
async fn a_guard_comes_back_as_it_was_written() {
    let server = with_crds().await;
    let stored = create(&server, &guard("whole", whole())).await.unwrap();
    assert_eq!(stored["spec"], whole());
    ShiftGuard::read(&stored).unwrap();
    // Nothing is filled in: a later version's defaults hold for old guards too.
    let stored = create(&server, &guard("empty", json!({}))).await.unwrap();
    assert_eq!(stored["spec"], json!({}));
    let listed = server.kubectl(&["get", "sguard"], "").await;
    let row: Vec<_> = listed.out.lines().find(|line| line.starts_with("whole")).unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["whole", "Warn", "12.5", "1h30m", "30", "50"]);
}

#[tokio::test]
async fn a_guard_with_a_wrong_value_is_refused_with_its_field() {
    let server = with_crds().await;
    for (field, wrong) in [
        ("spec.enforcement", json!({"enforcement": "Sometimes"})),
        ("spec.caps.maxStep", json!({"caps": {"maxStep": "ten"}})),
        ("spec.caps.maxStep", json!({"caps": {"maxStep": 0}})),
        ("spec.caps.maxShare", json!({"caps": {"maxShare": 101}})),
        ("spec.caps.perWindow.window", json!({"caps": {"perWindow": {"shift": 1}}})),
        ("spec.caps.minInterval", json!({"caps": {"minInterval": "10 minutes"}})),
        ("spec.freeze[0].cron", json!({"freeze": [{"cron": "weekends", "duration": "1h"}]})),
        ("spec.approvals.required", json!({"approvals": {"required": 0}})),
        ("spec.health.denySeverity", json!({"health": {"denySeverity": "dire"}})),
        ("spec.match.services", json!({"match": {"services": "llm-*"}})),
    ] {
        let kube::Error::Api(status) = create(&server, &guard("wrong", wrong)).await.unwrap_err() else {
            panic!("{field}: not an answer")
        };
        assert_eq!(status.reason, "Invalid", "{field}: {}", status.message);
        assert!(status.message.contains(field), "{field}: {}", status.message);
    }
}

#[tokio::test]
async fn an_unknown_field_is_refused_to_kubectl_and_pruned_for_others() {
    let server = with_crds().await;
    let typo = guard("typo", json!({"caps": {"maxStep": 10, "maxSteps": 20}}));
    let output = server.kubectl(&["apply", "-f", "-"], &typo.to_string()).await;
    assert!(!output.success && output.err.contains(r#"unknown field "spec.caps.maxSteps""#), "{}", output.err);
    let stored = create(&server, &typo).await.unwrap();
    assert_eq!(stored["spec"], json!({"caps": {"maxStep": 10}}));
}

#[tokio::test]
async fn an_approval_never_changes() {
    let server = with_crds().await;
    let stored = create(&server, &approval("one", &"a".repeat(64))).await.unwrap();
    Approval::read(&stored).unwrap();
    let refused = create(&server, &approval("short", "abc")).await.unwrap_err();
    assert!(refused.to_string().contains("spec.digest"), "{refused}");
    let refused = server.apply(&approval("one", &"b".repeat(64))).await.unwrap_err();
    assert!(refused.to_string().contains("an approval never changes"), "{refused}");
    server.apply(&approval("one", &"a".repeat(64))).await.unwrap();
}
