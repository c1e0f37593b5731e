//! The CustomResourceDefinitions, generated from the types that read the objects.
//!
//! A structural schema says less than JSON Schema does: what it cannot say is left to the webhook, which reads every
//! guard and approval when it is written. Unknown fields are pruned by the API server, with a warning to the client;
//! kubectl asks it to refuse them instead. Defaults are not written into objects: an object says what somebody wrote.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use sluice_rules::guard::{Approval, Ledger, Spec};

/// The definitions of `ShiftGuard`, `ShiftApproval` and `ShiftLedger`, in this order.
pub fn all() -> Vec<Value> {
    vec![guards(), approvals(), ledgers()]
}

/// A definition as YAML, as `charts/sluice/crds` keeps it, and the name of its file.
///
/// # Errors
///
/// None of the definitions has any: the type says so for the writer's sake.
pub fn file(definition: &Value) -> Result<(String, String), serde_yaml::Error> {
    let plural = definition["spec"]["names"]["plural"].as_str().unwrap_or_default();
    let yaml = serde_yaml::to_string(definition)?;
    Ok((format!("{plural}.yaml"), format!("# Generated: sluice-webhook crds --folder charts/sluice/crds\n{yaml}")))
}

fn guards() -> Value {
    let description = "Limits on how far changes may move the traffic of a mesh: steps, windows, quiet times, freezes.";
    let columns = json!([
        {"name": "Enforcement", "type": "string", "jsonPath": ".spec.enforcement"},
        {"name": "Step", "type": "number", "jsonPath": ".spec.caps.maxStep"},
        {"name": "Window", "type": "string", "jsonPath": ".spec.caps.perWindow.window"},
        {"name": "Sum", "type": "number", "jsonPath": ".spec.caps.perWindow.shift"},
        {"name": "Share", "type": "number", "jsonPath": ".spec.caps.maxShare"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    let mut spec = structural::<Spec>();
    let caps = &mut spec["properties"]["caps"]["properties"];
    for (field, most) in [("maxStep", Some(100)), ("maxShare", Some(100)), ("perWindow", None)] {
        let number = if most.is_some() { &mut caps[field] } else { &mut caps[field]["properties"]["shift"] };
        number["minimum"] = json!(0);
        number["exclusiveMinimum"] = json!(true);
        if let Some(most) = most {
            number["maximum"] = json!(most);
        }
    }
    spec["properties"]["approvals"]["properties"]["required"]["minimum"] = json!(1);
    spec["properties"]["health"]["properties"]["minScore"]["maximum"] = json!(100);
    definition(["ShiftGuard", "shiftguard", "shiftguards", "sguard"], description, spec, columns)
}

fn approvals() -> Value {
    let description = "A person's consent to one change of traffic, named by the digest of what it proposes.";
    let columns = json!([
        {"name": "Approver", "type": "string", "jsonPath": ".spec.approver"},
        {"name": "Digest", "type": "string", "jsonPath": ".spec.digest"},
        {"name": "Expires", "type": "date", "jsonPath": ".spec.expires"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    let mut spec = structural::<Approval>();
    // Holds without the webhook too. The rule's cost is estimated from these lengths.
    spec["x-kubernetes-validations"] =
        json!([{"rule": "self == oldSelf", "message": "an approval never changes: write another one"}]);
    let properties = &mut spec["properties"];
    properties["digest"]["pattern"] = json!("^[0-9a-f]{64}$");
    properties["digest"]["maxLength"] = json!(64);
    properties["approver"]["minLength"] = json!(1);
    properties["approver"]["maxLength"] = json!(512);
    properties["groups"]["maxItems"] = json!(128);
    properties["groups"]["items"]["maxLength"] = json!(512);
    properties["reason"]["maxLength"] = json!(4096);
    definition(["ShiftApproval", "shiftapproval", "shiftapprovals", "sapproval"], description, spec, columns)
}

fn ledgers() -> Value {
    let description = "What moved, and what is about to, for one destination. Written by the webhook alone.";
    let columns = json!([
        {"name": "Mesh", "type": "string", "jsonPath": ".spec.mesh"},
        {"name": "Destination", "type": "string", "jsonPath": ".spec.destination"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    let mut spec = structural::<Ledger>();
    // Only the webhook writes and reads ledgers, and while it is replaced by a newer one, or the definition was not, a
    // field that the definition does not name must not be lost.
    leave_open(&mut spec);
    definition(["ShiftLedger", "shiftledger", "shiftledgers", "sledger"], description, spec, columns)
}

fn definition(names: [&str; 4], description: &str, spec: Value, columns: Value) -> Value {
    let [kind, singular, plural, short] = names;
    let schema = json!({
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.sluice.dev")},
        "spec": {
            "group": "sluice.dev",
            "scope": "Cluster",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "singular": singular, "plural": plural,
                "shortNames": [short], "categories": ["sluice"],
            },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

/// The structural schema of a type.
fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value();
    simplify(&mut schema);
    schema
}

/// Keeps fields that are not named, here and further in.
fn leave_open(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(leave_open);
        object.insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
    }
    if let Some(items) = object.get_mut("items") {
        leave_open(items);
    }
}

/// The formats that Kubernetes knows.
const FORMATS: [&str; 5] = ["int32", "int64", "float", "double", "date-time"];

/// Turns a schema into a structural one.
fn simplify(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        // `true`: anything.
        *schema = json!({"x-kubernetes-preserve-unknown-fields": true});
        return;
    };
    for key in ["title", "default", "$schema", "definitions", "examples"] {
        object.remove(key);
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = without_links(text);
    }
    one_of_words(object);
    null(object);
    // Kubernetes prunes what is not named here; forbidding it is not structural.
    if object.get("additionalProperties") == Some(&Value::Bool(false)) {
        object.remove("additionalProperties");
    }
    if let Some(word) = object.remove("const") {
        object.insert("enum".to_owned(), json!([word]));
    }
    if object.get("format").is_some_and(|format| !FORMATS.iter().any(|known| format == known)) {
        object.remove("format");
    }
    if ["oneOf", "anyOf", "allOf"].iter().any(|key| object.contains_key(*key)) {
        let description = object.get("description").cloned();
        *object = Map::from_iter([("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true))]);
        object.extend(description.map(|description| ("description".to_owned(), description)));
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(simplify);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            simplify(inner);
        }
    }
}

/// A text without the targets of its links, which only rustdoc knows: of [`Change`](path) stays `Change`.
fn without_links(text: &str) -> String {
    let mut parts = text.split("](");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let (Some(open), Some((_, rest))) = (plain.rfind('['), part.split_once(')')) {
            plain.remove(open);
            plain.push_str(rest);
        }
    }
    plain
}

/// Words that are documented one by one become one list of words.
fn one_of_words(object: &mut Map<String, Value>) {
    let Some(choices) = object.get("oneOf").and_then(Value::as_array) else { return };
    let words: Option<Vec<Vec<Value>>> = choices
        .iter()
        .map(|choice| match (choice.get("const"), choice.get("enum").and_then(Value::as_array)) {
            (Some(word), _) => Some(vec![word.clone()]),
            (None, Some(words)) => Some(words.clone()),
            (None, None) => None,
        })
        .collect();
    let Some(words) = words else { return };
    object.remove("oneOf");
    object.insert("type".to_owned(), json!("string"));
    object.insert("enum".to_owned(), Value::Array(words.concat()));
}

/// What may be null says so in Kubernetes' way.
fn null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get("type") {
        let rest: Vec<Value> = types.iter().filter(|name| *name != "null").cloned().collect();
        if let [one] = rest.as_slice() {
            let (one, nullable) = (one.clone(), rest.len() < types.len());
            object.insert("type".to_owned(), one);
            object.insert("nullable".to_owned(), Value::Bool(nullable));
        }
    }
    if let Some(Value::Array(choices)) = object.get("anyOf") {
        let rest: Vec<Value> = choices.iter().filter(|choice| choice["type"] != "null").cloned().collect();
        if let ([Value::Object(one)], true) = (rest.as_slice(), rest.len() < choices.len()) {
            let one = one.clone();
            object.remove("anyOf");
            for (key, value) in one {
                object.entry(key).or_insert(value);
            }
            object.insert("nullable".to_owned(), Value::Bool(true));
            one_of_words(object);
        }
    }
    if object.get("nullable") == Some(&Value::Bool(true))
        && let Some(words) = object.get_mut("enum").and_then(Value::as_array_mut)
    {
        words.retain(|word| !word.is_null());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_chart_holds_what_is_generated() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/sluice/crds");
        for definition in all() {
            let (name, text) = file(&definition).unwrap();
            let kept = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
            assert_eq!(kept, text, "run: cargo run --bin sluice-webhook crds --folder charts/sluice/crds");
        }
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), all().len());
    }

    #[test]
    fn says_nothing_that_is_not_structural() {
        fn walk(schema: &Value, path: &str) {
            let Some(object) = schema.as_object() else { panic!("{path}: no schema: {schema}") };
            for key in ["$ref", "oneOf", "anyOf", "allOf", "const", "default", "prefixItems", "title"] {
                assert!(!object.contains_key(key), "{path}: {key}");
            }
            let open = object.contains_key("x-kubernetes-preserve-unknown-fields");
            assert!(open || schema["type"].is_string(), "{path}: no type");
            assert_ne!(object.get("additionalProperties"), Some(&json!(false)), "{path}");
            assert!(!schema["description"].as_str().unwrap_or_default().contains("]("), "{path}: a link");
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                walk(inner, &format!("{path}.{name}"));
            }
            if let Some(items) = object.get("items") {
                walk(items, &format!("{path}[]"));
            }
        }
        for definition in all() {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            walk(schema, definition["spec"]["names"]["kind"].as_str().unwrap());
        }
    }
}
