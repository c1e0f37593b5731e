//! Which rule it is, wherever it stands in the file.

use super::ServiceKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Identity of a rule: mesh, kind of route, destination and matches in canonical form. Reordering changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleKey(Arc<str>);

/// A longer key is told briefly in a ledger.
const LONGEST: usize = 240;

/// The matches of a rule that takes every request.
pub(super) const ANY: &str = "any";

impl RuleKey {
    pub(super) fn new(mesh: &str, kind: &str, destination: &ServiceKey, hostnames: &[String], matches: &str) -> Self {
        let mut text = format!("{mesh} {kind} {destination}");
        if !hostnames.is_empty() {
            let mut hostnames = hostnames.to_vec();
            hostnames.sort();
            let _ = write!(text, " {}", hostnames.join(","));
        }
        text.push(' ');
        text += matches;
        Self(text.into())
    }

    /// The same where it is short; else its beginning with a hash, for where much room for it would be too much.
    pub fn brief(&self) -> Self {
        if self.0.len() <= LONGEST {
            return self.clone();
        }
        let start = self.0.char_indices().map(|(at, _)| at).take_while(|at| *at <= LONGEST / 2).last().unwrap_or(0);
        Self(format!("{}…{}", &self.0[..start], &hex::encode(Sha256::digest(self.0.as_bytes()))[..32]).into())
    }

    pub(crate) fn is_catch_all(&self) -> bool {
        self.0.rsplit_once(' ').is_some_and(|(_, matches)| matches == ANY)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RuleKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RuleKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// The matches as one text, and whether they take every request.
pub(super) fn canonical_matches(matches: &[Value]) -> (String, bool) {
    let list = set(matches.iter().map(|one| told(one, false)));
    let takes_all = |one: &String| one == r#"{"path":{"type":"PathPrefix","value":"/"}}"# || one == "{}";
    let catch_all = list.is_empty() || list.iter().any(takes_all);
    (if catch_all { ANY.to_owned() } else { format!("[{}]", list.join(",")) }, catch_all)
}

/// Each once, in order: every list inside `matches` is a set.
fn set(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<_> = texts.collect();
    texts.sort();
    texts.dedup();
    texts
}

fn told(value: &Value, is_named: bool) -> String {
    let mut text = String::with_capacity(96);
    tell(value, is_named, &mut text);
    text
}

/// Keys in order, `null` left out, lists as sets. What `is_named`, a header or query parameter, is compared exactly
/// when it has no `type`.
fn tell(value: &Value, is_named: bool, text: &mut String) {
    match value {
        Value::Object(map) => {
            let exact = Value::String("Exact".to_owned());
            let typed = (is_named && !map.contains_key("type")).then_some(("type", &exact));
            tell_map(map.iter().map(|(key, value)| (key.as_str(), value)).chain(typed), text);
        }
        Value::Array(items) => {
            text.push('[');
            *text += &set(items.iter().map(|item| told(item, false))).join(",");
            text.push(']');
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

fn tell_map<'a>(entries: impl Iterator<Item = (&'a str, &'a Value)>, text: &mut String) {
    let mut entries: Vec<_> = entries.filter(|(_, value)| !value.is_null()).collect();
    entries.sort_by_key(|(key, _)| *key);
    text.push('{');
    for (position, (key, value)) in entries.into_iter().enumerate() {
        let comma = if position > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{}:", Value::from(key));
        match value {
            Value::Array(items) if matches!(key, "headers" | "queryParams") => {
                text.push('[');
                *text += &set(items.iter().map(|item| told(item, true))).join(",");
                text.push(']');
            }
            value => tell(value, false, text),
        }
    }
    text.push('}');
}
