//! Protobuf's JSON form as Go's library reads it: lenient about nulls, unknown fields and numbers in quotes.

use crate::validate::decode::word;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Tags, sorted by key as Kuma walks them.
pub(super) type Tags<'a> = Vec<(&'a str, &'a str)>;

/// A message under decoding. Null is an empty message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a>(Option<&'a Map<String, Value>>);

/// The value of a field that is there and not null.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a>(&'a Value);

impl<'a> Object<'a> {
    pub(super) fn read(value: &'a Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Self(None)),
            Value::Object(object) => Ok(Self(Some(object))),
            other => Err(refuse(word(other), "map[string]json.RawMessage")),
        }
    }

    /// A field by its name in the definition. JSON's own spelling (`loadBalancer`) wins over it (`load_balancer`).
    fn field(&self, name: &str) -> Option<Field<'a>> {
        let object = self.0?;
        let value = object.get(camel(name).as_ref()).or_else(|| object.get(name))?;
        (!value.is_null()).then_some(Field(value))
    }

    /// A field that may be absent.
    pub(super) fn message<T>(
        &self,
        name: &str,
        read: impl FnOnce(Field<'a>) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.field(name).map(read).transpose()
    }

    /// A list of messages.
    pub(super) fn list<T>(
        &self,
        name: &str,
        read: impl Fn(&Object<'a>) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        match self.field(name) {
            None => Ok(Vec::new()),
            Some(Field(Value::Array(list))) => list.iter().map(|item| read(&Object::read(item)?)).collect(),
            Some(Field(other)) => Err(refuse(word(other), "[]json.RawMessage")),
        }
    }

    /// A text; "" when it is absent.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, String> {
        Ok(self.message(name, |field| field.as_text())?.unwrap_or_default())
    }

    /// A number of 32 bits without a sign.
    pub(super) fn number(&self, name: &str) -> Result<Option<u32>, String> {
        self.message(name, |field| field.as_u32())
    }

    /// A number of 64 bits without a sign, looked at and forgotten.
    pub(super) fn large_number(&self, name: &str) -> Result<(), String> {
        self.message(name, |field| field.unsigned("uint64", u64::MAX))?;
        Ok(())
    }

    /// A switch, looked at and forgotten.
    pub(super) fn flag(&self, name: &str) -> Result<(), String> {
        match self.field(name) {
            None | Some(Field(Value::Bool(_))) => Ok(()),
            Some(Field(other)) => Err(refuse(word(other), "bool")),
        }
    }
}

impl<'a> Field<'a> {
    pub(super) fn as_object(self) -> Result<Object<'a>, String> {
        Object::read(self.0)
    }

    pub(super) fn as_text(self) -> Result<&'a str, String> {
        self.0.as_str().ok_or_else(|| refuse(word(self.0), "string"))
    }

    /// A map, sorted by key. A null value stays a value.
    pub(super) fn as_map(self) -> Result<Vec<(&'a str, Field<'a>)>, String> {
        let Value::Object(map) = self.0 else { return Err(refuse(word(self.0), "map[string]json.RawMessage")) };
        let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), Field(value))).collect();
        entries.sort_by_key(|(key, _)| *key);
        Ok(entries)
    }

    /// Tags; a null value is "".
    pub(super) fn as_tags(self) -> Result<Tags<'a>, String> {
        let value = |field: Field<'a>| if field.0.is_null() { Ok("") } else { field.as_text() };
        self.as_map()?.into_iter().map(|(key, field)| Ok((key, value(field)?))).collect()
    }

    pub(super) fn as_u32(self) -> Result<u32, String> {
        let number = self.unsigned("uint32", u64::from(u32::MAX))?;
        // It is within the limit.
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// A number, with or without quotes around it.
    fn unsigned(self, of: &str, limit: u64) -> Result<u64, String> {
        let text = match self.0 {
            Value::Number(number) => match number.as_f64() {
                // As Go writes a float that is whole.
                Some(float) if !number.is_i64() && !number.is_u64() && float.fract() == 0.0 && float.abs() < 1e21 => {
                    format!("{float:.0}")
                }
                _ => number.to_string(),
            },
            Value::String(text) => text.clone(),
            other => return Err(refuse(word(other), of)),
        };
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Number(_)) => match text.trim().parse::<u64>() {
                Ok(number) if number <= limit => Ok(number),
                _ => Err(refuse(&format!("number {}", text.trim()), of)),
            },
            Ok(Value::Null) => Ok(0),
            Ok(other) => Err(refuse(word(&other), of)),
            Err(_) => Err(syntax(&text)),
        }
    }
}

fn refuse(what: &str, of: &str) -> String {
    format!("json: cannot unmarshal {what} into Go value of type {of}")
}

/// What Go's reader says of a text that is no JSON; the usual cases exactly.
fn syntax(text: &str) -> String {
    let text = text.trim_start_matches([' ', '\t', '\r', '\n']);
    let Some(first) = text.chars().next() else { return "unexpected end of JSON input".to_owned() };
    for literal in ["true", "false", "null"] {
        if literal.starts_with(first) {
            let wrong = text.chars().zip(literal.chars()).find(|(got, expected)| got != expected);
            return match wrong {
                Some((got, expected)) => {
                    format!("invalid character {got:?} in literal {literal} (expecting {expected:?})")
                }
                None if text.len() < literal.len() => "unexpected end of JSON input".to_owned(),
                None => after(text.chars().nth(literal.len())),
            };
        }
    }
    if first.is_ascii_digit() || first == '-' {
        let rest = text.trim_start_matches('-');
        return match rest.chars().next() {
            None => "unexpected end of JSON input".to_owned(),
            Some(c) if first == '-' && !c.is_ascii_digit() => format!("invalid character {c:?} in numeric literal"),
            _ => after(rest.chars().find(|c| !matches!(c, '0'..='9' | '.' | 'e' | 'E' | '+' | '-'))),
        };
    }
    if matches!(first, '{' | '[' | '"') {
        return "unexpected end of JSON input".to_owned();
    }
    format!("invalid character {first:?} looking for beginning of value")
}

fn after(c: Option<char>) -> String {
    match c {
        Some(c) => format!("invalid character {c:?} after top-level value"),
        None => "unexpected end of JSON input".to_owned(),
    }
}

/// `load_balancer` as JSON spells it: `loadBalancer`.
fn camel(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut spelled = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            spelled.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            spelled.push(c);
        }
    }
    Cow::Owned(spelled)
}
