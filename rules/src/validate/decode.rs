//! What Go's typed decode refuses although the schema let it through, in Go's words.

use serde_json::{Map, Value};

/// Decodes the envelope that all Universal resources share.
pub(super) fn meta(object: &Map<String, Value>) -> Result<(), String> {
    let fails = |value: &Value, field: &str, of: &str| {
        format!("json: cannot unmarshal {} into Go struct field ResourceMeta.{field} of type {of}", word(value))
    };
    for (name, value) in object {
        match name.as_str() {
            _ if value.is_null() => {}
            "type" | "name" | "mesh" if !value.is_string() => return Err(fails(value, name, "string")),
            "labels" => {
                let Some(labels) = value.as_object() else { return Err(fails(value, name, "map[string]string")) };
                if let Some(value) = labels.values().find(|value| !value.is_string() && !value.is_null()) {
                    return Err(fails(value, name, "string"));
                }
            }
            "creationTime" | "modificationTime" => match value.as_str() {
                Some(text) if is_time(text) => {}
                Some(text) => {
                    let layout = "2006-01-02T15:04:05Z07:00";
                    return Err(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""));
                }
                None => return Err("Time.UnmarshalJSON: input is not a JSON string".to_owned()),
            },
            _ => {}
        }
    }
    Ok(())
}

/// Is it a time as RFC 3339 writes it?
pub(super) fn is_time(text: &str) -> bool {
    text.as_bytes().get(10).is_some_and(|b| matches!(b, b'T' | b't')) && text.parse::<jiff::Timestamp>().is_ok()
}

/// Decodes a route's spec that fits its schema: ports are unsigned there, percentages have 32 bits, and the schema says
/// neither.
pub(super) fn route(spec: Option<&Value>) -> Result<(), String> {
    for to in list(spec, "to") {
        for rule in list(Some(to), "rules") {
            // Go tells of the first mistake it reads, so in the order of the document.
            for (name, value) in rule.get("default").and_then(Value::as_object).into_iter().flatten() {
                match name.as_str() {
                    "backendRefs" => {
                        for backend in value.as_array().into_iter().flatten() {
                            port(backend, "backendRefs")?;
                        }
                    }
                    "filters" => {
                        for mirror in value.as_array().into_iter().flatten().filter_map(|f| f.get("requestMirror")) {
                            request_mirror(mirror)?;
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn request_mirror(mirror: &Value) -> Result<(), String> {
    let fits = |number: f64| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
    for (name, value) in mirror.as_object().into_iter().flatten() {
        match name.as_str() {
            "backendRef" => port(value, "filters.requestMirror.backendRef")?,
            "percentage" if value.as_f64().is_some_and(|number| !fits(number)) => {
                let field = "RequestMirror.spec.to.rules.default.filters.requestMirror.percentage";
                return Err(format!(
                    "json: cannot unmarshal number {value} into Go struct field {field} of type int32"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn port(backend: &Value, at: &str) -> Result<(), String> {
    match backend.get("port") {
        Some(port) if port.as_f64().is_some_and(|port| port < 0.0) => {
            let field = format!("BackendRef.spec.to.rules.default.{at}.port");
            Err(format!("json: cannot unmarshal number {port} into Go struct field {field} of type uint32"))
        }
        _ => Ok(()),
    }
}

fn list<'a>(value: Option<&'a Value>, key: &str) -> &'a [Value] {
    value.and_then(|value| value.get(key)).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Go's word for a value that does not fit.
pub(super) fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
