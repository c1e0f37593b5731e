#![doc = include_str!("../../../testdata/rules/backends-serve-nobody/README.md")]

use super::object::{get, inside, items, text};
use super::reference::{Backend, Target, called, is_catch_all};
use super::rule::{Answer, Check, Look, Rule};
use super::{Finding, Severity};
use crate::field::FieldPath;
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-T05",
    name: "backends-serve-nobody",
    severity: Severity::Medium,
    kinds: &["MeshHTTPRoute", "MeshTCPRoute", "TrafficRoute"],
    summary: "weights send traffic to nobody",
    explanation: include_str!("../../../testdata/rules/backends-serve-nobody/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    if look.object.kind == "TrafficRoute" {
        return by_tags(look, answer);
    }
    let same_rule =
        |one: &Backend<'_>, other: &Backend<'_>| (one.place.0, one.place.1) == (other.place.0, other.place.1);
    for backends in look.backends.chunk_by(same_rule) {
        check_rule(look, answer, backends);
    }
}

fn check_rule(look: &Look<'_>, answer: &mut Answer, backends: &[Backend<'_>]) {
    let Some(Backend { place: (t, r, _), rule, .. }) = backends.first() else { return };
    let filters = items(inside(rule, &["default"]), "filters");
    if filters.iter().any(|filter| text(filter, "type") == "RequestRedirect") {
        return;
    }
    let at = |rest: std::fmt::Arguments<'_>| look.field(format_args!("to[{t}].rules[{r}].default.backendRefs{rest}"));
    let mut sum = 0_u64;
    for Backend { place: (_, _, b), reference, target, .. } in backends {
        // A weight that is no whole number is refused elsewhere.
        let Some(weight) = weight(reference) else { return };
        sum = sum.saturating_add(weight);
        if weight > 0
            && let Target::Service(service, _) = target
            && service.proxies == Some(0)
        {
            let message = format!("no proxy serves {}, which has a weight above 0", called(reference));
            let help = "wait until its pods are ready, or give it weight 0";
            answer.found(RULE.at(at(format_args!("[{b}].weight")), message).help(help));
        }
    }
    if sum == 0 {
        let message = format!("every weight is 0: {}", consequence(look, rule));
        answer.found(RULE.at(at(format_args!("")), message).help("give at least one backend a weight above 0"));
    } else if sum > MOST {
        answer.found(too_large(at(format_args!("")), sum));
    }
}

/// What Envoy takes as the sum of the weights of one rule.
const MOST: u64 = u32::MAX as u64;

fn too_large(field: FieldPath, sum: u64) -> Finding {
    let message = format!("the weights add up to {sum}, Envoy takes no more than {MOST}");
    RULE.at(field, message).help("use smaller numbers: only their ratio counts")
}

/// All weights 0 is what Kuma refuses in a legacy route; a sum that does not fit it lets through.
fn by_tags(look: &Look<'_>, answer: &mut Answer) {
    let conf = inside(look.object.spec, &["conf"]);
    let sum = |place: &Value| items(place, "split").iter().filter_map(weight).fold(0, u64::saturating_add);
    for (h, http) in items(conf, "http").iter().enumerate().filter(|(_, http)| sum(http) > MOST) {
        answer.found(too_large(look.field(format_args!("conf.http[{h}].split")), sum(http)));
    }
    if sum(conf) > MOST {
        answer.found(too_large(look.field(format_args!("conf.split")), sum(conf)));
    }
}

/// Seen on a running mesh of 2.14; for 3.0 as its control plane builds it.
fn consequence(look: &Look<'_>, rule: &Value) -> &'static str {
    match (look.is_3_0(), is_catch_all(rule)) {
        (true, _) if look.object.kind == "MeshTCPRoute" => "its connections lead nowhere",
        (true, _) => "each of its requests is answered with 500",
        (false, true) => "callers lose the listener, connections are refused",
        (false, false) => "Kuma skips the rule, the next one or the destination itself answers",
    }
}

fn weight(backend: &Value) -> Option<u64> {
    match get(backend, "weight") {
        None | Some(Value::Null) => Some(1),
        Some(weight) => weight.as_u64(),
    }
}
