//! The test API server does what the other tests rely on.

mod support {
    pub(crate) mod cluster;
}

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use serde_json::json;
use support::cluster::{Server, until};

fn config_map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.into()), ..Default::default() }, ..Default::default() }
}

#[tokio::test]
async fn keeps_objects_port_and_tokens_over_a_crash() {
    let mut server = Server::start().await;
    let before = server.facts().clone();
    let api: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    api.create(&PostParams::default(), &config_map("kept")).await.unwrap();
    server.kill().await;
    assert!(api.get("kept").await.is_err());
    server.restart().await;
    assert_eq!((&before.url, &before.tokens), (&server.facts().url, &server.facts().tokens));
    let api: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    api.get("kept").await.unwrap();
}

#[tokio::test]
async fn tells_accounts_apart() {
    let server = Server::shared().await;
    let account = server.service_account("harness-accounts", "bot").await;
    let api: Api<Namespace> = Api::all(account);
    let refused = api.list(&ListParams::default()).await.unwrap_err();
    assert!(refused.to_string().contains("system:serviceaccount:harness-accounts:bot"), "{refused}");
    server.trust("system:serviceaccount:harness-accounts:bot").await;
    until("the binding is in force", async || api.list(&ListParams::default()).await.is_ok()).await;
    let nobody: Api<Namespace> = Api::all(server.bearer("wrong").await);
    assert!(nobody.list(&ListParams::default()).await.unwrap_err().to_string().contains("Unauthorized"));
}

#[tokio::test]
async fn runs_kubectl_and_the_controllers() {
    let server = Server::shared().await;
    server.namespace("harness-kubectl").await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "b"}});
    let output = server.kubectl(&["apply", "-n", "harness-kubectl", "-f", "-"], &object.to_string()).await;
    assert_eq!((output.success, output.out.trim()), (true, "configmap/one created"), "{}", output.err);
    let output = server.kubectl(&["get", "configmap", "two", "-n", "harness-kubectl"], "").await;
    assert!(!output.success && output.err.contains("NotFound"), "{}", output.err);
    let namespaces: Api<Namespace> = Api::all(server.admin().await);
    namespaces.delete("harness-kubectl", &DeleteParams::default()).await.unwrap();
    until("the controller has emptied the namespace", async || {
        namespaces.get_opt("harness-kubectl").await.unwrap().is_none()
    })
    .await;
}
