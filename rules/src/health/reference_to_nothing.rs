#![doc = include_str!("../../../testdata/rules/reference-to-nothing/README.md")]

use super::Severity;
use super::known::Wanted;
use super::object::{inside, items, text};
use super::reference::{Backend, Role, Target, called, follow, is_catch_all, tag_parts};
use super::rule::{Answer, Check, Look, Rule, quoted};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-T01",
    name: "reference-to-nothing",
    severity: Severity::High,
    kinds: &[
        "MeshAccessLog",
        "MeshCircuitBreaker",
        "MeshFaultInjection",
        "MeshHTTPRoute",
        "MeshHealthCheck",
        "MeshLoadBalancingStrategy",
        "MeshRateLimit",
        "MeshRetry",
        "MeshTCPRoute",
        "MeshTimeout",
        "TrafficRoute",
    ],
    summary: "a reference leads to nothing",
    explanation: include_str!("../../../testdata/rules/reference-to-nothing/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    if look.object.kind == "TrafficRoute" {
        return by_tags(look, answer);
    }
    for (t, to) in items(look.object.spec, "to").iter().enumerate() {
        destination(look, answer, t, inside(to, &["targetRef"]));
        for (r, rule) in items(to, "rules").iter().enumerate() {
            let conf = inside(rule, &["default"]);
            for (f, filter) in items(conf, "filters").iter().enumerate() {
                let mirror = inside(filter, &["requestMirror", "backendRef"]);
                if let Some((end, problem, help)) = trouble(answer, mirror, &follow(look, mirror, Role::Backend)) {
                    let at = format_args!("to[{t}].rules[{r}].default.filters[{f}].requestMirror.backendRef{end}")
                        .to_string();
                    let message = format!("{problem}: nothing is mirrored");
                    answer.found(RULE.at(look.field(format_args!("{at}")), message).help(help));
                }
            }
        }
    }
    for (b, backend) in look.backends.iter().enumerate() {
        let Some((end, problem, help)) = trouble(answer, backend.reference, &backend.target) else { continue };
        let rule = |other: Option<&Backend<'_>>| other.is_some_and(|other| std::ptr::eq(other.rule, backend.rule));
        let only = !rule(look.backends.get(b + 1)) && !rule(b.checked_sub(1).and_then(|b| look.backends.get(b)));
        let consequence = match backend.target {
            Target::NameIsTag(_) => "callers get 503, or its share goes elsewhere",
            _ => consequence(look, backend.rule, only, end.is_empty() && text(backend.reference, "name").is_empty()),
        };
        let (t, r, b) = backend.place;
        let field = look.field(format_args!("to[{t}].rules[{r}].default.backendRefs[{b}]{end}"));
        answer.found(RULE.at(field, format!("{problem}: {consequence}")).help(help));
        if answer.is_full() {
            return;
        }
    }
}

fn destination(look: &Look<'_>, answer: &mut Answer, t: usize, target: &Value) {
    let at = |end: &str| look.field(format_args!("to[{t}].targetRef{end}"));
    if text(target, "kind") == "MeshHTTPRoute" {
        if let Some(problem) = missing_route(look, answer, target) {
            let finding = RULE.at(at(""), format!("{problem}: this part of the policy has no effect"));
            answer.found(finding.help("correct the reference, or apply the route first"));
        }
    } else if let Some((end, problem, help)) = trouble(answer, target, &follow(look, target, Role::Destination)) {
        let message = format!("{problem}: this part of the policy has no effect");
        answer.found(RULE.at(at(end), message).help(help));
    }
}

type Trouble = (&'static str, String, &'static str);

/// What is wrong with a reference: where below it, in words, and what to do.
fn trouble(answer: &mut Answer, reference: &Value, target: &Target<'_>) -> Option<Trouble> {
    match target {
        Target::Service(..) | Target::NoService => None,
        Target::Unknown => {
            answer.cannot_tell();
            None
        }
        Target::Nothing(problem) => Some(("", problem.clone(), "correct the reference, or apply the service first")),
        Target::NoPort(problem) => {
            let written = [("port", ".port"), ("sectionName", ".sectionName")];
            let end = written.iter().find(|(key, _)| reference.get(*key).is_some()).map_or(".name", |(_, end)| end);
            Some((end, problem.clone(), "use a port that the service has"))
        }
        Target::NameIsTag(problem) => Some((".name", problem.clone(), "write the port of the MeshService")),
    }
}

/// What becomes of the traffic; 2.14 as seen on a running mesh, 3.0 as its control plane builds it.
fn consequence(look: &Look<'_>, rule: &Value, only: bool, by_labels: bool) -> &'static str {
    match (look.is_3_0(), only) {
        (true, true) if look.object.kind == "MeshTCPRoute" => "its connections lead nowhere",
        (true, false) if look.object.kind == "MeshTCPRoute" => "its share of connections leads nowhere",
        (true, true) => "each request of this rule is answered with 500",
        (true, false) => "its share is answered with 500",
        (false, _) if by_labels => "the destination itself answers instead",
        (false, false) => "its share goes to the other backends without a word",
        (false, true) if is_catch_all(rule) => "callers lose the listener, connections are refused",
        (false, true) => "Kuma skips the rule, the next one or the destination itself answers",
    }
}

fn missing_route(look: &Look<'_>, answer: &mut Answer, target: &Value) -> Option<String> {
    let (kind, mesh) = ("MeshHTTPRoute", look.object.mesh);
    let labels = target.get("labels").and_then(Value::as_object).filter(|labels| !labels.is_empty());
    let name = text(target, "name");
    let there = match labels {
        Some(labels) if name.is_empty() => look.known.has_with(kind, mesh, labels),
        _ if name.is_empty() => return None,
        _ => {
            let namespace = match text(target, "namespace") {
                "" => look.object.namespace,
                namespace => namespace,
            };
            look.known.has(kind, mesh, namespace, name)
        }
    };
    if there {
        return None;
    }
    if !look.known.complete {
        answer.cannot_tell();
        return None;
    }
    Some(format!("there is no MeshHTTPRoute {} in mesh {}", called(target), quoted(mesh)))
}

/// A legacy route names services by tag. Only the tags that Kubernetes makes from a Service and its port can be
/// looked up; for any other, some proxy may carry it.
fn by_tags(look: &Look<'_>, answer: &mut Answer) {
    let conf = inside(look.object.spec, &["conf"]);
    let rest = std::iter::once(("conf".to_owned(), conf));
    let http = items(conf, "http").iter().enumerate().map(|(h, http)| (format!("conf.http[{h}]"), http));
    for (at, place) in http.chain(rest) {
        let split = items(place, "split").iter().enumerate();
        let split = split.map(|(s, entry)| (format!("{at}.split[{s}].destination"), inside(entry, &["destination"])));
        let alone = std::iter::once((format!("{at}.destination"), inside(place, &["destination"])));
        for (at, tags) in split.chain(alone) {
            let tag = text(tags, "kuma.io/service");
            if tag.is_empty() || tag == "*" {
                continue;
            }
            let Some((name, namespace, port)) = tag_parts(tag).filter(|_| look.known.complete) else {
                answer.cannot_tell();
                continue;
            };
            let mesh = look.object.mesh;
            let problem = match look.known.service("MeshService", mesh, namespace, name) {
                Some(service) if service.port(Wanted::Name(port)).is_some() => continue,
                Some(_) => format!("MeshService {} has no port {port}", quoted(name)),
                None if look.known.has_tag(mesh, tag) || !look.known.has_any("MeshService", mesh) => {
                    answer.cannot_tell();
                    continue;
                }
                None => format!(
                    "there is no MeshService {} in mesh {}",
                    quoted(&format!("{name}.{namespace}")),
                    quoted(mesh)
                ),
            };
            let field = look.field(format_args!(r#"{at}["kuma.io/service"]"#));
            let help = "correct the tag, or apply the service first";
            answer.found(RULE.at(field, format!("{problem}: nobody answers for {}", quoted(tag))).help(help));
        }
    }
}
