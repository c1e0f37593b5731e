//! How far and how fresh the knowledge of the cluster is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far and how fresh the knowledge of the cluster is; written by the watches, read by `/ready` and `/metrics`.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ready: bool,
    missing: Vec<String>,
    heard: BTreeMap<&'static str, Heard>,
    unreadable: u64,
}

#[derive(Debug)]
struct Heard {
    listed: bool,
    last: Instant,
}

impl Progress {
    /// Was every list complete once? It stays so: when the API server goes away, answers go on from memory.
    pub fn is_ready(&self) -> bool {
        self.lock().ready
    }

    /// What readiness still waits for, one sentence; none when ready.
    pub fn waits_for(&self) -> Option<String> {
        let inner = self.lock();
        if inner.ready {
            return None;
        }
        if let Some(crd) = inner.missing.first() {
            return Some(format!("the CRD `{crd}` is not installed: apply `sluice-webhook crds`"));
        }
        let unlisted: Vec<_> = inner.heard.iter().filter(|(_, heard)| !heard.listed).map(|(name, _)| *name).collect();
        let unlisted = if unlisted.is_empty() { "customresourcedefinitions".to_owned() } else { unlisted.join(", ") };
        Some(format!("the first list of {unlisted} is not complete"))
    }

    /// How long ago the API server last told something, or that there is nothing to tell, about the kind that has been
    /// silent longest. A quiet healthy watch stays near one minute, the API server's interval of bookmarks.
    pub fn age(&self) -> Duration {
        self.lock().heard.values().map(|heard| heard.last.elapsed()).max().unwrap_or_default()
    }

    /// How many times an object was seen that could not be read.
    pub fn unreadable(&self) -> u64 {
        self.lock().unreadable
    }

    pub(super) fn add(&self, name: &'static str) {
        self.lock().heard.entry(name).or_insert(Heard { listed: false, last: Instant::now() });
    }

    pub(super) fn remove(&self, name: &str) {
        self.lock().heard.remove(name);
    }

    pub(super) fn heard(&self, name: &str) {
        if let Some(heard) = self.lock().heard.get_mut(name) {
            heard.last = Instant::now();
        }
    }

    pub(super) fn listed(&self, name: &str) {
        if let Some(heard) = self.lock().heard.get_mut(name) {
            heard.listed = true;
        }
    }

    pub(super) fn count_unreadable(&self) {
        self.lock().unreadable += 1;
    }

    /// Is every list of the present kinds complete? The CRDs in `missing` are needed and absent.
    pub(super) fn settle(&self, missing: Vec<String>) -> bool {
        let mut inner = self.lock();
        let complete = missing.is_empty() && !inner.heard.is_empty() && inner.heard.values().all(|heard| heard.listed);
        inner.missing = missing;
        complete
    }

    pub(super) fn set_ready(&self) {
        self.lock().ready = true;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
