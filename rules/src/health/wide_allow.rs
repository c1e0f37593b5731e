#![doc = include_str!("../../../testdata/rules/wide-allow/README.md")]

use super::object::{inside, items, text};
use super::rule::{Answer, Check, Look, Rule, quoted};
use super::{Finding, Severity};

pub(super) const RULE: Rule = Rule {
    id: "KMH-S05",
    name: "wide-allow",
    severity: Severity::High,
    kinds: &["MeshTrafficPermission", "TrafficPermission"],
    summary: "everybody in the mesh may call",
    explanation: include_str!("../../../testdata/rules/wide-allow/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    if look.object.is_shadow() {
        return answer.not_applicable();
    }
    match look.object.kind {
        "TrafficPermission" => by_tags(look, answer),
        _ => {
            by_identity(look, answer);
            by_client(look, answer);
        }
    }
}

const REMEDY: &str = "allow the callers that exist, each by its exact identity, and remove this one";

fn by_identity(look: &Look<'_>, answer: &mut Answer) {
    for (r, rule) in items(look.object.spec, "rules").iter().enumerate() {
        for list in ["allow", "allowWithShadowDeny"] {
            for (m, one) in items(inside(rule, &["default"]), list).iter().enumerate() {
                let id = inside(one, &["spiffeID"]);
                if text(id, "type") != "Prefix" {
                    continue;
                }
                // Envoy compares the text: without a path, longer trust domains that begin alike are let in too.
                let value = text(id, "value");
                let domain = value.strip_prefix("spiffe://").unwrap_or(value).trim_end_matches('/');
                if domain.contains('/') {
                    continue;
                }
                let field = look.field(format_args!("rules[{r}].default.{list}[{m}].spiffeID.value"));
                let message = format!(
                    "{} lets in every identity of the trust domain, and of any that begins alike",
                    quoted(value)
                );
                answer.found(shaded(RULE.at(field, message).help(REMEDY), list == "allowWithShadowDeny"));
            }
        }
    }
}

fn by_client(look: &Look<'_>, answer: &mut Answer) {
    for (f, from) in items(look.object.spec, "from").iter().enumerate() {
        let target = inside(from, &["targetRef"]);
        let everybody = match text(target, "kind") {
            "Mesh" => true,
            "MeshSubset" => inside(target, &["tags"]).as_object().is_none_or(|tags| tags.is_empty()),
            _ => false,
        };
        let action = text(inside(from, &["default"]), "action");
        if everybody && matches!(action, "Allow" | "AllowWithShadowDeny") {
            let field = look.field(format_args!("from[{f}].default.action"));
            let finding = RULE.at(field, "any client of the mesh may call").help(REMEDY);
            answer.found(shaded(finding, action == "AllowWithShadowDeny"));
        }
    }
}

fn by_tags(look: &Look<'_>, answer: &mut Answer) {
    for (s, source) in items(look.object.spec, "sources").iter().enumerate() {
        let tags = inside(source, &["match"]).as_object();
        if tags.is_some_and(|tags| !tags.is_empty() && tags.values().all(|value| value == "*")) {
            let field = look.field(format_args!("sources[{s}].match"));
            answer.found(RULE.at(field, "any client of the mesh may call").help(REMEDY));
        }
    }
}

/// A shadow deny is how a wide permission is narrowed: it still lets in, and somebody is at work on it.
fn shaded(finding: Finding, shadow: bool) -> Finding {
    if shadow { finding.only(Severity::Low) } else { finding }
}
