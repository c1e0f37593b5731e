//! Evidence, guards and the route become a decision that leaves nothing to choose.

use crate::canary::{Call, Cause, Policy as Rules, Seconds, Tick};
use crate::document::{Edit, EditError, File};
use crate::evidence::{Evidence, EvidenceError, Subject};
use crate::field::FieldPath;
use crate::guard::{self, Author, Effect, History, Request, ShiftGuard};
use crate::plan;
use crate::policy::Policy;
use crate::proposal::{Kind, Proposal, WeightChange};
use crate::shadow;
use crate::split::{self, ShareError, Split};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// How far automation goes for a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Record what would have been done, write nothing.
    Shadow,
    /// A pull request; a person merges.
    Assisted,
    /// The bot merges what is inside the guards.
    Automatic,
}

/// Everything a decision about one rollout rests on.
#[derive(Debug)]
pub struct Trial<'a> {
    /// What is on trial.
    pub subject: Subject,
    /// How far automation goes.
    pub phase: Phase,
    /// Whether the change is a major one: then every promotion asks a person.
    pub major: bool,
    /// The judge's rules.
    pub rules: Rules,
    /// The file that holds the route, and the document in it.
    pub file: &'a File,
    /// The document's index in the file.
    pub document: usize,
    /// What was seen since the canary first had weight, with the weights of then.
    pub ticks: Vec<Tick>,
    /// When the canary's run began: its first weight.
    pub begun: Option<Timestamp>,
    /// Whether the canary had weight before and lost it all: then it is over.
    pub withdrawn: bool,
    /// The limits.
    pub guards: &'a [ShiftGuard],
    /// The shifts so far.
    pub history: &'a History,
    /// The time of the decision.
    pub now: Timestamp,
}

/// What will happen about one rollout, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// What it is about.
    pub subject: Subject,
    /// The canary's share in force, in percent.
    pub share: f64,
    /// What will happen.
    pub outcome: Outcome,
    /// In the phase `shadow`: what would have been done beside what happened, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compared: Vec<String>,
    /// What was seen; nothing before the first tick.
    #[serde(skip)]
    pub evidence: Option<Evidence>,
}

/// What will happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Outcome {
    /// Nothing; this is why.
    Hold {
        /// What kind of reason it is.
        cause: Cause,
        /// In words.
        why: String,
    },
    /// Nothing yet: guards stand in the way of a move that evidence allows.
    Held {
        /// In words.
        why: String,
        /// When waiting alone is enough.
        #[serde(with = "guard::time::option", skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// Nothing, because the phase is shadow; this would have happened.
    Shadow {
        /// In words.
        would: String,
    },
    /// The canary is at 100 %, or was withdrawn.
    Over {
        /// In words.
        why: String,
    },
    /// A pull request.
    Propose {
        /// What it proposes.
        proposal: Box<Proposal>,
        /// The file's new text.
        #[serde(skip)]
        text: String,
    },
}

/// Why no decision can be made; a person changes something.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecisionError {
    /// The route does not split between the two.
    #[error("{path}: no rule of {route} splits between `{stable}` and `{canary}`: add both as backends of one rule")]
    NoSplit {
        /// The file.
        path: String,
        /// The route.
        route: String,
        /// The stable arm.
        stable: String,
        /// The canary.
        canary: String,
    },
    /// Two rules disagree about the canary's share.
    #[error("{path}: `{first}` gives the canary {one} % and `{second}` {other} %: give both the same share")]
    Disagree {
        /// The file.
        path: String,
        /// The list of backends of one rule.
        first: FieldPath,
        /// The share there.
        one: f64,
        /// The list of backends of the other rule.
        second: FieldPath,
        /// The share there.
        other: f64,
    },
    /// A rule cannot have the share.
    #[error("{path}: `{field}`: {error}")]
    Share {
        /// The file.
        path: String,
        /// The list of backends.
        field: FieldPath,
        /// What is wrong.
        error: ShareError,
    },
    /// The weight cannot be written.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The evidence is broken.
    #[error("{rollout}: {error}")]
    Evidence {
        /// The rollout.
        rollout: String,
        /// What is wrong.
        error: EvidenceError,
    },
    /// The edited route no longer reads: a defect of ours, nothing was written.
    #[error("{path}: the edited route does not read back: {problem}")]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// The rules of a route that split between two services, and the canary's share of the two in percent.
pub fn canary_share<'a>(
    path: &str,
    route: &Policy,
    splits: &'a [Split],
    stable: &str,
    canary: &str,
) -> Result<(f64, Vec<&'a Split>), DecisionError> {
    let mut found: Vec<(f64, &Split)> = Vec::new();
    for split in splits {
        let (stable, canary) = match (split.find(stable), split.find(canary)) {
            (Ok(stable), Ok(canary)) => (stable, canary),
            (Err(error @ ShareError::Ambiguous(..)), _) | (_, Err(error @ ShareError::Ambiguous(..))) => {
                return Err(DecisionError::Share { path: path.to_owned(), field: split.field.clone(), error });
            }
            _ => continue,
        };
        let sum = canary.weight + stable.weight;
        if sum == 0 {
            let error = ShareError::NoWeight(canary.service.to_string(), stable.service.to_string());
            return Err(DecisionError::Share { path: path.to_owned(), field: split.field.clone(), error });
        }
        found.push((100.0 * canary.weight as f64 / sum as f64, split));
    }
    let Some((share, first)) = found.first().copied() else {
        return Err(DecisionError::NoSplit {
            path: path.to_owned(),
            route: route.identity().to_string(),
            stable: stable.to_owned(),
            canary: canary.to_owned(),
        });
    };
    if let Some((other, second)) = found.iter().find(|(other, _)| (other - share).abs() > 1e-9) {
        return Err(DecisionError::Disagree {
            path: path.to_owned(),
            first: first.field.clone(),
            one: share,
            second: second.field.clone(),
            other: *other,
        });
    }
    Ok((share, found.into_iter().map(|(_, split)| split).collect()))
}

/// Decides one rollout.
///
/// # Errors
///
/// When the route, the weights or the evidence are not what they must be.
pub fn decide(trial: Trial<'_>, route: &Policy) -> Result<Decision, DecisionError> {
    let (splits, _) = split::splits(route);
    let path = trial.file.path();
    let subject = trial.subject.clone();
    let (share, pairs) = canary_share(path, route, &splits, &subject.stable, &subject.canary)?;
    let done = |outcome, evidence: Option<Evidence>| {
        let points = evidence.as_ref().filter(|_| trial.phase == Phase::Shadow).and_then(|seen| seen.points().ok());
        let compared = points.map(|points| shadow::compare(&points)).unwrap_or_default();
        Ok(Decision { subject: subject.clone(), share, outcome, compared, evidence })
    };
    if trial.withdrawn && share <= 0.0 {
        let why = format!("`{}` was withdrawn; give it weight again to start a new trial", subject.canary);
        return done(Outcome::Over { why }, None);
    }
    if trial.ticks.is_empty() {
        let why = "nothing was seen yet in either arm".to_owned();
        return done(Outcome::Hold { cause: Cause::Blind, why }, None);
    }
    let evidence = Evidence::new(subject.clone(), trial.rules.clone(), trial.ticks.clone())
        .map_err(|error| DecisionError::Evidence { rollout: subject.rollout.clone(), error })?;
    let claim = &evidence.claim;
    let hold = || Outcome::Hold { cause: claim.cause, why: claim.reason.clone() };
    // Harm that was shown stays shown; everything else needs to know how things are now.
    if let Some(why) = stale(&trial).filter(|_| claim.call != Call::Rollback) {
        return done(Outcome::Hold { cause: Cause::Blind, why }, Some(evidence));
    }
    // Where the last tick was taken at another weight, it says nothing yet about this one.
    let fresh = trial.ticks.last().is_some_and(|tick| (tick.share - share).abs() < 1e-6);
    let to = |kind, goal| Step { kind, from: share, goal };
    let step = match claim.call {
        Call::Promote if share >= 100.0 => {
            return done(Outcome::Over { why: claim.reason.clone() }, Some(evidence));
        }
        Call::Promote if fresh => to(Kind::Promote, claim.share),
        Call::Rollback => to(Kind::Rollback, 0.0),
        Call::Ask if !fresh => return done(hold(), Some(evidence)),
        Call::Ask if claim.cause == Cause::BelowMargin => to(Kind::Ask, 0.0),
        Call::Ask if claim.cause == Cause::Deadline => to(Kind::Ask, trial.rules.next_rung(share)),
        Call::Promote => {
            let why = "the weight has just changed: nothing was seen at it yet".to_owned();
            return done(Outcome::Hold { cause: Cause::Dwell, why }, Some(evidence));
        }
        Call::Hold | Call::Ask => return done(hold(), Some(evidence)),
    };
    let outcome = propose(&trial, route, &splits, &pairs, evidence.clone(), step)?;
    done(outcome, Some(evidence))
}

/// Old news decide nothing: the mesh may have changed since.
fn stale(trial: &Trial<'_>) -> Option<String> {
    const SHORTEST: i64 = 60;
    let last = trial.ticks.last()?.t;
    let spacing = trial.ticks.windows(2).map(|pair| pair[1].t - pair[0].t).min().unwrap_or(SHORTEST);
    let silent = trial.now.as_second() - last;
    let allowed = i64::from(trial.rules.blind_after) * spacing.max(SHORTEST);
    (silent > allowed).then(|| format!("blind: the newest data is {} old", Seconds(silent)))
}

/// Where the canary's share should go, in percent.
struct Step {
    kind: Kind,
    from: f64,
    goal: f64,
}

/// Turns a goal into the next write, if guards and phase let it.
fn propose(
    trial: &Trial<'_>,
    route: &Policy,
    splits: &[Split],
    pairs: &[&Split],
    evidence: Evidence,
    step: Step,
) -> Result<Outcome, DecisionError> {
    let Step { kind, from: share, goal } = step;
    let identity = route.identity();
    let max_step = pairs.iter().filter_map(|split| guard::max_step(trial.guards, identity, split)).reduce(f64::min);
    let mut writes = plan::writes(share, goal, max_step);
    let to = writes.remove(0);
    let (changes, edits) = reweigh(trial, pairs, to)?;
    let text = trial.file.edit(trial.document, &edits)?;
    let after = read_back(trial, &text)?;
    let request = Request {
        identity: identity.clone(),
        author: Author::Bot,
        change: split::change(splits, &split::splits(&after).0).into(),
    };
    let verdict = guard::judge(trial.guards, &request, trial.history, &[], trial.now);
    let denied = verdict.causes.iter().filter(|cause| cause.effect == Effect::Denied);
    let guards: Vec<String> = denied.map(|cause| cause.message.clone()).collect();
    let words = format!("{share} % → {to} % for `{}`", trial.subject.canary);
    if trial.phase == Phase::Shadow {
        return Ok(Outcome::Shadow { would: format!("would propose {words}: {}", evidence.claim.reason) });
    }
    if !guards.is_empty()
        && kind == Kind::Promote
        && let Some(until) = guard::next_allowed(trial.guards, &request, trial.history, trial.now)
    {
        let why = format!("evidence allows {words}, and a guard holds it: {}", guards.join("; "));
        return Ok(Outcome::Held { why, until: Some(until) });
    }
    let person = match (kind, trial.phase) {
        (Kind::Ask, _) => Some(evidence.claim.reason.clone()),
        (Kind::Promote, _) if trial.major => Some("a major change always asks a person".to_owned()),
        (Kind::Promote, _) if !guards.is_empty() => Some("it goes beyond what a guard lets automation do".to_owned()),
        (_, Phase::Assisted) => Some("this rollout is in the phase `assisted`: a person merges".to_owned()),
        _ => None,
    };
    let proposal = Proposal {
        kind,
        subject: trial.subject.clone(),
        path: trial.file.path().to_owned(),
        document: trial.document,
        begun: trial.begun,
        changes,
        from: share,
        to,
        then: writes,
        guards,
        person,
        evidence,
    };
    Ok(Outcome::Propose { proposal: Box::new(proposal), text })
}

/// The weights that give the canary `to` percent in every rule that splits between the two.
fn reweigh(trial: &Trial<'_>, pairs: &[&Split], to: f64) -> Result<(Vec<WeightChange>, Vec<Edit>), DecisionError> {
    let mut changes = Vec::new();
    let mut edits = Vec::new();
    for split in pairs {
        let wrong =
            |error| DecisionError::Share { path: trial.file.path().to_owned(), field: split.field.clone(), error };
        let reweigh = split.with_share(&trial.subject.canary, &trial.subject.stable, to).map_err(wrong)?;
        let places: BTreeMap<&FieldPath, (&str, u64)> = split
            .backends
            .iter()
            .flat_map(|backend| {
                let name = backend.service.as_str();
                let also = backend.also.iter().map(move |entry| (&entry.field, (name, entry.weight)));
                [(&backend.field, (name, backend.first))].into_iter().chain(also)
            })
            .collect();
        for (field, weight) in reweigh.weights {
            let (backend, from) = places.get(&field).copied().unwrap_or(("", 1));
            changes.push(WeightChange { field: field.clone(), backend: backend.to_owned(), from, to: weight });
            edits.push(Edit { field, value: weight });
        }
    }
    Ok((changes, edits))
}

fn read_back(trial: &Trial<'_>, text: &str) -> Result<Policy, DecisionError> {
    let path = trial.file.path().to_owned();
    let unreadable = |problem: String| DecisionError::Unreadable { path: path.clone(), problem };
    let file = File::parse(&path, text.as_bytes())
        .map_err(|problems| unreadable(problems.first().map(ToString::to_string).unwrap_or_default()))?;
    let document = file.documents().get(trial.document).ok_or_else(|| unreadable("the document is gone".into()))?;
    Policy::read(document.value())
        .map_err(|problems| unreadable(problems.first().map(ToString::to_string).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::{Arms, Counts, Replicas, SignalPolicy};

    const PATH: &str = "policies/summarize.yaml";
    /// The last tick of a world, Monday morning.
    const NOW: i64 = 1_794_823_200;

    /// A route whose rules have these weights, stable and canary.
    fn route(rules: &[[u32; 2]]) -> String {
        let mut text = "type: MeshHTTPRoute\nname: summarize\nmesh: default\nspec:\n  targetRef: {kind: Mesh}\n  to:\n    - targetRef: {kind: MeshService, name: summarize}\n      rules:\n".to_owned();
        for (index, [stable, canary]) in rules.iter().enumerate() {
            text += &format!(
                "        - matches: [{{path: {{type: PathPrefix, value: /{index}}}}}]\n          default:\n            backendRefs:\n\
                 \x20             - {{kind: MeshService, name: summarize-v1, weight: {stable}}}\n\
                 \x20             - {{kind: MeshService, name: summarize-v2, weight: {canary}}}\n"
            );
        }
        text
    }

    /// A minute at `share` percent with this many bad requests in a thousand, canary and stable.
    fn tick(t: i64, share: f64, bad: [f64; 2]) -> Tick {
        let counts = |n: f64, bad: f64| Some(Counts { n, x: (n * bad / 1000.0).round() });
        let arms = Arms { canary: counts(30.0 * share, bad[0]), stable: counts(3000.0 - 30.0 * share, bad[1]) };
        Tick { t, share, signals: BTreeMap::from([("errors".to_owned(), arms)]), replicas: None }
    }

    struct World {
        text: String,
        ticks: Vec<Tick>,
        phase: Phase,
        major: bool,
        rules: Rules,
        withdrawn: bool,
        guards: Vec<ShiftGuard>,
        /// Seconds since the last tick.
        late: i64,
    }

    /// `minutes` at 10 %, in the phase `automatic`.
    fn world(minutes: i64, bad: [f64; 2]) -> World {
        World {
            text: route(&[[90, 10]]),
            ticks: (0..minutes).map(|minute| tick(NOW - 60 * (minutes - 1 - minute), 10.0, bad)).collect(),
            phase: Phase::Automatic,
            major: false,
            rules: Rules::default(),
            withdrawn: false,
            guards: Vec::new(),
            late: 0,
        }
    }

    impl World {
        fn decide(&self) -> Result<Decision, DecisionError> {
            let file = File::parse(PATH, self.text.as_bytes()).unwrap();
            let policy = Policy::read(file.documents()[0].value()).unwrap();
            let trial = Trial {
                subject: Subject {
                    rollout: "summarize".into(),
                    mesh: "default".into(),
                    route: "MeshHTTPRoute summarize".into(),
                    stable: "summarize-v1".into(),
                    canary: "summarize-v2".into(),
                },
                phase: self.phase,
                major: self.major,
                rules: self.rules.clone(),
                file: &file,
                document: 0,
                ticks: self.ticks.clone(),
                begun: None,
                withdrawn: self.withdrawn,
                guards: &self.guards,
                history: &History::default(),
                now: Timestamp::from_second(NOW + self.late).unwrap(),
            };
            decide(trial, &policy)
        }

        fn outcome(&self) -> Outcome {
            self.decide().unwrap().outcome
        }

        fn proposal(&self) -> Proposal {
            match self.outcome() {
                Outcome::Propose { proposal, .. } => *proposal,
                other => panic!("{other:?}"),
            }
        }

        fn why(&self) -> String {
            match self.outcome() {
                Outcome::Hold { why, .. } | Outcome::Held { why, .. } | Outcome::Over { why } => why,
                Outcome::Shadow { would } => would,
                Outcome::Propose { proposal, .. } => panic!("{proposal:?}"),
            }
        }

        fn guard(mut self, spec: &str) -> Self {
            let text = format!(
                "apiVersion: sluice.dev/v1alpha1\nkind: ShiftGuard\nmetadata: {{name: all}}\nspec: {{match: {{meshes: ['*'], services: ['*'], namespaces: ['*']}}, {spec}}}\n"
            );
            let file = File::parse("guards/all.yaml", text.as_bytes()).unwrap();
            self.guards.push(ShiftGuard::read(file.documents()[0].value()).unwrap());
            self
        }
    }

    const FINE: [f64; 2] = [5.0, 5.0];
    const BROKEN: [f64; 2] = [200.0, 5.0];

    #[test]
    fn who_merges_follows_from_phase_change_and_guards() {
        let tight = "caps: {maxShare: 20}";
        let asks = |phase, major, bad, guard: &str| {
            let mut world = World { phase, major, ..world(30, bad) };
            if !guard.is_empty() {
                world = world.guard(guard);
            }
            let proposal = world.proposal();
            (proposal.kind, proposal.person)
        };
        let table = [
            (asks(Phase::Automatic, false, FINE, ""), Kind::Promote, None),
            (asks(Phase::Automatic, true, FINE, ""), Kind::Promote, Some("a major change")),
            (asks(Phase::Automatic, false, FINE, tight), Kind::Promote, Some("beyond what a guard")),
            (asks(Phase::Assisted, false, FINE, ""), Kind::Promote, Some("phase `assisted`")),
            (asks(Phase::Automatic, false, BROKEN, tight), Kind::Rollback, None),
            (asks(Phase::Automatic, true, BROKEN, ""), Kind::Rollback, None),
            (asks(Phase::Assisted, false, BROKEN, ""), Kind::Rollback, Some("phase `assisted`")),
        ];
        for (index, ((kind, person), wanted, why)) in table.into_iter().enumerate() {
            assert_eq!(kind, wanted, "row {index}");
            match (person, why) {
                (None, None) => {}
                (Some(person), Some(why)) => assert!(person.contains(why), "row {index}: {person}"),
                (person, _) => panic!("row {index}: {person:?}"),
            }
        }
    }

    #[test]
    fn a_freeze_holds_a_promotion_until_it_ends_and_no_rollback() {
        let freeze = "freeze: [{cron: '0 8 * * *', duration: 12h, timeZone: UTC, reason: exams}]";
        let outcome = world(30, FINE).guard(freeze).outcome();
        let Outcome::Held { why, until } = outcome else { panic!("{outcome:?}") };
        assert_eq!(until, "2026-11-16T20:00:00Z".parse().ok());
        assert!(why.contains("10 % → 25 %") && why.contains("exams"), "{why}");
        let rollback = world(30, BROKEN).guard(freeze).proposal();
        assert_eq!((rollback.kind, rollback.to, rollback.person), (Kind::Rollback, 0.0, None));
    }

    #[test]
    fn a_large_rung_is_planned_in_steps_of_the_strictest_guard() {
        let world = world(30, FINE).guard("caps: {maxStep: 10}").guard("caps: {maxStep: 4}");
        let proposal = world.proposal();
        assert_eq!((proposal.to, proposal.then), (14.0, vec![18.0, 22.0, 25.0]));
    }

    #[test]
    fn every_rule_of_a_route_moves() {
        let two = World { text: route(&[[90, 10], [9, 1], [900, 100]]), ..world(30, FINE) };
        let Outcome::Propose { proposal, text } = two.outcome() else { panic!("a proposal") };
        assert_eq!(text, route(&[[75, 25], [75, 25], [750, 250]]));
        assert_eq!(proposal.changes.len(), 6);
        let from: Vec<_> =
            proposal.changes.iter().map(|change| (change.backend.as_str(), change.from, change.to)).collect();
        assert_eq!(from[2..4], [("summarize-v1", 9, 75), ("summarize-v2", 1, 25)]);
    }

    #[test]
    fn what_a_route_cannot_mean_is_an_error_with_its_place() {
        let told = |text: String| World { text, ..world(30, FINE) }.decide().unwrap_err().to_string();
        let error = told(route(&[[90, 10], [80, 20]]));
        assert!(
            error.starts_with("policies/summarize.yaml: ") && error.contains("10 %") && error.contains("20 %"),
            "{error}"
        );
        assert!(error.contains("spec.to[0].rules[0]") && error.contains("spec.to[0].rules[1]"), "{error}");
        let error = told(route(&[[0, 0]]));
        assert!(error.contains("both have weight 0"), "{error}");
        let error = told(route(&[[90, 10]]).replace("summarize-v2", "summarize-v3"));
        assert!(error.contains("no rule of MeshHTTPRoute summarize of mesh default splits"), "{error}");
    }

    #[test]
    fn nothing_seen_and_old_news_decide_nothing() {
        assert_eq!(world(0, FINE).why(), "nothing was seen yet in either arm");
        assert_eq!(World { late: 301, ..world(30, FINE) }.why(), "blind: the newest data is 5m 1s old");
        assert!(matches!(World { late: 300, ..world(30, FINE) }.outcome(), Outcome::Propose { .. }));
        // Ticks that are further apart may be older.
        let mut sparse = world(30, FINE);
        for (index, tick) in sparse.ticks.iter_mut().enumerate() {
            tick.t = NOW - 600 * (29 - index as i64);
        }
        assert!(matches!(World { late: 3000, ..sparse }.outcome(), Outcome::Propose { .. }));
    }

    #[test]
    fn a_weight_that_just_changed_waits_for_its_first_tick_and_harm_does_not() {
        let changed = |bad| World { text: route(&[[75, 25]]), ..world(30, bad) };
        assert_eq!(changed(FINE).why(), "the weight has just changed: nothing was seen at it yet");
        let rollback = changed(BROKEN).proposal();
        assert_eq!((rollback.kind, rollback.from, rollback.to), (Kind::Rollback, 25.0, 0.0));
    }

    #[test]
    fn a_withdrawn_canary_is_over_whatever_was_seen() {
        let over = World { text: route(&[[100, 0]]), withdrawn: true, ..world(30, BROKEN) };
        assert!(matches!(over.outcome(), Outcome::Over { .. }));
        assert_eq!(over.why(), "`summarize-v2` was withdrawn; give it weight again to start a new trial");
    }

    #[test]
    fn shadow_tells_what_guards_would_not_change() {
        let shadow = World { phase: Phase::Shadow, ..world(30, FINE) };
        assert_eq!(shadow.why(), "would propose 10 % → 25 % for `summarize-v2`: every signal is safe at this rung");
        let shadow = World { phase: Phase::Shadow, ..world(30, BROKEN) };
        assert!(shadow.why().starts_with("would propose 10 % → 0 % for `summarize-v2`: harm in errors"));
    }

    #[test]
    fn a_score_below_its_margin_asks_for_the_way_back() {
        let mut scored = world(200, FINE);
        let quality = SignalPolicy { non_inferiority: Some(0.01), ..SignalPolicy::default() };
        scored.rules.signals =
            BTreeMap::from([("errors".into(), SignalPolicy::default()), ("quality".into(), quality)]);
        for tick in &mut scored.ticks {
            let arm = |mean: f64| Some(Counts { n: 50.0, x: 50.0 * mean });
            tick.signals.insert("quality".into(), Arms { canary: arm(0.6), stable: arm(0.8) });
        }
        let proposal = scored.proposal();
        assert_eq!((proposal.kind, proposal.to), (Kind::Ask, 0.0));
        assert!(proposal.person.is_some_and(|why| why.contains("quality is below its margin")));
    }

    #[test]
    fn a_deadline_asks_for_the_next_rung_and_missing_replicas_do_not() {
        let mut slow = world(100, FINE);
        slow.rules.deadline = Seconds(3600);
        for tick in &mut slow.ticks {
            let arm = |n: f64| Some(Counts { n, x: 0.0 });
            tick.signals = BTreeMap::from([("errors".into(), Arms { canary: arm(0.2), stable: arm(1.8) })]);
        }
        let proposal = slow.proposal();
        assert_eq!((proposal.kind, proposal.to), (Kind::Ask, 25.0));
        assert!(proposal.person.is_some_and(|why| why.starts_with("no end after 1h")));

        let mut small = world(100, FINE);
        small.rules.deadline = Seconds(3600);
        for tick in &mut small.ticks {
            tick.replicas = Some(Replicas { canary: 1.0, stable: 9.0 });
        }
        assert!(small.why().contains("canary replicas needed"), "{}", small.why());
    }

    #[test]
    fn the_end_is_told_and_goes_through_99() {
        let at = |share: u32| {
            let mut world = world(30, FINE);
            world.text = route(&[[100 - share, share]]);
            world.ticks = (0..30).map(|minute| tick(NOW - 60 * (29 - minute), f64::from(share), FINE)).collect();
            world
        };
        let proposal = at(50).proposal();
        assert_eq!((proposal.to, proposal.then), (99.0, vec![100.0]));
        assert!(matches!(at(100).outcome(), Outcome::Over { .. }));
    }

    #[test]
    fn harm_that_was_shown_before_the_data_ended_still_rolls_back() {
        assert_eq!(World { late: 3600, ..world(30, BROKEN) }.proposal().kind, Kind::Rollback);
    }
}
