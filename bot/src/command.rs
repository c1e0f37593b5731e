//! One file per command of `sluice`.

pub mod config;
pub mod demo;
pub mod explain;
pub mod judge;
pub mod propose;
pub mod record;
pub mod validate;
pub mod verify;

use sluice_rules::proposal::body::escape::visible;
use std::io::Write;
use std::process::ExitCode;

/// Done, but some files or rollouts could not be used; they are named.
pub const IN_PART: u8 = 3;
/// A verification found differences.
pub const DIFFERS: u8 = 4;
/// Stopped by a signal.
pub const INTERRUPTED: u8 = 130;

/// Who reads what a command prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A person.
    #[default]
    Text,
    /// A program.
    Json,
}

/// Says something on standard error. A reader that went away is no reason to stop: `eprintln!` would panic then.
///
/// What is said may quote files and telemetry, so characters that a terminal would obey become visible.
pub fn say(text: &str) {
    let lines = text.split('\n').map(visible).collect::<Vec<_>>();
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
}

/// The exit code of a command that did all of its work, or only a part.
fn whole_or_part(whole: bool) -> ExitCode {
    if whole { ExitCode::SUCCESS } else { ExitCode::from(IN_PART) }
}
