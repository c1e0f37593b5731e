//! New connections: how many, and what happens when the system has no room for another.

use super::Limits;
use super::connection::Connections;
use super::life::Life;
use crate::telemetry::metrics::Metrics;
use anyhow::Context as _;
use axum::Router;
use futures::FutureExt as _;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

/// The shortest and the longest wait after an accept that failed for lack of files or memory.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long nothing is said about that again.
const SILENCE: Duration = Duration::from_secs(60);

/// A port and what is served on it.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    limits: Limits,
    life: Life,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Option<TlsAcceptor>,
    handshake: Duration,
    connections: Connections,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// Listens on an address. `[::]` takes IPv4 as well (where Linux has `bindv6only` at 0, as by default), and stands for
/// `0.0.0.0` where there is no IPv6.
///
/// # Errors
///
/// The address is taken, or not ours.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))).await
        }
        bound => bound,
    };
    bound.with_context(|| format!("cannot listen on {address}"))
}

impl Listener {
    /// Serves `router` on `socket`, in plain text without `tls`.
    pub fn new(
        socket: TcpListener,
        tls: Option<TlsAcceptor>,
        router: Router,
        limits: &Limits,
        life: &Life,
        metrics: Arc<Metrics>,
    ) -> Self {
        let connections = Connections::new(router, limits.clone(), life.clone());
        let shared = Shared { tls, handshake: limits.handshake, connections, metrics };
        Self { socket, limits: limits.clone(), life: life.clone(), shared: Arc::new(shared) }
    }

    /// Accepts connections until [`Phase::Stopping`](super::Phase), then returns when the last one has ended.
    pub async fn run(self) {
        let most = self.limits.connections.max(1);
        let slots = Arc::new(Semaphore::new(most as usize));
        tokio::select! {
            () = self.life.stopping() => {}
            () = self.accept(&slots) => {}
        }
        // The system has completed these already: their callers believe to be connected.
        while let Some(Ok((stream, _))) = self.socket.accept().now_or_never() {
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { break };
            self.start(stream, slot);
        }
        drop(self.socket);
        let _ = slots.acquire_many(most).await;
    }

    async fn accept(&self, slots: &Arc<Semaphore>) {
        let (mut wait, mut said) = (BACK_OFF.0, None::<Instant>);
        // Whoever comes when all slots are taken waits in the system's queue.
        while let Ok(slot) = Arc::clone(slots).acquire_owned().await {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    wait = BACK_OFF.0;
                    self.start(stream, slot);
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    if said.is_none_or(|said| said.elapsed() > SILENCE) {
                        said = Some(Instant::now());
                        let port = self.socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
                        tracing::warn!(
                            "no new connections to {port} for the moment: {error}; raise the limit of files"
                        );
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    fn start(&self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            shared.metrics.connections.inc();
            shared.serve(stream).await;
            shared.metrics.connections.dec();
            drop(slot);
        });
    }
}

impl Shared {
    async fn serve(&self, stream: TcpStream) {
        // An answer is one small piece: there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.connections.serve(stream, false).await };
        match tokio::time::timeout(self.handshake, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.connections.serve(stream, is_http2).await;
            }
            // Probes of load balancers end like this all day.
            Ok(Err(error)) => {
                self.metrics.handshake_failed("error");
                tracing::debug!("a TLS handshake failed: {error}");
            }
            Err(_) => {
                self.metrics.handshake_failed("timeout");
                tracing::debug!("a TLS handshake took too long");
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}
