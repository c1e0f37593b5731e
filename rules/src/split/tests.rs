//! What splits are, and how far apart.
#![allow(clippy::float_cmp, reason = "a shift of nothing is exactly 0")]

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn every_fixture_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/splits");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let case: Value = serde_yaml::from_str(&read(&file)).unwrap();
        assert_eq!(outcome(&case), case["expected"], "{}", file.display());
    }
}

#[allow(clippy::disallowed_methods, reason = "a test reads its fixtures")]
fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

fn outcome(case: &Value) -> Value {
    let mut found = Vec::new();
    let mut side = |name: &str| {
        if case[name].is_null() {
            return Vec::new();
        }
        match Policy::read(&case[name]) {
            Ok(policy) => {
                let (splits, diagnostics) = splits(&policy);
                found.extend(diagnostics.iter().map(ToString::to_string));
                splits
            }
            Err(wrong) => panic!("{name}: {}", wrong[0]),
        }
    };
    let (before, after) = (side("before"), side("after"));
    let change = change(&before, &after);
    found.extend(hazards(&change).iter().map(ToString::to_string));
    let shares = |shares: &Shares| {
        let list: Vec<_> = shares.iter().map(|(service, share)| format!("{service} {}", round(share))).collect();
        list.join(", ")
    };
    let rules = change.rules.iter().map(|rule| {
        let wider = if rule.widened { ", more clients" } else { "" };
        let (before, after) = (shares(&rule.before), shares(&rule.after));
        format!("{:?} by {}{wider}: {before} -> {after}", rule.what, round(rule.shift)).to_lowercase()
    });
    let rules: Vec<_> = rules.collect();
    let mut outcome = json!({"shift": round(change.shift), "rules": rules});
    if !found.is_empty() {
        outcome["diagnostics"] = json!(found);
    }
    outcome
}

fn round(number: f64) -> Value {
    let number = (number * 1e6).round() / 1e6;
    if number.fract().abs() < 1e-9 { json!(number as i64) } else { json!(number) }
}

fn route(rules: Value) -> Policy {
    let target = json!({"kind": "MeshService", "name": "summarize"});
    let spec = json!({"to": [{"targetRef": target, "rules": rules}]});
    let policy = json!({"type": "MeshHTTPRoute", "name": "a", "mesh": "default", "spec": spec});
    Policy::read(&policy).unwrap()
}

fn split_of(weights: &[(&str, Option<u32>)]) -> Split {
    let refs: Vec<_> = weights
        .iter()
        .map(|(name, weight)| match weight {
            Some(weight) => json!({"kind": "MeshService", "name": name, "port": 80, "weight": weight}),
            None => json!({"kind": "MeshService", "name": name, "port": 80}),
        })
        .collect();
    let policy = route(json!([{"default": {"backendRefs": refs}}]));
    splits(&policy).0.remove(0)
}

fn rest(weights: &[(&str, Option<u32>)], percent: f64) -> String {
    match split_of(weights).with_share("v2", "v1", percent) {
        Ok(reweigh) => {
            let list = reweigh.weights.iter().map(|(field, weight)| {
                let at = field.to_string();
                format!("{}={weight}", at.trim_start_matches("spec.to[0].rules[0].default.backendRefs"))
            });
            let list: Vec<_> = list.collect();
            if reweigh.factor == 1 { list.join(" ") } else { format!("{} x{}", list.join(" "), reweigh.factor) }
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_new_share_keeps_the_scale_of_the_file() {
    assert_eq!(rest(&[("v1", Some(90)), ("v2", Some(10))], 25.0), "[0].weight=75 [1].weight=25");
    assert_eq!(rest(&[("v1", Some(9)), ("v2", Some(1))], 50.0), "[0].weight=5 [1].weight=5");
    assert_eq!(rest(&[("v1", Some(950)), ("v2", Some(50))], 12.5), "[0].weight=875 [1].weight=125");
    assert_eq!(rest(&[("v1", Some(90)), ("v2", Some(10))], 10.0), "");
}

#[test]
fn a_share_too_fine_for_the_scale_raises_it_by_a_power_of_ten() {
    assert_eq!(rest(&[("v1", Some(9)), ("v2", Some(1))], 25.0), "[0].weight=75 [1].weight=25 x10");
    assert_eq!(rest(&[("v1", None), ("v2", None)], 5.0), "[0].weight=19 [1].weight=1 x10");
    assert_eq!(rest(&[("v1", Some(1)), ("v2", Some(0))], 5.0), "[0].weight=95 [1].weight=5 x100");
    let others = [("v1", Some(9)), ("v2", Some(1)), ("x", Some(3)), ("y", None)];
    assert_eq!(rest(&others, 25.0), "[0].weight=75 [1].weight=25 [2].weight=30 [3].weight=10 x10");
}

#[test]
fn a_backend_named_twice_gets_its_share_in_the_first_place() {
    let twice = [("v1", Some(45)), ("v2", Some(10)), ("v1", Some(45))];
    assert_eq!(rest(&twice, 25.0), "[0].weight=75 [2].weight=0 [1].weight=25");
    assert_eq!(rest(&twice, 10.0), "");
}

#[test]
fn an_impossible_share_is_refused_with_its_reason() {
    assert_eq!(rest(&[("v1", Some(9))], 5.0), "no backend `v2` in this rule");
    assert_eq!(rest(&[("v1", Some(9)), ("v2", Some(1))], 101.0), "101 is no percentage from 0 to 100");
    assert_eq!(rest(&[("v1", Some(9)), ("v2", Some(1))], f64::NAN), "NaN is no percentage from 0 to 100");
    assert_eq!(
        rest(&[("v1", Some(0)), ("v2", Some(0)), ("x", None)], 5.0),
        "`v2:80` and `v1:80` both have weight 0, so there is nothing to share out between them"
    );
    assert_eq!(rest(&[("v1", Some(u32::MAX)), ("v2", Some(0))], 0.001), "0.001 % needs a weight above 4294967295");
    assert_eq!(
        rest(&[("v1", Some(1)), ("v2", Some(0))], 0.000_000_1),
        "0.0000001 % is finer than a millionth of a percent"
    );
}

#[test]
fn a_backend_is_found_by_key_or_plain_name() {
    let split = split_of(&[("v1", Some(3)), ("v2", Some(1))]);
    for name in ["v2", "v2:80"] {
        assert_eq!(split.find(name).unwrap().weight, 1);
        assert!((split.share(name) - 25.0).abs() < 1e-12);
    }
    assert!(split.find("v3").is_err());
}

#[test]
fn a_digest_binds_to_shares_and_clients_and_to_nothing_else() {
    let digest_of = |weights: &[(&str, Option<u32>)]| digest(&[split_of(weights)]);
    let base = digest_of(&[("v1", Some(90)), ("v2", Some(10))]);
    assert_eq!(base.len(), 64);
    assert_eq!(base, digest_of(&[("v2", None), ("v1", Some(9)), ("v3", Some(0))]));
    assert_ne!(base, digest_of(&[("v1", Some(91)), ("v2", Some(9))]));
    assert_ne!(base, digest(&[]));
}

#[test]
fn the_digest_of_a_deletion_names_what_is_deleted() {
    let v1 = [split_of(&[("v1", Some(1))])];
    let mut other = v1.clone();
    other[0].rule = RuleKey::new("default", "MeshHTTPRoute", &"translate".into(), &[], rule::ANY);
    assert_ne!(change(&v1, &[]).digest, change(&other, &[]).digest);
    assert_eq!(change(&[], &v1).digest, digest(&v1));
}

#[test]
fn a_route_of_thousands_of_rules_is_compared_in_a_moment() {
    let rules = |salt: usize| -> Vec<_> {
        (0..4000)
            .map(|index| {
                let path = format!("/{salt}/{index}");
                let refs = json!([{"kind": "MeshService", "name": "v1", "weight": index}, {"kind": "MeshService", "name": "v2", "weight": 1}]);
                json!({"matches": [{"path": {"type": "Exact", "value": path}}], "default": {"backendRefs": refs}})
            })
            .collect()
    };
    let (old, new) = (splits(&route(json!(rules(1)))).0, splits(&route(json!(rules(2)))).0);
    let change = change(&old, &new);
    assert_eq!((change.rules.len(), change.shift), (8000, 100.0));
}

const NAMES: [&str; 5] = ["v1", "v2", "v3", "v4", "v5"];

prop_compose! {
    fn any_split()(weights in prop::collection::vec(0u32..1000, 1..5)) -> Vec<(&'static str, Option<u32>)> {
        NAMES.into_iter().zip(weights.into_iter().map(Some)).collect()
    }
}

proptest! {
    #[test]
    fn a_shift_is_a_distance(a in any_split(), b in any_split(), c in any_split()) {
        let (a, b, c) = (split_of(&a), split_of(&b), split_of(&c));
        let ab = shift(&a, &b);
        prop_assert!((0.0..=100.0).contains(&ab));
        prop_assert!((ab - shift(&b, &a)).abs() < 1e-9);
        prop_assert_eq!(ab == 0.0, a.shares() == b.shares());
        prop_assert!(ab <= shift(&a, &c) + shift(&c, &b) + 1e-9);
    }

    #[test]
    fn scale_and_order_are_no_change(a in any_split(), factor in 1u32..1000, turn in 0usize..5) {
        let mut other: Vec<_> = a.iter().map(|(name, weight)| (*name, weight.map(|w| w * factor))).collect();
        let turn = turn % other.len();
        other.rotate_left(turn);
        let (a, other) = (split_of(&a), split_of(&other));
        prop_assert_eq!(shift(&a, &other), 0.0);
        prop_assert!(change(std::slice::from_ref(&a), std::slice::from_ref(&other)).rules.is_empty());
        prop_assert_eq!(digest(&[a]), digest(&[other]));
    }

    #[test]
    fn the_order_of_rules_is_no_change(a in any_split(), b in any_split()) {
        let rule = |path: &str, weights: &[(&str, Option<u32>)]| {
            let refs: Vec<_> = weights.iter().map(|(name, weight)| json!({"kind": "MeshService", "name": name, "weight": weight})).collect();
            json!({"matches": [{"path": {"type": "PathPrefix", "value": path}}], "default": {"backendRefs": refs}})
        };
        let one = splits(&route(json!([rule("/a", &a), rule("/b", &b)]))).0;
        let two = splits(&route(json!([rule("/b", &b), rule("/a", &a)]))).0;
        prop_assert!(change(&one, &two).rules.is_empty());
        prop_assert_eq!(digest(&one), digest(&two));
    }

    #[test]
    fn a_canary_gets_exactly_its_share(
        v1 in 0u32..2000, v2 in 0u32..2000, x in 0u32..2000, y in prop::option::of(0u32..9), parts in 0u32..=100_000
    ) {
        prop_assume!(v1 + v2 > 0);
        let percent = f64::from(parts) / 1000.0;
        let before = split_of(&[("x", Some(x)), ("v1", Some(v1)), ("y", y), ("v2", Some(v2))]);
        let reweigh = before.with_share("v2", "v1", percent).unwrap();
        let mut weights: Vec<u64> = before.backends.iter().map(|backend| backend.weight).collect();
        for (field, weight) in &reweigh.weights {
            let at = before.backends.iter().position(|backend| backend.field == *field).unwrap();
            weights[at] = *weight;
        }
        // Exactly: canary / pair = parts / 100000, in whole numbers.
        prop_assert_eq!(weights[3] * 100_000, u64::from(parts) * (weights[1] + weights[3]));
        let after: Vec<_> = ["x", "v1", "y", "v2"].into_iter().zip(weights.iter().map(|w| Some(*w as u32))).collect();
        let after = split_of(&after);
        for other in ["x", "y"] {
            prop_assert!((before.share(other) - after.share(other)).abs() < 1e-9);
        }
        if reweigh.factor > 1 {
            let tenth = u64::from(v1 + v2) * (reweigh.factor / 10);
            prop_assert!(!(tenth * u64::from(parts)).is_multiple_of(100_000), "a smaller factor would do");
        }
    }
}

#[test]
fn many_backends_add_up_like_few() {
    let many: Vec<_> = (0..120).map(|number| format!("v{}", number % 60)).collect();
    let split = split_of(&many.iter().map(|name| (name.as_str(), Some(2))).collect::<Vec<_>>());
    assert_eq!(split.backends.len(), 60);
    for (place, backend) in split.backends.iter().enumerate() {
        assert_eq!((&*backend.name, backend.weight), (many[place].as_str(), 4));
        assert_eq!(
            backend.also[0].field.to_string(),
            format!("spec.to[0].rules[0].default.backendRefs[{}].weight", place + 60)
        );
    }
}
