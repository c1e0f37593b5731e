//! What becomes of a reservation, and what a ledger remembers.

use super::*;
use crate::guard::tests::{guard, identity, route};
use crate::guard::{Author, Concern, Outcome, Request, ShiftGuard, judge};
use crate::split::change;
use proptest::prelude::*;
use serde_json::{Value, json};

const TERMS: Terms =
    Terms { lease: SignedDuration::from_secs(60), tolerance: SignedDuration::from_secs(4), watched: true };

fn at(seconds: i64) -> Timestamp {
    let begin: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
    begin.saturating_add(SignedDuration::from_secs(seconds)).unwrap()
}

fn weights(canary: u32) -> Value {
    json!({"v1": 100 - canary, "v2": canary})
}

fn empty() -> Ledger {
    Ledger::new("default", ServiceKey::from("summarize.demo"))
}

fn cover() -> Cover {
    let cover = Cover::least("default", ServiceKey::from("summarize.demo"));
    Cover { settle: SignedDuration::from_hours(24), ..cover }
}

fn asked(from: &Value, to: &Value, version: Option<&str>, now: i64) -> (Mark, Record) {
    let request =
        Request { identity: identity(), author: Author::Bot, change: change(&route(from), &route(to)).into() };
    let record = judge(&[], &request, &History::default(), &[], at(now)).records.remove(0);
    let digest = empty().digest(&route(to));
    (Mark { policy: identity(), uid: "u".into(), version: version.map(Into::into), digest }, record)
}

fn reserve(ledger: &mut Ledger, (mark, record): (Mark, Record)) -> bool {
    ledger.reserve(&mark, record, "a", &cover(), &TERMS).is_some()
}

/// Sees the route with these weights; null is no route.
fn see(ledger: &mut Ledger, version: &str, weights: &Value, now: i64) -> Noted {
    let (policy, splits) = (identity(), route(weights));
    let (gone, now) = (weights.is_null(), at(now));
    let sight = sight(&policy, version, &splits, gone);
    ledger.observe(&Sight { at: Some(now), ..sight }, cover().settle, &TERMS, now)
}

fn sight<'a>(policy: &'a Identity, version: &'a str, splits: &'a [Split], gone: bool) -> Sight<'a> {
    Sight { policy, uid: "u", version: Some(version), splits, before: None, gone, fresh: false, at: None }
}

/// A ledger with one reservation, from 10 to 20 % on version 5.
fn reserved() -> Ledger {
    let mut ledger = empty();
    see(&mut ledger, "5", &weights(10), 0);
    assert!(reserve(&mut ledger, asked(&weights(10), &weights(20), Some("5"), 0)));
    ledger
}

const CONFIRMED: Noted = Noted { confirmed: 1, dropped: 0, observed: 0 };
const DROPPED: Noted = Noted { confirmed: 0, dropped: 1, observed: 0 };
const OBSERVED: Noted = Noted { confirmed: 0, dropped: 0, observed: 1 };
const NOTHING: Noted = Noted { confirmed: 0, dropped: 0, observed: 0 };

#[test]
fn a_reservation_is_confirmed_by_a_newer_object_with_its_splits() {
    let mut ledger = reserved();
    assert_eq!(see(&mut ledger, "5", &weights(10), 1), NOTHING);
    assert_eq!(see(&mut ledger, "6", &weights(20), 2), CONFIRMED);
    assert_eq!(ledger.entries[0].record.time, at(2));
    assert_eq!(ledger.outstanding().count(), 0);
}

#[test]
fn a_reservation_is_void_once_the_object_is_newer_with_other_splits() {
    let mut ledger = reserved();
    assert_eq!(see(&mut ledger, "6", &weights(10), 1), DROPPED);
    assert!(ledger.entries.is_empty());
    let mut ledger = reserved();
    assert_eq!(see(&mut ledger, "6", &weights(15), 1), Noted { observed: 1, ..DROPPED });
}

#[test]
fn versions_are_numbers_and_not_texts() {
    let mut ledger = empty();
    see(&mut ledger, "9", &weights(10), 0);
    reserve(&mut ledger, asked(&weights(10), &weights(20), Some("9"), 0));
    assert_eq!(see(&mut ledger, "10", &weights(20), 1), CONFIRMED);
    assert_eq!(see(&mut ledger, "9", &weights(10), 1), NOTHING);
}

#[test]
fn two_changes_of_one_version_cannot_both_happen() {
    let mut ledger = reserved();
    reserve(&mut ledger, asked(&weights(10), &weights(12), Some("5"), 0));
    assert_eq!(see(&mut ledger, "6", &weights(12), 1), Noted { confirmed: 1, dropped: 1, observed: 0 });
    assert_eq!(ledger.entries.len(), 1);
    assert!((ledger.entries[0].record.shift - 2.0).abs() < 1e-9);
}

#[test]
fn a_lease_that_is_over_ends_with_a_fresh_look_only() {
    let (policy, splits) = (identity(), route(&weights(10)));
    let look = sight(&policy, "5", &splits, false);
    let fresh = Sight { fresh: true, ..look };
    for (sight, now, noted) in [(look, 64, NOTHING), (fresh, 63, NOTHING), (fresh, 64, DROPPED)] {
        assert_eq!(reserved().observe(&sight, cover().settle, &TERMS, at(now)), noted, "{now}");
    }
    // Without a watch the object's own review is all there is.
    let alone = Terms { watched: false, ..TERMS };
    assert_eq!(reserved().observe(&look, cover().settle, &alone, at(64)), DROPPED);
}

#[test]
fn the_same_change_counts_once() {
    let mut ledger = reserved();
    let retry = asked(&weights(10), &weights(20), Some("5"), 50);
    assert!(!reserve(&mut ledger, retry));
    assert_eq!(ledger.entries.len(), 1);
    assert_eq!(ledger.entries[0].reserved.as_ref().unwrap().until, at(110));
    // After a conflict the version is another one.
    see(&mut ledger, "6", &weights(10), 51);
    let retry = asked(&weights(10), &weights(20), Some("6"), 52);
    reserve(&mut ledger, retry.clone());
    let mut history = History::default();
    ledger.tell(&mut history, Some(&retry.0), &TERMS, at(53));
    assert!(history.records.is_empty());
    ledger.tell(&mut history, None, &TERMS, at(53));
    assert_eq!(history.records.len(), 1);
}

#[test]
fn a_review_of_a_version_that_is_gone_reserves_nothing() {
    let mut ledger = reserved();
    assert_eq!(see(&mut ledger, "6", &weights(20), 1), CONFIRMED);
    // Another writer read version 5 too, and comes to the same splits too late.
    assert!(!reserve(&mut ledger, asked(&weights(10), &weights(20), Some("5"), 2)));
    assert_eq!(see(&mut ledger, "7", &weights(20), 3), NOTHING);
    assert_eq!(ledger.entries.len(), 1);
    // The same with a deletion.
    assert!(reserve(&mut ledger, asked(&weights(20), &Value::Null, Some("7"), 4)));
    assert_eq!(see(&mut ledger, "8", &Value::Null, 5), CONFIRMED);
    assert!(!reserve(&mut ledger, asked(&weights(20), &Value::Null, Some("7"), 6)));
    assert_eq!(ledger.outstanding().count(), 0);
}

#[test]
fn what_is_given_back_is_gone() {
    let mut ledger = reserved();
    assert!(ledger.release(&asked(&weights(10), &weights(20), Some("5"), 0).0, at(60)));
    assert!(ledger.entries.is_empty());
}

#[test]
fn what_was_admitted_once_more_is_not_given_back() {
    let mut ledger = reserved();
    // At the same moment, by the same replica: another client, or the same one again.
    assert!(!reserve(&mut ledger, asked(&weights(10), &weights(20), Some("5"), 0)));
    assert!(!ledger.release(&asked(&weights(10), &weights(20), Some("5"), 0).0, at(60)));
    assert_eq!(ledger.outstanding().count(), 1);
    // The object was touched, which made the first one void.
    let mut ledger = reserved();
    assert_eq!(see(&mut ledger, "6", &weights(10), 0), DROPPED);
    assert!(reserve(&mut ledger, asked(&weights(10), &weights(20), Some("6"), 0)));
    assert!(!ledger.release(&asked(&weights(10), &weights(20), Some("5"), 0).0, at(60)));
    assert_eq!(ledger.outstanding().count(), 1);
}

#[test]
fn creating_is_confirmed_by_the_new_uid_and_deleting_by_its_absence() {
    let mut ledger = empty();
    reserve(&mut ledger, asked(&Value::Null, &weights(10), None, 0));
    assert_eq!(see(&mut ledger, "7", &weights(10), 1), CONFIRMED);
    reserve(&mut ledger, asked(&weights(10), &Value::Null, Some("7"), 2));
    assert_eq!(see(&mut ledger, "7", &weights(10), 3), NOTHING);
    assert_eq!(see(&mut ledger, "7", &Value::Null, 4), CONFIRMED);
    // An object created once more under the name proves it too.
    let mut ledger = empty();
    see(&mut ledger, "7", &weights(10), 0);
    reserve(&mut ledger, asked(&weights(10), &Value::Null, Some("7"), 1));
    let mut other = asked(&Value::Null, &weights(30), None, 2);
    other.0.uid = "w".into();
    reserve(&mut ledger, other);
    let (policy, splits) = (identity(), route(&weights(30)));
    let sight = Sight { uid: "w", ..sight(&policy, "9", &splits, false) };
    assert_eq!(ledger.observe(&sight, cover().settle, &TERMS, at(3)), Noted { confirmed: 2, ..NOTHING });
}

#[test]
fn a_creation_that_was_refused_is_dropped_after_its_lease() {
    let mut ledger = empty();
    reserve(&mut ledger, asked(&Value::Null, &weights(10), None, 0));
    let policy = identity();
    let absent = Sight { version: None, fresh: true, ..sight(&policy, "", &[], true) };
    assert_eq!(ledger.observe(&absent, cover().settle, &TERMS, at(30)), NOTHING);
    assert_eq!(ledger.observe(&absent, cover().settle, &TERMS, at(65)), DROPPED);
}

#[test]
fn a_move_that_nobody_admitted_is_noticed_and_counts() {
    let mut ledger = empty();
    assert_eq!(see(&mut ledger, "5", &weights(10), 0), NOTHING);
    assert_eq!(see(&mut ledger, "8", &weights(35), 100), OBSERVED);
    assert_eq!(see(&mut ledger, "7", &weights(10), 101), NOTHING, "what is older says nothing");
    let entry = &ledger.entries[0];
    assert!(entry.observed && (entry.record.shift - 25.0).abs() < 1e-9 && !entry.record.rollback);
    // Its way back is a rollback, as if it had been admitted.
    assert_eq!(see(&mut ledger, "9", &weights(10), 200), OBSERVED);
    assert!(ledger.entries[1].record.rollback);
    assert_eq!(see(&mut ledger, "9", &Value::Null, 300), OBSERVED);
    assert!((ledger.entries[2].record.shift - 100.0).abs() < 1e-9);
}

#[test]
fn the_way_back_of_a_young_or_pending_canary_is_a_rollback() {
    let guards = [guard(json!({"caps": {"maxStep": 5}, "freeze": [{"cron": "* * * * *", "duration": "1h"}]}))];
    let back = |ledger: &Ledger, now: i64| {
        let change = change(&route(&weights(20)), &route(&weights(10)));
        let request = Request { identity: identity(), author: Author::Bot, change: change.into() };
        let mut history = History::default();
        ledger.tell(&mut history, None, &TERMS, at(now));
        judge(&guards, &request, &history, &[], at(now)).outcome
    };
    let mut ledger = reserved();
    assert_eq!(back(&ledger, 1), Outcome::Allowed, "still pending");
    see(&mut ledger, "6", &weights(20), 2);
    assert_eq!(back(&ledger, 3600), Outcome::Allowed, "young");
    assert_eq!(back(&ledger, 30 * 3600), Outcome::Denied, "it stood for settle, so it is the stable split");
}

#[test]
fn a_name_is_readable_unique_and_what_kubernetes_takes() {
    let name = |mesh: &str, destination: &str| Ledger::name(mesh, &ServiceKey::from(destination));
    assert!(name("default", "summarize.demo").starts_with("default-summarize-demo-"));
    assert_ne!(name("a", "b-c"), name("a-b", "c"));
    assert_ne!(name("default", "x{version=v1}"), name("default", "x{version=v2}"));
    for (mesh, destination) in [("", ""), ("ä", "ß"), ("Mesh", "A_b{c@d}"), (&"m".repeat(300), &"-".repeat(300))] {
        let name = name(mesh, destination);
        assert!(name.len() <= 63 && !name.starts_with('-') && !name.ends_with('-'), "{name}");
        assert!(name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-'));
    }
}

#[test]
fn a_ledger_keeps_its_meaning_as_json_and_has_a_schema() {
    let ledger = reserved();
    let value = serde_json::to_value(&ledger).unwrap();
    assert_eq!(serde_json::from_value::<Ledger>(value.clone()).unwrap(), ledger);
    let schema = json!(schemars::schema_for!(Ledger));
    assert!(jsonschema::is_valid(&schema, &value), "{value:#}");
    assert!(!jsonschema::is_valid(&schema, &json!({"mesh": "default"})));
}

fn steps(policies: usize, steps: usize, apart: i64) -> Ledger {
    let mut ledger = empty();
    for step in 0..steps {
        let (from, to) = (weights(step as u32 % 50), weights(step as u32 % 50 + 1));
        let mut asked = asked(&from, &to, Some(&step.to_string()), step as i64 * apart);
        asked.1.policy.name = format!("p{}", step % policies);
        reserve(&mut ledger, asked);
        let last = ledger.entries.len() - 1;
        ledger.entries[last].reserved = None;
    }
    ledger
}

#[test]
fn many_small_steps_are_told_in_fewer_words_and_their_sum_stays() {
    for policies in [1, 7, 400] {
        let ledger = steps(policies, 700, 1);
        assert!(ledger.entries.len() <= 256);
        let sum: f64 = ledger.entries.iter().map(|entry| entry.record.shift).sum();
        assert!((sum - 700.0).abs() < 1e-6, "{sum}");
        assert!(ledger.entries.windows(2).all(|pair| pair[0].record.time <= pair[1].record.time));
    }
}

#[test]
fn outstanding_reservations_are_bounded_too() {
    let mut ledger = empty();
    for step in 0..600 {
        let (from, to) = (weights(step % 50), weights(step % 50 + 1));
        let mut asked = asked(&from, &to, Some(&step.to_string()), 0);
        asked.0.uid = format!("u{step}");
        reserve(&mut ledger, asked);
    }
    assert!(ledger.entries.len() <= 256);
    let sum: f64 = ledger.entries.iter().map(|entry| entry.record.shift).sum();
    assert!((sum - 600.0).abs() < 1e-6, "{sum}");
}

#[test]
fn what_no_guard_asks_about_is_forgotten_and_the_stable_split_is_not() {
    // Steps twenty hours apart are one run: its beginning stays the stable split however long it lasts.
    let ledger = steps(1, 30, 20 * 3600);
    assert!(ledger.entries.len() <= 4, "{}", ledger.entries.len());
    let first = &ledger.entries[0].record;
    assert_eq!(first.rules[0].before, route(&weights(0))[0].shares());
    // Two days apart, each is a run of its own.
    assert_eq!(steps(1, 30, 48 * 3600).entries.len(), 1);
}

/// A route of many rules with long matches, all at the same weights.
fn wide(rules: usize, canary: u32, letters: usize) -> Vec<Split> {
    let rules: Vec<_> = (0..rules)
        .map(|rule| {
            let refs = json!([{"kind": "MeshService", "name": "v1", "port": 80, "weight": 100 - canary},
                              {"kind": "MeshService", "name": "v2", "port": 80, "weight": canary}]);
            let path = format!("/{}/{rule}", "x".repeat(letters));
            json!({"matches": [{"path": {"type": "Exact", "value": path}}], "default": {"backendRefs": refs}})
        })
        .collect();
    let to = json!([{"targetRef": {"kind": "MeshService", "name": "summarize"}, "rules": rules}]);
    let policy = json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
        "metadata": {"name": "summarize", "namespace": "demo"}, "spec": {"to": to}});
    crate::split::splits(&crate::policy::Policy::read(&policy).unwrap()).0
}

#[test]
fn a_wide_route_fits_and_all_of_its_rules_may_go_back() {
    let guards = [guard(json!({"caps": {"maxStep": 5}}))];
    let mut ledger = empty();
    for step in 0..40u32 {
        let (old, new) = (wide(200, step, 2000), wide(200, step + 1, 2000));
        let request = Request { identity: identity(), author: Author::Bot, change: change(&old, &new).into() };
        let record = judge(&guards, &request, &History::default(), &[], at(i64::from(step))).records.remove(0);
        let (digest, version) = (ledger.digest(&new), Some(step.to_string()));
        reserve(&mut ledger, (Mark { policy: identity(), uid: "u".into(), version, digest }, record));
        let version = (step + 1).to_string();
        let policy = identity();
        let noted = ledger.observe(&sight(&policy, &version, &new, false), cover().settle, &TERMS, at(i64::from(step)));
        assert_eq!(noted, CONFIRMED);
    }
    let bytes = serde_json::to_string(&ledger).unwrap().len();
    assert!(bytes <= 256 * 1024, "{bytes}");
    let change = change(&wide(200, 40, 2000), &wide(200, 0, 2000));
    let request = Request { identity: identity(), author: Author::Bot, change: change.into() };
    let mut history = History::default();
    ledger.tell(&mut history, None, &TERMS, at(100));
    let verdict = judge(&guards, &request, &history, &[], at(100));
    assert_eq!(verdict.outcome, Outcome::Allowed);
    assert!(verdict.records[0].rollback);
}

#[test]
fn only_what_guards_cover_has_a_ledger() {
    let guards: Vec<ShiftGuard> = vec![
        guard(json!({"match": {"services": ["summarize"]}, "caps": {"perWindow": {"shift": 30, "window": "7d"}}})),
        guard(json!({"match": {"services": ["other"]}, "settle": "300d"})),
    ];
    let change = change(&route(&weights(10)), &route(&weights(20)));
    let request = Request { identity: identity(), author: Author::Bot, change: change.into() };
    let found = Concern::of(&guards, &request).covers();
    let expected = Cover { keep: SignedDuration::from_hours(7 * 24), ..cover() };
    assert_eq!(found, [expected]);
    assert_eq!(covered_splits(&guards, &identity(), &route(&weights(10))), found);
    assert!(Concern::of(&guards[1..], &request).covers().is_empty());
    // Of a route that is gone the ledger alone tells what guards cover.
    assert_eq!(Cover::of_ledger(&guards, &identity(), &empty()), found[0]);
    let least = Cover::least("default", ServiceKey::from("summarize.demo"));
    assert_eq!(Cover::of_ledger(&guards[1..], &identity(), &empty()), least);
}

proptest! {
    #[test]
    fn no_sequence_of_sights_makes_a_ledger_unreadable(
        sights in prop::collection::vec((0u32..=100, 0u64..30, 0u8..4, any::<bool>(), 0i64..90), 1..40),
    ) {
        let mut ledger = empty();
        let mut now = 0;
        for (canary, version, kind, fresh, wait) in sights {
            now += wait;
            let (policy, version) = (identity(), version.to_string());
            let splits = if kind == 0 { Vec::new() } else { route(&weights(canary)) };
            let text = if kind == 3 { "odd" } else { version.as_str() };
            let sight = Sight { fresh, at: Some(at(now)), ..sight(&policy, text, &splits, kind == 0) };
            ledger.observe(&sight, cover().settle, &TERMS, at(now));
            if kind == 2 && canary != 50 {
                reserve(&mut ledger, asked(&weights(canary), &weights(100 - canary), Some(&version), now));
            }
            ledger.bound(&cover(), at(now));
            prop_assert!(ledger.policies.len() <= 1);
            prop_assert!(ledger.entries.windows(2).all(|pair| pair[0].record.time <= pair[1].record.time));
            let value = serde_json::to_value(&ledger).unwrap();
            prop_assert_eq!(&serde_json::from_value::<Ledger>(value).unwrap(), &ledger);
        }
    }
}

/// An object of 10 % is removed, and another with 1 % is created in its place.
fn replaced(again: bool) -> (Ledger, Noted) {
    let mut ledger = empty();
    see(&mut ledger, "5", &weights(10), 0);
    let removal = |now| asked(&weights(10), &Value::Null, Some("5"), now);
    reserve(&mut ledger, removal(1));
    let (mark, record) = asked(&Value::Null, &weights(1), None, 2);
    reserve(&mut ledger, (Mark { uid: "b".into(), ..mark }, record));
    if again {
        // Somebody else removes it too; that review was on its way for long.
        assert!(!reserve(&mut ledger, removal(3)));
    } else {
        // Whoever sees it has a clock that is ahead.
        assert_eq!(see(&mut ledger, "6", &Value::Null, 9), CONFIRMED);
    }
    let (policy, splits) = (identity(), route(&weights(1)));
    let sight = Sight { uid: "b", at: Some(at(4)), ..sight(&policy, "7", &splits, false) };
    let noted = ledger.observe(&sight, cover().settle, &TERMS, at(4));
    (ledger, noted)
}

#[test]
fn an_object_is_removed_before_another_of_its_name_is_created() {
    for again in [false, true] {
        let (ledger, noted) = replaced(again);
        assert_eq!(noted, Noted { confirmed: 1 + usize::from(again), ..NOTHING });
        let [removal, creation] = &ledger.entries[..] else { panic!("{:?}", ledger.entries) };
        assert_eq!((&*removal.uid, &*creation.uid), ("u", "b"));
        assert!(at(2) <= removal.record.time && removal.record.time <= creation.record.time);
        // The run of shifts began at 10 %.
        let mut history = History::default();
        ledger.tell(&mut history, None, &TERMS, at(10));
        let step = change(&route(&weights(1)), &route(&weights(4)));
        let stable = history.stable(&identity(), (0, &step.rules[0]), cover().settle, at(10));
        let canary = stable.iter().find(|(service, _)| service.as_str().contains("v2")).map(|(_, share)| share);
        assert_eq!(canary, Some(10.0));
    }
}

/// Like [`weights`], where the destination itself is the stable backend.
fn plain(canary: u32) -> Value {
    json!({"summarize": 100 - canary, "v2": canary})
}

#[test]
fn asking_to_create_what_exists_does_not_open_the_way_to_nothing() {
    let way = |ledger: &Ledger| {
        let (mark, record) = asked(&plain(10), &plain(0), Some("5"), 5);
        let mut history = History::default();
        ledger.tell(&mut history, Some(&mark), &TERMS, at(5));
        let step = change(&route(&plain(10)), &route(&plain(0)));
        let request = Request { identity: identity(), author: Author::Bot, change: step.into() };
        let guards = [guard(json!({"caps": {"perWindow": {"shift": 8, "window": "1h"}}}))];
        let verdict = judge(&guards, &request, &history, &[], at(5));
        (verdict.outcome, record.shift)
    };
    let create = |ledger: &mut Ledger, uid: String, canary: u32| {
        let (mark, record) = asked(&Value::Null, &plain(canary), None, 1);
        assert!(reserve(ledger, (Mark { uid, ..mark }, record)));
    };
    let mut ledger = empty();
    see(&mut ledger, "5", &plain(10), 0);
    create(&mut ledger, "b".into(), 1);
    assert_eq!(way(&ledger), (Outcome::Denied, 10.0));
    // Not even when there are so many that they are told in fewer words.
    for round in 0..300 {
        create(&mut ledger, round.to_string(), 1);
    }
    assert!(ledger.entries.iter().any(|entry| entry.reserved.is_none()));
    assert_eq!(way(&ledger), (Outcome::Denied, 10.0));
}

#[test]
fn what_happened_nobody_knows_when_counts_as_if_it_just_had() {
    let mut ledger = reserved();
    let (policy, splits) = (identity(), route(&weights(20)));
    ledger.observe(&sight(&policy, "6", &splits, false), cover().settle, &TERMS, at(50));
    assert_eq!(ledger.entries[0].record.time, at(50));
    // Its lease is the end of it.
    let mut ledger = reserved();
    ledger.observe(&sight(&policy, "6", &splits, false), cover().settle, &TERMS, at(500));
    assert_eq!(ledger.entries[0].record.time, at(60));
}

#[test]
fn a_step_that_a_clock_ahead_has_stamped_stands_before_what_follows_it() {
    let mut ledger = reserved();
    // It exists, and somebody asks to create it.
    let (mark, record) = asked(&Value::Null, &weights(1), None, 1);
    reserve(&mut ledger, (Mark { uid: "b".into(), ..mark }, record));
    assert_eq!(see(&mut ledger, "6", &weights(20), 30), CONFIRMED);
    reserve(&mut ledger, asked(&weights(20), &Value::Null, Some("6"), 30));
    let (policy, splits) = (identity(), route(&weights(1)));
    let creation = Sight { uid: "b", at: Some(at(5)), ..sight(&policy, "8", &splits, false) };
    assert_eq!(ledger.observe(&creation, cover().settle, &TERMS, at(5)).confirmed, 2);
    let uids: Vec<_> = ledger.entries.iter().map(|entry| (&*entry.uid, entry.version.as_deref())).collect();
    assert_eq!(uids, [("u", Some("6")), ("u", Some("6")), ("b", Some("8"))]);
    assert!(ledger.entries.iter().all(|entry| entry.record.time <= at(30)));
}
