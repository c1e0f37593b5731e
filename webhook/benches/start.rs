//! How long a start in a cluster takes, and how much memory its knowledge needs:
//! `cargo bench -p sluice-webhook --bench start`.
//!
//! The cluster is a real API server with Kuma's CRDs, a thousand routes and a hundred guards. Each start is a new process
//! on the same certificate, from its birth until `/ready` answers 200.

#[path = "../tests/support/cluster.rs"]
mod cluster;
#[path = "support/ready.rs"]
mod ready;

use anyhow::Context as _;
use cluster::Server;
use ready::{free_port, is_ready};
use serde_json::json;
use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUTES: usize = 1000;
const GUARDS: usize = 100;
/// How many starts count; `cargo test` only looks whether it works.
const STARTS: (usize, usize) = (7, 1);
/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let server = Server::start().await;
    server.install_crds(&definitions()?).await;
    server.namespace("sluice-system").await;
    // The first one makes the certificate.
    drop(Webhook::start(&server)?);
    starts("neither routes nor guards", &server)?;
    let output = server.kubectl(&["create", "-f", "-"], &objects()).await;
    anyhow::ensure!(output.success, "{}", output.err);
    starts(&format!("{ROUTES} routes and {GUARDS} guards"), &server)
}

fn starts(what: &str, server: &Server) -> anyhow::Result<()> {
    let count = if std::env::args().any(|argument| argument == "--bench") { STARTS.0 } else { STARTS.1 };
    let mut starts = Vec::new();
    let mut memory = 0;
    for _ in 0..count {
        let webhook = Webhook::start(server)?;
        starts.push(webhook.start.as_secs_f64() * 1e3);
        memory = memory.max(webhook.memory()?);
    }
    starts.sort_by(f64::total_cmp);
    println!(
        "Start to ready in a cluster with {what}: median of {count} {:.0} ms, at most {:.0} ms. Resident memory then: \
         at most {:.1} MiB.",
        starts[count / 2],
        starts[count - 1],
        memory as f64 / 1024.0
    );
    Ok(())
}

fn definitions() -> anyhow::Result<String> {
    let mut all = String::new();
    for folder in ["../rules/crds/2.14", "../charts/sluice/crds"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = std::fs::read_to_string(path)?;
                let _ = write!(all, "---\n{}\n", text.trim_start_matches("---\n"));
            }
        }
    }
    Ok(all)
}

fn objects() -> String {
    let mut all = String::new();
    for at in 0..ROUTES {
        let backend =
            |name: &str, weight: usize| json!({"kind": "MeshService", "name": name, "port": 80, "weight": weight});
        let route = json!({
            "apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
            "metadata": {"name": format!("route-{at:04}"), "namespace": "default", "labels": {"kuma.io/mesh": "default"}},
            "spec": {"to": [{
                "targetRef": {"kind": "MeshService", "name": format!("model-{at:04}")},
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}],
                    "default": {"backendRefs": [backend("v1", 100 - at % 100), backend("v2", at % 100)]},
                }],
            }]},
        });
        let _ = write!(all, "---\n{route}\n");
    }
    for at in 0..GUARDS {
        let guard = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard", "metadata": {"name": format!("guard-{at:03}")},
            "spec": {
                "match": {"services": [format!("model-{at:03}*")]},
                "caps": {"maxStep": 10, "perWindow": {"shift": 30, "window": "1h"}},
                "freeze": [{"cron": "0 18 * * FRI", "duration": "62h", "timeZone": "Europe/Berlin", "reason": "weekend"}],
            },
        });
        let _ = write!(all, "---\n{guard}\n");
    }
    all
}

/// The webhook as a process; dropping it kills it.
struct Webhook {
    child: Child,
    /// From its birth until it was ready.
    start: Duration,
}

impl Webhook {
    fn start(server: &Server) -> anyhow::Result<Self> {
        let (listen, status) = (free_port()?, free_port()?);
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-webhook"));
        command.arg("serve").arg("--kubeconfig").arg(&server.facts().kubeconfig);
        command.args(["--account", "admin", "--self-signed", "--san", "127.0.0.1", "--scan", "0s", "--log", "error"]);
        command.args(["--listen", &listen.to_string(), "--status-listen", &status.to_string()]);
        let begun = Instant::now();
        let child = command.stdout(Stdio::null()).spawn().context("the webhook does not start")?;
        let mut webhook = Self { child, start: Duration::ZERO };
        while !is_ready(status) {
            if let Some(status) = webhook.child.try_wait()? {
                anyhow::bail!("the webhook ended with {status}");
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "the webhook is not ready after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        webhook.start = begun.elapsed();
        Ok(webhook)
    }

    /// Its resident memory, in KiB.
    fn memory(&self) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
        line.trim().trim_end_matches(" kB").parse().context("no number")
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
