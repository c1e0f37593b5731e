//! Self-made certificates in a real cluster: replicas agree, and nothing fails while they are replaced.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod support {
    pub(crate) mod cluster;
    pub(crate) mod hook;
}

use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use sluice_webhook::cluster::certificate::Policy;
use sluice_webhook::cluster::upkeep::{Registered, Upkeep};
use sluice_webhook::tls::Certificate;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::cluster::{Server, apply, until};
use support::hook::{Hook, policy, registration, upkeep};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

struct Running(JoinHandle<()>);

impl Running {
    fn start(upkeep: Arc<Upkeep>) -> Self {
        Self(tokio::spawn(async move { upkeep.run(|| true).await }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn secret(server: &Server, namespace: &str) -> Option<Secret> {
    let api: Api<Secret> = Api::namespaced(server.admin().await, namespace);
    api.get_opt("sluice-webhook").await.unwrap()
}

fn part(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}

/// The leaves that replicas show.
async fn shown(server: &Server, namespace: &str) -> Vec<String> {
    let leases: Api<Lease> = Api::namespaced(server.admin().await, namespace);
    let leases = leases.list(&Default::default()).await.unwrap();
    leases.iter().filter_map(|lease| lease.annotations().get("sluice.dev/leaf").cloned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_agree_and_another_leads_when_the_leader_dies() {
    let server = Server::shared().await;
    server.namespace("agree").await;
    let mut replicas = Vec::new();
    for name in ["a", "b", "c"] {
        let certificate = Certificate::default();
        let upkeep = upkeep(&server, "agree", name, policy(), certificate.clone(), Registered::No).await;
        replicas.push((certificate, upkeep.clone(), Running::start(upkeep)));
    }
    until("all serve", async || replicas.iter().all(|(certificate, ..)| certificate.not_after().is_some())).await;
    until("all show the same leaf", async || {
        let shown = shown(&server, "agree").await;
        shown.len() == 3 && shown.iter().collect::<BTreeSet<_>>().len() == 1 && !shown[0].is_empty()
    })
    .await;
    let leads = |(_, upkeep, _): &(Certificate, Arc<Upkeep>, Running)| upkeep.leads.load(Ordering::Relaxed);
    until("one leads", async || replicas.iter().filter(|replica| leads(replica)).count() == 1).await;
    let leader = replicas.iter().position(leads).unwrap();
    drop(replicas.remove(leader));
    until("another one leads", async || replicas.iter().filter(|replica| leads(replica)).count() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_deleted_or_broken_is_mended() {
    let server = Server::shared().await;
    server.namespace("mended").await;
    let certificate = Certificate::default();
    let upkeep = upkeep(&server, "mended", "one", policy(), certificate.clone(), Registered::No).await;
    let _running = Running::start(upkeep);
    until("it serves", async || certificate.not_after().is_some()).await;
    let first = secret(&server, "mended").await.unwrap();
    let api: Api<Secret> = Api::namespaced(server.admin().await, "mended");
    api.delete("sluice-webhook", &DeleteParams::default()).await.unwrap();
    until("it is back", async || secret(&server, "mended").await.is_some()).await;
    assert_eq!(secret(&server, "mended").await.unwrap().data, first.data, "what is served is still trusted");

    let data = json!({"data": {"tls.crt": ByteString(b"nonsense".to_vec())}});
    api.patch("sluice-webhook", &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
    until("there is a leaf again", async || {
        part(&secret(&server, "mended").await.unwrap(), "tls.crt").contains("BEGIN CERTIFICATE")
    })
    .await;
    let mended = secret(&server, "mended").await.unwrap();
    assert_eq!(part(&mended, "ca.crt"), part(&first, "ca.crt"), "of the same CA");
    // An empty Secret, as a chart may leave one.
    let nothing = json!({"data": null});
    api.patch("sluice-webhook", &PatchParams::default(), &Patch::Merge(nothing)).await.unwrap();
    until("it is filled", async || {
        secret(&server, "mended").await.unwrap().data.is_some_and(|data| data.contains_key("ca.key"))
    })
    .await;
}

/// A route through the API server again and again, while leaves live for seconds and CAs not much longer.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_leaves_and_cas_are_replaced() {
    let server = Server::start().await;
    let path = format!("{}/../rules/crds/2.14/kuma.io_meshhttproutes.yaml", env!("CARGO_MANIFEST_DIR"));
    server.install_crds(&std::fs::read_to_string(path).unwrap()).await;
    server.namespace("sluice-system").await;
    let second = SignedDuration::from_secs(1);
    let hurried = Policy { ca: second * 15, leaf: second * 9, spread: second * 2, overlap: second * 2, ..policy() };
    let (one, two) = (Hook::start().await, Hook::start().await);
    let balanced = balance(vec![one.address.to_string(), two.address.to_string()]).await;
    let mut running = Vec::new();
    for (name, hook) in [("one", &one), ("two", &two)] {
        let ours = Registered::Ours(registration("sluice-webhook", format!("https://{balanced}/validate")));
        let upkeep = upkeep(&server, "sluice-system", name, hurried.clone(), hook.certificate.clone(), ours).await;
        running.push(Running::start(upkeep));
    }
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(server.admin().await);
    until("it is registered", async || hooks.get_opt("sluice-webhook").await.unwrap().is_some()).await;

    let (calls, failures) = (AtomicU64::new(0), std::sync::Mutex::new(Vec::new()));
    let (mut cas, mut leaves) = (BTreeSet::new(), BTreeSet::new());
    let end = Instant::now() + Duration::from_secs(28);
    let load = async {
        let admin = server.admin().await;
        while Instant::now() < end {
            let number = calls.fetch_add(1, Ordering::Relaxed);
            let backends = json!([{"kind": "MeshService", "name": "v1", "port": 80, "weight": number}]);
            let matches = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
            let rules = json!([{"matches": matches, "default": {"backendRefs": backends}}]);
            let route = json!({
                "apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
                "metadata": {"name": "loaded", "namespace": "default"},
                "spec": {"to": [{"targetRef": {"kind": "MeshService", "name": "backend"}, "rules": rules}]},
            });
            if let Err(error) = apply(&admin, &route, "load").await {
                failures.lock().unwrap().push(error.to_string());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let look = async {
        while Instant::now() < end {
            let secret = secret(&server, "sluice-system").await.unwrap();
            cas.insert(part(&secret, "ca.key"));
            leaves.insert(part(&secret, "tls.crt"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(load, look);
    let asked = (one.asked("loaded").len(), two.asked("loaded").len());
    let (failures, calls) = (failures.into_inner().unwrap(), calls.into_inner());
    assert!(failures.is_empty(), "{} of {calls} calls failed, first: {}", failures.len(), failures[0]);
    assert!(cas.len() >= 2 && leaves.len() >= 3, "{} CAs, {} leaves", cas.len(), leaves.len());
    assert!(asked.0 > 50 && asked.1 > 50 && calls > 200, "{asked:?}");
}

/// Connections go to the servers in turn, as a Service sends them.
async fn balance(servers: Vec<String>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let turn = AtomicUsize::new(0);
        while let Ok((mut near, _)) = listener.accept().await {
            let server = servers[turn.fetch_add(1, Ordering::Relaxed) % servers.len()].clone();
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(server).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    address
}
