//! `MeshTCPRoute`.

use super::{BackendRef, TargetRef, nullable};
use serde::Deserialize;

/// The spec of a `MeshTCPRoute`, as far as decisions look into it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshTcpRoute {
    /// The clients; absent means all of the mesh.
    pub target_ref: Option<TargetRef>,
    /// The destinations.
    #[serde(deserialize_with = "nullable")]
    pub to: Vec<TcpTo>,
}

/// One destination and its rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpTo {
    /// The service the clients call.
    #[serde(deserialize_with = "nullable")]
    pub target_ref: TargetRef,
    /// The rule; Kuma takes at most one.
    #[serde(deserialize_with = "nullable")]
    pub rules: Vec<TcpRule>,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TcpRule {
    /// Where connections go.
    #[serde(deserialize_with = "nullable")]
    pub default: TcpConf,
}

/// Where connections go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpConf {
    /// The backends.
    #[serde(deserialize_with = "nullable")]
    pub backend_refs: Vec<BackendRef>,
}
