//! What the watch tells of ledgers.

use super::store::is_older;
use super::{Cluster, View, lock};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

impl Cluster {
    /// Follows the ledgers until the process ends; whatever goes wrong with the watch is tried again.
    pub async fn watch(&self) {
        let api: Api<DynamicObject> = Api::all_with(self.0.store.client(), &resource());
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut listed = None;
        loop {
            match events.try_next().await {
                Ok(Some(event)) => self.apply(event, &mut listed),
                Ok(None) => return,
                Err(error) => tracing::warn!(%error, "the watch of ledgers broke off, trying again"),
            }
        }
    }

    /// Takes note of one event. `listed` is what a list that is being read has named so far.
    pub fn apply(&self, event: Event<DynamicObject>, listed: &mut Option<BTreeSet<String>>) {
        match event {
            Event::Init => *listed = Some(BTreeSet::new()),
            Event::InitApply(object) | Event::Apply(object) => {
                if let Some(listed) = listed {
                    listed.extend(object.metadata.name.clone());
                }
                self.take(object);
            }
            Event::Delete(object) => {
                let Some(name) = object.metadata.name else { return };
                let version = object.metadata.resource_version.unwrap_or_default();
                self.0.slot_of(name).replace(|view| {
                    if view.as_ref().is_some_and(|view| !is_older(&version, &view.version)) {
                        *view = None;
                    }
                });
            }
            Event::InitDone => {
                let listed = listed.take().unwrap_or_default();
                // One that was just created may be missing from the list; to write it then fails, and it is read.
                for (name, slot) in lock(&self.0.slots).iter().filter(|(name, _)| !listed.contains(*name)) {
                    tracing::debug!(ledger = name, "this ledger is not there");
                    slot.replace(|view| *view = None);
                }
                self.0.synced.store(true, Ordering::Release);
            }
        }
    }

    fn take(&self, object: DynamicObject) {
        let Some(name) = object.metadata.name.clone() else { return };
        let value = serde_json::to_value(&object).unwrap_or_default();
        match View::of(&value) {
            Ok(view) => self.0.slot_of(name).set(view),
            // Whoever needs it reads it again and reports why it cannot be used.
            Err(trouble) => tracing::warn!(ledger = name, ?trouble, "this ledger cannot be read"),
        }
    }
}

fn resource() -> ApiResource {
    ApiResource {
        group: "sluice.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "sluice.dev/v1alpha1".to_owned(),
        kind: "ShiftLedger".to_owned(),
        plural: "shiftledgers".to_owned(),
    }
}
