//! One level of a resource definition's schema, ready to be walked.

use regex::Regex;
use serde_json::Value;

/// What a value must look like. Only what Kuma's resource definitions use is read.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The type; absent, any will do.
    pub(crate) kind: Option<Kind>,
    /// `int32` and the like; texts of other formats are not looked at.
    pub(crate) format: Option<String>,
    /// Filled in when the field is missing.
    pub(crate) default: Option<Value>,
    /// Null is a value of its own.
    pub(crate) nullable: bool,
    /// Unknown fields are kept.
    pub(crate) open: bool,
    /// The values that are allowed; empty, all are.
    pub(crate) choices: Vec<Value>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    /// The keys that tell items apart, sorted; empty, items may repeat.
    pub(crate) list_keys: Vec<String>,
    /// Fields.
    pub(crate) properties: Vec<Property>,
    /// How many of the properties are required.
    pub(crate) required: usize,
    /// What the values of a free-form map must look like.
    pub(crate) values: Option<Box<Node>>,
    /// What the items of a list must look like.
    pub(crate) items: Option<Box<Node>>,
}

/// A field of an object.
#[derive(Debug)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) required: bool,
    pub(crate) node: Node,
}

/// A schema type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

impl Kind {
    /// The schema's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
        }
    }
}

impl Node {
    /// Reads an `openAPIV3Schema`. What is missing or has an odd type is left out: these texts are compiled in, and a test
    /// holds them to the validator of another author.
    pub(crate) fn read(schema: &Value) -> Node {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let list = |key: &str| schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let kind = match text("type") {
            _ if flag("x-kubernetes-int-or-string") => Some(Kind::IntOrString),
            Some("object") => Some(Kind::Object),
            Some("array") => Some(Kind::Array),
            Some("string") => Some(Kind::String),
            Some("integer") => Some(Kind::Integer),
            Some("number") => Some(Kind::Number),
            Some("boolean") => Some(Kind::Boolean),
            _ => None,
        };
        let properties: Vec<Property> = schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, schema)| Property {
                name: name.clone(),
                required: list("required").iter().any(|required| required == name.as_str()),
                node: Node::read(schema),
            })
            .collect();
        let keys = list("x-kubernetes-list-map-keys").iter().filter_map(Value::as_str);
        let mut list_keys: Vec<String> = keys.map(str::to_owned).collect();
        list_keys.sort();
        Node {
            kind,
            format: text("format").map(str::to_owned),
            default: schema.get("default").cloned(),
            nullable: flag("nullable"),
            open: flag("x-kubernetes-preserve-unknown-fields"),
            choices: list("enum").to_vec(),
            minimum: number("minimum"),
            maximum: number("maximum"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            // Go's expressions and these are the same RE2 dialect.
            pattern: text("pattern").and_then(|pattern| Regex::new(pattern).ok()),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            list_keys,
            required: properties.iter().filter(|property| property.required).count(),
            properties,
            values: schema.get("additionalProperties").filter(|v| v.is_object()).map(|v| Box::new(Node::read(v))),
            items: schema.get("items").map(|items| Box::new(Node::read(items))),
        }
    }

    /// The field of this name.
    pub(crate) fn property(&self, name: &str) -> Option<&Property> {
        // There are few, and most differ in length: a scan beats a search.
        self.properties.iter().find(|property| property.name == name)
    }
}
