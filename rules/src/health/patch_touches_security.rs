#![doc = include_str!("../../../testdata/rules/patch-touches-security/README.md")]

use super::Severity;
use super::object::{inside, items, text};
use super::rule::{Answer, Check, Look, Rule};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-S18",
    name: "patch-touches-security",
    severity: Severity::High,
    kinds: &["MeshProxyPatch", "ProxyTemplate"],
    summary: "a raw Envoy patch changes what keeps the mesh closed",
    explanation: include_str!("../../../testdata/rules/patch-touches-security/README.md"),
    check: Check::Object(check),
};

/// Words of Envoy's configuration, lower case and without underscores, and what they are about.
const WATCHED: &[(&str, &str)] = &[
    ("transportsocket", "TLS"),
    ("tlscontext", "TLS"),
    ("filters.http.rbac", "RBAC"),
    ("filters.network.rbac", "RBAC"),
    ("filterchain", "filter chains"),
    ("listenerfilter", "listener filters"),
];

fn check(look: &Look<'_>, answer: &mut Answer) {
    if look.object.is_shadow() {
        return answer.not_applicable();
    }
    let (at, patches) = match look.object.kind {
        "ProxyTemplate" => ("conf.modifications", items(inside(look.object.spec, &["conf"]), "modifications")),
        _ => ("default.appendModifications", items(inside(look.object.spec, &["default"]), "appendModifications")),
    };
    for (p, patch) in patches.iter().enumerate() {
        for part in ["cluster", "listener", "networkFilter", "httpFilter", "virtualHost"] {
            let Some(change) = patch.get(part) else { continue };
            let operation = text(change, "operation");
            let removed = match (part, operation) {
                ("listener", "Remove" | "remove") => Some("listeners and the filters on them"),
                // Without a name it is every filter, the one that authorises too.
                ("networkFilter" | "httpFilter", "Remove" | "remove")
                    if text(inside(change, &["match"]), "name").is_empty() =>
                {
                    Some("every filter, RBAC too")
                }
                _ => None,
            };
            let field = look.field(format_args!("{at}[{p}].{part}"));
            if let Some(what) = removed {
                answer.found(RULE.at(field, format!("removes {what}")).help(REMEDY));
            } else if let Some(what) = touched(change) {
                let verb = if operation.eq_ignore_ascii_case("remove") { "removes" } else { "changes" };
                answer.found(RULE.at(field, format!("{verb} {what}")).help(REMEDY));
            }
        }
    }
}

const REMEDY: &str =
    "use MeshTLS, MeshTrafficPermission or MeshPassthrough; if nothing else will do, have it reviewed as code";

fn touched(value: &Value) -> Option<&'static str> {
    match value {
        Value::String(text) => {
            let plain: String = text.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect();
            WATCHED.iter().find(|(word, _)| plain.contains(word)).map(|(_, what)| *what)
        }
        Value::Array(items) => items.iter().find_map(touched),
        Value::Object(map) => map.values().find_map(touched),
        _ => None,
    }
}
