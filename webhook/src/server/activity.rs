//! What a connection is doing, seen from outside of hyper.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection is doing. Times are milliseconds since it was made.
#[derive(Debug)]
pub(super) struct Activity {
    born: Instant,
    requests: AtomicU32,
    /// Since when a request's head is being read; 0 when none is.
    head: AtomicU64,
    /// When the last request ended.
    quiet: AtomicU64,
    closing: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            requests: AtomicU32::new(0),
            head: AtomicU64::new(0),
            quiet: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// How long a request's head has been coming in.
    pub(super) fn head(&self) -> Option<Duration> {
        let since = self.head.load(Relaxed);
        (since > 0).then(|| Duration::from_millis(self.now() - since))
    }

    /// How long there has been no request.
    pub(super) fn idle(&self) -> Option<Duration> {
        let idle = self.requests.load(Relaxed) == 0;
        idle.then(|| Duration::from_millis(self.now() - self.quiet.load(Relaxed)))
    }

    /// The next response is the connection's last.
    pub(super) fn close_soon(&self) {
        self.closing.store(true, Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// A request is being answered until this is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.head.store(0, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        Busy(Arc::clone(self))
    }
}

/// A request being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    pub(super) fn is_closing(&self) -> bool {
        self.0.is_closing()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.quiet.store(self.0.now(), Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

/// A stream that notes when a request begins to come in.
#[derive(Debug)]
pub(super) struct Watched<IO> {
    pub(super) io: IO,
    pub(super) activity: Arc<Activity>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        let activity = &self.activity;
        if buffer.filled().len() > before && activity.requests.load(Relaxed) == 0 && activity.head.load(Relaxed) == 0 {
            activity.head.store(activity.now(), Relaxed);
        }
        result
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
