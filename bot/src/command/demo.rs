//! `sluice demo`: a small mesh over recorded time, its pull requests and a report.

use crate::demo;
use crate::forge::State;
use crate::report;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run the bot over a recorded mesh: pull requests in a Git repository, and a report to look at
#[derive(Debug, Args)]
#[command(after_long_help = "\
Writes into the folder:
  repository.git   the policy repository; its pull requests are under refs/sluice/pulls/
  report.html      what happened, with charts and diffs; one page, no network
  sluice.yaml      the configuration, for `sluice propose` and `sluice verify`
  mesh.sluice.gz   the recording

Examples:
  sluice demo
  sluice demo --out /tmp/demo && sluice verify 1 --repository /tmp/demo/repository.git")]
pub struct DemoArgs {
    /// The folder; what an earlier demo made there is replaced, other things stay
    #[arg(long, value_name = "DIR", default_value = "sluice-demo")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &DemoArgs) -> anyhow::Result<ExitCode> {
    let dir = &arguments.out;
    demo::prepare(dir)?;
    let mut world = demo::recorded(dir)?;
    // Drawn on standard error, and only where that is a terminal.
    let bar = ProgressBar::new(100).with_style(
        ProgressStyle::with_template("{bar:40} {percent} % of recorded time").unwrap_or(ProgressStyle::default_bar()),
    );
    let summary = demo::run(dir, &mut world, &mut |part| bar.set_position((part * 100.0) as u64))?;
    bar.finish_and_clear();
    let page = dir.join("report.html");
    demo::write(&page, report::html(&summary.report).as_bytes())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} passes over a recorded mesh\n", summary.passes)?;
    for story in &summary.report.rollouts {
        writeln!(out, "{:<10} {}", story.subject.rollout, story.headline)?;
        writeln!(out, "{:<10}   {}", "", story.explanation)?;
    }
    writeln!(out, "\npull requests")?;
    for pull in &summary.pulls {
        let state = match &pull.state {
            State::Open => "open",
            State::Merged => "merged",
            State::Closed { .. } => "closed",
        };
        writeln!(out, "  #{:<3} {state:<7} {}", pull.number, pull.content.title)?;
    }
    let shown = dir.display();
    writeln!(out, "\nlook:    {shown}/report.html")?;
    writeln!(out, "verify:  sluice verify 1 --repository {shown}/repository.git")?;
    writeln!(out, "again:   sluice propose --config {shown}/sluice.yaml")?;
    Ok(ExitCode::SUCCESS)
}
