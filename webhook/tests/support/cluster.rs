//! A real Kubernetes API server on loopback (`testdata/servers`), its clients and kubectl.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// An API server that runs, with controllers; dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    flags: Vec<String>,
    child: Child,
    facts: Facts,
}

/// What the server says of itself when it is ready.
#[derive(Debug, Clone, Deserialize)]
pub struct Facts {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// A kubeconfig file of the administrator.
    pub kubeconfig: PathBuf,
    /// The file of the server's own CA.
    pub ca: PathBuf,
    /// Tokens by user.
    pub tokens: BTreeMap<String, String>,
}

/// What a command line program said.
#[derive(Debug)]
pub struct Output {
    /// Did it exit with 0?
    pub success: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Server {
    /// A server of this test's own: for what is cluster-wide, and for restarts.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with flags of kube-apiserver.
    pub async fn start_with(flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("sluice-apiserver-").tempdir().unwrap();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (child, facts) = launch(folder.path(), &flags).await;
        Self { folder, flags, child, facts }
    }

    /// One server for the tests that run at the same time in this process; each takes its own namespace and names.
    pub async fn shared() -> Arc<Self> {
        static SHARED: tokio::sync::Mutex<Weak<Server>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&server);
        server
    }

    /// Ends the server as a crash would: at once and without a word.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts the server on the data it had: same port, tokens and objects.
    pub async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        (self.child, self.facts) = launch(self.folder.path(), &self.flags).await;
    }

    /// Where it is and how to get in.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// A client that may do anything.
    pub async fn admin(&self) -> Client {
        client(self.config().await)
    }

    /// The administrator's configuration.
    pub async fn config(&self) -> Config {
        let file = Kubeconfig::read_from(&self.facts.kubeconfig).unwrap();
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()
    }

    /// A client of a user, by impersonation.
    pub async fn user(&self, name: &str, groups: &[&str]) -> Client {
        let mut config = self.config().await;
        config.auth_info.impersonate = Some(name.to_owned());
        let groups = groups.iter().copied().chain(["system:authenticated"]);
        config.auth_info.impersonate_groups = Some(groups.map(str::to_owned).collect());
        client(config)
    }

    /// A client of a service account, by impersonation; the account need not exist.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Client {
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
        self.user(&format!("system:serviceaccount:{namespace}:{name}"), &groups).await
    }

    /// A client with a token.
    pub async fn bearer(&self, token: &str) -> Client {
        let mut config = self.config().await;
        config.auth_info = serde_json::from_value::<AuthInfo>(json!({ "token": token })).unwrap();
        client(config)
    }

    /// Lets a user, such as `system:serviceaccount:demo:bot`, do anything.
    pub async fn trust(&self, user: &str) {
        let name = format!("trust-{}", user.replace(':', "-"));
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }))
        .await
        .unwrap();
    }

    /// Runs kubectl as the administrator.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(binary("kubectl"));
        command.arg("--kubeconfig").arg(&self.facts.kubeconfig).args(arguments);
        // Discovery and HTTP caches would outlive the server, whose port another one may get.
        command.env("KUBECACHEDIR", self.folder.path().join("kubectl")).env("HOME", self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // A program that does not read its input closes it: no failure.
        let write = tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
        let output = child.wait_with_output().await.unwrap();
        let _ = write.await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { success: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Applies one object of any kind as the administrator, by server-side apply.
    pub async fn apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        apply(&self.admin().await, object, "test").await
    }

    /// Applies CRDs, YAML documents, and waits until the server serves them.
    pub async fn install_crds(&self, yaml: &str) {
        let output = self.kubectl(&["apply", "--server-side", "-f", "-"], yaml).await;
        assert!(output.success, "{}", output.err);
        let output = self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"], "").await;
        assert!(output.success, "{}", output.err);
        // Established is a little earlier than served: until then requests get a plain 404.
        let admin = self.admin().await;
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let crd = Value::deserialize(document).unwrap();
            let spec = &crd["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            for version in spec["versions"].as_array().into_iter().flatten() {
                let gvk = GroupVersionKind::gvk(
                    &text(&spec["group"]),
                    &text(&version["name"]),
                    &text(&spec["names"]["kind"]),
                );
                let resource = ApiResource::from_gvk_with_plural(&gvk, &text(&spec["names"]["plural"]));
                let api: Api<DynamicObject> = Api::all_with(admin.clone(), &resource);
                until(&format!("{} is served", gvk.kind), async || api.list(&Default::default()).await.is_ok()).await;
            }
        }
    }

    /// Creates a namespace.
    pub async fn namespace(&self, name: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.apply(&object).await.unwrap();
    }
}

/// Applies an object of any kind under this field manager, by server-side apply, taking over the fields of others.
pub async fn apply(client: &Client, object: &Value, manager: &str) -> kube::Result<DynamicObject> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let (kind, name) = (text("/kind").unwrap(), text("/metadata/name").unwrap());
    let (group, version) = text("/apiVersion").unwrap().rsplit_once('/').unwrap_or(("", text("/apiVersion").unwrap()));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.patch(name, &PatchParams::apply(manager).force(), &Patch::Apply(object)).await
}

/// Waits until something holds, for at most half a minute.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(30), "in vain: waited until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn client(config: Config) -> Client {
    Client::try_from(config).unwrap()
}

async fn launch(folder: &Path, flags: &[String]) -> (Child, Facts) {
    let log_path = folder.join("log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path).unwrap();
    let mut command = Command::new(binary("apiserver"));
    command.arg("-dir").arg(folder).args(["-controllers", "-until-eof", "--"]).args(flags);
    // It stops when its standard input closes, so it cannot outlive the test, however that ends.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    let facts = serde_json::from_str(&line).unwrap_or_else(|_| {
        let log = std::fs::read_to_string(&log_path).unwrap_or_default();
        let end: Vec<_> = log.lines().rev().take(10).collect();
        panic!("the API server does not start: {end:#?}")
    });
    (child, facts)
}

/// Where a built test server is.
fn binary(name: &str) -> PathBuf {
    static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder.get_or_insert_with(|| match std::env::var_os("SLUICE_TEST_SERVERS") {
        Some(folder) => folder.into(),
        None => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/servers/build");
            let output = std::process::Command::new(script).arg("--path").output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim_end().into()
        }
    });
    let path = folder.join(name);
    assert!(path.exists(), "`{}` is missing: run testdata/servers/build", path.display());
    path
}
