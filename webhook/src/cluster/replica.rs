//! The replicas of the webhook among themselves, by Leases: one leads, and each shows that it is there and what it serves.
//!
//! A replica shows the fingerprint of its leaf in a Lease of its own instead of being dialled by the leader: it then takes
//! neither the right to read endpoints nor a way through network policies, and works without a Service. What it shows is
//! what its server was given, so the claim is as good as the handshake. A replica that cannot renew its Lease is taken
//! for dead; in case it is only cut off, the old CA is kept for a while longer ([`super::certificate::Policy::overlap`]).

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A leader that has not renewed for this long leads no more.
const LEASE: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long stops leading by itself, before another one starts.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the leader renews and the others look.
pub(super) const RENEW: Duration = Duration::from_secs(3);
/// A replica that has not shown itself for this long is gone.
const PRESENCE: Duration = Duration::from_secs(30);
/// How often a replica shows itself.
pub(super) const SHOW: Duration = Duration::from_secs(10);
/// Its Lease is removed after this time.
const FORGOTTEN: Duration = Duration::from_secs(600);

const GROUP: &str = "sluice.dev/webhook";
const LEAF: &str = "sluice.dev/leaf";

/// This replica.
#[derive(Clone)]
pub struct Replica {
    api: Api<Lease>,
    group: String,
    identity: String,
}

impl Replica {
    /// A replica of the group `name` in a namespace; `identity` is the pod's name, which no other replica has.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), group: name.to_owned(), identity: identity.to_owned() }
    }

    /// Shows that this replica is there and which leaf it serves, by its fingerprint.
    pub(super) async fn show(&self, leaf: &str) -> kube::Result<()> {
        let name = format!("{}-{}", self.group, self.identity);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "labels": {GROUP: self.group}, "annotations": {LEAF: leaf}},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": PRESENCE.as_secs(),
                "renewTime": MicroTime(Timestamp::now()),
            },
        });
        self.api.patch(&name, &PatchParams::apply("sluice-webhook").force(), &Patch::Apply(lease)).await?;
        Ok(())
    }
}

/// Who leads, as far as this replica can tell. Clocks of replicas are never compared: a Lease is stale when it has not
/// changed for its duration while this replica looked.
#[derive(Debug, Default)]
pub(super) struct Election {
    seen: Option<(LeaseSpec, Instant)>,
    renewed: Option<Instant>,
}

impl Election {
    /// Takes or renews the lead where possible, and says whether this replica leads now.
    pub(super) async fn run(&mut self, replica: &Replica) -> bool {
        let start = Instant::now();
        match tokio::time::timeout(DEADLINE / 2, self.hold(replica)).await {
            Ok(Ok(true)) => self.renewed = Some(start),
            Ok(Ok(false)) => self.renewed = None,
            Ok(Err(error)) => tracing::debug!(%error, "cannot renew the lease"),
            Err(_) => tracing::debug!("cannot renew the lease in time"),
        }
        self.renewed.is_some_and(|renewed| renewed.elapsed() < DEADLINE)
    }

    async fn hold(&mut self, replica: &Replica) -> kube::Result<bool> {
        let now = MicroTime(Timestamp::now());
        let ours = |transitions: i32, acquired: Option<MicroTime>| LeaseSpec {
            holder_identity: Some(replica.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: acquired.or_else(|| Some(now.clone())),
            renew_time: Some(now.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let Some(mut lease) = replica.api.get_opt(&replica.group).await? else {
            let metadata = ObjectMeta { name: Some(replica.group.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(ours(0, None)) };
            return won(replica.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder == replica.identity {
            lease.spec = Some(ours(transitions, spec.acquire_time));
        } else {
            let duration =
                Duration::from_secs(spec.lease_duration_seconds.unwrap_or_default().max(0).unsigned_abs().into());
            let since = match &self.seen {
                Some((seen, since)) if *seen == spec => *since,
                _ => Instant::now(),
            };
            let free = holder.is_empty() || since.elapsed() > duration;
            self.seen = Some((spec, since));
            if !free {
                return Ok(false);
            }
            lease.spec = Some(ours(transitions.saturating_add(1), None));
        }
        // With the version that was read: of two that try, one is told of a conflict.
        won(replica.api.replace(&replica.group, &PostParams::default(), &lease).await)
    }
}

fn won(result: kube::Result<Lease>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// The replicas that show themselves, as the leader sees them.
#[derive(Debug, Default)]
pub(super) struct Roll(BTreeMap<String, (Option<MicroTime>, Instant)>);

impl Roll {
    /// Does every replica that is there serve this leaf? Removes the Leases of those that have been gone for long.
    pub(super) async fn all_serve(&mut self, replica: &Replica, leaf: &str) -> kube::Result<bool> {
        let leases = replica.api.list(&ListParams::default().labels(&format!("{GROUP}={}", replica.group))).await?;
        let mut seen = BTreeMap::new();
        let mut present = 0;
        let mut serve = true;
        for lease in &leases {
            let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
            let since = match self.0.remove(&lease.name_any()) {
                Some((before, since)) if before == renewed => since,
                _ => Instant::now(),
            };
            seen.insert(lease.name_any(), (renewed, since));
            if since.elapsed() < PRESENCE {
                present += 1;
                serve &= lease.annotations().get(LEAF).is_some_and(|shown| shown == leaf);
            } else if since.elapsed() > FORGOTTEN {
                let _ = replica.api.delete(&lease.name_any(), &DeleteParams::default()).await;
            }
        }
        self.0 = seen;
        // This replica is one of them, so none means that nothing is known.
        Ok(present > 0 && serve)
    }
}
