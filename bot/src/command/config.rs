//! `sluice config`: is `sluice.yaml` right, and what may it say?

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;

/// Check `sluice.yaml`, or print its JSON Schema.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print the JSON Schema of `sluice.yaml`, for editors.
    Schema,
    /// Report every mistake in a file, each with its place.
    Check {
        /// The file to check.
        #[arg(default_value = "sluice.yaml")]
        file: PathBuf,
    },
}

/// Runs the command; a file with mistakes exits with 1.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Schema => {
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&Config::schema())?)?;
            Ok(ExitCode::SUCCESS)
        }
        What::Check { file } => match Config::load(&file) {
            Ok(config) => {
                let rollouts = match config.rollouts.len() {
                    1 => "1 rollout".to_owned(),
                    count => format!("{count} rollouts"),
                };
                writeln!(io::stdout(), "{}: no mistakes, {rollouts}", file.display())?;
                Ok(ExitCode::SUCCESS)
            }
            Err(errors) => {
                writeln!(io::stderr(), "{errors}")?;
                Ok(ExitCode::FAILURE)
            }
        },
    }
}
