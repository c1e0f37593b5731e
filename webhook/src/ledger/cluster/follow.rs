//! What the watches tell of ledgers and routes.

use super::{Cluster, View, lock};
use crate::cluster::{Event, Seen};
use crate::world::{Shared, World};
use serde_json::Value;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::UnboundedReceiver;

impl Cluster {
    /// Follows what the cluster's watches tell until they end.
    pub async fn follow(&self, mut events: UnboundedReceiver<Event>, world: &Shared) {
        while let Some(event) = events.recv().await {
            let world = world.load().clone();
            self.apply(event, &world);
        }
    }

    /// Takes note of one event. What is to be written because of it is written in the background, so that the next
    /// event is not held up.
    pub fn apply(&self, event: Event, world: &World) {
        match event {
            Event::Ledger(object) => self.take(&object),
            // One that was created again meanwhile is found out by the next write.
            Event::LedgerGone(name) => *lock(&self.0.slot_of(name).view) = None,
            // Before all ledgers are known, no route says anything about them.
            Event::Route(seen) if !self.is_synced() => lock(&self.0.early).push(*seen),
            Event::Route(seen) => self.settle_beside(*seen, world),
            Event::Complete => {
                self.0.synced.store(true, Ordering::Release);
                let early = std::mem::take(&mut *lock(&self.0.early));
                early.into_iter().for_each(|seen| self.settle_beside(seen, world));
            }
        }
    }

    fn settle_beside(&self, seen: Seen, world: &World) {
        for (cover, event) in self.note(seen, world) {
            let inner = self.0.clone();
            tokio::spawn(async move { inner.settle(&inner.slot(&cover), &cover, &event).await });
        }
    }

    fn take(&self, object: &Value) {
        let Some(name) = object.pointer("/metadata/name").and_then(Value::as_str) else { return };
        match View::of(object) {
            Ok(view) => self.0.slot_of(name.to_owned()).set(view),
            // Whoever needs it reads it again and reports why it cannot be used.
            Err(trouble) => tracing::warn!(ledger = name, ?trouble, "this ledger cannot be read"),
        }
    }
}
