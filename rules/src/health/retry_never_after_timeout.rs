#![doc = include_str!("../../../testdata/rules/retry-never-after-timeout/README.md")]

use super::Severity;
use super::object::{duration, inside, items};
use super::rule::{Answer, Check, Look, Rule};

pub(super) const RULE: Rule = Rule {
    id: "KMH-R02",
    name: "retry-never-after-timeout",
    severity: Severity::Medium,
    kinds: &["MeshRetry"],
    summary: "a try that times out is never tried again",
    explanation: include_str!("../../../testdata/rules/retry-never-after-timeout/README.md"),
    check: Check::Object(check),
};

/// What the control plane takes when no `MeshTimeout` says anything.
const DEFAULT: u64 = 15_000_000_000;

fn check(look: &Look<'_>, answer: &mut Answer) {
    let mut any = false;
    for (t, to) in items(look.object.spec, "to").iter().enumerate() {
        let target = inside(to, &["targetRef"]);
        let known = look.known.request_timeout(look.object.mesh, target, look.object.namespace);
        for protocol in ["http", "grpc"] {
            let written = inside(to, &["default", protocol, "perTryTimeout"]);
            let Some(per_try) = duration(written).filter(|per_try| *per_try > 0) else { continue };
            any = true;
            if per_try < known.unwrap_or(DEFAULT) {
                continue;
            }
            let field = look.field(format_args!("to[{t}].default.{protocol}.perTryTimeout"));
            let limit = known.unwrap_or(DEFAULT) as f64 / 1e9;
            let tried = written.as_str().unwrap_or_default();
            let message = format!("one try may take {tried}, the whole request {limit} s: it ends before a second try");
            let finding = RULE.at(field, message).help(format!("set it below {limit} s, or raise the request timeout"));
            // The retry policy that every mesh is born with does this, and without a known timeout it is a guess.
            let guess = known.is_none() || is_shipped(look);
            answer.found(if guess { finding.only(Severity::Info) } else { finding });
        }
    }
    if !any {
        answer.not_applicable();
    }
}

fn is_shipped(look: &Look<'_>) -> bool {
    look.object.name.strip_prefix("mesh-retry-all-") == Some(look.object.mesh)
}
