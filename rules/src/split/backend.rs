//! Backends and their stable identity.

use crate::field::FieldPath;
use crate::policy::{BackendRef, TagSet, TargetRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Stable text identity of a service: `summarize-v2.demo:8080`, `summarize{version=v2}`,
/// `MeshExternalService/openai`. All rules of a route name the same few, hence the text is shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey(Arc<str>);

impl ServiceKey {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text without a port.
    pub fn unported(&self) -> &str {
        self.0.rsplit_once(':').map_or(&self.0, |(unported, _)| unported)
    }
}

impl<T: Into<String>> From<T> for ServiceKey {
    fn from(text: T) -> Self {
        Self(text.into().into())
    }
}

impl Serialize for ServiceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One backend of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Which service it is.
    pub service: ServiceKey,
    /// The same without its port.
    pub unported: ServiceKey,
    /// Its plain name, as `sluice.yaml` says it.
    pub name: Arc<str>,
    /// Its namespace, where it has one.
    pub namespace: Option<Arc<str>>,
    /// Its weight; the sum when the rule names it several times.
    pub weight: u64,
    /// Is the weight written, or Kuma's default of 1?
    pub explicit: bool,
    /// Where its weight is, or would be.
    pub field: FieldPath,
    /// The weight written there alone, without those of `also`.
    pub first: u64,
    /// More places that name the same backend.
    pub also: Vec<Entry>,
    /// Stands for the destination, because the rule names no backend.
    pub implied: bool,
}

/// One place that gives a backend weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the weight is, or would be.
    pub field: FieldPath,
    /// The weight there.
    pub weight: u64,
    /// Is it written?
    pub explicit: bool,
}

impl Entry {
    pub(super) fn new(field: FieldPath, weight: Option<u64>) -> Self {
        Self { field, weight: weight.unwrap_or(1), explicit: weight.is_some() }
    }
}

impl Backend {
    /// Is it the service that a person calls `name`: its whole key, its key without port, or its plain name?
    pub fn is(&self, name: &str) -> bool {
        self.service.as_str() == name || self.unported.as_str() == name || &*self.name == name
    }

    /// The only backend of a rule, which has no weight to write.
    pub(super) fn alone(service: Service, field: &FieldPath) -> Self {
        Self::of(service, Entry { field: field.clone(), weight: 1, explicit: false })
    }

    fn of(service: Service, entry: Entry) -> Self {
        Self {
            service: service.key,
            unported: service.unported,
            name: service.name,
            namespace: service.namespace,
            weight: entry.weight,
            explicit: entry.explicit,
            field: entry.field,
            first: entry.weight,
            also: Vec::new(),
            implied: false,
        }
    }
}

/// The backends of one rule while they are read.
#[derive(Default)]
pub(super) struct Backends {
    all: Vec<Backend>,
    /// Where each is, as soon as they are too many to search through.
    places: BTreeMap<ServiceKey, usize>,
}

/// So many are searched through.
const FEW: usize = 16;

impl Backends {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { all: Vec::with_capacity(capacity), places: BTreeMap::new() }
    }

    /// Adds a place that gives a service weight.
    pub(super) fn add(&mut self, service: Service, entry: Entry) {
        if let Some(place) = self.place(&service.key) {
            let backend = &mut self.all[place];
            backend.weight += entry.weight;
            backend.also.push(entry);
            return;
        }
        self.all.push(Backend::of(service, entry));
        if self.all.len() > FEW {
            let known = self.places.len();
            let new = self.all.iter().enumerate().skip(known);
            self.places.extend(new.map(|(place, backend)| (backend.service.clone(), place)));
        }
    }

    fn place(&self, service: &ServiceKey) -> Option<usize> {
        match self.all.len() > FEW {
            true => self.places.get(service).copied(),
            false => self.all.iter().position(|backend| backend.service == *service),
        }
    }

    pub(super) fn all(self) -> Vec<Backend> {
        self.all
    }
}

/// The services that the references of one policy name: mostly the same few again and again.
#[derive(Default)]
pub(super) struct Services<'a>(Vec<(&'a BackendRef, Service)>);

/// A policy of ever new services is not searched through for each.
const MOST_REMEMBERED: usize = 16;

impl<'a> Services<'a> {
    /// [`Service::of_backend`], of the same `home` each time.
    pub(super) fn of_backend(&mut self, backend: &'a BackendRef, home: Option<&str>) -> Service {
        if let Some((_, service)) = self.0.iter().find(|(known, _)| is_same(known, backend)) {
            return service.clone();
        }
        let service = Service::of_backend(backend, home);
        if self.0.len() < MOST_REMEMBERED {
            self.0.push((backend, service.clone()));
        }
        service
    }
}

/// Do both name the same service, whatever the weight?
fn is_same(a: &BackendRef, b: &BackendRef) -> bool {
    a.name == b.name
        && a.kind == b.kind
        && a.port == b.port
        && a.namespace == b.namespace
        && a.section_name == b.section_name
        && a.mesh == b.mesh
        && a.labels == b.labels
        && a.tags == b.tags
}

/// A service as a reference names it.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) key: ServiceKey,
    pub(super) unported: ServiceKey,
    pub(super) name: Arc<str>,
    pub(super) namespace: Option<Arc<str>>,
}

const DISPLAY_NAME: &str = "kuma.io/display-name";
const NAMESPACE: &str = "k8s.kuma.io/namespace";

impl Service {
    pub(super) fn of_target(target: &TargetRef, home: Option<&str>) -> Self {
        Self::of_backend(
            &BackendRef {
                kind: target.kind.clone(),
                name: target.name.clone(),
                namespace: target.namespace.clone(),
                labels: target.labels.clone(),
                tags: target.tags.clone(),
                mesh: target.mesh.clone(),
                section_name: target.section_name.clone(),
                port: None,
                weight: None,
            },
            home,
        )
    }

    /// `home` is the namespace of the policy, where unqualified names live.
    pub(super) fn of_backend(backend: &BackendRef, home: Option<&str>) -> Self {
        let mut labels = backend.labels.clone();
        let (mut name, mut namespace) = (backend.name.clone(), backend.namespace.clone());
        // 3.0 says with two labels what 2.14 says with `name` and `namespace`.
        if name.is_none()
            && labels.keys().all(|key| key == DISPLAY_NAME || key == NAMESPACE)
            && let Some(display_name) = labels.remove(DISPLAY_NAME)
        {
            name = Some(display_name);
            namespace = labels.remove(NAMESPACE).or(namespace);
        }
        let mut port = backend.port.map(|port| port.to_string()).or_else(|| backend.section_name.clone());
        let local = matches!(backend.kind.as_str(), "MeshService" | "MeshServiceSubset" | "");
        if local && home.is_some() {
            // On Kubernetes `backend_demo_svc_8080` is the MeshService `backend` of namespace `demo`, port 8080.
            if let Some((short, itself, number)) = name.as_deref().and_then(tag_name) {
                (name, namespace, port) = (Some(short), Some(itself), port.or(Some(number)));
            } else if backend.kind == "MeshService" && name.is_some() {
                namespace = namespace.or_else(|| home.map(str::to_owned));
            }
        }
        let mut text = String::new();
        if !local {
            text = format!("{}/", backend.kind);
        }
        text += name.as_deref().unwrap_or_default();
        if let Some(namespace) = &namespace {
            let _ = write!(text, ".{namespace}");
        }
        labels.extend(backend.tags.clone());
        text += &braces(&labels);
        if let Some(mesh) = &backend.mesh {
            let _ = write!(text, "@{mesh}");
        }
        let unported = ServiceKey::from(text.as_str());
        let key = port.map_or_else(|| unported.clone(), |port| format!("{text}:{port}").into());
        Self { key, unported, name: name.unwrap_or(text).into(), namespace: namespace.map(Into::into) }
    }

    pub(super) fn of_tags(tags: &TagSet) -> Self {
        let mut rest = tags.clone();
        let name = rest.remove("kuma.io/service").unwrap_or_default();
        let key = ServiceKey::from(format!("{name}{}", braces(&rest)));
        Self { unported: key.clone(), key, name: name.into(), namespace: None }
    }

    pub(super) fn redirect(host: &str) -> Self {
        let key = ServiceKey::from(format!("redirect/{host}"));
        Self { unported: key.clone(), name: key.0.clone(), key, namespace: None }
    }
}

fn tag_name(name: &str) -> Option<(String, String, String)> {
    let mut parts = name.split('_');
    let (service, namespace, svc, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && svc == "svc" && !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    whole.then(|| (service.to_owned(), namespace.to_owned(), port.to_owned()))
}

fn braces(map: &BTreeMap<String, String>) -> String {
    if map.is_empty() {
        return String::new();
    }
    let pairs: Vec<_> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{{{}}}", pairs.join(","))
}
