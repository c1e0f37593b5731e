//! `sluice-webhook serve`.

use super::context;
use crate::admission::Admission;
use crate::cluster;
use crate::guards;
use crate::ledger::{Ledger, Memory};
use crate::server::{self, Life, Limits, Listener, Phase, Readiness};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Format, Telemetry};
use crate::tls::{self, Certificate, Oldest};
use crate::world::Shared;
use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsAcceptor;

/// How often files are read again.
const POLL: Duration = Duration::from_secs(1);
/// Time for the last answers after the drain.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Answers admission reviews
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or folder with ShiftGuard and ShiftApproval documents, read again when it changes
    #[arg(long, value_name = "PATH", required_unless_present_any = ["in_cluster", "kubeconfig"],
        conflicts_with_all = ["in_cluster", "kubeconfig"])]
    guards: Option<PathBuf>,
    /// Certificate chain, leaf first, PEM; read again when it changes
    #[arg(long, value_name = "FILE", required_unless_present = "self_signed")]
    cert: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "self_signed")]
    key: Option<PathBuf>,
    /// Address for reviews, TLS
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443")]
    listen: SocketAddr,
    /// Address for /live, /ready and /metrics, plain HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8080")]
    status_listen: SocketAddr,
    /// Oldest TLS version
    #[arg(long, value_name = "VERSION", default_value = "1.3")]
    tls_min: Oldest,
    /// Time for one review, unless the API server grants less
    #[arg(long, value_name = "TIME", default_value = "2500ms", value_parser = duration)]
    budget: Duration,
    /// Reviews in work at once
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().in_work)]
    max_reviews: usize,
    /// Reviews that may wait; beyond, they are denied at once
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().in_queue)]
    max_waiting: usize,
    /// Open connections
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().connections)]
    max_connections: u32,
    /// Greatest age of a connection; each gets its own, between half of this and this
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    max_connection_age: Duration,
    /// On SIGTERM, time for callers to find another replica while this one still answers
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    drain: Duration,
    /// Threads that answer; as many as there are processors, within 2 and 8, when left out
    #[arg(long, value_name = "COUNT")]
    threads: Option<std::num::NonZeroUsize>,
    /// How logs look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
    /// What is logged, such as `debug` or `warn,sluice_webhook=info`
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG")]
    log: String,
    /// Sends traces there with OTLP over HTTP, such as http://collector:4318
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    #[command(flatten)]
    context: context::Args,
    #[command(flatten)]
    cluster: cluster::start::Args,
}

/// Runs the command.
///
/// # Errors
///
/// What stops it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Everything that speaks TLS in this process agrees on one provider; the first one to ask would choose otherwise.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let otlp = args.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
    let telemetry = Telemetry::start(args.log_format, &args.log, otlp)?;
    // `available_parallelism` knows a container's quota. A second thread keeps /live up beside one long review.
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = args.threads.map_or(processors.clamp(2, 8), usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let result = runtime.block_on(serve(args));
    runtime.shutdown_timeout(Duration::from_millis(100));
    telemetry.finish();
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    // First of all: the first process of a container ignores a signal that it has no handler for.
    let mut signals = Signals::new()?;
    let limits = args.limits();
    let life = Life::default();
    let readiness = Readiness::new(&life);
    let certificate = Certificate::default();
    let metrics = Arc::new(Metrics::new(certificate.clone()));
    let world = Shared::default();

    world.update(|world| world.kuma = args.context.kuma().into());
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        serve_certificate_files(cert, key, &certificate, &readiness);
    }
    let mut admission = if args.cluster.is_given() {
        let (world, readiness, certificate, kuma) = (&world, &readiness, &certificate, args.context.kuma);
        let shares = cluster::start::Shares { world, readiness, certificate, metrics: &metrics, kuma };
        let mut admission = Admission::new(world.clone(), args.cluster.start(&shares).await?);
        admission.settings.webhook = args.cluster.account();
        admission.settings.exempt.extend_from_slice(args.cluster.control_plane());
        admission
    } else {
        let self_signed = args.cluster.self_signed.is_some();
        anyhow::ensure!(
            !self_signed,
            "--self-signed keeps certificates in a cluster: add --in-cluster or --kubeconfig"
        );
        let ledger = without_cluster(args.guards.as_deref().unwrap_or(Path::new("")), &world, &readiness);
        Admission::new(world, ledger)
    };
    args.context.name_accounts(&mut admission.settings);
    let admission = Arc::new(admission);
    let handler = server::handler(move |body, deadline| {
        let admission = Arc::clone(&admission);
        async move { admission.answer(&body, deadline).await }
    });

    let tls = TlsAcceptor::from(Arc::new(certificate.server_config(args.tls_min)?));
    let (reviews, status) = (server::bind(args.listen).await?, server::bind(args.status_listen).await?);
    tracing::info!("reviews on {}, status on {}", reviews.local_addr()?, status.local_addr()?);
    let router = server::router(handler, &limits, Arc::clone(&metrics));
    let reviews = Listener::new(reviews, Some(tls), router, &limits, &life, Arc::clone(&metrics));
    let router = server::status_router(readiness, Arc::clone(&metrics));
    // It answers until the process ends.
    tokio::spawn(Listener::new(status, None, router, &limits, &Life::default(), metrics).run());
    let reviews = tokio::spawn(reviews.run());

    signals.next().await;
    tracing::info!("shutting down: {:?} for callers to go elsewhere; a second signal ends at once", args.drain);
    tokio::spawn(async move {
        signals.next().await;
        tracing::warn!("ended by a second signal");
        std::process::exit(1);
    });
    life.enter(Phase::Draining);
    tokio::time::sleep(args.drain).await;
    life.enter(Phase::Stopping);
    if tokio::time::timeout(args.budget + LAST_ANSWERS, reviews).await.is_err() {
        tracing::warn!("connections that did not end are cut off");
    }
    tracing::info!("done");
    Ok(())
}

/// Serves the certificate in `--cert` and `--key`; ready when there is one.
fn serve_certificate_files(cert: &Path, key: &Path, certificate: &Certificate, readiness: &Readiness) {
    let mut files = tls::files::Files::new(cert, key);
    let (certificate, condition) = (certificate.clone(), readiness.condition("certificate"));
    again_and_again(move || condition.set(files.poll(&certificate)));
}

/// Everything that a cluster would tell: guards come from files, and history lives in this process.
fn without_cluster(guards: &Path, world: &Shared, readiness: &Readiness) -> Ledger {
    tracing::warn!("no cluster: history is kept in memory only; a restart forgets it and replicas do not share it");
    let mut files = guards::Files::new(guards);
    let (world, condition) = (world.clone(), readiness.condition("guards"));
    again_and_again(move || condition.set(files.poll(&world, Timestamp::now())));
    Ledger::Memory(Memory::default())
}

/// Does something now and then every second, away from the threads that answer.
fn again_and_again(mut work: impl FnMut() + Send + 'static) {
    work();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(POLL).await;
            let done = tokio::task::spawn_blocking(move || {
                work();
                work
            });
            match done.await {
                Ok(back) => work = back,
                Err(_) => return tracing::error!("files are not read any more: restart the process"),
            }
        }
    });
}

impl Args {
    fn limits(&self) -> Limits {
        Limits {
            budget: self.budget,
            in_work: self.max_reviews,
            in_queue: self.max_waiting,
            connections: self.max_connections,
            age: self.max_connection_age,
            ..Limits::default()
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let handle = |kind| signal(kind).context("cannot handle signals");
        Ok(Self(handle(SignalKind::terminate())?, handle(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(duration).map_err(|_| "must not be negative".to_owned())
}
