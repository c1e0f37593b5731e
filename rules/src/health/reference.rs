//! What a reference to a service leads to.

use super::known::{Port, Service, Wanted};
use super::object::{NAMESPACE, get, inside, items, text};
use super::rule::{Look, quoted};
use serde_json::{Map, Value};

/// What a reference leads to.
pub(super) enum Target<'a> {
    /// A service and, where the reference picks one, its port.
    Service(&'a Service, Option<&'a Port>),
    /// Nothing, for certain; in words.
    Nothing(String),
    /// A service that is there, and a port that it does not have; in words.
    NoPort(String),
    /// A service whose name alone does not lead to it; in words.
    NameIsTag(String),
    /// It cannot be told from what is known.
    Unknown,
    /// No reference to a service.
    NoService,
}

/// Where a reference stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `to[].targetRef`: the name alone is enough.
    Destination,
    /// `backendRefs[]`: in 2.14 a name without a port is a tag.
    Backend,
}

/// One backend of a route, followed once for all rules.
pub(super) struct Backend<'a> {
    /// Which destination, which of its rules, which backend there.
    pub(super) place: (usize, usize, usize),
    /// The rule of the route.
    pub(super) rule: &'a Value,
    pub(super) reference: &'a Value,
    pub(super) target: Target<'a>,
}

/// The backends of a route, in the order of the document; none for other kinds.
pub(super) fn backends<'a>(look: &Look<'a>) -> Vec<Backend<'a>> {
    let mut backends = Vec::new();
    if !matches!(look.object.kind, "MeshHTTPRoute" | "MeshTCPRoute") {
        return backends;
    }
    for (t, to) in items(look.object.spec, "to").iter().enumerate() {
        for (r, rule) in items(to, "rules").iter().enumerate() {
            for (b, reference) in items(inside(rule, &["default"]), "backendRefs").iter().enumerate() {
                let target = follow(look, reference, Role::Backend);
                backends.push(Backend { place: (t, r, b), rule, reference, target });
            }
        }
    }
    backends
}

/// Follows a reference to a `MeshService`, `MeshServiceSubset`, `MeshExternalService` or `MeshMultiZoneService`.
pub(super) fn follow<'a>(look: &Look<'a>, reference: &'a Value, role: Role) -> Target<'a> {
    let kind = match text(reference, "kind") {
        "MeshServiceSubset" => "MeshService",
        kind @ ("MeshService" | "MeshExternalService" | "MeshMultiZoneService") => kind,
        _ => return Target::NoService,
    };
    // References into other meshes are reserved: Kuma refuses them.
    if get(reference, "mesh").is_some() {
        return Target::Unknown;
    }
    let port = match (get(reference, "port").and_then(Value::as_u64), text(reference, "sectionName")) {
        (Some(number), _) => Some(Wanted::Number(number)),
        (None, "") => None,
        (None, section) => Some(Wanted::Name(section)),
    };
    let labels = get(reference, "labels").and_then(Value::as_object).filter(|labels| !labels.is_empty());
    match (text(reference, "name"), labels) {
        ("", Some(labels)) => by_labels(look, kind, labels, port),
        ("", None) => Target::Unknown,
        (name, _) => by_name(look, kind, reference, name, port, role),
    }
}

fn by_labels<'a>(look: &Look<'a>, kind: &str, labels: &'a Map<String, Value>, port: Option<Wanted<'_>>) -> Target<'a> {
    let mut candidates = look.known.services_with(kind, look.object.mesh, labels).peekable();
    let Some(first) = candidates.peek().copied() else {
        // A mesh without any is one that works by tags, or one that we do not see.
        if !look.known.complete || kind == "MeshService" && !look.known.has_any(kind, look.object.mesh) {
            return Target::Unknown;
        }
        let shown: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}: {}", value.as_str().unwrap_or("?"))).collect();
        return Target::Nothing(format!("no {kind} has the labels {}", quoted(&shown.join(", "))));
    };
    let Some(port) = port else { return Target::Service(first, None) };
    // Copies of one service in several zones have the same labels; one that has the port is enough.
    match candidates.find_map(|service| Some((service, service.port(port)?))) {
        Some((service, port)) => Target::Service(service, Some(port)),
        None => Target::NoPort(no_port(first, port)),
    }
}

fn by_name<'a>(
    look: &Look<'a>,
    kind: &str,
    reference: &'a Value,
    name: &str,
    port: Option<Wanted<'_>>,
    role: Role,
) -> Target<'a> {
    let (mesh, home) = (look.object.mesh, look.object.namespace);
    if kind == "MeshService"
        && let Some((short, namespace, number)) = tag_parts(name)
    {
        return match look.known.service(kind, mesh, namespace, short) {
            Some(service) => with_port(service, Some(port.unwrap_or(Wanted::Name(number)))),
            None if look.known.has_tag(mesh, name) => Target::Unknown,
            None => missing(look, kind, &format!("{short}.{namespace}"), &format!(" for the tag {}", quoted(name))),
        };
    }
    // Kinds that live in the system namespace are named from everywhere; a service is looked for at home.
    let written = text(reference, "namespace");
    let namespaces: &[&str] = match (written, kind) {
        ("", "MeshService") => &[home],
        ("", _) => &[home, look.kuma.system_namespace.as_str(), ""],
        _ => &[written],
    };
    let found = namespaces.iter().find_map(|namespace| look.known.service(kind, mesh, namespace, name));
    match found {
        Some(service) => {
            let tag = role == Role::Backend && kind == "MeshService" && port.is_none() && !look.is_3_0();
            if tag && !home.is_empty() && text(reference, "kind") == "MeshService" {
                return Target::NameIsTag(format!(
                    "without a port, {} is the value of the tag kuma.io/service in 2.14 and not the MeshService",
                    quoted(name)
                ));
            }
            with_port(service, port)
        }
        // In 2.14 a name alone may be a tag, of a proxy or of an external service that we do not know; an underscore is
        // never part of a resource's name.
        None if look.known.has_tag(mesh, name) || name.contains('_') => Target::Unknown,
        None if text(reference, "kind") == "MeshServiceSubset" => Target::Unknown,
        None if kind == "MeshService" && port.is_none() && written.is_empty() && !look.is_3_0() => Target::Unknown,
        None => {
            let namespace = if written.is_empty() { home } else { written };
            let full = if namespace.is_empty() { name.to_owned() } else { format!("{name}.{namespace}") };
            missing(look, kind, &full, "")
        }
    }
}

fn missing<'a>(look: &Look<'_>, kind: &str, name: &str, why: &str) -> Target<'a> {
    if !look.known.complete || kind == "MeshService" && !look.known.has_any(kind, look.object.mesh) {
        return Target::Unknown;
    }
    Target::Nothing(format!("there is no {kind} {} in mesh {}{why}", quoted(name), quoted(look.object.mesh)))
}

fn with_port<'a>(service: &'a Service, port: Option<Wanted<'_>>) -> Target<'a> {
    match port {
        None => Target::Service(service, None),
        Some(wanted) => match service.port(wanted) {
            Some(port) => Target::Service(service, Some(port)),
            None => Target::NoPort(no_port(service, wanted)),
        },
    }
}

fn no_port(service: &Service, wanted: Wanted<'_>) -> String {
    let ports: Vec<_> = service.ports.iter().take(10).map(shown).collect();
    let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
    format!("{} {} has no port {}, it has {ports}", service.kind, quoted(&service.name), quoted(&wanted.to_string()))
}

fn shown(port: &Port) -> String {
    if port.name.is_empty() { port.number.to_string() } else { format!("{} ({})", port.number, port.name) }
}

/// On Kubernetes `backend_demo_svc_8080` is the tag of the Service `backend` in namespace `demo`, port 8080.
pub(super) fn tag_parts(name: &str) -> Option<(&str, &str, &str)> {
    let mut parts = name.split('_');
    let (service, namespace, svc, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && svc == "svc" && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    whole.then_some((service, namespace, port))
}

/// What a reference calls its target, for a message.
pub(super) fn called(reference: &Value) -> String {
    let name = text(reference, "name");
    if !name.is_empty() {
        return quoted(name);
    }
    let labels = get(reference, "labels").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter(|(key, _)| *key != NAMESPACE).filter_map(|(_, value)| value.as_str());
    quoted(&labels.collect::<Vec<_>>().join(", "))
}

/// Does a rule of a route take every request?
pub(super) fn is_catch_all(rule: &Value) -> bool {
    let matches = items(rule, "matches");
    matches.is_empty()
        || matches.iter().any(|one| {
            let only_path =
                one.as_object().is_some_and(|one| one.iter().all(|(key, value)| key == "path" || value.is_null()));
            let path = one.get("path").unwrap_or(&Value::Null);
            only_path && (path.is_null() || text(path, "type") == "PathPrefix" && text(path, "value") == "/")
        })
}
