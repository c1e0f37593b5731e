//! What a real API server asks the webhook, whom it does not ask about, and what goes on without it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod support {
    pub(crate) mod cluster;
    pub(crate) mod hook;
}

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use sluice_webhook::cluster::certificate::Material;
use sluice_webhook::cluster::registration::{self, Error};
use sluice_webhook::cluster::upkeep::Registered;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::cluster::{Server, apply, until};
use support::hook::{Hook, policy, registration, upkeep};

const CONTROL_PLANE: (&str, &str) = ("kuma-system", "kuma-control-plane");

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "kuma.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["labels"] = json!({"kuma.io/mesh": "default"});
    }
    object
}

fn route(namespace: &str, name: &str, weight: u32) -> Value {
    let backends = json!([{"kind": "MeshService", "name": "v1", "port": 80, "weight": weight}]);
    let rules =
        json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "default": {"backendRefs": backends}}]);
    let to = json!([{"targetRef": {"kind": "MeshService", "name": "backend"}, "rules": rules}]);
    object("MeshHTTPRoute", namespace, name, json!({"to": to}))
}

fn timeout(name: &str) -> Value {
    let to = json!([{"targetRef": {"kind": "Mesh"}, "default": {"connectionTimeout": "10s"}}]);
    object("MeshTimeout", "default", name, json!({"to": to}))
}

fn legacy(name: &str, weight: u32) -> Value {
    let conf = json!({"split": [{"weight": weight, "destination": {"kuma.io/service": "v1"}}]});
    let mut object = object("TrafficRoute", "", name, json!({"conf": conf}));
    object["mesh"] = json!("default");
    object
}

async fn install(server: &Server) {
    let mut files: Vec<_> =
        sluice_webhook::crds::all().iter().map(|crd| sluice_webhook::crds::file(crd).unwrap().1).collect();
    for plural in ["meshhttproutes", "trafficroutes", "meshtimeouts", "meshservices"] {
        let path = format!("{}/../rules/crds/2.14/kuma.io_{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
        files.push(std::fs::read_to_string(path).unwrap());
    }
    server.install_crds(&files.join("---\n")).await;
    server.namespace("sluice-system").await;
}

/// Registers a hook under this name and waits until the API server asks it.
async fn registered(server: &Server, name: &str) -> Hook {
    let hook = Hook::start().await;
    let material = Material::new(&policy(), jiff::Timestamp::now()).unwrap();
    hook.certificate.set(material.leaf.as_bytes(), material.leaf_key.as_bytes()).unwrap();
    let admin = server.admin().await;
    registration(name, hook.url()).apply(&admin, &material.bundle()).await.unwrap();
    in_force(&admin, &hook).await;
    hook
}

async fn in_force(client: &Client, hook: &Hook) {
    until("the webhook is asked", async || {
        let probe = timeout(&format!("probe-{}", hook.address.port()));
        apply(client, &probe, "probe").await.unwrap();
        let api: Api<kube::api::DynamicObject> = Api::namespaced_with(client.clone(), "default", &timeouts());
        api.delete(probe["metadata"]["name"].as_str().unwrap(), &DeleteParams::default()).await.unwrap();
        !hook.asked("probe").is_empty()
    })
    .await;
}

fn timeouts() -> kube::core::ApiResource {
    kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("kuma.io", "v1alpha1", "MeshTimeout"))
}

#[tokio::test(flavor = "multi_thread")]
async fn is_asked_about_what_moves_traffic_and_about_nothing_else() {
    let server = Server::start().await;
    install(&server).await;
    let hook = registered(&server, "sluice-webhook").await;
    let admin = server.admin().await;
    let asked = |about: &str| hook.asked(about);

    // Create, change, delete; and an answer counts.
    server.apply(&route("default", "summarize", 5)).await.unwrap();
    assert_eq!(asked("summarize"), ["CREATE meshhttproutes summarize admin"]);
    server.apply(&route("default", "summarize", 6)).await.unwrap();
    assert_eq!(asked("summarize"), ["UPDATE meshhttproutes summarize admin"]);
    let refused = server.apply(&route("default", "refused", 5)).await.unwrap_err().to_string();
    assert!(refused.contains("shifts.sluice.dev") && refused.contains("as the test wants"), "{refused}");
    server.apply(&legacy("old", 5)).await.unwrap();
    server.apply(&legacy("old", 6)).await.unwrap();
    assert_eq!(asked("old"), ["CREATE trafficroutes old admin", "UPDATE trafficroutes old admin"]);
    let mut elsewhere = legacy("old", 6);
    elsewhere["mesh"] = json!("other");
    server.apply(&elsewhere).await.unwrap();
    assert_eq!(asked("old"), ["UPDATE trafficroutes old admin"], "another mesh is another place");

    // What leaves the spec as it is.
    let mut same = route("default", "summarize", 6);
    same["metadata"]["annotations"] = json!({"who": "cares"});
    same["metadata"]["finalizers"] = json!(["example.com/wait"]);
    server.apply(&same).await.unwrap();
    assert_eq!(asked("summarize"), [""; 0]);
    same["metadata"]["labels"]["kuma.io/effect"] = json!("shadow");
    server.apply(&same).await.unwrap();
    assert_eq!(asked("summarize"), ["UPDATE meshhttproutes summarize admin"], "a label may take a route out of use");

    // Deletion, then the end of a finalizer, which is an update.
    let output = server.kubectl(&["delete", "meshhttproute", "summarize", "--wait=false"], "").await;
    assert!(output.success, "{}", output.err);
    assert_eq!(asked("summarize"), ["DELETE meshhttproutes summarize admin"]);
    let api: Api<kube::api::DynamicObject> = Api::namespaced_with(
        admin.clone(),
        "default",
        &kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("kuma.io", "v1alpha1", "MeshHTTPRoute")),
    );
    let done = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("summarize", &PatchParams::default(), &done).await.unwrap();
    assert_eq!((api.get_opt("summarize").await.unwrap().is_none(), asked("summarize")), (true, Vec::new()));

    // Accounts that are not asked about.
    for (namespace, account) in [
        CONTROL_PLANE,
        ("kube-system", "generic-garbage-collector"),
        ("kube-system", "namespace-controller"),
        ("kube-system", "storage-version-migrator-controller"),
    ] {
        server.trust(&format!("system:serviceaccount:{namespace}:{account}")).await;
        let client = server.service_account(namespace, account).await;
        let refused = route("default", &format!("refused-{account}"), 5);
        until("the account may write", async || apply(&client, &refused, "t").await.is_ok()).await;
        assert_eq!(asked(account), [""; 0]);
    }

    // Our own kinds: everybody is asked about but ourselves with our ledgers.
    let ledger = |name: &str, entries: Value| {
        let spec = json!({"mesh": "default", "destination": "backend", "entries": entries});
        json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftLedger", "metadata": {"name": name}, "spec": spec})
    };
    server.trust("system:serviceaccount:sluice-system:sluice-webhook").await;
    let own = server.service_account("sluice-system", "sluice-webhook").await;
    until("the account may write", async || apply(&own, &ledger("backend", json!([])), "t").await.is_ok()).await;
    assert_eq!(asked("backend"), [""; 0]);
    let control_plane = server.service_account(CONTROL_PLANE.0, CONTROL_PLANE.1).await;
    let refused = apply(&control_plane, &ledger("refused", json!([])), "t").await.unwrap_err();
    assert!(refused.to_string().contains("as the test wants"), "{refused}");
    let guard =
        json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard", "metadata": {"name": "mine"}, "spec": {}});
    apply(&own, &guard, "t").await.unwrap();
    assert_eq!(asked("mine").len(), 1);

    // Places and kinds that are never asked about.
    for namespace in ["kube-system", "sluice-system"] {
        server.apply(&route(namespace, "refused-elsewhere", 5)).await.unwrap();
    }
    let core =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "refused", "namespace": "default"}});
    server.apply(&core).await.unwrap();
    server.apply(&object("MeshService", "default", "refused", json!({"selector": {}}))).await.unwrap();
    assert_eq!(asked("refused-elsewhere"), [""; 0]);
    // A dry run is asked about: the side effects are declared.
    let dry = PatchParams { dry_run: true, ..PatchParams::apply("t").force() };
    api.patch("dry", &dry, &Patch::Apply(route("default", "dry", 5))).await.unwrap();
    assert_eq!(asked("dry"), ["CREATE meshhttproutes dry admin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_webhook_only_traffic_stands_still() {
    let server = Server::start().await;
    install(&server).await;
    server.namespace("leaving").await;
    let hook = registered(&server, "sluice-webhook").await;
    server.apply(&route("leaving", "left", 5)).await.unwrap();
    drop(hook);
    let mut weight = 0;
    until("the webhook is away", async || {
        weight += 1;
        let result = server.apply(&route("default", "new", weight)).await;
        result.is_err_and(|error| error.to_string().contains("failed calling webhook"))
    })
    .await;
    server.apply(&timeout("free")).await.unwrap();
    server.apply(&object("MeshService", "default", "free", json!({"selector": {}}))).await.unwrap();
    let core = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "free", "namespace": "default"}});
    server.apply(&core).await.unwrap();
    server.apply(&route("sluice-system", "own", 5)).await.unwrap();
    let control_plane = server.service_account(CONTROL_PLANE.0, CONTROL_PLANE.1).await;
    server.trust(&format!("system:serviceaccount:{}:{}", CONTROL_PLANE.0, CONTROL_PLANE.1)).await;
    until("the control plane writes", async || {
        apply(&control_plane, &route("default", "synced", 5), "t").await.is_ok()
    })
    .await;
    // A namespace with a guarded route in it goes away.
    let namespaces: Api<Namespace> = Api::all(server.admin().await);
    namespaces.delete("leaving", &DeleteParams::default()).await.unwrap();
    until("the namespace is gone", async || namespaces.get_opt("leaving").await.unwrap().is_none()).await;
    // And whoever removes the configuration is free.
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(server.admin().await);
    hooks.delete("sluice-webhook", &DeleteParams::default()).await.unwrap();
    until("the way is free", async || server.apply(&route("default", "new", 5)).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_when_it_is_ready_and_puts_its_certificates_into_others_configurations() {
    let server = Server::start().await;
    install(&server).await;
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(server.admin().await);

    // Not before it is ready.
    let (hook, ready) = (Hook::start().await, Arc::new(AtomicBool::new(false)));
    let ours = Registered::Ours(registration("ours", hook.url()));
    let kept = upkeep(&server, "sluice-system", "one", policy(), hook.certificate.clone(), ours).await;
    let (running, condition) = (kept.clone(), ready.clone());
    let task = tokio::spawn(async move { running.run(|| condition.load(Ordering::Relaxed)).await });
    until("it leads and serves", async || kept.leads.load(Ordering::Relaxed) && hook.certificate.not_after().is_some())
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(hooks.get_opt("ours").await.unwrap().is_none());
    ready.store(true, Ordering::Relaxed);
    until("it is registered", async || hooks.get_opt("ours").await.unwrap().is_some()).await;
    in_force(&server.admin().await, &hook).await;
    // A registration that somebody removed comes back.
    hooks.delete("ours", &DeleteParams::default()).await.unwrap();
    until("it is registered again", async || hooks.get_opt("ours").await.unwrap().is_some()).await;
    task.abort();

    // The chart's configuration: our two webhooks beside another one's.
    let mut theirs = registration("theirs", hook.url()).configuration("");
    for webhook in theirs["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
    }
    let mut foreign = theirs["webhooks"][1].clone();
    foreign["name"] = json!("foreign.example.com");
    theirs["webhooks"].as_array_mut().unwrap().push(foreign);
    server.apply(&theirs).await.unwrap();
    let bundle = Material::new(&policy(), jiff::Timestamp::now()).unwrap().bundle();
    let admin = server.admin().await;
    registration::trust(&admin, "theirs", &bundle).await.unwrap();
    let trusted = async || {
        let webhooks = hooks.get("theirs").await.unwrap().webhooks.unwrap();
        webhooks.into_iter().map(|webhook| webhook.client_config.ca_bundle.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(trusted().await, [true, true, false]);
    // Whoever applies the chart again takes nothing away.
    server.apply(&theirs).await.unwrap();
    assert_eq!(trusted().await, [true, true, false]);
    // Somebody who insists on a bundle of their own keeps it, and we say so.
    theirs["webhooks"][0]["clientConfig"]["caBundle"] = hooks_bundle(&bundle);
    server.apply(&theirs).await.unwrap();
    let other = Material::new(&policy(), jiff::Timestamp::now()).unwrap().bundle();
    let conflict = registration::trust(&admin, "theirs", &other).await.unwrap_err();
    assert!(matches!(&conflict, Error::Conflict(name, _) if name == "theirs"), "{conflict}");
    // Without our webhooks there is nothing to trust.
    let mut alien = theirs.clone();
    alien["metadata"]["name"] = json!("alien");
    alien["webhooks"] = json!([alien["webhooks"][2]]);
    server.apply(&alien).await.unwrap();
    assert!(matches!(registration::trust(&admin, "alien", &bundle).await, Err(Error::NoWebhook(_))));
    assert!(matches!(registration::trust(&admin, "nowhere", &bundle).await, Err(Error::Refused(..))));
}

fn hooks_bundle(bundle: &str) -> Value {
    json!(k8s_openapi::ByteString(bundle.as_bytes().to_vec()))
}
