//! The API server's clock, which all replicas read.

use super::lock;
use jiff::{SignedDuration, Timestamp};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The API server's time, as the `Date` of its answers tells it.
///
/// A replica's own clock may be off by much, and records that are stamped ahead would age early. `Date` has whole
/// seconds: half a second in, it is wrong by half a second and half the round trip at most. From there on the
/// process's monotonic clock counts.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<Reading>>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    time: Timestamp,
    at: Instant,
    /// This machine's clock at the same moment.
    own: Timestamp,
}

/// A slower answer tells the time too roughly.
const SLOWEST: Duration = Duration::from_secs(2);

/// An older reading is renewed: in so long a quartz is off by a tenth of a second.
const OLDEST: Duration = Duration::from_secs(600);

/// When the machine's clock went otherwise than the monotonic one, the machine slept or its clock was set: both make
/// the reading doubtful.
const DOUBT: SignedDuration = SignedDuration::from_secs(1);

impl Clock {
    /// The API server's time; none when no answer told it or when that is doubtful by now.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let reading = (*lock(&self.0))?;
        reading.now(reading.at.elapsed(), Timestamp::now())
    }

    /// Takes note of an answer's `Date`.
    pub(super) fn note(&self, date: &str, sent: Instant) {
        let trip = sent.elapsed();
        let Ok(date) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date) else { return };
        if trip > SLOWEST {
            return;
        }
        let half =
            SignedDuration::from_millis(500).saturating_add(SignedDuration::try_from(trip / 2).unwrap_or_default());
        let Ok(time) = date.checked_add(half) else { return };
        *lock(&self.0) = Some(Reading { time, at: Instant::now(), own: Timestamp::now() });
    }
}

impl Reading {
    fn now(&self, elapsed: Duration, own: Timestamp) -> Option<Timestamp> {
        let passed = SignedDuration::try_from(elapsed).ok()?;
        let off = own.duration_since(self.own).checked_sub(passed)?;
        let doubtful = elapsed > OLDEST || off.abs() > DOUBT;
        if doubtful { None } else { self.time.checked_add(passed).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_goes_on_between_answers() {
        let clock = Clock::default();
        assert_eq!(clock.now(), None);
        clock.note("yesterday", Instant::now());
        assert_eq!(clock.now(), None);
        clock.note("Wed, 25 Nov 2026 00:00:00 GMT", Instant::now());
        let reading = lock(&clock.0).unwrap();
        let begin: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        assert!(reading.time.duration_since(begin) >= SignedDuration::from_millis(500));
        let later = |seconds: u64| reading.own.checked_add(Duration::from_secs(seconds)).unwrap();
        let found = reading.now(Duration::from_secs(60), later(60)).unwrap();
        assert_eq!(found.duration_since(reading.time).as_secs(), 60);
    }

    #[test]
    fn a_machine_that_slept_or_whose_clock_was_set_reads_the_time_anew() {
        let clock = Clock::default();
        clock.note("Wed, 25 Nov 2026 00:00:00 GMT", Instant::now());
        let reading = lock(&clock.0).unwrap();
        let later = |seconds: i64| reading.own.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let elapsed = Duration::from_secs(60);
        assert_eq!(reading.now(elapsed, later(90)), None);
        assert_eq!(reading.now(elapsed, later(30)), None);
        assert_eq!(reading.now(Duration::from_secs(601), later(601)), None);
    }

    #[test]
    fn a_slow_answer_tells_no_time() {
        let clock = Clock::default();
        let sent = Instant::now().checked_sub(Duration::from_secs(3));
        clock.note("Wed, 25 Nov 2026 00:00:00 GMT", sent.unwrap());
        assert_eq!(clock.now(), None);
    }
}
