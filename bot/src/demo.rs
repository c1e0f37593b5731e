//! A small mesh over recorded time: passes of the bot, merges as a reviewer would make them, and what is left.

use crate::config::Config;
use crate::forge::{Action, Forge, Local, Pull, State};
use crate::metrics::{FileError, Metrics, Recording};
use crate::reconcile::{Decided, Pass, canary_shares};
use crate::report::{Outcome as StoryOutcome, PullView, Report, Story};
use crate::repository::{Repository, Signature, branch_ref};
use anyhow::{Context, bail};
use jiff::Timestamp;
use sluice_rules::canary::{Call, Cause, Tick};
use sluice_rules::decision::{Decision, Outcome};
use sluice_rules::evidence::{Evidence, Point};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The configuration, with paths that start at the demo's folder.
pub const CONFIG: &str = include_str!("../../testdata/demo/sluice.yaml");
/// The recording the demo runs over.
pub const RECORDING: &[u8] = include_bytes!("../../testdata/demo/mesh.sluice.gz");
/// The policy repository as the people of the demo committed it.
const FILES: [(&str, &str); 12] = [
    ("README.md", include_str!("../../testdata/demo/repository/README.md")),
    ("guards/model-serving.yaml", include_str!("../../testdata/demo/repository/guards/model-serving.yaml")),
    ("guards/trust-night.yaml", include_str!("../../testdata/demo/repository/guards/trust-night.yaml")),
    ("policies/chat.yaml", include_str!("../../testdata/demo/repository/policies/chat.yaml")),
    ("policies/classify.yaml", include_str!("../../testdata/demo/repository/policies/classify.yaml")),
    ("policies/embed.yaml", include_str!("../../testdata/demo/repository/policies/embed.yaml")),
    ("policies/gateway.yaml", include_str!("../../testdata/demo/repository/policies/gateway.yaml")),
    ("policies/llm.yaml", include_str!("../../testdata/demo/repository/policies/llm.yaml")),
    ("policies/moderate.yaml", include_str!("../../testdata/demo/repository/policies/moderate.yaml")),
    ("policies/rerank.yaml", include_str!("../../testdata/demo/repository/policies/rerank.yaml")),
    ("policies/summarize.yaml", include_str!("../../testdata/demo/repository/policies/summarize.yaml")),
    ("policies/translate.yaml", include_str!("../../testdata/demo/repository/policies/translate.yaml")),
];
/// Marks a folder as made by the demo, so that the next one may replace what the demo made there.
const MARK: &str = ".sluice-demo";
/// What a demo makes beside its mark.
const MADE: [&str; 4] = ["repository.git", "report.html", "sluice.yaml", "mesh.sluice.gz"];

/// The first pass, seconds since 1970 UTC: 21:30:07 on 24 November 2026, two hours and ten minutes before the mesh that
/// really ran.
pub const BEGIN: i64 = LLM_BEGIN - 130 * 60;
/// The recorded mesh's minute 0.
pub const LLM_BEGIN: i64 = 1_795_563_607;
/// Its people moved the weights to 75/25 in minute 5.
const LLM_MOVED: i64 = LLM_BEGIN + 5 * 60;
/// The last pass.
pub const END: i64 = LLM_BEGIN + 25 * 60;
/// Seconds between passes.
pub const EVERY: i64 = 60;
/// How long a reviewer takes for a promotion, in seconds; a rollback is merged at the next look.
const REVIEW: i64 = 120;

/// The mesh as the passes see it.
pub trait World {
    /// What is known at `now`, while the canaries have these shares (percent, by rollout).
    fn at(&mut self, now: i64, shares: &BTreeMap<String, f64>) -> &Metrics;
}

/// A mesh that was recorded.
pub struct Recorded(pub Metrics);

impl World for Recorded {
    fn at(&mut self, _: i64, _: &BTreeMap<String, f64>) -> &Metrics {
        &self.0
    }
}

/// What a demo leaves.
pub struct Summary {
    /// Every pull request.
    pub pulls: Vec<Pull>,
    /// The stories, for the report and for a person.
    pub report: Report,
    /// Passes made.
    pub passes: usize,
}

/// Makes an empty folder for a demo; one that an earlier demo left is replaced.
///
/// # Errors
///
/// When something else is there.
pub fn prepare(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        let mut entries = fs::read_dir(dir).with_context(|| format!("cannot read `{}`", dir.display()))?;
        if dir.join(MARK).exists() {
            // The mark stays and nothing else goes: a demo that is killed here is replaced by the next one all the same.
            for name in MADE {
                remove(&dir.join(name)).with_context(|| format!("cannot replace `{}`", dir.join(name).display()))?;
            }
        } else if entries.next().is_some() {
            bail!("`{}` holds other things: name an empty or new folder with `--out`", dir.display());
        }
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    fs::write(dir.join(MARK), b"made by `sluice demo`, which may replace what it made in this folder\n")
        .with_context(|| format!("cannot write `{}`", dir.join(MARK).display()))?;
    write(&dir.join("sluice.yaml"), CONFIG.as_bytes())?;
    write(&dir.join("mesh.sluice.gz"), RECORDING)
}

/// Writes a whole file of the demo, or nothing.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    // One name for all: what a killed demo left is overwritten by the next.
    let partial = path.with_file_name(".sluice-demo.partial");
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens the recording a prepared folder holds.
///
/// # Errors
///
/// When it cannot be read.
pub fn recorded(dir: &Path) -> Result<Recorded, FileError> {
    Ok(Recorded(Metrics::Recording(Recording::open(&dir.join("mesh.sluice.gz"))?)))
}

/// Runs the demo in a prepared folder. `progress` hears of each pass, from 0 to 1.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn run(dir: &Path, world: &mut dyn World, progress: &mut dyn FnMut(f64)) -> anyhow::Result<Summary> {
    let mut demo = Demo::begin(dir)?;
    let mut passes = 0;
    for now in (BEGIN + EVERY..=END).step_by(EVERY as usize) {
        demo.people(now)?;
        let shares = canary_shares(&demo.config, &demo.repository)?;
        let metrics = world.at(now, &shares);
        demo.pass(metrics, now)?;
        demo.review(now)?;
        passes += 1;
        progress((now - BEGIN) as f64 / (END - BEGIN) as f64);
    }
    let report = demo.report()?;
    Ok(Summary { pulls: demo.forge.list(&Default::default())?, report, passes })
}

struct Demo {
    config: Config,
    repository: Repository,
    forge: Forge,
    /// The newest evidence of each rollout, and when it was first and last decided.
    evidence: BTreeMap<String, Evidence>,
    last: BTreeMap<String, Result<Decision, String>>,
    events: BTreeMap<String, Vec<(i64, String)>>,
    notes: Vec<String>,
}

fn time(t: i64) -> anyhow::Result<Timestamp> {
    Timestamp::from_second(t).context("a time of the demo")
}

fn team(t: i64) -> anyhow::Result<Signature> {
    Ok(Signature { name: "Platform team".into(), email: "platform@example.org".into(), time: time(t)? })
}

impl Demo {
    fn begin(dir: &Path) -> anyhow::Result<Self> {
        let config = Config::load(&dir.join("sluice.yaml"))?;
        let path: PathBuf = config.local_forge()?;
        let repository = Repository::init_bare(&path)?;
        let files: Vec<_> = FILES.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect();
        let first = repository.commit(&[], None, &files, "Mesh policies\n", &team(BEGIN)?)?;
        repository.update_ref(&branch_ref(&config.branch), first, None)?;
        let forge = Forge::Local(Local::open(&path, config.bot())?);
        let (evidence, last, events) = Default::default();
        Ok(Self { config, repository, forge, evidence, last, events, notes: Vec::new() })
    }

    /// What the people of the recorded mesh did to its weights.
    fn people(&mut self, now: i64) -> anyhow::Result<()> {
        for (at, [v1, v2]) in [(LLM_BEGIN, [90, 10]), (LLM_MOVED, [75, 25])] {
            if !(at <= now && now - EVERY < at) {
                continue;
            }
            let branch = branch_ref(&self.config.branch);
            let head = self.repository.target(&branch)?.context("the demo's branch")?;
            let path = "policies/llm.yaml".to_owned();
            let bytes = self.repository.file(head, &path)?.context("the recorded route")?;
            let file = sluice_rules::document::File::parse(&path, &bytes)
                .map_err(|problems| anyhow::anyhow!("{}", problems[0]))?;
            let weight = |backend: usize, value: u64| {
                let field = format!("spec.to[0].rules[0].default.backendRefs[{backend}].weight");
                field.parse().map(|field| sluice_rules::document::Edit { field, value })
            };
            let text = file.edit(0, &[weight(0, v1)?, weight(1, v2)?])?;
            let message = format!("llm: {v1}/{v2}\n");
            let next =
                self.repository.commit(&[head], Some(head), &[(path, text.into_bytes())], &message, &team(at)?)?;
            self.repository.update_ref(&branch, next, Some(head))?;
            self.event("llm", at, format!("the platform team sets {v1}/{v2} by hand"));
        }
        Ok(())
    }

    fn event(&mut self, rollout: &str, at: i64, what: String) {
        self.events.entry(rollout.to_owned()).or_default().push((at, what));
    }

    fn told_merge(&self, number: u64) -> bool {
        let told = format!("merges #{number}");
        self.events.values().flatten().any(|(_, what)| what.ends_with(&told))
    }

    fn pass(&mut self, metrics: &Metrics, now: i64) -> anyhow::Result<()> {
        let at = time(now)?;
        let pass = Pass { config: &self.config, repository: &self.repository, forge: &self.forge, metrics };
        let decided = pass.decide(at)?;
        let done = pass.act(&decided, at)?;
        for outcome in done {
            let Some(number) = outcome.number else { continue };
            let what = match &outcome.action {
                Action::Opened => "opened".to_owned(),
                // Where the bot merged; a reviewer's merge is told when it is made.
                Action::Merged if !self.told_merge(number) => "merged".to_owned(),
                Action::Closed(reason) => format!("closed: {reason}"),
                Action::Failed(error) => bail!("pull request #{number}: {error}"),
                _ => continue,
            };
            if let Some(pull) = self.forge.pull(number)? {
                self.event(&scope(&pull), now, format!("pull request #{number} {what}"));
            }
        }
        self.remember(decided);
        Ok(())
    }

    fn remember(&mut self, decided: Decided) {
        for (name, decision) in decided.rollouts {
            if let Ok(Decision { evidence: Some(evidence), .. }) = &decision {
                self.evidence.insert(name.clone(), evidence.clone());
            }
            self.last.insert(name, decision);
        }
        self.notes = decided.notes;
    }

    /// Merges what a reviewer would merge: rollbacks at once, promotions after a look, questions not at all.
    fn review(&mut self, now: i64) -> anyhow::Result<()> {
        for pull in self.forge.list(&crate::forge::Filter { open: true, ..Default::default() })? {
            let labelled = |label: &str| pull.content.labels.iter().any(|l| l == label);
            let waited = now - pull.created.as_second();
            if labelled("sluice/rollback") || (labelled("sluice/promote") && waited >= REVIEW) {
                let message = format!("Merge pull request #{}: {}\n", pull.number, pull.content.title);
                self.repository.merge(&pull.base, pull.content.head, &message, &team(now)?)?;
                self.event(&scope(&pull), now, format!("the platform team merges #{}", pull.number));
            }
        }
        Ok(())
    }

    fn report(&mut self) -> anyhow::Result<Report> {
        let pulls = self.forge.list(&Default::default())?;
        let mut rollouts = Vec::new();
        for rollout in &self.config.rollouts {
            let Some(Ok(decision)) = self.last.get(&rollout.name) else {
                let error = self.last.get(&rollout.name).and_then(|last| last.as_ref().err().cloned());
                bail!("{}: {}", rollout.name, error.unwrap_or_else(|| "was never decided".to_owned()));
            };
            let Some(evidence) = self.evidence.get(&rollout.name) else {
                bail!("{}: nothing was seen", rollout.name);
            };
            let points = evidence.points()?;
            let mut ticks = evidence.ticks.clone();
            // After the last weight is gone there is nothing to judge; the chart shows that it went.
            if let Some(last) = ticks.last().filter(|last| decision.share < last.share).cloned() {
                ticks.push(Tick { t: last.t + EVERY, share: decision.share, signals: BTreeMap::new(), replicas: None });
            }
            let (outcome, headline, explanation) = told(decision, &points);
            let mine = pulls.iter().filter(|pull| scope(pull) == rollout.name);
            rollouts.push(Story {
                subject: decision.subject.clone(),
                headline,
                explanation,
                outcome,
                points,
                ticks,
                policy: evidence.policy.clone(),
                pulls: mine.map(|pull| self.view(pull)).collect::<anyhow::Result<_>>()?,
                events: self.events.get(&rollout.name).cloned().unwrap_or_default(),
            });
        }
        let mut notes = self.notes.clone();
        notes.push(
            "Arrivals, token sizes and the load's shape come from public traces of LLM services; service times, errors and \
             faults are simulated. `llm` is no simulation: it is the recording of a Kuma mesh that ran."
                .to_owned(),
        );
        Ok(Report { title: "Sluice demo".to_owned(), generated: END, mesh: self.config.mesh.clone(), rollouts, notes })
    }

    fn view(&self, pull: &Pull) -> anyhow::Result<PullView> {
        Ok(PullView {
            number: pull.number,
            title: pull.content.title.clone(),
            state: match &pull.state {
                State::Open => "open".to_owned(),
                State::Merged => "merged".to_owned(),
                State::Closed { reason, .. } => format!("closed: {reason}"),
            },
            opened: pull.created.as_second(),
            ended: pull.merged_at.or(pull.closed_at).map(Timestamp::as_second),
            body_markdown: pull.content.body.clone(),
            diff: self.repository.diff(pull.content.base_at, pull.content.head)?,
        })
    }
}

/// The rollout a pull request is for; branches are `sluice/canary/<rollout>-<8 hex digits>`.
fn scope(pull: &Pull) -> String {
    let name = pull.branch.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('-').map_or(name, |(scope, _)| scope).to_owned()
}

fn told(decision: &Decision, points: &[Point]) -> (StoryOutcome, String, String) {
    let first = points.first().map_or(0, |point| point.t);
    let minutes = |to: i64| (to - first) / 60;
    let share = decision.share;
    match &decision.outcome {
        Outcome::Over { .. } if share >= 100.0 => {
            let at = points.iter().find(|point| point.share >= 100.0).map_or(first, |point| point.t);
            let mut climbed: Vec<f64> = points.iter().map(|point| point.share).collect();
            climbed.dedup();
            let climbed: Vec<String> = climbed.iter().map(|share| format!("{share}")).collect();
            let why = format!(
                "Climbed {} %. Each rung was left when every signal was shown to be safe on it, and guards paced the writes.",
                climbed.join(" → ")
            );
            (StoryOutcome::Promoted, format!("Promoted to 100 % in {} minutes", minutes(at)), why)
        }
        Outcome::Over { why } => {
            let found = points.iter().find(|point| point.claim.call == Call::Rollback);
            let (at, reason) = found.map_or((first, why.as_str()), |point| (point.t, point.claim.reason.as_str()));
            let headline = format!("Rolled back in minute {}", minutes(at));
            (StoryOutcome::RolledBack, headline, plain(&format!("{reason}; {why}")))
        }
        Outcome::Held { why, until } => {
            let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
            (StoryOutcome::Frozen, format!("Ready, and held by a guard{until}"), plain(why))
        }
        Outcome::Hold { cause: Cause::Undecided, why } => {
            (StoryOutcome::Undecided, format!("Undecided at {share} % for lack of data"), plain(why))
        }
        Outcome::Hold { why, .. } => (StoryOutcome::Held, format!("Held at {share} %"), plain(why)),
        Outcome::Shadow { would } => (StoryOutcome::Shadow, format!("Shadow at {share} %"), plain(would)),
        Outcome::Propose { proposal, .. } => {
            let why = proposal.person.as_ref().unwrap_or(&proposal.evidence.claim.reason);
            (StoryOutcome::Asks, format!("Asks a person at {share} %"), plain(why))
        }
    }
}

/// A sentence that begins with a capital letter, without the marks of code.
fn plain(why: &str) -> String {
    let mut letters = why.chars().filter(|letter| *letter != '`');
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
