//! `sluice propose`: one pass over every rollout.

use super::{Format, say, whole_or_part};
use crate::config::Config;
use crate::forge::{Action, Forge, Local};
use crate::metrics::Metrics;
use crate::reconcile::{Decided, Pass};
use crate::repository::Repository;
use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_rules::decision::{Decision, Outcome};
use sluice_rules::proposal::body::escape::visible;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Decide every rollout once, and open, refresh or close its pull request
#[derive(Debug, Args)]
#[command(after_long_help = "\
Equal content means zero writes: run it as often as you like.

Examples:
  sluice propose --config sluice.yaml --dry-run
  sluice propose --config sluice.yaml --format json | jq '.rollouts[] | {name, decision}'")]
pub struct ProposeArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "sluice.yaml")]
    config: PathBuf,
    /// Decide and print, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Decide as of this time [default: now; with a recording, its last tick]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// How to print what was decided
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub fn run(arguments: &ProposeArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    let recording = config.recording()?;
    let path = config.local_forge()?;
    let metrics = Metrics::recording(&recording)?;
    let now = match arguments.at {
        Some(at) => at,
        None => metrics
            .newest()
            .with_context(|| format!("{}: holds no tick; record it again over a longer time", recording.display()))?,
    };
    let repository = Repository::open(&path)?;
    let forge = Forge::Local(Local::open(&path, config.bot())?);
    let pass = Pass { config: &config, repository: &repository, forge: &forge, metrics: &metrics };
    let decided = pass.decide(now)?;
    let pulls = if arguments.dry_run { Vec::new() } else { pass.act(&decided, now)? };
    let mut out = std::io::stdout().lock();
    let failed = pulls.iter().any(|pull| matches!(pull.action, Action::Failed(_)));
    match arguments.format {
        Format::Json => {
            let rollouts: Vec<Value> = decided
                .rollouts
                .iter()
                .map(|(name, decision)| match decision {
                    Ok(decision) => json!({ "name": name, "share": decision.share, "decision": decision.outcome,
                        "compared": decision.compared }),
                    Err(error) => json!({ "name": name, "error": error }),
                })
                .collect();
            let pulls: Vec<Value> = pulls
                .iter()
                .map(|pull| json!({ "number": pull.number, "key": pull.key, "action": told(&pull.action) }))
                .collect();
            let all = json!({ "time": now.to_string(), "dryRun": arguments.dry_run, "rollouts": rollouts,
                "pulls": pulls, "notes": decided.notes });
            writeln!(out, "{all:#}")?;
        }
        Format::Text => {
            for (name, decision) in &decided.rollouts {
                writeln!(out, "{name}: {}", visible(&sentence(decision)))?;
                for line in decision.iter().flat_map(|decision| &decision.compared) {
                    writeln!(out, "  {}", visible(line))?;
                }
            }
            for pull in &pulls {
                let number = pull.number.map_or("pull request".to_owned(), |number| format!("pull request #{number}"));
                writeln!(out, "{number}: {}", visible(&told(&pull.action)))?;
            }
            if arguments.dry_run {
                writeln!(out, "dry run: nothing was written")?;
            }
            for note in &decided.notes {
                say(&format!("note: {}", visible(note)));
            }
        }
    }
    Ok(whole_or_part(is_whole(&decided) && !failed))
}

/// Whether every file and every rollout could be used.
pub fn is_whole(decided: &Decided) -> bool {
    !decided.broken_files && decided.rollouts.iter().all(|(_, decision)| decision.is_ok())
}

/// A decision in one line.
pub fn sentence(decision: &Result<Decision, String>) -> String {
    let decision = match decision {
        Ok(decision) => decision,
        Err(error) => return format!("error: {error}"),
    };
    let share = decision.share;
    match &decision.outcome {
        Outcome::Hold { why, .. } => format!("hold at {share} %: {why}"),
        Outcome::Held { why, until: Some(until) } => format!("held at {share} % until {until}: {why}"),
        Outcome::Held { why, until: None } => format!("held at {share} %: {why}"),
        Outcome::Shadow { would } => format!("shadow at {share} %: {would}"),
        Outcome::Over { why } => format!("over at {share} %: {why}"),
        Outcome::Propose { proposal, .. } => format!(
            "{} {share} % → {} %: {}{}",
            crate::reconcile::kind_word(proposal.kind),
            proposal.to,
            proposal.evidence.claim.reason,
            proposal.person.as_ref().map(|person| format!(" ({person})")).unwrap_or_default()
        ),
    }
}

/// What became of a pull request, in words.
pub fn told(action: &Action) -> String {
    match action {
        Action::Opened => "opened".to_owned(),
        Action::Updated => "refreshed with new content".to_owned(),
        Action::Rebuilt => "rebuilt on the newer base".to_owned(),
        Action::Unchanged => "unchanged".to_owned(),
        Action::Merged => "merged".to_owned(),
        Action::Closed(reason) => format!("closed: {reason}"),
        Action::InBase => "nothing to do: the base has this content already".to_owned(),
        Action::Declined(reason) => format!("not offered again: {reason}"),
        Action::LeftToPeople => "left to the people who work on its branch".to_owned(),
        Action::Kept => "kept".to_owned(),
        Action::Failed(error) => format!("failed: {error}"),
    }
}
