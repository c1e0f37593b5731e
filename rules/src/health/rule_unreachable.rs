#![doc = include_str!("../../../testdata/rules/rule-unreachable/README.md")]

use super::Severity;
use super::object::{inside, items, text};
use super::rule::{Answer, Check, Look, Rule, quoted};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Included, Unbounded};

pub(super) const RULE: Rule = Rule {
    id: "KMH-T03",
    name: "rule-unreachable",
    severity: Severity::Medium,
    kinds: &["MeshHTTPRoute", "TrafficRoute"],
    summary: "no request reaches a rule",
    explanation: include_str!("../../../testdata/rules/rule-unreachable/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    match look.object.kind {
        "TrafficRoute" => in_order(look, answer),
        _ => by_precedence(look, answer),
    }
}

/// Kuma sorts the matches of a `MeshHTTPRoute`: exact paths, then prefixes from long to short, then regular
/// expressions. So a rule loses all its requests only to rules with the same matches, or, if all its paths are
/// regular expressions, to a rule for the prefix `/`. Linear in the number of matches but for the lookup.
fn by_precedence(look: &Look<'_>, answer: &mut Answer) {
    for (t, to) in items(look.object.spec, "to").iter().enumerate() {
        let rules = items(to, "rules");
        let everything = rules.iter().position(|rule| items(rule, "matches").iter().any(is_everything));
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (r, rule) in rules.iter().enumerate() {
            let matches = items(rule, "matches");
            let mut earlier = None;
            let mut behind_everything = false;
            let mut reachable = matches.is_empty();
            for one in matches {
                let key = key(one);
                if let Some(first) = seen.get(&key) {
                    earlier = Some(*first);
                } else if everything.is_some_and(|other| other != r) && is_regex(one) {
                    behind_everything = true;
                } else {
                    reachable = true;
                }
                seen.entry(key).or_insert(r);
            }
            if reachable || earlier == Some(r) {
                continue;
            }
            let message = match (earlier, everything) {
                (_, Some(other)) if behind_everything => {
                    format!("rules[{other}] takes every path, and Kuma tries a prefix before a regular expression")
                }
                (Some(earlier), _) => format!("rules[{earlier}] has the same matches: one of the two has no effect"),
                _ => continue,
            };
            let finding = RULE.at(look.field(format_args!("to[{t}].rules[{r}].matches")), message);
            answer.found(finding.help("remove it, merge the two, or make its matches narrower"));
        }
    }
}

fn is_everything(one: &Value) -> bool {
    let path = inside(one, &["path"]);
    text(path, "type") == "PathPrefix" && text(path, "value") == "/" && !has_conditions(one)
}

fn has_conditions(one: &Value) -> bool {
    !text(one, "method").is_empty() || !items(one, "headers").is_empty() || !items(one, "queryParams").is_empty()
}

fn is_regex(one: &Value) -> bool {
    text(inside(one, &["path"]), "type") == "RegularExpression"
}

/// One text for a match, whatever the order of its keys, headers and parameters.
fn key(one: &Value) -> String {
    let path = inside(one, &["path"]);
    let mut key = [text(path, "type"), text(path, "value"), text(one, "method")].join("\0");
    for list in ["headers", "queryParams"] {
        let mut named: Vec<String> = items(one, list)
            .iter()
            .map(|item| {
                let how = if text(item, "type").is_empty() { "Exact" } else { text(item, "type") };
                [text(item, "name"), how, text(item, "value")].join("\0")
            })
            .collect();
        named.sort();
        key.push('\u{1}');
        key += &named.join("\u{2}");
    }
    key
}

/// A `TrafficRoute` tries its matches in the order of the file.
fn in_order(look: &Look<'_>, answer: &mut Answer) {
    let mut prefixes = Prefixes::default();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (h, http) in items(inside(look.object.spec, &["conf"]), "http").iter().enumerate() {
        let one = inside(http, &["match"]);
        let Some(fields) = one.as_object() else { continue };
        let path = inside(one, &["path"]);
        let (exact, prefix, regex) = (text(path, "exact"), text(path, "prefix"), text(path, "regex"));
        let whole = serde_json::to_string(one).unwrap_or_default();
        let covered = match (exact, prefix, regex) {
            ("", "", "") => None,
            ("", "", _) => prefixes.cover("/").filter(|prefix| *prefix == "/"),
            ("", prefix, _) => prefixes.cover(prefix),
            (exact, _, _) => prefixes.cover(exact),
        };
        let message = match covered {
            Some(prefix) => Some(format!("an earlier match takes every path that begins with {}", quoted(prefix))),
            None if !seen.insert(whole) => Some("an earlier match is the same".to_owned()),
            None => None,
        };
        if let Some(message) = message {
            let finding = RULE.at(look.field(format_args!("conf.http[{h}].match")), message);
            answer.found(finding.help("move it up, or remove it"));
        } else if !prefix.is_empty() && fields.iter().all(|(key, value)| key == "path" || value.is_null()) {
            prefixes.insert(prefix);
        }
    }
}

/// Prefixes of which none begins with another, so that the only one that may cover a text stands right before it.
#[derive(Default)]
struct Prefixes(BTreeSet<String>);

impl Prefixes {
    fn cover(&self, text: &str) -> Option<&str> {
        let before = self.0.range::<str, _>((Unbounded, Included(text))).next_back()?;
        text.starts_with(before.as_str()).then_some(before)
    }

    /// `prefix` is not covered.
    fn insert(&mut self, prefix: &str) {
        loop {
            let next = self.0.range::<str, _>((Included(prefix), Unbounded)).next();
            let Some(longer) = next.filter(|next| next.starts_with(prefix)).cloned() else { break };
            self.0.remove(&longer);
        }
        self.0.insert(prefix.to_owned());
    }
}
