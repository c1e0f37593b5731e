//! The CustomResourceDefinitions, generated from the types that read the objects.
//!
//! A structural schema says less than JSON Schema does: what it cannot say is left to the webhook, which reads every
//! guard and approval when it is written. Unknown fields are pruned by the API server, with a warning to the client;
//! kubectl asks it to refuse them instead. Defaults are not written into objects: an object says what somebody wrote.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use sluice_rules::guard::{Approval, Spec};

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
    definition(["ShiftGuard", "shiftguard", "shiftguards", "sguard"], description, structural::<Spec>(), columns)
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
    spec["x-kubernetes-validations"] = json!([{"rule": "self == oldSelf", "message": "an approval never changes: write another one"}]);
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
        let rest: Vec<Value> =
            choices.iter().filter(|choice| choice["type"] != "null").cloned().collect();
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
