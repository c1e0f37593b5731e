#![doc = include_str!("../../../testdata/rules/traffic-leaves-mesh/README.md")]

use super::Severity;
use super::object::{inside, items, text};
use super::reference::called;
use super::rule::{Answer, Check, Look, Rule, quoted};

pub(super) const RULE: Rule = Rule {
    id: "KMH-T08",
    name: "traffic-leaves-mesh",
    severity: Severity::Low,
    kinds: &["MeshHTTPRoute"],
    summary: "a mirror or redirect sends traffic out of the mesh",
    explanation: include_str!("../../../testdata/rules/traffic-leaves-mesh/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    for (t, to) in items(look.object.spec, "to").iter().enumerate() {
        for (r, rule) in items(to, "rules").iter().enumerate() {
            for (f, filter) in items(inside(rule, &["default"]), "filters").iter().enumerate() {
                let at = format_args!("to[{t}].rules[{r}].default.filters[{f}]").to_string();
                match text(filter, "type") {
                    "RequestMirror" => {
                        let backend = inside(filter, &["requestMirror", "backendRef"]);
                        if text(backend, "kind") == "MeshExternalService" {
                            let field = look.field(format_args!("{at}.requestMirror.backendRef"));
                            let message = format!("copies of requests go to {}, outside", called(backend));
                            answer.found(
                                RULE.at(field, message)
                                    .help("mirror to a service of the mesh, or remove what is private first"),
                            );
                        }
                    }
                    "RequestRedirect" => {
                        let host = text(inside(filter, &["requestRedirect"]), "hostname");
                        if !host.is_empty() && !is_inside(host) {
                            let field = look.field(format_args!("{at}.requestRedirect.hostname"));
                            let message =
                                format!("callers are sent to {}, past the policies of the mesh", quoted(host));
                            answer.found(
                                RULE.at(field, message)
                                    .help("redirect to a host of the mesh, or declare it as MeshExternalService"),
                            );
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Host names that generators and Kubernetes give.
fn is_inside(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    !host.contains('.')
        || [".mesh", ".mesh.local", ".svc", ".cluster.local", ".local"].iter().any(|end| host.ends_with(end))
}
