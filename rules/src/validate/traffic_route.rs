//! The rules of a TrafficRoute, whose spec no schema looks at: it is decoded first, as Go decodes its Protobuf form.

mod json;

use super::tags::{self, Needs};
use super::{Findings, Violation};
use crate::schema::Place;
use json::{Object, Tags};
use serde_json::Value;

/// A decoded route.
#[derive(Debug, Default)]
pub(super) struct Route<'a> {
    sources: Vec<Tags<'a>>,
    destinations: Vec<Tags<'a>>,
    conf: Option<Conf<'a>>,
}

#[derive(Debug)]
struct Conf<'a> {
    target: Target<'a>,
    http: Vec<Http<'a>>,
    balancer: Balancer<'a>,
}

/// Where traffic goes. An empty list is as good as none, an empty set of tags is not.
#[derive(Debug)]
struct Target<'a> {
    split: Vec<Split<'a>>,
    destination: Option<Tags<'a>>,
}

#[derive(Debug)]
struct Split<'a> {
    weight: Option<u32>,
    destination: Tags<'a>,
}

#[derive(Debug)]
struct Http<'a> {
    matched: Match<'a>,
    modify: Modify<'a>,
    target: Target<'a>,
}

#[derive(Debug, Default)]
struct Match<'a> {
    method: Option<Matcher<'a>>,
    path: Option<Matcher<'a>>,
    headers: Option<Vec<(&'a str, Matcher<'a>)>>,
}

/// One of several; of two the later in Protobuf's order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matcher<'a> {
    None,
    Prefix(&'a str),
    Exact,
    Regex(&'a str),
}

#[derive(Debug, Default)]
struct Modify<'a> {
    path: Option<Rewrite<'a>>,
    host: Option<Rewrite<'a>>,
    request_headers: Headers<'a>,
    response_headers: Headers<'a>,
}

/// A new text, or a pattern and its substitution.
#[derive(Debug, Clone, Copy)]
enum Rewrite<'a> {
    None,
    Text(&'a str),
    Regex { pattern: &'a str, substitution: &'a str },
}

#[derive(Debug, Default)]
struct Headers<'a> {
    /// Name and value.
    add: Vec<(&'a str, &'a str)>,
    remove: Vec<&'a str>,
}

#[derive(Debug)]
enum Balancer<'a> {
    Other,
    LeastRequest { choice_count: u32 },
    RingHash { function: &'a str },
}

/// Decodes a spec, or a whole Universal document; null is an empty one. The error is Go's text.
pub(super) fn decode(value: &Value) -> Result<Route<'_>, String> {
    let object = Object::read(value)?;
    let selectors = |name: &'static str| {
        object.list(name, |selector| selector.message("match", |tags| tags.as_tags()).map(Option::unwrap_or_default))
    };
    Ok(Route {
        sources: selectors("sources")?,
        destinations: selectors("destinations")?,
        conf: object.message("conf", |conf| conf.as_object().and_then(|conf| decode_conf(&conf)))?,
    })
}

fn decode_conf<'a>(conf: &Object<'a>) -> Result<Conf<'a>, String> {
    // In the order of the definition: Go tells of the first mistake it meets.
    let split = decode_split(conf)?;
    let balancer = conf.message("load_balancer", |balancer| decode_balancer(&balancer.as_object()?))?;
    let destination = conf.message("destination", |tags| tags.as_tags())?;
    let http = conf.list("http", |http| {
        let matched = http.message("match", |matched| decode_match(&matched.as_object()?))?;
        let modify = http.message("modify", |modify| decode_modify(&modify.as_object()?))?;
        let split = decode_split(http)?;
        let destination = http.message("destination", |tags| tags.as_tags())?;
        Ok(Http {
            matched: matched.unwrap_or_default(),
            modify: modify.unwrap_or_default(),
            target: Target { split, destination },
        })
    })?;
    Ok(Conf { target: Target { split, destination }, http, balancer: balancer.unwrap_or(Balancer::Other) })
}

fn decode_split<'a>(object: &Object<'a>) -> Result<Vec<Split<'a>>, String> {
    object.list("split", |split| {
        let weight = split.message("weight", |weight| weight.as_u32())?;
        let destination = split.message("destination", |tags| tags.as_tags())?.unwrap_or_default();
        Ok(Split { weight, destination })
    })
}

fn decode_balancer<'a>(balancer: &Object<'a>) -> Result<Balancer<'a>, String> {
    let mut decoded = Balancer::Other;
    for kind in ["round_robin", "least_request", "ring_hash", "random", "maglev"] {
        let next = balancer.message(kind, |conf| {
            let conf = conf.as_object()?;
            Ok(match kind {
                "least_request" => {
                    Balancer::LeastRequest { choice_count: conf.number("choice_count")?.unwrap_or_default() }
                }
                "ring_hash" => {
                    let function = conf.text("hash_function")?;
                    conf.large_number("min_ring_size")?;
                    conf.large_number("max_ring_size")?;
                    Balancer::RingHash { function }
                }
                _ => Balancer::Other,
            })
        })?;
        decoded = next.unwrap_or(decoded);
    }
    Ok(decoded)
}

fn decode_match<'a>(matched: &Object<'a>) -> Result<Match<'a>, String> {
    Ok(Match {
        method: matched.message("method", |matcher| decode_matcher(&matcher.as_object()?))?,
        path: matched.message("path", |matcher| decode_matcher(&matcher.as_object()?))?,
        headers: matched.message("headers", |headers| {
            let headers = headers.as_map()?.into_iter();
            headers.map(|(name, matcher)| Ok((name, decode_matcher(&matcher.as_object()?)?))).collect()
        })?,
    })
}

fn decode_matcher<'a>(matcher: &Object<'a>) -> Result<Matcher<'a>, String> {
    let prefix = matcher.message("prefix", |text| text.as_text())?.map(Matcher::Prefix);
    let exact = matcher.message("exact", |text| text.as_text())?.map(|_| Matcher::Exact);
    let regex = matcher.message("regex", |text| text.as_text())?.map(Matcher::Regex);
    Ok(regex.or(exact).or(prefix).unwrap_or(Matcher::None))
}

fn decode_modify<'a>(modify: &Object<'a>) -> Result<Modify<'a>, String> {
    let headers = |name: &'static str| -> Result<Headers<'a>, String> {
        let headers = modify.message(name, |headers| {
            let headers = headers.as_object()?;
            let add = headers.list("add", |add| {
                let header = (add.text("name")?, add.text("value")?);
                add.flag("append")?;
                Ok(header)
            })?;
            Ok(Headers { add, remove: headers.list("remove", |remove| remove.text("name"))? })
        })?;
        Ok(headers.unwrap_or_default())
    };
    Ok(Modify {
        path: modify.message("path", |path| decode_rewrite(&path.as_object()?, "rewritePrefix", "regex"))?,
        host: modify.message("host", |host| decode_rewrite(&host.as_object()?, "value", "fromPath"))?,
        request_headers: headers("requestHeaders")?,
        response_headers: headers("responseHeaders")?,
    })
}

fn decode_rewrite<'a>(object: &Object<'a>, text: &'static str, regex: &'static str) -> Result<Rewrite<'a>, String> {
    let text = object.message(text, |text| text.as_text())?.map(Rewrite::Text);
    let regex = object.message(regex, |regex| {
        let regex = regex.as_object()?;
        Ok(Rewrite::Regex { pattern: regex.text("pattern")?, substitution: regex.text("substitution")? })
    })?;
    Ok(regex.or(text).unwrap_or(Rewrite::None))
}

/// What is wrong with a route. `root` is `spec` on Kubernetes and the document itself in Universal form.
pub(super) fn violations(route: &Route<'_>, root: &Place<'_>) -> Vec<Violation> {
    let mut found = Findings::default();
    for (name, selectors, needs) in
        [("sources", &route.sources, Needs::Service), ("destinations", &route.destinations, Needs::OnlyService)]
    {
        let place = root.field(name);
        if selectors.is_empty() {
            found.add(&place, "must have at least one element");
        }
        for (index, tags) in selectors.iter().enumerate() {
            tags::selector(tags, needs, &place.index(index).field("match"), &mut found);
        }
    }
    let place = root.field("conf");
    let Some(conf) = &route.conf else {
        found.add(&place, "cannot be empty");
        return found.0;
    };
    check_target(&conf.target, &place, &mut found);
    for (index, http) in conf.http.iter().enumerate() {
        check_http(http, &place.field("http").index(index), &mut found);
    }
    let place = place.field("loadBalancer");
    match conf.balancer {
        Balancer::LeastRequest { choice_count: 1 } => {
            let place = place.field("leastRequest");
            found.add(&place.field("choiceCount"), "value must be greater than or equal to 2");
        }
        Balancer::RingHash { function } if !matches!(function, "XX_HASH" | "MURMUR_HASH_2") => {
            found.add(&place.field("ringHash").field("hashFunction"), "must have a valid hash function");
        }
        _ => {}
    }
    found.0
}

fn check_target(target: &Target<'_>, place: &Place<'_>, found: &mut Findings) {
    match (target.split.is_empty(), &target.destination) {
        (true, None) => found.add(place, "requires either \"destination\" or \"split\""),
        (false, Some(_)) => found.add(place, "\"split\" cannot be defined at the same time as \"destination\""),
        _ => {}
    }
    if !target.split.is_empty() {
        let place = place.field("split");
        let mut sum = 0_u32;
        for (index, split) in target.split.iter().enumerate() {
            let place = place.index(index);
            match split.weight {
                // The sum wraps in Kuma too, so that two weights can cancel out.
                Some(weight) => sum = sum.wrapping_add(weight),
                None => found.add(&place.field("weight"), "needs to be defined"),
            }
            tags::selector(&split.destination, Needs::Service, &place.field("destination"), found);
        }
        if sum == 0 {
            found.add(&place, "there must be at least one split entry with weight above 0");
        }
    }
    if let Some(destination) = &target.destination {
        tags::selector(destination, Needs::Service, &place.field("destination"), found);
    }
}

fn check_http(http: &Http<'_>, place: &Place<'_>, found: &mut Findings) {
    check_match(&http.matched, &place.field("match"), found);
    check_modify(http, &place.field("modify"), found);
    check_target(&http.target, place, found);
}

fn check_match(matched: &Match<'_>, place: &Place<'_>, found: &mut Findings) {
    if matched.path.is_none() && matched.method.is_none() && matched.headers.is_none() {
        let words = "must be present and contain at least one of the elements: \"method\", \"path\" or \"headers\"";
        return found.add(place, words);
    }
    if let Some(method) = matched.method {
        check_matcher(method, &place.field("method"), found);
    }
    if let Some(path) = matched.path {
        check_matcher(path, &place.field("path"), found);
    }
    if let Some(headers) = &matched.headers {
        let place = place.field("headers");
        if headers.is_empty() {
            found.add(&place, "must contain at least one element");
        }
        for (name, matcher) in headers {
            let place = place.key(name);
            if name.is_empty() {
                found.add(&place, "cannot be empty");
            }
            check_matcher(*matcher, &place, found);
        }
    }
}

fn check_matcher(matcher: Matcher<'_>, place: &Place<'_>, found: &mut Findings) {
    match matcher {
        Matcher::Prefix("") => found.add(&place.field("prefix"), "cannot be empty"),
        Matcher::Regex("") => found.add(&place.field("regex"), "cannot be empty"),
        // Kuma says "split" and means "prefix".
        Matcher::None => {
            found.add(place, "cannot be empty. Available options: \"exact\", \"split\" or \"regex\"");
        }
        _ => {}
    }
}

fn check_modify(http: &Http<'_>, place: &Place<'_>, found: &mut Findings) {
    let modify = &http.modify;
    if let Some(path) = modify.path {
        let place = place.field("path");
        let prefixed = matches!(http.matched.path, Some(Matcher::Prefix(prefix)) if !prefix.is_empty());
        match path {
            Rewrite::None => found.add(&place, "either \"rewritePrefix\" or \"regex\" has to be set"),
            Rewrite::Text("") => found.add(&place.field("rewritePrefix"), "cannot be empty"),
            Rewrite::Text(_) if !prefixed => {
                let words = "can only be set when .http.match.path.prefix is not empty";
                found.add(&place.field("rewritePrefix"), words);
            }
            Rewrite::Text(_) => {}
            Rewrite::Regex { pattern, substitution } => {
                check_regex(pattern, substitution, &place.field("regex"), found);
            }
        }
    }
    if let Some(host) = modify.host {
        let place = place.field("host");
        match host {
            Rewrite::None => found.add(&place, "either \"value\" or \"fromPath\" has to be set"),
            Rewrite::Text("") => found.add(&place.field("value"), "cannot be empty"),
            Rewrite::Text(_) => {}
            Rewrite::Regex { pattern, substitution } => {
                check_regex(pattern, substitution, &place.field("fromPath"), found);
            }
        }
    }
    check_headers(&modify.request_headers, &place.field("requestHeaders"), found);
    check_headers(&modify.response_headers, &place.field("responseHeaders"), found);
}

fn check_regex(pattern: &str, substitution: &str, place: &Place<'_>, found: &mut Findings) {
    for (name, text) in [("pattern", pattern), ("substitution", substitution)] {
        if text.is_empty() {
            found.add(&place.field(name), "cannot be empty");
        }
    }
}

fn check_headers(headers: &Headers<'_>, place: &Place<'_>, found: &mut Findings) {
    let add = place.field("add");
    for (index, (name, value)) in headers.add.iter().enumerate() {
        let place = add.index(index);
        check_header_name(name, &place.field("name"), found);
        if value.is_empty() {
            found.add(&place.field("value"), "cannot be empty");
        }
    }
    let remove = place.field("remove");
    for (index, name) in headers.remove.iter().enumerate() {
        check_header_name(name, &remove.index(index).field("name"), found);
    }
}

fn check_header_name(name: &str, place: &Place<'_>, found: &mut Findings) {
    if name.is_empty() {
        found.add(place, "cannot be empty");
    } else if name.starts_with(':') || matches!(name, "host" | "Host") {
        found.add(place, "host header and HTTP/2 pseudo-headers are not allowed to be modified");
    }
}
