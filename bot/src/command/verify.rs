//! `sluice verify`: recompute a verdict offline, from the evidence a pull request carries.

use super::{DIFFERS, Format};
use crate::config::Config;
use crate::forge::{Bot, Forge, Local};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use sluice_rules::evidence::Evidence;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Recompute the verdict of a pull request from the evidence it carries
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes: 0 equal, 4 different (each difference is named), 1 not verifiable.

Examples:
  sluice verify 3 --repository sluice-demo/repository.git
  git -C sluice-demo/repository.git show refs/sluice/pulls/3:evidence.json | sluice verify -")]
pub struct VerifyArgs {
    /// A pull request's number, or a file with evidence (`-`: standard input)
    #[arg(value_name = "PULL|FILE")]
    what: String,
    /// The repository that holds the pull request [default: the one that the configuration names]
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,
    /// The configuration that names the repository
    #[arg(long, value_name = "FILE", default_value = "sluice.yaml")]
    config: PathBuf,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// More evidence than this is refused.
const MOST_BYTES: u64 = 64 << 20;

/// Runs the command.
pub fn run(arguments: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let mut promised = None;
    let bytes = match arguments.what.parse::<u64>() {
        Ok(number) => {
            let pull = open(arguments)?
                .pull(number)?
                .with_context(|| format!("there is no pull request #{number} in this repository"))?;
            promised = Some(pull.content.body);
            pull.content.evidence
        }
        Err(_) => read(&arguments.what)?,
    };
    let evidence = evidence(&arguments.what, &bytes)?;
    let mut differences = evidence.verify().with_context(|| format!("`{}` cannot be judged", arguments.what))?;
    // A pull request names the digest of its evidence; evidence that was swapped whole would verify by itself.
    if promised.is_some_and(|body| !body.contains(&evidence.digest)) {
        differences.push(sluice_rules::evidence::Difference {
            field: "digest in the pull request".to_owned(),
            claimed: "another".to_owned(),
            recomputed: evidence.digest.clone(),
        });
    }
    let mut out = std::io::stdout().lock();
    match arguments.format {
        Format::Json => writeln!(
            out,
            "{:#}",
            json!({ "equal": differences.is_empty(), "call": evidence.claim.call, "share": evidence.claim.share,
                "ticks": evidence.ticks.len(), "digest": evidence.digest, "differences": differences })
        )?,
        Format::Text if differences.is_empty() => writeln!(
            out,
            "equal: {:?} at {} % follows from {} ticks ({})",
            evidence.claim.call,
            evidence.claim.share,
            evidence.ticks.len(),
            evidence.claim.reason
        )?,
        Format::Text => {
            writeln!(out, "different:")?;
            for difference in &differences {
                writeln!(out, "  {difference}")?;
            }
        }
    }
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
}

fn evidence(what: &str, bytes: &[u8]) -> anyhow::Result<Evidence> {
    const FORMAT: u32 = sluice_rules::evidence::FORMAT;
    let read = serde_json::from_slice::<Evidence>(bytes);
    // A newer format may hold what this one does not know: say that rather than which field it was.
    let format = read.is_err().then(|| serde_json::from_slice::<Value>(bytes).ok()?.get("format")?.as_u64()).flatten();
    match format {
        Some(newer) if newer > u64::from(FORMAT) => bail!(
            "`{what}` was made by a newer sluice: it is evidence of format {newer}, and this one reads format {FORMAT}; \
             verify it with a newer sluice"
        ),
        _ => read.with_context(|| {
            format!("`{what}` holds no evidence of format {FORMAT}: give `evidence.json` of a pull request, whole")
        }),
    }
}

fn open(arguments: &VerifyArgs) -> anyhow::Result<Forge> {
    // Reading needs no identity.
    let nobody = Bot { id: String::new(), name: String::new(), email: String::new() };
    let path = match &arguments.repository {
        Some(path) => path.clone(),
        None if arguments.config.exists() => Config::load(&arguments.config)?.local_forge()?,
        None => bail!("which repository? give `--repository DIR` or `--config FILE`"),
    };
    Ok(Forge::Local(Local::open(&path, nobody)?))
}

fn read(what: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = MOST_BYTES + 1;
    let read = if what == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(Path::new(what));
        file.and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read `{what}`: give a pull request's number or a file with evidence"))?;
    if bytes.len() as u64 > MOST_BYTES {
        bail!("`{what}` is larger than {MOST_BYTES} bytes");
    }
    Ok(bytes)
}
