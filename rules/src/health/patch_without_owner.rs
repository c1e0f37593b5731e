#![doc = include_str!("../../../testdata/rules/patch-without-owner/README.md")]

use super::Severity;
use super::object::{inside, items};
use super::rule::{Answer, Check, Look, Rule};

pub(super) const RULE: Rule = Rule {
    id: "KMH-O08",
    name: "patch-without-owner",
    severity: Severity::Low,
    kinds: &["MeshProxyPatch", "ProxyTemplate"],
    summary: "a raw Envoy patch does not say whose it is, why, and until when",
    explanation: include_str!("../../../testdata/rules/patch-without-owner/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    let patches = match look.object.kind {
        "ProxyTemplate" => !items(inside(look.object.spec, &["conf"]), "modifications").is_empty(),
        _ => !items(inside(look.object.spec, &["default"]), "appendModifications").is_empty(),
    };
    if !patches {
        return answer.not_applicable();
    }
    let missing: Vec<_> = ["owner", "reason", "expires"]
        .into_iter()
        .filter(|word| look.object.note(&format!("sluice.dev/{word}")).is_empty())
        .collect();
    if !missing.is_empty() {
        let message = format!("nobody wrote down its {}", missing.join(", "));
        let keys: Vec<_> = missing.iter().map(|word| format!("sluice.dev/{word}")).collect();
        let help = format!("add the labels or annotations {}", keys.join(", "));
        answer.found(RULE.at(look.object.name_field(), message).help(help));
    }
}
