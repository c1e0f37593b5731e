#![doc = include_str!("../../../testdata/rules/field-without-effect/README.md")]

use super::Severity;
use super::object::{inside, items, text};
use super::rule::{Answer, Check, Look, Rule, quoted};
use crate::field::FieldPath;
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-O06",
    name: "field-without-effect",
    severity: Severity::Medium,
    kinds: &[
        "CircuitBreaker",
        "ExternalService",
        "FaultInjection",
        "HealthCheck",
        "Mesh",
        "MeshAccessLog",
        "MeshCircuitBreaker",
        "MeshFaultInjection",
        "MeshGateway",
        "MeshGatewayConfig",
        "MeshGatewayInstance",
        "MeshGatewayRoute",
        "MeshHTTPRoute",
        "MeshHealthCheck",
        "MeshLoadBalancingStrategy",
        "MeshMetric",
        "MeshPassthrough",
        "MeshProxyPatch",
        "MeshRateLimit",
        "MeshRetry",
        "MeshService",
        "MeshTCPRoute",
        "MeshTLS",
        "MeshTimeout",
        "MeshTrace",
        "MeshTrafficPermission",
        "ProxyTemplate",
        "RateLimit",
        "Retry",
        "Timeout",
        "TrafficLog",
        "TrafficPermission",
        "TrafficRoute",
        "TrafficTrace",
        "VirtualOutbound",
        "ZoneEgress",
        "ZoneIngress",
    ],
    summary: "the control plane ignores what is written here",
    explanation: include_str!("../../../testdata/rules/field-without-effect/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    if matches!(look.object.kind, "MeshHTTPRoute" | "MeshTCPRoute") {
        unknown_in_route(look, answer);
    }
    if look.is_3_0() {
        gone_in_3_0(look, answer);
    }
}

/// The kinds that 3.0 does not have.
pub(super) const GONE: &[&str] = &[
    "CircuitBreaker",
    "ExternalService",
    "FaultInjection",
    "HealthCheck",
    "MeshGateway",
    "MeshGatewayConfig",
    "MeshGatewayInstance",
    "MeshGatewayRoute",
    "ProxyTemplate",
    "RateLimit",
    "Retry",
    "Timeout",
    "TrafficLog",
    "TrafficPermission",
    "TrafficRoute",
    "TrafficTrace",
    "VirtualOutbound",
    "ZoneEgress",
    "ZoneIngress",
];

fn gone_in_3_0(look: &Look<'_>, answer: &mut Answer) {
    let (kind, spec) = (look.object.kind, look.object.spec);
    if GONE.contains(&kind) {
        let finding = RULE.at(look.object.kind_field(), format!("{kind} does not exist in 3.0"));
        return answer.found(finding.help("migrate it while 2.14 is in use; see KMH-O09"));
    }
    let mut gone = |at: FieldPath, what: &str, help: &str| {
        answer.found(RULE.at(at, format!("3.0 drops {what}")).help(help));
    };
    if kind == "Mesh" {
        let kept = [
            "type",
            "name",
            "mesh",
            "labels",
            "creationTime",
            "modificationTime",
            "kri",
            "skipCreatingInitialPolicies",
        ];
        for (key, _) in spec
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| !kept.contains(&key.as_str()) && !value.is_null())
        {
            let help = match key.as_str() {
                "mtls" => "use MeshIdentity and MeshTrust, and MeshTLS for strictness",
                "metrics" => "use MeshMetric",
                "logging" => "use MeshAccessLog",
                "tracing" => "use MeshTrace",
                _ => "remove it",
            };
            gone(look.field(format_args!("")).key(key.clone()), &format!("{} without a word", quoted(key)), help);
        }
        return;
    }
    if !items(spec, "from").is_empty() {
        gone(look.field(format_args!("from")), "`from` without a word", "write `rules` with spiffeID matches");
    }
    if kind == "MeshService" && spec.get("selector").is_some_and(|selector| selector.get("dataplaneTags").is_some()) {
        gone(
            look.field(format_args!("selector.dataplaneTags")),
            "`dataplaneTags` without a word",
            "select by `dataplaneLabels`",
        );
    }
    let target = inside(spec, &["targetRef"]);
    for key in OLD_TARGET.iter().filter(|key| target.get(**key).is_some_and(is_set)) {
        // The policy then applies to more than it says.
        let wider = if text(target, "kind") == "Dataplane" { ": the policy selects every Dataplane" } else { "" };
        gone(
            look.field(format_args!("targetRef.{key}")),
            &format!("`{key}` of a targetRef{wider}"),
            "select by labels",
        );
    }
    for (t, to) in items(spec, "to").iter().enumerate() {
        let target = inside(to, &["targetRef"]);
        for key in OLD_TARGET.iter().filter(|key| target.get(**key).is_some_and(is_set)) {
            gone(
                look.field(format_args!("to[{t}].targetRef.{key}")),
                &format!("`{key}` of a targetRef"),
                "select by labels",
            );
        }
        if inside(to, &["default"]).get("healthyPanicThreshold").is_some() && kind == "MeshHealthCheck" {
            let help = "use outlierDetection.healthyPanicThreshold of MeshCircuitBreaker";
            gone(
                look.field(format_args!("to[{t}].default.healthyPanicThreshold")),
                "`healthyPanicThreshold` without a word",
                help,
            );
        }
        for (r, rule) in items(to, "rules").iter().enumerate() {
            for (b, backend) in items(inside(rule, &["default"]), "backendRefs").iter().enumerate() {
                for key in OLD_TARGET.iter().filter(|key| backend.get(**key).is_some_and(is_set)) {
                    let at = look.field(format_args!("to[{t}].rules[{r}].default.backendRefs[{b}].{key}"));
                    gone(at, &format!("`{key}` of a backendRef"), "select by labels");
                }
            }
        }
    }
}

/// What a targetRef had before 3.0.
const OLD_TARGET: &[&str] = &["name", "namespace", "tags", "mesh", "proxyTypes"];

fn is_set(value: &Value) -> bool {
    !matches!(value, Value::Null) && value.as_str() != Some("")
}

const TARGET: &[&str] = &["kind", "name", "namespace", "labels", "tags", "mesh", "sectionName", "proxyTypes"];
const BACKEND: &[&str] =
    &["kind", "name", "namespace", "labels", "tags", "mesh", "sectionName", "proxyTypes", "port", "weight"];

/// A misspelt field is stored without a word: `wieght: 10` is weight 1.
fn unknown_in_route(look: &Look<'_>, answer: &mut Answer) {
    let spec = look.object.spec;
    let http = look.object.kind == "MeshHTTPRoute";
    let mut keys = |at: &dyn Fn() -> String, value: &Value, known: &[&str]| {
        for (key, _) in value.as_object().into_iter().flatten().filter(|(key, _)| !known.contains(&key.as_str())) {
            let field = look.field(format_args!("{}", at())).key(key.clone());
            let help = format!("the fields here are {}", known.join(", "));
            answer.found(RULE.at(field, format!("{} has no such field: {}", look.object.kind, quoted(key))).help(help));
        }
    };
    keys(&String::new, spec, &["targetRef", "to"]);
    keys(&|| "targetRef".to_owned(), inside(spec, &["targetRef"]), TARGET);
    let (in_to, in_rule): (&[&str], &[&str]) = match http {
        true => (&["targetRef", "hostnames", "rules"], &["matches", "default"]),
        false => (&["targetRef", "rules"], &["default"]),
    };
    let in_default: &[&str] = if http { &["filters", "backendRefs"] } else { &["backendRefs"] };
    for (t, to) in items(spec, "to").iter().enumerate() {
        keys(&|| format!("to[{t}]"), to, in_to);
        keys(&|| format!("to[{t}].targetRef"), inside(to, &["targetRef"]), TARGET);
        for (r, rule) in items(to, "rules").iter().enumerate() {
            let at = |end: &str| format!("to[{t}].rules[{r}]{end}");
            keys(&|| at(""), rule, in_rule);
            for (m, one) in items(rule, "matches").iter().enumerate() {
                keys(&|| at(&format!(".matches[{m}]")), one, &["path", "method", "headers", "queryParams"]);
            }
            let conf = inside(rule, &["default"]);
            keys(&|| at(".default"), conf, in_default);
            for (b, backend) in items(conf, "backendRefs").iter().enumerate() {
                keys(&|| at(&format!(".default.backendRefs[{b}]")), backend, BACKEND);
            }
        }
    }
}
