//! The judge: ticks in, verdicts out, bit for bit the same on every replay.

use super::likelihood::Pair;
use super::policy::{Policy, PolicyError, Seconds};
use super::projection::{Load, Projection};
use super::sample_ratio::SampleRatio;
use super::signal::{Signal, SignalVerdict};
use super::tick::{Arms, Counts, Replicas, Tick};
use crate::words::odds;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What should happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// One rung up.
    Promote,
    /// Stay.
    Hold,
    /// Back to stable, at once.
    Rollback,
    /// A person decides.
    Ask,
}

/// The judge's answer after a tick.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What should happen.
    pub call: Call,
    /// The share the canary should have next, in percent.
    pub share: f64,
    /// Why.
    pub reason: Reason,
}

/// Why a verdict is what it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// The canary has no traffic yet.
    NotStarted,
    /// Every signal is safe and the dwell is over.
    Safe,
    /// Between two rungs, on the way to one that was cleared.
    OnTheWay,
    /// At 100 %.
    Finished,
    /// A signal shows harm: its name, `ln E` and the bound it passed.
    Harm(String, f64, f64),
    /// A business metric is below its margin.
    BelowMargin(String, f64, f64),
    /// The canary gets more (or less) than its weight.
    SampleRatio(&'static str),
    /// No data in both arms for so many ticks.
    Blind(u32),
    /// Less time on the rung than the dwell; this much remains.
    Dwell(Seconds),
    /// A signal is undecided; about so many more bad requests would settle it if all is well.
    Undecided(String, Option<f64>),
    /// Safe so far, but harm is not yet unlikely enough to raise the exposure.
    Uneasy(String, f64),
    /// The next weight would load replicas beyond what was seen; so many canary replicas would do.
    LoadUnseen(f64),
    /// The next weight's projected rate of bad requests of this signal is above its ceiling.
    LoadTooHigh(String, f64, f64),
    /// The deadline passed without an end.
    Deadline(Seconds, String),
}

/// What kind of [`Reason`], for those who act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each is the kind of the reason of that name")]
pub enum Cause {
    NotStarted,
    Safe,
    OnTheWay,
    Finished,
    Harm,
    BelowMargin,
    SampleRatio,
    Blind,
    Dwell,
    Undecided,
    Uneasy,
    LoadUnseen,
    LoadTooHigh,
    Deadline,
}

impl Reason {
    /// What kind of reason it is.
    pub fn cause(&self) -> Cause {
        match self {
            Self::NotStarted => Cause::NotStarted,
            Self::Safe => Cause::Safe,
            Self::OnTheWay => Cause::OnTheWay,
            Self::Finished => Cause::Finished,
            Self::Harm(..) => Cause::Harm,
            Self::BelowMargin(..) => Cause::BelowMargin,
            Self::SampleRatio(_) => Cause::SampleRatio,
            Self::Blind(_) => Cause::Blind,
            Self::Dwell(_) => Cause::Dwell,
            Self::Undecided(..) => Cause::Undecided,
            Self::Uneasy(..) => Cause::Uneasy,
            Self::LoadUnseen(_) => Cause::LoadUnseen,
            Self::LoadTooHigh(..) => Cause::LoadTooHigh,
            Self::Deadline(..) => Cause::Deadline,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("the canary has no traffic yet"),
            Self::Safe => f.write_str("every signal is safe at this rung"),
            Self::OnTheWay => f.write_str("on the way to a rung that was cleared"),
            Self::Finished => f.write_str("at 100 %: finished"),
            Self::Harm(signal, log, bound) => {
                write!(f, "harm in {signal}: odds of {}, where {} are enough", odds(*log), odds(*bound))
            }
            Self::BelowMargin(signal, log, bound) => {
                write!(f, "{signal} is below its margin: odds of {}, where {} are enough", odds(*log), odds(*bound))
            }
            Self::SampleRatio(direction) => {
                write!(f, "the canary gets clearly {direction} requests than its weight says")
            }
            Self::Blind(ticks) => write!(f, "blind: no data of both arms for {ticks} ticks"),
            Self::Dwell(left) => write!(f, "dwell: {left} left on this rung"),
            Self::Undecided(signal, Some(events)) => {
                write!(f, "{signal} undecided: about {events:.0} more bad requests in both arms needed if all is well")
            }
            Self::Undecided(signal, None) => write!(f, "{signal} undecided: more data needed"),
            Self::Uneasy(signal, log) => {
                write!(f, "{signal} is safe so far, but the odds of harm stand at {}", odds(*log))
            }
            Self::LoadUnseen(replicas) => write!(
                f,
                "the next weight loads each replica more than half again beyond what was seen: {replicas:.0} canary replicas needed"
            ),
            Self::LoadTooHigh(signal, rate, ceiling) => write!(
                f,
                "at the next weight's load {signal} may reach {:.2} % of requests, above {:.2} %",
                rate * 100.0,
                ceiling * 100.0
            ),
            Self::Deadline(after, signal) => write!(f, "no end after {after}: {signal} still undecided"),
        }
    }
}

/// Why a tick cannot be judged; the judge's state is unchanged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TickError {
    /// Time must rise.
    #[error("the clock went backwards: tick at {t} after {last}")]
    Backwards {
        /// This tick.
        t: i64,
        /// The one before.
        last: i64,
    },
    /// Times are added and subtracted, and mean nothing far outside of any calendar.
    #[error("{0} is no time in seconds")]
    Time(i64),
    /// Replicas that cannot be.
    #[error("replicas: {canary} of the canary and {stable} of stable cannot be")]
    Replicas {
        /// The canary's.
        canary: f64,
        /// The stable arm's.
        stable: f64,
    },
    /// Too many signals.
    #[error("more than {MOST_SIGNALS} different signals: name each signal the same in every tick")]
    Signals,
    /// A share outside 0 to 100.
    #[error("share {0} is not between 0 and 100 percent")]
    Share(f64),
    /// Counts that cannot be.
    #[error("{signal} {arm}: [{n}, {x}] {problem}")]
    Counts {
        /// The signal.
        signal: String,
        /// `canary` or `stable`.
        arm: &'static str,
        /// Requests given.
        n: f64,
        /// Bad ones given.
        x: f64,
        /// What cannot be.
        problem: &'static str,
    },
}

/// One signal's standing, to show.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing<'a> {
    /// The signal.
    pub name: &'a str,
    /// `ln E` for harm.
    pub harm: f64,
    /// The bound `ln 1/α` that harm must pass.
    pub harm_bound: f64,
    /// `ln E` for safety on this rung.
    pub safe: f64,
    /// What both say.
    pub verdict: SignalVerdict,
    /// Canary and stable counts on this rung.
    pub rung: [Counts; 2],
    /// Measured burstiness of the stable arm.
    pub burstiness: f64,
    /// Whether it is a business metric.
    pub score: bool,
}

/// Judges one canary.
#[derive(Debug, Clone)]
pub struct Judge {
    policy: Policy,
    signals: Vec<Signal>,
    ratio: SampleRatio,
    loads: Vec<Load>,
    replicas: Option<Replicas>,
    begun: Option<i64>,
    last: Option<i64>,
    /// The rung in force and since when.
    rung: Option<(f64, i64)>,
    /// The rung that evidence cleared and that the share has not reached yet, and the share at which it did.
    cleared: Option<(f64, f64)>,
    gaps: u32,
    late_signals: u32,
    finished: Option<Verdict>,
}

/// Seconds since 1970 beyond which a time is a mistake, on either side.
const LATEST: i64 = 1_000_000_000_000_000;
/// Counts beyond this are a mistake, and their sums would lose single requests.
const LARGEST: f64 = 1e15;
/// Signals of one canary; more are a mistake, and would each have next to no α.
const MOST_SIGNALS: usize = 64;
/// `ln E` of harm above which the exposure is not raised.
const UNEASY: f64 = 1.5;
/// Time the mesh may take to follow a weight in Git, in seconds.
const SYNC: i64 = 300;
/// The part of α kept for signals that turn up after the first tick.
const LATE_PART: f64 = 0.05;

impl Judge {
    /// A judge that has seen nothing.
    pub fn new(policy: Policy) -> Result<Self, Vec<PolicyError>> {
        let problems = policy.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            policy,
            signals: Vec::new(),
            ratio: SampleRatio::new(),
            loads: Vec::new(),
            replicas: None,
            begun: None,
            last: None,
            rung: None,
            cleared: None,
            gaps: 0,
            late_signals: 0,
            finished: None,
        })
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes one tick and answers. Ticks of one run come in order of time.
    pub fn observe(&mut self, tick: &Tick) -> Result<Verdict, TickError> {
        self.check(tick)?;
        if let Some(verdict) = &self.finished {
            return Ok(verdict.clone());
        }
        let previous = self.last.replace(tick.t);
        let begun = *self.begun.get_or_insert(tick.t);
        self.meet_signals(tick);
        match self.rung {
            Some((share, _)) if (share - tick.share).abs() < 1e-9 => {}
            _ => self.new_rung(tick.share, previous.unwrap_or(tick.t)),
        }
        let since = self.rung.map_or(tick.t, |(_, since)| since);
        let warm = tick.t - since > self.policy.warmup.0;
        self.learn(tick, warm);
        let verdict = self.decide(tick, begun, since);
        if verdict.reason == Reason::Safe {
            self.cleared = Some((verdict.share, tick.share));
        }
        if verdict.call == Call::Rollback || verdict.reason == Reason::Finished {
            self.finished = Some(verdict.clone());
        }
        Ok(verdict)
    }

    /// How each signal stands, in the order they were first seen.
    pub fn standings(&self) -> impl Iterator<Item = Standing<'_>> {
        self.signals.iter().map(|signal| Standing {
            name: &signal.name,
            harm: signal.harm(),
            harm_bound: signal.harm_bound,
            safe: signal.safe(),
            verdict: signal.verdict(&self.policy),
            rung: signal.seen_on_rung(),
            burstiness: signal.burstiness(),
            score: signal.is_score(),
        })
    }

    fn check(&self, tick: &Tick) -> Result<(), TickError> {
        if !(-LATEST..=LATEST).contains(&tick.t) {
            return Err(TickError::Time(tick.t));
        }
        if let Some(last) = self.last
            && tick.t <= last
        {
            return Err(TickError::Backwards { t: tick.t, last });
        }
        if !(0.0..=100.0).contains(&tick.share) {
            return Err(TickError::Share(tick.share));
        }
        let possible = |count: f64| (0.0..=LARGEST).contains(&count);
        if let Some(Replicas { canary, stable }) =
            tick.replicas.filter(|all| !possible(all.canary) || !possible(all.stable))
        {
            return Err(TickError::Replicas { canary, stable });
        }
        let unknown = tick.signals.keys().filter(|name| !self.signals.iter().any(|signal| signal.name == **name));
        if self.signals.len() + unknown.count() > MOST_SIGNALS {
            return Err(TickError::Signals);
        }
        for (signal, arms) in &tick.signals {
            for (arm, counts) in [("canary", arms.canary), ("stable", arms.stable)] {
                let Some(Counts { n, x }) = counts else { continue };
                let problem = if !n.is_finite() || !x.is_finite() {
                    "is not a number"
                } else if n < 0.0 || x < 0.0 {
                    "is negative"
                } else if x > n {
                    "has more bad requests than requests"
                } else if n > LARGEST {
                    "is more than anybody counts"
                } else {
                    continue;
                };
                return Err(TickError::Counts { signal: signal.clone(), arm, n, x, problem });
            }
        }
        Ok(())
    }

    /// α is split evenly over the declared signals, or else over those of the first tick that has any. A signal that
    /// turns up later gets its part of a small reserve, so the promise over all of them stands.
    fn meet_signals(&mut self, tick: &Tick) {
        if self.signals.is_empty() {
            let declared: Vec<&String> = self.policy.signals.keys().collect();
            let names = if declared.is_empty() { tick.signals.keys().collect() } else { declared };
            let each = self.policy.alpha * (1.0 - LATE_PART) / (names.len().max(1) as f64);
            self.signals =
                names.iter().map(|name| Signal::new(name, &self.policy, (1.0 / each).ln(), tick.t)).collect();
            self.loads = vec![Load::default(); self.signals.len()];
        }
        for name in tick.signals.keys() {
            if !self.signals.iter().any(|signal| signal.name == *name) {
                self.late_signals += 1;
                let alpha = self.policy.alpha * LATE_PART * 0.5_f64.powi(self.late_signals.min(30) as i32);
                self.signals.push(Signal::new(name, &self.policy, (1.0 / alpha).ln(), tick.t));
                self.loads.push(Load::default());
            }
        }
    }

    fn new_rung(&mut self, share: f64, since: i64) {
        if self.rung.is_some() {
            for signal in &mut self.signals {
                signal.new_rung(since);
            }
        }
        let before = self.rung.map_or(share, |(before, _)| before);
        // A large rung is climbed in several writes; what lies between is no rung of its own.
        self.cleared = self.cleared.filter(|(target, _)| before < share && share < *target - 1e-9);
        self.ratio = SampleRatio::new();
        self.rung = Some((share, since));
    }

    fn learn(&mut self, tick: &Tick, warm: bool) {
        self.replicas = tick.replicas.or(self.replicas);
        let mut widest: Option<Pair> = None;
        let mut seen = false;
        for (signal, load) in self.signals.iter_mut().zip(&mut self.loads) {
            let Some(Arms { canary, stable }) = tick.signals.get(&signal.name).copied() else { continue };
            // An arm that was measured and served nothing teaches nothing; it is quiet, not missing.
            seen |= canary.is_some() && stable.is_some();
            let served = |arm: Option<Counts>| arm.filter(|counts| counts.n > 0.0);
            match (served(canary), served(stable)) {
                (Some(canary), Some(stable)) => {
                    let pair = Pair { canary, stable };
                    if widest.is_none_or(|w| w.canary.n + w.stable.n < canary.n + stable.n) && !signal.is_score() {
                        widest = Some(pair);
                    }
                    if warm || !signal.needs_warmth() {
                        signal.observe(pair, &self.policy, tick.share, tick.t);
                    }
                    if let Some(replicas) = tick.replicas {
                        load.learn([canary, stable], replicas);
                    }
                }
                (None, Some(stable)) => signal.observe_stable(stable),
                _ => {}
            }
        }
        self.gaps = if seen { 0 } else { self.gaps + 1 };
        // The mesh follows Git with some delay.
        if let Some(pair) = widest
            && self.rung.is_some_and(|(_, since)| tick.t - since > SYNC)
        {
            self.ratio.observe(&pair, tick.share);
        }
    }

    fn decide(&self, tick: &Tick, begun: i64, since: i64) -> Verdict {
        let stay = |call, reason| Verdict { call, share: tick.share, reason };
        if tick.share >= 100.0 - 1e-9 {
            return stay(Call::Promote, Reason::Finished);
        }
        let policy = &self.policy;
        if tick.share <= 0.0 && !tick.signals.values().any(|arms| arms.stable.is_some()) {
            return stay(Call::Hold, Reason::Blind(self.gaps));
        }
        if tick.share <= 0.0 {
            return Verdict { call: Call::Promote, share: policy.next_rung(0.0), reason: Reason::NotStarted };
        }
        let harmed = |score| {
            self.signals
                .iter()
                .find(|signal| signal.is_score() == score && signal.verdict(policy) == SignalVerdict::Harm)
        };
        if let Some(signal) = harmed(false) {
            let reason = Reason::Harm(signal.name.clone(), signal.harm(), signal.harm_bound);
            return Verdict { call: Call::Rollback, share: 0.0, reason };
        }
        if let Some(signal) = harmed(true) {
            return stay(Call::Ask, Reason::BelowMargin(signal.name.clone(), signal.harm(), signal.harm_bound));
        }
        if let Some(direction) = self.ratio.tripped() {
            return stay(Call::Ask, Reason::SampleRatio(direction));
        }
        // Evidence that passed its bound once has done so for good; what changes from minute to minute takes the
        // permission back while it lasts: a gap, unease, too few replicas.
        let cleared = self.cleared.filter(|(target, _)| tick.share < *target - 1e-9);
        let blocked = match cleared {
            Some((target, _)) => self.held_back(target),
            None => self.blocked(tick, since),
        };
        match blocked {
            None => {
                let (target, at) = cleared.unwrap_or((policy.next_rung(tick.share), tick.share));
                let here = (at - tick.share).abs() < 1e-9;
                let reason = if here { Reason::Safe } else { Reason::OnTheWay };
                Verdict { call: Call::Promote, share: target, reason }
            }
            // Only a question that evidence left open is one for a person; blindness and load name their own remedy.
            Some(Reason::Undecided(signal, _) | Reason::Uneasy(signal, _)) if tick.t - begun >= policy.deadline.0 => {
                stay(Call::Ask, Reason::Deadline(policy.deadline, signal))
            }
            Some(reason) => stay(Call::Hold, reason),
        }
    }

    /// What holds back a canary that evidence has cleared for `target`.
    fn held_back(&self, target: f64) -> Option<Reason> {
        if self.gaps > 0 {
            return Some(Reason::Blind(self.gaps));
        }
        if let Some(signal) = self.uneasy() {
            return Some(Reason::Uneasy(signal.name.clone(), signal.harm()));
        }
        self.overloaded(target)
    }

    /// What keeps the canary on its rung; `None` when nothing does.
    fn blocked(&self, tick: &Tick, since: i64) -> Option<Reason> {
        let policy = &self.policy;
        if self.gaps >= policy.blind_after {
            return Some(Reason::Blind(self.gaps));
        }
        let left = policy.dwell_at(tick.share).0 - (tick.t - since);
        if left > 0 {
            return Some(Reason::Dwell(Seconds(left)));
        }
        if self.signals.is_empty() || self.gaps > 0 {
            return Some(Reason::Blind(self.gaps));
        }
        for signal in &self.signals {
            if signal.verdict(policy) != SignalVerdict::Safe {
                let needed = signal.events_needed(policy, tick.share);
                return Some(Reason::Undecided(signal.name.clone(), needed));
            }
        }
        if let Some(signal) = self.uneasy() {
            return Some(Reason::Uneasy(signal.name.clone(), signal.harm()));
        }
        self.overloaded(policy.next_rung(tick.share))
    }

    fn uneasy(&self) -> Option<&Signal> {
        self.signals.iter().find(|signal| !signal.is_score() && signal.harm() > UNEASY)
    }

    fn overloaded(&self, next: f64) -> Option<Reason> {
        let replicas = self.replicas?.canary;
        for (signal, load) in self.signals.iter().zip(&self.loads) {
            if signal.is_score() {
                continue;
            }
            let objective = self.policy.signals.get(&signal.name).and_then(|declared| declared.ceiling);
            match load.project(next, replicas) {
                Projection::Beyond(needed) => return Some(Reason::LoadUnseen(needed)),
                Projection::Bounded(rate) => {
                    // Only load that makes it worse counts here: a rate that is high anyway is the ratio's business.
                    let Some(objective) = objective else { continue };
                    if rate > self.policy.ceiling_at(next, Some(objective)) && rate > 2.0 * self.rate(signal) {
                        let ceiling = self.policy.ceiling_at(next, Some(objective));
                        return Some(Reason::LoadTooHigh(signal.name.clone(), rate, ceiling));
                    }
                }
            }
        }
        None
    }

    fn rate(&self, signal: &Signal) -> f64 {
        let [canary, stable] = signal.seen_on_rung();
        (canary.x + stable.x) / (canary.n + stable.n).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const QUIET: Counts = Counts { n: 0.0, x: 0.0 };

    /// A minute of 3000 requests at `share` percent, of which this many in a thousand are bad, canary and stable.
    fn arms(share: f64, bad: [f64; 2]) -> Arms {
        let counts = |n: f64, bad: f64| Some(Counts { n, x: (n * bad / 1000.0).round() });
        Arms { canary: counts(30.0 * share, bad[0]), stable: counts(3000.0 - 30.0 * share, bad[1]) }
    }

    fn tick(minute: i64, share: f64, errors: Arms) -> Tick {
        Tick { t: minute * 60, share, signals: BTreeMap::from([("errors".to_owned(), errors)]), replicas: None }
    }

    fn fine(minute: i64, share: f64) -> Tick {
        tick(minute, share, arms(share, [5.0, 5.0]))
    }

    fn judge() -> Judge {
        Judge::new(Policy::default()).unwrap()
    }

    /// A judge that has just cleared the rung above `share`, and the minute it did.
    fn cleared(share: f64, mut fine: impl FnMut(i64, f64) -> Tick) -> (Judge, i64) {
        let mut judge = judge();
        for minute in 1..60 {
            let verdict = judge.observe(&fine(minute, share)).unwrap();
            if verdict.call == Call::Promote {
                assert_eq!(verdict.reason, Reason::Safe);
                return (judge, minute);
            }
        }
        panic!("never cleared");
    }

    #[test]
    fn a_gap_on_the_way_is_a_gap_and_no_dwell() {
        let (mut judge, minute) = cleared(25.0, fine);
        let on_the_way = judge.observe(&fine(minute + 1, 35.0)).unwrap();
        assert_eq!((on_the_way.call, on_the_way.reason), (Call::Promote, Reason::OnTheWay));
        let gap = judge.observe(&tick(minute + 2, 35.0, Arms::default())).unwrap();
        assert_eq!((gap.call, gap.reason), (Call::Hold, Reason::Blind(1)));
        let seen = judge.observe(&fine(minute + 3, 35.0)).unwrap();
        assert_eq!((seen.call, seen.share), (Call::Promote, 50.0));
    }

    #[test]
    fn replicas_that_go_away_hold_a_rung_that_was_cleared() {
        let with = |canary: f64| {
            move |minute, share| Tick { replicas: Some(Replicas { canary, stable: 4.0 }), ..fine(minute, share) }
        };
        let (mut judge, minute) = cleared(25.0, with(4.0));
        let fewer = judge.observe(&with(1.0)(minute + 1, 25.0)).unwrap();
        assert_eq!((fewer.call, fewer.reason), (Call::Hold, Reason::LoadUnseen(2.0)));
        let back = judge.observe(&with(4.0)(minute + 2, 25.0)).unwrap();
        assert_eq!((back.call, back.share), (Call::Promote, 50.0));
    }

    #[test]
    fn unease_takes_a_cleared_rung_back_and_says_so() {
        let (mut judge, mut minute) = cleared(50.0, fine);
        loop {
            minute += 1;
            let verdict = judge.observe(&tick(minute, 50.0, arms(50.0, [10.0, 5.0]))).unwrap();
            match verdict.reason {
                Reason::Safe => assert!(minute < 60, "nobody minds"),
                Reason::Uneasy(signal, _) => {
                    return assert_eq!((verdict.call, signal.as_str()), (Call::Hold, "errors"));
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn the_deadline_asks_about_what_is_undecided_and_not_about_what_nobody_sees() {
        let policy = Policy { deadline: Seconds(3600), ..Policy::default() };
        let last = |errors: fn(i64) -> Arms| {
            let mut judge = Judge::new(policy.clone()).unwrap();
            (1..=90).map(|minute| judge.observe(&tick(minute, 5.0, errors(minute))).unwrap()).last().unwrap()
        };
        let undecided =
            last(|_| Arms { canary: Some(Counts { n: 0.2, x: 0.0 }), stable: Some(Counts { n: 38.0, x: 0.0 }) });
        assert_eq!(undecided.call, Call::Ask);
        assert!(matches!(undecided.reason, Reason::Deadline(..)), "{}", undecided.reason);
        let blind = last(|_| Arms { canary: None, stable: Some(Counts { n: 38.0, x: 0.0 }) });
        assert_eq!((blind.call, blind.reason), (Call::Hold, Reason::Blind(90)));
    }

    #[test]
    fn alpha_is_never_spent_twice_however_many_signals_turn_up_late() {
        let mut judge = judge();
        let named = |minute, names: &[String]| Tick {
            signals: names.iter().map(|name| (name.clone(), arms(5.0, [5.0, 5.0]))).collect(),
            ..fine(minute, 5.0)
        };
        let names: Vec<String> = (0..20).map(|index| format!("signal-{index:02}")).collect();
        judge.observe(&named(1, &names[..3])).unwrap();
        for late in 3..20 {
            judge.observe(&named(late as i64, &names[..=late])).unwrap();
        }
        let spent: f64 = judge.standings().map(|standing| (-standing.harm_bound).exp()).sum();
        assert_eq!(judge.standings().count(), 20);
        assert!(spent <= judge.policy().alpha + 1e-12, "{spent}");
        // A late signal has to show more, not less.
        let bounds: Vec<f64> = judge.standings().map(|standing| standing.harm_bound).collect();
        assert!(bounds.windows(2).all(|pair| pair[1] >= pair[0] - 1e-9), "{bounds:?}");
    }

    #[test]
    fn the_dwell_begins_where_the_tick_before_ended() {
        let mut judge = judge();
        for minute in 1..=20 {
            judge.observe(&fine(minute, 5.0)).unwrap();
        }
        let dwells = (21..=40).map(|minute| judge.observe(&fine(minute, 10.0)).unwrap().reason);
        let waiting = dwells.take_while(|reason| matches!(reason, Reason::Dwell(_))).count();
        assert_eq!(waiting, 14, "the 15th minute at 10 % is over at the 15th tick");
    }

    #[test]
    fn a_new_rung_forgets_safety_and_keeps_harm() {
        let mut judge = judge();
        for minute in 1..=10 {
            judge.observe(&tick(minute, 5.0, arms(5.0, [12.0, 5.0]))).unwrap();
        }
        let standing = |judge: &Judge| judge.standings().map(|s| (s.harm, s.safe, s.rung[0].n)).next().unwrap();
        let before = standing(&judge);
        assert!(before.0 > 0.5, "{before:?}");
        judge.observe(&tick(11, 10.0, Arms { canary: Some(QUIET), stable: Some(QUIET) })).unwrap();
        let after = standing(&judge);
        assert_eq!((after.1, after.2), (0.0, 0.0));
        assert!((after.0 - before.0).abs() < 0.1, "{before:?} {after:?}");
    }

    #[test]
    fn a_lower_share_has_to_show_safety_again() {
        let (mut judge, minute) = cleared(25.0, fine);
        let verdict = judge.observe(&fine(minute + 1, 10.0)).unwrap();
        assert!(matches!(verdict.reason, Reason::Dwell(_)), "{}", verdict.reason);
    }

    #[test]
    fn a_tick_that_cannot_be_changes_nothing() {
        let mut judge = judge();
        judge.observe(&fine(1, 5.0)).unwrap();
        let before = format!("{judge:?}");
        let counts = |n, x| Arms { canary: Some(Counts { n, x }), stable: Some(Counts { n: 10.0, x: 0.0 }) };
        let broken = [
            (fine(1, 5.0), "the clock went backwards: tick at 60 after 60"),
            (fine(2, 101.0), "share 101 is not between 0 and 100 percent"),
            (tick(2, 5.0, counts(1.0, 2.0)), "errors canary: [1, 2] has more bad requests than requests"),
            (tick(2, 5.0, counts(-1.0, 0.0)), "errors canary: [-1, 0] is negative"),
            (tick(2, 5.0, counts(f64::NAN, 0.0)), "errors canary: [NaN, 0] is not a number"),
        ];
        for (tick, message) in broken {
            assert_eq!(judge.observe(&tick).unwrap_err().to_string(), message);
            assert_eq!(format!("{judge:?}"), before);
        }
    }

    #[test]
    fn a_share_that_the_mesh_is_slow_to_follow_trips_nothing() {
        let mut judge = judge();
        for minute in 1..=30 {
            // For five minutes the mesh still does what the weight before said.
            let (share, served) = if minute <= 10 { (5.0, 5.0) } else { (25.0, if minute <= 15 { 5.0 } else { 25.0 }) };
            let verdict = judge.observe(&tick(minute, share, arms(served, [5.0, 5.0]))).unwrap();
            assert!(!matches!(verdict.reason, Reason::SampleRatio(_)), "minute {minute}");
        }
    }

    #[test]
    fn refuses_a_new_signal_each_tick() {
        let mut judge = Judge::new(Policy::default()).unwrap();
        let named = |minute: i64| {
            let mut tick = fine(minute, 5.0);
            tick.signals = BTreeMap::from([(format!("signal-{minute}"), Arms::default())]);
            tick
        };
        let refused = (1..=100).filter(|minute| judge.observe(&named(*minute)) == Err(TickError::Signals)).count();
        assert_eq!(refused, 100 - MOST_SIGNALS);
    }
}
