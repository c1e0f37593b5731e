//! Callers that ask without a pause, the way an API server does: one request after the other on a kept-alive connection,
//! a new connection when the server asks for it, and no second try for a request that failed.
#![allow(dead_code, clippy::unwrap_used, reason = "each test takes what it needs, and a panic is its failure")]

use super::http::{Client, Reply, shift};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Requests on one connection before its caller makes a new one, so that new certificates are met.
const PER_CONNECTION: usize = 40;
const PAUSE: Duration = Duration::from_millis(5);

/// Where new connections go: a Service with its endpoints.
#[derive(Clone)]
pub(crate) struct Endpoints(Arc<Mutex<Vec<SocketAddr>>>);

impl Endpoints {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        Self(Arc::new(Mutex::new(addresses.to_vec())))
    }

    pub(crate) fn set(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    fn pick(&self, caller: usize) -> SocketAddr {
        let addresses = self.0.lock().unwrap();
        addresses[caller % addresses.len()]
    }
}

/// Callers at work.
pub(crate) struct Load {
    tasks: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicUsize,
    connections: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// What the callers saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) answered: usize,
    pub(crate) connections: usize,
    pub(crate) failures: Vec<String>,
}

impl Load {
    pub(crate) fn start(callers: usize, client: &Client, endpoints: &Endpoints) -> Self {
        let shared = Arc::<Shared>::default();
        let call = |caller| tokio::spawn(call(caller, client.clone(), endpoints.clone(), Arc::clone(&shared)));
        Self { tasks: (0..callers).map(call).collect(), shared }
    }

    /// How many requests have been answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.shared.answered.load(Relaxed)
    }

    pub(crate) async fn stop(self) -> Seen {
        self.shared.stop.store(true, Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        Seen {
            answered: self.shared.answered.load(Relaxed),
            connections: self.shared.connections.load(Relaxed),
            failures: std::mem::take(&mut *self.shared.failures.lock().unwrap()),
        }
    }
}

async fn call(caller: usize, client: Client, endpoints: Endpoints, shared: Arc<Shared>) {
    let fail = |what: String| shared.failures.lock().unwrap().push(what);
    let mut count = 0;
    while !shared.stop.load(Relaxed) {
        let mut connection = match client.connect(endpoints.pick(caller)).await {
            Ok(connection) => connection,
            Err(error) => {
                fail(format!("connecting: {error}"));
                continue;
            }
        };
        shared.connections.fetch_add(1, Relaxed);
        for _ in 0..PER_CONNECTION {
            count += 1;
            let uid = format!("{caller}-{count}");
            match connection.post("/validate?timeout=10s", shift(&uid, 90, 80)).await {
                Ok(reply) if is_answer(&reply, &uid) => {
                    shared.answered.fetch_add(1, Relaxed);
                    if reply.closes() {
                        break;
                    }
                }
                Ok(reply) => fail(format!("{uid}: {reply:?}")),
                Err(error) => {
                    fail(format!("{uid}: {error:?}"));
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
            if shared.stop.load(Relaxed) {
                break;
            }
        }
    }
}

/// A verdict on our review, and the right one.
fn is_answer(reply: &Reply, uid: &str) -> bool {
    let response = &reply.json()["response"];
    reply.status == 200 && response["uid"] == uid && response["allowed"] == true
}
