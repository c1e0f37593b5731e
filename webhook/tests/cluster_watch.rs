//! The webhook's view of a real API server: what it knows, when it is ready, and how it survives.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod support {
    pub(crate) mod cluster;
}

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use sluice_rules::policy::Policy;
use sluice_rules::split;
use sluice_rules::validate::Version;
use sluice_webhook::cluster::{self, Event, Progress, Seen, Settings};
use sluice_webhook::world::Shared;
use std::sync::Arc;
use std::time::Duration;
use support::cluster::{Server, until};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

/// A watch that runs until it is dropped.
struct Watched {
    world: Shared,
    progress: Arc<Progress>,
    events: UnboundedReceiver<Event>,
    task: JoinHandle<()>,
}

impl Watched {
    fn start(client: Client) -> Self {
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let (world, progress) = (Shared::default(), Arc::new(Progress::default()));
        let settings = Settings { client, world: world.clone(), events: sender, kuma: None };
        let task = tokio::spawn(cluster::watch(settings, progress.clone()));
        Self { world, progress, events, task }
    }

    async fn ready(&self) {
        until("the watch is ready", async || self.progress.is_ready()).await;
    }

    fn guards(&self) -> Vec<String> {
        self.world.load().guards.iter().map(|guard| guard.name().to_owned()).collect()
    }

    async fn event(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(30), self.events.recv()).await.expect("no event").unwrap()
    }

    async fn route(&mut self) -> Seen {
        loop {
            if let Event::Route(seen) = self.event().await {
                return *seen;
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn install(server: &Server, kuma: &[&str]) {
    let mut files: Vec<_> =
        sluice_webhook::crds::all().iter().map(|crd| sluice_webhook::crds::file(crd).unwrap().1).collect();
    files.extend(kuma.iter().map(|plural| kuma_crd(plural)));
    server.install_crds(&files.join("---\n")).await;
}

fn kuma_crd(plural: &str) -> String {
    let path = format!("{}/../rules/crds/2.14/kuma.io_{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn guard(name: &str, step: f64) -> Value {
    let spec = json!({"caps": {"maxStep": step}});
    json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard", "metadata": {"name": name}, "spec": spec})
}

fn route(name: &str, canary: u32) -> Value {
    let backend = |name: &str, weight: u32| json!({"kind": "MeshService", "name": name, "port": 80, "weight": weight});
    let backends = [backend("v1", 100 - canary), backend("v2", canary)];
    json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
        "metadata": {"name": name, "namespace": "default", "labels": {"kuma.io/mesh": "default"}},
        "spec": {"to": [{
            "targetRef": {"kind": "MeshService", "name": "backend"},
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "default": {"backendRefs": backends}}],
        }]},
    })
}

fn shift(seen: &Seen) -> f64 {
    let splits = |policy: &Option<Policy>| policy.as_ref().map_or_else(Vec::new, |policy| split::splits(policy).0);
    split::change(&splits(&seen.previous), &splits(&seen.present)).shift
}

async fn delete(server: &Server, kind: &str, name: &str) {
    let output = server.kubectl(&["delete", kind, name, "--wait=false"], "").await;
    assert!(output.success, "{}", output.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn tells_each_change_of_a_route_with_what_it_was_before() {
    let server = Server::start().await;
    install(&server, &["meshhttproutes", "trafficroutes", "meshservices"]).await;
    server.apply(&route("summarize", 5)).await.unwrap();
    server.apply(&guard("first", 10.0)).await.unwrap();
    let digest = "a".repeat(64);
    let spec = json!({"digest": digest, "approver": "ann"});
    let head = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftApproval", "metadata": {"name": "one"}});
    let mut approval = head;
    approval["spec"] = spec;
    server.apply(&approval).await.unwrap();
    let mut watched = Watched::start(server.admin().await);
    watched.ready().await;
    assert_eq!((watched.guards(), watched.world.load().kuma.version), (vec!["first".to_owned()], Version::V2_14));
    assert_eq!(watched.world.load().approvals[0].digest, digest);
    assert!(watched.world.load().known.complete && watched.world.load().in_cluster);
    assert_eq!(watched.progress.waits_for(), None);

    let seen = watched.route().await;
    assert!(seen.first && seen.previous.is_none() && seen.identity.to_string().contains("summarize"), "{seen:?}");
    let uid = seen.uid;
    server.apply(&route("summarize", 15)).await.unwrap();
    let seen = watched.route().await;
    assert_eq!((shift(&seen), &seen.uid, seen.first, seen.deleted), (10.0, &uid, false, false));
    delete(&server, "meshhttproute", "summarize").await;
    let seen = watched.route().await;
    assert_eq!((&seen.uid, seen.deleted, seen.present.is_none(), seen.previous.is_some()), (&uid, true, true, true));
    server.apply(&route("summarize", 15)).await.unwrap();
    let seen = watched.route().await;
    assert!(seen.uid != uid && seen.previous.is_none() && !seen.first);

    server.apply(&guard("second", 20.0)).await.unwrap();
    until("the guard is known", async || watched.guards().len() == 2).await;
    delete(&server, "shiftguard", "first").await;
    until("the guard is forgotten", async || watched.guards() == ["second"]).await;
    delete(&server, "shiftapproval", "one").await;
    until("the approval is forgotten", async || watched.world.load().approvals.is_empty()).await;

    let spec = json!({"mesh": "default", "destination": "backend", "entries": []});
    let ledger = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftLedger", "metadata": {"name": "backend"}, "spec": spec,
    });
    server.apply(&ledger).await.unwrap();
    let Event::Ledger(ledger) = watched.event().await else { panic!("not the ledger") };
    assert_eq!((&ledger["spec"], ledger["metadata"].get("managedFields")), (&spec, None));
    delete(&server, "shiftledger", "backend").await;
    let Event::LedgerGone(name) = watched.event().await else { panic!("not the ledger's end") };
    assert_eq!(name, "backend");
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_its_definitions_and_follows_kumas_as_they_come_and_go() {
    let server = Server::start().await;
    let mut watched = Watched::start(server.admin().await);
    until("it says what is missing", async || {
        watched.progress.waits_for().is_some_and(|reason| reason.contains("shiftguards.sluice.dev"))
    })
    .await;
    assert!(!watched.progress.is_ready());
    install(&server, &[]).await;
    watched.ready().await;
    server.install_crds(&kuma_crd("meshhttproutes")).await;
    until("Kuma is taken for 3.0", async || watched.world.load().kuma.version == Version::V3_0).await;
    server.apply(&route("later", 5)).await.unwrap();
    assert_eq!(watched.route().await.identity.name, "later");
    server.install_crds(&kuma_crd("trafficroutes")).await;
    until("Kuma is taken for 2.14", async || watched.world.load().kuma.version == Version::V2_14).await;
    until("everything is known", async || watched.world.load().known.complete).await;
    delete(&server, "crd", "trafficroutes.kuma.io").await;
    until("Kuma is taken for 3.0", async || watched.world.load().kuma.version == Version::V3_0).await;
    delete(&server, "crd", "meshhttproutes.kuma.io").await;
    let seen = watched.route().await;
    assert!(seen.deleted && seen.identity.name == "later", "{seen:?}");
    assert!(watched.progress.is_ready(), "once ready it stays so");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_cannot_be_read_stop_nothing() {
    let server = Server::start().await;
    install(&server, &["meshhttproutes", "trafficroutes"]).await;
    server.apply(&guard("was-good", 7.0)).await.unwrap();
    let legacy = json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "TrafficRoute", "metadata": {"name": "odd"}, "mesh": "default",
        "spec": {"conf": {"split": [{"weight": "ninety", "destination": {"kuma.io/service": 5}}]}},
    });
    server.apply(&legacy).await.unwrap();
    let mut watched = Watched::start(server.admin().await);
    watched.ready().await;
    assert_eq!(watched.progress.unreadable(), 1);
    let seen = watched.route().await;
    assert!(seen.present.is_none() && !seen.deleted && seen.identity.name == "odd", "{seen:?}");
    // A schedule may look like one and name a minute that no hour has.
    let mut bad = guard("was-good", 9.0);
    bad["spec"]["freeze"] = json!([{"cron": "99 * * * *", "duration": "1h"}]);
    server.apply(&bad).await.unwrap();
    bad["metadata"]["name"] = json!("never-good");
    server.apply(&bad).await.unwrap();
    server.apply(&guard("good", 5.0)).await.unwrap();
    until("the good guard is known", async || watched.guards() == ["good", "was-good"]).await;
    assert_eq!(watched.world.load().guards[1].spec.caps.max_step, Some(7.0), "as it was while it could be read");
    until("both are counted", async || watched.progress.unreadable() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catches_up_with_what_happened_while_it_could_not_see() {
    let mut server = Server::start().await;
    install(&server, &["meshhttproutes", "trafficroutes"]).await;
    for name in ["changed", "deleted", "replaced", "same"] {
        server.apply(&route(name, 5)).await.unwrap();
    }
    server.apply(&guard("deleted", 10.0)).await.unwrap();
    let mut config = server.config().await;
    let proxy = Proxy::new(config.cluster_url.authority().unwrap().as_str()).await;
    config.cluster_url = proxy.url();
    let mut watched = Watched::start(Client::try_from(config).unwrap());
    watched.ready().await;
    for _ in 0..4 {
        assert!(watched.route().await.first);
    }
    let Event::Complete = watched.event().await else { panic!("the first lists are complete") };

    let away = proxy.cut().await;
    server.apply(&route("changed", 15)).await.unwrap();
    server.apply(&route("created", 5)).await.unwrap();
    delete(&server, "meshhttproute", "deleted").await;
    delete(&server, "meshhttproute", "replaced").await;
    server.apply(&route("replaced", 5)).await.unwrap();
    delete(&server, "shiftguard", "deleted").await;
    // The restarted server has no events from before, so the watch is too old and the list is told anew.
    server.restart().await;
    assert!(watched.progress.is_ready() && watched.guards() == ["deleted"], "answers go on from memory");
    away.back().await;

    let mut told = Vec::new();
    while told.len() < 5 {
        let seen = watched.route().await;
        assert!(!seen.first);
        told.push((seen.identity.name.clone(), seen.deleted, shift(&seen) > 0.0));
    }
    told.sort();
    let expected = [("changed", false), ("created", false), ("deleted", true), ("replaced", false), ("replaced", true)];
    assert_eq!(told, expected.map(|(name, deleted)| (name.to_owned(), deleted, true)));
    until("the guard is forgotten", async || watched.guards().is_empty()).await;
    assert!(watched.progress.age() < Duration::from_secs(30));
    // And the watch goes on from there.
    server.apply(&route("same", 6)).await.unwrap();
    let seen = watched.route().await;
    assert_eq!((seen.identity.name.as_str(), shift(&seen)), ("same", 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_routes_are_all_told() {
    let server = Server::start().await;
    install(&server, &["meshhttproutes", "trafficroutes"]).await;
    let gvk = GroupVersionKind::gvk("kuma.io", "v1alpha1", "MeshHTTPRoute");
    let api: Api<DynamicObject> = Api::namespaced_with(server.admin().await, "default", &ApiResource::from_gvk(&gvk));
    let create = |number: usize| {
        let api = api.clone();
        async move {
            let object: DynamicObject = serde_json::from_value(route(&format!("route-{number}"), 5)).unwrap();
            api.create(&Default::default(), &object).await.unwrap();
        }
    };
    for chunk in (0..1000).collect::<Vec<_>>().chunks(50) {
        futures::future::join_all(chunk.iter().map(|number| create(*number))).await;
    }
    let mut watched = Watched::start(server.admin().await);
    watched.ready().await;
    let mut names = std::collections::BTreeSet::new();
    while let Ok(event) = watched.events.try_recv() {
        if let Event::Route(seen) = event {
            assert!(seen.first && matches!(seen.present, Some(Policy::MeshHttpRoute(_))));
            names.insert(seen.identity.name);
        }
    }
    assert_eq!(names.len(), 1000);
    api.delete_collection(&DeleteParams::default(), &Default::default()).await.unwrap();
    for _ in 0..1000 {
        assert!(watched.route().await.deleted);
    }
}

/// A way to the API server that can be cut.
struct Proxy {
    address: std::net::SocketAddr,
    to: String,
    accept: JoinHandle<()>,
}

/// The way while it is cut.
struct Cut(Proxy);

impl Proxy {
    async fn new(to: &str) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), to.to_owned()).await
    }

    async fn at(address: std::net::SocketAddr, to: String) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, target) = (listener.local_addr().unwrap(), to.clone());
        let accept = tokio::spawn(async move {
            // Dropped with the task, which ends every connection.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self { address, to, accept }
    }

    fn url(&self) -> http::Uri {
        format!("https://{}", self.address).parse().unwrap()
    }

    async fn cut(self) -> Cut {
        self.accept.abort();
        until("no connection is left", async || self.accept.is_finished()).await;
        Cut(self)
    }
}

impl Cut {
    async fn back(self) -> Proxy {
        Proxy::at(self.0.address, self.0.to).await
    }
}
