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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bet_on_a_fair_coin_is_worth_what_it_costs(margin in -0.3_f64..0.3, spread in 0.01_f64..0.3, p in 0.05_f64..0.95) {
            // A two-point distribution of the difference whose mean is exactly the margin.
            let (high, low) = (margin + spread * (1.0 - p), margin - spread * p);
            let value = |difference: f64| {
                let mut betting = Betting::new(margin);
                let stable = Counts { n: 100.0, x: 50.0 };
                betting.observe(Counts { n: 100.0, x: 50.0 + 100.0 * difference }, stable);
                [betting.safe().exp(), betting.harm().exp()]
            };
            for (up, down) in value(high).into_iter().zip(value(low)) {
                prop_assert!((p * up + (1.0 - p) * down - 1.0).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn tells_a_fall_of_five_points_from_none() {
        let mut fallen = Betting::new(-0.01);
        let mut level = Betting::new(-0.01);
        for tick in 0..300 {
            let wobble = f64::from(tick % 7 - 3) / 100.0;
            let stable = Counts { n: 50.0, x: 40.0 };
            fallen.observe(Counts { n: 50.0, x: 50.0 * (0.75 + wobble) }, stable);
            level.observe(Counts { n: 50.0, x: 50.0 * (0.80 + wobble) }, stable);
        }
        assert!(fallen.harm() > 5.3 && fallen.safe() < 0.0, "{} {}", fallen.harm(), fallen.safe());
        assert!(level.safe() > level.harm(), "{} {}", level.safe(), level.harm());
    }
}
