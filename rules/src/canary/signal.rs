//! One signal's evidence: harm over the canary's life, safety on the rung it stands on.

use super::betting::Betting;
use super::dispersion::Dispersion;
use super::e_process::{Mixture, Restarted, log_sum_exp};
use super::likelihood::{Pair, conditional, one_sample, unconditional};
use super::policy::Policy;
use super::tick::Counts;
use serde::{Deserialize, Serialize};

/// What the evidence says of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalVerdict {
    /// The canary is worse than allowed.
    Harm,
    /// The rung's margin is excluded.
    Safe,
    /// Neither; never moves a weight.
    Undecided,
}

/// Ratios tested for harm, as multiples of `harmRatio`. The weights favour about twice as bad: a prior, not a tuning
/// that the promise depends on.
const HARM: [f64; 7] = [1.15, 1.4, 1.8, 2.5, 4.0, 8.0, 20.0];
const HARM_WEIGHTS: [f64; 7] = [0.08, 0.2, 0.34, 0.2, 0.1, 0.05, 0.03];
/// Ratios tested for safety.
const SAFE: [f64; 3] = [1.0, 0.85, 0.6];
const SAFE_WEIGHTS: [f64; 3] = [0.7, 0.2, 0.1];
/// Rates tested against a ceiling and above a floor, as multiples of it.
const BELOW_CEILING: [f64; 3] = [0.5, 0.25, 0.08];
const CEILING_WEIGHTS: [f64; 3] = [0.5, 0.3, 0.2];
const ABOVE_FLOOR: [f64; 3] = [3.0, 12.0, 60.0];
const FLOOR_WEIGHTS: [f64; 3] = [0.34, 0.33, 0.33];
/// Nats one tick of a calm service may add to harm: a single tick alone rolls nothing back.
const TICK_CAP: f64 = 4.0;
/// The rate of bad requests assumed before any was seen, for the discount of bursts alone.
const UNKNOWN: f64 = 0.01;
/// Above this rate of bad requests the unconditional likelihood is the better one.
const COMMON: f64 = 0.1;
/// The harm process begins anew at least this often, in seconds, so that late harm need not undo a good day.
const RESTART_EVERY: i64 = 3600;

/// The evidence of one signal.
#[derive(Debug, Clone)]
pub(super) struct Signal {
    pub(super) name: String,
    /// `ln 1/α` of this signal.
    pub(super) harm_bound: f64,
    kind: Kind,
    objective: Option<f64>,
    /// Requests of both arms and bad ones on this rung, for "n more events".
    rung: [Counts; 2],
}

#[derive(Debug, Clone)]
enum Kind {
    Count(Box<Count>),
    Score(Betting),
}

#[derive(Debug, Clone)]
struct Count {
    harm: Restarted<7>,
    /// Against "too rare to matter"; `None` when the policy's floor is 0.
    floor: Option<Mixture<3>>,
    safe: Mixture<3>,
    ceiling: Mixture<3>,
    /// Log likelihood of "no worse" over "as bad as the margin", on this rung.
    lean: f64,
    /// The stable arm before this tick, lately.
    base: Counts,
    dispersion: Dispersion,
    restarted: i64,
    log_harm: [f64; 7],
}

const NOTHING: Counts = Counts { n: 0.0, x: 0.0 };

impl Signal {
    pub(super) fn new(name: &str, policy: &Policy, harm_bound: f64, t: i64) -> Self {
        let declared = policy.signals.get(name);
        let kind = match declared.and_then(|signal| signal.score_margin()) {
            Some(margin) => Kind::Score(Betting::new(margin)),
            None => Kind::Count(Box::new(Count {
                harm: Restarted::new(&HARM_WEIGHTS),
                floor: (policy.floor > 0.0).then(|| Mixture::new(&FLOOR_WEIGHTS)),
                safe: Mixture::new(&SAFE_WEIGHTS),
                ceiling: Mixture::new(&CEILING_WEIGHTS),
                lean: 0.0,
                base: NOTHING,
                dispersion: Dispersion::new(policy.dispersion),
                restarted: t,
                log_harm: HARM.map(f64::ln),
            })),
        };
        let objective = declared.and_then(|signal| signal.ceiling);
        Self { name: name.to_owned(), harm_bound, kind, objective, rung: [NOTHING; 2] }
    }

    /// Whether this is a business metric, where harm asks a person instead of rolling back.
    pub(super) fn is_score(&self) -> bool {
        matches!(self.kind, Kind::Score(_))
    }

    /// Whether cold caches after a weight change disturb it: latency, by its name on the wire.
    pub(super) fn needs_warmth(&self) -> bool {
        self.name == "slow"
    }

    /// A new rung: safety must be shown again, at its load; harm keeps what it knows.
    pub(super) fn new_rung(&mut self, t: i64) {
        self.rung = [NOTHING; 2];
        match &mut self.kind {
            Kind::Score(betting) => betting.restart_safety(),
            Kind::Count(count) => {
                count.safe = Mixture::new(&SAFE_WEIGHTS);
                count.ceiling = Mixture::new(&CEILING_WEIGHTS);
                count.lean = 0.0;
                count.harm.restart();
                count.restarted = t;
            }
        }
    }

    /// One tick in which both arms served requests.
    pub(super) fn observe(&mut self, pair: Pair, policy: &Policy, share: f64, t: i64) {
        for (sum, arm) in self.rung.iter_mut().zip([pair.canary, pair.stable]) {
            *sum = Counts { n: sum.n + arm.n, x: sum.x + arm.x };
        }
        match &mut self.kind {
            Kind::Score(betting) => betting.observe(pair.canary, pair.stable),
            Kind::Count(count) => count.observe(pair, policy, share, self.objective, t),
        }
    }

    /// What the stable arm alone teaches of bursts when the canary is missing.
    pub(super) fn observe_stable(&mut self, stable: Counts) {
        if let Kind::Count(count) = &mut self.kind {
            count.learn(stable);
        }
    }

    /// `ln E` against "not worse than allowed".
    pub(super) fn harm(&self) -> f64 {
        match &self.kind {
            Kind::Score(betting) => betting.harm(),
            Kind::Count(count) => count.floor.as_ref().map_or(f64::INFINITY, Mixture::log).min(count.harm.log()),
        }
    }

    /// `ln E` against "as bad as the rung's margin, and not comfortably below its ceiling".
    pub(super) fn safe(&self) -> f64 {
        match &self.kind {
            Kind::Score(betting) => betting.safe(),
            Kind::Count(count) => log_sum_exp(&[count.safe.log(), count.ceiling.log()]) - std::f64::consts::LN_2,
        }
    }

    /// Harm, safe or undecided.
    pub(super) fn verdict(&self, policy: &Policy) -> SignalVerdict {
        if self.harm() >= self.harm_bound {
            SignalVerdict::Harm
        } else if self.safe() >= (1.0 / policy.beta).ln() && self.leans_safe() {
            SignalVerdict::Safe
        } else {
            SignalVerdict::Undecided
        }
    }

    /// Whether the ratio itself does not speak for the margin: a comfortable rate alone moves no weight against it.
    fn leans_safe(&self) -> bool {
        match &self.kind {
            Kind::Score(_) => true,
            Kind::Count(count) => count.lean >= 0.0,
        }
    }

    /// Requests of the canary and of the stable arm on this rung.
    pub(super) fn seen_on_rung(&self) -> [Counts; 2] {
        self.rung
    }

    /// Tick-to-tick variance of the stable rate, relative to its square.
    pub(super) fn burstiness(&self) -> f64 {
        match &self.kind {
            Kind::Score(_) => 0.0,
            Kind::Count(count) => count.dispersion.variance(),
        }
    }

    /// About how many more bad requests (both arms) clear the margin if the canary is exactly as good as stable.
    pub(super) fn events_needed(&self, policy: &Policy, share: f64) -> Option<f64> {
        let Kind::Count(count) = &self.kind else { return None };
        let missing = (1.0 / policy.beta).ln() - self.safe();
        if missing <= 0.0 {
            return Some(0.0);
        }
        let theta = |r: f64| r * share / (r * share + 100.0 - share);
        let (equal, margin) = (theta(1.0), theta(policy.margin_at(share)));
        let per_event = equal * (equal / margin).ln() + (1.0 - equal) * ((1.0 - equal) / (1.0 - margin)).ln();
        let [canary, stable] = self.rung;
        let m = ((canary.x + stable.x) / 10.0).max(1.0);
        (per_event > 0.0).then(|| (missing / per_event * count.dispersion.factor(m.min(50.0), equal)).ceil())
    }
}

impl Count {
    fn observe(&mut self, pair: Pair, policy: &Policy, share: f64, objective: Option<f64>, t: i64) {
        if t - self.restarted >= RESTART_EVERY {
            self.harm.restart();
            self.restarted = t;
        }
        let base = (self.base.x + 0.5) / (self.base.n + 1.0);
        let common = self.base.n > 0.0 && base > COMMON;
        // Predictable: from earlier ticks and this tick's requests, never from its bad ones.
        let known = if self.base.n > 0.0 { base } else { UNKNOWN };
        let expected = known * (pair.canary.n + pair.stable.n);
        let phi = self.dispersion.factor(expected, pair.canary_probability(1.0));
        let ratio = |r1: f64, r0: f64, log: f64| {
            let log_ratio = if common { unconditional(&pair, r1, r0, base) } else { conditional(&pair, r1, r0, log) };
            log_ratio / phi
        };

        let r0 = policy.harm_ratio;
        let mut harm = [0.0; 7];
        for ((increment, multiple), log) in harm.iter_mut().zip(HARM).zip(self.log_harm) {
            *increment = ratio(r0 * multiple, r0, log);
        }
        self.harm.multiply(&harm, self.dispersion.cap(TICK_CAP));

        let margin = policy.margin_at(share);
        let safe = SAFE.map(|r| ratio(r, margin, (r / margin).ln()));
        self.safe.multiply(&safe, f64::INFINITY);
        self.lean += safe[0];

        let ceiling = policy.ceiling_at(share, objective);
        let calm = self.dispersion.one_sample_factor(pair.canary.n * ceiling);
        let below = BELOW_CEILING.map(|part| one_sample(pair.canary, ceiling * part, ceiling) / calm);
        self.ceiling.multiply(&below, f64::INFINITY);

        if let Some(floor) = &mut self.floor {
            let above = ABOVE_FLOOR.map(|part| one_sample(pair.canary, (policy.floor * part).min(0.9), policy.floor));
            floor.multiply(&above, f64::INFINITY);
        }
        self.learn(pair.stable);
    }

    fn learn(&mut self, stable: Counts) {
        // Half an hour of memory at minute ticks: long enough to be steady, short enough to follow the day.
        const MEMORY: f64 = 1.0 - 1.0 / 30.0;
        self.base = Counts { n: self.base.n * MEMORY + stable.n, x: self.base.x * MEMORY + stable.x };
        self.dispersion.learn(stable);
    }
}
