//! Does the mesh do what the weight in Git says?
//!
//! The canary's part of the requests is compared with its weight. A trip means an unresolved backend, sticky sessions,
//! skew between zones, or a weight that was never applied: whatever was learned was not learned at that weight.

use super::e_process::Mixture;
use super::likelihood::{Pair, conditional};

/// Odds of `n_c : n_s` may differ from the weight's by this factor before anybody minds.
const TOLERANCE: f64 = 1.5;
const ALTERNATIVES: usize = 3;
const BEYOND: [f64; ALTERNATIVES] = [1.2, 1.6, 4.0];
const WEIGHTS: [f64; ALTERNATIVES] = [1.0 / ALTERNATIVES as f64; ALTERNATIVES];
/// Both directions together trip falsely in at most one run in a thousand.
const ALPHA: f64 = 0.001;
/// Requests come in clumps (sessions, retries): count every tenth.
const CLUMP: f64 = 10.0;

#[derive(Debug, Clone)]
pub(super) struct SampleRatio {
    more: Mixture<ALTERNATIVES>,
    less: Mixture<ALTERNATIVES>,
}

impl SampleRatio {
    pub(super) fn new() -> Self {
        Self { more: Mixture::new(&WEIGHTS), less: Mixture::new(&WEIGHTS) }
    }

    /// One tick of `pair` requests while `share` percent were in force. Requests are judged as if each were an event
    /// whose odds of being the canary's are those of the weight.
    pub(super) fn observe(&mut self, pair: &Pair, share: f64) {
        if share <= 0.0 || share >= 100.0 {
            return;
        }
        let events = Pair {
            canary: super::tick::Counts { n: share, x: pair.canary.n / CLUMP },
            stable: super::tick::Counts { n: 100.0 - share, x: pair.stable.n / CLUMP },
        };
        let more = BEYOND.map(|b| conditional(&events, TOLERANCE * b, TOLERANCE, b.ln()));
        let less = BEYOND.map(|b| conditional(&events, 1.0 / (TOLERANCE * b), 1.0 / TOLERANCE, -b.ln()));
        self.more.multiply(&more, 4.0);
        self.less.multiply(&less, 4.0);
    }

    /// Whether the canary gets clearly more (or less) than its weight.
    pub(super) fn tripped(&self) -> Option<&'static str> {
        let bound = (2.0 / ALPHA).ln();
        if self.more.log() >= bound {
            Some("more")
        } else if self.less.log() >= bound {
            Some("less")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::tick::Counts;

    /// Looks until it trips, at most `most`, while the canary really gets `real` percent of 3000 requests.
    fn tripped(weight: f64, real: f64, most: usize) -> Option<(usize, &'static str)> {
        let mut ratio = SampleRatio::new();
        (1..=most).find_map(|look| {
            let arm = |share: f64| Counts { n: 30.0 * share, x: 0.0 };
            ratio.observe(&Pair { canary: arm(real), stable: arm(100.0 - real) }, weight);
            ratio.tripped().map(|direction| (look, direction))
        })
    }

    #[test]
    fn a_share_as_the_weight_says_never_trips_and_neither_does_one_nearly_so() {
        for (weight, real) in [(5.0, 5.0), (5.0, 7.0), (25.0, 20.0), (50.0, 55.0), (99.0, 98.8)] {
            assert_eq!(tripped(weight, real, 1440), None, "{real} % at {weight} %");
        }
    }

    #[test]
    fn a_weight_that_is_not_applied_trips_within_an_hour_and_says_which_way() {
        for (weight, real, direction) in
            [(25.0, 5.0, "less"), (25.0, 0.0, "less"), (5.0, 25.0, "more"), (50.0, 90.0, "more"), (5.0, 0.5, "less")]
        {
            let found = tripped(weight, real, 60);
            assert_eq!(found.map(|(_, told)| told), Some(direction), "{real} % at {weight} %");
        }
    }

    #[test]
    fn says_nothing_where_there_is_no_split() {
        assert_eq!(tripped(0.0, 50.0, 100), None);
        assert_eq!(tripped(100.0, 50.0, 100), None);
    }
}
