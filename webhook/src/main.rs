//! Arguments and exit codes.

use clap::{Parser, Subcommand};
use sluice_webhook::command;
use std::process::ExitCode;

/// A review is a thousand small pieces of memory, taken on one thread and given back on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Admits changes of Kuma policies: caps on automated traffic shifts, and a health score
#[derive(Parser)]
#[command(name = "sluice-webhook", version, after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<command::serve::Args>),
    Replay(command::replay::Args),
    Cel(command::cel::Args),
    Crds(command::crds::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => command::serve::run(&args),
        Command::Replay(args) => command::replay::run(&args),
        Command::Cel(args) => command::cel::run(&args),
        Command::Crds(args) => command::crds::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
