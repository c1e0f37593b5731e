//! What guards let pass, and when.

use super::*;
use crate::health::Severity;
use crate::policy::Policy;
use crate::split::{change, splits};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn every_fixture_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/guards");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        let case: Value = serde_yaml::from_str(&read(&file)).unwrap();
        let found = outcome(&case);
        if found != case["expected"] {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            wrong.push(format!("{name} answers\n{}", serde_yaml::to_string(&found).unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[allow(clippy::disallowed_methods, reason = "a test reads its fixtures")]
fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

/// The route of the fixtures: `{v1: 90, v2: 10}` are weights; null is no route.
pub(super) fn route(weights: &Value) -> Vec<Split> {
    let Value::Object(weights) = weights else { return Vec::new() };
    let refs: Vec<_> = weights
        .iter()
        .map(|(name, weight)| json!({"kind": "MeshService", "name": name, "port": 80, "weight": weight}))
        .collect();
    let to = json!([{"targetRef": {"kind": "MeshService", "name": "summarize"}, "rules": [{"default": {"backendRefs": refs}}]}]);
    let policy = json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
        "metadata": {"name": "summarize", "namespace": "demo"}, "spec": {"to": to}});
    splits(&Policy::read(&policy).unwrap()).0
}

pub(super) fn identity() -> Identity {
    serde_json::from_value(
        json!({"kind": "MeshHTTPRoute", "mesh": "default", "namespace": "demo", "name": "summarize"}),
    )
    .unwrap()
}

fn request(before: &Value, after: &Value, author: Author) -> Request {
    Request { identity: identity(), author, change: change(&route(before), &route(after)).into() }
}

fn record(entry: &Value) -> Record {
    let moved = request(&entry["before"], &entry["after"], Author::Bot);
    let at = entry["time"].as_str().unwrap().parse().unwrap();
    let mut records = judge(&[], &moved, &History::default(), &[], at).records;
    let mut record = records.remove(0);
    record.rollback = entry["rollback"].as_bool().unwrap_or(false);
    record
}

fn author(value: &Value) -> Author {
    match value["name"].as_str() {
        None => Author::Bot,
        Some(name) => Author::Account {
            name: name.to_owned(),
            groups: serde_json::from_value(value.get("groups").cloned().unwrap_or_else(|| json!([]))).unwrap(),
        },
    }
}

fn outcome(case: &Value) -> Value {
    let mut guards = Vec::new();
    let mut refused = Vec::new();
    for guard in case["guards"].as_array().unwrap() {
        match ShiftGuard::read(guard) {
            Ok(guard) => guards.push(guard),
            Err(wrong) => refused.extend(wrong.iter().map(ToString::to_string)),
        }
    }
    let now = case["now"].as_str().unwrap().parse().unwrap();
    refused.extend(contradictions(&guards, now).iter().map(ToString::to_string));
    if !refused.is_empty() {
        return json!({ "guards": refused });
    }
    let request = request(&case["request"]["before"], &case["request"]["after"], author(&case["request"]));
    let records: Vec<_> = case["history"].as_array().into_iter().flatten().map(record).collect();
    let history = History::from(records);
    let approvals = case["approvals"].as_array().into_iter().flatten().map(|approval| {
        let mut approval = approval.clone();
        if approval["digest"] == "this" {
            approval["digest"] = json!(request.change.digest);
        }
        serde_json::from_value(approval).unwrap()
    });
    let approvals: Vec<Approval> = approvals.collect();
    let verdict = judge(&guards, &request, &history, &approvals, now);
    let causes = verdict.causes.iter().map(|cause| {
        let message = cause.message.replace(&request.change.digest[..12], "…");
        format!("{} {:?} {:?} {}: {message}", cause.guard, cause.code, cause.effect, cause.field)
    });
    let mut answer = json!({"outcome": verdict.outcome, "causes": causes.collect::<Vec<_>>()});
    if verdict.records.iter().any(|record| record.rollback) {
        answer["rollback"] = json!(true);
    }
    if verdict.outcome == Outcome::Denied {
        let next = next_allowed(&guards, &request, &history, now);
        answer["next"] = json!(next.map(|next| next.to_string()));
    }
    answer
}

pub(super) fn guard(spec: Value) -> ShiftGuard {
    let guard =
        json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard", "metadata": {"name": "g"}, "spec": spec});
    ShiftGuard::read(&guard).unwrap()
}

fn freeze(cron: &str, duration: &str, zone: &str) -> Freeze {
    let freeze = json!({"cron": cron, "duration": duration, "timeZone": zone, "reason": ""});
    serde_json::from_value(freeze).unwrap()
}

/// `since .. until`, or `-`.
fn held(freeze: &Freeze, at: &str) -> String {
    match freeze.ongoing(at.parse().unwrap()) {
        Some(Ongoing { since, until }) => {
            format!("{since} .. {}", until.map_or("ever".to_owned(), |until| until.to_string()))
        }
        None => "-".to_owned(),
    }
}

#[test]
fn a_freeze_over_the_change_to_summer_lasts_its_hours() {
    // Europe/Berlin, 29 March 2026: 02:00 becomes 03:00. Friday 18:00 CET plus 62 h is Monday 09:00 CEST, not 08:00.
    let weekend = freeze("0 18 * * FRI", "62h", "Europe/Berlin");
    let held_then = "2026-03-27T17:00:00Z .. 2026-03-30T07:00:00Z";
    assert_eq!(held(&weekend, "2026-03-27T16:59:59Z"), "-");
    assert_eq!(held(&weekend, "2026-03-27T17:00:00Z"), held_then);
    assert_eq!(held(&weekend, "2026-03-30T06:59:59Z"), held_then);
    assert_eq!(held(&weekend, "2026-03-30T07:00:00Z"), "-");
}

#[test]
fn a_freeze_over_the_change_to_winter_lasts_its_hours() {
    // 25 October 2026: 03:00 becomes 02:00. Friday 18:00 CEST plus 62 h is Monday 07:00 CET.
    let weekend = freeze("0 18 * * FRI", "62h", "Europe/Berlin");
    assert_eq!(held(&weekend, "2026-10-25T12:00:00Z"), "2026-10-23T16:00:00Z .. 2026-10-26T06:00:00Z");
    assert_eq!(held(&weekend, "2026-10-26T06:00:00Z"), "-");
}

#[test]
fn a_start_that_summer_time_skips_comes_later_and_is_not_lost() {
    let nightly = freeze("30 2 * * *", "1h", "Europe/Berlin");
    assert_eq!(held(&nightly, "2026-03-28T01:45:00Z"), "2026-03-28T01:30:00Z .. 2026-03-28T02:30:00Z");
    // 02:30 does not exist on the 29th: 03:30 CEST is 01:30 UTC.
    assert_eq!(held(&nightly, "2026-03-29T01:45:00Z"), "2026-03-29T01:30:00Z .. 2026-03-29T02:30:00Z");
    assert_eq!(held(&nightly, "2026-03-30T00:45:00Z"), "2026-03-30T00:30:00Z .. 2026-03-30T01:30:00Z");
}

#[test]
fn a_start_that_winter_time_repeats_comes_once() {
    let nightly = freeze("30 2 * * *", "30m", "Europe/Berlin");
    assert_eq!(held(&nightly, "2026-10-25T00:45:00Z"), "2026-10-25T00:30:00Z .. 2026-10-25T01:00:00Z");
    assert_eq!(held(&nightly, "2026-10-25T01:45:00Z"), "-");
}

#[test]
fn a_freeze_at_the_end_of_the_month_knows_how_long_months_are() {
    let closing = freeze("0 0 L * *", "24h", "UTC");
    assert_eq!(held(&closing, "2027-02-28T12:00:00Z"), "2027-02-28T00:00:00Z .. 2027-03-01T00:00:00Z");
    assert_eq!(held(&closing, "2028-02-28T12:00:00Z"), "-");
    assert_eq!(held(&closing, "2028-02-29T12:00:00Z"), "2028-02-29T00:00:00Z .. 2028-03-01T00:00:00Z");
    assert_eq!(held(&closing, "2026-12-31T23:59:59Z"), "2026-12-31T00:00:00Z .. 2027-01-01T00:00:00Z");
    assert_eq!(held(&freeze("0 0 L 1-11 *", "24h", "UTC"), "2026-12-31T12:00:00Z"), "-");
    assert_eq!(held(&freeze("0 0 31 * *", "24h", "UTC"), "2026-11-30T12:00:00Z"), "-");
}

#[test]
fn starts_that_overlap_are_one_freeze() {
    let holidays = freeze("0 0 24-26 12 *", "30h", "UTC");
    assert_eq!(held(&holidays, "2026-12-24T01:00:00Z"), "2026-12-24T00:00:00Z .. 2026-12-27T06:00:00Z");
    let always = freeze("0 * * * *", "1h", "UTC");
    assert!(held(&always, "2026-12-24T01:00:00Z").ends_with(".. ever"));
    assert!(held(&freeze("* * * * *", "62h", "UTC"), "2026-12-24T01:00:00Z").ends_with(".. ever"));
}

#[test]
fn a_length_of_time_reads_as_people_write_it() {
    for (text, seconds) in [("10m", 600), ("1h", 3600), ("62h", 223_200), ("1h30m", 5400), ("7d", 604_800), ("90s", 90)]
    {
        let period: Period = text.parse().unwrap();
        assert_eq!(period.0.as_secs(), seconds);
        assert_eq!(period.to_string().parse(), Ok(period));
    }
    for text in ["", "0s", "-1h", "1", "h", "1m1h", "1.5h", "400d", "1h ", "99999999999999999999s", "1µ"] {
        assert!(text.parse::<Period>().is_err(), "{text}");
    }
}

#[test]
fn a_star_stands_for_any_text() {
    for (pattern, text) in [("*", ""), ("a*", "a"), ("a*c", "abc"), ("*b*", "abc"), ("a*b*c", "aXbYbc"), ("a", "a")] {
        assert!(glob(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [("a", "ab"), ("a*", "ba"), ("ab*ba", "aba"), ("*b*c", "abd"), ("", "a"), ("a*a", "a")] {
        assert!(!glob(pattern, text), "{pattern} {text}");
    }
}

#[test]
fn the_largest_step_is_the_strictest_of_the_guards_that_fit() {
    let split = &route(&json!({"v1": 90, "v2": 10}))[0];
    let guards = [
        guard(json!({"caps": {"maxStep": 20}})),
        guard(json!({"caps": {"maxStep": 15, "perWindow": {"shift": 12, "window": "1h"}}, "enforcement": "Warn"})),
        guard(json!({"caps": {"maxStep": 5}, "match": {"services": ["other"]}})),
        guard(json!({"caps": {"maxStep": 1}, "enforcement": "Audit"})),
    ];
    assert_eq!(max_step(&guards, &identity(), split), Some(12.0));
    assert_eq!(max_step(&guards[2..], &identity(), split), None);
}

#[test]
fn an_approval_is_read_strictly() {
    let mut approval = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftApproval", "metadata": {"name": "a"},
        "spec": {"digest": "0".repeat(64), "approver": "ana", "created": "2026-11-25T00:00:00Z", "expires": null}});
    assert_eq!(Approval::read(&approval).unwrap().approver, "ana");
    let spec = approval["spec"].as_object_mut().unwrap();
    let created = spec.remove("created").unwrap();
    assert!(Approval::read(&approval).unwrap_err()[0].message.contains("created"));
    approval["metadata"]["creationTimestamp"] = json!("2026-11-25T06:00:00Z");
    assert_eq!(Approval::read(&approval).unwrap().created, "2026-11-25T06:00:00Z".parse().unwrap());
    approval["spec"]["created"] = created;
    approval["spec"]["digest"] = json!("0123");
    approval["spec"]["expires"] = json!("2026-11-24T00:00:00Z");
    let wrong: Vec<_> = Approval::read(&approval).unwrap_err().iter().map(|wrong| wrong.field.to_string()).collect();
    assert_eq!(wrong, ["spec.digest", "spec.expires"]);
    approval["spec"]["created"] = json!("yesterday");
    approval["spec"]["extra"] = json!(1);
    let wrong: Vec<_> = Approval::read(&approval).unwrap_err().iter().map(|wrong| wrong.field.to_string()).collect();
    assert!(wrong.contains(&"spec.created".to_owned()) && wrong.contains(&"spec.extra".to_owned()), "{wrong:?}");
}

#[test]
fn a_schema_knows_what_guards_and_approvals_hold() {
    let schema = json!(schemars::schema_for!(Spec));
    let of = |path: &str| schema.pointer(path).unwrap_or_else(|| panic!("no {path} in {schema:#}"));
    assert_eq!(of("/$defs/Freeze/properties/cron/type"), "string");
    assert_eq!(of("/$defs/PerWindow/properties/window/type"), "string");
    assert_eq!(of("/$defs/Severity/enum"), &json!(["info", "low", "medium", "high", "critical"]));
    let schema = json!(schemars::schema_for!(Approval));
    assert_eq!(schema["required"], json!(["digest", "approver"]));
    assert_eq!(schema["properties"]["expires"]["format"], "date-time");
}

#[test]
fn a_severity_may_be_said_in_older_words() {
    for (text, severity) in [("warning", Severity::Medium), ("error", Severity::High), ("critical", Severity::Critical)]
    {
        let health: Health = serde_json::from_value(json!({"denySeverity": text})).unwrap();
        assert_eq!(health.deny_severity, Some(severity));
    }
}

#[test]
fn a_record_keeps_its_meaning_as_json() {
    let moved = request(&json!({"v1": 90, "v2": 10}), &json!({"v1": 80, "v2": 20}), Author::Bot);
    let now = "2026-11-25T00:00:00Z".parse().unwrap();
    let records = judge(&[], &moved, &History::default(), &[], now).records;
    let text = serde_json::to_string(&records).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Record>>(&text).unwrap(), records);
}

/// Lets automation try to reach `steps` one after the other, a time apart; gives back what was admitted.
fn climb(guards: &[ShiftGuard], steps: &[(u32, i64)]) -> Vec<Record> {
    let mut history = History::default();
    let mut now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
    let mut at = 0;
    for (percent, wait) in steps {
        now = now.saturating_add(SignedDuration::from_secs(*wait)).unwrap();
        let weights = |canary: u32| json!({"v1": 100 - canary, "v2": canary});
        let request = request(&weights(at), &weights(*percent), Author::Bot);
        let verdict = judge(guards, &request, &history, &[], now);
        if verdict.outcome != Outcome::Denied {
            history.extend(verdict.records);
            at = *percent;
        }
    }
    history.records.iter().map(|record| Record::clone(record)).collect()
}

fn any_steps() -> impl Strategy<Value = Vec<(u32, i64)>> {
    prop::collection::vec((0u32..=100, 0i64..4000), 1..40)
}

#[test]
fn many_small_steps_are_caught_by_the_window() {
    let guards = [guard(json!({"caps": {"maxStep": 10, "perWindow": {"shift": 30, "window": "1h"}}}))];
    let steps: Vec<_> = (1..=100).map(|percent| (percent, 1)).collect();
    let admitted = climb(&guards, &steps);
    assert_eq!(admitted.len(), 30);
}

#[test]
fn deleting_and_creating_is_no_way_around() {
    let guards = [guard(json!({"caps": {"maxStep": 10}}))];
    let (split, now) = (json!({"v1": 90, "v2": 10}), "2026-11-25T00:00:00Z".parse().unwrap());
    for (before, after) in [(&split, &Value::Null), (&Value::Null, &json!({"v2": 1}))] {
        let verdict = judge(&guards, &request(before, after, Author::Bot), &History::default(), &[], now);
        assert_eq!(verdict.outcome, Outcome::Denied);
        assert!((verdict.records[0].shift - 100.0).abs() < NOISE);
    }
}

#[test]
fn two_ports_of_a_canary_are_one_canary() {
    let refs = |second: u32| {
        json!([{"kind": "MeshService", "name": "v1", "port": 80, "weight": 20},
               {"kind": "MeshService", "name": "v2", "port": 80, "weight": 40},
               {"kind": "MeshService", "name": "v2", "port": 81, "weight": second}])
    };
    let of = |refs: Value| {
        let to =
            json!([{"targetRef": {"kind": "MeshService", "name": "s"}, "rules": [{"default": {"backendRefs": refs}}]}]);
        let policy = json!({"type": "MeshHTTPRoute", "name": "summarize", "spec": {"to": to}});
        splits(&Policy::read(&policy).unwrap()).0
    };
    let change = change(&of(refs(0)), &of(refs(40)));
    let request = Request { identity: identity(), author: Author::Bot, change: change.into() };
    let guards = [guard(json!({"caps": {"maxShare": 70}}))];
    let verdict = judge(&guards, &request, &History::default(), &[], "2026-11-25T00:00:00Z".parse().unwrap());
    assert_eq!(verdict.causes.iter().map(|cause| cause.code).collect::<Vec<_>>(), [Code::MaxShare]);
}

proptest! {
    #[test]
    fn a_freeze_holds_from_each_start_for_its_hours(minute in 0i64..1_100_000, start in 0i64..1440, hours in 1i64..90) {
        // All of 2026 and 2027 in Berlin, against every date's start looked up one by one.
        let zone = jiff::tz::TimeZoneDatabase::bundled().get("Europe/Berlin").unwrap();
        let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let now = begin.saturating_add(SignedDuration::from_mins(minute)).unwrap();
        let nightly = freeze(&format!("{} {} * * *", start % 60, start / 60), &format!("{hours}h"), "Europe/Berlin");
        let holds = (-6..=1).any(|days| {
            let date = zone.to_datetime(now).date().saturating_add(SignedDuration::from_hours(24 * days));
            let at = zone.to_timestamp(date.at((start / 60) as i8, (start % 60) as i8, 0, 0)).unwrap();
            at <= now && now.duration_since(at) < SignedDuration::from_hours(hours)
        });
        prop_assert_eq!(nightly.ongoing(now).is_some(), holds);
    }

    #[test]
    fn a_freeze_that_was_asked_before_answers_like_one_that_was_not(
        cron in prop::sample::select(vec![
            "0 18 * * FRI", "30 2 * * *", "*/20 1-3 * * *", "0 0 L * *", "15,45 * * * *", "0 0 29 2 *",
        ]),
        minutes in prop::sample::select(vec![1i64, 10, 30, 60, 90, 1440, 3720]),
        zone in prop::sample::select(vec!["Europe/Berlin", "UTC", "America/Sao_Paulo", "Australia/Lord_Howe"]),
        start in prop::sample::select(vec!["2026-03-27T00:00:00Z", "2026-10-23T00:00:00Z", "2026-04-03T12:00:00Z"]),
        steps in prop::collection::vec(-7200i64..14_400, 1..12),
    ) {
        let asked = freeze(cron, &format!("{minutes}m"), zone);
        let new = asked.clone();
        let mut now: Timestamp = start.parse().unwrap();
        for seconds in steps {
            now = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
            for near in [0, -2, 59] {
                let now = now.saturating_add(SignedDuration::from_secs(near)).unwrap();
                prop_assert_eq!(asked.ongoing(now), new.clone().ongoing(now), "{}", now);
            }
        }
    }

    #[test]
    fn no_window_ever_holds_more_than_its_cap(steps in any_steps(), cap in 1u32..60) {
        let guards = [guard(json!({"caps": {"perWindow": {"shift": cap, "window": "1h"}}}))];
        let admitted = climb(&guards, &steps);
        for last in &admitted {
            let since = last.time.saturating_sub(SignedDuration::from_hours(1)).unwrap();
            let inside = admitted.iter().filter(|record| record.time > since && record.time <= last.time && !record.rollback);
            prop_assert!(inside.map(|record| record.shift).sum::<f64>() <= f64::from(cap) + NOISE);
        }
    }

    #[test]
    fn no_step_is_ever_larger_than_its_cap(steps in any_steps(), cap in 1u32..60) {
        let guards = [guard(json!({"caps": {"maxStep": cap}}))];
        for record in climb(&guards, &steps).iter().filter(|record| !record.rollback) {
            prop_assert!(record.shift <= f64::from(cap) + NOISE);
        }
    }

    #[test]
    fn the_way_back_to_the_stable_split_is_always_open(steps in any_steps(), wait in 0i64..80_000) {
        let caps = json!({"maxStep": 10, "perWindow": {"shift": 30, "window": "1h"}, "minInterval": "10m", "maxShare": 50});
        let freeze = json!([{"cron": "* * * * *", "duration": "1h"}]);
        let open = [guard(json!({"caps": caps}))];
        let shut = [guard(json!({"caps": caps, "freeze": freeze}))];
        let records = climb(&open, &steps);
        prop_assume!(!records.is_empty());
        let last = records.last().unwrap().clone();
        let (at, now) = (&last.rules[0].after, last.time.saturating_add(SignedDuration::from_secs(wait)).unwrap());
        let canary = at.iter().find(|(service, _)| service.as_str().starts_with("v2")).map_or(0.0, |(_, share)| share);
        prop_assume!(canary > 0.0 && records.windows(2).all(|pair| pair[1].time.duration_since(pair[0].time).as_hours() < 24));
        let back = request(&json!({"v1": 100 - canary as u32, "v2": canary as u32}), &json!({"v1": 1}), Author::Bot);
        let verdict = judge(&shut, &back, &History::from(records), &[], now);
        prop_assert_eq!(verdict.outcome, Outcome::Allowed);
        prop_assert!(verdict.records[0].rollback);
    }

    #[test]
    fn what_waits_as_told_passes(steps in any_steps(), goal in 0u32..=100) {
        let caps = json!({"maxStep": 30, "perWindow": {"shift": 30, "window": "1h"}, "minInterval": "10m"});
        let guards = [guard(json!({"caps": caps, "freeze": [{"cron": "0 3 * * *", "duration": "2h", "timeZone": "Europe/Berlin"}]}))];
        let records = climb(&guards, &steps);
        let Some(last) = records.last().cloned() else { return Ok(()) };
        let share = last.rules[0].after.iter().find(|(service, _)| service.as_str().starts_with("v2")).map_or(0, |(_, share)| share as u32);
        let weights = |canary: u32| json!({"v1": 100 - canary, "v2": canary});
        let request = request(&weights(share), &weights(goal), Author::Bot);
        let history = History::from(records);
        let next = next_allowed(&guards, &request, &history, last.time);
        if request.change.shift <= 30.0 {
            prop_assert!(next.is_some());
        }
        if let Some(next) = next {
            prop_assert_ne!(judge(&guards, &request, &history, &[], next).outcome, Outcome::Denied);
        }
    }
}
