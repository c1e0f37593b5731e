//! What a Service does for its pods: every new connection goes to the next one that takes it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes connections on, TLS and all; dropping it ends that.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    backends: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let backends = Arc::new(Mutex::new(Vec::new()));
        let (known, turn) = (Arc::clone(&backends), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let backends = known.lock().unwrap().clone();
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(pass(stream, backends, turn));
            }
        });
        Self { port, backends, task }
    }

    /// Who is ready. One that is dead is passed over without being told.
    pub(crate) fn set(&self, ready: Vec<SocketAddr>) {
        *self.backends.lock().unwrap() = ready;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut stream: TcpStream, backends: Vec<SocketAddr>, turn: usize) {
    for at in 0..backends.len() {
        if let Ok(mut backend) = TcpStream::connect(backends[(turn + at) % backends.len()]).await {
            let _ = (stream.set_nodelay(true), backend.set_nodelay(true));
            let _ = copy_bidirectional(&mut stream, &mut backend).await;
            return;
        }
    }
}
