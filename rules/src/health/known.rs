//! What is known to exist beside a policy.
//!
//! Objects are kept as far as rules look into them: services with their ports and labels, routes by name, request
//! timeouts, templates of host names. Every lookup goes through an index and costs the same however much is known.

use super::object::{DISPLAY_NAME, NAMESPACE, Object, duration, inside, items, text};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// What is known to exist beside a policy.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Is everything known, so that what is not here does not exist?
    pub complete: bool,
    things: BTreeMap<Arc<str>, Thing>,
    /// Which things carry a label, by kind, mesh, label and value.
    labelled: BTreeMap<Box<str>, BTreeSet<Arc<str>>>,
    /// How many objects of a kind a mesh has.
    counts: BTreeMap<Box<str>, usize>,
    /// How many objects stand for a `kuma.io/service` tag of a mesh.
    tags: BTreeMap<Box<str>, usize>,
    /// The request timeouts for a target of a mesh, by the policy that sets them, in nanoseconds.
    timeouts: BTreeMap<Box<str>, BTreeMap<Arc<str>, u64>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Thing {
    Service(Box<Service>),
    /// Something that is only referred to.
    Named(Labels),
    /// `kuma.io/service` tags that it stands for.
    Tagged(Vec<Box<str>>),
    Timeout(Vec<(Box<str>, u64)>),
    Generator(Box<Generator>),
}

type Labels = Box<[(Box<str>, Box<str>)]>;

/// A service, as references see it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Service {
    pub(super) kind: Box<str>,
    pub(super) mesh: Box<str>,
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    pub(super) labels: Labels,
    pub(super) ports: Box<[Port]>,
    /// How many proxies serve it, where the control plane has said so.
    pub(super) proxies: Option<u64>,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Port {
    pub(super) number: u64,
    pub(super) name: Box<str>,
    /// Does it speak HTTP in any of its forms? Kuma takes a port that says nothing for TCP.
    pub(super) http: bool,
}

/// How a reference picks a port.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    Number(u64),
    Name(&'a str),
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Service {
    /// The value of a label; empty when there is none.
    pub(super) fn label(&self, key: &str) -> &str {
        value_of(&self.labels, key)
    }

    /// The port that a number or a name picks.
    pub(super) fn port(&self, wanted: Wanted<'_>) -> Option<&Port> {
        let (number, name) = match wanted {
            Wanted::Number(number) => (Some(number), None),
            // Kuma takes a number as the name of a section too.
            Wanted::Name(name) => (name.parse().ok(), Some(name)),
        };
        self.ports.iter().find(|port| name == Some(&*port.name) || number == Some(port.number))
    }
}

/// A `HostnameGenerator`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Generator {
    pub(super) name: Box<str>,
    /// The kind of service it names.
    pub(super) kind: &'static str,
    pub(super) selector: Labels,
    pub(super) template: Box<str>,
}

impl Known {
    /// Takes note of an object of Kuma; one of the same kind, mesh, namespace and name is replaced.
    pub fn insert(&mut self, object: &Value) {
        let Some(object) = Object::read(object) else { return };
        let key: Arc<str> = key(object.kind, object.mesh, object.namespace, object.name).into();
        self.forget(&key, &object);
        let Some(thing) = Thing::read(&object) else { return };
        match &thing {
            Thing::Service(service) => self.label(&key, &object, &service.labels),
            Thing::Named(labels) => self.label(&key, &object, labels),
            Thing::Tagged(tags) => {
                for tag in tags {
                    *self.tags.entry(joined(&[object.mesh, tag])).or_default() += 1;
                }
            }
            Thing::Timeout(targets) => {
                for (target, timeout) in targets {
                    let by_policy = self.timeouts.entry(joined(&[object.mesh, target])).or_default();
                    let longest = by_policy.entry(key.clone()).or_default();
                    *longest = (*longest).max(*timeout);
                }
            }
            Thing::Generator(_) => {}
        }
        *self.counts.entry(joined(&[object.kind, object.mesh])).or_default() += 1;
        self.things.insert(key, thing);
    }

    /// Forgets an object.
    pub fn remove(&mut self, object: &Value) {
        let Some(object) = Object::read(object) else { return };
        self.forget(&key(object.kind, object.mesh, object.namespace, object.name), &object);
    }

    fn forget(&mut self, key: &str, object: &Object<'_>) {
        let Some(thing) = self.things.remove(key) else { return };
        less(&mut self.counts, &joined(&[object.kind, object.mesh]));
        match &thing {
            Thing::Service(service) => self.unlabel(key, object, &service.labels),
            Thing::Named(labels) => self.unlabel(key, object, labels),
            Thing::Tagged(tags) => {
                for tag in tags {
                    less(&mut self.tags, &joined(&[object.mesh, tag]));
                }
            }
            Thing::Timeout(targets) => {
                for (target, _) in targets {
                    let place = joined(&[object.mesh, target]);
                    if let Some(by_policy) = self.timeouts.get_mut(&place) {
                        by_policy.remove(key);
                        if by_policy.is_empty() {
                            self.timeouts.remove(&place);
                        }
                    }
                }
            }
            Thing::Generator(_) => {}
        }
    }

    fn label(&mut self, key: &Arc<str>, object: &Object<'_>, labels: &Labels) {
        for (label, value) in labels.iter().filter(|(label, _)| is_indexed(label)) {
            let place = joined(&[object.kind, object.mesh, label, value]);
            self.labelled.entry(place).or_default().insert(key.clone());
        }
    }

    fn unlabel(&mut self, key: &str, object: &Object<'_>, labels: &Labels) {
        for (label, value) in labels.iter().filter(|(label, _)| is_indexed(label)) {
            let place = joined(&[object.kind, object.mesh, label, value]);
            if let Some(keys) = self.labelled.get_mut(&place) {
                keys.remove(key);
                if keys.is_empty() {
                    self.labelled.remove(&place);
                }
            }
        }
    }

    /// Does a mesh have an object of this kind?
    pub(super) fn has_any(&self, kind: &str, mesh: &str) -> bool {
        self.counts.contains_key(&joined(&[kind, mesh]))
    }

    /// A service by its name.
    pub(super) fn service(&self, kind: &str, mesh: &str, namespace: &str, name: &str) -> Option<&Service> {
        match self.things.get(&*key(kind, mesh, namespace, name))? {
            Thing::Service(service) => Some(service),
            _ => None,
        }
    }

    /// Is there anything of this name?
    pub(super) fn has(&self, kind: &str, mesh: &str, namespace: &str, name: &str) -> bool {
        self.things.contains_key(&*key(kind, mesh, namespace, name))
    }

    /// Does a proxy or an external service stand for this `kuma.io/service` tag?
    pub(super) fn has_tag(&self, mesh: &str, tag: &str) -> bool {
        self.tags.contains_key(&joined(&[mesh, tag]))
    }

    /// The services that carry all of these labels.
    pub(super) fn services_with<'a>(
        &'a self,
        kind: &str,
        mesh: &str,
        labels: &'a Map<String, Value>,
    ) -> impl Iterator<Item = &'a Service> {
        self.with(kind, mesh, labels).filter_map(|thing| match thing {
            Thing::Service(service) => Some(&**service),
            _ => None,
        })
    }

    /// Does anything of this kind carry all of these labels?
    pub(super) fn has_with(&self, kind: &str, mesh: &str, labels: &Map<String, Value>) -> bool {
        self.with(kind, mesh, labels).next().is_some()
    }

    fn with<'a>(&'a self, kind: &str, mesh: &str, labels: &'a Map<String, Value>) -> impl Iterator<Item = &'a Thing> {
        // The rarest label leads to the fewest candidates; one that nothing carries leads to none.
        let indexed = labels.iter().filter(|(label, _)| is_indexed(label));
        let places = indexed
            .map(|(label, value)| self.labelled.get(&joined(&[kind, mesh, label, value.as_str().unwrap_or_default()])));
        let rarest = places.min_by_key(|keys| keys.map_or(0, BTreeSet::len));
        let prefix = joined(&[kind, mesh, ""]);
        let few = rarest.into_iter().flatten().flatten().filter_map(|key| self.things.get(key));
        // Labels that everything carries, such as the zone: any object will do, so the first ones are soon found.
        let all = self.things.range(Arc::from(&*prefix)..).take_while(move |(key, _)| key.starts_with(&*prefix));
        let all = rarest.is_none().then(|| all.map(|(_, thing)| thing)).into_iter().flatten();
        few.chain(all).filter(move |thing| {
            let own = match thing {
                Thing::Service(service) => &service.labels,
                Thing::Named(own) => own,
                _ => return false,
            };
            labels.iter().all(|(label, value)| value.as_str().is_some_and(|value| value_of(own, label) == value))
        })
    }

    /// The longest request timeout that is set for a target, in nanoseconds; that of the whole mesh when the target
    /// has none of its own.
    pub(super) fn request_timeout(&self, mesh: &str, target: &Value, home: &str) -> Option<u64> {
        let longest = |target: &str| self.timeouts.get(&joined(&[mesh, target]))?.values().max().copied();
        longest(&target_key(target, home)).or_else(|| longest(MESH))
    }

    /// The generators of host names.
    pub(super) fn generators(&self) -> impl Iterator<Item = &Generator> {
        self.of_kind("HostnameGenerator").filter_map(|thing| match thing {
            Thing::Generator(generator) => Some(&**generator),
            _ => None,
        })
    }

    /// All services of a kind.
    pub(super) fn services(&self, kind: &str) -> impl Iterator<Item = &Service> {
        self.of_kind(kind).filter_map(|thing| match thing {
            Thing::Service(service) => Some(&**service),
            _ => None,
        })
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Thing> {
        let prefix = joined(&[kind, ""]);
        let from = self.things.range(Arc::from(&*prefix)..);
        from.take_while(move |(key, _)| key.starts_with(&*prefix)).map(|(_, thing)| thing)
    }
}

impl Thing {
    fn read(object: &Object<'_>) -> Option<Self> {
        let spec = object.spec;
        Some(match object.kind {
            "MeshService" | "MeshMultiZoneService" | "MeshExternalService" => {
                let ports = match object.kind {
                    "MeshExternalService" => spec.get("match").into_iter().map(Port::read).collect(),
                    _ => items(spec, "ports").iter().map(Port::read).collect(),
                };
                Self::Service(Box::new(Service {
                    kind: object.kind.into(),
                    mesh: object.mesh.into(),
                    namespace: object.namespace.into(),
                    name: object.name.into(),
                    labels: labels(object),
                    ports,
                    proxies: object.proxies(),
                }))
            }
            "MeshHTTPRoute" | "MeshTCPRoute" => Self::Named(labels(object)),
            "ExternalService" => Self::Tagged(tag(inside(spec, &["tags"])).into_iter().collect()),
            "Dataplane" => {
                let mut tags: Vec<_> = ["inbound", "inbounds"]
                    .iter()
                    .flat_map(|list| items(inside(spec, &["networking"]), list))
                    .filter_map(|inbound| tag(inside(inbound, &["tags"])))
                    .collect();
                tags.sort();
                tags.dedup();
                Self::Tagged(tags)
            }
            "MeshTimeout" if !object.is_shadow() => {
                let targets = items(spec, "to").iter().filter_map(|to| {
                    let timeout = duration(inside(to, &["default", "http", "requestTimeout"]))?;
                    // Zero switches the timeout off: nothing is longer.
                    let timeout = if timeout == 0 { u64::MAX } else { timeout };
                    Some((target_key(inside(to, &["targetRef"]), object.namespace), timeout))
                });
                Self::Timeout(targets.collect())
            }
            "HostnameGenerator" => Self::Generator(Box::new(Generator::read(object)?)),
            _ => return None,
        })
    }
}

impl Port {
    fn read(port: &Value) -> Self {
        let protocol = match text(port, "appProtocol") {
            "" => text(port, "protocol"),
            protocol => protocol,
        };
        Self {
            number: port.get("port").and_then(Value::as_u64).unwrap_or_default(),
            name: text(port, "name").into(),
            http: matches!(protocol, "http" | "http2" | "grpc"),
        }
    }
}

impl Generator {
    pub(super) fn read(object: &Object<'_>) -> Option<Self> {
        let selectors = [
            ("meshService", "MeshService"),
            ("meshExternalService", "MeshExternalService"),
            ("meshMultiZoneService", "MeshMultiZoneService"),
        ];
        let selector = inside(object.spec, &["selector"]);
        let (selector, kind) = selectors.iter().find_map(|(key, kind)| Some((selector.get(*key)?, *kind)))?;
        let labels = inside(selector, &["matchLabels"]).as_object();
        Some(Self {
            name: object.name.into(),
            kind,
            selector: labels.into_iter().flatten().filter_map(pair).collect(),
            template: text(object.spec, "template").into(),
        })
    }

    pub(super) fn selects(&self, service: &Service) -> bool {
        *service.kind == *self.kind && self.selector.iter().all(|(label, value)| service.label(label) == &**value)
    }
}

/// Labels as references see them: on Kubernetes the name and the namespace count as labels too.
fn labels(object: &Object<'_>) -> Labels {
    let mut labels: BTreeMap<Box<str>, Box<str>> = object.labels().into_iter().flatten().filter_map(pair).collect();
    labels.entry(DISPLAY_NAME.into()).or_insert_with(|| object.display_name().into());
    if !object.namespace.is_empty() {
        labels.entry(NAMESPACE.into()).or_insert_with(|| object.namespace.into());
    }
    labels.into_iter().collect()
}

fn pair((key, value): (&String, &Value)) -> Option<(Box<str>, Box<str>)> {
    Some((key.as_str().into(), value.as_str()?.into()))
}

fn value_of<'a>(labels: &'a Labels, key: &str) -> &'a str {
    labels.iter().find(|(label, _)| **label == *key).map_or("", |(_, value)| value)
}

fn tag(tags: &Value) -> Option<Box<str>> {
    Some(tags.get("kuma.io/service")?.as_str()?.into())
}

/// Labels that nearly every object carries with the same value would only make the index larger.
fn is_indexed(label: &str) -> bool {
    const EVERYWHERE: &[&str] = &[
        "kuma.io/mesh",
        "kuma.io/origin",
        "kuma.io/env",
        "kuma.io/zone",
        "kuma.io/managed-by",
        "kuma.io/policy-role",
        "k8s.kuma.io/is-headless-service",
        NAMESPACE,
    ];
    !EVERYWHERE.contains(&label)
}

const MESH: &str = "Mesh";

/// One text for what a `targetRef` of `to[]` names, however its labels are ordered.
fn target_key(target: &Value, home: &str) -> Box<str> {
    if text(target, "kind") == MESH {
        return MESH.into();
    }
    let namespace = match text(target, "namespace") {
        "" => home,
        namespace => namespace,
    };
    let labels = target.get("labels").and_then(Value::as_object);
    let mut labels: Vec<String> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    let (kind, section) = (text(target, "kind"), text(target, "sectionName"));
    joined(&[kind, namespace, text(target, "name"), section, &labels.join(",")])
}

fn key(kind: &str, mesh: &str, namespace: &str, name: &str) -> String {
    // Generators have no mesh: whatever a document says there must not make two of one.
    let mesh = if kind == "HostnameGenerator" { "" } else { mesh };
    [kind, mesh, namespace, name].join("\0")
}

fn joined(parts: &[&str]) -> Box<str> {
    parts.join("\0").into()
}

fn less(counts: &mut BTreeMap<Box<str>, usize>, place: &str) {
    if let Some(count) = counts.get_mut(place) {
        *count -= 1;
        if *count == 0 {
            counts.remove(place);
        }
    }
}

#[cfg(test)]
mod tests;
