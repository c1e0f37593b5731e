//! Names, meshes and labels.

use super::{Kuma, Version, Violation, grammar};
use crate::schema::Place;
use serde_json::{Map, Value};

/// Kuma's own labels.
pub(super) const MESH: &str = "kuma.io/mesh";
pub(super) const ORIGIN: &str = "kuma.io/origin";
pub(super) const ZONE: &str = "kuma.io/zone";
pub(super) const ROLE: &str = "kuma.io/policy-role";
pub(super) const DISPLAY_NAME: &str = "kuma.io/display-name";
pub(super) const NAMESPACE: &str = "k8s.kuma.io/namespace";
pub(super) const ENVIRONMENT: &str = "kuma.io/env";

/// What is wrong with the mesh a resource says it belongs to. The old grammar, with `_`: meshes may be older than the
/// rule for their names.
pub(super) fn mesh(mesh: &str, found: &mut Vec<Violation>) {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let wrong = if mesh.bytes().all(fits) {
        None
    } else {
        Some("invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_', '.' symbols.")
    };
    identifier("mesh", mesh, wrong, found);
}

/// What is wrong with the name of a resource.
pub(super) fn name(name: &str, found: &mut Vec<Violation>) {
    let wrong = if grammar::is_subdomain(name) {
        None
    } else {
        Some(
            "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '-' or '.', and must start and end with an alphanumeric character",
        )
    };
    identifier("name", name, wrong, found);
}

fn identifier(field: &str, text: &str, wrong: Option<&str>, found: &mut Vec<Violation>) {
    let message = match wrong {
        _ if text.is_empty() => "cannot be empty",
        _ if text.len() > 253 => "value length must less or equal 253",
        Some(wrong) => wrong,
        None => return,
    };
    found.push(Violation { field: field.to_owned(), message: message.to_owned() });
}

/// What is wrong with the value of `kuma.io/origin`.
pub(super) fn origin(labels: &Map<String, Value>) -> Option<Violation> {
    let origin = text(labels, ORIGIN)?;
    if matches!(origin, "" | "global" | "zone") {
        return None;
    }
    let field = Place::ROOT.field("labels").key(ORIGIN).to_string();
    Some(Violation { field, message: format!("unknown resource origin {origin:?}") })
}

/// What the REST API of a zone says of labels. `policy` tells a policy with a schema from other kinds.
pub(super) fn labels(labels: &Map<String, Value>, mesh: &str, policy: bool, kuma: &Kuma, found: &mut Vec<Violation>) {
    let root = Place::ROOT.field("labels");
    let mut add = |key: &str, message: String| {
        found.push(Violation { field: root.key(key).to_string(), message });
    };
    if let Some(violation) = origin(labels) {
        add(ORIGIN, violation.message);
    }
    // What the global control plane made may carry another zone.
    if text(labels, ORIGIN) != Some("global") {
        if text(labels, ZONE).is_some_and(|zone| zone != kuma.zone) {
            add(ZONE, format!("{ZONE} label should have {} value", kuma.zone));
        }
        if text(labels, MESH).is_some_and(|label| label != mesh) {
            add(MESH, format!("{MESH} label must not differ from mesh set on resource"));
        }
    }
    if policy
        && kuma.version >= Version::V3_0
        && let Some(role) = text(labels, ROLE).filter(|role| !matches!(*role, "" | "system"))
    {
        add(ROLE, format!("{ROLE} label should have system value, got {role}"));
    }
    for (key, value) in labels {
        for message in grammar::label_key(key) {
            add(key, message);
        }
        for message in grammar::label_value(value.as_str().unwrap_or_default()) {
            add(key, message);
        }
    }
}

/// The text of a label.
pub(super) fn text<'a>(labels: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    labels.get(key)?.as_str()
}
