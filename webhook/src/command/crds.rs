//! `sluice-webhook crds`.

use crate::crds;
use anyhow::Context;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Prints the CustomResourceDefinitions: `sluice-webhook crds | kubectl apply --server-side -f -`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one file each into this folder instead
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
///
/// A file or the standard output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    for definition in crds::all() {
        let (name, text) = crds::file(&definition)?;
        match &args.folder {
            Some(folder) => {
                let path = folder.join(name);
                std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
            }
            None => write!(std::io::stdout(), "---\n{text}").context("cannot write to the standard output")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
