//! Which Envoy clusters carry the traffic to a service.
//!
//! A client-side counter names its far end by `envoy_cluster_name`, and Kuma builds that name in several ways:
//!
//! | naming | example |
//! |---|---|
//! | `kuma.io/service` tag | `llm-v1`, on Kubernetes `llm-v1_demo_svc_8080` |
//! | real resource, old | `default_llm-v1__zone-1_msvc_8080`, on Kubernetes `default_llm-v1_demo_zone-1_msvc_80` |
//! | real resource, unified (KRI) | `kri_msvc_default_zone-1__llm-v1_8080`, on Kubernetes `kri_msvc_default_zone-1_demo_llm-v1_http` |
//!
//! All of them can stand side by side in one mesh (callers are upgraded one by one; a route's `port: 80` gives `…_80` beside
//! the plain outbound's `…_http`), so a service is the sum over every cluster that [matches](Service::matches).

use serde::{Deserialize, Serialize};
use std::fmt;

/// A service as a route's `backendRef` names it; what is `None` may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The mesh it belongs to.
    pub mesh: String,
    /// The zone it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its Kubernetes namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name: of the MeshService, or the value of `kuma.io/service`.
    pub name: String,
    /// A port number or a port name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

impl Service {
    /// A service known by name only.
    pub fn named(mesh: impl Into<String>, name: impl Into<String>) -> Self {
        Self { mesh: mesh.into(), zone: None, namespace: None, name: name.into(), port: None }
    }

    /// Does this Envoy cluster, seen in `mesh`, lead to the service?
    pub fn matches(&self, cluster: &str, mesh: &str) -> bool {
        let Some(destination) = Destination::parse(cluster) else { return false };
        // Someone may name the service by the whole tag, `llm-v1_demo_svc_8080`.
        if destination.kind == Kind::Tag && self.name == without_hash(cluster) {
            return self.mesh == mesh;
        }
        self.name == destination.name
            && self.mesh == destination.mesh.unwrap_or(mesh)
            && agree(self.zone.as_deref(), destination.zone)
            && agree(self.namespace.as_deref(), destination.namespace)
            && self.port.as_deref().is_none_or(|port| destination.port.is_none_or(|other| ports_agree(port, other)))
    }
}

impl fmt::Display for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(out, "{namespace}/")?;
        }
        write!(out, "{}", self.name)?;
        if let Some(port) = &self.port {
            write!(out, ":{port}")?;
        }
        Ok(())
    }
}

/// How Kuma made a cluster's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From the tag `kuma.io/service`.
    Tag,
    /// From a MeshService.
    MeshService,
    /// From a MeshMultiZoneService.
    MeshMultiZoneService,
    /// From a MeshExternalService.
    MeshExternalService,
}

/// The parts of a cluster name; `None` is a part that this naming does not tell, `Some("")` one that is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination<'a> {
    /// What the name was made from.
    pub kind: Kind,
    /// The mesh of the far end.
    pub mesh: Option<&'a str>,
    /// The zone of the far end.
    pub zone: Option<&'a str>,
    /// The Kubernetes namespace; empty on Universal.
    pub namespace: Option<&'a str>,
    /// The name of the service.
    pub name: &'a str,
    /// A port number, or a port name in the last field of a KRI.
    pub port: Option<&'a str>,
}

impl<'a> Destination<'a> {
    /// The parts of an outbound cluster's name; `None` for what leads nowhere outside the proxy and for Kuma's own clusters.
    pub fn parse(cluster: &'a str) -> Option<Self> {
        if is_internal(cluster) {
            return None;
        }
        Some(kri(cluster).or_else(|| resource(cluster)).unwrap_or_else(|| tag(cluster)))
    }
}

/// Inbound twins (the server's own view of what the callers count already), Kuma's and Envoy's own clusters, and passthrough.
fn is_internal(cluster: &str) -> bool {
    const PREFIXES: [&str; 11] = [
        "localhost_",
        "localhost:",
        "self_",
        "kuma_",
        "_kuma_",
        "system_",
        "meshtrace_",
        "inbound_passthrough",
        "outbound_passthrough",
        "inbound:passthrough",
        "outbound:passthrough",
    ];
    const NAMES: [&str; 4] = ["", "admin", "ads_cluster", "access_log_sink"];
    NAMES.contains(&cluster) || PREFIXES.iter().any(|prefix| cluster.starts_with(prefix))
}

/// `kri_<kind>_<mesh>_<zone>_<namespace>_<name>_<port>`. Only the mesh may hold `_`, so we count from the right.
fn kri(cluster: &str) -> Option<Destination<'_>> {
    let (kind, rest) = cluster.strip_prefix("kri_")?.split_once('_')?;
    let mut parts = rest.rsplitn(5, '_');
    let (port, name, namespace) = (parts.next()?, parts.next()?, parts.next()?);
    let (zone, mesh) = (parts.next()?, parts.next()?);
    let port = (!port.is_empty()).then_some(port);
    Some(Destination {
        kind: resource_kind(kind)?,
        mesh: Some(mesh),
        zone: Some(zone),
        namespace: Some(namespace),
        name,
        port,
    })
}

/// `<mesh>_<name>_<namespace>_<zone>_<kind>_<port>`.
fn resource(cluster: &str) -> Option<Destination<'_>> {
    let mut parts = cluster.rsplitn(6, '_');
    let port = parts.next().filter(|port| is_number(port))?;
    let kind = resource_kind(parts.next()?)?;
    let (zone, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let mesh = parts.next()?;
    Some(Destination { kind, mesh: Some(mesh), zone: Some(zone), namespace: Some(namespace), name, port: Some(port) })
}

/// `<name>_<namespace>_svc[_<port>]` as Kubernetes mode makes the tag, or whatever a person wrote.
fn tag(cluster: &str) -> Destination<'_> {
    let whole = without_hash(cluster);
    let (rest, port) = match whole.rsplit_once('_') {
        Some((rest, port)) if is_number(port) => (rest, Some(port)),
        _ => (whole, None),
    };
    let parts = rest.strip_suffix("_svc").and_then(|rest| rest.rsplit_once('_'));
    let bare = Destination { kind: Kind::Tag, mesh: None, zone: None, namespace: None, name: whole, port: None };
    match parts {
        Some((name, namespace)) => Destination { namespace: Some(namespace), name, port, ..bare },
        None => bare,
    }
}

/// `kuma-dp` folds the clusters of a service's subsets, `<name>-<16 hex digits>`, into `<name>`; Envoy alone does not.
fn without_hash(cluster: &str) -> &str {
    match cluster.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => cluster,
    }
}

fn resource_kind(short: &str) -> Option<Kind> {
    match short {
        "msvc" => Some(Kind::MeshService),
        "mzsvc" => Some(Kind::MeshMultiZoneService),
        "extsvc" => Some(Kind::MeshExternalService),
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What the question leaves open, or the name does not tell, agrees with anything. A bare tag tells no namespace.
fn agree(asked: Option<&str>, told: Option<&str>) -> bool {
    asked.is_none_or(|asked| told.is_none_or(|told| asked == told))
}

/// A number and a name may be the same port: the last field of a KRI is either, whatever the reference used.
fn ports_agree(one: &str, other: &str) -> bool {
    one == other || is_number(one) != is_number(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_naming() {
        let parts = |cluster| {
            let found = Destination::parse(cluster).unwrap();
            (found.kind, found.mesh, found.zone, found.namespace, found.name, found.port)
        };
        use Kind::*;
        assert_eq!(parts("llm-v1"), (Tag, None, None, None, "llm-v1", None));
        assert_eq!(parts("llm-v1-0123456789abcdef"), (Tag, None, None, None, "llm-v1", None));
        assert_eq!(parts("llm-v1_demo_svc_8080"), (Tag, None, None, Some("demo"), "llm-v1", Some("8080")));
        assert_eq!(parts("job_demo_svc"), (Tag, None, None, Some("demo"), "job", None));
        assert_eq!(
            parts("default_llm-v1__zone-1_msvc_8080"),
            (MeshService, Some("default"), Some("zone-1"), Some(""), "llm-v1", Some("8080"))
        );
        assert_eq!(
            parts("my_mesh_llm-v1_demo_zone-1_msvc_80"),
            (MeshService, Some("my_mesh"), Some("zone-1"), Some("demo"), "llm-v1", Some("80"))
        );
        assert_eq!(
            parts("kri_msvc_default_zone-1__llm-v1_8080"),
            (MeshService, Some("default"), Some("zone-1"), Some(""), "llm-v1", Some("8080"))
        );
        assert_eq!(
            parts("kri_msvc_my_mesh_zone-1_demo_llm-v1_http"),
            (MeshService, Some("my_mesh"), Some("zone-1"), Some("demo"), "llm-v1", Some("http"))
        );
        assert_eq!(
            parts("kri_mzsvc_default__kuma-system_llm_"),
            (MeshMultiZoneService, Some("default"), Some(""), Some("kuma-system"), "llm", None)
        );
        assert_eq!(parts("kri_extsvc_default___openai_9000").0, MeshExternalService);
    }

    #[test]
    fn leaves_out_inbounds_and_kumas_own() {
        for cluster in [
            "localhost_18021",
            "self_inbound_dp_main",
            "self_inbound_dp_http",
            "kuma_envoy_admin",
            "kuma_readiness",
            "_kuma_metrics_hijacker",
            "ads_cluster",
            "access_log_sink",
            "system_kube_api",
            "meshtrace_zipkin",
            "outbound_passthrough_ipv4",
            "admin",
            "",
        ] {
            assert_eq!(Destination::parse(cluster), None, "{cluster}");
        }
    }

    #[test]
    fn matches_by_what_both_sides_tell() {
        let any = Service::named("default", "llm-v1");
        let all = [
            "llm-v1",
            "llm-v1_demo_svc_8080",
            "default_llm-v1__zone-1_msvc_8080",
            "default_llm-v1_demo_zone-1_msvc_80",
            "kri_msvc_default_zone-1__llm-v1_8080",
            "kri_msvc_default_zone-1_demo_llm-v1_http",
        ];
        assert!(all.iter().all(|cluster| any.matches(cluster, "default")));
        assert!(!["llm-v1", "llm-v1_demo_svc_8080"].iter().any(|cluster| any.matches(cluster, "other")));
        for other in ["llm", "llm-v10", "llm-v2", "v1", "kri_msvc_default_zone-1__llm-v2_8080", "localhost_18021"] {
            assert!(!any.matches(other, "default"), "{other}");
        }

        let matching = |service: &Service| -> Vec<bool> { all.iter().map(|c| service.matches(c, "default")).collect() };
        let demo = Service { namespace: Some("demo".into()), ..any.clone() };
        assert_eq!(matching(&demo), [true, true, false, true, false, true]);
        let zone = Service { zone: Some("zone-2".into()), ..any.clone() };
        assert_eq!(matching(&zone), [true, true, false, false, false, false]);
        let number = Service { port: Some("8080".into()), ..any.clone() };
        assert_eq!(matching(&number), [true, true, true, false, true, true]);
        let name = Service { port: Some("grpc".into()), ..any.clone() };
        assert_eq!(matching(&name), [true, true, true, true, true, false]);
        let whole = Service::named("default", "llm-v1_demo_svc_8080");
        assert_eq!(matching(&whole), [false, true, false, false, false, false]);
    }
}
