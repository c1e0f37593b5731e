//! One number for many findings.
//!
//! Each rule weighs by its severity; what it loses is the share of exposure that fails. Passing twice, elsewhere or in
//! many places does not hide a failure: targets count by the traffic that touches them, and an open critical or high
//! finding caps the score.

use super::Severity;
use std::collections::BTreeMap;

/// What a rule says about a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The rule has nothing to judge here; it does not count.
    NotApplicable,
    /// It found nothing.
    Pass,
    /// What it needs is not known; it counts neither way, and widens the interval.
    Unknown,
    /// It found something, at worst this grave.
    Fail(Severity),
}

/// What one rule says about one target.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The rule's id.
    pub rule: String,
    /// The rule's severity: that of its gravest finding.
    pub severity: Severity,
    /// What was examined, by a name that is its own.
    pub target: String,
    /// What the rule says.
    pub state: State,
    /// The share of the traffic that touches the target, from 0.1 to 1; what is outside is taken to the nearest end.
    pub exposure: f64,
}

/// The score of a set, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// 0 to 100, over what could be told.
    pub points: u8,
    /// The score if everything that is not known would fail.
    pub least: u8,
    /// The score if everything that is not known would pass.
    pub most: u8,
    /// How much of the exposure could be told, in percent.
    pub coverage: u8,
    /// The points that each rule costs, the costliest first; together `100 - points`.
    pub losses: Vec<(String, u8)>,
}

/// A target that at least this share of the traffic touches is exposed highly.
const HIGH_EXPOSURE: f64 = 0.5;
const CAP_CRITICAL: f64 = 49.0;
const CAP_HIGH: f64 = 79.0;

fn weight(severity: Severity) -> f64 {
    match severity {
        Severity::Critical => 20.0,
        Severity::High => 8.0,
        Severity::Medium => 3.0,
        Severity::Low => 1.0,
        Severity::Info => 0.0,
    }
}

/// How much of a rule's weight a finding costs: all of it unless the finding is less grave than the rule.
fn gravity(rule: Severity, finding: Severity) -> f64 {
    match weight(rule) {
        0.0 => 0.0,
        full => (weight(finding) / full).min(1.0),
    }
}

/// Scores a set; the order does not matter, and of several outcomes of one rule for one target the worst counts, with the
/// most exposure that any of them gives the target. `None` when nothing was judged.
pub fn score(outcomes: &[Outcome]) -> Option<Score> {
    let mut worst: BTreeMap<(&str, &str), (State, Severity, f64)> = BTreeMap::new();
    for outcome in outcomes {
        let (state, severity, exposure) = (outcome.state, outcome.severity, exposure(outcome));
        let held = worst.entry((&outcome.rule, &outcome.target)).or_insert((state, severity, exposure));
        (held.0, held.1) = (held.0, held.1).max((state, severity));
        held.2 = held.2.max(exposure);
    }
    let mut rules: BTreeMap<&str, Sums> = BTreeMap::new();
    for ((rule, _), (state, severity, exposure)) in worst {
        rules.entry(rule).or_insert_with(|| Sums::new(severity)).add(state, exposure);
    }
    let sums: Vec<_> = rules.values().copied().collect();
    let exact = points(&sums, Doubt::LeftOut)?;
    let all: f64 = sums.iter().map(|sums| sums.judged + sums.unknown).sum();
    let judged: f64 = sums.iter().map(|sums| sums.judged).sum();
    let losses = rules.iter().map(|(rule, sums)| ((*rule).to_owned(), sums.weight * sums.fraction(Doubt::LeftOut)));
    Some(Score {
        points: whole(exact),
        least: whole(points(&sums, Doubt::Fails)?),
        most: whole(points(&sums, Doubt::Passes)?),
        coverage: (judged / all * 100.0).floor() as u8,
        losses: shared_out(100 - whole(exact), losses.collect()),
    })
}

fn exposure(outcome: &Outcome) -> f64 {
    // A NaN is no measurement: it counts fully, as a document does.
    if outcome.exposure.is_nan() { 1.0 } else { outcome.exposure.clamp(0.1, 1.0) }
}

/// The score of one document, whose exposure is 1.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Vec<Sums>);

impl Tally {
    pub(super) fn add(&mut self, severity: Severity, state: State) {
        let mut sums = Sums::new(severity);
        sums.add(state, 1.0);
        self.0.push(sums);
    }

    /// The least it may be, what it is over what could be told, the most it may be.
    pub(super) fn points(&self) -> (Option<u8>, Option<u8>, Option<u8>) {
        let of = |doubt| points(&self.0, doubt).map(whole);
        (of(Doubt::Fails), of(Doubt::LeftOut), of(Doubt::Passes))
    }
}

/// What becomes of what is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    LeftOut,
    Fails,
    Passes,
}

/// What one rule says about all targets.
#[derive(Debug, Clone, Copy)]
struct Sums {
    severity: Severity,
    weight: f64,
    /// Exposure of what passed or failed.
    judged: f64,
    /// Exposure of what failed, less where the finding is less grave than the rule.
    failed: f64,
    unknown: f64,
    critical: bool,
    exposed: bool,
    unknown_exposed: bool,
}

impl Sums {
    fn new(severity: Severity) -> Self {
        let (judged, failed, unknown) = (0.0, 0.0, 0.0);
        let weight = weight(severity);
        Self { severity, weight, judged, failed, unknown, critical: false, exposed: false, unknown_exposed: false }
    }

    fn add(&mut self, state: State, exposure: f64) {
        match state {
            State::NotApplicable => {}
            State::Pass => self.judged += exposure,
            State::Unknown => {
                self.unknown += exposure;
                self.unknown_exposed |= exposure >= HIGH_EXPOSURE;
            }
            State::Fail(severity) => {
                self.judged += exposure;
                self.failed += exposure * gravity(self.severity, severity);
                self.critical |= severity == Severity::Critical;
                self.exposed |= severity >= Severity::High && exposure >= HIGH_EXPOSURE;
            }
        }
    }

    fn total(&self, doubt: Doubt) -> f64 {
        if doubt == Doubt::LeftOut { self.judged } else { self.judged + self.unknown }
    }

    fn fraction(&self, doubt: Doubt) -> f64 {
        let failed = if doubt == Doubt::Fails { self.failed + self.unknown } else { self.failed };
        let total = self.total(doubt);
        if total > 0.0 { (failed / total).min(1.0) } else { 0.0 }
    }

    fn cap(&self, doubt: Doubt) -> f64 {
        let doubtful = doubt == Doubt::Fails && self.unknown > 0.0;
        if self.critical || doubtful && self.severity == Severity::Critical {
            CAP_CRITICAL
        } else if self.exposed || doubtful && self.unknown_exposed && self.severity >= Severity::High {
            CAP_HIGH
        } else {
            100.0
        }
    }
}

fn points(rules: &[Sums], doubt: Doubt) -> Option<f64> {
    let (mut all, mut lost, mut cap, mut any) = (0.0, 0.0, 100.0_f64, false);
    for rule in rules.iter().filter(|rule| rule.total(doubt) > 0.0) {
        any = true;
        all += rule.weight;
        lost += rule.weight * rule.fraction(doubt);
        cap = cap.min(rule.cap(doubt));
    }
    let free = if all > 0.0 { 100.0 * (1.0 - lost / all) } else { 100.0 };
    any.then(|| free.min(cap).max(0.0))
}

/// Down to a whole number: a finding that costs anything is seen. The small sum is for rounding in the arithmetic.
fn whole(points: f64) -> u8 {
    (points + 1e-9).floor() as u8
}

/// Shares out whole points in proportion, the largest remainders first.
fn shared_out(points: u8, losses: Vec<(String, f64)>) -> Vec<(String, u8)> {
    let all: f64 = losses.iter().map(|(_, loss)| loss).sum();
    if all <= 0.0 {
        return Vec::new();
    }
    let mut shares: Vec<_> = losses
        .into_iter()
        .filter(|(_, loss)| *loss > 0.0)
        .map(|(rule, loss)| {
            let exact = f64::from(points) * loss / all;
            (rule, exact.floor() as u8, exact.fract())
        })
        .collect();
    let mut left = points.saturating_sub(shares.iter().map(|(_, whole, _)| whole).sum());
    shares.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    while left > 0 {
        for share in &mut shares {
            let one = left.min(1);
            share.1 += one;
            left -= one;
        }
    }
    shares.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    shares.into_iter().map(|(rule, whole, _)| (rule, whole)).collect()
}

#[cfg(test)]
mod tests;
