//! How many reviews are in work and how many wait. What does not fit is refused at once, while its caller still listens.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many reviews are in work and how many wait.
#[derive(Debug)]
pub(super) struct Gate {
    work: Semaphore,
    places: usize,
    queue: usize,
    waiting: AtomicUsize,
    /// How long a review takes, in microseconds: a moving average over about eight of them.
    typical: AtomicU64,
}

/// Why a review is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// As many reviews wait as may.
    Queue,
    /// Its turn would come after its deadline.
    Late,
}

/// A review in work; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    since: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Gate {
    /// At most `places` reviews in work and `queue` waiting.
    pub(super) fn new(places: usize, queue: usize) -> Self {
        Self {
            work: Semaphore::new(places),
            places: places.max(1),
            queue,
            waiting: AtomicUsize::new(0),
            typical: AtomicU64::new(0),
        }
    }

    /// Waits for a place, not beyond the deadline and not when it is plain that none comes free in time.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<Pass<'_>, Full> {
        if let Ok(permit) = self.work.try_acquire() {
            return Ok(self.pass(permit));
        }
        let ahead = self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(&self.waiting);
        if ahead >= self.queue {
            return Err(Full::Queue);
        }
        let turns = u64::try_from(ahead / self.places + 1).unwrap_or(u64::MAX);
        let wait = Duration::from_micros(self.typical.load(Relaxed).saturating_mul(turns));
        if Instant::now() + wait > deadline {
            return Err(Full::Late);
        }
        match tokio::time::timeout_at(deadline.into(), self.work.acquire()).await {
            Ok(Ok(permit)) => Ok(self.pass(permit)),
            _ => Err(Full::Late),
        }
    }

    fn pass<'a>(&'a self, permit: SemaphorePermit<'a>) -> Pass<'a> {
        Pass { gate: self, since: Instant::now(), _permit: permit }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        // Two reviews that end at once may lose one of their figures: it is an estimate.
        let typical = self.gate.typical.load(Relaxed);
        self.gate.typical.store(typical - typical / 8 + took / 8, Relaxed);
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn refuses_at_once_when_the_queue_is_full() {
        let gate = Gate::new(1, 0);
        let pass = gate.enter(soon()).await.unwrap();
        assert_eq!(gate.enter(soon()).await.unwrap_err(), Full::Queue);
        drop(pass);
        assert!(gate.enter(soon()).await.is_ok());
    }

    #[tokio::test]
    async fn refuses_at_once_what_would_come_too_late() {
        let gate = Gate::new(1, 100);
        let _pass = gate.enter(soon()).await.unwrap();
        gate.typical.store(120_000_000, Relaxed);
        assert_eq!(gate.enter(soon()).await.unwrap_err(), Full::Late);
    }

    #[tokio::test]
    async fn lets_the_next_one_in_and_forgets_who_gave_up() {
        let gate = Gate::new(1, 1);
        let pass = gate.enter(soon()).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_millis(5), gate.enter(soon())).await;
        assert!(gone.is_err());
        let (next, ()) = tokio::join!(gate.enter(soon()), async { drop(pass) });
        assert!(next.is_ok());
        assert_eq!(gate.waiting.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn does_not_wait_beyond_the_deadline() {
        let gate = Gate::new(1, 1);
        let _pass = gate.enter(soon()).await.unwrap();
        assert_eq!(gate.enter(Instant::now() + Duration::from_millis(20)).await.unwrap_err(), Full::Late);
    }
}
