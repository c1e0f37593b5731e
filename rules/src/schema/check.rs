//! The walk over one value, and the words for what is wrong.

use super::{Kind, Node, Place};
use crate::validate::Violation;
use serde_json::{Number, Value};
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// Who checks: the rules are one library's, the words and the care for nulls differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Kuma's REST API: numbers are floats, a null is a value unless the field has a default.
    Rest,
    /// The API server, looking at what it was sent: null fields are dropped first.
    Sent,
    /// The API server, looking at what the mutating webhooks handed back: nulls stay.
    Mutated,
}

/// A check under way: what it found so far.
#[derive(Debug)]
pub(crate) struct Check {
    asker: Asker,
    pub(crate) found: Vec<Violation>,
}

/// The largest integer that a float of JavaScript's holds: beyond it the REST API's library sees no integer.
const LARGEST_JSON_INTEGER: f64 = 9_007_199_254_740_991.0;

impl Check {
    pub(crate) fn new(asker: Asker) -> Self {
        Self { asker, found: Vec::new() }
    }

    /// Checks a value and everything below it.
    pub(crate) fn value(&mut self, node: &Node, value: &Value, place: &Place<'_>) {
        if value.is_null() {
            // As the library does it: a null has a type and stands among the choices or not, and nothing else.
            // A number or a text has no single type, and so a null passes.
            if let Some(kind) = node.kind.filter(|kind| !node.nullable && *kind != Kind::IntOrString) {
                self.wrong_type(place, kind.word(), "null");
            }
            self.choices(node, value, place);
            return;
        }
        match node.kind {
            None => {}
            Some(Kind::IntOrString) => self.int_or_string(value, place),
            Some(kind) => self.kind(node, kind, value, place),
        }
        match value {
            Value::String(text) => self.text(node, text, place),
            Value::Number(number) => self.number(node, number, place),
            Value::Array(list) => self.list(node, list, place),
            _ => {}
        }
        self.choices(node, value, place);
        if let Value::Object(object) = value {
            let mut required = 0;
            for (name, value) in object {
                let place = place.field(name);
                if let Some(property) = node.property(name) {
                    if value.is_null() && !property.node.nullable {
                        match self.asker {
                            // Dropped before anybody looks, and so missing.
                            Asker::Sent if property.node.default.is_none() => continue,
                            Asker::Sent | Asker::Rest if property.node.default.is_some() => {
                                required += usize::from(property.required);
                                continue;
                            }
                            _ => {}
                        }
                    }
                    required += usize::from(property.required);
                    self.value(&property.node, value, &place);
                } else if let Some(values) = &node.values
                    && !(value.is_null() && !values.nullable && self.asker == Asker::Sent)
                {
                    self.value(values, value, &place);
                }
            }
            if required < node.required {
                self.missing(node, object, place);
            }
        }
    }

    fn missing(&mut self, node: &Node, object: &serde_json::Map<String, Value>, place: &Place<'_>) {
        for property in node.properties.iter().filter(|property| property.required) {
            let there = match object.get(&property.name) {
                None => false,
                Some(Value::Null) => self.asker != Asker::Sent || property.node.nullable,
                Some(_) => true,
            };
            if !there && property.node.default.is_none() {
                self.required(place, &property.name);
            }
        }
    }

    fn kind(&mut self, node: &Node, kind: Kind, value: &Value, place: &Place<'_>) {
        let fits = match (kind, value) {
            (Kind::Object, Value::Object(_))
            | (Kind::Array, Value::Array(_))
            | (Kind::String, Value::String(_))
            | (Kind::Boolean, Value::Bool(_))
            | (Kind::Number, Value::Number(_)) => true,
            (Kind::Integer, Value::Number(number)) => self.is_integer(number),
            _ => false,
        };
        if fits {
            return;
        }
        match (&node.format, value) {
            // With a format the library compares formats, and of these values only a float has one.
            (Some(format), Value::Number(_)) if kind == Kind::Integer => self.wrong_type(place, format, "float64"),
            (Some(format), Value::Bool(_) | Value::Object(_)) => self.wrong_type(place, format, ""),
            _ => self.wrong_type(place, kind.word(), self.type_of(value)),
        }
    }

    /// A number or a text: the library tries both, and tells of the first one twice over.
    fn int_or_string(&mut self, value: &Value, place: &Place<'_>) {
        match value {
            Value::String(_) => return,
            Value::Number(number) if self.is_integer(number) => return,
            _ => {}
        }
        if self.asker != Asker::Rest {
            self.wrong_type(place, Kind::IntOrString.word(), self.type_of(value));
        }
        self.bare(format!("\"{place}\" must validate at least one schema (anyOf)"));
        self.wrong_type(place, Kind::Integer.word(), self.type_of(value));
        if value.is_number() {
            self.bare(format!("Checked value must be of type integer (default format) in {place}"));
        }
    }

    fn text(&mut self, node: &Node, text: &str, place: &Place<'_>) {
        let length = || text.chars().count() as u64;
        if let Some(most) = node.max_length
            && text.len() as u64 > most
            && length() > most
        {
            match self.asker {
                Asker::Rest => self.value_says(place, "", format_args!("should be at most {most} chars long")),
                _ => self.push(place.to_string(), format!("Too long: may not be more than {most} bytes")),
            }
        } else if let Some(least) = node.min_length
            && length() < least
        {
            let value = quoted(text);
            self.value_says(place, &value, format_args!("should be at least {least} chars long"));
        } else if let Some(pattern) = &node.pattern
            && !pattern.is_match(text)
        {
            let value = quoted(text);
            self.value_says(place, &value, format_args!("should match '{pattern}'"));
        }
    }

    fn number(&mut self, node: &Node, number: &Number, place: &Place<'_>) {
        if node.kind == Some(Kind::Integer) && !fits_format(number, node.format.as_deref()) {
            self.bare(match &node.format {
                Some(format) => format!("Checked value must be of type integer with format {format} in {place}"),
                None => format!("Checked value must be of type integer (default format) in {place}"),
            });
        }
        let Some(float) = number.as_f64() else { return };
        let bounds = [
            (node.maximum.filter(|most| float > *most), "less than or equal to"),
            (node.minimum.filter(|least| float < *least), "greater than or equal to"),
        ];
        for (bound, words) in bounds {
            let Some(bound) = bound else { continue };
            let bound = if self.asker != Asker::Rest && number.is_i64() { bound.to_string() } else { go_float(bound) };
            self.value_says(place, &number.to_string(), format_args!("should be {words} {bound}"));
        }
    }

    fn list(&mut self, node: &Node, list: &[Value], place: &Place<'_>) {
        if let Some(items) = &node.items {
            for (index, item) in list.iter().enumerate() {
                self.value(items, item, &place.index(index));
            }
        }
        let size = list.len() as u64;
        if let Some(least) = node.min_items.filter(|least| size < *least) {
            self.value_says(place, &size.to_string(), format_args!("should have at least {least} items"));
        }
        if let Some(most) = node.max_items.filter(|most| size > *most) {
            match self.asker {
                Asker::Rest => self.value_says(place, "", format_args!("should have at most {most} items")),
                _ => {
                    let items = if most == 1 { "item" } else { "items" };
                    self.push(place.to_string(), format!("Too many: {size}: must have at most {most} {items}"));
                }
            }
        }
        if !node.list_keys.is_empty() && self.asker != Asker::Rest {
            self.repeated(node, list, place);
        }
    }

    /// Items of a list that is a map in disguise must differ in their keys; only the API server looks, and tells of each
    /// key once.
    fn repeated(&mut self, node: &Node, list: &[Value], place: &Place<'_>) {
        if list.len() == 1 && list[0].is_object() {
            return;
        }
        let default = |key: &str| node.items.as_ref()?.property(key)?.node.default.as_ref();
        let mut seen: BTreeMap<String, bool> = BTreeMap::new();
        for (index, item) in list.iter().enumerate() {
            let Value::Object(object) = item else {
                let value = compact(item);
                let message = format!("Invalid value: {value}: must be an object for an array of list-type map");
                self.push(place.index(index).to_string(), message);
                continue;
            };
            let mut text = String::from("{");
            for key in &node.list_keys {
                let Some(value) = object.get(key).or_else(|| default(key)) else { continue };
                let comma = if text.len() > 1 { "," } else { "" };
                // Writing to a text does not fail.
                let _ = write!(text, "{comma}{}:{}", quoted(key), compact(value));
            }
            text.push('}');
            match seen.get_mut(&text) {
                None => {
                    seen.insert(text, false);
                }
                Some(told) if !*told => {
                    *told = true;
                    self.push(place.index(index).to_string(), format!("Duplicate value: {text}"));
                }
                Some(_) => {}
            }
        }
    }

    fn choices(&mut self, node: &Node, value: &Value, place: &Place<'_>) {
        if node.choices.is_empty() || node.choices.iter().any(|choice| same(choice, value)) {
            return;
        }
        if self.asker == Asker::Rest {
            let choices: Vec<String> = node.choices.iter().map(plain).collect();
            self.value_says(place, "", format_args!("should be one of [{}]", choices.join(" ")));
        } else {
            let choices: Vec<String> = node.choices.iter().map(|choice| quoted(&plain(choice))).collect();
            let value = if value.is_null() { "\"null\"".to_owned() } else { pruned(value).to_string() };
            let message = format!("Unsupported value: {value}: supported values: {}", choices.join(", "));
            self.push(place.to_string(), message);
        }
    }

    /// A field that must be there and is not.
    pub(crate) fn required(&mut self, place: &Place<'_>, name: &str) {
        match self.asker {
            // The library forgets that the document itself has no name.
            Asker::Rest => self.line(format!("{place}.{name} in body is required")),
            _ => self.push(place.field(name).to_string(), "Required value".to_owned()),
        }
    }

    pub(crate) fn wrong_type(&mut self, place: &Place<'_>, expected: &str, found: &str) {
        let found = quoted(found);
        self.value_says(place, &found, format_args!("must be of type {expected}: {found}"));
    }

    fn value_says(&mut self, place: &Place<'_>, value: &str, words: impl Display) {
        match self.asker {
            Asker::Rest => self.line(format!("{place} in body {words}")),
            _ => self.push(place.to_string(), format!("Invalid value: {value}: {place} in body {words}")),
        }
    }

    /// A sentence of the library that is about no field.
    fn bare(&mut self, sentence: String) {
        match self.asker {
            Asker::Rest => self.line(sentence),
            _ => self.push("<nil>".to_owned(), format!("Invalid value: \"\": {sentence}")),
        }
    }

    /// The REST API cuts a sentence at its first space, and only below `spec` does it take the first part for a field.
    fn line(&mut self, line: String) {
        match line.split_once(' ') {
            Some((field, message)) if field.starts_with("spec.") => self.push(field.to_owned(), message.to_owned()),
            _ => self.push(String::new(), line),
        }
    }

    pub(crate) fn push(&mut self, field: String, message: String) {
        self.found.push(Violation { field, message });
    }

    fn is_integer(&self, number: &Number) -> bool {
        match number.as_f64() {
            _ if self.asker != Asker::Rest && number.is_i64() => true,
            Some(float) => float.fract() == 0.0 && float.abs() <= LARGEST_JSON_INTEGER,
            None => false,
        }
    }

    fn type_of(&self, value: &Value) -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if self.asker != Asker::Rest && number.is_i64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }
}

/// Is the number inside its format? A format that is no number's is no limit.
fn fits_format(number: &Number, format: Option<&str>) -> bool {
    // Go prints a float in full and reads it back as an integer, so that a whole float is fine.
    let whole = number.as_i64().map(i128::from).or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e30)?;
        Some(float as i128)
    });
    match (whole, format) {
        (None, _) => false,
        (Some(whole), Some("int32")) => i32::try_from(whole).is_ok(),
        (Some(whole), _) => i64::try_from(whole).is_ok(),
    }
}

fn same(choice: &Value, value: &Value) -> bool {
    match (choice, value) {
        (Value::Number(choice), Value::Number(value)) => choice.as_f64() == value.as_f64(),
        _ => choice == value,
    }
}

/// A text in double quotes.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A choice as Go's `%v` prints it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value in one line, its keys sorted as Go sorts them.
fn compact(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    value.to_string()
}

/// A value in the place of a scalar, as it is left after pruning.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(serde_json::Map::new()),
        Value::Array(list) => list.iter().map(pruned).collect(),
        scalar => scalar.clone(),
    }
}

/// A float as Go's `%v` prints it: the exponent comes early.
fn go_float(float: f64) -> String {
    let text = format!("{float:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    match exponent.parse::<i32>() {
        Ok(exponent) if (-4..21).contains(&exponent) && float.abs() < 1e6 => float.to_string(),
        Ok(exponent) if exponent < 0 => format!("{digits}e-{:02}", -exponent),
        Ok(exponent) => format!("{digits}e+{exponent:02}"),
        Err(_) => text,
    }
}
