//! What a review costs, beside a ceiling: `cargo bench -p sluice-webhook --bench admission`.
//!
//! Both servers run as their own processes the whole time; rows are interleaved, and each figure is the median over the
//! rounds. Processor time per request is what to look at: it does not depend much on what else the machine does.

#[path = "admission/body.rs"]
mod body;
#[path = "admission/ceiling.rs"]
mod ceiling;
#[path = "admission/load.rs"]
mod load;
#[path = "admission/process.rs"]
mod process;
#[path = "support/ready.rs"]
mod ready;

use body::{Differs, Template};
use clap::Parser;
use load::Seen;
use process::{Files, Server};
use std::time::Duration;

/// Measures the webhook beside a ceiling, and prints the table of `webhook/README.md`
#[derive(Parser)]
struct Options {
    /// Rounds over all rows [default: 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds per row and round [default: 2]
    #[arg(long)]
    seconds: Option<f64>,
    /// Guards of the webhook in the rows; three of them match
    #[arg(long, default_value_t = 3)]
    guards: usize,
    /// Sends real writes, which are reserved, rather than dry runs: the history grows as no cluster's would
    #[arg(long)]
    reserve: bool,
    /// Only rows whose body has this in its name
    #[arg(long, default_value = "")]
    only: String,
    /// Set by `cargo bench`; `cargo test` only looks whether it works
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Rounds, and seconds of each row in them.
    fn length(&self) -> (usize, f64) {
        let (rounds, seconds) = if self.bench { (3, 2.0) } else { (1, 0.05) };
        (self.rounds.unwrap_or(rounds), self.seconds.unwrap_or(seconds))
    }
}

/// A body and how it is asked.
struct Row {
    body: &'static str,
    template: Template,
    differs: Differs,
    connections: usize,
    /// Of the ceiling and of the webhook, one per round.
    samples: [Vec<Sample>; 2],
}

/// One row of one server in one round.
#[derive(Clone, Copy)]
struct Sample {
    cpu_us: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    refused: u64,
}

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, mode, chain, key] = &arguments[..]
        && mode == "ceiling"
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        return runtime.block_on(ceiling::serve(chain, key));
    }
    let options = Options::parse();
    // One thread asks: the other processor is the server's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let files = Files::new()?;
    let tls = load::connector(files.certificate.clone())?;
    let starts: Vec<_> =
        (0..5).map(|_| Ok(Server::webhook(&files, 100)?.start.as_secs_f64() * 1e3)).collect::<anyhow::Result<_>>()?;

    let servers = [Server::ceiling(&files)?, Server::webhook(&files, options.guards)?];
    let mut rows = rows(options);
    let (rounds, seconds) = options.length();
    for round in 0..rounds {
        for (at, row) in rows.iter_mut().enumerate() {
            // Each goes first in every second row and round.
            for which in if (at + round) % 2 == 0 { [0, 1] } else { [1, 0] } {
                let (server, time) = (&servers[which], Duration::from_secs_f64(seconds));
                let before = server.cpu()?;
                let seen = load::run(&tls, server.address, &row.template, row.differs, row.connections, time).await?;
                row.samples[which].push(Sample::new(&seen, server.cpu()? - before));
            }
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    print(options, &rows);
    println!();
    println!("Start to ready with 100 guards, median of five: {:.0} ms.", median(&starts));
    let (_, peak) = servers[1].memory()?;
    println!("Resident memory of the webhook after these rows: at most {:.1} MiB.", peak as f64 / 1024.0);
    drop(servers);
    memory(&files, &tls).await
}

/// A thousand routes, each written once, under a hundred guards.
async fn memory(files: &Files, tls: &tokio_rustls::TlsConnector) -> anyhow::Result<()> {
    let server = Server::webhook(files, 100)?;
    let template = body::standard(false);
    let mut asked = 0;
    while asked < 1000 {
        asked +=
            load::run(tls, server.address, &template, Differs::Step, 4, Duration::from_millis(100)).await?.times.len();
    }
    let (now, peak) = server.memory()?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!(
        "Resident memory after {asked} writes of 1,000 routes under 100 guards: {:.1} MiB, at most {:.1} MiB.",
        mib(now),
        mib(peak)
    );
    Ok(())
}

fn rows(options: &Options) -> Vec<Row> {
    let is_dry_run = !options.reserve;
    let bodies: [(_, _, &[usize]); 3] = [
        ("standard", body::standard(is_dry_run), &[1, 16, 64]),
        ("wide", body::wide(is_dry_run), &[4]),
        ("fat", body::fat(is_dry_run), &[4]),
    ];
    let mut rows = Vec::new();
    for (body, template, connections) in bodies.into_iter().filter(|(body, ..)| body.contains(&options.only)) {
        for differs in [Differs::Uid, Differs::Step, Differs::Spec] {
            rows.extend(connections.iter().map(|connections| Row {
                body,
                template: template.clone(),
                differs,
                connections: *connections,
                samples: [Vec::new(), Vec::new()],
            }));
        }
    }
    rows
}

impl Sample {
    fn new(seen: &Seen, cpu: Duration) -> Self {
        let count = seen.times.len().max(1);
        let at =
            |part: f64| seen.times.get((count as f64 * part) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        Self {
            cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
            per_second: count as f64 / seen.took.as_secs_f64(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            refused: seen.refused,
        }
    }

    fn median(samples: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| median(&samples.iter().map(value).collect::<Vec<_>>());
        Self {
            cpu_us: of(|sample| sample.cpu_us),
            per_second: of(|sample| sample.per_second),
            p50_ms: of(|sample| sample.p50_ms),
            p99_ms: of(|sample| sample.p99_ms),
            refused: samples.iter().map(|sample| sample.refused).sum(),
        }
    }
}

fn print(options: &Options, rows: &[Row]) {
    let Options { guards, reserve, .. } = options;
    let (rounds, seconds) = options.length();
    let writes = if *reserve { "writes" } else { "dry runs" };
    println!(
        "{rounds} rounds of {seconds} s, {guards} guards, {writes}; medians. `x` is the webhook by the ceiling.\n"
    );
    println!("| body | connections | CPU us, ceiling | CPU us, webhook | x | requests/s | p50 ms | p99 ms | p99 x |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        let [ceiling, webhook] = [Sample::median(&row.samples[0]), Sample::median(&row.samples[1])];
        let size = row.template.len() as f64 / 1000.0;
        let differs = match row.differs {
            Differs::Uid => "the same again",
            Differs::Step => "steps",
            Differs::Spec => "all new",
        };
        println!(
            "| {} {size:.1} kB, {differs} | {} | {:.1} | {:.1} | {:.2} | {:.0} / {:.0} | {:.3} / {:.3} | {:.2} / {:.2} | {:.2} |",
            row.body,
            row.connections,
            ceiling.cpu_us,
            webhook.cpu_us,
            webhook.cpu_us / ceiling.cpu_us,
            ceiling.per_second,
            webhook.per_second,
            ceiling.p50_ms,
            webhook.p50_ms,
            ceiling.p99_ms,
            webhook.p99_ms,
            webhook.p99_ms / ceiling.p99_ms,
        );
    }
    let refused: u64 = rows.iter().flat_map(|row| row.samples.iter().flatten()).map(|sample| sample.refused).sum();
    if refused > 0 {
        println!("\n**{refused} answers did not allow a change that every guard allows: these figures mean nothing.**");
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle.saturating_sub(1)] + values[middle]) / 2.0 }
}
