//! How far one change, and a window of changes, may go.
//!
//! [`judge`] answers for one change: it asks every guard, the strictest answer wins and each cause says which guard,
//! which limit, with which numbers, and what helps. The webhook calls it at admission and the bot before it proposes.

mod approval;
mod caps;
mod contradictions;
mod freeze;
mod history;
mod ledger;
mod matches;
mod period;
mod spec;
mod subject;
pub(crate) mod time;

pub use approval::Approval;
pub use contradictions::contradictions;
pub use freeze::{Cron, Freeze, Ongoing, Zone};
pub use history::{History, Moved, Record};
pub use ledger::{Cover, Entry, Event, Held, Known, Ledger, Mark, Noted, Reserved, Sight, Terms, covered_splits};
pub use matches::glob;
pub use period::Period;
pub use spec::{Approvals, Automation, Caps, Enforcement, Health, Match, Metadata, PerWindow, ShiftGuard, Spec};

use crate::field::FieldPath;
use crate::policy::Identity;
use crate::split::{Change, ServiceKey, Split};
use jiff::{SignedDuration, Timestamp};
use matches::Traffic;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use subject::{Forward, Subject};

/// Differences below this are rounding, not traffic.
pub(crate) const NOISE: f64 = 1e-9;

/// Judges a change: may it happen now?
///
/// The subject of a cap is a destination over all routes that split it; its shift is the largest over the rules of the
/// change. Rules that move back towards their stable split are never capped, frozen or delayed. `history` holds the
/// shifts of the subjects in the order of time; where it is ahead of `now`, it is right.
pub fn judge(
    guards: &[ShiftGuard],
    request: &Request,
    history: &History,
    approvals: &[Approval],
    now: Timestamp,
) -> Verdict {
    Concern::of(guards, request).judge(history, approvals, now)
}

/// The destinations whose traffic a request moves, and the guards of each.
#[derive(Debug)]
pub struct Concern<'a> {
    request: &'a Request,
    subjects: Vec<(Subject<'a>, Vec<&'a ShiftGuard>)>,
}

impl<'a> Concern<'a> {
    /// What a request concerns.
    pub fn of(guards: &'a [ShiftGuard], request: &'a Request) -> Self {
        let guarded = |subject: Subject<'a>| {
            let traffic = subject.traffic(&request.identity);
            let guards = guards.iter().filter(|guard| guard.spec.r#match.fits(&traffic)).collect();
            (subject, guards)
        };
        Self { request, subjects: Subject::all(&request.change.rules).into_iter().map(guarded).collect() }
    }

    /// The destinations that guards cover, in a stable order.
    pub fn covers(&self) -> Vec<Cover> {
        let cover = |(subject, guards): &(Subject, Vec<&ShiftGuard>)| {
            Cover::by(guards.iter().copied(), subject.mesh, subject.destination)
        };
        self.subjects.iter().filter_map(cover).collect()
    }

    /// [`judge`].
    pub fn judge(&self, history: &History, approvals: &[Approval], now: Timestamp) -> Verdict {
        // Clocks of replicas differ; time that was recorded has passed.
        let now = history.now(now);
        let Request { identity, author, .. } = self.request;
        let mut verdict = Verdict::default();
        for (subject, guards) in &self.subjects {
            let mut record = subject.record(identity, now);
            record.automated = *author == Author::Bot;
            // Guards mostly share one `settle`: what moves forward is found once for each.
            let mut lanes: Vec<(SignedDuration, Vec<Forward>)> = Vec::new();
            for guard in guards {
                let automated = guard.is_automated(author);
                record.automated |= automated;
                let settle = guard.spec.settle();
                let lane = lanes.iter().position(|(known, _)| *known == settle).unwrap_or_else(|| {
                    lanes.push((settle, subject.forward(identity, history, settle, now)));
                    lanes.len() - 1
                });
                let forward = &lanes[lane].1;
                if forward.is_empty() {
                    continue;
                }
                let breaches = caps::breaches(guard, subject, forward, self.request, history, now);
                let bound = automated || guard.spec.automation.human_needs_approval;
                let cause = |breach: caps::Breach| breach.cause(guard, self.request, approvals, bound, now);
                verdict.causes.extend(breaches.into_iter().map(cause));
            }
            if lanes.is_empty() {
                let settle = Spec::default().settle();
                lanes.push((settle, subject.forward(identity, history, settle, now)));
            }
            record.count(lanes.iter().flat_map(|(_, forward)| forward));
            verdict.records.push(record);
        }
        let outcome = |cause: &Cause| match cause.effect {
            Effect::Denied => Outcome::Denied,
            Effect::Warned => Outcome::Warned,
            Effect::Audited | Effect::Approved | Effect::Personal => Outcome::Allowed,
        };
        verdict.outcome = verdict.causes.iter().map(outcome).max().unwrap_or_default();
        verdict
    }
}

/// The largest shift that one change of this split may make without approval; `None` when nothing limits it.
///
/// Guards that only warn count too: who plans a change keeps clear of them.
pub fn max_step(guards: &[ShiftGuard], identity: &Identity, split: &Split) -> Option<f64> {
    let traffic = Traffic::of_split(identity, split);
    let under = guards.iter().filter(|guard| guard.spec.enforcement != Enforcement::Audit);
    let under = under.filter(|guard| guard.spec.r#match.fits(&traffic));
    let limits = under.flat_map(|guard| {
        let caps = &guard.spec.caps;
        [caps.max_step, caps.per_window.as_ref().map(|cap| cap.shift)]
    });
    limits.flatten().reduce(f64::min)
}

/// When the change will pass by waiting alone, without approval; `None` when waiting does not help.
pub fn next_allowed(guards: &[ShiftGuard], request: &Request, history: &History, now: Timestamp) -> Option<Timestamp> {
    let mut at = now;
    for _ in 0..MOST_WAITS {
        let verdict = judge(guards, request, history, &[], at);
        let denied: Vec<_> = verdict.causes.iter().filter(|cause| cause.effect == Effect::Denied).collect();
        if denied.is_empty() {
            return Some(at);
        }
        let passes = denied.into_iter().map(|cause| cause.until).collect::<Option<Vec<_>>>()?;
        at = passes.into_iter().max().filter(|later| *later > at)?;
    }
    None
}

/// One wait may end in the next: a window in a freeze, a freeze in another. Longer chains are taken for endless.
const MOST_WAITS: usize = 100;

/// A change of one policy, and who makes it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which policy.
    pub identity: Identity,
    /// Who makes the change.
    pub author: Author,
    /// What changes.
    pub change: Arc<Change>,
}

/// Who makes a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// An account of the cluster; each guard says which accounts are automation.
    Account {
        /// The user name.
        name: String,
        /// The user's groups.
        groups: Vec<String>,
    },
    /// Sluice itself, planning: automated in the eyes of every guard.
    Bot,
}

/// The answer of [`judge`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// The strictest of all answers.
    pub outcome: Outcome,
    /// Every limit that the change touches, also those that were lifted.
    pub causes: Vec<Cause>,
    /// What history keeps of the change, one record per subject, in the order of mesh and destination.
    pub records: Vec<Record>,
    /// What else whoever makes the change should know.
    pub notes: Vec<String>,
}

/// What happens to the change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// It passes.
    #[default]
    Allowed,
    /// It passes with a warning.
    Warned,
    /// It does not pass.
    Denied,
}

/// One limit that the change touches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// The guard's name.
    pub guard: String,
    /// Which limit.
    pub code: Code,
    /// What follows from it.
    pub effect: Effect,
    /// The destination whose traffic moves.
    pub subject: ServiceKey,
    /// Where in the policy.
    pub field: FieldPath,
    /// What is beyond which limit, and what helps.
    pub message: String,
    /// When waiting alone is enough: from then on this limit lets the change pass.
    #[serde(with = "time::option", skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Which limit a cause is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Code {
    /// `caps.maxStep`: one change.
    MaxStep,
    /// `caps.perWindow`: the sum of a sliding window.
    PerWindow,
    /// `caps.minInterval`: quiet time between shifts.
    MinInterval,
    /// `caps.maxShare`: the highest share without approval.
    MaxShare,
    /// `freeze`: no shifts at this time.
    Freeze,
}

/// What follows from a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Effect {
    /// The change is refused.
    Denied,
    /// The change passes with a warning.
    Warned,
    /// Recorded, nothing else.
    Audited,
    /// Lifted by approvals.
    Approved,
    /// A person's change, which this guard lets pass.
    Personal,
}

#[cfg(test)]
mod tests;
