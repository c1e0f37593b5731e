//! The webhook's own server with an answer that tests choose, which remembers what it was asked.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

use super::cluster::Server;
use jiff::SignedDuration;
use serde_json::{Value, json};
use sluice_webhook::admission::{Answer, Summary};
use sluice_webhook::cluster::certificate::Policy;
use sluice_webhook::cluster::registration::{Registration, Target};
use sluice_webhook::cluster::replica::Replica;
use sluice_webhook::cluster::upkeep::{Registered, Source, Upkeep};
use sluice_webhook::server::{Life, Limits, Listener, bind, handler, router};
use sluice_webhook::telemetry::metrics::Metrics;
use sluice_webhook::tls::{Certificate, Oldest};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A server that allows everything but what has `refused` in its name.
pub struct Hook {
    pub certificate: Certificate,
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Hook {
    pub async fn start() -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (certificate, seen) = (Certificate::default(), Arc::clone(&asked));
        let answer = handler(move |body, _deadline| {
            let review: Value = serde_json::from_slice(&body).unwrap();
            let request = &review["request"];
            let text = |path: &str| request.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let name = if text("/name").is_empty() { text("/oldObject/metadata/name") } else { text("/name") };
            let (operation, resource, user) =
                (text("/operation"), text("/resource/resource"), text("/userInfo/username"));
            seen.lock().unwrap().push(format!("{operation} {resource} {name} {user}"));
            let response = json!({
                "uid": request["uid"], "allowed": !name.contains("refused"), "status": {"message": "as the test wants"},
            });
            let body = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
            let body = body.to_string().into();
            async move { Answer { status: 200, body, summary: Summary::default() } }
        });
        let tls = TlsAcceptor::from(Arc::new(certificate.server_config(Oldest::Tls13).unwrap()));
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new(certificate.clone()));
        // Connections are renewed often, so that many handshakes see what is served.
        let limits = Limits { age: Duration::from_millis(300), ..Limits::default() };
        let router = router(answer, &limits, Arc::clone(&metrics));
        let listener = Listener::new(listener, Some(tls), router, &limits, &Life::default(), metrics);
        let task = tokio::spawn(listener.run());
        Self { certificate, address, asked, task }
    }

    /// What was asked since the last time: operation, resource, name and user, for names that contain this.
    pub fn asked(&self, about: &str) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap();
        let (matching, rest) = std::mem::take(&mut *asked).into_iter().partition(|line| line.contains(about));
        *asked = rest;
        matching
    }

    pub fn url(&self) -> String {
        format!("https://{}/validate", self.address)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Certificates that live for months, and take seconds to be replaced.
pub fn policy() -> Policy {
    let (day, second) = (SignedDuration::from_hours(24), SignedDuration::from_secs(1));
    Policy { names: vec!["127.0.0.1".to_owned()], ca: day * 365, leaf: day * 90, spread: second, overlap: second }
}

pub fn registration(name: &str, url: String) -> Registration {
    Registration {
        name: name.to_owned(),
        target: Target::Url(url),
        namespace: "sluice-system".to_owned(),
        control_plane: vec!["system:serviceaccount:kuma-system:kuma-control-plane".to_owned()],
        account: "system:serviceaccount:sluice-system:sluice-webhook".to_owned(),
    }
}

/// The upkeep of one replica, in this namespace.
pub async fn upkeep(
    server: &Server,
    namespace: &str,
    identity: &str,
    policy: Policy,
    certificate: Certificate,
    registered: Registered,
) -> Arc<Upkeep> {
    let client = server.admin().await;
    let (namespace, name) = (namespace.to_owned(), "sluice-webhook".to_owned());
    Arc::new(Upkeep {
        replica: Replica::new(client.clone(), &namespace, &name, identity),
        client,
        source: Source::Secret { namespace, name, policy, certificate },
        registered,
        tick: Duration::from_millis(200),
        leads: Default::default(),
    })
}
