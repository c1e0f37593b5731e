//! What is known to exist beside a policy.

use serde_json::Value;

/// What is known to exist beside a policy.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Is everything known, so that what is not here does not exist?
    pub complete: bool,
}

impl Known {
    /// Takes note of an object of Kuma; one of the same kind, mesh, namespace and name is replaced.
    pub fn insert(&mut self, _object: &Value) {}

    /// Forgets an object.
    pub fn remove(&mut self, _object: &Value) {}
}
