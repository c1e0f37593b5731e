//! One connection, from its first byte to its last.

use super::Limits;
use super::activity::{Activity, Watched};
use super::life::{Life, Phase};
use super::turns::Turns;
use axum::Router;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service as _;

/// Bytes of a request's head, and of a body read ahead of whoever takes it.
const HEAD: usize = 64 * 1024;
/// How often a connection looks at its clocks.
const TICK: Duration = Duration::from_secs(1);
/// A peer that does not take part in ending a connection is not waited for any longer.
const FAREWELL: Duration = Duration::from_secs(35);

/// What all connections of a port share.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    router: Router,
    limits: Limits,
    life: Life,
    http1: Builder<TokioExecutor>,
    http2: Builder<TokioExecutor>,
}

impl Connections {
    pub(super) fn new(router: Router, limits: Limits, life: Life) -> Self {
        let mut http1 = Builder::new(TokioExecutor::new());
        // One piece: head and body of an answer fit into one TLS record.
        http1.http1().header_read_timeout(None).writev(false).max_buf_size(HEAD);
        let mut http2 = Builder::new(TokioExecutor::new());
        http2
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(20))
            .max_concurrent_streams(128)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(2 * 1024 * 1024)
            .max_header_list_size(16 * 1024);
        Self { router, limits, life, http1: http1.http1_only(), http2: http2.http2_only() }
    }

    /// Serves requests until either side ends the connection.
    pub(super) async fn serve<IO>(&self, io: IO, is_http2: bool)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new();
        let service = service_fn(|request: Request<Incoming>| {
            let busy = activity.busy();
            let response = self.router.clone().call(request);
            async move {
                let mut response = response.await?;
                if busy.is_closing() && response.version() < Version::HTTP_2 && !is_http2 {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let builder = if is_http2 { &self.http2 } else { &self.http1 };
        let io = TokioIo::new(Watched { io, activity: activity.clone() });
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut turns = Turns::default();
        let age = self.limits.age.mul_f64(rand::random_range(0.5..=1.0));
        let mut tick = tokio::time::interval(age.clamp(Duration::from_millis(10), TICK));
        let mut life = self.life.follow();
        let mut ending: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                result = poll_fn(|cx| turns.poll(connection.as_mut(), cx)) => {
                    if let Err(error) = result {
                        tracing::debug!("a connection broke: {error}");
                    }
                    return;
                }
                _ = tick.tick() => {}
                _ = life.changed() => {}
            }
            let phase = *life.borrow_and_update();
            if phase != Phase::Serving || activity.age() > age {
                activity.close_soon();
            }
            // An idle HTTP/1.1 connection cannot be ended without a race: its caller may be sending. It is told with
            // its next answer, while GOAWAY lets a caller of h2 know which requests nobody has read. At the very end
            // only connections are left that nobody used during the whole drain.
            let end = phase == Phase::Stopping
                || activity.idle().is_some_and(|idle| idle > self.limits.idle)
                || (is_http2 && activity.is_closing());
            if end && ending.is_none() {
                ending = Some(Instant::now());
                connection.as_mut().graceful_shutdown();
            }
            let slow = !is_http2 && activity.head().is_some_and(|head| head > self.limits.head);
            if slow || ending.is_some_and(|since| since.elapsed() > FAREWELL) {
                tracing::debug!("a connection was cut off: its peer was too slow");
                return;
            }
        }
    }
}
