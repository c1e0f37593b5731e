//! Routes and guards for the tests of both kinds of ledgers.

use super::Asked;
use crate::world::World;
use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_rules::guard::{Author, Request, ShiftGuard};
use sluice_rules::policy::Policy;
use sluice_rules::split::{Split, change, splits};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One guard for everything, with these caps.
pub(super) fn world(caps: Value) -> World {
    let guard = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard", "metadata": {"name": "g"},
        "spec": {"caps": caps}});
    World { guards: vec![ShiftGuard::read(&guard).unwrap()], ..World::default() }
}

/// A route to the destination `summarize.demo`, and its object's versions.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: u64,
    pub(super) canary: Option<u64>,
}

impl Route {
    pub(super) fn new(name: &str, canary: u64) -> Self {
        Self { name: name.to_owned(), uid: format!("{name}-1"), version: 5, canary: Some(canary) }
    }

    pub(super) fn write(&mut self, canary: u64) {
        self.version += 1;
        self.canary = Some(canary);
    }

    /// Something else than the weights changes.
    pub(super) fn touch(&mut self) {
        self.version += 1;
    }

    pub(super) fn remove(&mut self) {
        self.canary = None;
    }

    pub(super) fn object(&self, canary: u64) -> Value {
        let backend =
            |name: &str, weight: u64| json!({"kind": "MeshService", "name": name, "port": 80, "weight": weight});
        let refs = json!([backend("v1", 100 - canary), backend("v2", canary)]);
        let to = json!([{"targetRef": {"kind": "MeshService", "name": "summarize"}, "rules": [{"default": {"backendRefs": refs}}]}]);
        json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
            "metadata": {"name": self.name, "namespace": "demo", "uid": self.uid, "resourceVersion": self.version.to_string()},
            "spec": {"to": to}})
    }

    pub(super) fn policy(&self, canary: u64) -> Policy {
        Policy::read(&self.object(canary)).unwrap()
    }

    fn splits(&self, canary: Option<u64>) -> Vec<Split> {
        canary.map(|canary| splits(&self.policy(canary)).0).unwrap_or_default()
    }

    pub(super) fn to(&self, canary: u64) -> Asked {
        self.asked(Some(canary), Some(self.version.to_string()))
    }

    /// The deletion.
    pub(super) fn away(&self) -> Asked {
        self.asked(None, Some(self.version.to_string()))
    }

    /// The creation of another object of that name.
    pub(super) fn created(&mut self, canary: u64) -> Asked {
        self.uid = format!("{}-{}", self.name, self.version);
        self.asked(Some(canary), None)
    }

    fn asked(&self, canary: Option<u64>, version: Option<String>) -> Asked {
        let before = version.as_ref().map(|_| self.splits(self.canary)).unwrap_or_default();
        let after = self.splits(canary);
        Asked {
            request: Request {
                identity: self.policy(0).identity().clone(),
                author: Author::Bot,
                change: change(&before, &after).into(),
            },
            uid: self.uid.clone(),
            version,
            before: Arc::new(before.into()),
            after: Arc::new(after.into()),
            now: Timestamp::now(),
            dry_run: false,
            deadline: Instant::now() + Duration::from_secs(10),
        }
    }
}
