#![doc = include_str!("../../../testdata/rules/health-check-slower-than-interval/README.md")]

use super::Severity;
use super::object::{duration, inside, items};
use super::rule::{Answer, Check, Look, Rule};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-R11",
    name: "health-check-slower-than-interval",
    severity: Severity::Medium,
    kinds: &["MeshHealthCheck", "HealthCheck"],
    summary: "a health check cannot say what it is asked",
    explanation: include_str!("../../../testdata/rules/health-check-slower-than-interval/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    if look.object.kind == "HealthCheck" {
        return check_one(look, answer, "conf", inside(look.object.spec, &["conf"]));
    }
    for (t, to) in items(look.object.spec, "to").iter().enumerate() {
        check_one(look, answer, &format!("to[{t}].default"), inside(to, &["default"]));
    }
}

fn check_one(look: &Look<'_>, answer: &mut Answer, at: &str, conf: &Value) {
    let (timeout, interval) = (inside(conf, &["timeout"]), inside(conf, &["interval"]));
    if let (Some(wait), Some(every)) = (duration(timeout), duration(interval))
        && wait >= every
        && every > 0
    {
        let show = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let message = format!("waits {} for an answer and asks every {}", show(timeout), show(interval));
        let finding = RULE.at(look.field(format_args!("{at}.timeout")), message);
        answer.found(
            finding.help("keep the timeout below the interval, so that a slow answer counts before the next check"),
        );
    }
    let statuses = inside(conf, &["http", "expectedStatuses"]);
    if statuses.as_array().is_some_and(Vec::is_empty) {
        let field = look.field(format_args!("{at}.http.expectedStatuses"));
        let message = "an empty list of statuses means 200 alone";
        answer.found(RULE.at(field, message).help("list the statuses that mean healthy, or leave the field out"));
    }
}
