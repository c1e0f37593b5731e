//! The rules of a MeshTCPRoute, and those that both kinds of routes share.

use super::http_route::items;
use super::target_ref::{Allowed, TargetRef};
use super::{Findings, Role, Version};
use crate::schema::Place;
use serde_json::{Map, Value};

pub(super) fn check(spec: &Map<String, Value>, role: Role, version: Version, place: &Place<'_>, found: &mut Findings) {
    let gateway = check_top(spec, role, version, place, found);
    let place = place.field("to");
    for (index, to) in items(spec.get("to")).iter().enumerate() {
        let place = place.index(index);
        let target = TargetRef::read(to.get("targetRef"), version);
        target.check(destinations(gateway), version, &place.field("targetRef"), found);
        let place = place.field("rules");
        for (index, rule) in items(to.get("rules")).iter().enumerate() {
            let place = place.index(index);
            let place = place.field("default");
            let place = place.field("backendRefs");
            let refs = items(rule.get("default").and_then(|default| default.get("backendRefs")));
            if refs.is_empty() {
                found.add(&place, "must be defined");
            }
            for (index, backend) in refs.iter().enumerate() {
                let place = place.index(index);
                let target = TargetRef::read(Some(backend), version);
                target.check(backends(version), version, &place, found);
                target.check_backend(&place, found);
            }
        }
    }
}

/// Checks the top-level reference and tells whether it is to a built-in gateway.
pub(super) fn check_top(
    spec: &Map<String, Value>,
    role: Role,
    version: Version,
    place: &Place<'_>,
    found: &mut Findings,
) -> bool {
    let Some(target) = spec.get("targetRef").filter(|target| !target.is_null()) else { return false };
    let target = TargetRef::read(Some(target), version);
    let kinds: &[&str] = match (version, role) {
        (Version::V2_14, Role::System) => {
            &["Mesh", "Dataplane", "MeshSubset", "MeshService", "MeshServiceSubset", "MeshGateway"]
        }
        (Version::V2_14, Role::Application) => &["Mesh", "Dataplane", "MeshSubset", "MeshService", "MeshServiceSubset"],
        (Version::V3_0, _) => &["Mesh", "Dataplane"],
    };
    target.check(Allowed::kinds(kinds), version, &place.field("targetRef"), found);
    // Even where a gateway may not be selected, the rest is held to a gateway's rules. 3.0 has none.
    version == Version::V2_14 && target.kind == "MeshGateway"
}

/// The destinations whose traffic is routed.
pub(super) fn destinations(gateway: bool) -> Allowed<'static> {
    if gateway {
        Allowed::kinds(&["Mesh"])
    } else {
        Allowed::kinds(&["MeshService", "MeshExternalService", "MeshMultiZoneService"])
    }
}

/// The backends it may be sent to.
pub(super) fn backends(version: Version) -> Allowed<'static> {
    match version {
        Version::V2_14 => {
            Allowed::kinds(&["MeshService", "MeshServiceSubset", "MeshExternalService", "MeshMultiZoneService"])
        }
        Version::V3_0 => Allowed::kinds(&["MeshService", "MeshExternalService", "MeshMultiZoneService"]),
    }
}
