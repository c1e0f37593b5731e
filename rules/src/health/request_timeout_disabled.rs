#![doc = include_str!("../../../testdata/rules/request-timeout-disabled/README.md")]

use super::Severity;
use super::object::{duration, inside, items, text};
use super::reference::called;
use super::rule::{Answer, Check, Look, Rule};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-R01",
    name: "request-timeout-disabled",
    severity: Severity::Medium,
    kinds: &["MeshTimeout", "Timeout"],
    summary: "a request may wait for ever",
    explanation: include_str!("../../../testdata/rules/request-timeout-disabled/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    let spec = look.object.spec;
    let mut look_at = |place: String, timeout: &Value, whose: &str| {
        if duration(timeout) == Some(0) {
            let message = format!("0 switches the request timeout{whose} off");
            let field = look.field(format_args!("{place}.requestTimeout"));
            let help = "set it above the slowest answer that is still of use; bound streams with streamIdleTimeout";
            answer.found(RULE.at(field, message).help(help));
        }
    };
    if look.object.kind == "Timeout" {
        // The legacy kind has one section for clients, and both names of the field.
        return look_at("conf.http".to_owned(), inside(spec, &["conf", "http", "requestTimeout"]), "");
    }
    // Servers have none by default (`from`, `rules`): the caller's timeout is the one that counts.
    for (t, to) in items(spec, "to").iter().enumerate() {
        let whose = match inside(to, &["targetRef"]) {
            target if text(target, "kind") == "Mesh" => " to every service".to_owned(),
            target => format!(" to {}", called(target)),
        };
        look_at(format!("to[{t}].default.http"), inside(to, &["default", "http", "requestTimeout"]), &whose);
    }
}
