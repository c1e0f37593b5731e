#![doc = include_str!("../../../testdata/rules/hostnames-collide/README.md")]

use super::Severity;
use super::known::{Generator, Service};
use super::object::{DISPLAY_NAME, NAMESPACE};
use super::rule::{Answer, Check, Look, Rule, quoted};
use std::collections::BTreeMap;

pub(super) const RULE: Rule = Rule {
    id: "KMH-T09",
    name: "hostnames-collide",
    severity: Severity::Medium,
    kinds: &["HostnameGenerator"],
    summary: "two services get the same host name",
    explanation: include_str!("../../../testdata/rules/hostnames-collide/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    let Some(own) = Generator::read(&look.object) else { return answer.not_applicable() };
    let at = look.field(format_args!("template"));
    let help = "let the template tell services apart: {{ .DisplayName }}, {{ .Namespace }}, {{ .Zone }}";
    if !own.template.is_empty() && !own.template.contains("{{") {
        let message = format!("every service that it selects is called {}", quoted(&own.template));
        return answer.found(RULE.at(at, message).help(help));
    }
    let others: Vec<_> = look.known.generators().filter(|other| other.name != own.name).collect();
    let mut hosts: BTreeMap<(&str, String), (&Service, &str)> = BTreeMap::new();
    let mut collision = |service, generator: &Generator, by| {
        let Some(host) = render(&generator.template, service) else { return Err(()) };
        let place = (&*service.mesh, host);
        match hosts.get(&place) {
            Some((first, other)) if !same(first, service) => Ok(Some((place.1, *first, *other))),
            Some(_) => Ok(None),
            None => {
                hosts.insert(place, (service, by));
                Ok(None)
            }
        }
    };
    // The others first: what they collide in among themselves is their own finding.
    for other in others {
        for service in look.known.services(other.kind).filter(|service| other.selects(service)) {
            let _ = collision(service, other, &other.name);
        }
    }
    for service in look.known.services(own.kind).filter(|service| own.selects(service)) {
        match collision(service, &own, &own.name) {
            Err(()) => return answer.cannot_tell(),
            Ok(None) => {}
            Ok(Some((host, first, by))) => {
                let from = if *by == *own.name { String::new() } else { format!(" by {}", quoted(by)) };
                let message = format!("{} names {} and{from} {}", quoted(&host), shown(service), shown(first));
                answer.found(RULE.at(at.clone(), message).help(help));
                if answer.is_full() {
                    return;
                }
            }
        }
    }
    if !look.known.complete {
        answer.cannot_tell();
    }
}

fn same(one: &Service, other: &Service) -> bool {
    (&one.kind, &one.namespace, &one.name) == (&other.kind, &other.namespace, &other.name)
}

fn shown(service: &Service) -> String {
    let dot = if service.namespace.is_empty() { "" } else { "." };
    format!("{} {}", service.kind, quoted(&format!("{}{dot}{}", service.name, service.namespace)))
}

/// The host name of a service; `None` where the template does what only Kuma can follow.
fn render(template: &str, service: &Service) -> Option<String> {
    let mut host = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}")?;
        host += before;
        host += match action.trim() {
            ".DisplayName" => service.label(DISPLAY_NAME),
            ".Name" => &service.name,
            ".Namespace" => service.label(NAMESPACE),
            ".Mesh" => &service.mesh,
            ".Zone" => service.label("kuma.io/zone"),
            action => {
                let key = action.strip_prefix("label ")?.trim();
                service.label(key.strip_prefix('"')?.strip_suffix('"')?)
            }
        };
        rest = after;
    }
    Some(host + rest)
}
