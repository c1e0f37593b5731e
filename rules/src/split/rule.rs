//! Which rule it is, wherever it stands in the file.

use super::ServiceKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fmt;

/// Identity of a rule: mesh, kind of route, destination and matches in canonical form. Reordering changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleKey(String);

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
            text += &format!(" {}", hostnames.join(","));
        }
        Self(format!("{text} {matches}"))
    }

    /// The same where it is short; else its beginning with a hash, for where much room for it would be too much.
    pub fn brief(&self) -> Self {
        if self.0.len() <= LONGEST {
            return self.clone();
        }
        let start = self.0.char_indices().map(|(at, _)| at).take_while(|at| *at <= LONGEST / 2).last().unwrap_or(0);
        Self(format!("{}…{}", &self.0[..start], &hex::encode(Sha256::digest(&self.0))[..32]))
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

/// The matches as one text, and whether they take every request.
pub(super) fn canonical_matches(matches: &[Value]) -> (String, bool) {
    let canonical = canonical(&Value::from(matches));
    let everything = json!({"path": {"type": "PathPrefix", "value": "/"}});
    let takes_all = |one: &Value| *one == everything || *one == json!({});
    let catch_all = canonical.as_array().is_none_or(|list| list.is_empty() || list.iter().any(takes_all));
    (if catch_all { ANY.to_owned() } else { canonical.to_string() }, catch_all)
}

/// Keys in order, `null` left out, lists as sets: every list inside `matches` is one.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().filter(|(_, value)| !value.is_null()).collect();
            entries.sort_by_key(|(key, _)| *key);
            let mut sorted: Map<String, Value> = Map::new();
            for (key, value) in entries {
                let named = matches!(key.as_str(), "headers" | "queryParams");
                let value = if named { with_type(value) } else { value.clone() };
                sorted.insert(key.clone(), canonical(&value));
            }
            Value::Object(sorted)
        }
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(canonical).collect();
            items.sort_by_cached_key(Value::to_string);
            items.dedup();
            Value::Array(items)
        }
        other => other.clone(),
    }
}

/// A header or query parameter without `type` is compared exactly.
fn with_type(list: &Value) -> Value {
    let mut list = list.clone();
    for item in list.as_array_mut().into_iter().flatten() {
        if let Some(item) = item.as_object_mut() {
            item.entry("type").or_insert_with(|| "Exact".into());
        }
    }
    list
}
