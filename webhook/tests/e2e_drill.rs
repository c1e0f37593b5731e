//! The drill: every replica is killed and the API server restarts from its data. The cluster goes on, automation does not
//! move traffic, and the belt holds where nobody is asked any more.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod support {
    pub(crate) mod certificates;
    pub(crate) mod cluster;
    pub(crate) mod e2e;
    pub(crate) mod process;
}

use serde_json::Value;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use support::cluster::{Output, Server, until};
use support::e2e::{
    ANNA, ARGOCD, Account, COLLECTOR, CONTROL_PLANE, fixture, guard, kubectl, registered, route, serve, server,
};
use support::process::Process;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// A Service: connections to it reach one of the replicas that take them.
struct Service {
    address: SocketAddr,
    replicas: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replicas = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let all = Arc::clone(&replicas);
        tokio::spawn(async move {
            loop {
                let Ok((mut caller, _)) = listener.accept().await else { continue };
                let mut order = all.lock().unwrap().clone();
                if !order.is_empty() {
                    all.lock().unwrap().rotate_left(1);
                }
                tokio::spawn(async move {
                    for replica in order.drain(..) {
                        if let Ok(mut stream) = TcpStream::connect(replica).await {
                            let _ = copy_bidirectional(&mut caller, &mut stream).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { address, replicas }
    }

    async fn replica(&self, server: &Server, name: &str) -> Process {
        let process = Process::run(&serve(server, name, "127.0.0.1:0".parse().unwrap(), self.address)).await;
        self.replicas.lock().unwrap().push(process.reviews);
        process
    }
}

async fn applies(server: &Server, account: &Account, document: &str) -> Output {
    kubectl(server, account, &["apply", "--server-side", "--force-conflicts", "-n", "drill", "-f", "-"], document).await
}

async fn must(server: &Server, account: &Account, arguments: &[&str], input: &str) {
    let told = kubectl(server, account, arguments, input).await;
    assert!(told.success, "{} {arguments:?}: {}", account.name, told.err);
}

/// What must go on whatever becomes of the webhook. `round` keeps names apart.
async fn the_cluster_goes_on(server: &Server, round: &str) {
    let fill = |file: &str| fixture(file).replace("ROUND", round).replace("REQUEST", &signing_request());
    // What a cluster needs to come up and to heal, and everything of the webhook's own namespace.
    must(server, &ANNA, &["create", "-f", "-"], &fill("core.yaml")).await;
    // The control plane writes what it always writes, routes among it.
    must(server, &CONTROL_PLANE, &["apply", "--server-side", "-f", "-"], &fill("control-plane.yaml")).await;
    let moved = fill("control-plane.yaml").replace("weight: 95", "weight: 20").replace("weight: 5}", "weight: 80}");
    must(server, &CONTROL_PLANE, &["apply", "--server-side", "-f", "-"], &moved).await;
    // The garbage collector deletes what has lost its owner, here and by itself.
    must(server, &COLLECTOR, &["delete", "-n", &format!("core-{round}"), "meshhttproute", "synced"], "").await;
    let uid = kubectl(
        server,
        &ANNA,
        &["get", "configmap", "-n", &format!("core-{round}"), "owner", "-o", "jsonpath={.metadata.uid}"],
        "",
    )
    .await;
    let owned = fill("owned.yaml").replace("UID", &uid.out);
    must(server, &CONTROL_PLANE, &["apply", "--server-side", "-f", "-"], &owned).await;
    must(server, &ANNA, &["delete", "configmap", "-n", &format!("core-{round}"), "owner"], "").await;
    until("the garbage collector deleted the route", async || {
        kubectl(server, &ANNA, &["get", "-n", &format!("core-{round}"), "meshhttproute", "owned"], "")
            .await
            .err
            .contains("NotFound")
    })
    .await;
    // A namespace with a route in it goes away.
    let last = route("last", 40).replace("name: last,", &format!("name: last, namespace: core-{round},"));
    must(server, &CONTROL_PLANE, &["apply", "--server-side", "-f", "-"], &last).await;
    must(server, &ANNA, &["delete", "namespace", &format!("core-{round}"), "--timeout=60s"], "").await;
}

/// What a kubelet asks to be signed.
fn signing_request() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(vec!["node".to_owned()]).unwrap().serialize_request(&key).unwrap();
    let encoded = serde_json::to_value(k8s_openapi::ByteString(request.pem().unwrap().into_bytes())).unwrap();
    encoded.as_str().unwrap().to_owned()
}

/// The CEL belt over these guards.
fn belt(guards: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guards.yaml");
    std::fs::write(&path, guards).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-webhook"));
    let output = command.args(["cel", "--guards"]).arg(&path).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_replica_dead_the_cluster_lives_and_automation_waits() {
    let mut server = server(&[]).await;
    let service = Service::start().await;
    let mut replicas = Vec::new();
    for name in ["sluice-webhook-0", "sluice-webhook-1", "sluice-webhook-2"] {
        replicas.push(service.replica(&server, name).await);
    }
    registered(&server).await;
    server.namespace("drill").await;
    assert!(applies(&server, &ANNA, &route("summarize", 5)).await.success);
    let guards =
        guard("small-steps", "match: {namespaces: [drill]}\ncaps: {maxStep: 10, perWindow: {shift: 12, window: 1h}}");
    must(&server, &ANNA, &["apply", "--server-side", "-f", "-"], &guards).await;
    // Each replica knows the guard: whichever is asked refuses, time after time.
    let mut refused = 0;
    until("all replicas hold the guard", async || {
        let told = kubectl(
            &server,
            &ARGOCD,
            &["apply", "--server-side", "--dry-run=server", "-n", "drill", "-f", "-"],
            &route("probe", 100),
        )
        .await;
        refused = if told.err.contains("`small-steps`") { refused + 1 } else { 0 };
        refused >= 3
    })
    .await;
    let told = applies(&server, &ARGOCD, &route("summarize", 13)).await;
    assert!(told.success, "{}", told.err);

    for replica in &mut replicas {
        support::process::signal(replica.id(), "KILL");
        replica.ended().await;
    }
    let told = applies(&server, &ARGOCD, &route("summarize", 14)).await;
    assert!(told.err.contains(r#"failed calling webhook "shifts.sluice.dev""#), "{}", told.err);
    the_cluster_goes_on(&server, "one").await;

    server.restart().await;
    until("the API server answers", async || server.kubectl(&["get", "namespace", "drill"], "").await.success).await;
    the_cluster_goes_on(&server, "two").await;
    let told = applies(&server, &ARGOCD, &route("summarize", 14)).await;
    assert!(told.err.contains(r#"failed calling webhook "shifts.sluice.dev""#), "{}", told.err);

    // Nobody is asked any more: somebody took the registration away. The belt holds what it can.
    must(&server, &ANNA, &["apply", "--server-side", "-f", "-"], &belt(&guards)).await;
    must(&server, &ANNA, &["delete", "validatingwebhookconfiguration", "sluice-webhook"], "").await;
    let dry = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-n", "drill", "-f", "-"];
    until("the belt is on", async || {
        let told = kubectl(&server, &ARGOCD, &dry, &route("summarize", 60)).await;
        told.err.contains("sluice-belt-small-steps")
    })
    .await;
    let told = applies(&server, &ARGOCD, &route("summarize", 60)).await;
    assert!(!told.success && told.err.contains("sluice-belt-small-steps"), "{}", told.err);
    for canary in [20, 3] {
        let told = applies(&server, &ARGOCD, &route("summarize", canary)).await;
        assert!(told.success, "a step and the way back to {canary}: {}", told.err);
    }
    the_cluster_goes_on(&server, "three").await;

    // One replica is enough: it registers itself, and has not forgotten what was admitted, nor missed what was not.
    let _replica = service.replica(&server, "sluice-webhook-0").await;
    registered(&server).await;
    let told = applies(&server, &ARGOCD, &route("summarize", 13)).await;
    assert!(!told.success && told.err.contains("perWindow"), "{}", told.err);
    let told = applies(&server, &ARGOCD, &route("summarize", 5)).await;
    assert!(told.success, "the way back: {}", told.err);
    let ledgers: Value =
        serde_json::from_str(&server.kubectl(&["get", "shiftledgers", "-o", "json"], "").await.out).unwrap();
    assert_eq!(ledgers["items"].as_array().unwrap().len(), 1);
}
