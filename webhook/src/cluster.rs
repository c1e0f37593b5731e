//! What the webhook knows of its cluster, by watching it.
//!
//! One task per kind lists and watches, one task turns their events into the [`World`](crate::world::World) and into
//! [`Event`]s for the ledger. kube's own watcher is not used because it keeps bookmarks to itself, and they are what
//! tells a quiet cluster from a dead connection; its store is not used because it keeps whole objects. Nothing here
//! stops when an object cannot be read or the API server is away: answers go on from what was known last.

pub mod certificate;
mod kinds;
mod progress;
pub mod registration;
pub mod replica;
pub mod start;
mod state;
pub mod upkeep;
mod watch;

pub use progress::Progress;

use crate::world::Shared;
use kinds::{DEFINITIONS, KINDS};
use kube::Client;
use sluice_rules::policy::{Identity, Policy};
use sluice_rules::validate::Version;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedSender};
use tokio::task::AbortHandle;

/// What a cluster is watched with and for.
#[derive(Clone)]
pub struct Settings {
    /// How to reach the API server.
    pub client: Client,
    /// What is kept up to date: guards, approvals, what is known to exist, Kuma's generation.
    pub world: Shared,
    /// Who wants to know of every route and ledger. Nobody listening is no error.
    pub events: UnboundedSender<Event>,
    /// Kuma's generation; none: told from its CRDs, of which 3.0 has lost `TrafficRoute`.
    pub kuma: Option<Version>,
}

/// Something that happened in the cluster.
#[derive(Debug)]
pub enum Event {
    /// A route was created, changed or deleted, or is seen for the first time.
    Route(Box<Seen>),
    /// A `ShiftLedger` as it is now.
    Ledger(serde_json::Value),
    /// No `ShiftLedger` has this name any more.
    LedgerGone(String),
    /// Everything that existed at the start has been told. Told once.
    Complete,
}

/// A route as the watch saw it. A review is no proof of a write; this is.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which route.
    pub identity: Identity,
    /// The object's uid: another one under the same name is another object.
    pub uid: String,
    /// The resource version of `present`, or the one that was deleted.
    pub version: String,
    /// Was it there before this process looked? Then `previous` is unknown rather than absent.
    pub first: bool,
    /// What it was when it was seen before; none also when that could not be read.
    pub previous: Option<Policy>,
    /// What it is now; none when it is deleted, or cannot be read.
    pub present: Option<Policy>,
    /// Is it deleted?
    pub deleted: bool,
}

/// Watches the cluster until the future is dropped; it never ends by itself.
///
/// `progress` says when every list is complete and how old the knowledge is.
pub async fn watch(settings: Settings, progress: Arc<Progress>) {
    // Bounded, so that a list of many objects waits for the one task that digests it instead of piling up.
    let (sender, receiver) = tokio::sync::mpsc::channel(256);
    let definitions = watch::run(settings.client.clone(), &DEFINITIONS, sender.clone(), progress.clone());
    tokio::join!(definitions, digest(settings, progress, sender, receiver));
}

/// Digests what the watches tell, and starts and ends a watch per kind as its CRD comes and goes.
async fn digest(
    settings: Settings,
    progress: Arc<Progress>,
    sender: Sender<watch::Message>,
    mut receiver: Receiver<watch::Message>,
) {
    let mut state = state::State::new(&settings);
    let mut running = BTreeMap::<&'static str, Watching>::new();
    let mut batch = Vec::new();
    loop {
        // This function holds a sender, so the channel never closes: nothing received means that it is time to publish.
        let received = receiver.recv_many(&mut batch, 256);
        match state.publication_due() {
            Some(within) => drop(tokio::time::timeout(within, received).await),
            None => drop(received.await),
        }
        for message in batch.drain(..) {
            // What a watch sent before it was ended comes too late.
            let outdated = message.kind.name != DEFINITIONS.name && !running.contains_key(message.kind.name);
            if !outdated {
                state.digest(message);
            }
        }
        for kind in &KINDS {
            let exists = state.exists(kind);
            if exists && !running.contains_key(kind.name) {
                progress.add(kind.name);
                let task = watch::run(settings.client.clone(), kind, sender.clone(), progress.clone());
                running.insert(kind.name, Watching(tokio::spawn(task).abort_handle()));
            } else if !exists && running.remove(kind.name).is_some() {
                progress.remove(kind.name);
                state.forget(kind);
            }
        }
        state.publish(&progress);
    }
}

/// A watch that ends when this is dropped.
struct Watching(AbortHandle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}
