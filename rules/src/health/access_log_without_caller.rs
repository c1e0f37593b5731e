#![doc = include_str!("../../../testdata/rules/access-log-without-caller/README.md")]

use super::Severity;
use super::object::{inside, items};
use super::rule::{Answer, Check, Look, Rule};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-O01",
    name: "access-log-without-caller",
    severity: Severity::Medium,
    kinds: &["MeshAccessLog"],
    summary: "an inbound access log does not say who called",
    explanation: include_str!("../../../testdata/rules/access-log-without-caller/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    let mut any = false;
    for list in ["from", "rules"] {
        for (i, item) in items(look.object.spec, list).iter().enumerate() {
            for (b, backend) in items(inside(item, &["default"]), "backends").iter().enumerate() {
                any = true;
                if names_the_caller(backend) {
                    continue;
                }
                let field = look.field(format_args!("{list}[{i}].default.backends[{b}]"));
                let message = "the format lacks %DOWNSTREAM_PEER_URI_SAN%; the caller's service reads `unknown` here";
                answer.found(RULE.at(field, message).help("add %DOWNSTREAM_PEER_URI_SAN% to the format"));
            }
        }
    }
    if !any {
        answer.not_applicable();
    }
}

/// The operator may stand in the format of a file or TCP backend, or in the body or attributes of OpenTelemetry.
fn names_the_caller(backend: &Value) -> bool {
    match backend {
        Value::String(text) => text.contains("%DOWNSTREAM_PEER_URI_SAN%"),
        Value::Array(items) => items.iter().any(names_the_caller),
        Value::Object(map) => map.values().any(names_the_caller),
        _ => false,
    }
}
