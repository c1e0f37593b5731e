//! `targetRef` and `backendRefs[]`: how policies name clients, destinations and backends.

use super::{Weight, nullable, texts};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a policy is about. 3.0 keeps `kind`, `labels` and `sectionName`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetRef {
    /// `Mesh`, `Dataplane`, `MeshService` and so on.
    #[serde(deserialize_with = "nullable")]
    pub kind: String,
    /// The target's name.
    pub name: Option<String>,
    /// The target's namespace; absent means the policy's own.
    pub namespace: Option<String>,
    /// Labels that select the target.
    #[serde(deserialize_with = "texts")]
    pub labels: BTreeMap<String, String>,
    /// Tags that narrow it.
    #[serde(deserialize_with = "texts")]
    pub tags: BTreeMap<String, String>,
    /// Another mesh.
    pub mesh: Option<String>,
    /// One port, by name or number.
    pub section_name: Option<String>,
    /// `Sidecar`, `Gateway`; none means both.
    #[serde(deserialize_with = "nullable")]
    pub proxy_types: Vec<String>,
}

/// Where a rule sends a part of its traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendRef {
    /// `MeshService`, `MeshServiceSubset`, `MeshExternalService` or `MeshMultiZoneService`.
    #[serde(deserialize_with = "nullable")]
    pub kind: String,
    /// The backend's name.
    pub name: Option<String>,
    /// The backend's namespace; absent means the policy's own.
    pub namespace: Option<String>,
    /// Labels that select the backend.
    #[serde(deserialize_with = "texts")]
    pub labels: BTreeMap<String, String>,
    /// Tags that narrow it.
    #[serde(deserialize_with = "texts")]
    pub tags: BTreeMap<String, String>,
    /// Another mesh.
    pub mesh: Option<String>,
    /// One port, by name.
    pub section_name: Option<String>,
    /// One port, by number.
    pub port: Option<u32>,
    /// Its weight; absent means 1.
    pub weight: Option<Weight>,
}
