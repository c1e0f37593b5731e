//! Log likelihood ratios of one tick: how much more an alternative expects what was seen than the null does.
//!
//! In a tick the canary serves `n_c` requests of which `x_c` are bad, the stable arm `n_s` and `x_s`. The *ratio* `r` is
//! the canary's rate of bad requests over the stable one's. All ratios here are e-values for Poisson and for Bernoulli
//! counts alike; the proofs stand beside them and `tests/promises.rs` measures them.

use super::tick::Counts;

/// The two arms of one signal in one tick, both present and with requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) canary: Counts,
    pub(super) stable: Counts,
}

impl Pair {
    /// The probability that a bad request of this tick is the canary's, when the ratio is `r`.
    pub(super) fn canary_probability(&self, r: f64) -> f64 {
        r * self.canary.n / (r * self.canary.n + self.stable.n)
    }

    /// Bad requests in both arms.
    pub(super) fn bad(&self) -> f64 {
        self.canary.x + self.stable.x
    }
}

/// Ratio `r1` against ratio `r0`, given the bad requests of both arms: the shared base rate cancels, so daily cycles,
/// incidents that hit both arms and weight changes need no model.
///
/// It is `Binomial(x_c; m, θ(r1)) / Binomial(x_c; m, θ(r0))` with `θ(r) = r n_c / (r n_c + n_s)`.
///
/// *An e-value for the null `r ≤ r0` when `r1 > r0`* (and for `r ≥ r0` when `r1 < r0`). Write `A = θ₁/θ₀` and
/// `B = (1-θ₁)/(1-θ₀)`. With Bernoulli arms of rates `r·p` and `p` its expectation is
/// `(1 + r p )^{n_c} (1 + p (B-1))^{n_s}`, and `ln(1+z) ≤ z` gives `ln E ≤ p [r n_c (A-1) + n_s (B-1)]`.
/// At `r = r0` the bracket is `(r0 n_c + n_s)(θ₁ - θ₀ + (1-θ₁) - (1-θ₀)) = 0`, and it rises in `r` exactly when
/// `r1 > r0`. For Poisson arms the first bound is an equality.
pub(super) fn conditional(pair: &Pair, r1: f64, r0: f64, log_r1_over_r0: f64) -> f64 {
    let denominators = (r1 * pair.canary.n + pair.stable.n) / (r0 * pair.canary.n + pair.stable.n);
    pair.canary.x * log_r1_over_r0 - pair.bad() * denominators.ln()
}

/// Ratio `r1` against ratio `r0` where bad requests are common (above about 10 %), given a guess `base` of the stable
/// rate made from earlier ticks.
///
/// There the conditional ratio gives away what it knows about the requests that were *not* bad. This one is the
/// likelihood of the guess over that of its reverse information projection on the null's edge `p_c = r0 p_s`
/// (Turner, Ly & Grünwald, *Generic E-variables for exact sequential k-sample tests*, 2024).
///
/// *An e-value whatever the true base rate.* The projection `q` minimises `n_c KL(p_c‖r0 q) + n_s KL(p_s‖q)`; with
/// `α = (p_c - q_c)/(q_c(1-q_c))`, `β = (p_s - q_s)/(q_s(1-q_s))` its stationarity says `n_c r0 α + n_s β = 0`.
/// For true rates `a, b`: `ln E ≤ n_c α (a - q_c) + n_s β (b - q_s) = n_c α (a - r0 b)`, which is at most 0 when
/// `a ≤ r0 b` and `α > 0` (harm), or `a ≥ r0 b` and `α < 0` (safety).
pub(super) fn unconditional(pair: &Pair, r1: f64, r0: f64, base: f64) -> f64 {
    const EDGE: f64 = 1e-6;
    let (nc, ns) = (pair.canary.n, pair.stable.n);
    let ps = base.clamp(EDGE, 1.0 - EDGE);
    let pc = (r1 * ps).clamp(EDGE, 1.0 - EDGE);
    if (r1 > r0) != (pc > r0 * ps) {
        return 0.0; // the alternative does not fit below 1: no bet
    }
    // Stationarity, cleared of denominators: a quadratic in q, whose smaller root lies in (0, 1/r0).
    let a = r0 * (nc + ns);
    let b = nc * (pc + r0) + ns * (r0 * ps + 1.0);
    let c = nc * pc + ns * ps;
    let root = (b * b - 4.0 * a * c).max(0.0).sqrt();
    let qs = 2.0 * c / (b + root);
    let qc = r0 * qs;
    if !(qs > 0.0 && qs < 1.0 && qc < 1.0) {
        return 0.0;
    }
    pair.canary.x * (pc / qc).ln()
        + (nc - pair.canary.x) * ((1.0 - pc) / (1.0 - qc)).ln()
        + pair.stable.x * (ps / qs).ln()
        + (ns - pair.stable.x) * ((1.0 - ps) / (1.0 - qs)).ln()
}

/// One arm's rate `p1` against `p0`: Bernoulli likelihoods. An e-value for `p ≤ p0` when `p1 > p0` and for `p ≥ p0` when
/// `p1 < p0`: the expectation `(1 + (p - p0)(p1 - p0)/(p0(1 - p0)))^n` is at most 1 on that side.
pub(super) fn one_sample(arm: Counts, p1: f64, p0: f64) -> f64 {
    arm.x * (p1 / p0).ln() + (arm.n - arm.x) * ((1.0 - p1) / (1.0 - p0)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Probabilities of 0..=n bad requests of n at rate p.
    fn binomial(n: u32, p: f64) -> Vec<f64> {
        let mut chances = vec![(1.0 - p).powi(n as i32)];
        for x in 0..n {
            let last = chances[x as usize];
            chances.push(last * f64::from(n - x) / f64::from(x + 1) * p / (1.0 - p));
        }
        chances
    }

    /// The exact expectation of a likelihood ratio over every outcome of two Bernoulli arms.
    fn expectation(nc: u32, ns: u32, canary: f64, stable: f64, ratio: impl Fn(&Pair) -> f64) -> f64 {
        let counts = |n: u32, x: usize| Counts { n: f64::from(n), x: x as f64 };
        let mut sum = 0.0;
        for (xc, pc) in binomial(nc, canary).into_iter().enumerate() {
            for (xs, ps) in binomial(ns, stable).into_iter().enumerate() {
                sum += pc * ps * ratio(&Pair { canary: counts(nc, xc), stable: counts(ns, xs) }).exp();
            }
        }
        sum
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn nobody_can_expect_to_win_against_a_canary_that_is_not_worse(
            nc in 1_u32..25, ns in 1_u32..40, stable in 0.001_f64..0.8, worse in 0.0_f64..=1.0,
            r0 in 1.0_f64..1.3, multiple in 1.05_f64..20.0, guess in 0.01_f64..0.9,
        ) {
            let canary = (r0 * worse * stable).min(0.99);
            prop_assume!(canary <= r0 * stable);
            let r1 = r0 * multiple;
            let given_bad = expectation(nc, ns, canary, stable, |pair| conditional(pair, r1, r0, multiple.ln()));
            prop_assert!(given_bad <= 1.0 + 1e-9, "conditional: {}", given_bad);
            let all = expectation(nc, ns, canary, stable, |pair| unconditional(pair, r1, r0, guess));
            prop_assert!(all <= 1.0 + 1e-9, "unconditional: {}", all);
        }

        #[test]
        fn nobody_can_expect_to_win_against_a_canary_as_bad_as_the_margin(
            nc in 1_u32..25, ns in 1_u32..40, stable in 0.001_f64..0.3, worse in 1.0_f64..2.0,
            margin in 1.2_f64..3.0, better in 0.2_f64..1.0, guess in 0.01_f64..0.9,
        ) {
            let canary = margin * worse * stable;
            prop_assume!(canary < 1.0);
            let given_bad = expectation(nc, ns, canary, stable, |p| conditional(p, better, margin, (better / margin).ln()));
            prop_assert!(given_bad <= 1.0 + 1e-9, "conditional: {}", given_bad);
            let all = expectation(nc, ns, canary, stable, |pair| unconditional(pair, better, margin, guess));
            prop_assert!(all <= 1.0 + 1e-9, "unconditional: {}", all);
        }

        #[test]
        fn nobody_can_expect_to_win_with_the_discount_for_bursts_either(
            nc in 1_u32..20, ns in 1_u32..30, stable in 0.001_f64..0.8, r0 in 1.0_f64..1.3, multiple in 1.05_f64..20.0,
            guess in 0.01_f64..0.9, phi in 1.0_f64..20.0,
        ) {
            // Known before the tick's bad requests are: a power 1/phi of an e-value is one (Jensen).
            let canary = r0 * stable;
            prop_assume!(canary < 0.99);
            let r1 = r0 * multiple;
            let given_bad = expectation(nc, ns, canary, stable, |pair| conditional(pair, r1, r0, multiple.ln()) / phi);
            prop_assert!(given_bad <= 1.0 + 1e-9, "conditional: {}", given_bad);
            let all = expectation(nc, ns, canary, stable, |pair| unconditional(pair, r1, r0, guess) / phi);
            prop_assert!(all <= 1.0 + 1e-9, "unconditional: {}", all);
        }

        #[test]
        fn the_shared_base_rate_cancels_and_ticks_may_be_merged(
            n in prop::array::uniform2(1_u32..5000), x in prop::array::uniform4(0_u32..50), k in 1_u32..1000,
        ) {
            let pair = |scale: u32, xc: u32, xs: u32| Pair {
                canary: Counts { n: f64::from(n[0] * scale), x: f64::from(xc) },
                stable: Counts { n: f64::from(n[1] * scale), x: f64::from(xs) },
            };
            let log = |pair: &Pair| conditional(pair, 2.2, 1.1, 2.0_f64.ln());
            prop_assert!((log(&pair(1, x[0], x[1])) - log(&pair(k, x[0], x[1]))).abs() < 1e-9);
            let apart = log(&pair(1, x[0], x[1])) + log(&pair(1, x[2], x[3]));
            prop_assert!((apart - log(&pair(2, x[0] + x[2], x[1] + x[3]))).abs() < 1e-6);
        }
    }

    #[test]
    fn where_bad_requests_are_common_the_unconditional_ratio_learns_faster() {
        // 40 % bad in the stable arm, 60 % in the canary: the expected log per tick of each ratio.
        let expected = |ratio: &dyn Fn(&Pair) -> f64| {
            let pair = Pair { canary: Counts { n: 50.0, x: 30.0 }, stable: Counts { n: 50.0, x: 20.0 } };
            ratio(&pair)
        };
        let given_bad = expected(&|pair| conditional(pair, 1.5, 1.1, (1.5_f64 / 1.1).ln()));
        let all = expected(&|pair| unconditional(pair, 1.5, 1.1, 0.4));
        assert!(all > 1.5 * given_bad, "{all} against {given_bad}");
    }
}
