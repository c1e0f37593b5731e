//! The server: HTTP/1.1 and h2 on TLS, its limits, and how it ends.
//!
//! hyper drives the connections rather than axum-server, which lets nobody see a connection: a cap on them, an age at
//! which they are renewed, and `Connection: close` while draining, but still serving, need that. hyper's own timeout for
//! a request's head is off, because its clock also runs while a kept-alive connection is idle.

mod accept;
mod activity;
mod body;
mod connection;
mod gate;
mod life;
mod refusal;
mod review;
mod status;
mod turns;

pub use accept::{Listener, bind};
pub use life::{Life, Phase};
pub use status::{Condition, Readiness, router as status_router};

use crate::admission::Answer;
use crate::telemetry::metrics::Metrics;
use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use futures::future::BoxFuture;
use gate::Gate;
use http::{StatusCode, Uri};
use refusal::Refusal;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How much is served at once, and how long anybody may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one body. An update carries two objects of up to 3 MiB each.
    pub body: usize,
    /// Bytes of all bodies together.
    pub bodies: usize,
    /// Time for one review, unless its caller grants less.
    pub budget: Duration,
    /// Reviews in work.
    pub in_work: usize,
    /// Reviews that wait for a place.
    pub in_queue: usize,
    /// Open connections.
    pub connections: u32,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Time for a request's head, from its first byte.
    pub head: Duration,
    /// Time between requests. The API server gives a connection up after 90 s, and it must be the first of the two: a
    /// request that meets a closing connection fails.
    pub idle: Duration,
    /// Age at which a connection is renewed, so that callers spread over replicas and meet a renewed certificate. Each
    /// connection has its own, between half of this and this.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            body: 7 * 1024 * 1024,
            bodies: 64 * 1024 * 1024,
            budget: Duration::from_millis(2500),
            in_work: 64,
            in_queue: 256,
            connections: 4096,
            handshake: seconds(5),
            head: seconds(5),
            idle: seconds(120),
            age: seconds(600),
        }
    }
}

/// What answers a review: its body and when the answer must be there.
pub type Handler = Arc<dyn Fn(Bytes, Instant) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A function as a [`Handler`].
pub fn handler<F, A>(answer: F) -> Handler
where
    F: Fn(Bytes, Instant) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    Arc::new(move |body, deadline| Box::pin(answer(body, deadline)))
}

/// What every review shares.
struct Reviews {
    handler: Handler,
    limits: Limits,
    metrics: Arc<Metrics>,
    gate: Gate,
    memory: Semaphore,
    born: Instant,
    /// The second of its life in which a line was logged last.
    logged: AtomicU64,
}

impl Reviews {
    fn is_first_of_second(&self) -> bool {
        let second = self.born.elapsed().as_secs() + 1;
        self.logged.swap(second, Relaxed) != second
    }
}

/// The routes of the TLS port.
pub fn router(handler: Handler, limits: &Limits, metrics: Arc<Metrics>) -> Router {
    let reviews = Reviews {
        handler,
        limits: limits.clone(),
        metrics,
        gate: Gate::new(limits.in_work, limits.in_queue),
        memory: body::memory(limits.bodies),
        born: Instant::now(),
        logged: AtomicU64::new(0),
    };
    Router::new()
        .route("/validate", post(review::validate))
        .fallback(|uri: Uri| async move {
            let message = format!("nothing is served at `{}`; reviews are at `/validate`", uri.path());
            review::respond(Refusal::malformed(404, "NotFound", message).answer(b""))
        })
        .method_not_allowed_fallback(|| async {
            review::respond(Refusal::malformed(405, "MethodNotAllowed", "a review is sent with POST").answer(b""))
        })
        .with_state(Arc::new(reviews))
}

/// The HTTP status of a code that this program wrote.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
