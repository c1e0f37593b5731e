//! The schema walk beside the validator of another author: the `jsonschema` crate, over mutated documents.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods)]

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};
use sluice_rules::schema;
use sluice_rules::validate::{Kuma, Stage, Version, verdict};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

/// A resource definition's schema as JSON Schema, read as the REST API reads it: nothing is dropped, and a null takes the
/// default where there is one.
fn json_schema(schema: &Value, takes_null: bool) -> Value {
    let mut out = Map::new();
    let kept = ["enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "required"];
    for key in kept {
        if let Some(value) = schema.get(key) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        return json!({"type": ["integer", "string", "null"]});
    }
    if let Some(kind) = schema.get("type") {
        let null = takes_null || schema.get("nullable") == Some(&true.into());
        out.insert("type".to_owned(), if null { json!([kind, "null"]) } else { kind.clone() });
        if let Some(Value::Array(choices)) = out.get_mut("enum").filter(|_| null) {
            choices.push(Value::Null);
        }
    }
    // JSON Schema leaves formats alone; the library counts bits.
    if schema.get("format") == Some(&"int32".into()) {
        out.entry("minimum").or_insert(i32::MIN.into());
        out.entry("maximum").or_insert(i32::MAX.into());
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let property =
            |(name, schema): (&String, &Value)| (name.clone(), json_schema(schema, schema.get("default").is_some()));
        out.insert("properties".to_owned(), Value::Object(properties.iter().map(property).collect()));
    }
    if let Some(items) = schema.get("items") {
        out.insert("items".to_owned(), json_schema(items, false));
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        out.insert("additionalProperties".to_owned(), json_schema(values, false));
    }
    Value::Object(out)
}

struct Seed {
    document: Value,
    version: Version,
    kind: String,
}

/// Upstream's example policies in Universal form.
static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kuma/examples");
    let mut seeds = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", root.display()))
        .flat_map(|entry| match entry.unwrap().path() {
            path if path.is_dir() => std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect(),
            path => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    for path in files {
        let document: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let version = if path.to_string_lossy().ends_with(".v3.yaml") { Version::V3_0 } else { Version::V2_14 };
        let Some(kind) = document.get("type").and_then(Value::as_str).map(str::to_owned) else { continue };
        if document.get("spec").is_some() && VALIDATORS.contains_key(&(version, kind.clone())) {
            seeds.push(Seed { document, version, kind });
        }
    }
    assert!(seeds.len() > 50, "only {} example policies", seeds.len());
    seeds
});

static VALIDATORS: LazyLock<BTreeMap<(Version, String), Validator>> = LazyLock::new(|| {
    let mut validators = BTreeMap::new();
    for version in [Version::V2_14, Version::V3_0] {
        for kind in schema::kinds(version) {
            let spec = &schema::definition(kind, version).unwrap()["properties"]["spec"];
            if spec.get("x-kubernetes-preserve-unknown-fields").is_none() && spec.is_object() {
                let validator = jsonschema::validator_for(&json_schema(spec, false)).unwrap();
                validators.insert((version, kind.to_owned()), validator);
            }
        }
    }
    validators
});

/// The places of a value, outside in.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(value, format!("{at}/{name}"), found);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                places(value, format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
    found.push(at);
}

fn is_leaf(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

#[derive(Debug, Clone)]
enum Mutation {
    Replace(Value),
    Remove,
    /// Puts the value of another place here.
    Copy(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let values = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1.0),
        json!(70_000),
        json!(3_000_000_000_u32),
        json!(5_000_000_000_u64),
        json!(""),
        json!("Not Valid!"),
        json!("Exact"),
        json!("x".repeat(2000)),
        json!([]),
        json!([null]),
        json!(["a"]),
        json!({}),
        json!({"kind": "Mesh"}),
        json!({"a": null}),
        json!({"a": {"b": 1}}),
        json!((0..20).collect::<Vec<_>>()),
    ];
    prop_oneof![
        4 => proptest::sample::select(values).prop_map(Mutation::Replace),
        1 => Just(Mutation::Remove),
        1 => any::<Index>().prop_map(Mutation::Copy),
    ]
}

fn mutate(document: &mut Value, at: &Index, mutation: &Mutation) {
    let mut found = Vec::new();
    places(&document["spec"], "/spec".to_owned(), &mut found);
    // Most limits sit on texts and numbers.
    let leaves: Vec<String> = found.iter().filter(|at| is_leaf(document.pointer(at).unwrap())).cloned().collect();
    if matches!(mutation, Mutation::Replace(value) if is_leaf(value)) && !leaves.is_empty() {
        found = leaves;
    }
    let place = at.get(&found).clone();
    match mutation {
        Mutation::Replace(value) => *document.pointer_mut(&place).unwrap() = value.clone(),
        Mutation::Copy(from) => {
            let from: &String = from.get(&found);
            let value = document.pointer(from).unwrap().clone();
            *document.pointer_mut(&place).unwrap() = value;
        }
        Mutation::Remove => {
            let (parent, last) = place.rsplit_once('/').unwrap();
            match document.pointer_mut(parent).unwrap() {
                Value::Object(object) if !parent.is_empty() => {
                    object.shift_remove(&last.replace("~1", "/").replace("~0", "~"));
                }
                Value::Array(list) => {
                    list.remove(last.parse().unwrap());
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(15_000))]

    #[test]
    fn refuses_what_another_validator_refuses(
        seed in any::<Index>(),
        mutations in proptest::collection::vec((any::<Index>(), mutation()), 0..3),
    ) {
        let seed = seed.get(&SEEDS);
        let mut document = seed.document.clone();
        for (at, mutation) in &mutations {
            mutate(&mut document, at, mutation);
        }
        let kuma = Kuma { version: seed.version, ..Kuma::default() };
        let answer = verdict(&document, &kuma);
        let validator = &VALIDATORS[&(seed.version, seed.kind.clone())];
        let errors: Vec<String> = validator.iter_errors(&document["spec"]).map(|error| error.to_string()).collect();
        prop_assert_eq!(
            answer.stage == Some(Stage::Schema), !errors.is_empty(),
            "{:?} beside {:?} of {}", answer, errors, document
        );
    }
}
