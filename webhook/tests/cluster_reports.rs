//! Reports about what is already in a real cluster.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod support {
    pub(crate) mod cluster;
}

use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use sluice_rules::health;
use sluice_webhook::cluster::{self, Progress, Settings};
use sluice_webhook::report::{self, Scan};
use sluice_webhook::world::{Shared, World};
use std::sync::Arc;
use std::time::Duration;
use support::cluster::{Server, until};

fn file(path: &str) -> String {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn service(name: &str) -> Value {
    let ports = json!([{"port": 80, "targetPort": 80, "appProtocol": "http", "name": "http"}]);
    json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "MeshService",
        "metadata": {"name": name, "namespace": "default", "labels": {"kuma.io/mesh": "default"}},
        "spec": {"ports": ports, "selector": {"dataplaneTags": {"app": name}}},
    })
}

fn route(name: &str, backend: &str) -> Value {
    let backends = json!([{"kind": "MeshService", "name": backend, "port": 80, "weight": 1}]);
    let rules =
        json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "default": {"backendRefs": backends}}]);
    json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
        "metadata": {"name": name, "namespace": "default", "labels": {"kuma.io/mesh": "default"}},
        "spec": {"to": [{"targetRef": {"kind": "MeshService", "name": "backend", "sectionName": "http"}, "rules": rules}]},
    })
}

async fn reports(client: &Client, group: &str, version: &str, kind: &str) -> Vec<Value> {
    let api: Api<DynamicObject> =
        Api::all_with(client.clone(), &ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)));
    let reports = api.list(&Default::default()).await.unwrap();
    reports.into_iter().map(|report| serde_json::to_value(report).unwrap()).collect()
}

/// What the watches know.
async fn world(client: Client) -> (Shared, Arc<Progress>, tokio::task::JoinHandle<()>) {
    let (world, progress) = (Shared::default(), Arc::new(Progress::default()));
    let (seen, _) = tokio::sync::mpsc::unbounded_channel();
    let settings = Settings { client, world: world.clone(), seen, kuma: None };
    let task = tokio::spawn(cluster::watch(settings, progress.clone()));
    until("the watch is ready", async || progress.is_ready()).await;
    (world, progress, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_is_wrong_with_what_is_there_and_only_once() {
    let server = Server::start().await;
    let mut files: Vec<_> =
        sluice_webhook::crds::all().iter().map(|crd| sluice_webhook::crds::file(crd).unwrap().1).collect();
    for plural in ["meshhttproutes", "trafficroutes", "meshservices"] {
        files.push(file(&format!("rules/crds/2.14/kuma.io_{plural}.yaml")));
    }
    server.install_crds(&files.join("---\n")).await;
    let admin = server.admin().await;
    for object in [service("backend"), route("good", "backend"), route("bad", "nowhere")] {
        server.apply(&object).await.unwrap();
    }
    let weightless = json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "TrafficRoute", "metadata": {"name": "legacy"}, "mesh": "default",
        "spec": {
            "sources": [{"match": {"kuma.io/service": "*"}}], "destinations": [{"match": {"kuma.io/service": "*"}}],
            "conf": {"destination": {"kuma.io/service": "*"}},
        },
    });
    server.apply(&weightless).await.unwrap();
    let (world, _progress, task) = world(admin.clone()).await;
    until("the service is known", async || !findings(&world.load(), &route("bad", "nowhere")).is_empty()).await;
    let scan = async || report::scan(&admin, &World::clone(&world.load())).await.unwrap();

    assert_eq!(scan().await, None, "no kind of report is installed");
    server.install_crds(&file("testdata/servers/crds/wgpolicyk8s.yaml")).await;
    assert_eq!(scan().await, Some(Scan { scored: 4, written: 4, removed: 0 }));
    assert_eq!(scan().await, Some(Scan { scored: 4, written: 0, removed: 0 }), "nothing new, nothing written");

    let told = reports(&admin, "wgpolicyk8s.io", "v1alpha2", "PolicyReport").await;
    let about = |name: &str| told.iter().find(|report| report["scope"]["name"] == name).unwrap();
    let (good, bad) = (about("good"), about("bad"));
    assert_eq!((&good["summary"]["pass"], &good["results"][0]["result"]), (&json!(1), &json!("pass")), "{good:#}");
    let expected = findings(&world.load(), &route("bad", "nowhere"));
    assert_eq!(bad["results"].as_array().unwrap().len(), expected.len());
    let first = &bad["results"][0];
    assert_eq!((&first["policy"], &first["message"]), (&json!(expected[0].0), &json!(expected[0].1)));
    assert_eq!((&bad["scope"]["kind"], &bad["scope"]["namespace"]), (&json!("MeshHTTPRoute"), &json!("default")));
    let score: u8 = bad["metadata"]["annotations"]["sluice.dev/score"].as_str().unwrap().parse().unwrap();
    assert!(score < 100 && bad["summary"]["pass"] == 0, "{bad:#}");
    let told = reports(&admin, "wgpolicyk8s.io", "v1alpha2", "ClusterPolicyReport").await;
    assert_eq!((told.len(), &told[0]["scope"]["kind"]), (1, &json!("TrafficRoute")));

    // What is mended is told as such, and what is deleted takes its report along.
    server.apply(&route("bad", "backend")).await.unwrap();
    let output = server.kubectl(&["delete", "meshhttproute", "good"], "").await;
    assert!(output.success, "{}", output.err);
    until("the report of the deleted one is gone", async || {
        reports(&admin, "wgpolicyk8s.io", "v1alpha2", "PolicyReport").await.len() == 2
    })
    .await;
    assert_eq!(scan().await, Some(Scan { scored: 3, written: 1, removed: 0 }));
    let told = reports(&admin, "wgpolicyk8s.io", "v1alpha2", "PolicyReport").await;
    let bad = told.iter().find(|report| report["scope"]["name"] == "bad").unwrap();
    assert_eq!(bad["summary"]["pass"], 1);

    // The newer group is preferred. Only the leader writes, and again and again.
    server.install_crds(&file("testdata/servers/crds/openreports.yaml")).await;
    let follower = report::run(admin.clone(), world.clone(), Duration::from_millis(50), || false);
    assert!(tokio::time::timeout(Duration::from_secs(1), follower).await.is_err());
    assert!(reports(&admin, "openreports.io", "v1alpha1", "Report").await.is_empty());
    let leader = tokio::spawn(report::run(admin.clone(), world.clone(), Duration::from_millis(50), || true));
    until("the leader has written", async || {
        reports(&admin, "openreports.io", "v1alpha1", "Report").await.len() == 2
            && reports(&admin, "openreports.io", "v1alpha1", "ClusterReport").await.len() == 1
    })
    .await;
    let api: Api<DynamicObject> = Api::all_with(
        admin.clone(),
        &ApiResource::from_gvk(&GroupVersionKind::gvk("openreports.io", "v1alpha1", "Report")),
    );
    let version = api.list(&Default::default()).await.unwrap().items[0].resource_version();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        api.list(&Default::default()).await.unwrap().items[0].resource_version(),
        version,
        "no write for nothing"
    );
    leader.abort();
    task.abort();
}

/// The findings of the same engine: rule and message.
fn findings(world: &World, object: &Value) -> Vec<(&'static str, String)> {
    let health = health::examine(object, &world.known, &world.kuma).health(None);
    health.findings.into_iter().map(|finding| (finding.id, finding.message)).collect()
}
