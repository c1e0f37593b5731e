//! `serve` in a cluster: its options, and everything that runs beside the answers.

use super::certificate::Policy;
use super::registration::{Registration, Target};
use super::replica::Replica;
use super::upkeep::{Registered, Source, Upkeep};
use super::{Progress, Settings, watch};
use crate::ledger::{self, Ledger};
use crate::report;
use crate::server::Readiness;
use crate::telemetry::metrics::Metrics;
use crate::tls::Certificate;
use crate::world::Shared;
use anyhow::Context as _;
use jiff::SignedDuration;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use sluice_rules::guard::Period;
use sluice_rules::validate::Version;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Options of `serve` in a cluster.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "In a cluster")]
#[group(skip)]
pub struct Args {
    /// Take guards, approvals and history from the cluster whose pod this is
    #[arg(long)]
    in_cluster: bool,
    /// The same, of the cluster that this file leads to
    #[arg(long, value_name = "FILE", conflicts_with = "in_cluster")]
    kubeconfig: Option<PathBuf>,
    /// This replica's name, which no other has
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "sluice-webhook-0")]
    replica: String,
    /// The webhook's namespace: of its Secret, its Leases and its Service
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "sluice-system")]
    namespace: String,
    /// The webhook's Service; also the name of its Lease
    #[arg(long, value_name = "NAME", default_value = "sluice-webhook")]
    service: String,
    /// The webhook's own account, the only one that may write ledgers [default: the service account that is called as the
    /// Service]
    #[arg(long, value_name = "USER")]
    account: Option<String>,
    /// Accounts of Kuma's control plane
    #[arg(
        long,
        value_name = "USER",
        value_delimiter = ',',
        default_value = "system:serviceaccount:kuma-system:kuma-control-plane"
    )]
    control_plane: Vec<String>,
    /// Make and renew the certificate, kept in this Secret
    #[arg(long, value_name = "SECRET", num_args = 0..=1, default_missing_value = "sluice-webhook-certificate")]
    pub(crate) self_signed: Option<String>,
    /// More names or addresses that the webhook is called by
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    san: Vec<String>,
    /// How long a self-made CA is valid
    #[arg(long, value_name = "TIME", default_value = "365d")]
    ca_life: Period,
    /// How long a self-made certificate is valid
    #[arg(long, value_name = "TIME", default_value = "90d")]
    certificate_life: Period,
    /// Register the webhook, once it is ready, as this ValidatingWebhookConfiguration
    #[arg(long, value_name = "NAME")]
    register: Option<String>,
    /// Register it by this address instead of its Service, such as https://10.0.0.7:8443/validate
    #[arg(long, value_name = "URL", requires = "register")]
    register_url: Option<String>,
    /// CAs that signed the certificate of --cert, PEM; for --register
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Put the self-made CAs into this ValidatingWebhookConfiguration, which somebody else applies
    #[arg(long, value_name = "NAME", requires = "self_signed", conflicts_with = "register")]
    trust: Option<String>,
    /// How long an admitted change may be on its way before it counts no more, the same for all replicas: no less than the
    /// API server's --request-timeout
    #[arg(long, value_name = "TIME", default_value_t = Period(ledger::LEASE))]
    lease: Period,
    /// How often what is already there is scored and reported; 0s: never
    #[arg(long, value_name = "TIME", default_value = "10m")]
    scan: SignedDuration,
}

/// What the rest of the process shares with the cluster's side.
pub struct Shares<'a> {
    /// What answers know.
    pub world: &'a Shared,
    /// What `/ready` waits for.
    pub readiness: &'a Readiness,
    /// What is served.
    pub certificate: &'a Certificate,
    /// What `/metrics` shows.
    pub metrics: &'a Arc<Metrics>,
    /// Kuma's generation where it is told rather than found.
    pub kuma: Option<Version>,
}

/// How long the first lists may be complete before anybody notices.
const LOOK: Duration = Duration::from_millis(10);
/// How often gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(1);

impl Args {
    /// Is there a cluster behind the webhook?
    pub fn is_given(&self) -> bool {
        self.in_cluster || self.kubeconfig.is_some()
    }

    /// The webhook's own account.
    pub fn account(&self) -> String {
        let account = || format!("system:serviceaccount:{}:{}", self.namespace, self.service);
        self.account.clone().unwrap_or_else(account)
    }

    /// The accounts of Kuma's control plane.
    pub fn control_plane(&self) -> &[String] {
        &self.control_plane
    }

    /// Starts everything that keeps up with the cluster, and returns where history is kept. Nothing here waits for the
    /// API server: until it has answered the webhook is not ready, and alive.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or options contradict each other.
    pub async fn start(&self, shares: &Shares<'_>) -> anyhow::Result<Ledger> {
        let client = Client::try_from(self.config().await?).context("cannot speak to the API server")?;
        let Shares { world, readiness, certificate, metrics, kuma } = *shares;
        world.update(|world| world.in_cluster = true);
        let ledger = ledger::Cluster::new(client.clone(), &self.replica, self.lease.0);
        let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let progress = Arc::new(Progress::default());
        let settings = Settings { client: client.clone(), world: world.clone(), seen: sender, kuma };
        tokio::spawn(watch(settings, progress.clone()));
        let (watching, tending) = (ledger.clone(), ledger.clone());
        tokio::spawn(async move { watching.watch().await });
        let present = world.clone();
        tokio::spawn(async move { tending.tend(&present).await });
        let (noting, present) = (ledger.clone(), world.clone());
        tokio::spawn(async move {
            // What routes are says nothing before it is known what they were.
            while !noting.is_synced() {
                tokio::time::sleep(LOOK).await;
            }
            while let Some(seen) = seen.recv().await {
                let world = arc_swap::Guard::into_inner(present.load());
                noting.seen(seen, &world).await;
            }
        });

        let upkeep = Arc::new(self.upkeep(&client, certificate)?);
        let ready = readiness.clone();
        let kept = upkeep.clone();
        tokio::spawn(async move { kept.run(|| ready.missing().is_empty()).await });
        if self.scan > SignedDuration::ZERO {
            let every = Duration::try_from(self.scan).context("--scan is too long")?;
            let (client, world) = (client.clone(), world.clone());
            tokio::spawn(async move {
                report::run(client, world, every, || upkeep.leads.load(Ordering::Relaxed)).await;
            });
        }
        if self.self_signed.is_some() {
            let (condition, certificate) = (readiness.condition("certificate"), certificate.clone());
            tokio::spawn(async move {
                while certificate.not_after().is_none() {
                    tokio::time::sleep(LOOK).await;
                }
                condition.set(true);
            });
        }
        self.look(progress, ledger.clone(), readiness, metrics.clone());
        Ok(Ledger::Cluster(ledger))
    }

    /// Says when everything is known, and how fresh it is.
    fn look(&self, progress: Arc<Progress>, ledger: ledger::Cluster, readiness: &Readiness, metrics: Arc<Metrics>) {
        let condition = readiness.condition("cluster");
        tokio::spawn(async move {
            let start = Instant::now();
            let mut told = String::new();
            while !(progress.is_ready() && ledger.is_synced()) {
                let waits_for = progress.waits_for().unwrap_or_default();
                if start.elapsed() > Duration::from_secs(5) && !waits_for.is_empty() && waits_for != told {
                    tracing::warn!("not ready: {waits_for}");
                    told = waits_for;
                }
                tokio::time::sleep(LOOK).await;
            }
            tracing::info!(took = ?start.elapsed(), "the cluster is known");
            condition.set(true);
            loop {
                metrics.cache.heard_before(progress.age());
                metrics.reservations.set(i64::try_from(ledger.counts().outstanding).unwrap_or(i64::MAX));
                tokio::time::sleep(GAUGES).await;
            }
        });
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let Some(path) = &self.kubeconfig else {
            return Config::incluster().context("this is no pod with a service account; name a file with --kubeconfig");
        };
        let told = || format!("cannot use the kubeconfig `{}`", path.display());
        let file = Kubeconfig::read_from(path).with_context(told)?;
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(told)
    }

    fn upkeep(&self, client: &Client, certificate: &Certificate) -> anyhow::Result<Upkeep> {
        let source = match (&self.self_signed, &self.ca) {
            (Some(name), _) => Source::Secret {
                namespace: self.namespace.clone(),
                name: name.clone(),
                policy: Policy {
                    names: self.names(),
                    ca: self.ca_life.0,
                    leaf: self.certificate_life.0,
                    spread: SignedDuration::from_mins(1),
                    overlap: SignedDuration::from_hours(1),
                },
                certificate: certificate.clone(),
            },
            (None, Some(path)) => {
                let told = || format!("cannot read the CAs of `{}`", path.display());
                Source::Files { trusted: std::fs::read_to_string(path).with_context(told)? }
            }
            (None, None) if self.register.is_some() => {
                anyhow::bail!("--register must know whom to trust: add --self-signed, or --ca with the CA of --cert")
            }
            (None, None) => Source::Files { trusted: String::new() },
        };
        let registered = match (&self.register, &self.trust) {
            (Some(name), _) => Registered::Ours(Registration {
                name: name.clone(),
                target: match &self.register_url {
                    Some(url) => Target::Url(url.clone()),
                    None => Target::Service(self.namespace.clone(), self.service.clone(), 443),
                },
                namespace: self.namespace.clone(),
                control_plane: self.control_plane.clone(),
                account: self.account(),
            }),
            (None, Some(name)) => Registered::Theirs(name.clone()),
            (None, None) => Registered::No,
        };
        Ok(Upkeep {
            replica: Replica::new(client.clone(), &self.namespace, &self.service, &self.replica),
            client: client.clone(),
            source,
            registered,
            tick: Duration::from_secs(60),
            leads: Default::default(),
        })
    }

    fn names(&self) -> Vec<String> {
        let (service, namespace) = (&self.service, &self.namespace);
        let ends = ["svc", "svc.cluster.local"].map(|end| format!("{service}.{namespace}.{end}"));
        let names = ends.into_iter().chain([format!("{service}.{namespace}"), service.clone()]);
        names.chain(self.san.iter().cloned()).collect()
    }
}
