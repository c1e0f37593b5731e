//! References to proxies, services and routes: which kinds a place takes, and which fields a kind takes.

use super::{Findings, Version, tags};
use crate::schema::Place;
use serde_json::{Map, Value};

/// A `targetRef` or `backendRef`, its missing fields empty.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TargetRef<'a> {
    pub(super) kind: &'a str,
    name: &'a str,
    namespace: &'a str,
    section_name: &'a str,
    mesh: &'a str,
    labels: Option<&'a Map<String, Value>>,
    tags: Option<&'a Map<String, Value>>,
    proxy_types: Option<&'a [Value]>,
    has_port: bool,
}

/// What a place takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed<'a> {
    pub(super) kinds: &'a [&'a str],
    /// A name that is fine although its characters are not.
    pub(super) odd_name: Option<&'a str>,
    /// The policy works on the receiving side, where one port of a proxy may be picked.
    pub(super) inbound: bool,
}

impl<'a> Allowed<'a> {
    /// These kinds and nothing special.
    pub(super) const fn kinds(kinds: &'a [&'a str]) -> Self {
        Self { kinds, odd_name: None, inbound: false }
    }
}

impl<'a> TargetRef<'a> {
    /// Reads a reference that fits the schema. 3.0 knows fewer fields and drops the others.
    pub(super) fn read(value: Option<&'a Value>, version: Version) -> Self {
        let mut read = Self::default();
        for (name, value) in value.and_then(Value::as_object).into_iter().flatten() {
            match name.as_str() {
                "kind" => read.kind = value.as_str().unwrap_or_default(),
                "labels" => read.labels = value.as_object(),
                "sectionName" => read.section_name = value.as_str().unwrap_or_default(),
                "port" => read.has_port = !value.is_null(),
                _ if version >= Version::V3_0 => {}
                "name" => read.name = value.as_str().unwrap_or_default(),
                "namespace" => read.namespace = value.as_str().unwrap_or_default(),
                "mesh" => read.mesh = value.as_str().unwrap_or_default(),
                "tags" => read.tags = value.as_object(),
                "proxyTypes" => read.proxy_types = value.as_array().map(Vec::as_slice),
                _ => {}
            }
        }
        read
    }

    /// Checks the reference for the place it stands in.
    pub(super) fn check(&self, allowed: Allowed<'_>, version: Version, place: &Place<'_>, found: &mut Findings) {
        if self.kind.is_empty() {
            return found.add(&place.field("kind"), "must be defined");
        }
        if !allowed.kinds.contains(&self.kind) {
            return found.add(&place.field("kind"), format!("value '{}' is not supported", self.kind));
        }
        match version {
            Version::V2_14 => self.check_2_14(allowed, place, found),
            Version::V3_0 => self.check_3_0(allowed, place, found),
        }
    }

    /// Checks what a `backendRef` has beyond a reference.
    pub(super) fn check_backend(&self, place: &Place<'_>, found: &mut Findings) {
        if self.kind == "MeshMultiZoneService" && !self.has_port {
            found.add(&place.field("port"), "must be defined with kind MeshMultiZoneService");
        }
    }

    fn check_2_14(&self, allowed: Allowed<'_>, place: &Place<'_>, found: &mut Findings) {
        match self.kind {
            "Mesh" => {
                if !self.name.is_empty() {
                    found.add(&place.field("name"), "using name with kind Mesh is not yet supported");
                }
                self.refuse(&["mesh", "tags", "labels", "namespace", "sectionName"], place, found);
                self.check_proxy_types(place, found);
            }
            "MeshSubset" => {
                self.refuse(&["name", "mesh", "labels", "namespace", "sectionName"], place, found);
                self.check_proxy_types(place, found);
                tags::subset(&self.tags(), &place.field("tags"), found);
            }
            "Dataplane" => {
                self.refuse(&["tags", "mesh", "proxyTypes"], place, found);
                self.either("either labels or name and namespace must be specified", place, found);
                self.check_section(allowed, place, found);
            }
            "MeshService" | "MeshHTTPRoute" => {
                self.check_name(allowed, place, found);
                self.refuse(&["mesh", "tags", "proxyTypes"], place, found);
                if self.kind == "MeshHTTPRoute" {
                    self.refuse(&["sectionName"], place, found);
                }
                self.check_named(place, found);
                self.either("either labels or name and namespace must be specified", place, found);
            }
            "MeshExternalService" => {
                self.check_name(allowed, place, found);
                self.refuse(&["mesh", "tags", "proxyTypes", "sectionName"], place, found);
                self.check_named(place, found);
                self.either("either labels or name must be specified", place, found);
            }
            "MeshServiceSubset" | "MeshGateway" => {
                if self.name.is_empty() {
                    found.add(&place.field("name"), format!("must be set when kind is {}", self.kind));
                }
                self.check_name(allowed, place, found);
                self.refuse(&["mesh", "proxyTypes", "labels", "namespace", "sectionName"], place, found);
                tags::selector(&self.tags(), tags::Needs::Nothing, &place.field("tags"), found);
            }
            // 2.14 looks at nothing of a MeshMultiZoneService.
            _ => {}
        }
    }

    fn check_3_0(&self, allowed: Allowed<'_>, place: &Place<'_>, found: &mut Findings) {
        match self.kind {
            "Mesh" => self.refuse(&["labels", "sectionName"], place, found),
            "Dataplane" => self.check_section(allowed, place, found),
            kind => {
                if !self.has_labels() {
                    found.add(&place.field("labels"), format!("must be set when kind is {kind}"));
                }
                if matches!(kind, "MeshExternalService" | "MeshHTTPRoute") {
                    self.refuse(&["sectionName"], place, found);
                }
            }
        }
    }

    fn refuse(&self, fields: &[&str], place: &Place<'_>, found: &mut Findings) {
        for field in fields {
            let set = match *field {
                "name" => !self.name.is_empty(),
                "namespace" => !self.namespace.is_empty(),
                "sectionName" => !self.section_name.is_empty(),
                "mesh" => !self.mesh.is_empty(),
                "labels" => self.has_labels(),
                "tags" => self.tags.is_some_and(has_values),
                _ => self.proxy_types.is_some_and(|types| !types.is_empty()),
            };
            if set {
                found.add(&place.field(field), format!("must not be set with kind {}", self.kind));
            }
        }
    }

    fn check_proxy_types(&self, place: &Place<'_>, found: &mut Findings) {
        if self.proxy_types.is_some_and(<[Value]>::is_empty) {
            found.add(&place.field("proxyTypes"), "must be undefined or have at least one element");
        }
    }

    fn check_section(&self, allowed: Allowed<'_>, place: &Place<'_>, found: &mut Findings) {
        if !self.section_name.is_empty() && !allowed.inbound {
            found.add(&place.field("sectionName"), "can only be used with inbound policies");
        }
    }

    fn check_name(&self, allowed: Allowed<'_>, place: &Place<'_>, found: &mut Findings) {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if !self.name.bytes().all(fits) && allowed.odd_name != Some(self.name) {
            let words = "invalid characters: must consist of lower case alphanumeric characters, '-', '.' and '_'.";
            found.add(&place.field("name"), words);
        }
    }

    fn check_named(&self, place: &Place<'_>, found: &mut Findings) {
        if self.name.is_empty() && !self.has_labels() {
            found.add(place, format!("name or labels must be set when kind is {}", self.kind));
        }
    }

    fn either(&self, words: &str, place: &Place<'_>, found: &mut Findings) {
        if self.has_labels() && !(self.name.is_empty() && self.namespace.is_empty()) {
            found.add(&place.field("labels"), words);
        }
    }

    fn has_labels(&self) -> bool {
        self.labels.is_some_and(has_values)
    }

    fn tags(&self) -> Vec<(&'a str, &'a str)> {
        let tags = self.tags.into_iter().flatten();
        tags.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
    }
}

/// Nulls are dropped on the way, so that a map of nulls is empty.
fn has_values(map: &Map<String, Value>) -> bool {
    map.values().any(|value| !value.is_null())
}
