//! What is seen of routes ends reservations, and shows moves that nobody admitted.

use super::store::{Found, Trouble, is_older};
use super::{Cluster, Draft, Inner, Slot, TRIES, jitter, lock};
use crate::world::{Shared, World};
use jiff::Timestamp;
use serde_json::Value;
use sluice_rules::guard::{self, Cover, Event, Noted, Sight};
use sluice_rules::policy::{Identity, Policy};
use sluice_rules::split::{ServiceKey, Split, splits};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// A change of a route that the watch tells of.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The route; of one that is gone, as it was at last.
    pub policy: Policy,
    /// What it was before.
    pub before: Before,
    /// The uid of its object.
    pub uid: String,
    /// The version of its object.
    pub version: String,
    /// Is it deleted, or being deleted?
    pub gone: bool,
}

/// What a route was before a change.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one at a time, on its way into splits")]
pub enum Before {
    /// Nobody knows, as when the watch begins.
    Unknown,
    /// It did not exist.
    Absent,
    /// It was this.
    Was(Policy),
}

/// A change that somebody should have recorded; if nobody does, we do.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) due: Instant,
    cover: Cover,
    event: Arc<Event>,
}

/// Whoever made a reservation ends it at once; the others wait, in case that replica is not there any more. Each one waits
/// a little longer than that, lest they all write at the same moment.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// How long a background exchange with the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);

const TICK: Duration = Duration::from_secs(1);

/// More changes than this are not remembered; a later review shows what they did.
const MOST_WAITING: usize = 10_000;

impl Cluster {
    /// Takes note of a change of a route: confirms or drops reservations, and records a move that nobody admitted.
    pub async fn seen(&self, seen: Seen, world: &World) {
        let inner = &self.0;
        let before = match &seen.before {
            Before::Unknown => None,
            Before::Absent => Some(Vec::new()),
            Before::Was(policy) => Some(splits(policy).0),
        };
        let event = Arc::new(Event {
            policy: seen.policy.identity().clone(),
            uid: seen.uid,
            version: seen.version,
            splits: splits(&seen.policy).0,
            before,
            gone: seen.gone,
            at: inner.store.clock.now(),
        });
        for cover in inner.covers(&event, &world.guards) {
            let slot = inner.slot(&cover);
            let (noted, ours) = inner.would_note(&slot, &cover, &event);
            if !noted.is_some() {
                continue;
            }
            if ours && !inner.waits(&slot, &cover, &event.policy) {
                if !inner.settle(&slot, &cover, &event).await {
                    inner.wait(cover, &event, PATIENCE);
                }
            } else {
                let grace = if ours { Duration::ZERO } else { inner.grace };
                inner.wait(cover, &event, grace);
            }
        }
    }

    /// Takes note of a route as a review shows it. Where the watch broke off it may never tell of that state, and a change
    /// that moves no traffic leaves no other trace of it.
    pub(in crate::ledger) fn shown(
        &self,
        policy: &Identity,
        uid: &str,
        version: &str,
        splits: &[Split],
        world: &World,
    ) {
        let inner = &self.0;
        let destinations: BTreeSet<_> = splits.iter().map(|split| (&split.mesh, &split.destination)).collect();
        let mut event = None;
        for (mesh, destination) in destinations {
            let slot = lock(&inner.slots).get(&guard::Ledger::name(mesh, destination)).cloned();
            let Some(slot) = slot else { continue };
            let Some(view) = slot.view() else { continue };
            // Only reservations need to be told of it.
            if !view.ledger.outstanding().any(|(entry, _)| entry.record.policy == *policy) {
                continue;
            }
            let event = event.get_or_insert_with(|| {
                Arc::new(Event {
                    policy: policy.clone(),
                    uid: uid.to_owned(),
                    version: version.to_owned(),
                    splits: splits.to_vec(),
                    before: None,
                    gone: false,
                    at: inner.store.clock.now(),
                })
            });
            let cover = Cover::of_ledger(&world.guards, policy, &view.ledger);
            let (noted, ours) = inner.would_note(&slot, &cover, event);
            if noted.is_some() {
                inner.wait(cover, event, if ours { Duration::ZERO } else { inner.grace });
            }
        }
    }

    /// Until the process ends: does what others should have done and have not, and looks after reservations whose lease
    /// is over.
    pub async fn tend(&self, world: &Shared) {
        loop {
            sleep(TICK).await;
            let world = world.load().clone();
            self.tend_once(&world).await;
        }
    }

    /// One round of [`Self::tend`].
    pub async fn tend_once(&self, world: &World) {
        let now = Instant::now();
        let mut held = BTreeSet::new();
        let due: Vec<_> = lock(&self.0.waiting)
            .extract_if(.., |waiting| {
                let due = waiting.due <= now && !held.contains(&waiting.line());
                if !due {
                    held.insert(waiting.line());
                }
                due
            })
            .collect();
        let mut held = BTreeSet::new();
        for waiting in due {
            let line = waiting.line();
            let Waiting { cover, event, .. } = waiting;
            if held.contains(&line) || !self.0.settle(&self.0.slot(&cover), &cover, &event).await {
                held.insert(line);
                self.0.wait(cover, &event, PATIENCE);
            }
        }
        self.0.end_leases(world).await;
    }
}

impl Waiting {
    /// What has to be told in its order: a state that is skipped would make what led to it look void.
    fn line(&self) -> (String, ServiceKey, Identity) {
        (self.cover.mesh.clone(), self.cover.destination.clone(), self.event.policy.clone())
    }

    fn is_of(&self, cover: &Cover, policy: &Identity) -> bool {
        self.event.policy == *policy && self.cover.destination == cover.destination && self.cover.mesh == cover.mesh
    }
}

impl Inner {
    /// Remembers a change until later, in the order of versions.
    fn wait(&self, cover: Cover, event: &Arc<Event>, time: Duration) {
        let due = Instant::now() + time;
        let mut all = lock(&self.waiting);
        if all.len() < MOST_WAITING {
            let at = all.partition_point(|waiting| !is_older(&event.version, &waiting.event.version));
            all.insert(at, Waiting { due, cover, event: event.clone() });
        }
    }

    /// Is there anything that the ledger has to be told of a policy first? What it knows by now is forgotten.
    fn waits(&self, slot: &Slot, cover: &Cover, policy: &Identity) -> bool {
        let mut all = lock(&self.waiting);
        if !all.iter().any(|waiting| waiting.is_of(cover, policy)) {
            return false;
        }
        let now = self.store.clock.now().unwrap_or_else(Timestamp::now);
        let Ok(Draft { mut ledger, .. }) = slot.draft(cover) else { return true };
        all.retain(|waiting| {
            !waiting.is_of(cover, policy) || ledger.follow(&waiting.event, cover.settle, &self.terms, now).is_some()
        });
        all.iter().any(|waiting| waiting.is_of(cover, policy))
    }

    /// Tells a copy of a ledger what is remembered of a policy.
    pub(super) fn catch_up(
        &self,
        ledger: &mut guard::Ledger,
        cover: &Cover,
        policy: &Identity,
        now: Timestamp,
    ) -> Noted {
        let mut noted = Noted::default();
        for waiting in lock(&self.waiting).iter().filter(|waiting| waiting.is_of(cover, policy)) {
            noted += ledger.follow(&waiting.event, cover.settle, &self.terms, now);
        }
        noted
    }

    /// The destinations that a change may concern: what the route splits or split, and where a ledger knows it.
    fn covers(&self, event: &Event, guards: &[guard::ShiftGuard]) -> Vec<Cover> {
        let splits = || event.splits.iter().chain(event.before.iter().flatten());
        let slots = match &event.before {
            // Another destination than these it never had.
            Some(_) => {
                let destinations: BTreeSet<(&str, &ServiceKey)> =
                    splits().map(|split| (&*split.mesh, &split.destination)).collect();
                let slots = lock(&self.slots);
                let names = destinations.iter().map(|(mesh, destination)| guard::Ledger::name(mesh, destination));
                names.filter_map(|name| slots.get(&name).cloned()).collect()
            }
            // A first sight tells no ledger anything that does not know the policy.
            None => match self.knowing(&event.policy) {
                slots if slots.is_empty() => return Vec::new(),
                slots => slots,
            },
        };
        let mut covers = guard::covered_splits(guards, &event.policy, splits());
        let mut named: BTreeSet<String> =
            covers.iter().map(|cover| guard::Ledger::name(&cover.mesh, &cover.destination)).collect();
        for slot in slots {
            let Some(view) = slot.view() else { continue };
            let knows = view.ledger.policies.iter().any(|known| known.policy == event.policy)
                || view.ledger.outstanding().any(|(entry, _)| entry.record.policy == event.policy);
            if knows && named.insert(slot.name.clone()) {
                covers.push(Cover::of_ledger(guards, &event.policy, &view.ledger));
            }
        }
        covers
    }

    /// What the change would do to the ledger as it is in view, and whether that is only about our reservations.
    fn would_note(&self, slot: &Slot, cover: &Cover, event: &Event) -> (Noted, bool) {
        let now = self.store.clock.now().unwrap_or_else(Timestamp::now);
        let Ok(Draft { mut ledger, .. }) = slot.draft(cover) else { return (Noted::default(), false) };
        let theirs = |entry: &guard::Entry, reserved: &guard::Reserved| {
            entry.record.policy == event.policy && reserved.by != self.replica
        };
        let others = ledger.outstanding().any(|(entry, reserved)| theirs(entry, reserved));
        let noted = ledger.follow(event, cover.settle, &self.terms, now);
        (noted, !others && noted.observed == 0)
    }

    /// Writes what the change does to the ledger, whatever others write meanwhile.
    ///
    /// Gives back whether that was possible.
    async fn settle(&self, slot: &Slot, cover: &Cover, event: &Event) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let settled = self.try_settle(slot, cover, event, deadline).await;
        let done = matches!(settled, Ok(true));
        if !done {
            tracing::debug!(ledger = slot.name, ?settled, "a ledger could not be written, trying again");
        }
        done
    }

    async fn try_settle(&self, slot: &Slot, cover: &Cover, event: &Event, deadline: Instant) -> Result<bool, Trouble> {
        let now = self.now(&slot.name, deadline).await?;
        let _gate = slot.gate.lock().await;
        for attempt in 0..TRIES {
            pause(attempt).await;
            let Ok(mut draft) = slot.draft(cover) else { return Ok(true) };
            let noted = draft.ledger.follow(event, cover.settle, &self.terms, now);
            if !noted.is_some() {
                return Ok(true);
            }
            bound(&mut draft.ledger, cover, now);
            if self.write(slot, draft, noted, deadline).await? {
                return Ok(true);
            }
            self.refresh(slot, deadline).await?;
        }
        Ok(false)
    }

    /// Reservations whose lease is over: the object is read once more, which confirms or drops them.
    async fn end_leases(&self, world: &World) {
        let Some(now) = self.store.clock.now() else {
            // Without the time no lease is over. One answer tells it.
            let name = lock(&self.slots).keys().next().cloned();
            if let Some(name) = name {
                let _ = self.now(&name, Instant::now() + PATIENCE).await;
            }
            return;
        };
        let slots: Vec<_> = lock(&self.slots).values().cloned().collect();
        for slot in slots {
            let Some(view) = slot.view() else { continue };
            let overdue = |entry: &guard::Entry, reserved: &guard::Reserved| {
                let grace = if reserved.by == self.replica { Duration::ZERO } else { GRACE };
                now.checked_sub(grace).is_ok_and(|then| entry.is_overdue(&self.terms, then))
            };
            let policies: BTreeSet<Identity> = view
                .ledger
                .outstanding()
                .filter(|(entry, reserved)| overdue(entry, reserved))
                .map(|(entry, _)| entry.record.policy.clone())
                .collect();
            for policy in policies {
                if let Err(trouble) = self.look(&slot, &policy, world, now).await {
                    tracing::warn!(ledger = slot.name, %policy, ?trouble, "cannot tell what became of a reservation, trying again");
                }
            }
        }
    }

    async fn look(&self, slot: &Slot, policy: &Identity, world: &World, now: Timestamp) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        let _gate = slot.gate.lock().await;
        for attempt in 0..TRIES {
            pause(attempt).await;
            // First the ledger, then the object: then the object is newer than whatever the ledger says of it.
            self.refresh(slot, deadline).await?;
            let Some(view) = slot.view() else { return Ok(()) };
            let mut draft = Draft::of(&view);
            let ledger = &mut draft.ledger;
            let Found { object, version } = self.store.policy(policy, deadline).await?;
            let text = |object: &Value, at: &str| object.pointer(at).and_then(Value::as_str).map(str::to_owned);
            let deleted = |object: &Value| object.pointer("/metadata/deletionTimestamp").is_some();
            let object = object.filter(|object| !deleted(object));
            // What cannot be read routes nothing.
            let read = object.as_ref().and_then(|object| Policy::read(object).ok());
            let found = read.map(|policy| splits(&policy).0).unwrap_or_default();
            let uid = object.as_ref().and_then(|object| text(object, "/metadata/uid"));
            let known = ledger.policies.iter().find(|known| known.policy == *policy).map(|known| known.uid.clone());
            let of_object = object.as_ref().and_then(|object| text(object, "/metadata/resourceVersion"));
            let version = of_object.or(version);
            let covers = guard::covered_splits(&world.guards, policy, &found);
            let ours = |cover: &Cover| cover.mesh == ledger.mesh && cover.destination == ledger.destination;
            let cover = covers.into_iter().find(ours);
            let cover = cover.unwrap_or_else(|| Cover::of_ledger(&world.guards, policy, ledger));
            let sight = Sight {
                policy,
                uid: &uid.or(known).unwrap_or_default(),
                version: version.as_deref(),
                splits: &found,
                before: None,
                gone: object.is_none(),
                fresh: true,
                at: Some(now),
            };
            let noted = ledger.observe(&sight, cover.settle, &self.terms, now);
            if !noted.is_some() || self.write(slot, draft, noted, deadline).await? {
                return Ok(());
            }
        }
        Err(Trouble::Failed("others write the ledger all the time".into()))
    }
}

/// Keeps a ledger small. Where no guard covers it any more nobody knows what matters, and no move is forgotten.
fn bound(ledger: &mut guard::Ledger, cover: &Cover, now: Timestamp) {
    if !cover.settle.is_zero() {
        ledger.bound(cover, now);
    }
}

/// Gives others a chance before the next attempt.
async fn pause(attempt: u32) {
    if attempt > 0 {
        sleep(jitter(20 * u64::from(attempt))).await;
    }
}
