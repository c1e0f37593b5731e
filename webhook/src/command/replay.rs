//! `sluice-webhook replay`: the answers that the server would give, offline.

use super::context;
use crate::admission::{Admission, Answer, Clock};
use crate::guards;
use crate::ledger::{Ledger, Memory};
use crate::world::Shared;
use anyhow::Context;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Answer recorded AdmissionReviews as the server would, one JSON line each
///
/// A line is an AdmissionReview, or an object that holds one under `review`. History starts empty and grows with each
/// review that is not a dry run, as in a server without a cluster. Exit codes: 0 all lines answered, 2 a line or the
/// guards cannot be read.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The reviews, one per line; `-` reads standard input
    pub reviews: PathBuf,
    /// ShiftGuard and ShiftApproval documents: a file or a folder
    #[arg(long, value_name = "PATH")]
    pub guards: PathBuf,
    /// The time of all reviews, such as 2026-11-25T12:00:00Z; left out: now
    #[arg(long, value_name = "TIME")]
    pub now: Option<Timestamp>,
    #[command(flatten)]
    context: context::Args,
}

/// Runs the command.
///
/// # Errors
///
/// What stops it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match replay(args) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(ExitCode::from(2))
        }
    }
}

fn replay(args: &Args) -> anyhow::Result<()> {
    let rules = guards::load(&args.guards).map_err(|problems| anyhow::anyhow!("{}", problems.join("\n")))?;
    let world = Shared::default();
    world.update(|world| {
        world.guards.clone_from(&rules.guards);
        world.approvals.clone_from(&rules.approvals);
        world.kuma = args.context.kuma().into();
    });
    let mut admission = Admission::new(world, Ledger::Memory(Memory::default()));
    args.context.name_accounts(&mut admission.settings);
    admission.clock = args.now.map_or(Clock::System, Clock::Fixed);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let path = args.reviews.display();
    let mut input = open(&args.reviews)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if input.read_until(b'\n', &mut line).with_context(|| format!("cannot read {path}:{number}"))? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let body = review(text).with_context(|| format!("{path}:{number} is no JSON"))?;
        let deadline = Instant::now() + PATIENCE;
        let answer = runtime.block_on(admission.answer(body, deadline));
        if answer.status != 200 {
            output.flush()?;
            anyhow::bail!("{path}:{number} is no review: {}", answer.summary.line);
        }
        writeln!(output, "{}", told(&answer)?)?;
    }
    Ok(output.flush()?)
}

/// Nobody waits for the answer; a deadline there must be.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

/// The review itself, byte for byte: what is around it in a recording is none of the server's business.
fn review(line: &[u8]) -> serde_json::Result<&[u8]> {
    #[derive(Deserialize)]
    struct Recorded<'a> {
        #[serde(borrow)]
        review: Option<&'a RawValue>,
    }
    let recorded: Recorded = serde_json::from_slice(line)?;
    Ok(recorded.review.map_or(line, |review| review.get().as_bytes()))
}

/// One line about an answer.
fn told(answer: &Answer) -> anyhow::Result<Value> {
    let body: Value = serde_json::from_slice(&answer.body)?;
    let response = &body["response"];
    let annotation = |key: &str| response["auditAnnotations"][key].as_str();
    let number = |key: &str| annotation(key).and_then(|text| text.parse::<f64>().ok());
    Ok(json!({
        "uid": response["uid"],
        "allowed": response["allowed"],
        "verdict": answer.summary.verdict,
        "code": response["status"]["code"],
        "message": response["status"]["message"],
        "causes": response["status"]["details"]["causes"].as_array().cloned().unwrap_or_default(),
        "warnings": response["warnings"].as_array().cloned().unwrap_or_default(),
        "shift": number("shift"),
        "score": number("score").map(|score| score as u64),
        "digest": annotation("digest"),
        "annotations": response["auditAnnotations"].as_object().cloned().unwrap_or_default(),
    }))
}
