//! Observe, decide, act: one pass over every rollout.
//!
//! What goes wrong with one rollout or one file is told and stops nothing else. The one exception are guards: while a
//! guard cannot be read, nothing is decided, for a limit that is not seen is a limit that does not hold.

mod observe;

pub use observe::Observed;

use crate::config::{Change, Config, Phase, Rollout};
use crate::forge::{Absent, Conduct, DesiredPull, Error as ForgeError, Forge, Outcome as PullOutcome};
use crate::metrics::Metrics;
use crate::repository::Repository;
use jiff::Timestamp;
use sluice_rules::canary::{Cause, Policy as Rules, Seconds, SignalPolicy};
use sluice_rules::decision::{self, Decision, Outcome, Trial};
use sluice_rules::evidence::Subject;
use sluice_rules::proposal::{Kind, body};
use std::collections::BTreeMap;

/// What a pass works with.
pub struct Pass<'a> {
    /// `sluice.yaml`.
    pub config: &'a Config,
    /// The policy repository.
    pub repository: &'a Repository,
    /// Where pull requests live.
    pub forge: &'a Forge,
    /// What the mesh did.
    pub metrics: &'a Metrics,
}

/// What a pass concluded.
pub struct Decided {
    /// One entry per rollout, in the order of the configuration.
    pub rollouts: Vec<(String, Result<Decision, String>)>,
    /// What else a person should know: files that were left out, counts that stand in for others.
    pub notes: Vec<String>,
    /// Whether some file of the repository could not be used.
    pub broken_files: bool,
    wanted: Vec<DesiredPull>,
    absent: BTreeMap<String, Absent>,
}

/// The name all canary proposals share in keys and branches.
const KIND: &str = "canary";

impl Pass<'_> {
    /// Decides every rollout as of `now`; writes nothing.
    ///
    /// # Errors
    ///
    /// When the repository has no such branch, or a guard cannot be read.
    pub fn decide(&self, now: Timestamp) -> anyhow::Result<Decided> {
        let observed = Observed::read(self.config, self.repository, now)?;
        let mut decided = Decided {
            rollouts: Vec::new(),
            notes: observed.notes.clone(),
            broken_files: observed.broken_files,
            wanted: Vec::new(),
            absent: BTreeMap::new(),
        };
        for rollout in &self.config.rollouts {
            let decision = self.decide_rollout(&observed, rollout, now, &mut decided.notes);
            self.plan_pull(&observed, rollout, &decision, &mut decided);
            decided.rollouts.push((rollout.name.clone(), decision.map_err(|error| format!("{error:#}"))));
        }
        decided.notes.sort();
        decided.notes.dedup();
        Ok(decided)
    }

    /// Makes the pull requests what the decisions say.
    ///
    /// # Errors
    ///
    /// When the pull requests cannot be listed.
    pub fn act(&self, decided: &Decided, now: Timestamp) -> Result<Vec<PullOutcome>, ForgeError> {
        let conduct = Conduct { absent: decided.absent.clone(), ..Conduct::new(self.config.bot()) };
        conduct.reconcile(self.forge, self.repository, &decided.wanted, now)
    }

    fn decide_rollout(
        &self,
        observed: &Observed,
        rollout: &Rollout,
        now: Timestamp,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Decision> {
        let found = observed.route(rollout)?;
        notes.extend(observed.oddities(&found));
        let run = observed.run(self.repository, &found, rollout)?;
        let mut ticks = Vec::new();
        if let Some(begun) = run.begun {
            let question = observe::question(rollout, &found, begun.as_second(), now.as_second());
            let answer = self.metrics.samples(&question)?;
            notes.extend(answer.notes.iter().map(|note| format!("{}: {note}", rollout.name)));
            ticks = run.with_shares(answer.samples);
        }
        let trial = Trial {
            subject: Subject {
                rollout: rollout.name.clone(),
                mesh: found.policy.identity().mesh.clone(),
                route: route_name(rollout),
                stable: rollout.stable.clone(),
                canary: rollout.canary.clone(),
            },
            phase: match rollout.phase {
                Phase::Shadow => decision::Phase::Shadow,
                Phase::Assisted => decision::Phase::Assisted,
                Phase::Automatic => decision::Phase::Automatic,
            },
            major: rollout.change == Change::Major,
            rules: rules(rollout),
            file: found.file,
            document: found.document,
            ticks,
            begun: run.begun,
            withdrawn: run.withdrawn,
            guards: &observed.guards,
            history: &observed.history(self.repository, &found)?,
            now,
        };
        Ok(decision::decide(trial, found.policy)?)
    }

    fn plan_pull(
        &self,
        observed: &Observed,
        rollout: &Rollout,
        decision: &anyhow::Result<Decision>,
        decided: &mut Decided,
    ) {
        let mut pull = DesiredPull {
            kind: KIND.to_owned(),
            mesh: self.config.mesh.clone(),
            scope: rollout.name.clone(),
            base: self.config.branch.clone(),
            base_at: observed.head,
            changes: Vec::new(),
            title: String::new(),
            body: String::new(),
            message: String::new(),
            labels: vec!["sluice".to_owned()],
            digest: String::new(),
            evidence: Vec::new(),
            auto_merge: false,
            rollback: false,
        };
        let keys = [pull.key(&self.config.bot()), pull.beside().key(&self.config.bot())];
        let stay = match decision {
            // Nothing is known about it in this pass, and missing data is not a reason to withdraw.
            Err(_) => Absent::Keep,
            Ok(decision) => match &decision.outcome {
                Outcome::Propose { proposal, text } => {
                    pull.changes = vec![(proposal.path.clone(), text.clone().into_bytes())];
                    pull.title = body::title(proposal);
                    pull.body = body::body(proposal);
                    pull.message = body::commit_message(proposal);
                    pull.digest = body::digest(proposal);
                    pull.labels.push(format!("sluice/{}", kind_word(proposal.kind)));
                    // Plain data: writing it into memory cannot fail.
                    pull.evidence = serde_json::to_vec(&proposal.evidence).unwrap_or_default();
                    pull.auto_merge = proposal.person.is_none();
                    pull.rollback = proposal.kind == Kind::Rollback;
                    decided.wanted.push(pull);
                    return;
                }
                Outcome::Hold { cause: Cause::Blind, .. } => Absent::Keep,
                Outcome::Hold { why, .. } | Outcome::Held { why, .. } | Outcome::Over { why } => {
                    Absent::Close(why.clone())
                }
                Outcome::Shadow { .. } => Absent::Close("the rollout is in the phase `shadow`".to_owned()),
            },
        };
        decided.absent.extend(keys.map(|key| (key, stay.clone())));
    }
}

/// The canaries' shares in Git by rollout, in percent.
///
/// # Errors
///
/// When the repository does not define a route, or not well enough.
pub fn canary_shares(config: &Config, repository: &Repository) -> anyhow::Result<BTreeMap<String, f64>> {
    let observed = Observed::read(config, repository, Timestamp::UNIX_EPOCH)?;
    let share = |rollout: &Rollout| -> anyhow::Result<f64> {
        let found = observed.route(rollout)?;
        let splits = sluice_rules::split::splits(found.policy).0;
        let path = found.file.path();
        Ok(decision::canary_share(path, found.policy, &splits, &rollout.stable, &rollout.canary)?.0)
    };
    config.rollouts.iter().map(|rollout| Ok((rollout.name.clone(), share(rollout)?))).collect()
}

/// What a proposal's kind is called in labels and lists.
pub fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Promote => "promote",
        Kind::Rollback => "rollback",
        Kind::Ask => "ask",
    }
}

/// `MeshHTTPRoute ai/summarize`.
fn route_name(rollout: &Rollout) -> String {
    let namespace = rollout.route.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{:?} {namespace}{}", rollout.route.kind, rollout.route.name)
}

/// The judge's rules for a rollout: its objectives, and what it overrides.
fn rules(rollout: &Rollout) -> Rules {
    let mut rules = Rules::default();
    let objectives = &rollout.objectives;
    if let Some(errors) = objectives.errors {
        let signal = SignalPolicy { ceiling: Some(errors.ceiling.share()), ..SignalPolicy::default() };
        rules.signals.insert("errors".to_owned(), signal);
    }
    if let Some(slow) = objectives.slow {
        let signal = SignalPolicy { ceiling: Some(slow.ceiling.share()), ..SignalPolicy::default() };
        rules.signals.insert("slow".to_owned(), signal);
    }
    for (name, business) in &objectives.business {
        let width = business.scale[1] - business.scale[0];
        let mut signal = SignalPolicy::default();
        match business.aim {
            crate::config::Aim::MinimumImprovement(rise) => signal.minimum_improvement = Some(rise / width),
            crate::config::Aim::NonInferiority(fall) => signal.non_inferiority = Some(fall / width),
        }
        rules.signals.insert(name.clone(), signal);
    }
    let Some(judge) = &rollout.judge else { return rules };
    let seconds = |duration: std::time::Duration| Seconds(duration.as_secs() as i64);
    if let Some(ladder) = &judge.ladder {
        // 7 % is 0.07, and 0.07 times 100 is 7.000000000000001: what people read is what they wrote.
        rules.ladder = ladder.iter().map(|rung| (rung.share() * 1e8).round() / 1e6).collect();
    }
    if let Some(ceilings) = &judge.ceilings {
        rules.ceilings = ceilings.iter().map(|ceiling| ceiling.share()).collect();
    }
    rules.margins = judge.margins.clone().unwrap_or_default();
    rules.dwell = judge.dwell.map_or(rules.dwell, seconds);
    rules.deadline = judge.deadline.map_or(rules.deadline, seconds);
    rules.alpha = judge.alpha.map_or(rules.alpha, |alpha| alpha.share());
    rules.beta = judge.beta.map_or(rules.beta, |beta| beta.share());
    rules.hold_back = judge.hold_back.unwrap_or(false).then(Default::default);
    rules
}
