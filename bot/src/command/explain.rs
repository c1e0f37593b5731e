//! `sluice explain`: what a health rule sees, why it matters and what to do.

use super::say;
use anyhow::Context;
use clap::Args;
use sluice_rules::health::{self, RULES};
use std::io::{self, Write};
use std::process::ExitCode;

/// Explain a health rule: what it sees, why it matters, what to do, when it stays quiet
#[derive(Debug, Args)]
#[command(after_long_help = "\
A rule is named by its id (KMH-T05), the short form of it (T05) or its name (backends-serve-nobody).
Exit codes: 0 done, 2 there is no such rule.

Examples:
  sluice explain KMH-T05
  sluice explain backends-serve-nobody
  sluice explain --list")]
pub struct ExplainArgs {
    /// The rule
    #[arg(required_unless_present = "list", conflicts_with = "list", value_name = "ID")]
    rule: Option<String>,
    /// List all rules: id, severity, name, summary
    #[arg(long)]
    list: bool,
}

const UNKNOWN: u8 = 2;

/// Runs the command.
pub fn run(arguments: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let text = match &arguments.rule {
        Some(wanted) => match health::rule(wanted) {
            Some(rule) => rule.explanation.to_owned(),
            None => {
                let near: Vec<_> = nearest(wanted).into_iter().map(|name| format!("`{name}`")).collect();
                say(&format!("error: there is no rule `{wanted}`; did you mean {}? --list shows all", near.join(", ")));
                return Ok(ExitCode::from(UNKNOWN));
            }
        },
        None => list(),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.context("cannot write the page").map(|()| ExitCode::SUCCESS),
    }
}

fn list() -> String {
    let width = RULES.iter().map(|rule| rule.name.len()).max().unwrap_or_default();
    let rows = RULES
        .iter()
        .map(|rule| format!("{}  {:8}  {:width$}  {}\n", rule.id, rule.severity.as_str(), rule.name, rule.summary));
    rows.collect()
}

/// The three names that are spelt most alike.
fn nearest(wanted: &str) -> Vec<&'static str> {
    let wanted = wanted.to_lowercase();
    let mut names: Vec<_> = RULES.iter().flat_map(|rule| [rule.id, rule.name]).collect();
    let distance = |name: &str| {
        let name = name.to_lowercase();
        let short = strsim::damerau_levenshtein(name.trim_start_matches("kmh-"), &wanted);
        short.min(strsim::damerau_levenshtein(&name, &wanted))
    };
    names.sort_by_cached_key(|name| distance(name));
    names.truncate(3);
    names
}
