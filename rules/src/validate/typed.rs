//! The typed copy that Kuma's defaulting webhook hands back to the API server.
//!
//! What is missing and must not be has its type's zero value there: a text is "", an object {}, a list null. So the
//! schema, which the API server applies afterwards, sees other faults than the document has.

use crate::schema::{Kind, Node};
use serde_json::{Map, Value};

/// The copy of a value that decodes.
pub(super) fn copy(node: &Node, value: &Value) -> Value {
    match value {
        Value::Object(object) if node.kind == Some(Kind::Object) && !node.open => {
            let mut copied = Map::new();
            for (name, value) in object {
                if value.is_null() {
                    continue;
                }
                if let Some(property) = node.property(name) {
                    copied.insert(name.clone(), copy(&property.node, value));
                } else if let Some(values) = &node.values {
                    copied.insert(name.clone(), copy(values, value));
                }
            }
            for property in node.properties.iter().filter(|property| property.required) {
                if !copied.contains_key(&property.name) {
                    copied.insert(property.name.clone(), zero(&property.node));
                }
            }
            Value::Object(copied)
        }
        Value::Array(list) => match &node.items {
            Some(items) => {
                list.iter().map(|item| if item.is_null() { zero(items) } else { copy(items, item) }).collect()
            }
            None => value.clone(),
        },
        _ => value.clone(),
    }
}

/// What Go has where nothing was said. Without a pointer, a field cannot be absent.
fn zero(node: &Node) -> Value {
    match node.kind {
        Some(Kind::Object) => copy(node, &Value::Object(Map::new())),
        Some(Kind::String) => "".into(),
        Some(Kind::Integer | Kind::Number | Kind::IntOrString) => 0.into(),
        Some(Kind::Boolean) => false.into(),
        Some(Kind::Array) | None => Value::Null,
    }
}

/// Does the value decode into the type its schema was made from?
///
/// Nulls always do. Kuma declares whole numbers that must not be negative as unsigned.
pub(super) fn decodes(node: &Node, value: &Value) -> bool {
    match (node.kind, value) {
        (None, _) | (_, Value::Null) => true,
        (Some(Kind::Object), Value::Object(object)) => {
            object.iter().all(|(name, value)| match (node.property(name), &node.values) {
                (Some(property), _) => decodes(&property.node, value),
                (None, Some(values)) => decodes(values, value),
                (None, None) => true,
            })
        }
        (Some(Kind::Array), Value::Array(list)) => match &node.items {
            Some(items) => list.iter().all(|item| decodes(items, item)),
            None => true,
        },
        (Some(Kind::String | Kind::IntOrString), Value::String(_))
        | (Some(Kind::Boolean), Value::Bool(_))
        | (Some(Kind::Number), Value::Number(_)) => true,
        (Some(Kind::Integer), Value::Number(number)) => {
            let whole = number.is_i64() || number.as_f64().is_some_and(|float| float.fract() == 0.0);
            whole && !(node.minimum == Some(0.0) && number.as_f64().is_some_and(|float| float < 0.0))
        }
        (Some(Kind::IntOrString), Value::Number(number)) => {
            number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
        }
        _ => false,
    }
}
