//! A request's body, bounded in size, in time and, over all requests together, in memory.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::time::Instant;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Kept of a body that is too large: enough to find the uid.
const HEAD: usize = 64 * 1024;
/// A body that is too large is read on up to this size and thrown away: whoever is still sending would not hear the
/// answer.
const READ_ON: usize = 32 * 1024 * 1024;
/// Memory is counted in units of this size.
const UNIT: usize = 1024;

/// A body that has been read. Its memory counts until this is dropped.
#[derive(Debug)]
pub(super) struct Body<'a> {
    /// The whole body, or its beginning when `problem` says so.
    pub(super) bytes: Bytes,
    /// Why the body is not whole.
    pub(super) problem: Option<Problem>,
    _memory: Option<SemaphorePermit<'a>>,
}

/// Why a body is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is larger than allowed.
    TooLarge,
    /// It was not there by the deadline.
    Slow,
    /// All bodies together are larger than allowed.
    Memory,
    /// The connection broke.
    Broken,
}

/// The memory that `bytes` of bodies may take.
pub(super) fn memory(bytes: usize) -> Semaphore {
    Semaphore::new((bytes / UNIT).min(Semaphore::MAX_PERMITS))
}

/// Reads a body of at most `limit` bytes until the deadline.
pub(super) async fn read(body: axum::body::Body, limit: usize, memory: &Semaphore, deadline: Instant) -> Body<'_> {
    let told = body.size_hint().exact().and_then(|told| usize::try_from(told).ok()).unwrap_or(0).min(limit);
    let mut parts = Parts { first: Bytes::new(), rest: BytesMut::new(), told, limit, memory, held: None };
    let problem = match tokio::time::timeout_at(deadline.into(), parts.fill(body)).await {
        Ok(problem) => problem,
        Err(_) => Some(Problem::Slow),
    };
    let bytes = if parts.rest.is_empty() { parts.first } else { parts.rest.freeze() };
    Body { bytes, problem, _memory: parts.held }
}

struct Parts<'a> {
    /// The first frame: mostly the whole body, and then nothing is copied.
    first: Bytes,
    rest: BytesMut,
    /// The size that its head tells.
    told: usize,
    limit: usize,
    memory: &'a Semaphore,
    held: Option<SemaphorePermit<'a>>,
}

impl Parts<'_> {
    async fn fill(&mut self, mut body: axum::body::Body) -> Option<Problem> {
        let mut size = 0;
        let mut problem = None;
        // A body of a told length has ended with its last byte; to ask for more would cost another turn.
        while !body.is_end_stream()
            && let Some(frame) = body.frame().await
        {
            let Ok(frame) = frame else { return Some(Problem::Broken) };
            let Ok(data) = frame.into_data() else { continue };
            size += data.len();
            if size > self.limit {
                problem = Some(Problem::TooLarge);
            }
            if problem.is_none() && !self.hold(size) {
                problem = Some(Problem::Memory);
            }
            match problem {
                None => self.take(data),
                Some(_) if size > READ_ON => break,
                Some(_) => self.let_go(&data),
            }
        }
        problem
    }

    /// Counts the memory of a body of this size; false when there is none left.
    fn hold(&mut self, size: usize) -> bool {
        let held = self.held.as_ref().map_or(0, SemaphorePermit::num_permits);
        let more = u32::try_from(size.div_ceil(UNIT) - held).unwrap_or(u32::MAX);
        match (self.memory.try_acquire_many(more), &mut self.held) {
            (Ok(more), Some(held)) => held.merge(more),
            (Ok(more), none) => *none = Some(more),
            (Err(_), _) => return false,
        }
        true
    }

    fn take(&mut self, data: Bytes) {
        if self.rest.is_empty() && self.first.is_empty() {
            self.first = data;
            return;
        }
        if self.rest.is_empty() {
            // Its pages are not touched before they are written: a length that is a lie costs nothing.
            self.rest = BytesMut::with_capacity(self.told);
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&data);
    }

    /// Keeps the beginning only; `data` is the frame that was too much.
    fn let_go(&mut self, data: &[u8]) {
        let whole = match (self.first.is_empty(), self.rest.is_empty()) {
            (true, true) => data,
            (_, true) => &self.first[..],
            _ => &self.rest[..],
        };
        if self.held.is_some() || self.first.is_empty() {
            self.first = Bytes::copy_from_slice(&whole[..whole.len().min(HEAD)]);
            self.rest = BytesMut::new();
            self.held = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::time::Duration;

    fn chunks(count: usize, size: usize) -> axum::body::Body {
        let frames = (0..count).map(move |_| Ok::<_, std::io::Error>(vec![b'a'; size]));
        axum::body::Body::from_stream(stream::iter(frames))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn joins_the_frames_of_a_body() {
        let memory = memory(1 << 20);
        let body = read(chunks(5, 1000), 5000, &memory, soon()).await;
        assert_eq!((body.bytes.len(), body.problem), (5000, None));
        assert_eq!(memory.available_permits(), 1024 - 5);
        drop(body);
        assert_eq!(memory.available_permits(), 1024);
    }

    #[tokio::test]
    async fn keeps_the_beginning_of_a_body_that_is_too_large() {
        let memory = memory(1 << 20);
        let body = read(chunks(300, 1000), 100_000, &memory, soon()).await;
        assert_eq!((body.bytes.len(), body.problem), (HEAD, Some(Problem::TooLarge)));
        assert_eq!(memory.available_permits(), 1024, "what is thrown away does not count");
    }

    #[tokio::test]
    async fn bodies_share_their_memory() {
        let memory = memory(100 * UNIT);
        let first = read(chunks(60, UNIT), usize::MAX, &memory, soon()).await;
        assert_eq!(read(chunks(60, UNIT), usize::MAX, &memory, soon()).await.problem, Some(Problem::Memory));
        drop(first);
        assert_eq!(read(chunks(60, UNIT), usize::MAX, &memory, soon()).await.problem, None);
    }

    #[tokio::test]
    async fn does_not_wait_beyond_the_deadline() {
        let memory = memory(1 << 20);
        let frames = stream::unfold(0, |at| async move {
            if at > 0 {
                std::future::pending::<()>().await;
            }
            Some((Ok::<_, std::io::Error>("begun"), at + 1))
        });
        let late = Instant::now() + Duration::from_millis(20);
        let body = read(axum::body::Body::from_stream(frames), 100, &memory, late).await;
        assert_eq!((body.bytes.as_ref(), body.problem), (b"begun".as_slice(), Some(Problem::Slow)));
    }
}
