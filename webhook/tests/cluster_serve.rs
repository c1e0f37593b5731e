//! The program as a whole beside a real API server: registered, certificates self-made, guards and history in the cluster.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod support {
    pub(crate) mod cluster;
}

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use std::process::Stdio;
use support::cluster::{Server, apply, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// The webhook as a process; dropping it kills it.
struct Webhook {
    _child: Child,
    status: u16,
}

impl Webhook {
    async fn start(server: &Server, port: u16) -> Self {
        let (status, folder) = (free_port().await, server.facts().kubeconfig.parent().unwrap().to_owned());
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-webhook"));
        command.arg("serve").arg("--kubeconfig").arg(&server.facts().kubeconfig);
        command.args(["--account", "admin", "--self-signed", "--san", "127.0.0.1", "--register", "sluice-webhook"]);
        command.arg("--register-url").arg(format!("https://127.0.0.1:{port}/validate"));
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        command.arg("--status-listen").arg(format!("127.0.0.1:{status}"));
        let log = std::fs::File::create(folder.join(format!("webhook-{status}.log"))).unwrap();
        command.stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let webhook = Self { _child: command.spawn().unwrap(), status };
        until("the status port answers", async || webhook.get("/live").await.contains("200 OK")).await;
        webhook
    }

    async fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.status)).await else { return String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn route(canary: u32) -> Value {
    let backend = |name: &str, weight: u32| json!({"kind": "MeshService", "name": name, "port": 80, "weight": weight});
    let backends = [backend("v1", 100 - canary), backend("v2", canary)];
    json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
        "metadata": {"name": "summarize", "namespace": "default", "labels": {"kuma.io/mesh": "default"}},
        "spec": {"to": [{
            "targetRef": {"kind": "MeshService", "name": "backend"},
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "default": {"backendRefs": backends}}],
        }]},
    })
}

async fn ledgers(client: &Client) -> Vec<DynamicObject> {
    let gvk = GroupVersionKind::gvk("sluice.dev", "v1alpha1", "ShiftLedger");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    api.list(&Default::default()).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_a_cluster_and_forgets_nothing_when_it_restarts() {
    let server = Server::start().await;
    let definitions = sluice_webhook::crds::all();
    let mut files: Vec<_> = definitions.iter().map(|crd| sluice_webhook::crds::file(crd).unwrap().1).collect();
    for plural in ["meshhttproutes", "trafficroutes"] {
        let path = format!("{}/../rules/crds/2.14/kuma.io_{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
        files.push(std::fs::read_to_string(path).unwrap());
    }
    let (definitions, kumas) = files.split_at(3);
    server.install_crds(&kumas.join("---\n")).await;
    server.namespace("sluice-system").await;
    let admin = server.admin().await;
    // Before there is anybody who looks: created under a guard it would count as a shift.
    server.apply(&route(5)).await.unwrap();

    // Alive without its definitions, and not ready.
    let port = free_port().await;
    let webhook = Webhook::start(&server, port).await;
    assert!(webhook.get("/ready").await.contains("503"));
    server.install_crds(&definitions.join("---\n")).await;
    until("it is ready", async || webhook.get("/ready").await.contains("200 OK")).await;
    let metrics = webhook.get("/metrics").await;
    assert!(metrics.contains("certificate_not_after_seconds "), "{metrics}");
    until("the cache has an age", async || webhook.get("/metrics").await.contains("cache_age_seconds ")).await;

    let gitops = "system:serviceaccount:argocd:controller";
    server.trust(gitops).await;
    let client = server.service_account("argocd", "controller").await;
    let guard = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard", "metadata": {"name": "small-steps"},
        "spec": {"caps": {"maxStep": 10, "perWindow": {"shift": 12, "window": "1h"}}},
    });
    server.apply(&guard).await.unwrap();
    // Until it is asked and the guard is known, anything passes. A dry run leaves no trace.
    let gvk = GroupVersionKind::gvk("kuma.io", "v1alpha1", "MeshHTTPRoute");
    let routes: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk(&gvk));
    let dry = PatchParams { dry_run: true, ..PatchParams::apply("gitops").force() };
    until("the guard is in force", async || routes.patch("summarize", &dry, &Patch::Apply(route(60))).await.is_err())
        .await;
    let denied = apply(&client, &route(40), "gitops").await.unwrap_err().to_string();
    assert!(denied.contains("small-steps") && denied.contains("35"), "{denied}");
    apply(&client, &route(13), "gitops").await.unwrap();
    until("the shift is on record", async || !ledgers(&admin).await.is_empty()).await;
    let denied = apply(&client, &route(20), "gitops").await.unwrap_err().to_string();
    assert!(denied.contains("12"), "the window's sum: {denied}");

    // Killed: nothing moves traffic, and nobody else is held up.
    drop(webhook);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "free", "namespace": "default"}});
    server.apply(&object).await.unwrap();
    until("a route stands still", async || {
        apply(&client, &route(14), "gitops")
            .await
            .is_err_and(|error| error.to_string().contains("failed calling webhook"))
    })
    .await;
    // Back: the window is as full as before, and the way back is open.
    let webhook = Webhook::start(&server, port).await;
    until("it is ready again", async || webhook.get("/ready").await.contains("200 OK")).await;
    let denied = apply(&client, &route(20), "gitops").await.unwrap_err().to_string();
    assert!(denied.contains("small-steps") && denied.contains("12"), "{denied}");
    apply(&client, &route(5), "gitops").await.unwrap();
}
