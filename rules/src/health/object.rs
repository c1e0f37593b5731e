//! An object of Kuma as JSON, in either form, borrowed: rules read it in place.

use crate::field::FieldPath;
use serde_json::{Map, Value};

pub(super) const DISPLAY_NAME: &str = "kuma.io/display-name";
pub(super) const NAMESPACE: &str = "k8s.kuma.io/namespace";

/// Which object it is and where its parts are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) kind: &'a str,
    pub(super) mesh: &'a str,
    /// Its namespace on Kubernetes; empty in Universal form.
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// The spec; the document itself when `flat`.
    pub(super) spec: &'a Value,
    pub(super) flat: bool,
    document: &'a Value,
    kubernetes: bool,
}

static NOTHING: Value = Value::Null;

/// The kinds that are flat in Universal form: those of the first generation.
fn is_flat(kind: &str) -> bool {
    const FLAT: &[&str] = &[
        "CircuitBreaker",
        "Dataplane",
        "ExternalService",
        "FaultInjection",
        "HealthCheck",
        "Mesh",
        "MeshGateway",
        "MeshGatewayRoute",
        "ProxyTemplate",
        "RateLimit",
        "Retry",
        "Timeout",
        "TrafficLog",
        "TrafficPermission",
        "TrafficRoute",
        "TrafficTrace",
        "VirtualOutbound",
        "Zone",
        "ZoneEgress",
        "ZoneIngress",
    ];
    FLAT.contains(&kind)
}

impl<'a> Object<'a> {
    /// Reads the envelope; `None` when the document is no object of Kuma.
    pub(super) fn read(document: &'a Value) -> Option<Self> {
        let (api, metadata) = (text(document, "apiVersion"), get(document, "metadata"));
        let kubernetes = !api.is_empty() || metadata.is_some_and(Value::is_object);
        if kubernetes && !api.is_empty() && !api.starts_with("kuma.io/") {
            return None;
        }
        let kind = match (kubernetes, text(document, "type")) {
            (true, _) | (false, "") => text(document, "kind"),
            (false, kind) => kind,
        };
        if kind.is_empty() {
            return None;
        }
        let flat = !kubernetes && is_flat(kind);
        let spec = if flat { document } else { get(document, "spec").unwrap_or(&NOTHING) };
        let meta = if kubernetes { metadata.unwrap_or(&NOTHING) } else { document };
        let label = |key| get(meta, "labels").map_or("", |labels| text(labels, key));
        let mut name = text(meta, "name");
        let mut namespace = if kubernetes { text(meta, "namespace") } else { "" };
        if !kubernetes {
            // An object of a Kubernetes zone, exported in Universal form, is called `name.namespace`.
            namespace = label(NAMESPACE);
            let short = name.strip_suffix(namespace).and_then(|name| name.strip_suffix('.'));
            name = short.filter(|_| !namespace.is_empty()).unwrap_or(name);
        }
        let mesh = [text(document, "mesh"), label("kuma.io/mesh")].into_iter().find(|mesh| !mesh.is_empty());
        Some(Self { kind, mesh: mesh.unwrap_or("default"), namespace, name, spec, flat, document, kubernetes })
    }

    /// The labels, as the document has them.
    pub(super) fn labels(&self) -> Option<&'a Map<String, Value>> {
        let meta = if self.kubernetes { get(self.document, "metadata")? } else { self.document };
        get(meta, "labels")?.as_object()
    }

    /// A label or, on Kubernetes, an annotation; empty when there is none.
    pub(super) fn note(&self, key: &str) -> &'a str {
        let meta = if self.kubernetes { get(self.document, "metadata") } else { Some(self.document) };
        let of = |list| meta.and_then(|meta| get(meta, list)).map_or("", |list| text(list, key));
        match of("labels") {
            "" => of("annotations"),
            label => label,
        }
    }

    /// The name that a person gave it, which references by label use.
    pub(super) fn display_name(&self) -> &'a str {
        match self.note(DISPLAY_NAME) {
            "" => self.name,
            name => name,
        }
    }

    /// Is it stored without being applied?
    pub(super) fn is_shadow(&self) -> bool {
        self.note("kuma.io/effect") == "shadow"
    }

    /// How many proxies serve it, where the control plane has said so in its status.
    pub(super) fn proxies(&self) -> Option<u64> {
        inside(self.document, &["status", "dataplaneProxies", "total"]).as_u64()
    }

    /// Where its kind is written.
    pub(super) fn kind_field(&self) -> FieldPath {
        FieldPath::root().key(if self.kubernetes || self.document.get("type").is_none() { "kind" } else { "type" })
    }

    /// Where its name is written.
    pub(super) fn name_field(&self) -> FieldPath {
        match self.kubernetes {
            true => FieldPath::root().key("metadata").key("name"),
            false => FieldPath::root().key("name"),
        }
    }
}

/// The value at a key. Objects of Kuma are small: to compare a few keys is cheaper than to hash one.
pub(super) fn get<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let map = value.as_object()?;
    if map.len() > 12 {
        return map.get(key);
    }
    map.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
}

/// The text at a key; empty when there is none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    get(value, key).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a key; empty when there is none.
pub(super) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    get(value, key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What is under a path of keys; `null` when there is nothing.
pub(super) fn inside<'a>(value: &'a Value, keys: &[&str]) -> &'a Value {
    keys.iter().try_fold(value, |value, key| get(value, key)).unwrap_or(&NOTHING)
}

/// A duration as Go writes it (`1h0m0s`, `1.5s`, `500ms`), in nanoseconds; `None` when it is none or beyond 290 years.
pub(super) fn duration(value: &Value) -> Option<u64> {
    let text = value.as_str()?;
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (total <= i64::MAX as f64).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_durations_as_go_writes_them() {
        for (text, nanoseconds) in
            [("1h0m0s", 3_600_000_000_000), ("1.5s", 1_500_000_000), ("500ms", 500_000_000), ("0", 0)]
        {
            assert_eq!(duration(&json!(text)), Some(nanoseconds), "{text}");
        }
        for wrong in ["", "5", "-1s", "1d", "s", "1..5s", "99999999h"] {
            assert_eq!(duration(&json!(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn reads_both_forms() {
        let kubernetes = json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshRetry",
            "metadata": {"name": "r", "namespace": "demo", "labels": {"kuma.io/mesh": "m"}}, "spec": {"to": []}});
        let universal = json!({"type": "MeshRetry", "name": "r.demo", "mesh": "m",
            "labels": {"k8s.kuma.io/namespace": "demo"}, "spec": {"to": []}});
        for document in [&kubernetes, &universal] {
            let object = Object::read(document).unwrap();
            assert_eq!((object.kind, object.mesh, object.namespace, object.name), ("MeshRetry", "m", "demo", "r"));
            assert!(object.spec.is_object() && !object.flat);
        }
        assert!(Object::read(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})).is_none());
        assert!(Object::read(&json!([1])).is_none());
    }
}
