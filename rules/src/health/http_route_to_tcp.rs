#![doc = include_str!("../../../testdata/rules/http-route-to-tcp/README.md")]

use super::Severity;
use super::known::{Port, Service};
use super::object::{inside, items};
use super::reference::{Backend, Role, Target, called, follow};
use super::rule::{Answer, Check, Look, Rule};

pub(super) const RULE: Rule = Rule {
    id: "KMH-T07",
    name: "http-route-to-tcp",
    severity: Severity::Medium,
    kinds: &["MeshHTTPRoute"],
    summary: "an HTTP route names a port that does not speak HTTP",
    explanation: include_str!("../../../testdata/rules/http-route-to-tcp/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    for (t, to) in items(look.object.spec, "to").iter().enumerate() {
        let target = inside(to, &["targetRef"]);
        if let Target::Service(service, port) = follow(look, target, Role::Destination)
            && !speaks_http(service, port)
        {
            let field = look.field(format_args!("to[{t}].targetRef"));
            let message = format!("{} has no HTTP port: the route has no effect", called(target));
            answer.found(RULE.at(field, message).help(REMEDY));
        }
    }
    for Backend { place: (t, r, b), reference, target, .. } in &look.backends {
        let Target::Service(service, port) = target else { continue };
        if speaks_http(service, *port) {
            continue;
        }
        let field = look.field(format_args!("to[{t}].rules[{r}].default.backendRefs[{b}]"));
        let consequence = match look.is_3_0() {
            true => "its share is answered with 500",
            false => "its share goes to the other backends without a word",
        };
        let message = format!("{} does not speak HTTP there: {consequence}", called(reference));
        answer.found(RULE.at(field, message).help(REMEDY));
    }
}

const REMEDY: &str = "set appProtocol: http (http2, grpc) on the service's port, or use a MeshTCPRoute";

fn speaks_http(service: &Service, port: Option<&Port>) -> bool {
    // A service that lists no ports says nothing about them.
    service.ports.is_empty() || port.map_or_else(|| service.ports.iter().any(|port| port.http), |port| port.http)
}
