//! Arguments and signals.

use clap::{Parser, Subcommand};
use sluice_bot::command;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "sluice", version, about = "Moves traffic between versions behind Kuma by pull request")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Judge(command::judge::JudgeArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Judge(arguments) => command::judge::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
