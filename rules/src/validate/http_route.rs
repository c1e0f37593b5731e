//! The rules of a MeshHTTPRoute.

use super::target_ref::{Allowed, TargetRef};
use super::{Findings, Role, Version, grammar, tcp_route};
use crate::schema::Place;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What the Gateway API conversion writes for a backend that it cannot find.
const UNRESOLVED: &str = "kuma.io/unresolved-backend";

pub(super) fn check(spec: &Map<String, Value>, role: Role, version: Version, place: &Place<'_>, found: &mut Findings) {
    let gateway = tcp_route::check_top(spec, role, version, place, found);
    let place = place.field("to");
    for (index, to) in items(spec.get("to")).iter().enumerate() {
        let place = place.index(index);
        let target = TargetRef::read(to.get("targetRef"), version);
        target.check(tcp_route::destinations(gateway), version, &place.field("targetRef"), found);
        if !gateway && !items(to.get("hostnames")).is_empty() {
            found.add(&place.field("hostnames"), "must not be defined");
        }
        let place = place.field("rules");
        for (index, rule) in items(to.get("rules")).iter().enumerate() {
            check_rule(rule, gateway, version, &place.index(index), found);
        }
    }
}

fn check_rule(rule: &Value, gateway: bool, version: Version, place: &Place<'_>, found: &mut Findings) {
    let matches = items(rule.get("matches"));
    for (index, matched) in matches.iter().enumerate() {
        check_match(matched, &place.field("matches").index(index), found);
    }
    let Some(default) = rule.get("default") else { return };
    let place = place.field("default");
    let filters = items(default.get("filters"));
    for (index, filter) in filters.iter().enumerate() {
        check_filter(filter, matches, gateway, version, &place.field("filters").index(index), found);
    }
    let backends = items(default.get("backendRefs"));
    let place = place.field("backendRefs");
    if gateway && backends.is_empty() && !filters.iter().any(|filter| text(filter, "type") == "RequestRedirect") {
        found.add(&place, "must not be empty");
    }
    let allowed = Allowed { odd_name: Some(UNRESOLVED), ..tcp_route::backends(version) };
    for (index, backend) in backends.iter().enumerate() {
        let place = place.index(index);
        let target = TargetRef::read(Some(backend), version);
        target.check(allowed, version, &place, found);
        target.check_backend(&place, found);
    }
}

fn check_match(matched: &Value, place: &Place<'_>, found: &mut Findings) {
    for (name, value) in matched.as_object().into_iter().flatten() {
        let place = place.field(name);
        match name.as_str() {
            "path" => check_path(value, &place.field("value"), found),
            "headers" => {
                for (index, header) in items(Some(value)).iter().enumerate() {
                    if matches!(text(header, "type"), "Present" | "Absent") && !text(header, "value").is_empty() {
                        found.add(&place.index(index).field("value"), "must not be defined");
                    }
                }
            }
            "queryParams" => {
                let params = items(Some(value));
                let mut seen = BTreeSet::new();
                for (index, param) in params.iter().enumerate().filter(|_| params.len() > 1) {
                    let name = text(param, "name");
                    if !seen.insert(name) {
                        found.add(&place.index(index).field("name"), format!("multiple entries for name {name}"));
                    }
                }
            }
            _ => {}
        }
    }
}

fn check_path(path: &Value, place: &Place<'_>, found: &mut Findings) {
    let value = text(path, "value");
    let prefix = match text(path, "type") {
        "PathPrefix" if value == "/" => return,
        "PathPrefix" => true,
        "Exact" => false,
        _ => return,
    };
    if prefix && value.ends_with('/') {
        let words = "does not need a trailing slash because only a `/`-separated prefix or an entire path is matched";
        found.add(place, words);
    }
    if !value.starts_with('/') {
        found.add(place, "must be an absolute path");
    }
}

fn check_filter(
    filter: &Value,
    matches: &[Value],
    gateway: bool,
    version: Version,
    place: &Place<'_>,
    found: &mut Findings,
) {
    let field = match text(filter, "type") {
        "RequestHeaderModifier" => "requestHeaderModifier",
        "ResponseHeaderModifier" => "responseHeaderModifier",
        "RequestRedirect" => "requestRedirect",
        "URLRewrite" => "urlRewrite",
        "RequestMirror" => "requestMirror",
        _ => return,
    };
    let place = place.field(field);
    let Some(conf) = filter.get(field).filter(|conf| !conf.is_null()) else {
        return found.add(&place, "must be defined");
    };
    match field {
        "requestHeaderModifier" | "responseHeaderModifier" => check_headers(conf, &place, found),
        "requestMirror" => {
            let allowed = match version {
                Version::V2_14 => Allowed::kinds(&["MeshService", "MeshServiceSubset"]),
                Version::V3_0 => tcp_route::backends(version),
            };
            TargetRef::read(conf.get("backendRef"), version).check(allowed, version, &place.field("backendRef"), found);
        }
        _ => {
            let hostname = conf.get("hostname").and_then(Value::as_str);
            let replaces = conf.pointer("/path/replacePrefixMatch").is_some_and(|prefix| !prefix.is_null());
            if replaces && matches.iter().any(|matched| matched.pointer("/path/type").is_none_or(|t| t != "PathPrefix"))
            {
                let words = "can only appear if all matches match a path prefix";
                found.add(&place.field("path").field("replacePrefixMatch"), words);
            }
            if let Some(hostname) = hostname {
                check_hostname(hostname, &place.field("hostname"), found);
            }
            if field == "urlRewrite" && conf.get("hostToBackendHostname") == Some(&Value::Bool(true)) {
                let place = place.field("hostToBackendHostname");
                if !gateway {
                    found.add(&place, "can only be set with MeshGateway");
                }
                if hostname.is_some() {
                    found.add(&place, "cannot be set together with hostname");
                }
            }
        }
    }
}

/// A header may be named once in all three lists.
fn check_headers(conf: &Value, place: &Place<'_>, found: &mut Findings) {
    let lists = ["set", "add", "remove"].map(|list| (list, conf.get(list).filter(|list| !list.is_null())));
    if lists.iter().all(|(_, list)| list.is_none()) {
        return found.add(place, "must have at least one defined: set, add, remove");
    }
    let mut seen = BTreeSet::new();
    for (list, headers) in lists {
        for (index, header) in items(headers).iter().enumerate() {
            let name = header.as_str().unwrap_or_else(|| text(header, "name"));
            if !seen.insert(name) {
                found.add(&place.field(list).index(index).field("name"), "duplicate header name");
            }
        }
    }
}

fn check_hostname(hostname: &str, place: &Place<'_>, found: &mut Findings) {
    if is_address(hostname) {
        return found.add(place, "cannot be an IP address");
    }
    for sentence in grammar::subdomain(hostname) {
        found.add(place, sentence);
    }
}

/// Is it an IP address, leading zeros allowed as Kubernetes still reads them?
fn is_address(text: &str) -> bool {
    let octet = |part: &str| {
        let digits = part.trim_start_matches('0');
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (digits.is_empty() || digits.parse::<u8>().is_ok())
    };
    (text.split('.').count() == 4 && text.split('.').all(octet)) || text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// The items of a list; none when it is missing.
pub(super) fn items(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A text field; "" when it is missing.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
