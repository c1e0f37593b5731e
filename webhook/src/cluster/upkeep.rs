//! What a replica does beside answering: serve the certificate of the Secret, show itself, and, when it leads, renew the
//! certificates and keep the registration.

use super::certificate::{self, Material, certificates};
use super::registration::{self, Registration};
use super::replica::{Election, RENEW, Replica, Roll, SHOW};
use crate::tls::Certificate;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What is kept up.
pub struct Upkeep {
    /// How to reach the API server.
    pub client: Client,
    /// This replica.
    pub replica: Replica,
    /// Where the certificate that is served comes from.
    pub source: Source,
    /// How the API server learns of the webhook, and whom it trusts.
    pub registered: Registered,
    /// How often the clock on the wall is looked at, a minute by default: timers stop while a machine sleeps.
    pub tick: Duration,
    /// Does this replica lead?
    pub leads: AtomicBool,
}

/// Where the certificate that is served comes from.
pub enum Source {
    /// Self-made, kept in this Secret of this namespace, served through this handle.
    Secret {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// How certificates are made.
        policy: certificate::Policy,
        /// What the server serves.
        certificate: Certificate,
    },
    /// Files that somebody else keeps up. The API server trusts this PEM bundle.
    Files {
        /// The CAs that signed them.
        trusted: String,
    },
}

/// How the API server learns of the webhook.
pub enum Registered {
    /// From us.
    Ours(Registration),
    /// From a configuration of this name that somebody else applied; only the trusted CAs are ours.
    Theirs(String),
    /// Not our concern.
    No,
}

/// Longest wait for the API server in one round of the leader.
const ROUND: Duration = Duration::from_secs(15);

impl Upkeep {
    /// Keeps everything up until the future is dropped. The webhook is registered once `ready` says that it can answer.
    pub async fn run(&self, ready: impl Fn() -> bool) {
        let (sender, receiver) = watch::channel(None);
        tokio::join!(self.serve(sender), self.show(receiver.clone()), self.lead(receiver, ready));
    }

    /// Serves what the Secret holds, and makes the Secret when there is none.
    async fn serve(&self, sender: watch::Sender<Option<Material>>) {
        let Source::Secret { namespace, name, policy, certificate } = &self.source else { return };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let mut updates = pin!(kube::runtime::watcher::watch_object(api.clone(), name).default_backoff());
        let mut told = Failures::default();
        loop {
            let secret = match tokio::time::timeout(self.tick, updates.next()).await {
                Ok(Some(Ok(secret))) => secret,
                Ok(Some(Err(error))) => {
                    told.failed("cannot watch the certificate's Secret", &error);
                    continue;
                }
                // The watch never ends; a Secret that it missed is found by looking.
                Ok(None) | Err(_) => match api.get_opt(name).await {
                    Ok(secret) => secret,
                    Err(error) => {
                        told.failed("cannot read the certificate's Secret", &error);
                        continue;
                    }
                },
            };
            let secret = match secret {
                Some(secret) => secret,
                // All replicas may try; the first one's is everybody's. One that served another before leaves it to the
                // leader to put that back.
                None if sender.borrow().is_none() => match create(&api, name, policy).await {
                    Ok(secret) => secret,
                    Err(error) => {
                        told.failed("cannot create the certificate's Secret", &error);
                        tokio::time::sleep(RENEW).await;
                        continue;
                    }
                },
                None => continue,
            };
            let material = read(&secret);
            if sender.borrow().as_ref() == Some(&material) {
                continue;
            }
            match certificate.set(material.leaf.as_bytes(), material.leaf_key.as_bytes()) {
                Ok(until) => {
                    tracing::info!(leaf = material.fingerprint(), %until, "serving the certificate of the Secret");
                    told = Failures::default();
                    sender.send_replace(Some(material));
                }
                Err(error) => told.failed("the certificate of the Secret cannot be served; the last one stays", &error),
            }
        }
    }

    /// Shows which leaf is served, at once when it changes.
    async fn show(&self, mut receiver: watch::Receiver<Option<Material>>) {
        let mut told = Failures::default();
        loop {
            let leaf = receiver.borrow_and_update().as_ref().map(Material::fingerprint).unwrap_or_default();
            match tokio::time::timeout(ROUND, self.replica.show(&leaf)).await {
                Ok(Ok(())) => told = Failures::default(),
                Ok(Err(error)) => told.failed("cannot show which certificate is served", &error),
                Err(error) => told.failed("cannot show which certificate is served", &error),
            }
            let changed = tokio::time::timeout(SHOW, receiver.changed()).await;
            if let Ok(Err(_)) = changed {
                // Certificates from files never change here.
                tokio::time::sleep(SHOW).await;
            }
        }
    }

    /// Stands for election and, while this replica leads, keeps up what only one may.
    async fn lead(&self, receiver: watch::Receiver<Option<Material>>, ready: impl Fn() -> bool) {
        let mut election = Election::default();
        let mut leader = None;
        let mut told = Failures::default();
        let mut next = Instant::now();
        loop {
            let leads = election.run(&self.replica).await;
            if self.leads.swap(leads, Ordering::Relaxed) != leads {
                tracing::info!(leads, "the lead has changed");
            }
            if leads {
                let leader = leader.get_or_insert_with(Leader::default);
                // Becoming ready is not waited for with the patience of a clock.
                let registers = ready() && !leader.registered && !matches!(self.registered, Registered::No);
                if registers || next <= Instant::now() {
                    next = Instant::now() + self.tick;
                    let served = receiver.borrow().clone();
                    match tokio::time::timeout(ROUND, leader.round(self, served, ready())).await {
                        Ok(Ok(())) => told = Failures::default(),
                        Ok(Err(error)) => told.failed("the upkeep failed; it is tried again", &error),
                        Err(error) => told.failed("the upkeep failed; it is tried again", &error),
                    }
                }
            } else {
                // Another one leads: what this one knew of the configuration may be outdated when it leads again.
                leader = None;
                next = Instant::now();
            }
            tokio::time::sleep(RENEW.min(self.tick)).await;
        }
    }
}

/// What the leader remembers between rounds.
#[derive(Default)]
struct Leader {
    /// The newest CA, and since when the API server trusts it.
    trusted: Option<(String, Instant)>,
    registered: bool,
    roll: Roll,
}

/// What may fail in a round.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Registration(#[from] registration::Error),
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    #[error("cannot keep the Secret or the Leases: {0}")]
    Api(#[from] kube::Error),
}

impl Leader {
    async fn round(&mut self, upkeep: &Upkeep, served: Option<Material>, ready: bool) -> Result<(), Error> {
        let Source::Secret { namespace, name, policy, .. } = &upkeep.source else {
            let Source::Files { trusted } = &upkeep.source else { return Ok(()) };
            return self.register(upkeep, trusted, ready).await;
        };
        let api: Api<Secret> = Api::namespaced(upkeep.client.clone(), namespace);
        let mut secret = match api.get_opt(name).await? {
            Some(secret) => secret,
            // Deleted by somebody: what is served is still trusted, so it goes back.
            None => match served {
                Some(served) => api.create(&PostParams::default(), &write(name, &served)).await?,
                None => create(&api, name, policy).await?,
            },
        };
        // A few steps may follow at once.
        loop {
            let material = read(&secret);
            self.register(upkeep, &material.bundle(), ready).await?;
            let newest = material.trusted.last().cloned().unwrap_or_default();
            let in_use = self.registered || matches!(upkeep.registered, Registered::No);
            match &self.trusted {
                Some((ca, _)) if *ca == newest => {}
                _ => self.trusted = in_use.then(|| (newest, Instant::now())),
            }
            let progress = certificate::Progress {
                trusted_for: self
                    .trusted
                    .as_ref()
                    .and_then(|(_, since)| SignedDuration::try_from(since.elapsed()).ok()),
                served: self.roll.all_serve(&upkeep.replica, &material.fingerprint()).await?,
            };
            let now = Timestamp::now();
            let Some(step) = material.due(policy, progress, now) else { return Ok(()) };
            tracing::info!(?step, "renewing certificates");
            let next = material.take(step, policy, now)?;
            let mut changed = write(name, &next);
            // With the version that was read: a leader that is none any more writes nothing.
            changed.metadata = ObjectMeta { managed_fields: None, ..secret.metadata };
            changed.type_ = secret.type_;
            secret = api.replace(name, &PostParams::default(), &changed).await?;
        }
    }

    async fn register(&mut self, upkeep: &Upkeep, bundle: &str, ready: bool) -> Result<(), Error> {
        // Whoever cannot answer must not be asked; once asked, it is asked until it is gone.
        if !ready && !self.registered {
            return Ok(());
        }
        match &upkeep.registered {
            Registered::Ours(registration) => registration.apply(&upkeep.client, bundle).await?,
            Registered::Theirs(name) => registration::trust(&upkeep.client, name, bundle).await?,
            Registered::No => return Ok(()),
        }
        if !std::mem::replace(&mut self.registered, true) {
            tracing::info!("registered with the API server");
        }
        Ok(())
    }
}

/// Makes the Secret, or takes the one that another replica made at the same moment.
async fn create(api: &Api<Secret>, name: &str, policy: &certificate::Policy) -> Result<Secret, Error> {
    let material = Material::new(policy, Timestamp::now())?;
    match api.create(&PostParams::default(), &write(name, &material)).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(api.get(name).await?),
        result => Ok(result?),
    }
}

const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const LEAF: &str = "tls.crt";
const LEAF_KEY: &str = "tls.key";

fn read(secret: &Secret) -> Material {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|ByteString(bytes)| bytes.as_slice());
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    };
    Material { trusted: certificates(&text(CA)), ca_key: text(CA_KEY), leaf: text(LEAF), leaf_key: text(LEAF_KEY) }
}

fn write(name: &str, material: &Material) -> Secret {
    let parts = [
        (CA, material.bundle()),
        (CA_KEY, material.ca_key.clone()),
        (LEAF, material.leaf.clone()),
        (LEAF_KEY, material.leaf_key.clone()),
    ];
    let data = parts.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())));
    let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "sluice-webhook".to_owned())]);
    let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    Secret { metadata, data: Some(data.collect()), ..Secret::default() }
}

/// A failure is told when it begins and when it changes, not each time.
#[derive(Default)]
struct Failures(String);

impl Failures {
    fn failed(&mut self, what: &str, error: &dyn std::error::Error) {
        let text = format!("{what}: {error}");
        if text != self.0 {
            tracing::warn!("{text}");
            self.0 = text;
        }
    }
}
