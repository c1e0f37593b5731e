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
