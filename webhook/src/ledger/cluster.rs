//! History as `ShiftLedger` objects, one per destination, that all replicas share.
//!
//! An answer judges by the cached ledgers. Only a change that may happen costs a network call: the ledger with the
//! reservation is written on exactly the version that was judged, so whoever comes second judges again. Within one
//! process changes of a destination queue up, so that replicas contend and not tasks.

mod clock;
mod index;
mod settle;
mod store;
mod watch;

pub use settle::{Before, Seen};

use super::case::Case;
use super::{Asked, Unavailable};
use crate::world::World;
use index::Index;
use jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use settle::Waiting;
use sluice_rules::guard::{self, Cover, Mark, Noted, Terms, Verdict};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::{Store, Trouble, View};
use tokio::time::{sleep, timeout_at};

/// How long a change may be in flight unless something else is known: the API server's default request timeout.
pub const LEASE: SignedDuration = SignedDuration::from_secs(60);

/// Replicas read the API server's clock, each to within a second and a half; 4 s leave room for drift.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(4);

/// An answer that is ready so long before the deadline still arrives.
const MARGIN: Duration = Duration::from_millis(50);

/// Lost races in a row, after which the change is refused.
const TRIES: u32 = 8;

/// History as objects that all replicas share. Clones share everything.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    /// The name of this replica.
    replica: String,
    terms: Terms,
    /// How long others have to end their reservations.
    grace: Duration,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// How often any view changed.
    changes: Arc<AtomicU64>,
    index: Mutex<Index>,
    waiting: Mutex<Vec<Waiting>>,
    synced: AtomicBool,
    counters: Counters,
}

/// One ledger.
#[derive(Debug)]
struct Slot {
    name: String,
    /// Held by whoever writes the ledger.
    gate: tokio::sync::Mutex<()>,
    /// The ledger as it was last seen; none where there is none.
    view: Mutex<Option<View>>,
    /// [`Inner::changes`].
    changes: Arc<AtomicU64>,
}

/// A ledger that is to be changed. What comes of it may replace the version it was copied from and no other: the watch
/// brings newer ones at any moment, and whoever wrote them would be undone.
#[derive(Debug)]
struct Draft {
    ledger: guard::Ledger,
    /// None where there is no ledger yet.
    version: Option<String>,
}

#[derive(Debug, Default)]
struct Counters {
    reserved: AtomicU64,
    returned: AtomicU64,
    confirmed: AtomicU64,
    dropped: AtomicU64,
    observed: AtomicU64,
    conflicts: AtomicU64,
}

/// What happened to reservations since the start, and how many are outstanding now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reservations that this replica made.
    pub reserved: u64,
    /// Those that it gave back, because the change was refused after all.
    pub returned: u64,
    /// Reservations that this replica found to be real.
    pub confirmed: u64,
    /// Reservations that this replica found to have come to nothing.
    pub dropped: u64,
    /// Moves that passed without admission and that this replica recorded.
    pub observed: u64,
    /// Writes that came second.
    pub conflicts: u64,
    /// Reservations of all replicas that nobody has seen yet.
    pub outstanding: u64,
    /// Ledgers.
    pub ledgers: u64,
}

impl Cluster {
    /// `replica` is this process's name among the replicas, such as its pod's. Nothing is read yet: [`Self::watch`] and
    /// [`Self::tend`] are to run beside the server.
    ///
    /// `lease` is how long a change may be in flight after it was admitted: no less than the API server lets a request
    /// last, or a change may be written that nobody counts any more. All replicas are to have the same.
    pub fn new(client: kube::Client, replica: impl Into<String>, lease: SignedDuration) -> Self {
        Self(Arc::new(Inner {
            store: Store::new(client),
            replica: replica.into(),
            terms: Terms { lease, tolerance: TOLERANCE, watched: true },
            grace: settle::GRACE + jitter(2000),
            slots: Mutex::default(),
            changes: Arc::default(),
            index: Mutex::default(),
            waiting: Mutex::default(),
            synced: AtomicBool::new(false),
            counters: Counters::default(),
        }))
    }

    /// Have all ledgers been read once?
    pub fn is_synced(&self) -> bool {
        self.0.synced.load(Ordering::Acquire)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let Counters { reserved, returned, confirmed, dropped, observed, conflicts } = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let slots: Vec<_> = lock(&self.0.slots).values().cloned().collect();
        let views: Vec<_> = slots.iter().filter_map(|slot| slot.view()).collect();
        Counts {
            reserved: read(reserved),
            returned: read(returned),
            confirmed: read(confirmed),
            dropped: read(dropped),
            observed: read(observed),
            conflicts: read(conflicts),
            outstanding: views.iter().map(|view| view.ledger.outstanding().count() as u64).sum(),
            ledgers: views.len() as u64,
        }
    }

    pub(super) async fn admit(&self, asked: &Asked, world: &World) -> Result<Verdict, Unavailable> {
        let inner = &self.0;
        let case = Case::new(asked, world, &inner.terms, &inner.replica);
        let covers = case.covers();
        if covers.is_empty() {
            return Ok(case.judge(&[], asked.now));
        }
        let slots: Vec<_> = covers.iter().map(|cover| inner.slot(cover)).collect();
        let deadline = asked.deadline.checked_sub(MARGIN).unwrap_or(asked.deadline);
        let (now, reached) = match inner.now(&slots[0].name, deadline).await {
            Ok(now) => (now, Ok(())),
            Err(trouble) => (asked.now, Err(unavailable(&covers[0], trouble))),
        };
        // A denial answers from memory. What follows on an old view is found out by the write.
        let (_, mut verdict) = inner.judge(&case, &covers, &slots, now)?;
        if verdict.outcome == guard::Outcome::Denied {
            return Ok(verdict);
        }
        if !case.reserves(&verdict) {
            return reached.map(|()| verdict);
        }
        let reserved = match reached {
            Ok(()) => inner.reserve(&case, &covers, &slots, deadline).await,
            Err(error) => Err(error),
        };
        match reserved {
            Err(error) if verdict.records.iter().all(|record| record.rollback) => {
                verdict.notes.push(format!("the way back passes although it is not recorded yet: {error}"));
                Ok(verdict)
            }
            other => other,
        }
    }
}

impl Inner {
    fn slot(&self, cover: &Cover) -> Arc<Slot> {
        self.slot_of(guard::Ledger::name(&cover.mesh, &cover.destination))
    }

    fn slot_of(&self, name: String) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        let new = || Slot {
            name: name.clone(),
            gate: tokio::sync::Mutex::default(),
            view: Mutex::default(),
            changes: self.changes.clone(),
        };
        slots.entry(name.clone()).or_insert_with(|| Arc::new(new())).clone()
    }

    /// The API server's time. Where it is not known, `name` is read to learn it.
    async fn now(&self, name: &str, deadline: Instant) -> Result<Timestamp, Trouble> {
        if let Some(now) = self.store.clock.now() {
            return Ok(now);
        }
        self.store.get(name, deadline).await?;
        let unknown = || Trouble::Failed("its answers tell no usable time".into());
        self.store.clock.now().ok_or_else(unknown)
    }

    /// The verdict, and the ledgers as they are with what the review shows.
    fn judge(
        &self,
        case: &Case<'_>,
        covers: &[Cover],
        slots: &[Arc<Slot>],
        now: Timestamp,
    ) -> Result<(Vec<(Draft, Noted)>, Verdict), Unavailable> {
        let mut drafts = Vec::new();
        for (cover, slot) in covers.iter().zip(slots) {
            let mut draft = slot.draft(cover)?;
            let mut noted = self.catch_up(&mut draft.ledger, cover, case.policy(), now);
            noted += case.observe(&mut draft.ledger, cover, now);
            drafts.push((draft, noted));
        }
        let verdict = case.judge(&drafts.iter().map(|(draft, _)| &draft.ledger).collect::<Vec<_>>(), now);
        Ok((drafts, verdict))
    }

    /// Judges and reserves in one step, in every ledger or in none.
    async fn reserve(
        self: &Arc<Self>,
        case: &Case<'_>,
        covers: &[Cover],
        slots: &[Arc<Slot>],
        deadline: Instant,
    ) -> Result<Verdict, Unavailable> {
        let mut gates = Vec::new();
        for slot in slots {
            let gate = timeout_at(deadline.into(), slot.gate.lock()).await;
            gates.push(gate.map_err(|_| Unavailable::Late)?);
        }
        // What is reserved so far goes back when the rest fails, also when the client hangs up meanwhile.
        let mut held = Held { inner: self, marks: BTreeMap::new() };
        'again: for attempt in 0..TRIES {
            if attempt > 0 {
                timeout_at(deadline.into(), sleep(jitter(10 * u64::from(attempt))))
                    .await
                    .map_err(|_| Unavailable::Late)?;
            }
            let now = self.now(&slots[0].name, deadline).await.map_err(|trouble| unavailable(&covers[0], trouble))?;
            let (drafts, verdict) = self.judge(case, covers, slots, now)?;
            if !case.reserves(&verdict) {
                return Ok(verdict);
            }
            for (index, (mut draft, noted)) in drafts.into_iter().enumerate() {
                if held.marks.contains_key(&index) {
                    continue;
                }
                let (cover, slot) = (&covers[index], &slots[index]);
                let mark = case.mark(&draft.ledger);
                let until = case.reserve(&mut draft.ledger, cover, &verdict);
                let written = self.write(slot, draft, noted, deadline).await;
                if !written.map_err(|trouble| unavailable(cover, trouble))? {
                    self.refresh(slot, deadline).await.map_err(|trouble| unavailable(cover, trouble))?;
                    continue 'again;
                }
                // One that was reserved before may be in flight: only its lease ends it.
                held.marks.insert(index, until.map(|until| (slot.clone(), mark, until)));
                self.counters.reserved.fetch_add(u64::from(until.is_some()), Ordering::Relaxed);
            }
            held.marks.clear();
            return Ok(verdict);
        }
        Err(Unavailable::Contended(covers[0].destination.to_string()))
    }

    /// Writes a ledger on the version it was copied from; false when somebody else came first.
    async fn write(&self, slot: &Slot, draft: Draft, noted: Noted, deadline: Instant) -> Result<bool, Trouble> {
        match self.store.put(&slot.name, draft.version.as_deref(), draft.ledger, deadline).await? {
            Some(view) => {
                slot.set(view);
                for (counter, count) in [
                    (&self.counters.confirmed, noted.confirmed),
                    (&self.counters.dropped, noted.dropped),
                    (&self.counters.observed, noted.observed),
                ] {
                    counter.fetch_add(count as u64, Ordering::Relaxed);
                }
                Ok(true)
            }
            None => {
                self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
        }
    }

    async fn refresh(&self, slot: &Slot, deadline: Instant) -> Result<(), Trouble> {
        let present = slot.view().map(|view| view.version);
        let view = self.store.get(&slot.name, deadline).await?;
        slot.refresh(present.as_deref(), view);
        Ok(())
    }

    /// Gives a reservation back; where that fails its lease ends it.
    async fn give_back(&self, slot: &Slot, mark: &Mark, until: Timestamp) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let _gate = slot.gate.lock().await;
        for _ in 0..TRIES {
            let Some(view) = slot.view() else { return };
            let mut draft = Draft::of(&view);
            if !draft.ledger.release(mark, until) {
                return;
            }
            match self.write(slot, draft, Noted::default(), deadline).await {
                Ok(true) => {
                    self.counters.returned.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Ok(false) if self.refresh(slot, deadline).await.is_ok() => {}
                Ok(false) | Err(_) => break,
            }
        }
        tracing::warn!(ledger = slot.name, "a reservation could not be given back, it ends with its lease");
    }
}

/// What was reserved for a change that is not allowed yet, and until when.
struct Held<'a> {
    inner: &'a Arc<Inner>,
    marks: BTreeMap<usize, Option<(Arc<Slot>, Mark, Timestamp)>>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for (slot, mark, until) in std::mem::take(&mut self.marks).into_values().flatten() {
            let inner = self.inner.clone();
            tokio::spawn(async move { inner.give_back(&slot, &mark, until).await });
        }
    }
}

impl Slot {
    fn view(&self) -> Option<View> {
        lock(&self.view).clone()
    }

    /// Takes a view unless it is older than the one there is.
    fn set(&self, view: View) {
        self.replace(|present| {
            if present.as_ref().is_none_or(|present| !view.is_older(present)) {
                *present = Some(view);
            }
        });
    }

    /// Takes what was read while the view was at this version. What the watch or a write brought meanwhile may be newer;
    /// otherwise the server is right even where its versions went back, as after a restore.
    fn refresh(&self, version: Option<&str>, view: Option<View>) {
        self.replace(|present| {
            let is_newer = |present: &View| view.as_ref().is_some_and(|view| view.is_older(present));
            let changed = present.as_ref().map(|present| &*present.version) != version;
            if !(changed && present.as_ref().is_some_and(is_newer)) {
                *present = view;
            }
        });
    }

    fn replace(&self, change: impl FnOnce(&mut Option<View>)) {
        change(&mut lock(&self.view));
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// A copy of the ledger to be changed; an empty one where there is none.
    fn draft(&self, cover: &Cover) -> Result<Draft, Unavailable> {
        let Some(view) = self.view() else {
            let ledger = guard::Ledger::new(cover.mesh.clone(), cover.destination.clone());
            return Ok(Draft { ledger, version: None });
        };
        if view.ledger.mesh != cover.mesh || view.ledger.destination != cover.destination {
            let other = format!("`{}` is the ledger of `{}`: delete it", self.name, view.ledger.destination);
            return Err(unavailable(cover, Trouble::Failed(other.into())));
        }
        Ok(Draft::of(&view))
    }
}

impl Draft {
    fn of(view: &View) -> Self {
        Self { ledger: guard::Ledger::clone(&view.ledger), version: Some(view.version.clone()) }
    }
}

fn unavailable(cover: &Cover, trouble: Trouble) -> Unavailable {
    match trouble {
        Trouble::Late => Unavailable::Late,
        Trouble::Failed(source) => Unavailable::Unreachable { subject: cover.destination.to_string(), source },
    }
}

/// Up to so many milliseconds, so that those who raced do not race again.
fn jitter(most: u64) -> Duration {
    Duration::from_millis(rand::rng().random_range(1..=most))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
