//! E-processes: evidence that may be looked at any time.
//!
//! A non-negative process `E` with `E₀ = 1` whose expectation never rises under a null hypothesis passes `1/α` with
//! probability at most α, however often one looks (Ville 1939; Ramdas, Grünwald, Vovk & Shafer, *Game-theoretic
//! statistics and safe anytime-valid inference*, Statistical Science 2023). Everything here works on `ln E`, in nats.
//!
//! Four operations keep the property, and nothing else is used:
//! products over ticks, averages with weights fixed in advance (over alternatives, and over starting times),
//! lowering (a cap on what one tick may add), and powers `1/φ` with `φ ≥ 1` (Jensen).

/// A weighted average of likelihood-ratio processes, one per alternative (the method of mixtures).
#[derive(Debug, Clone)]
pub(super) struct Mixture<const N: usize> {
    /// `ln` of weight times product so far, per alternative.
    terms: [f64; N],
    /// `ln E` after caps.
    level: f64,
    /// `ln E` before caps.
    raw: f64,
}

impl<const N: usize> Mixture<N> {
    /// Starts at `E = 1`; `weights` sum to 1.
    pub(super) fn new(weights: &[f64; N]) -> Self {
        Self { terms: weights.map(f64::ln), level: 0.0, raw: 0.0 }
    }

    /// Multiplies in one tick: `increments` holds the log likelihood ratio of each alternative, of which at most
    /// `cap` nats may count. Lowering an e-value leaves it one.
    pub(super) fn multiply(&mut self, increments: &[f64; N], cap: f64) {
        for (term, increment) in self.terms.iter_mut().zip(increments) {
            *term += increment;
        }
        let raw = log_sum_exp(&self.terms);
        self.level += (raw - self.raw).min(cap);
        self.raw = raw;
    }

    /// `ln E`.
    pub(super) fn log(&self) -> f64 {
        self.level
    }
}

/// The same e-process begun at several times, averaged with weights fixed in advance, so that good hours before do not
/// have to be undone before late harm shows. A process that has not begun counts as 1.
///
/// Component 0 begins at once and holds weight [`FIRST`]; the k-th restart holds `(1 - FIRST) / (k (k + 1))`.
#[derive(Debug, Clone)]
pub(super) struct Restarted<const N: usize> {
    weights: [f64; N],
    live: Vec<(f64, Mixture<N>)>,
    restarts: u32,
    /// Weight of the restarts that are yet to come.
    waiting: f64,
}

/// The share of the mixture that the process since the beginning holds.
const FIRST: f64 = 0.75;
/// Restarts kept alive; an older one is dropped, which lowers the average and so keeps it valid.
const KEPT: usize = 4;

impl<const N: usize> Restarted<N> {
    pub(super) fn new(weights: &[f64; N]) -> Self {
        let live = vec![(FIRST.ln(), Mixture::new(weights))];
        Self { weights: *weights, live, restarts: 0, waiting: 1.0 - FIRST }
    }

    /// Begins one more component.
    pub(super) fn restart(&mut self) {
        self.restarts += 1;
        let k = f64::from(self.restarts);
        let weight = (1.0 - FIRST) / (k * (k + 1.0));
        self.waiting = (self.waiting - weight).max(0.0);
        if self.live.len() > KEPT {
            self.live.remove(1);
        }
        self.live.push((weight.ln(), Mixture::new(&self.weights)));
    }

    pub(super) fn multiply(&mut self, increments: &[f64; N], cap: f64) {
        for (_, mixture) in &mut self.live {
            mixture.multiply(increments, cap);
        }
    }

    /// `ln E`.
    pub(super) fn log(&self) -> f64 {
        let mut terms = [f64::NEG_INFINITY; KEPT + 2];
        terms[0] = self.waiting.ln();
        for (term, (weight, mixture)) in terms[1..].iter_mut().zip(&self.live) {
            *term = weight + mixture.log();
        }
        log_sum_exp(&terms)
    }
}

/// `ln Σ exp(terms)` without overflow; minus infinity when there is nothing to sum.
pub(super) fn log_sum_exp(terms: &[f64]) -> f64 {
    let highest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return highest;
    }
    // What is 40 nats below the highest term cannot change the sum in double precision.
    let sum: f64 = terms.iter().map(|term| term - highest).filter(|below| *below > -40.0).map(f64::exp).sum();
    highest + sum.ln()
}
