//! Who plays: rules as other tools apply them, a test that knows the truth, and ours.

use super::world::{Minute, Scenario, Seen, binomial, normal_cdf};
use rand::SeedableRng;
use rand_pcg::Pcg64;
use sluice_rules::canary::{Arms, Call, Counts, Judge, Policy, SignalPolicy, Tick};
use std::collections::BTreeMap;

/// What a player does after a minute.
#[derive(Clone, Copy, PartialEq)]
pub enum Move {
    /// The canary's share for the next minute; 100 ends the run as promoted.
    Share(f64),
    Rollback,
    /// A person is asked; the share stays.
    Ask,
}

pub trait Player {
    fn play(&mut self, minute: usize, share: f64, seen: &Seen) -> Move;
}

/// Flagger's loop: one instant query per metric and minute against fixed thresholds, a failure counter that only
/// grows, and "no values" counted as a failed check.
pub struct Flagger {
    pub step: f64,
    pub allowed: u32,
    pub failures: u32,
}

impl Player for Flagger {
    fn play(&mut self, _: usize, share: f64, seen: &Seen) -> Move {
        let passed = seen.canary.is_some_and(|c| c.n > 0.0 && c.visible / c.n <= 0.01 && c.p99() <= 5.0);
        if !passed {
            self.failures += 1;
            return if self.failures >= self.allowed { Move::Rollback } else { Move::Share(share) };
        }
        Move::Share(if share >= 50.0 { 100.0 } else { share + self.step })
    }
}

/// Argo Rollouts' background analysis: one measurement a minute, failed ones add up (limit 3), errors in a row are
/// counted apart (limit 4), steps climb by the clock.
#[derive(Default)]
pub struct Argo {
    failed: u32,
    errors_in_a_row: u32,
}

impl Player for Argo {
    fn play(&mut self, minute: usize, share: f64, seen: &Seen) -> Move {
        match seen.canary.filter(|c| c.n > 0.0) {
            None => self.errors_in_a_row += 1,
            Some(c) => {
                self.errors_in_a_row = 0;
                self.failed += u32::from(c.visible / c.n > 0.01 || c.p99() > 5.0);
            }
        }
        if self.failed > 3 || self.errors_in_a_row > 4 {
            return Move::Rollback;
        }
        Move::Share(if !(minute + 1).is_multiple_of(15) { share } else { next_rung(share) })
    }
}

/// Kayenta's judge: a 10 % canary beside an equal baseline, per-minute series of error rate and p99, both critical,
/// Mann-Whitney location shift at 98 %, judged again and again on all data so far.
pub struct Kayenta {
    pub every: usize,
    pub until: usize,
    baseline: Pcg64,
    series: [[Vec<f64>; 2]; 2],
}

impl Kayenta {
    pub fn new(every: usize, until: usize, seed: u64) -> Self {
        Self { every, until, baseline: Pcg64::seed_from_u64(seed ^ 0x5eed), series: Default::default() }
    }
}

impl Player for Kayenta {
    fn play(&mut self, minute: usize, share: f64, seen: &Seen) -> Move {
        let baseline = seen.stable.map(|stable| thin(&mut self.baseline, &stable, share / (100.0 - share)));
        for (arm, minute) in [seen.canary, baseline].into_iter().enumerate() {
            if let Some(m) = minute.filter(|m| m.n > 0.0) {
                self.series[0][arm].push(m.visible / m.n);
                self.series[1][arm].push(m.p99());
            }
        }
        if (minute + 1).is_multiple_of(self.every) {
            if self.series.iter().any(|[canary, baseline]| clearly_higher(canary, baseline)) {
                return Move::Rollback;
            }
            if minute + 1 >= self.until {
                return Move::Share(100.0);
            }
        }
        Move::Share(share)
    }
}

/// A random part of a minute's requests.
fn thin(rng: &mut Pcg64, minute: &Minute, part: f64) -> Minute {
    let mut thinned = Minute { n: 0.0, visible: binomial(rng, minute.visible, part), ..Minute::default() };
    for (thin, full) in thinned.buckets.iter_mut().zip(minute.buckets) {
        *thin = binomial(rng, full, part);
        thinned.n += *thin;
    }
    thinned
}

fn clearly_higher(canary: &[f64], baseline: &[f64]) -> bool {
    let (n, m) = (canary.len(), baseline.len());
    if n == 0 || m == 0 || canary.iter().chain(baseline).all(|v| (v - canary[0]).abs() < 1e-12) {
        return false;
    }
    let mut differences: Vec<f64> = canary.iter().flat_map(|c| baseline.iter().map(move |b| c - b)).collect();
    differences.sort_by(f64::total_cmp);
    let (nf, mf) = (n as f64, m as f64);
    let half = 2.326 * (nf * mf * (nf + mf + 1.0) / 12.0).sqrt();
    let index = (nf * mf / 2.0 - half - 0.5).floor();
    if index < 0.0 {
        return false;
    }
    let lower = differences[index as usize];
    let estimate = differences[differences.len() / 2];
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let ratio = mean(canary) / mean(baseline);
    lower > 0.25 * estimate.abs() && (ratio.is_nan() || ratio >= 1.0)
}

/// A sequential probability ratio test that knows the true ratios, on our ladder: the limit.
pub struct Clairvoyant {
    pub errors: fn(usize) -> f64,
    pub slow: f64,
    harm: f64,
    safe: [f64; 2],
    since: usize,
}

impl Clairvoyant {
    pub fn new(errors: fn(usize) -> f64, latency: f64) -> Self {
        let beyond = |slower: f64| 1.0 - normal_cdf((2.5 / (0.8 * slower)).ln() / 0.7);
        Self { errors, slow: beyond(latency) / beyond(1.0), harm: 0.0, safe: [0.0; 2], since: 0 }
    }
}

impl Player for Clairvoyant {
    fn play(&mut self, minute: usize, share: f64, seen: &Seen) -> Move {
        const HARM_RATIO: f64 = 1.1;
        let margin = Policy::default().margin_at(share);
        if let (Some(c), Some(s)) = (seen.canary, seen.stable) {
            let ratio =
                |x: f64, m: f64, r1: f64, r0: f64| x * (r1 / r0).ln() - m * ((r1 * c.n + s.n) / (r0 * c.n + s.n)).ln();
            let signals =
                [(c.errors, c.errors + s.errors, (self.errors)(minute)), (c.slow(), c.slow() + s.slow(), self.slow)];
            for (safe, (x, m, truth)) in self.safe.iter_mut().zip(signals) {
                if truth > HARM_RATIO {
                    self.harm += ratio(x, m, truth, HARM_RATIO);
                }
                *safe += ratio(x, m, 1.0, margin);
            }
        }
        if self.harm >= 200.0_f64.ln() {
            return Move::Rollback;
        }
        if self.safe.iter().all(|safe| *safe >= 20.0_f64.ln()) && minute + 1 - self.since >= 15 && self.harm < 0.7 {
            self.safe = [0.0; 2];
            self.since = minute + 1;
            return Move::Share(next_rung(share));
        }
        Move::Share(share)
    }
}

/// The engine of this project, as `judge --stream` runs it; it counts tokens where they matter.
pub struct Ours(Judge, bool);

impl Ours {
    pub fn new(scenario: &Scenario) -> Self {
        let mut policy = Policy::default();
        if scenario.quality.is_some() {
            let quality = SignalPolicy { non_inferiority: Some(0.01), ..SignalPolicy::default() };
            let count = SignalPolicy::default;
            policy.signals =
                [("errors", count()), ("slow", count()), ("quality", quality)].map(|(n, s)| (n.to_owned(), s)).into();
        }
        Self(Judge::new(policy).expect("the policy is sound"), scenario.verbosity > 1.0)
    }
}

impl Player for Ours {
    fn play(&mut self, minute: usize, share: f64, seen: &Seen) -> Move {
        let counts = |of: fn(&Minute) -> f64| Arms {
            canary: seen.canary.map(|m| Counts { n: m.n, x: of(&m) }),
            stable: seen.stable.map(|m| Counts { n: m.n, x: of(&m) }),
        };
        let mut signals =
            BTreeMap::from([("errors".to_owned(), counts(|m| m.errors)), ("slow".to_owned(), counts(Minute::slow))]);
        if self.1 {
            signals.insert("tokens".to_owned(), counts(|m| m.long));
        }
        if let Some(quality) = seen.quality {
            let [canary, stable] = quality.map(|(n, x)| Some(Counts { n, x }));
            signals.insert("quality".to_owned(), Arms { canary, stable });
        }
        let tick = Tick { t: (minute as i64 + 1) * 60, share, signals, replicas: None };
        let verdict = self.0.observe(&tick).expect("simulated ticks are sound");
        match verdict.call {
            Call::Promote => Move::Share(verdict.share),
            Call::Rollback => Move::Rollback,
            Call::Ask => Move::Ask,
            Call::Hold => Move::Share(share),
        }
    }
}

fn next_rung(share: f64) -> f64 {
    [5.0, 10.0, 25.0, 50.0].into_iter().find(|rung| *rung > share).unwrap_or(100.0)
}
