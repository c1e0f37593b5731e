//! Bursts: how much more a rate jumps from tick to tick than counting alone explains.
//!
//! If an arm's rate is multiplied each tick by noise of mean 1 and variance `v`, then given the bad requests of both
//! arms the canary's part is over-dispersed by `φ = 1 + (m - 1) ρ` with `ρ ≈ 2 v θ (1 - θ)`, and a log likelihood ratio
//! must be divided by it. `v` is measured on the stable arm alone, by successive differences (von Neumann 1941), so slow
//! cycles do not count as bursts and the canary cannot hide behind its own noise.

use super::tick::Counts;
use std::collections::VecDeque;

/// Estimates `v` from the stable arm, at one block length: the last block beside the one before it, moved on by one
/// tick at a time.
#[derive(Debug, Clone)]
struct Scale {
    /// Ticks per block.
    length: usize,
    recent: VecDeque<Counts>,
    /// Σ weight · (squared difference − what counting explains).
    excess: f64,
    /// Σ weight · 2 p².
    norm: f64,
    /// Blocks compared, an overlap counting as the part that is new.
    compared: f64,
}

impl Scale {
    fn new(length: usize) -> Self {
        Self { length, recent: VecDeque::with_capacity(2 * length), excess: 0.0, norm: 0.0, compared: 0.0 }
    }

    fn add(&mut self, stable: Counts) {
        if self.recent.len() == 2 * self.length {
            self.recent.pop_front();
        }
        self.recent.push_back(stable);
        if self.recent.len() < 2 * self.length {
            return;
        }
        let sum = |ticks: std::collections::vec_deque::Iter<'_, Counts>| {
            ticks.fold(NOTHING, |sum, c| Counts { n: sum.n + c.n, x: sum.x + c.x })
        };
        let (before, after) = (sum(self.recent.range(..self.length)), sum(self.recent.range(self.length..)));
        let p = (before.x + after.x) / (before.n + after.n);
        let spread = 1.0 / before.n + 1.0 / after.n;
        let difference = after.x / after.n - before.x / before.n;
        // Inverse variance of the squared difference, relative to p², as far as counting goes.
        let weight = 1.0 / (spread * spread);
        self.excess += weight * (difference * difference - p * (1.0 - p) * spread);
        self.norm += weight * 2.0 * p * p;
        self.compared += 1.0 / self.length as f64;
    }

    /// The variance, shrunk towards `prior` as if `PRIOR_BLOCKS` blocks had shown it.
    fn variance(&self, prior: f64) -> f64 {
        const PRIOR_BLOCKS: f64 = 4.0;
        let measured = if self.norm > 0.0 { (self.excess / self.norm).max(0.0) } else { 0.0 };
        (prior * PRIOR_BLOCKS + measured * self.compared) / (PRIOR_BLOCKS + self.compared)
    }
}

const NOTHING: Counts = Counts { n: 0.0, x: 0.0 };

/// The burstiness of one signal.
#[derive(Debug, Clone)]
pub(super) struct Dispersion {
    tick: Scale,
    /// Noise that lasts several ticks shows only in sums of ticks.
    block: Scale,
    prior: f64,
}

const BLOCK: usize = 5;

impl Dispersion {
    /// `prior` is the variance assumed before anything was measured.
    pub(super) fn new(prior: f64) -> Self {
        Self { tick: Scale::new(1), block: Scale::new(BLOCK), prior }
    }

    /// Learns from one tick of the stable arm. To stay predictable, call it after the tick was judged.
    pub(super) fn learn(&mut self, stable: Counts) {
        self.tick.add(stable);
        self.block.add(stable);
    }

    /// Tick-to-tick variance of the rate, relative to the rate squared.
    pub(super) fn variance(&self) -> f64 {
        self.tick.variance(self.prior)
    }

    /// `φ ≥ 1` for `m` expected bad requests of which a share `theta` is expected in the canary. Expected, not seen: what
    /// depends on the tick's own bad requests would break the promise.
    pub(super) fn factor(&self, m: f64, theta: f64) -> f64 {
        let spread = 2.0 * theta * (1.0 - theta);
        let tick = (m - 1.0).max(0.0) * log_variance(self.variance()) * spread;
        let block = (m * BLOCK as f64 - 1.0).max(0.0) * log_variance(self.block.variance(0.0)) * spread;
        1.0 + tick.max(block)
    }

    /// What one tick may add to the evidence of harm, given `calm` nats where there are no bursts: bursts have heavier
    /// tails than `φ` knows of, and no single one shall weigh much.
    pub(super) fn cap(&self, calm: f64) -> f64 {
        const PER_VARIANCE: f64 = 4.0;
        let lasting = BLOCK as f64 * self.block.variance(0.0);
        calm / (1.0 + PER_VARIANCE * self.variance().max(lasting))
    }

    /// `φ ≥ 1` for one arm alone that expects `m` bad requests.
    pub(super) fn one_sample_factor(&self, m: f64) -> f64 {
        1.0 + m * self.variance()
    }
}

/// Variance of the logarithm of gamma noise with mean 1 and variance `v`: the trigamma function at `1/v`, by its series.
fn log_variance(v: f64) -> f64 {
    v + v * v / 2.0 + v * v * v / 6.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_distr::{Distribution, Gamma, Poisson};

    fn measured(v: f64, lasting: usize, ticks: usize) -> Dispersion {
        let mut rng = rand_pcg::Pcg64::seed_from_u64(7);
        let mut dispersion = Dispersion::new(0.05);
        let mut noise = 1.0;
        for tick in 0..ticks {
            if v > 0.0 && tick % lasting == 0 {
                noise = Gamma::new(1.0 / v, v).unwrap().sample(&mut rng);
            }
            dispersion.learn(Counts { n: 2850.0, x: Poisson::new(14.25 * noise).unwrap().sample(&mut rng) });
        }
        dispersion
    }

    #[test]
    fn measures_bursts_and_leaves_calm_services_alone() {
        assert!(measured(0.0, 1, 400).variance() < 0.02);
        let bursty = measured(0.5, 1, 400).variance();
        assert!((0.35..0.65).contains(&bursty), "{bursty}");
    }

    #[test]
    fn sees_bursts_that_last_longer_than_a_tick() {
        let (short, long) = (measured(0.3, 1, 600), measured(0.3, 5, 600));
        assert!(long.factor(30.0, 0.25) > 1.4 * short.factor(30.0, 0.25));
        assert!(long.cap(4.0) < short.cap(4.0));
    }

    #[test]
    fn a_daily_cycle_is_no_burst() {
        let mut dispersion = Dispersion::new(0.0);
        for tick in 0..1440 {
            let load = 1.0 + 0.8 * (f64::from(tick) / 1440.0 * std::f64::consts::TAU).sin();
            dispersion.learn(Counts { n: 2850.0 * load, x: 14.25 * load });
        }
        assert_eq!(dispersion.variance(), 0.0);
    }
}
