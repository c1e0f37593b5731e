//! Guards as CEL.

use super::Options;
use crate::admission::Settings;
use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_rules::guard::{Freeze, ShiftGuard};

/// So long after its last renewal the Lease says that the webhook is away.
const AWAY: &str = "duration('60s')";
/// More freezes of one guard than this are not written down: each costs the API server a comparison.
const MOST_FREEZES: usize = 200;

/// Whom and what the belt is about.
pub(super) fn conditions(guard: &ShiftGuard, settings: &Settings) -> Vec<Value> {
    let condition = |name: &str, expression: String| json!({"name": name, "expression": expression});
    let exempt: Vec<_> = settings.exempt.iter().map(|name| text(name)).collect();
    let subjects = &guard.spec.automation.subjects;
    let automated = match any_of(subjects) {
        None => "true".to_owned(),
        Some(pattern) => format!(
            "request.userInfo.username.matches({pattern}) || (has(request.userInfo.groups) && \
             request.userInfo.groups.exists(group, group.matches({pattern})))"
        ),
    };
    let mut conditions = vec![
        condition("not-exempt", format!("!(request.userInfo.username in [{}])", exempt.join(", "))),
        condition("automation", automated),
        condition(
            "spec-changes",
            "!has(object.spec) || !has(oldObject.spec) || object.spec != oldObject.spec".to_owned(),
        ),
    ];
    let r#match = &guard.spec.r#match;
    if let Some(pattern) = any_of(&r#match.meshes) {
        let mesh = "(has(object.mesh) ? object.mesh : object.metadata.?labels[?'kuma.io/mesh'].orValue('default'))";
        conditions.push(condition("mesh", format!("{mesh}.matches({pattern})")));
    }
    if let Some(pattern) = any_of(&r#match.namespaces) {
        let own = format!("object.metadata.?namespace.orValue('').matches({pattern})");
        let target = format!("{TO}.exists(to, to.?targetRef.?namespace.orValue('').matches({pattern}))");
        conditions.push(condition("namespace", format!("{own} || {target}")));
    }
    if let Some(pattern) = any_of(&r#match.services) {
        conditions.push(condition("service", services(&pattern)));
    }
    conditions
}

const TO: &str = "object.spec.?to.orValue([])";

/// Is any service of the route one of these, by plain name or with its namespace?
fn services(pattern: &str) -> String {
    let named = |reference: &str| {
        format!(
            "[dyn({reference}.?name.orValue('')), dyn({reference}.?labels[?'kuma.io/display-name'].orValue('')), \
             dyn({reference}.?name.orValue('') + '.' + {reference}.?namespace.orValue(object.metadata.?namespace.orValue('')))]\
             .exists(name, name.matches({pattern}))"
        )
    };
    let tagged = |tags: &str| format!("{tags}[?'kuma.io/service'].orValue('').matches({pattern})");
    format!(
        "{TO}.exists(to, {target} || to.?rules.orValue([]).exists(rule, \
         rule.?default.?backendRefs.orValue([]).exists(ref, {backend}))) || \
         object.spec.?destinations.orValue([]).exists(to, {destination}) || \
         object.spec.?conf.?split.orValue([]).exists(part, {part})",
        target = named("to.?targetRef"),
        backend = named("ref"),
        destination = tagged("to.?match"),
        part = tagged("part.?destination"),
    )
}

/// What several validations use.
pub(super) fn variables(options: &Options) -> Vec<Value> {
    let variable = |name: &str, expression: &str| json!({"name": name, "expression": expression});
    let mut variables = vec![variable(
        "times",
        "object.metadata.?managedFields.orValue([]).filter(entry, has(entry.time) && \
         !oldObject.metadata.?managedFields.orValue([]).exists(old, has(old.time) && old.time == entry.time))\
         .map(entry, timestamp(entry.time))",
    )];
    if options.lease.is_some() {
        let away = format!(
            "!has(params.spec.renewTime) || \
             variables.times.exists(time, time - timestamp(params.spec.renewTime) > {AWAY})"
        );
        variables.push(variable("away", &away));
    }
    variables
}

/// What the belt refuses.
pub(super) fn validations(guard: &ShiftGuard, options: &Options) -> Vec<Value> {
    let name = guard.name();
    let mut found = Vec::new();
    let only_away = |holds: String| match options.lease {
        Some(_) => format!("!variables.away || ({holds})"),
        None => holds,
    };
    let mut add = |holds: String, message: String| {
        found.push(json!({"expression": only_away(holds), "message": message, "reason": "Invalid"}));
    };
    if let Some(most) = guard.spec.caps.max_step {
        let holds = every_rule(&|side| format!("{} <= {}", gained(side), number(most)));
        let message = format!(
            "guard `{name}`, maxStep: a rule moves by more than {most} points in one change: take smaller steps, or let a \
             person make the change (from the belt that holds while the webhook is away)"
        );
        add(holds, message);
    }
    if let Some(most) = guard.spec.caps.max_share {
        let holds = every_rule(&|side| all_within(side, most));
        let message = format!(
            "guard `{name}`, maxShare: a backend gets more than {most} %: stay below, or let a person make the change (from \
             the belt that holds while the webhook is away)"
        );
        add(holds, message);
    }
    for freeze in &guard.spec.freeze {
        let windows = windows(freeze, options);
        if windows.is_empty() {
            continue;
        }
        let frozen: Vec<_> = windows
            .iter()
            .map(|(from, to)| format!("(time >= timestamp('{from}') && time < timestamp('{to}'))"))
            .collect();
        let holds = format!(
            "!variables.times.exists(time, {}) || ({})",
            frozen.join(" || "),
            every_rule(&|side| format!("{} <= {}", gained(side), number(0.0)))
        );
        let reason = if freeze.reason.is_empty() { String::new() } else { format!(" ({})", freeze.reason) };
        let message = format!(
            "guard `{name}`, freeze{reason}: no shifts now: wait for its end, or let a person make the change (from the belt \
             that holds while the webhook is away)"
        );
        add(holds, message);
    }
    found
}

/// The freezes from now to the horizon.
fn windows(freeze: &Freeze, options: &Options) -> Vec<(Timestamp, Timestamp)> {
    let end = options.now.saturating_add(options.horizon).unwrap_or(Timestamp::MAX);
    let mut found: Vec<(Timestamp, Timestamp)> = Vec::new();
    let mut at = options.now;
    while at < end && found.len() < MOST_FREEZES {
        match freeze.ongoing(at) {
            Some(ongoing) => {
                let until = ongoing.until.unwrap_or(end);
                found.push((ongoing.since, until));
                at = until;
            }
            // Every time as long as a freeze has one of these steps in it, and a shorter one starts at a full minute.
            None => at = next_minute(at).max(at.saturating_add(freeze.duration.0).unwrap_or(end)),
        }
    }
    found
}

fn next_minute(at: Timestamp) -> Timestamp {
    let second = at.as_second();
    Timestamp::from_second(second - second.rem_euclid(60) + 60).unwrap_or(Timestamp::MAX)
}

/// `holds` for the backends before and after of every rule whose target and matches are as before.
fn every_rule(holds: &dyn Fn(&Side) -> String) -> String {
    let refs = |rule: &str| format!("{rule}.?default.?backendRefs.orValue([])");
    let mesh = format!(
        "{TO}.all(to, oldObject.spec.?to.orValue([]).all(was, was.?targetRef.orValue({{}}) != to.?targetRef.orValue({{}}) || \
         to.?rules.orValue([]).all(rule, was.?rules.orValue([]).all(before, \
         before.?matches.orValue([]) != rule.?matches.orValue([]) || {}))))",
        bound(&refs("before"), &refs("rule"), &Side::Refs, holds)
    );
    let split = |rule: &str| format!("{rule}.?split.orValue([])");
    let rest = bound(&split("oldObject.spec.?conf"), &split("object.spec.?conf"), &Side::Tags, holds);
    let http = format!(
        "object.spec.?conf.?http.orValue([]).all(rule, oldObject.spec.?conf.?http.orValue([]).all(before, \
         before.?match.orValue({{}}) != rule.?match.orValue({{}}) || {}))",
        bound(&split("before"), &split("rule"), &Side::Tags, holds)
    );
    format!("{mesh} && {rest} && {http}")
}

/// How a list of backends is written.
enum Side {
    /// `backendRefs`.
    Refs,
    /// `split` of a `TrafficRoute`.
    Tags,
}

impl Side {
    /// Are these two the same backend?
    fn same(&self, a: &str, b: &str) -> String {
        let equal = |field: &str, none: &str| format!("{a}.?{field}.orValue({none}) == {b}.?{field}.orValue({none})");
        match self {
            Self::Tags => equal("destination", "{}"),
            Self::Refs => [
                ("kind", "''"),
                ("name", "''"),
                ("namespace", "''"),
                ("labels", "{}"),
                ("tags", "{}"),
                ("port", "0"),
                ("sectionName", "''"),
            ]
            .map(|(field, none)| equal(field, none))
            .join(" && "),
        }
    }
}

/// Binds the two lists as `s[0]`, `s[1]` and the sums of their weights as `n[0]`, `n[1]`. Where a side names no backend
/// or has no weight there are no shares to compare.
fn bound(old: &str, new: &str, side: &Side, holds: &dyn Fn(&Side) -> String) -> String {
    format!(
        "[[{old}, {new}]].all(s, [[{was}, {is}]].all(n, n[0] <= 0.0 || n[1] <= 0.0 || {holds}))",
        was = sum(&format!("s[0].map(b, {})", weight("b"))),
        is = sum(&format!("s[1].map(b, {})", weight("b"))),
        holds = holds(side),
    )
}

/// A list that holds a zero has a sum of the right type even when nothing else is in it.
fn sum(list: &str) -> String {
    format!("([0.0] + {list}).sum()")
}

fn weight(backend: &str) -> String {
    format!("double({backend}.?weight.orValue(1))")
}

/// The percentage that backend `b` had.
fn had(side: &Side) -> String {
    let entries = format!("s[0].filter(c, {}).map(c, {})", side.same("b", "c"), weight("c"));
    format!("100.0 * {} / n[0]", sum(&entries))
}

/// The percentage that backend `b` gets.
fn gets() -> String {
    format!("100.0 * {} / n[1]", weight("b"))
}

/// The points that backends gain which had less than half, together.
fn gained(side: &Side) -> String {
    let gain = format!(
        "s[1].map(b, [[{}, {}]].map(p, p[0] >= 50.0 || p[1] <= p[0] ? 0.0 : p[1] - p[0])[0])",
        had(side),
        gets()
    );
    sum(&gain)
}

/// Does no backend that had less than half rise above this percentage?
fn all_within(side: &Side, most: f64) -> String {
    format!(
        "s[1].all(b, [[{}, {}]].all(p, p[1] <= {} || p[1] <= p[0] || p[0] >= 50.0))",
        had(side),
        gets(),
        number(most)
    )
}

/// A limit with room for rounding.
fn number(value: f64) -> String {
    format!("{:?}", value + 1e-6)
}

/// Patterns as one regular expression in a CEL text; `None` when they take everything.
fn any_of(patterns: &[String]) -> Option<String> {
    if patterns.iter().any(|pattern| pattern == "*") {
        return None;
    }
    let one = |pattern: &String| pattern.split('*').map(escaped).collect::<Vec<_>>().join(".*");
    let all: Vec<_> = patterns.iter().map(one).collect();
    Some(text(&format!("(?s)^({})$", all.join("|"))))
}

fn escaped(literal: &str) -> String {
    literal
        .chars()
        .flat_map(|c| (c.is_ascii() && !c.is_ascii_alphanumeric()).then_some('\\').into_iter().chain([c]))
        .collect()
}

/// A CEL text.
fn text(value: &str) -> String {
    let mut quoted = String::from("'");
    for c in value.chars() {
        match c {
            '\\' | '\'' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "'"
}
