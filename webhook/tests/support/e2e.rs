//! The program as a whole before a real API server, and kubectl in the hands of people and automation.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

use super::cluster::{Output, Server, until};
use super::process::Process;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use tempfile::TempDir;

/// Somebody who uses kubectl.
pub struct Account {
    /// What a story calls them.
    pub name: &'static str,
    /// The user name.
    pub user: &'static str,
    groups: &'static [&'static str],
}

/// A GitOps controller.
pub const ARGOCD: Account = Account {
    name: "argocd",
    user: "system:serviceaccount:argocd:controller",
    groups: &["system:serviceaccounts", "system:serviceaccounts:argocd"],
};
/// A person whose approval guards ask for.
pub const ANNA: Account = Account { name: "anna", user: "anna@example.com", groups: &["oidc:sre"] };
/// Another one.
pub const CARL: Account = Account { name: "carl", user: "carl@example.com", groups: &["oidc:sre"] };
/// A person in no such group.
pub const BEN: Account = Account { name: "ben", user: "ben@example.com", groups: &["oidc:dev"] };
/// Kuma's control plane.
pub const CONTROL_PLANE: Account = Account {
    name: "control-plane",
    user: "system:serviceaccount:kuma-system:kuma-control-plane",
    groups: &["system:serviceaccounts", "system:serviceaccounts:kuma-system"],
};
/// Kubernetes' garbage collector.
pub const COLLECTOR: Account = Account {
    name: "garbage-collector",
    user: "system:serviceaccount:kube-system:generic-garbage-collector",
    groups: &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
};

/// The kinds of Kuma that stories are about.
const KINDS: [&str; 6] = ["meshes", "meshservices", "meshhttproutes", "meshtcproutes", "trafficroutes", "meshtimeouts"];

/// What the API server keeps in its audit log: annotations of writes to policies.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, verbs: [create, update, patch, delete], resources: [{group: kuma.io}]}
- {level: None}
";

/// An API server with the CRDs, and a webhook that has registered itself.
pub struct Stage {
    /// The webhook's process.
    pub webhook: Process,
    /// The API server.
    pub server: Server,
    folder: TempDir,
}

impl Stage {
    /// One for the tests that run at the same time.
    pub async fn shared() -> Arc<Self> {
        static SHARED: tokio::sync::Mutex<Weak<Stage>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(stage) = shared.upgrade() {
            return stage;
        }
        let folder = tempfile::Builder::new().prefix("sluice-e2e-").tempdir().unwrap();
        std::fs::write(folder.path().join("audit.yaml"), AUDIT).unwrap();
        let flag = |flag: &str, file: &str| format!("--{flag}={}", folder.path().join(file).display());
        let server = server(&[&flag("audit-policy-file", "audit.yaml"), &flag("audit-log-path", "audit.log")]).await;
        let address = free_address();
        let webhook = Process::run(&serve(&server, "sluice-webhook-0", address, address)).await;
        registered(&server).await;
        let stage = Arc::new(Self { webhook, server, folder });
        *shared = Arc::downgrade(&stage);
        stage
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap()
    }

    /// What the webhook's annotations in the audit log are for the last write of an object that has this one.
    pub async fn audited(&self, namespace: &str, name: &str, annotation: &str) -> Value {
        let mut found = Value::Null;
        until(&format!("the audit log has {annotation} of {namespace}/{name}"), async || {
            let log = self.audit_log();
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut ours = events.filter(|event| {
                let object = &event["objectRef"];
                object["namespace"] == namespace
                    && object["name"] == name
                    && !event["annotations"][annotation].is_null()
            });
            found = ours.next_back().map(|event| event["annotations"].clone()).unwrap_or_default();
            !found.is_null()
        })
        .await;
        found
    }
}

/// An API server that serves Kuma's kinds and ours, and trusts everybody who uses kubectl.
pub async fn server(flags: &[&str]) -> Server {
    let server = Server::start_with(flags).await;
    let read = |plural| {
        let path = format!("{}/../rules/crds/2.14/kuma.io_{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let ours = sluice_webhook::crds::all();
    let ours = ours.iter().map(|crd| sluice_webhook::crds::file(crd).unwrap().1);
    server.install_crds(&KINDS.map(read).into_iter().chain(ours).collect::<Vec<_>>().join("---\n")).await;
    for account in [&ARGOCD, &ANNA, &CARL, &BEN, &CONTROL_PLANE, &COLLECTOR] {
        server.trust(account.user).await;
    }
    server.namespace("sluice-system").await;
    server
}

/// The command of a replica that registers itself under the address where callers find any replica.
pub fn serve(server: &Server, replica: &str, listen: SocketAddr, found: SocketAddr) -> Vec<String> {
    let kubeconfig = server.facts().kubeconfig.to_str().unwrap();
    let (listen, url) = (listen.to_string(), format!("https://{found}/validate"));
    let program = [env!("CARGO_BIN_EXE_sluice-webhook"), "serve", "--kubeconfig", kubeconfig, "--replica", replica];
    let account = ["--account", "admin", "--self-signed", "--san", "127.0.0.1"];
    let registration = ["--register", "sluice-webhook", "--register-url", &url, "--scan", "0s"];
    let ports = ["--listen", &listen, "--status-listen", "127.0.0.1:0"];
    [&program[..], &account, &registration, &ports].concat().into_iter().map(str::to_owned).collect()
}

/// A free address of loopback.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until the API server asks the webhook: it refuses a guard that makes no sense.
pub async fn registered(server: &Server) {
    let nonsense = guard("nonsense", "caps: {maxStep: 10}\nfreeze: [{cron: '0 0 31 2 *', duration: 1h}]");
    until("the webhook is asked", async || {
        let told = server.kubectl(&["apply", "--server-side", "--dry-run=server", "-f", "-"], &nonsense).await;
        told.err.contains("never comes")
    })
    .await;
}

/// Runs kubectl as somebody.
pub async fn kubectl(server: &Server, account: &Account, arguments: &[&str], input: &str) -> Output {
    let mut all = vec!["--as", account.user, "--as-group", "system:authenticated"];
    all.extend(account.groups.iter().flat_map(|group| ["--as-group", group]));
    all.extend(arguments);
    server.kubectl(&all, input).await
}

/// A guard with this spec.
pub fn guard(name: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!("apiVersion: sluice.dev/v1alpha1\nkind: ShiftGuard\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n")
}

/// A person's approval of a digest.
pub fn approval(name: &str, account: &Account, digest: &str) -> String {
    let groups = account.groups.join("', '");
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: ShiftApproval\nmetadata: {{name: {name}}}\n\
         spec: {{digest: {digest}, approver: '{}', groups: ['{groups}'], reason: looks good}}\n",
        account.user
    )
}

/// A route that splits `backend` over itself and a canary, in percent.
pub fn route(name: &str, canary: u32) -> String {
    let stable = 100 - canary;
    format!(
        "apiVersion: kuma.io/v1alpha1
kind: MeshHTTPRoute
metadata: {{name: {name}, labels: {{kuma.io/mesh: default}}}}
spec:
  to:
  - targetRef: {{kind: MeshService, name: backend}}
    rules:
    - matches: [{{path: {{type: PathPrefix, value: /}}}}]
      default:
        backendRefs:
        - {{kind: MeshService, name: backend, port: 80, weight: {stable}}}
        - {{kind: MeshService, name: canary, port: 80, weight: {canary}}}
"
    )
}

/// What happens in a namespace, told as a terminal would show it.
pub struct Story {
    /// Where it happens.
    pub stage: Arc<Stage>,
    namespace: String,
    text: String,
}

impl Story {
    /// Begins in a namespace of its own.
    pub async fn begin(namespace: &str) -> Self {
        let stage = Stage::shared().await;
        stage.server.namespace(namespace).await;
        let story = Self { stage, namespace: namespace.to_owned(), text: String::new() };
        // Services for the routes to lead to, so that nobody warns of their absence.
        for service in ["backend", "canary"] {
            story.given(&fixture("mesh-service.yaml").replace("SERVICE", service)).await;
        }
        let dry = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
        let warned = async |document: &str| story.quietly(&ANNA, &dry, document).await.err.contains("no MeshService");
        until("the services are known", async || {
            !warned(&route("probe", 50)).await
                && warned(&route("probe", 50).replace("name: canary", "name: nowhere")).await
        })
        .await;
        story
    }

    /// A guard over this namespace, told to nobody; returns when it is in force. Its name ends in the namespace's.
    pub async fn guard(&self, name: &str, spec: &str) {
        let spec = format!("match: {{namespaces: ['{}']}}\n{spec}", self.namespace);
        self.guard_over(&format!("{name}-{}", self.namespace), &spec, &route("probe", 100)).await;
    }

    /// The same over anything; the probe is a write that touches its limits.
    pub async fn guard_over(&self, name: &str, spec: &str, probe: &str) {
        let told = self.stage.server.kubectl(&["apply", "--server-side", "-f", "-"], &guard(name, spec)).await;
        assert!(told.success, "{}", told.err);
        let dry = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
        until(&format!("guard {name} is in force"), async || {
            self.quietly(&ARGOCD, &dry, probe).await.err.contains(&format!("`{name}`"))
        })
        .await;
    }

    /// Something that must work and that the story does not tell.
    pub async fn given(&self, document: &str) {
        let told = self.quietly(&ANNA, &["apply", "--server-side", "-f", "-"], document).await;
        assert!(told.success, "{}", told.err);
    }

    /// Waits until this would pass: what was done before is known to the webhook.
    pub async fn would_pass(&self, account: &Account, document: &str) {
        let dry = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
        until("it would pass", async || self.quietly(account, &dry, document).await.success).await;
    }

    /// kubectl, untold.
    pub async fn quietly(&self, account: &Account, arguments: &[&str], input: &str) -> Output {
        let arguments = [&["-n", &self.namespace], arguments].concat();
        kubectl(&self.stage.server, account, &arguments, input).await
    }

    /// Somebody applies a document server-side; `file` is what the story calls it.
    pub async fn applies(&mut self, what: &str, account: &Account, file: &str, document: &str) -> Output {
        self.kubectl(what, account, &["apply", "--server-side", "-f", file], document).await
    }

    /// Somebody runs kubectl. A file of the story is standard input.
    pub async fn kubectl(&mut self, what: &str, account: &Account, arguments: &[&str], input: &str) -> Output {
        let shown = arguments.join(" ");
        let is_file = |argument: &&str| argument.ends_with(".yaml");
        let arguments: Vec<_> =
            arguments.iter().map(|argument| if is_file(argument) { "-" } else { argument }).collect();
        let told = self.quietly(account, &arguments, input).await;
        writeln!(self.text, "# {what}\n{}$ kubectl {shown}", account.name).unwrap();
        for line in told.out.lines().chain(told.err.lines()) {
            writeln!(self.text, "{}", masked(line.trim_end())).unwrap();
        }
        self.text.push('\n');
        told
    }

    /// Adds what else is to be seen.
    pub fn note(&mut self, what: &str, seen: &str) {
        writeln!(self.text, "# {what}\n{}\n", masked(seen)).unwrap();
    }

    /// The ledgers of destinations in this namespace: what they hold, one line each move.
    pub async fn ledger(&self) -> String {
        let told = self.stage.server.kubectl(&["get", "shiftledgers", "-o", "json"], "").await;
        let list: Value = serde_json::from_str(&told.out).unwrap();
        let mut text = String::new();
        let end = format!(".{}", self.namespace);
        for ledger in list["items"].as_array().unwrap() {
            let spec = &ledger["spec"];
            let destination = spec["destination"].as_str().unwrap();
            if !destination.ends_with(&end) {
                continue;
            }
            for entry in spec["entries"].as_array().into_iter().flatten() {
                let record = &entry["record"];
                let state = if entry["reserved"].is_null() { "seen" } else { "reserved" };
                let back = if record["rollback"] == true { ", a way back" } else { "" };
                writeln!(
                    text,
                    "{destination}: {} points by {}, {state}{back}",
                    record["shift"], record["policy"]["name"]
                )
                .unwrap();
            }
        }
        text
    }

    /// Waits until no change is in flight, and tells the ledger.
    pub async fn tells_the_ledger(&mut self) -> String {
        until("every change was seen", async || !self.ledger().await.contains("reserved")).await;
        let ledger = self.ledger().await;
        self.note("the ledger", if ledger.is_empty() { "(nothing)" } else { ledger.trim_end() });
        ledger
    }

    /// All of it.
    pub fn end(self) -> String {
        self.text
    }
}

/// The digest, as somebody reads it from what kubectl told.
pub fn digest(told: &Output) -> String {
    let (_, rest) = told.err.split_once("the digest of this change is ").unwrap_or_else(|| panic!("{}", told.err));
    rest.split(':').next().unwrap().to_owned()
}

/// Times and ports differ from run to run.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            masked.push(' ');
        }
        let bare = word.trim_end_matches([':', ',', ';', ')']);
        if bare.len() >= 20 && bare.ends_with('Z') && bare.parse::<jiff::Timestamp>().is_ok() {
            masked.push_str("TIME");
            masked.push_str(&word[bare.len()..]);
        } else {
            masked.push_str(word);
        }
    }
    masked
}

/// Where a document of the stories is.
pub fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/e2e").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
