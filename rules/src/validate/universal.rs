//! The steps of the REST API: schema, decode, the kind's rules, names and labels.

use super::{Kuma, Role, Rules, Stage, Verdict, decode, meta, traffic_route, violations};
use crate::schema::{Asker, Check, Place, Schema};
use serde_json::{Map, Value};

pub(super) fn verdict(document: &Value, kind: &str, schema: &Schema, kuma: &Kuma) -> Verdict {
    let Some(object) = document.as_object() else { return Verdict::default() };
    let rules = Rules::of(kind);
    let empty = Map::new();
    let labels = object.get("labels").and_then(Value::as_object).unwrap_or(&empty);
    let structural = schema.is_structural();
    if structural {
        let mut check = Check::new(Asker::Rest);
        resource(object, kind, schema, &mut check);
        if !check.found.is_empty() {
            return Verdict::refused(Stage::Schema, check.found);
        }
    }
    let decoded = match rules {
        Some(Rules::TrafficRoute) => decode::meta(object).and_then(|()| traffic_route::decode(document).map(Some)),
        Some(Rules::HttpRoute | Rules::TcpRoute) => decode::route(object.get("spec")).map(|()| None),
        Some(Rules::TrafficPermission) => Ok(None),
        // The typed form of the other kinds is not known here; their envelope is.
        None if !structural => decode::meta(object).map(|()| None),
        None => Ok(None),
    };
    let route = match decoded {
        Ok(route) => route,
        Err(text) => return Verdict::refused_text(Stage::Decode, format!("invalid {kind} object: {text:?}")),
    };
    let found = match (rules, route) {
        (_, Some(route)) => traffic_route::violations(&route, &Place::ROOT),
        (Some(rules), None) => {
            // Universal policies have the system's role unless a label says otherwise, which 3.0 refuses below.
            let role = match meta::text(labels, meta::ROLE) {
                None | Some("" | "system") => Role::System,
                Some(_) => Role::Application,
            };
            violations(rules, object.get("spec"), role, kuma.version)
        }
        (None, None) => Vec::new(),
    };
    if !found.is_empty() {
        return Verdict::refused(Stage::Validator, found);
    }
    let mut found = Vec::new();
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let meshed = !matches!(kind, "Mesh" | "Zone" | "ZoneIngress" | "ZoneEgress" | "HostnameGenerator");
    // The schema's default, which the old kinds do not have.
    let mesh = match object.get("mesh") {
        None | Some(Value::Null) if structural => "default",
        _ => text("mesh"),
    };
    meta::name(text("name"), &mut found);
    if meshed {
        meta::mesh(mesh, &mut found);
        if mesh.is_empty() {
            // It is put to the URL of mesh `default` then.
            found.push(super::Violation {
                field: "mesh".to_owned(),
                message: "mesh from the URL has to be the same as in body".to_owned(),
            });
        }
    }
    let policy = structural && schema.spec().is_some_and(|spec| spec.property("targetRef").is_some());
    meta::labels(labels, mesh, policy, kuma, &mut found);
    if found.is_empty() { Verdict::default() } else { Verdict::refused(Stage::Meta, found) }
}

/// The REST API's schema of a resource: an envelope around the `spec` of the resource definition.
fn resource(object: &Map<String, Value>, kind: &str, schema: &Schema, check: &mut Check) {
    let root = Place::ROOT;
    for (name, value) in object {
        let place = root.field(name);
        match name.as_str() {
            // A missing mesh gets a default, and so does a null.
            "mesh" if kind == "HostnameGenerator" || value.is_null() => {}
            "type" | "name" | "mesh" if value.is_string() => {}
            "type" | "name" | "mesh" => check.wrong_type(&place, "string", type_of(value)),
            "labels" => labels(value, &place, check),
            "creationTime" | "modificationTime" => time(value, &place, check),
            "spec" => {
                if let Some(spec) = schema.spec() {
                    check.value(spec, value, &place);
                }
            }
            _ => {}
        }
    }
    for name in ["name", "spec"] {
        if !object.contains_key(name) {
            check.required(&root, name);
        }
    }
}

fn labels(value: &Value, place: &Place<'_>, check: &mut Check) {
    let Some(labels) = value.as_object() else { return check.wrong_type(place, "object", type_of(value)) };
    for (key, value) in labels {
        if !value.is_string() {
            check.wrong_type(&place.field(key), "string", type_of(value));
        }
    }
}

fn time(value: &Value, place: &Place<'_>, check: &mut Check) {
    match value {
        Value::String(text) if decode::is_time(text) => {}
        Value::String(text) => check.wrong_type(place, "date-time", text),
        Value::Null | Value::Array(_) => check.wrong_type(place, "string", type_of(value)),
        Value::Number(_) => check.wrong_type(place, "date-time", "float64"),
        Value::Bool(_) | Value::Object(_) => check.wrong_type(place, "date-time", ""),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
