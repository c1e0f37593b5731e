#![doc = include_str!("../../../testdata/rules/fault-injection-active/README.md")]

use super::Severity;
use super::object::{inside, items};
use super::rule::{Answer, Check, Look, Rule};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-R14",
    name: "fault-injection-active",
    severity: Severity::High,
    kinds: &["MeshFaultInjection", "FaultInjection"],
    summary: "faults are injected outside a test environment",
    explanation: include_str!("../../../testdata/rules/fault-injection-active/README.md"),
    check: Check::Object(check),
};

/// Where faults are welcome.
const ENVIRONMENTS: &[&str] = &["dev", "development", "test", "testing", "staging", "load-test", "chaos", "sandbox"];

fn check(look: &Look<'_>, answer: &mut Answer) {
    if look.object.is_shadow() {
        return answer.not_applicable();
    }
    let environment = look.object.note("sluice.dev/environment");
    if ENVIRONMENTS.contains(&environment) {
        return;
    }
    let mut fault = |at: String, faults: &Value| {
        // One percentage of two places: each fault of the newer kind has its own, the older ones share one section.
        for kind in ["abort", "delay", "responseBandwidth"] {
            let share = percentage(inside(faults, &[kind, "percentage"]));
            if share > 0.0 {
                let field = look.field(format_args!("{at}.{kind}.percentage"));
                let message = format!("{share} % of requests get an injected {}", word(kind));
                let help = "remove it, or label the policy sluice.dev/environment: staging where faults are welcome";
                answer.found(RULE.at(field, message).help(help));
            }
        }
    };
    if look.object.kind == "FaultInjection" {
        return fault("conf".to_owned(), inside(look.object.spec, &["conf"]));
    }
    for list in ["from", "to", "rules"] {
        for (i, item) in items(look.object.spec, list).iter().enumerate() {
            for (h, faults) in items(inside(item, &["default"]), "http").iter().enumerate() {
                fault(format!("{list}[{i}].default.http[{h}]"), faults);
            }
        }
    }
}

fn word(kind: &str) -> &'static str {
    match kind {
        "abort" => "error",
        "delay" => "delay",
        _ => "bandwidth limit",
    }
}

/// A number, or a decimal in quotes, as Kuma takes both.
fn percentage(value: &Value) -> f64 {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    number.filter(|number| number.is_finite()).unwrap_or_default()
}
