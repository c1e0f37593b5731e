#![doc = include_str!("../../../testdata/rules/deprecated-dialect/README.md")]

use super::Severity;
use super::object::{inside, items, text};
use super::rule::{Answer, Check, Look, Rule, quoted};

pub(super) const RULE: Rule = Rule {
    id: "KMH-O09",
    name: "deprecated-dialect",
    severity: Severity::Medium,
    kinds: &[
        "CircuitBreaker",
        "FaultInjection",
        "HealthCheck",
        "MeshAccessLog",
        "MeshCircuitBreaker",
        "MeshFaultInjection",
        "MeshHTTPRoute",
        "MeshHealthCheck",
        "MeshLoadBalancingStrategy",
        "MeshMetric",
        "MeshPassthrough",
        "MeshProxyPatch",
        "MeshRateLimit",
        "MeshRetry",
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
    ],
    summary: "3.0 will not read this, and there is a replacement",
    explanation: include_str!("../../../testdata/rules/deprecated-dialect/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    // In 3.0 it is not old but gone, which KMH-O06 says.
    if look.is_3_0() {
        return answer.not_applicable();
    }
    let (kind, spec) = (look.object.kind, look.object.spec);
    if let Some(successor) = successor(kind) {
        let finding = RULE.at(look.object.kind_field(), format!("{kind} is gone in 3.0"));
        // It works as it did for as long as 2.14 does: less pressing than a dialect that a newer kind still carries.
        return answer.found(finding.help(format!("write it as {successor}")).only(Severity::Low));
    }
    // Two sections that every mesh is born with; the control plane itself will migrate them.
    let shipped = ["mesh-timeout-all-", "mesh-gateways-timeout-all-"]
        .iter()
        .any(|prefix| look.object.name.strip_prefix(prefix) == Some(look.object.mesh));
    if !items(spec, "from").is_empty() && !shipped {
        let finding = RULE.at(look.field(format_args!("from")), "`from` is gone in 3.0");
        answer.found(
            finding.help("write `rules` with spiffeID matches: `from` selects by tags, which 3.0 does not have"),
        );
    }
    let target = text(inside(spec, &["targetRef"]), "kind");
    if matches!(target, "MeshService" | "MeshServiceSubset" | "MeshSubset") {
        let finding =
            RULE.at(look.field(format_args!("targetRef.kind")), format!("{} selects by tags", quoted(target)));
        answer.found(finding.help("use kind Dataplane with labels"));
    } else if target == "MeshHTTPRoute" {
        let field = look.field(format_args!("targetRef.kind"));
        let finding = RULE.at(field, "a route at the top of a policy is gone in 3.0");
        answer.found(finding.help("name the route in to[].targetRef"));
    }
    for (t, to) in items(spec, "to").iter().enumerate() {
        if kind == "MeshHealthCheck" && inside(to, &["default"]).get("healthyPanicThreshold").is_some() {
            let field = look.field(format_args!("to[{t}].default.healthyPanicThreshold"));
            let finding = RULE.at(field, "`healthyPanicThreshold` has moved");
            answer.found(finding.help("use outlierDetection.healthyPanicThreshold of MeshCircuitBreaker"));
        }
    }
    endpoints(look, answer);
}

/// OpenTelemetry collectors are named once, as a `MeshOpenTelemetryBackend`.
fn endpoints(look: &Look<'_>, answer: &mut Answer) {
    let spec = look.object.spec;
    let mut places = vec![("default".to_owned(), inside(spec, &["default"]))];
    for list in ["to", "from", "rules"] {
        let items = items(spec, list).iter().enumerate();
        places.extend(items.map(|(i, item)| (format!("{list}[{i}].default"), inside(item, &["default"]))));
    }
    for (at, conf) in places {
        for (b, backend) in items(conf, "backends").iter().enumerate() {
            if inside(backend, &["openTelemetry"]).get("endpoint").is_some() {
                let field = look.field(format_args!("{at}.backends[{b}].openTelemetry.endpoint"));
                let finding = RULE.at(field, "an inline `endpoint` is gone in 3.0");
                answer.found(finding.help("declare a MeshOpenTelemetryBackend and name it in `backendRef`"));
            }
        }
    }
}

fn successor(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "CircuitBreaker" => "MeshCircuitBreaker",
        "FaultInjection" => "MeshFaultInjection",
        "HealthCheck" => "MeshHealthCheck",
        "ProxyTemplate" => "MeshProxyPatch",
        "RateLimit" => "MeshRateLimit",
        "Retry" => "MeshRetry",
        "Timeout" => "MeshTimeout",
        "TrafficLog" => "MeshAccessLog",
        "TrafficPermission" => "MeshTrafficPermission",
        "TrafficRoute" => "MeshHTTPRoute or MeshTCPRoute",
        "TrafficTrace" => "MeshTrace",
        _ => return None,
    })
}
