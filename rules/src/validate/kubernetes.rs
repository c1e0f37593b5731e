//! The steps of a cluster: decode, the mutating webhook, the schema, the validating webhook.

use super::{
    Kuma, Role, Rules, Stage, Verdict, Version, Violation, decode, grammar, meta, traffic_route, typed, violations,
};
use crate::schema::{Asker, Check, Place, Schema};
use serde_json::{Map, Value};

pub(super) fn verdict(document: &Value, kind: &str, schema: &Schema, kuma: &Kuma) -> Verdict {
    let Some(object) = document.as_object() else { return Verdict::default() };
    let empty = Map::new();
    let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    if let Err(text) = object_meta(object.get("metadata")) {
        let message = format!("{kind} in version \"v1alpha1\" cannot be handled as a {kind}: {text}");
        return Verdict::refused_text(Stage::Schema, message);
    }
    let rules = Rules::of(kind);
    let labels = metadata.get("labels").and_then(Value::as_object).unwrap_or(&empty);
    // Without a namespace the request goes to the client's, which is `default` unless somebody changed it.
    let namespace = match metadata.get("namespace").and_then(Value::as_str) {
        _ if !schema.namespaced => None,
        None | Some("") => Some("default"),
        namespace => namespace,
    };
    // Only Kubernetes knows these, and Kuma's webhooks do not ask about them.
    let native = matches!(kind, "ContainerPatch" | "MeshGatewayInstance" | "MeshGatewayConfig");
    let mut spec = object.get("spec");

    // Invariant: an object that the schema takes as it was sent, it takes from the webhook too.
    let mut sent = Check::new(Asker::Sent);
    body(object, schema, &mut sent);
    object_names(metadata, labels, namespace, &mut sent.found);
    let decodes = || ["spec", "mesh"].iter().all(|name| decodes(object, schema, name));
    let mutating = match () {
        () if native => Ok(()),
        // Nobody sees this text: the schema refuses what does not decode, and is told first.
        () if !sent.found.is_empty() && !decodes() => Err("json: cannot unmarshal".to_owned()),
        () => mutate(spec, kind, rules, schema, namespace, kuma),
    };
    let copied;
    match (sent.found.is_empty(), mutating) {
        (true, Ok(())) => {}
        (true, Err(text)) => return Verdict::refused_text(Stage::Mutating, text),
        (false, Err(_)) => return Verdict::refused(Stage::Schema, sent.found),
        (false, Ok(())) if native => return Verdict::refused(Stage::Schema, sent.found),
        (false, Ok(())) => {
            copied = schema.spec().zip(spec.filter(|spec| !spec.is_null())).map(|(node, spec)| typed::copy(node, spec));
            spec = copied.as_ref();
            let mut mutated = Check::new(Asker::Mutated);
            if let Some((node, spec)) = schema.spec().zip(spec) {
                mutated.value(node, spec, &Place::ROOT.field("spec"));
            }
            object_names(metadata, &computed(labels, namespace), namespace, &mut mutated.found);
            if !mutated.found.is_empty() {
                return Verdict::refused(Stage::Schema, mutated.found);
            }
        }
    }

    let route = match rules {
        Some(Rules::TrafficRoute) => match traffic_route::decode(spec.unwrap_or(&Value::Null)) {
            Ok(route) => Some(route),
            Err(text) => return Verdict::refused_text(Stage::Decode, text),
        },
        _ => None,
    };
    let mut found = Vec::new();
    let meshed = !matches!(kind, "Mesh" | "Zone" | "HostnameGenerator");
    let unlisted = matches!(kind, "Timeout" | "ZoneIngress" | "ZoneEgress");
    if !native && !unlisted {
        if kuma.version == Version::V2_14 {
            found.extend(meta::origin(labels));
        }
        if meshed {
            let mesh = if schema.root.property("mesh").is_some() {
                object.get("mesh").map_or("", |mesh| mesh.as_str().unwrap_or_default())
            } else {
                labels.get(meta::MESH).map_or("default", |mesh| mesh.as_str().unwrap_or_default())
            };
            meta::mesh(mesh, &mut found);
        }
    }
    if !found.is_empty() {
        return Verdict::refused(Stage::Meta, found);
    }
    let found = match (rules, route) {
        (_, Some(route)) => traffic_route::violations(&route, &Place::ROOT.field("spec")),
        (Some(rules), None) => {
            let system = namespace.is_none_or(|namespace| namespace == kuma.system_namespace);
            let role = if system { Role::System } else { Role::Application };
            violations(rules, spec, role, kuma.version)
        }
        (None, None) => Vec::new(),
    };
    if found.is_empty() { Verdict::default() } else { Verdict::refused(Stage::Validator, found) }
}

/// The schema of everything but `metadata`, which has its own rules.
fn body(object: &Map<String, Value>, schema: &Schema, check: &mut Check) {
    for (name, value) in object {
        let Some(property) = schema.root.property(name).filter(|_| name != "metadata") else { continue };
        if value.is_null() && !property.node.nullable {
            continue;
        }
        check.value(&property.node, value, &Place::ROOT.field(name));
    }
}

/// Decodes the fields of `metadata` that people write.
fn object_meta(metadata: Option<&Value>) -> Result<(), String> {
    let fails = |value: &Value, field: &str, of: &str| {
        format!("json: cannot unmarshal {} into Go struct field ObjectMeta.{field} of type {of}", decode::word(value))
    };
    let metadata = match metadata {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(metadata)) => metadata,
        Some(other) => {
            return Err(format!("json: cannot unmarshal {} into Go value of type v1.ObjectMeta", decode::word(other)));
        }
    };
    for (name, value) in metadata {
        match name.as_str() {
            _ if value.is_null() => {}
            "name" | "generateName" | "namespace" if !value.is_string() => return Err(fails(value, name, "string")),
            "labels" | "annotations" => {
                let Some(map) = value.as_object() else { return Err(fails(value, name, "map[string]string")) };
                if let Some(value) = map.values().find(|value| !value.is_string() && !value.is_null()) {
                    return Err(fails(value, name, "string"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The API server's rules for names, labels and annotations.
fn object_names(
    metadata: &Map<String, Value>,
    labels: &Map<String, Value>,
    namespace: Option<&str>,
    found: &mut Vec<Violation>,
) {
    let mut add = |field: &str, message: String| found.push(Violation { field: field.to_owned(), message });
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    let prefix = text("generateName");
    if !prefix.is_empty() {
        // What is appended makes a dash at the end fine.
        for sentence in grammar::subdomain(prefix.strip_suffix('-').unwrap_or(prefix)) {
            add("metadata.generateName", format!("Invalid value: {prefix:?}: {sentence}"));
        }
    }
    if !name.is_empty() {
        for sentence in grammar::subdomain(name) {
            add("metadata.name", format!("Invalid value: {name:?}: {sentence}"));
        }
    } else if prefix.is_empty() {
        add("metadata.name", "Required value: name or generateName is required".to_owned());
    }
    let namespace = namespace.unwrap_or("default");
    for sentence in grammar::label(namespace) {
        add("metadata.namespace", format!("Invalid value: {namespace:?}: {sentence}"));
    }
    for (key, value) in labels {
        for sentence in grammar::label_key(key) {
            add("metadata.labels", format!("Invalid value: {key:?}: {sentence}"));
        }
        let value = value.as_str().unwrap_or_default();
        for sentence in grammar::label_value(value) {
            add("metadata.labels", format!("Invalid value: {value:?}: {sentence}"));
        }
    }
    for key in metadata.get("annotations").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        for sentence in grammar::label_key(&key.to_lowercase()) {
            add("metadata.annotations", format!("Invalid value: {key:?}: {sentence}"));
        }
    }
}

/// The labels as the mutating webhook leaves them, as far as it can break or mend one.
fn computed(labels: &Map<String, Value>, namespace: Option<&str>) -> Map<String, Value> {
    let mut labels = labels.clone();
    // Written by the control plane, whatever the author said; the display name becomes an annotation.
    for key in [meta::ENVIRONMENT, meta::ROLE, meta::DISPLAY_NAME, meta::NAMESPACE] {
        labels.remove(key);
    }
    if let Some(namespace) = namespace {
        labels.insert(meta::NAMESPACE.to_owned(), namespace.into());
    }
    labels
}

/// Does the field decode into its type?
fn decodes(object: &Map<String, Value>, schema: &Schema, name: &str) -> bool {
    match (schema.root.property(name), object.get(name)) {
        (Some(property), Some(value)) => typed::decodes(&property.node, value),
        _ => true,
    }
}

/// What Kuma's defaulting webhook refuses of an object that its schema takes: what does not decode all the same, and
/// policies whose role cannot be told.
fn mutate(
    spec: Option<&Value>,
    kind: &str,
    rules: Option<Rules>,
    schema: &Schema,
    namespace: Option<&str>,
    kuma: &Kuma,
) -> Result<(), String> {
    if matches!(rules, Some(Rules::HttpRoute | Rules::TcpRoute)) {
        decode::route(spec)?;
    }
    let Some(namespace) = namespace.filter(|namespace| *namespace != kuma.system_namespace) else { return Ok(()) };
    let system_only = matches!(
        kind,
        "MeshExternalService" | "MeshIdentity" | "MeshTrust" | "MeshOpenTelemetryBackend" | "HostnameGenerator"
    );
    if system_only {
        let system = &kuma.system_namespace;
        return Err(format!("resource type {kind} can be created only in the system namespace:{system}"));
    }
    // A field that the kind does not have is dropped before anybody counts its items.
    let list = |key: &str| -> &[Value] {
        let list = schema.spec().and_then(|node| node.property(key)).and(spec).and_then(|spec| spec.get(key));
        list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    };
    let to = list("to");
    if !to.is_empty() && !list("from").is_empty() {
        return Err("it's not allowed to mix 'to' and 'from' arrays in the same policy".to_owned());
    }
    let producers = to.iter().filter(|to| is_producer(to.get("targetRef"), namespace, kuma.version)).count();
    if producers != 0 && producers != to.len() {
        return Err("it's not allowed to mix producer and consumer items in the same policy".to_owned());
    }
    Ok(())
}

/// Does the item speak for a service of its own namespace?
fn is_producer(target: Option<&Value>, namespace: &str, version: Version) -> bool {
    let Some(target) = target else { return false };
    let text = |key: &str| target.get(key).and_then(Value::as_str).unwrap_or_default();
    if !matches!(text("kind"), "MeshService" | "MeshHTTPRoute") {
        return false;
    }
    let own = |other: &str| other.is_empty() || other == namespace;
    match version {
        Version::V2_14 => !text("name").is_empty() && own(text("namespace")),
        Version::V3_0 => {
            let Some(labels) = target.get("labels").and_then(Value::as_object) else { return false };
            let named = meta::text(labels, meta::DISPLAY_NAME).is_some_and(|name| !name.is_empty());
            named
                && own(meta::text(labels, meta::NAMESPACE).unwrap_or_default())
                && labels.keys().all(|key| key == meta::DISPLAY_NAME || key == meta::NAMESPACE)
        }
    }
}
