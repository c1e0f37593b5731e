//! `sluice record`: counts per tick from a dump of the mesh's metrics, in a file that decisions can be replayed from.

use super::Format;
use crate::metrics::Recording;
use crate::metrics::counting::{self, Options};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Make a recording from a dump of the mesh's metrics.
///
/// The dump is what `promtool tsdb dump-openmetrics` prints: `envoy_cluster_upstream_rq_xx`, `…_retry_upstream_rq_xx`,
/// `…_upstream_rq_time_bucket`, `…_membership_*`, `envoy_server_uptime` and `up`; other families do no harm.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump, OpenMetrics text, plain or gzip.
    #[arg(long, value_name = "FILE")]
    pub openmetrics: PathBuf,
    /// Where the recording goes; otherwise beside the dump, as NAME.sluice.gz.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Length of a tick: at least the scrape interval, better several.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = tick)]
    pub tick: u32,
    /// The mesh to count in.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub mesh: String,
    /// Count only what this service or workload calls; may be given more than once.
    #[arg(long, value_name = "SERVICE")]
    pub from: Vec<String>,
    /// How to print the summary.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Writes the recording and prints what is in it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let out = args.out.clone().unwrap_or_else(|| beside(&args.openmetrics));
    if same_file(&out, &args.openmetrics) {
        anyhow::bail!("`{}` is the dump itself; name another file with `--out`", out.display());
    }
    let options = Options { tick: args.tick, mesh: args.mesh, from: args.from };
    // The dump is read twice.
    let length = std::fs::metadata(&args.openmetrics).map_or(0, |metadata| metadata.len().saturating_mul(2));
    let progress = Progress::new(length);
    let recording = counting::openmetrics(&args.openmetrics, &options, &mut |read| progress.at(read));
    progress.bar.finish_and_clear();
    let recording = recording.context("cannot make a recording")?;
    recording.save(&out).context("cannot write the recording")?;

    let summary = Summary::of(&recording, &out);
    let text = match args.format {
        Format::Text => summary.text(),
        Format::Json => serde_json::to_string_pretty(&summary)? + "\n",
    };
    // The recording is written; whoever closed the pipe does not want the summary.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// What a recording holds.
#[derive(Debug, Serialize)]
struct Summary {
    out: String,
    mesh: String,
    tick_seconds: u32,
    ticks: usize,
    from: Option<String>,
    to: Option<String>,
    services: BTreeMap<String, Total>,
}

#[derive(Debug, Default, Serialize)]
struct Total {
    ticks: usize,
    requests: f64,
    errors: f64,
}

impl Summary {
    fn of(recording: &Recording, out: &Path) -> Self {
        let mut services: BTreeMap<String, Total> = BTreeMap::new();
        for (name, counts) in recording.ticks.iter().flat_map(|tick| &tick.services) {
            let total = services.entry(name.clone()).or_default();
            total.ticks += 1;
            total.requests += counts.requests;
            total.errors += counts.errors;
        }
        let time = |t: Option<i64>| t.and_then(|t| jiff::Timestamp::from_second(t).ok()).map(|t| t.to_string());
        let length = i64::from(recording.header.tick);
        Self {
            out: out.display().to_string(),
            mesh: recording.header.mesh.clone(),
            tick_seconds: recording.header.tick,
            ticks: recording.ticks.len(),
            from: time(recording.ticks.first().map(|tick| tick.t - length)),
            to: time(recording.ticks.last().map(|tick| tick.t)),
            services,
        }
    }

    fn text(&self) -> String {
        let span = match (&self.from, &self.to) {
            (Some(from), Some(to)) => format!(", {from} to {to}"),
            _ => String::new(),
        };
        let mut text =
            format!("{}: {} ticks of {} s{span}, mesh {}\n", self.out, self.ticks, self.tick_seconds, self.mesh);
        let name = "service";
        let width = self.services.keys().map(|name| name.chars().count()).max().unwrap_or(0).max(name.len());
        text += &format!("  {name:width$}  {:>7}  {:>12}  {:>10}\n", "ticks", "requests", "errors");
        for (name, total) in &self.services {
            // Names come from telemetry; a control character in one must not reach the terminal.
            let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            text += &format!("  {name:width$}  {:>7}  {:>12}  {:>10}\n", total.ticks, total.requests, total.errors);
        }
        text
    }
}

/// A bar on a terminal, for whoever waits longer than a second.
struct Progress {
    bar: ProgressBar,
    since: Instant,
    terminal: bool,
}

impl Progress {
    fn new(length: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {eta} left") {
            bar.set_style(style);
        }
        Self { bar, since: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    fn at(&self, read: u64) {
        if self.terminal && self.bar.is_hidden() && self.since.elapsed() > Duration::from_secs(1) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(read);
    }
}

/// `canary.openmetrics.gz` becomes `canary.sluice.gz`.
fn beside(dump: &Path) -> PathBuf {
    let name = dump.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let name = [".openmetrics", ".txt", ".prom"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    dump.with_file_name(format!("{name}.sluice.gz"))
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn tick(text: &str) -> Result<u32, String> {
    let duration: jiff::SignedDuration =
        text.parse().map_err(|_| "write a duration such as `30s` or `1m`".to_owned())?;
    let seconds = duration.as_secs();
    if duration.subsec_nanos() != 0 || !(1..=86_400).contains(&seconds) {
        return Err("a tick is a whole number of seconds, from `1s` to `24h`".to_owned());
    }
    u32::try_from(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, String> {
        let words = ["record", "--openmetrics", "a.openmetrics.gz"].iter().chain(words);
        Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
    }

    #[test]
    fn has_defaults_that_fit_a_mesh() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.tick, args.mesh.as_str(), args.from.len()), (30, "default", 0));
        assert_eq!(parse(&["--tick", "1m"]).unwrap().tick, 60);
        for tick in ["0s", "1500ms", "25h", "soon", "-5s"] {
            assert!(parse(&[&format!("--tick={tick}")]).is_err(), "{tick}");
        }
    }

    #[test]
    fn names_the_recording_after_the_dump() {
        assert_eq!(beside(Path::new("x/a.openmetrics.gz")), Path::new("x/a.sluice.gz"));
        assert_eq!(beside(Path::new("a.txt")), Path::new("a.sluice.gz"));
        assert_eq!(beside(Path::new("a.b")), Path::new("a.b.sluice.gz"));
    }

    #[test]
    fn writes_a_recording_and_spares_the_dump() {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("a.openmetrics");
        let labels = "envoy_cluster_name=\"llm\",envoy_response_code_class=\"2\",instance=\"web\",mesh=\"default\"";
        let text =
            [(0, 100), (5, 107)].map(|(t, n)| format!("envoy_cluster_upstream_rq_xx{{{labels}}} {n} {t}\n")).concat();
        std::fs::write(&dump, text + "# EOF\n").unwrap();
        let args = |out: Option<PathBuf>| Args { openmetrics: dump.clone(), out, ..parse(&[]).unwrap() };
        assert!(run(args(Some(dump.clone()))).is_err());
        run(args(None)).unwrap();
        let recording = Recording::open(&folder.path().join("a.sluice.gz")).unwrap();
        let summary = Summary::of(&recording, Path::new("a.sluice.gz"));
        insta::assert_snapshot!(summary.text(), @r"
        a.sluice.gz: 1 ticks of 30 s, 1970-01-01T00:00:00Z to 1970-01-01T00:00:30Z, mesh default
          service    ticks      requests      errors
          llm            1             7           0
        ");
    }
}
