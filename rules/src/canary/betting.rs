//! Business metrics in `[0, 1]`, by betting.
//!
//! A gambler who bets a fraction on "the mean is above `m`" multiplies the stake by `1 + λ (x - m)` each tick. If the
//! mean is at most `m` nobody can expect to win, so the stake is an e-process, exact for any distribution in `[0, 1]`
//! (Waudby-Smith & Ramdas, *Estimating means of bounded random variables by betting*, JRSS B 2024). Several fixed `λ`
//! are played side by side and averaged.

use super::e_process::Mixture;
use super::tick::Counts;

const BETS: usize = 8;
/// Each bet as a part of the largest that cannot go bankrupt.
const FRACTIONS: [f64; BETS] = [0.01, 0.03, 0.07, 0.15, 0.3, 0.5, 0.7, 0.9];
const WEIGHTS: [f64; BETS] = [1.0 / BETS as f64; BETS];

/// Is the canary's mean score above the stable one's by more than `margin` (safe), or below that (harm)?
#[derive(Debug, Clone)]
pub(super) struct Betting {
    /// The null's mean of `½ + ½ (canary − stable)`.
    null: f64,
    above: Mixture<BETS>,
    below: Mixture<BETS>,
}

impl Betting {
    /// `margin` in score units: a non-inferiority margin is negative, a minimum improvement positive.
    pub(super) fn new(margin: f64) -> Self {
        let null = 0.5 + 0.5 * margin.clamp(-0.999, 0.999);
        Self { null, above: Mixture::new(&WEIGHTS), below: Mixture::new(&WEIGHTS) }
    }

    pub(super) fn restart_safety(&mut self) {
        self.above = Mixture::new(&WEIGHTS);
    }

    /// One tick: the means of both arms make one value in `[0, 1]`.
    pub(super) fn observe(&mut self, canary: Counts, stable: Counts) {
        let value = 0.5 + 0.5 * (canary.x / canary.n - stable.x / stable.n);
        let m = self.null;
        let up = FRACTIONS.map(|part| (1.0 + part / m * (value - m)).ln());
        let down = FRACTIONS.map(|part| (1.0 + part / (1.0 - m) * (m - value)).ln());
        self.above.multiply(&up, f64::INFINITY);
        self.below.multiply(&down, f64::INFINITY);
    }

    /// `ln E` against "no better than the margin".
    pub(super) fn safe(&self) -> f64 {
        self.above.log()
    }

    /// `ln E` against "at least the margin".
    pub(super) fn harm(&self) -> f64 {
        self.below.log()
    }
}
