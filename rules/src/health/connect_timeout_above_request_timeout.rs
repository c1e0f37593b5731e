#![doc = include_str!("../../../testdata/rules/connect-timeout-above-request-timeout/README.md")]

use super::Severity;
use super::object::{duration, inside, items};
use super::rule::{Answer, Check, Look, Rule};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-R19",
    name: "connect-timeout-above-request-timeout",
    severity: Severity::High,
    kinds: &["MeshTimeout", "Timeout"],
    summary: "connecting may take longer than the whole request",
    explanation: include_str!("../../../testdata/rules/connect-timeout-above-request-timeout/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    let spec = look.object.spec;
    if look.object.kind == "Timeout" {
        let conf = inside(spec, &["conf"]);
        return check_one(look, answer, "conf.connectTimeout", inside(conf, &["connectTimeout"]), conf);
    }
    for list in ["to", "from", "rules"] {
        for (i, item) in items(spec, list).iter().enumerate() {
            let conf = inside(item, &["default"]);
            let at = format!("{list}[{i}].default.connectionTimeout");
            check_one(look, answer, &at, inside(conf, &["connectionTimeout"]), conf);
        }
    }
}

/// Both are written in one place; what another policy may merge in is not guessed.
fn check_one(look: &Look<'_>, answer: &mut Answer, at: &str, connect: &Value, conf: &Value) {
    let request = inside(conf, &["http", "requestTimeout"]);
    let (Some(connects), Some(ends)) = (duration(connect), duration(request)) else { return };
    if ends > 0 && connects > ends {
        let show = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let message = format!("connecting may take {}, the request ends after {}", show(connect), show(request));
        let finding = RULE.at(look.field(format_args!("{at}")), message);
        answer.found(
            finding
                .help("set the connect timeout well below the request timeout, or requests fail without a second try"),
        );
    }
}
