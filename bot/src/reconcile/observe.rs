//! What Git says: routes, guards, which weights were in force when.

use crate::config::{Config, Rollout};
use crate::metrics::{Objective, Question, Service};
use crate::repository::{LeftOut, Oid, Repository};
use anyhow::{Context, bail};
use jiff::Timestamp;
use sluice_rules::canary::{Sample, Tick};
use sluice_rules::decision::{self, DecisionError};
use sluice_rules::diagnostic::Diagnostic;
use sluice_rules::document::File;
use sluice_rules::guard::{self, Author, History, Request, ShiftGuard};
use sluice_rules::policy::{Policy, PolicyRef};
use sluice_rules::proposal::body::escape::visible;
use sluice_rules::split::{self, Split};

/// The policy repository at one revision, parsed.
pub struct Observed {
    /// The revision.
    pub head: Oid,
    /// Every limit.
    pub guards: Vec<ShiftGuard>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Whether some file could not be used.
    pub broken_files: bool,
    files: Vec<File>,
    routes: Vec<RouteAt>,
    bot: (String, String),
}

struct RouteAt {
    file: usize,
    document: usize,
    policy: Policy,
}

/// A route and where it is.
pub(super) struct Found<'a> {
    pub(super) file: &'a File,
    pub(super) document: usize,
    pub(super) policy: &'a Policy,
}

/// The canary's weights over time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// Since when there is something to judge: the first weight of the run, or the route as it stands.
    pub(super) begun: Option<Timestamp>,
    /// The canary had weight and lost it all.
    pub(super) withdrawn: bool,
    /// Share in percent from a time on, oldest first.
    shares: Vec<(i64, f64)>,
}

impl Run {
    /// The run from the shares of every version, oldest first.
    fn new(shares: Vec<(i64, f64)>) -> Self {
        let current = shares.last().map_or(0.0, |(_, share)| *share);
        let had = shares.iter().any(|(_, share)| *share > 0.0);
        // At 0 and at 100 a run is over; the first weight in between begins the next.
        let over = |share: f64| share <= 0.0 || share >= 100.0;
        let left = shares.windows(2).rposition(|pair| over(pair[0].1) && !over(pair[1].1)).map(|before| before + 1);
        let first = match current <= 0.0 {
            true => shares.len().saturating_sub(1),
            false => left.unwrap_or(0),
        };
        let begun = shares.get(first).and_then(|(t, _)| Timestamp::from_second(*t).ok());
        Self { begun, withdrawn: current <= 0.0 && had, shares }
    }

    /// Each sample with the share that was in force when its tick began.
    pub(super) fn with_shares(&self, samples: Vec<Sample>) -> Vec<Tick> {
        let mut begun = self.begun.map_or(0, Timestamp::as_second);
        samples
            .into_iter()
            .map(|sample| {
                let in_force = self.shares.iter().rev().find(|(t, _)| *t <= begun);
                begun = sample.t;
                sample.with_share(in_force.map_or(0.0, |(_, share)| *share))
            })
            .collect()
    }
}

impl Observed {
    /// Reads every YAML file of the branch.
    ///
    /// # Errors
    ///
    /// When there is no such branch, or a guard cannot be read.
    pub fn read(config: &Config, repository: &Repository, now: Timestamp) -> anyhow::Result<Self> {
        let branch = &config.branch;
        let head = repository
            .head(branch)?
            .with_context(|| format!("the repository has no branch `{branch}`: set `branch` in sluice.yaml"))?;
        let is_yaml = |path: &str| path.ends_with(".yaml") || path.ends_with(".yml");
        let guards_at = config.guards.trim_end_matches('/');
        let is_guard =
            |path: &str| path.strip_prefix(guards_at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let mut bad_guards = Vec::new();
        let mut observed = Self {
            head,
            guards: Vec::new(),
            notes: Vec::new(),
            broken_files: false,
            files: Vec::new(),
            routes: Vec::new(),
            bot: (config.bot.name.clone(), config.bot.email.clone()),
        };
        // A guard behind a link is a guard that is not seen, whatever the link and the folders above it are called.
        let leads_to_guards = |path: &str| guards_at.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        for (path, why) in repository.left_out(head, |path| is_yaml(path) || is_guard(path) || leads_to_guards(path))? {
            let may_guard = is_guard(&path) || leads_to_guards(&path);
            // Beside policies and guards lie files that are neither, such as scripts and pages.
            if !is_yaml(&path) && matches!(why, LeftOut::Large(_)) {
                continue;
            }
            observed.broken_files = true;
            let target = if may_guard { &mut bad_guards } else { &mut observed.notes };
            target.push(format!("{path}: left out: {why}"));
        }
        for (path, bytes) in repository.files(head, is_yaml)? {
            match File::parse(&path, &bytes) {
                Err(problems) => {
                    observed.broken_files = true;
                    let target = if is_guard(&path) { &mut bad_guards } else { &mut observed.notes };
                    target.extend(problems.iter().map(ToString::to_string));
                }
                Ok(file) => {
                    let doubts = file.documents().iter().flat_map(|document| document.warnings());
                    observed.notes.extend(doubts.map(ToString::to_string));
                    if is_guard(&path) {
                        observed.read_guards(&file, &mut bad_guards);
                    } else {
                        observed.read_routes(&file, &config.guards);
                    }
                    observed.files.push(file);
                }
            }
        }
        for problem in guard::contradictions(&observed.guards, now) {
            observed.notes.push(format!("guards: {problem}"));
        }
        if !bad_guards.is_empty() {
            // One line each, whatever the files are called.
            let bad_guards: Vec<_> = bad_guards.iter().map(|problem| visible(problem)).collect();
            bail!("guards cannot be read, so nothing is decided:\n  {}", bad_guards.join("\n  "));
        }
        if observed.guards.is_empty() {
            observed
                .notes
                .push(format!("no ShiftGuard in `{}`: nothing limits how far automation moves", config.guards));
        }
        Ok(observed)
    }

    fn read_guards(&mut self, file: &File, bad: &mut Vec<String>) {
        for document in file.documents() {
            let kind = document.value()["kind"].as_str().unwrap_or_default();
            if kind != "ShiftGuard" {
                // Other things may lie here too, but not a guard that nobody would miss.
                let group = document.value()["apiVersion"].as_str().unwrap_or_default();
                if group.starts_with("sluice.dev/") || strsim::osa_distance(&kind.to_lowercase(), "shiftguard") <= 2 {
                    let place = "kind".parse().ok().and_then(|field| document.locate(&field));
                    let (line, column) = place.map_or((1, 1), |place| (place.line, place.column));
                    bad.push(format!("{}:{line}:{column}: the kind is `{kind}`; write `ShiftGuard`", file.path()));
                }
                continue;
            }
            match ShiftGuard::read(document.value()) {
                Ok(guard) => self.guards.push(guard),
                Err(problems) => bad.extend(problems.iter().map(|problem| {
                    let (line, column) =
                        document.locate(&problem.field).map_or((1, 1), |place| (place.line, place.column));
                    format!("{}:{line}:{column}: {problem}", file.path())
                })),
            }
        }
    }

    fn read_routes(&mut self, file: &File, guards: &str) {
        for document in file.documents() {
            if !document.value().is_object() {
                continue; // a list, such as a JSON patch: no policy
            }
            if document.value()["kind"] == "ShiftGuard" {
                let what = format!("a ShiftGuard limits nothing outside of `{guards}`; move it there");
                self.notes.push(format!("{}: {what}", file.path()));
            }
            match Policy::read(document.value()) {
                Ok(Policy::Other(_)) => {}
                Ok(policy) => {
                    self.routes.push(RouteAt { file: self.files.len(), document: document.index(), policy });
                }
                Err(problems) => {
                    // Not everything in a policy repository is a policy; what says it is one of ours must read.
                    let kind = document.value().get("kind").or(document.value().get("type"));
                    let ours = ["MeshHTTPRoute", "MeshTCPRoute", "TrafficRoute"];
                    if kind.and_then(|kind| kind.as_str()).is_some_and(|kind| ours.contains(&kind)) {
                        self.broken_files = true;
                        self.notes.extend(problems.iter().map(|problem| {
                            let (line, column) =
                                document.locate(&problem.field).map_or((1, 1), |place| (place.line, place.column));
                            format!("{}:{line}:{column}: left out: {problem}", file.path())
                        }));
                    }
                }
            }
        }
    }

    /// The one document that defines a rollout's route.
    pub(super) fn route(&self, rollout: &Rollout) -> anyhow::Result<Found<'_>> {
        let wanted = reference(rollout);
        let mut found = self.routes.iter().filter(|route| wanted.matches(route.policy.identity()));
        let Some(first) = found.next() else {
            let hint = if self.broken_files { "; some files could not be read, see the notes" } else { "" };
            bail!("no file defines {wanted}: check its kind, name and namespace in sluice.yaml{hint}");
        };
        if let Some(second) = found.next() {
            let (one, other) = (self.files[first.file].path(), self.files[second.file].path());
            bail!(
                "two documents define {wanted}: {one} (document {}) and {other} (document {}); remove one",
                first.document + 1,
                second.document + 1
            );
        }
        Ok(Found { file: &self.files[first.file], document: first.document, policy: &first.policy })
    }

    /// What is odd about a route's splits, with its place.
    pub(super) fn oddities(&self, found: &Found<'_>) -> Vec<String> {
        let document = &found.file.documents()[found.document];
        let told = |problem: &Diagnostic| {
            let (line, column) = document.locate(&problem.field).map_or((1, 1), |place| (place.line, place.column));
            format!("{}:{line}:{column}: {problem}", found.file.path())
        };
        split::splits(found.policy).1.iter().map(told).collect()
    }

    /// Which weights were in force when, from the file's history.
    pub(super) fn run(&self, repository: &Repository, found: &Found<'_>, rollout: &Rollout) -> anyhow::Result<Run> {
        let wanted = reference(rollout);
        let mut shares = Vec::new();
        for (time, _, bytes) in repository.history(self.head, found.file.path())?.into_iter().rev() {
            // What did not read was not applied either: the weights before it stayed in force.
            let Some(share) = share_in(found.file.path(), &bytes, &wanted, rollout) else { continue };
            shares.push((time.as_second(), share));
        }
        Ok(Run::new(shares))
    }

    /// The shifts of every route that splits the same destinations, as guards count them.
    pub(super) fn history(&self, repository: &Repository, found: &Found<'_>) -> anyhow::Result<History> {
        let destinations = |splits: &[Split]| -> Vec<_> {
            splits.iter().map(|split| (split.mesh.clone(), split.destination.clone())).collect()
        };
        let mine = destinations(&split::splits(found.policy).0);
        let mut versions = Vec::new();
        for route in &self.routes {
            let theirs = destinations(&split::splits(&route.policy).0);
            if !theirs.iter().any(|destination| mine.contains(destination)) {
                continue;
            }
            let path = self.files[route.file].path();
            let mut before: Option<Vec<Split>> = None;
            for (time, commit, bytes) in repository.history(self.head, path)?.into_iter().rev() {
                let identity = route.policy.identity();
                let policy = policies(path, &bytes).into_iter().find(|policy| policy.identity() == identity);
                let after = policy.map(|policy| split::splits(&policy).0).unwrap_or_default();
                // How a route began is not a shift: nothing is known of what served before.
                if let Some(before) = before.replace(after.clone()) {
                    versions.push((time, commit, identity.clone(), split::change(&before, &after)));
                }
            }
        }
        versions.sort_by_key(|(time, ..)| *time);
        let mut history = History::default();
        for (time, commit, identity, change) in versions {
            let author = self.author(repository, commit)?;
            let request = Request { identity, author, change: change.into() };
            let records = guard::judge(&self.guards, &request, &history, &[], time).records;
            history.extend(records);
        }
        Ok(history)
    }

    /// Who made a change: of a merge, who made what was merged.
    fn author(&self, repository: &Repository, commit: Oid) -> anyhow::Result<Author> {
        let mut info = repository.describe(commit)?;
        if let Some(merged) = info.parents.get(1) {
            info = repository.describe(*merged)?;
        }
        let name = info.author.0.clone();
        Ok(if info.author == self.bot { Author::Bot } else { Author::Account { name, groups: Vec::new() } })
    }
}

fn reference(rollout: &Rollout) -> PolicyRef {
    PolicyRef {
        kind: format!("{:?}", rollout.route.kind),
        name: rollout.route.name.clone(),
        namespace: rollout.route.namespace.clone(),
    }
}

/// The canary's share in one version of the file; `None` where nobody can tell.
fn share_in(path: &str, bytes: &[u8], wanted: &PolicyRef, rollout: &Rollout) -> Option<f64> {
    let file = File::parse(path, bytes).ok()?;
    let mut all_read = true;
    for document in file.documents() {
        match Policy::read(document.value()) {
            Ok(policy) if wanted.matches(policy.identity()) => {
                let splits = split::splits(&policy).0;
                return match decision::canary_share(path, &policy, &splits, &rollout.stable, &rollout.canary) {
                    Ok((share, _)) => Some(share),
                    Err(DecisionError::Disagree { .. }) => None,
                    Err(_) => Some(0.0),
                };
            }
            Ok(_) => {}
            Err(_) => all_read = false,
        }
    }
    all_read.then_some(0.0)
}

/// The policies of an old version of a file; what did not read then is no policy.
fn policies(path: &str, bytes: &[u8]) -> Vec<Policy> {
    let Ok(file) = File::parse(path, bytes) else { return Vec::new() };
    file.documents().iter().filter_map(|document| Policy::read(document.value()).ok()).collect()
}

/// What to ask the mesh about a rollout.
pub(super) fn question(rollout: &Rollout, found: &Found<'_>, from: i64, to: i64) -> Question {
    let splits = split::splits(found.policy).0;
    let mesh = &found.policy.identity().mesh;
    let service = |name: &str| {
        let backend = splits.iter().find_map(|split| split.find(name).ok());
        let mut service = Service::named(mesh, backend.map_or(name, |backend| &*backend.name));
        service.namespace = backend.and_then(|backend| backend.namespace.as_deref().map(str::to_owned));
        service
    };
    let objectives = &rollout.objectives;
    let mut asked = Vec::new();
    asked.extend(objectives.errors.map(|_| Objective::Errors));
    asked.extend(objectives.slow.map(|slow| Objective::Slow { over: slow.over }));
    asked.extend(objectives.business.keys().map(|name| Objective::Score { name: name.clone() }));
    Question { stable: service(&rollout.stable), canary: service(&rollout.canary), objectives: asked, from, to }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(run: &Run) -> Option<i64> {
        run.begun.map(Timestamp::as_second)
    }

    #[test]
    fn a_run_begins_with_the_first_weight_after_none() {
        assert_eq!(second(&Run::new(vec![(10, 5.0), (20, 10.0)])), Some(10));
        assert_eq!(second(&Run::new(vec![(10, 0.0), (20, 5.0), (30, 10.0)])), Some(20));
        let again = Run::new(vec![(10, 25.0), (20, 0.0), (30, 5.0)]);
        assert_eq!((second(&again), again.withdrawn), (Some(30), false));
    }

    #[test]
    fn a_canary_that_lost_its_weight_is_withdrawn_and_one_that_never_had_any_is_not() {
        assert!(Run::new(vec![(10, 25.0), (20, 0.0)]).withdrawn);
        let waiting = Run::new(vec![(10, 0.0), (20, 0.0)]);
        assert_eq!((second(&waiting), waiting.withdrawn), (Some(20), false));
        assert_eq!(second(&Run::new(Vec::new())), None);
    }

    #[test]
    fn a_canary_taken_back_from_100_percent_begins_a_run() {
        assert_eq!(second(&Run::new(vec![(10, 50.0), (20, 100.0), (30, 100.0)])), Some(10));
        assert_eq!(second(&Run::new(vec![(10, 50.0), (20, 100.0), (30, 50.0), (40, 75.0)])), Some(30));
        assert_eq!(second(&Run::new(vec![(10, 50.0), (20, 100.0), (30, 50.0), (40, 100.0)])), Some(30));
    }

    #[test]
    fn a_tick_belongs_to_the_weight_it_began_under() {
        let run = Run::new(vec![(100, 5.0), (190, 10.0)]);
        let sample = |t| Sample { t, signals: Default::default(), replicas: None };
        let shares: Vec<_> =
            run.with_shares([130, 160, 190, 220].map(sample).into()).iter().map(|tick| tick.share).collect();
        assert_eq!(shares, [5.0, 5.0, 5.0, 10.0]);
    }
}
