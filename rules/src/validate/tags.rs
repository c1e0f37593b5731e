//! Kuma's rules for tags.

use super::Findings;
use crate::schema::Place;

/// The tag that names a service.
pub(super) const SERVICE: &str = "kuma.io/service";

/// What a set of tags must have beyond well-formed keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing; an empty set will do.
    Nothing,
    /// At least one tag, and the service among them.
    Service,
    /// The service and nothing else.
    OnlyService,
}

/// Checks the tags that select something: a value may be `*`, and may hold `/`.
pub(super) fn selector(tags: &[(&str, &str)], needs: Needs, place: &Place<'_>, found: &mut Findings) {
    check(tags, needs, place, found, |value| {
        let fits = value == "*" || value.bytes().all(|b| is_tag(b) || b == b'/');
        let words =
            "tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be \"*\"";
        (!fits).then_some(words)
    });
}

/// Checks the tags of a subset of the mesh.
pub(super) fn subset(tags: &[(&str, &str)], place: &Place<'_>, found: &mut Findings) {
    check(tags, Needs::Nothing, place, found, |value| {
        let words = "tag value must consist of alphanumeric characters, dots, dashes and underscores";
        (!value.bytes().all(is_tag)).then_some(words)
    });
}

fn check(
    tags: &[(&str, &str)],
    needs: Needs,
    place: &Place<'_>,
    found: &mut Findings,
    value_problem: impl Fn(&str) -> Option<&'static str>,
) {
    let service = tags.iter().any(|(key, _)| *key == SERVICE);
    if needs == Needs::Service && tags.is_empty() {
        found.add(place, "must have at least one tag");
    }
    if needs == Needs::OnlyService && !(tags.len() == 1 && service) {
        found.add(place, format!("must consist of exactly one tag {SERVICE:?}"));
    }
    for (key, value) in tags {
        if key.is_empty() {
            found.add(place, "tag name must be non-empty");
        }
        if !key.bytes().all(|b| is_tag(b) || b == b'/') {
            let words = "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores";
            found.add(&place.key(key), words);
        }
        if needs == Needs::OnlyService && *key != SERVICE {
            found.add(&place.key(key), format!("tag {key:?} is not allowed"));
        }
        if value.is_empty() {
            found.add(&place.key(key), "tag value must be non-empty");
        }
        if let Some(words) = value_problem(value) {
            found.add(&place.key(key), words);
        }
    }
    if needs != Needs::Nothing && !service {
        found.add(place, format!("mandatory tag {SERVICE:?} is missing"));
    }
}

fn is_tag(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':')
}
