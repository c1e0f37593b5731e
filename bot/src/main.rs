//! Arguments and signals.

use clap::{Parser, Subcommand};
use sluice_bot::{command, repository};
use std::process::ExitCode;

/// Moves traffic between versions of services behind Kuma, by pull request
#[derive(Parser)]
#[command(
    name = "sluice",
    version,
    after_help = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done in part (what was left out is named),
4 a verification found differences, 130 interrupted (what was written is whole; run again)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(command::demo::DemoArgs),
    Propose(command::propose::ProposeArgs),
    Judge(command::judge::JudgeArgs),
    Verify(command::verify::VerifyArgs),
    Record(command::record::Args),
    Config(command::config::Args),
    Validate(command::validate::ValidateArgs),
    Explain(command::explain::ExplainArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Every write is whole by itself, and the next run makes up for what this one left out: stopping is safe as soon as
    // no reference is half-way.
    let on_signal = ctrlc::set_handler(|| {
        let _whole = repository::finish_write();
        command::say("\ninterrupted: what was written is whole; run the command again to finish");
        std::process::exit(command::INTERRUPTED.into());
    });
    if let Err(error) = on_signal {
        command::say(&format!("note: signals are not handled: {error}"));
    }
    let result = match cli.command {
        Command::Demo(arguments) => command::demo::run(&arguments),
        Command::Propose(arguments) => command::propose::run(&arguments),
        Command::Judge(arguments) => command::judge::run(&arguments),
        Command::Verify(arguments) => command::verify::run(&arguments),
        Command::Record(arguments) => command::record::run(arguments),
        Command::Config(arguments) => command::config::run(arguments),
        Command::Validate(arguments) => command::validate::run(&arguments),
        Command::Explain(arguments) => command::explain::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        command::say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}
