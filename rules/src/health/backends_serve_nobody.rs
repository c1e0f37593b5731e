#![doc = include_str!("../../../testdata/rules/backends-serve-nobody/README.md")]

use super::Severity;
use super::object::{inside, items, text};
use super::reference::{Role, Target, called, follow, is_catch_all};
use super::rule::{Answer, Look, Rule};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-T05",
    name: "backends-serve-nobody",
    severity: Severity::Medium,
    kinds: &["MeshHTTPRoute", "MeshTCPRoute"],
    summary: "weights send traffic to nobody",
    explanation: include_str!("../../../testdata/rules/backends-serve-nobody/README.md"),
    check,
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    for (t, to) in items(look.object.spec, "to").iter().enumerate() {
        for (r, rule) in items(to, "rules").iter().enumerate() {
            let conf = inside(rule, &["default"]);
            let backends = items(conf, "backendRefs");
            let redirects = items(conf, "filters").iter().any(|filter| text(filter, "type") == "RequestRedirect");
            if !backends.is_empty() && !redirects {
                check_rule(look, answer, (t, r), rule, backends);
            }
        }
    }
}

fn check_rule(look: &Look<'_>, answer: &mut Answer, (t, r): (usize, usize), rule: &Value, backends: &[Value]) {
    let place =
        |rest: std::fmt::Arguments<'_>| look.field(format_args!("to[{t}].rules[{r}].default.backendRefs{rest}"));
    let mut sum = 0_u64;
    for (b, backend) in backends.iter().enumerate() {
        // A weight that is no whole number is refused elsewhere.
        let Some(weight) = weight(backend) else { return };
        sum = sum.saturating_add(weight);
        if weight > 0
            && let Target::Service(service, _) = follow(look, backend, Role::Backend)
            && service.proxies == Some(0)
        {
            let message = format!("no proxy serves {}, which has weight {weight}", called(backend));
            let help = "wait until its pods are ready, or give it weight 0";
            answer.found(RULE.at(place(format_args!("[{b}].weight")), message).help(help));
        }
    }
    if sum == 0 {
        let message = format!("every weight is 0: {}", consequence(look, rule));
        answer.found(RULE.at(place(format_args!("")), message).help("give at least one backend a weight above 0"));
    } else if sum > u64::from(u32::MAX) {
        let message = format!("the weights add up to {sum}, Envoy takes no more than {}", u32::MAX);
        answer.found(RULE.at(place(format_args!("")), message).help("use smaller numbers: only their ratio counts"));
    }
}

/// Seen on a running mesh of 2.14; for 3.0 as its control plane builds it.
fn consequence(look: &Look<'_>, rule: &Value) -> &'static str {
    match (look.is_3_0(), is_catch_all(rule)) {
        (true, _) => "each of its requests is answered with 500",
        (false, true) => "callers lose the listener, connections are refused",
        (false, false) => "Kuma skips the rule, the next one or the destination itself answers",
    }
}

fn weight(backend: &Value) -> Option<u64> {
    match backend.get("weight") {
        None | Some(Value::Null) => Some(1),
        Some(weight) => weight.as_u64(),
    }
}
