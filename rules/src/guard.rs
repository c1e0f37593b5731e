//! How far one change, and a window of changes, may go.
//!
//! [`judge`] answers for one change: it asks every guard, the strictest answer wins and each cause says which guard,
//! which limit, with which numbers, and what helps. The webhook calls it at admission and the bot before it proposes.

mod approval;
mod caps;
mod freeze;
mod history;
mod ledger;
mod matches;
mod period;
pub(crate) mod time;

pub use approval::Approval;
pub use freeze::{Cron, Freeze, Ongoing, Zone};
pub use history::{History, Moved, Record};
pub use ledger::{Cover, Entry, Held, Known, Ledger, Mark, Noted, Reserved, Sight, Terms, covered, covered_splits};
pub use matches::glob;
pub use period::Period;

use crate::diagnostic::Diagnostic;
use crate::field::FieldPath;
use crate::health::Severity;
use crate::policy::{Identity, nullable, typed};
use crate::split::{Change, RuleChange, ServiceKey, Shares, Split};
use jiff::{SignedDuration, Timestamp};
use matches::Traffic;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

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
    // Clocks of replicas differ; time that was recorded has passed.
    let now = history.now(now);
    let mut verdict = Verdict { outcome: Outcome::Allowed, causes: Vec::new(), records: Vec::new(), notes: Vec::new() };
    for subject in request.subjects() {
        let mut record = subject.record(&request.identity, now);
        record.automated = request.author == Author::Bot;
        let traffic = subject.traffic(&request.identity);
        // Guards mostly share one `settle`: what moves forward is found once for each.
        let mut lanes: Vec<(SignedDuration, Vec<Forward>)> = Vec::new();
        for guard in guards.iter().filter(|guard| guard.spec.r#match.fits(&traffic)) {
            let automated = guard.is_automated(&request.author);
            record.automated |= automated;
            let settle = guard.spec.settle();
            let lane = lanes.iter().position(|(known, _)| *known == settle).unwrap_or_else(|| {
                lanes.push((settle, subject.forward(&request.identity, history, settle, now)));
                lanes.len() - 1
            });
            let forward = &lanes[lane].1;
            if forward.is_empty() {
                continue;
            }
            let breaches = caps::breaches(guard, &subject, forward, request, history, now);
            let bound = automated || guard.spec.automation.human_needs_approval;
            let causes = breaches.into_iter().map(|breach| breach.cause(guard, request, approvals, bound, now));
            verdict.causes.extend(causes);
        }
        if lanes.is_empty() {
            let settle = Spec::default().settle();
            lanes.push((settle, subject.forward(&request.identity, history, settle, now)));
        }
        record.count(lanes.iter().flat_map(|(_, forward)| forward));
        verdict.records.push(record);
    }
    let outcome = |cause: &Cause| match cause.effect {
        Effect::Denied => Outcome::Denied,
        Effect::Warned => Outcome::Warned,
        Effect::Audited | Effect::Approved | Effect::Personal => Outcome::Allowed,
    };
    verdict.outcome = verdict.causes.iter().map(outcome).max().unwrap_or(Outcome::Allowed);
    verdict
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
    pub change: Change,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The strictest of all answers.
    pub outcome: Outcome,
    /// Every limit that the change touches, also those that were lifted.
    pub causes: Vec<Cause>,
    /// What history keeps of the change, one record per subject.
    pub records: Vec<Record>,
    /// What else whoever makes the change should know.
    pub notes: Vec<String>,
}

/// What happens to the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// It passes.
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

/// Limits on shifts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShiftGuard {
    /// `sluice.dev/v1alpha1`.
    pub api_version: String,
    /// `ShiftGuard`.
    pub kind: String,
    /// The guard's name.
    pub metadata: Metadata,
    /// The limits.
    pub spec: Spec,
}

/// What Kubernetes keeps of an object; only the name matters here.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    /// The guard's name.
    pub name: String,
}

/// What a guard asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Which traffic it guards.
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Match")]
    pub r#match: Match,
    /// What happens to a change beyond a limit.
    pub enforcement: Enforcement,
    /// Whose changes count as automated.
    #[serde(deserialize_with = "nullable")]
    pub automation: Automation,
    /// How far shifts may go.
    #[serde(deserialize_with = "nullable")]
    pub caps: Caps,
    /// When there are no shifts.
    #[serde(deserialize_with = "nullable")]
    pub freeze: Vec<Freeze>,
    /// Which approvals lift the limits; without it none does.
    pub approvals: Option<Approvals>,
    /// What a policy's health must be.
    pub health: Option<Health>,
    /// How long a split stands before it is the stable one; a day if left out.
    pub settle: Option<Period>,
}

/// Which traffic a guard guards; `*` stands for any text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// The meshes.
    pub meshes: Vec<String>,
    /// The services: the destination or any of the backends, by key or plain name.
    pub services: Vec<String>,
    /// The namespaces: of the policy or of the destination.
    pub namespaces: Vec<String>,
}

impl Default for Match {
    fn default() -> Self {
        let any = || vec!["*".to_owned()];
        Self { meshes: any(), services: any(), namespaces: any() }
    }
}

/// What happens to a change beyond a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes with a warning.
    Warn,
    /// It passes and is recorded.
    Audit,
}

/// Whose changes count as automated.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Automation {
    /// Users or groups; `*` stands for any text. Left out: all service accounts.
    pub subjects: Vec<String>,
    /// Do the limits bind people too?
    pub human_needs_approval: bool,
}

impl Default for Automation {
    fn default() -> Self {
        Self { subjects: vec!["system:serviceaccount:*".to_owned()], human_needs_approval: false }
    }
}

/// How far shifts may go.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Caps {
    /// Percentage points in one change.
    pub max_step: Option<f64>,
    /// The sum over a sliding window.
    pub per_window: Option<PerWindow>,
    /// Quiet time between two shifts.
    pub min_interval: Option<Period>,
    /// The highest percentage a backend may be given without approval. What led the stable split is not given it.
    pub max_share: Option<f64>,
}

/// A cap on the sum of shifts in a sliding window.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PerWindow {
    /// Percentage points.
    pub shift: f64,
    /// The window's length.
    pub window: Period,
}

/// Which approvals lift the limits.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approvals {
    /// How many people.
    #[serde(default = "one")]
    pub required: u32,
    /// Groups of which each must be in one; `*` stands for any text. None: anybody.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How old an approval may be.
    #[serde(default)]
    pub max_age: Option<Period>,
}

fn one() -> u32 {
    1
}

/// What a policy's health must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Health {
    /// The lowest score, 0 to 100.
    #[serde(default)]
    pub min_score: Option<u8>,
    /// Findings from here on deny.
    #[serde(default)]
    pub deny_severity: Option<Severity>,
}

impl Spec {
    /// How long a split stands before it is the stable one.
    pub fn settle(&self) -> SignedDuration {
        self.settle.as_ref().map_or(SignedDuration::from_hours(24), |settle| settle.0)
    }
}

const MALFORMED: &str = "guard-malformed";

impl ShiftGuard {
    /// Reads a guard.
    ///
    /// # Errors
    ///
    /// Every value that is wrong, unknown or out of range, with its field path.
    pub fn read(value: &Value) -> Result<Self, Vec<Diagnostic>> {
        let (guard, mut wrong) = typed::<Self>(MALFORMED, value, &FieldPath::root());
        if let Some(guard) = &guard {
            wrong.extend(guard.out_of_range());
        }
        guard.filter(|_| wrong.is_empty()).ok_or(wrong)
    }

    /// The guard's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    fn is_automated(&self, author: &Author) -> bool {
        let Author::Account { name, groups } = author else { return true };
        let subjects = &self.spec.automation.subjects;
        [name].into_iter().chain(groups).any(|text| subjects.iter().any(|pattern| glob(pattern, text)))
    }

    fn out_of_range(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let mut report = |field: &str, problem: String| {
            let field = field.parse().unwrap_or_default();
            found.push(Diagnostic::error(MALFORMED, field, problem));
        };
        for (field, is, shall) in
            [("apiVersion", &self.api_version, "sluice.dev/v1alpha1"), ("kind", &self.kind, "ShiftGuard")]
        {
            if is != shall {
                report(field, format!("must be `{shall}`, not `{is}`"));
            }
        }
        if self.metadata.name.is_empty() {
            report("metadata.name", "must not be empty".to_owned());
        }
        let Match { meshes, services, namespaces } = &self.spec.r#match;
        for (field, list) in [("meshes", meshes), ("services", services), ("namespaces", namespaces)] {
            if list.is_empty() {
                report(&format!("spec.match.{field}"), "an empty list matches nothing; write [\"*\"] for all".into());
            }
        }
        let caps = &self.spec.caps;
        let percentages = [("maxStep", caps.max_step), ("maxShare", caps.max_share)];
        for (field, value) in percentages.into_iter().filter_map(|(field, value)| Some((field, value?))) {
            if !(value > 0.0 && value <= 100.0) {
                report(&format!("spec.caps.{field}"), format!("must be above 0 and at most 100, not {value}"));
            }
        }
        if let Some(cap) = caps.per_window.as_ref().filter(|cap| cap.shift.is_nan() || cap.shift <= 0.0) {
            report("spec.caps.perWindow.shift", format!("must be above 0, not {}", cap.shift));
        }
        if self.spec.approvals.as_ref().is_some_and(|approvals| approvals.required == 0) {
            report("spec.approvals.required", "must be at least 1; leave `caps` out to limit nothing".to_owned());
        }
        if let Some(score) = self.spec.health.as_ref().and_then(|health| health.min_score).filter(|score| *score > 100)
        {
            report("spec.health.minScore", format!("must be at most 100, not {score}"));
        }
        found
    }
}

/// Guards whose parts work against each other, one warning each, with the guard's name.
pub fn contradictions(guards: &[ShiftGuard], now: Timestamp) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for guard in guards {
        let name = guard.name();
        let mut report = |field: &str, problem: String| {
            let field = field.parse().unwrap_or_default();
            found.push(Diagnostic::warning("guard-contradicts", field, format!("guard `{name}`: {problem}")));
        };
        if !names.insert(name) {
            report("metadata.name", "another guard has this name, causes cannot tell them apart".to_owned());
        }
        let Spec { caps, approvals, automation, freeze, .. } = &guard.spec;
        if let (Some(step), Some(window)) = (caps.max_step, &caps.per_window) {
            if step > window.shift {
                let sum = window.shift;
                report("spec.caps.maxStep", format!("a step of {step} never fits the {sum} of perWindow"));
            } else if caps.min_interval.as_ref().is_some_and(|quiet| quiet.0 >= window.window.0) {
                report("spec.caps.perWindow", "never binds: minInterval lets one step into a window".to_owned());
            }
        }
        if automation.human_needs_approval && approvals.is_none() {
            let problem = "humanNeedsApproval without `approvals`: nobody can approve anything";
            report("spec.automation.humanNeedsApproval", problem.to_owned());
        }
        if approvals.is_some() && automation.subjects.iter().any(|subject| subject == "*") {
            let problem = "everybody counts as automated, and automation approves nothing";
            report("spec.automation.subjects", problem.to_owned());
        }
        for (index, freeze) in freeze.iter().enumerate() {
            if freeze.ongoing(now).is_some_and(|ongoing| ongoing.until.is_none()) {
                report(&format!("spec.freeze[{index}]"), "the freeze starts again before it ends, for ever".to_owned());
            }
        }
    }
    found
}

/// The rules of a change that move one destination's traffic.
struct Subject<'a> {
    mesh: &'a str,
    destination: &'a ServiceKey,
    rules: Vec<&'a RuleChange>,
}

impl Record {
    /// Counts what does not move back; without any of it the record is a rollback.
    fn count<'a>(&mut self, forward: impl Iterator<Item = &'a Forward<'a>>) {
        let largest = forward.map(|forward| forward.rule.shift).reduce(f64::max);
        self.rollback = largest.is_none();
        self.shift = largest.unwrap_or(self.shift);
    }
}

/// A rule that does not move back towards its stable split.
struct Forward<'a> {
    rule: &'a RuleChange,
    stable: &'a Shares,
}

impl Request {
    fn subjects(&self) -> Vec<Subject<'_>> {
        Subject::all(&self.change.rules)
    }
}

impl<'a> Subject<'a> {
    /// The destinations whose traffic the rules move, in the order of their names.
    fn all(rules: &'a [RuleChange]) -> Vec<Self> {
        let mut subjects: BTreeMap<(&str, &ServiceKey), Vec<&RuleChange>> = BTreeMap::new();
        for rule in rules.iter().filter(|rule| rule.shift > NOISE) {
            subjects.entry((&rule.mesh, &rule.destination)).or_default().push(rule);
        }
        let subjects = subjects.into_iter();
        subjects.map(|((mesh, destination), rules)| Subject { mesh, destination, rules }).collect()
    }

    fn traffic(&self, identity: &'a Identity) -> Traffic<'a> {
        let mut traffic = Traffic::new(self.mesh, identity.namespace.as_deref());
        traffic.add(self.destination);
        for rule in &self.rules {
            rule.before.keys().chain(rule.after.keys()).for_each(|service| traffic.add(service));
            traffic.add_namespace(rule.namespace.as_deref());
        }
        traffic
    }

    fn forward(
        &self,
        policy: &Identity,
        history: &'a History,
        settle: SignedDuration,
        now: Timestamp,
    ) -> Vec<Forward<'a>> {
        let mut forward = Vec::new();
        for rule in &self.rules {
            let stable = history.stable(policy, rule, settle, now);
            if !history::is_rollback(rule, stable) {
                forward.push(Forward { rule, stable });
            }
        }
        forward
    }

    fn record(&self, policy: &Identity, time: Timestamp) -> Record {
        let moved = |rule: &&RuleChange| Moved {
            rule: rule.rule.brief(),
            before: rule.before.clone(),
            after: rule.after.clone(),
        };
        Record {
            time,
            policy: policy.clone(),
            mesh: self.mesh.to_owned(),
            destination: self.destination.clone(),
            shift: self.rules.iter().map(|rule| rule.shift).fold(0.0, f64::max),
            automated: false,
            rollback: false,
            rules: self.rules.iter().map(moved).collect(),
            more: 0,
        }
    }
}

#[cfg(test)]
mod tests;
