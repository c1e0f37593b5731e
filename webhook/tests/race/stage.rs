//! What a race runs on: the API server, the replicas behind their proxy, another webhook, and who may write.

use super::scene::{ROUTES, Route, SUBJECTS};
use super::writer::{UNWANTED, routes};
use crate::support::certificates::Authority;
use crate::support::cluster::{Server, until};
use crate::support::http::Client as Caller;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use sluice_rules::guard::Ledger;
use sluice_webhook::admission::{Answer, Summary};
use sluice_webhook::server::{Life, Limits, Listener, bind, handler, router};
use sluice_webhook::telemetry::metrics::Metrics;
use sluice_webhook::tls::{Certificate, Oldest};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub(crate) const REPLICAS: usize = 3;

/// No request lasts longer at this API server, and so no lease needs to; in seconds.
const LEASE: u64 = 8;
/// After that clocks, and replicas that give each other a chance, need some time.
const SETTLED: Duration = Duration::from_secs(LEASE + 60);

pub(crate) struct Stage {
    server: Server,
    proxy: Proxy,
    caller: Caller,
    certificates: TempDir,
    replicas: [Option<Process>; REPLICAS],
    started: usize,
    writers: Vec<Client>,
    unwanted: JoinHandle<()>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let server =
            Server::start_with(&[&format!("--request-timeout={LEASE}s"), "--etcd-compaction-interval=0"]).await;
        let mut definitions: Vec<_> =
            sluice_webhook::crds::all().iter().map(|crd| sluice_webhook::crds::file(crd).unwrap().1).collect();
        for plural in ["meshhttproutes", "meshtcproutes", "trafficroutes"] {
            let path = format!("{}/../rules/crds/2.14/kuma.io_{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
            definitions.push(std::fs::read_to_string(path).unwrap());
        }
        server.install_crds(&definitions.join("---\n")).await;
        server.namespace("sluice-system").await;

        let authority = Authority::new();
        let pair = authority.leaf();
        let certificates = tempfile::tempdir().unwrap();
        for (name, text) in [("tls.crt", &*pair.chain), ("tls.key", &*pair.key), ("ca.crt", authority.pem())] {
            std::fs::write(certificates.path().join(name), text).unwrap();
        }
        let (unwanted, port) = refuse_everything(&pair.chain, &pair.key).await;
        server.apply(&other_webhook(port, authority.pem())).await.unwrap();
        let mut writers = Vec::new();
        for name in ["first", "second", "third", "fourth"] {
            server.trust(&format!("system:serviceaccount:gitops:{name}")).await;
            writers.push(server.service_account("gitops", name).await);
        }
        let (proxy, caller) = (Proxy::start().await, Caller::new(&authority));
        let replicas = [const { None }; REPLICAS];
        Self { server, proxy, caller, certificates, replicas, started: 0, writers, unwanted }
    }

    /// Where the API server keeps its data.
    pub(crate) fn folder(&self) -> &Path {
        self.server.facts().kubeconfig.parent().unwrap()
    }

    pub(crate) fn writer(&self, index: u64) -> Client {
        self.writers[index as usize % self.writers.len()].clone()
    }

    /// Everything that a race begins with: routes, guards, and all replicas, which know of both.
    pub(crate) async fn prepare(&mut self, namespace: &str) {
        self.server.namespace(namespace).await;
        for replica in 0..REPLICAS {
            if self.replicas[replica].is_none() {
                self.start(replica).await;
            }
        }
        let client = self.writer(0);
        for route in ROUTES.iter().filter(|route| route.begins) {
            let object: DynamicObject = serde_json::from_value(route.object(namespace, &route.begin())).unwrap();
            let api = routes(&client, namespace, route);
            until("a route is there", async || api.create(&Default::default(), &object).await.is_ok()).await;
        }
        for subject in &SUBJECTS {
            self.server.apply(&subject.guard(namespace)).await.unwrap();
        }
        for address in self.replicas.iter().flatten().map(|replica| replica.reviews) {
            for subject in &SUBJECTS {
                let known = async || self.denies(address, namespace, subject.name).await;
                until("a replica knows a guard", known).await;
            }
        }
        until("the webhook is asked", async || self.is_asked(namespace).await).await;
    }

    /// Does a replica refuse to give all traffic of a destination to its canary?
    async fn denies(&self, address: SocketAddr, namespace: &str, subject: &'static str) -> bool {
        let route = Route { kind: "MeshHTTPRoute", name: "probe", to: &[], begins: false };
        let object = |canary| {
            let mut object = route.object(namespace, &[(subject.to_owned(), canary)].into());
            object["metadata"]["uid"] = "probe".into();
            object["metadata"]["resourceVersion"] = "1".into();
            object
        };
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
            "uid": "probe", "kind": {"group": "kuma.io", "version": "v1alpha1", "kind": route.kind},
            "resource": {"group": "kuma.io", "version": "v1alpha1", "resource": route.plural()},
            "name": route.name, "namespace": namespace, "operation": "UPDATE", "dryRun": true,
            "userInfo": {"username": "system:serviceaccount:gitops:probe"},
            "object": object(100), "oldObject": object(0)}});
        let mut connection = self.caller.connect(address).await.unwrap();
        let reply = connection.post("/validate?timeout=3s", review.to_string().into()).await.unwrap();
        reply.json()["response"]["allowed"] == false
    }

    async fn is_asked(&self, namespace: &str) -> bool {
        let route = ROUTES.iter().find(|route| route.begins).unwrap();
        let api = routes(&self.writer(0), namespace, route);
        let mut object = route.object(namespace, &route.to.iter().map(|name| ((*name).to_owned(), 90)).collect());
        object["metadata"]["resourceVersion"] = json!(api.get(route.name).await.unwrap().metadata.resource_version);
        let dry = kube::api::PostParams { dry_run: true, ..Default::default() };
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        matches!(api.replace(route.name, &dry, &object).await, Err(kube::Error::Api(status)) if status.code == 422)
    }

    /// Starts a replica; it gets requests when it is ready.
    pub(crate) async fn start(&mut self, replica: usize) {
        self.started += 1;
        let path = |name: &str| self.certificates.path().join(name).to_str().unwrap().to_owned();
        let kubeconfig = self.server.facts().kubeconfig.to_str().unwrap().to_owned();
        let (url, lease) = (format!("https://localhost:{}/validate", self.proxy.port), format!("{LEASE}s"));
        // A pod that takes another's place has another name.
        let name = format!("sluice-webhook-{}", self.started);
        let (cert, key, ca) = (path("tls.crt"), path("tls.key"), path("ca.crt"));
        let command = [
            [env!("CARGO_BIN_EXE_sluice-webhook"), "serve"],
            ["--kubeconfig", &kubeconfig],
            ["--account", "admin"],
            ["--replica", &name],
            ["--lease", &lease],
            ["--cert", &cert],
            ["--key", &key],
            ["--ca", &ca],
            ["--register", "sluice-webhook"],
            ["--register-url", &url],
            ["--listen", "127.0.0.1:0"],
            ["--status-listen", "127.0.0.1:0"],
            ["--scan", "0s"],
        ];
        let command: Vec<_> = command.concat().into_iter().map(str::to_owned).collect();
        self.replicas[replica] = Some(Process::run(&command).await);
        self.proxy.set(self.replicas.iter().flatten().map(|replica| replica.reviews).collect());
    }

    /// Kills a replica; nobody tells the proxy.
    pub(crate) fn kill(&mut self, replica: usize) {
        self.replicas[replica] = None;
    }

    /// Kills the API server, which is back after a while with the data it had.
    pub(crate) async fn restart_server(&mut self, away: Duration) {
        self.server.kill().await;
        tokio::time::sleep(away).await;
        self.server.restart().await;
    }

    /// Waits until no reservation is outstanding; false when some are and every lease is over.
    pub(crate) async fn settle(&self, namespace: &str) -> bool {
        let start = Instant::now();
        while start.elapsed() < SETTLED {
            let ledgers = self.ledgers(namespace).await;
            if ledgers.iter().all(|ledger| ledger.outstanding().next().is_none()) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        false
    }

    pub(crate) async fn ledgers(&self, namespace: &str) -> Vec<Ledger> {
        let gvk = GroupVersionKind::gvk("sluice.dev", "v1alpha1", "ShiftLedger");
        let api: Api<DynamicObject> = Api::all_with(self.server.admin().await, &ApiResource::from_gvk(&gvk));
        let objects = api.list(&Default::default()).await.unwrap().items;
        let ledgers = objects.into_iter().map(|object| serde_json::from_value(object.data["spec"].clone()).unwrap());
        let ours = |ledger: &Ledger| ledger.destination.as_str().ends_with(&format!(".{namespace}"));
        ledgers.filter(ours).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.unwanted.abort();
    }
}

/// A webhook that refuses whatever it is asked about.
async fn refuse_everything(chain: &str, key: &str) -> (JoinHandle<()>, u16) {
    let certificate = Certificate::default();
    certificate.set(chain.as_bytes(), key.as_bytes()).unwrap();
    let answer = handler(|body, _| async move {
        let review: Value = serde_json::from_slice(&body).unwrap();
        let response = json!({"uid": review["request"]["uid"], "allowed": false, "status": {"message": "unwanted"}});
        let review = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
        Answer { status: 200, body: review.to_string().into(), summary: Summary::default() }
    });
    let tls = TlsAcceptor::from(Arc::new(certificate.server_config(Oldest::Tls13).unwrap()));
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (metrics, limits) = (Arc::new(Metrics::new(certificate)), Limits::default());
    let router = router(answer, &limits, Arc::clone(&metrics));
    let listener = Listener::new(listener, Some(tls), router, &limits, &Life::default(), metrics);
    (tokio::spawn(listener.run()), port)
}

/// Asks that webhook about all routes that carry the label, after ours or before, as the API server likes.
fn other_webhook(port: u16, ca: &str) -> Value {
    let bundle = k8s_openapi::ByteString(ca.as_bytes().to_vec());
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "unwanted"},
        "webhooks": [{
            "name": "unwanted.example.com",
            "clientConfig": {"url": format!("https://localhost:{port}/validate"), "caBundle": bundle},
            "rules": [{"apiGroups": ["kuma.io"], "apiVersions": ["*"], "resources": ["*"],
                       "operations": ["CREATE", "UPDATE"]}],
            "objectSelector": {"matchLabels": {UNWANTED: "true"}},
            "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 3, "admissionReviewVersions": ["v1"],
        }],
    })
}
