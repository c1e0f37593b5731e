#![allow(clippy::disallowed_methods, reason = "the fixtures are files")]

use super::*;
use crate::document::File;
use crate::policy::Policy;
use crate::render::{Message, Style, render};
use crate::split::{change, splits};
use crate::validate::Version;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/rules");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/kuma/examples");
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/health");

fn files(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn nothing_known(complete: bool) -> Known {
    let mut known = Known::default();
    known.complete = complete;
    known
}

/// A fixture: the last document is examined, the others are known. One of them that is the same object is the state
/// before. Comments at the top say `# complete` and `# kuma: 3.0`.
struct Case {
    file: File,
    health: Health,
}

fn case(path: &Path) -> Case {
    let bytes = std::fs::read(path).unwrap();
    let file = File::parse(&name(path), &bytes).unwrap_or_else(|problems| panic!("{}: {problems:?}", path.display()));
    let head: Vec<_> = file.text().lines().take_while(|line| line.starts_with('#')).collect();
    let mut known = nothing_known(head.contains(&"# complete"));
    let mut kuma = Kuma::default();
    if head.contains(&"# kuma: 3.0") {
        kuma.version = Version::V3_0;
    }
    let (last, earlier) = file.documents().split_last().unwrap();
    earlier.iter().for_each(|document| known.insert(document.value()));
    let policy = Policy::read(last.value()).unwrap_or_else(|wrong| panic!("{}: {wrong:?}", path.display()));
    let mut before = earlier.iter().filter_map(|document| Policy::read(document.value()).ok());
    let before = before.rfind(|before| before.identity() == policy.identity());
    let change = before.map(|before| change(&splits(&before).0, &splits(&policy).0));
    let health = examine(last.value(), &known, &kuma).health(change.as_ref());
    Case { file, health }
}

#[test]
fn every_rule_has_its_file_its_page_and_its_fixtures() {
    let mut missing = Vec::new();
    let known: BTreeSet<_> = RULES.iter().map(|rule| rule.name.to_owned()).collect();
    for folder in files(FIXTURES).into_iter().filter(|path| path.is_dir()) {
        if !known.contains(&name(&folder)) {
            missing.push(format!("the rule of testdata/rules/{} in the index of health.rs", name(&folder)));
        }
    }
    for rule in RULES {
        let source = format!("{SOURCES}/{}.rs", rule.name.replace('-', "_"));
        let source = std::fs::read_to_string(&source).unwrap_or_default();
        if !source.contains(rule.id) {
            missing.push(format!("rules/src/health/{}.rs with the id {}", rule.name.replace('-', "_"), rule.id));
        }
        let page = rule.explanation;
        for part in [
            &format!("# {} {}\n", rule.id, rule.name),
            "\n## What it sees\n",
            "\n## Why it matters\n",
            "\n## What to do\n",
            "\n## When it stays quiet\n",
            "\n## Example\n",
        ] {
            if !page.contains(part) {
                missing.push(format!("{part:?} in testdata/rules/{}/README.md", rule.name));
            }
        }
        let folder = files(format!("{FIXTURES}/{}", rule.name));
        for (kind, least) in [("fires", 2), ("quiet", 2)] {
            let count =
                folder.iter().filter(|path| name(path).starts_with(kind) && name(path).ends_with(".yaml")).count();
            if count < least {
                missing.push(format!("{} of {least} {kind}*.yaml in testdata/rules/{}", least - count, rule.name));
            }
        }
        for snapshot in folder.iter().filter(|path| name(path).ends_with(".snap")) {
            if !snapshot.with_extension("yaml").exists() {
                missing.push(format!("the fixture of {}", snapshot.display()));
            }
        }
    }
    assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
}

#[test]
fn ids_and_names_are_unique_and_in_order() {
    let ids: Vec<_> = RULES.iter().map(|rule| rule.id).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let all: BTreeSet<_> = RULES.iter().flat_map(|rule| [rule.id, rule.name]).collect();
    assert_eq!(all.len(), 2 * RULES.len());
    for wanted in ["KMH-T05", "t05", "Backends-Serve-Nobody"] {
        assert_eq!(rule(wanted).unwrap().id, "KMH-T05", "{wanted}");
    }
    assert!(rule("T99").is_none());
}

#[test]
fn fires_where_the_fixtures_say_so_and_stays_quiet_elsewhere() {
    let mut wrong = Vec::new();
    for rule in RULES {
        let folder = format!("{FIXTURES}/{}", rule.name);
        for path in files(&folder).into_iter().filter(|path| name(path).ends_with(".yaml")) {
            let Case { file, health } = case(&path);
            let last = file.documents().len() - 1;
            let found: Vec<_> = health.findings.iter().filter(|finding| finding.id == rule.id).collect();
            if name(&path).starts_with("quiet") {
                wrong.extend(found.iter().map(|finding| format!("{}: {}", path.display(), finding.message)));
                continue;
            }
            if found.is_empty() {
                wrong.push(format!("{}: no finding", path.display()));
            }
            let mut text = String::new();
            for finding in found {
                assert!(finding.severity <= rule.severity, "{finding:?}");
                text += &render(&file, last, &Message::of_finding(finding), Style::Plain);
            }
            writeln!(text, "score {:?}", health.score.unwrap()).unwrap();
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path(&folder);
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            settings.bind(|| insta::assert_snapshot!(name(&path).trim_end_matches(".yaml"), text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is found in Kuma's own examples is listed, and each line was read: an example may well show what we warn of.
#[test]
fn finds_in_kumas_examples_only_what_is_listed() {
    let mut text = String::new();
    for folder in files(EXAMPLES).into_iter().filter(|path| path.is_dir()) {
        for path in files(&folder) {
            let file = File::parse(&name(&path), &std::fs::read(&path).unwrap()).unwrap();
            let kuma = Kuma {
                version: if name(&path).contains(".v3.") { Version::V3_0 } else { Version::V2_14 },
                ..Kuma::default()
            };
            for document in file.documents() {
                for finding in examine(document.value(), &Known::default(), &kuma).health(None).findings {
                    let place = format!("{}/{}", name(&folder), name(&path));
                    writeln!(text, "{place} {} {}: {}", finding.id, finding.field, finding.message).unwrap();
                }
            }
        }
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(FIXTURES);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("kuma-examples", text));
}

#[test]
fn a_shape_that_is_wrong_everywhere_has_a_bounded_answer() {
    let backend =
        serde_json::json!({"kind": "MeshService", "name": "n".repeat(100_000), "port": 80, "weight": 0, "x": 1});
    let rule = serde_json::json!({"matches": [], "default": {"backendRefs": [backend]}});
    let rules = vec![rule; 300];
    let document = serde_json::json!({"type": "MeshHTTPRoute", "name": "r", "mesh": "default",
        "spec": {"to": [{"targetRef": {"kind": "MeshService", "name": "a"}, "rules": rules}]}});
    let mut known = nothing_known(true);
    known.insert(&serde_json::json!({"type": "MeshService", "name": "a", "mesh": "default", "spec": {}}));
    let health = examine(&document, &known, &Kuma::default()).health(None);
    assert!(health.findings.len() <= 50 * RULES.len());
    assert!(
        health.findings.iter().all(|finding| finding.message.len() < 1_000),
        "{:?}",
        health.findings[0].message.len()
    );
    let found: BTreeSet<_> = health.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(found, BTreeSet::from(["KMH-O06", "KMH-T01", "KMH-T05"]));
    assert!(health.findings.is_sorted_by(|a, b| a.severity >= b.severity));
}

#[test]
fn ten_thousand_rules_are_looked_at_once_each() {
    // With a comparison of every pair this would be fifty million comparisons for each of two kinds.
    let rules: Vec<_> = (0..10_000)
        .map(|i| serde_json::json!({"matches": [{"path": {"type": "PathPrefix", "value": format!("/{}", i % 9_999)}}]}))
        .collect();
    let http: Vec<_> = (0..10_000)
        .map(|i| serde_json::json!({"match": {"path": {"prefix": format!("/{:05}", 10_000 - i)}}}))
        .collect();
    let route =
        serde_json::json!({"type": "MeshHTTPRoute", "name": "r", "mesh": "m", "spec": {"to": [{"rules": rules}]}});
    let legacy = serde_json::json!({"type": "TrafficRoute", "name": "r", "mesh": "m", "conf": {"http": http}});
    let found = |document: &Value| {
        let health = examine(document, &Known::default(), &Kuma::default()).health(None);
        health
            .findings
            .into_iter()
            .filter(|finding| finding.id == "KMH-T03")
            .map(|f| f.field.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&route), ["spec.to[0].rules[9999].matches"]);
    assert_eq!(found(&legacy), Vec::<String>::new());
}

#[test]
fn what_is_not_known_widens_the_interval() {
    let route = serde_json::json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
        "metadata": {"name": "r", "namespace": "demo"},
        "spec": {"to": [{"targetRef": {"kind": "MeshService", "name": "chat"}, "rules": []}]}});
    let health = examine(&route, &Known::default(), &Kuma::default()).health(None);
    assert_eq!((health.score, health.most), (Some(100), Some(100)));
    assert!(health.least.unwrap() < 79);
    let mut known = nothing_known(true);
    known.insert(&serde_json::json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshService",
        "metadata": {"name": "chat", "namespace": "demo"}, "spec": {"ports": [{"port": 80, "appProtocol": "http"}]}}));
    let health = examine(&route, &known, &Kuma::default()).health(None);
    assert_eq!((health.least, health.score, health.most), (Some(100), Some(100), Some(100)));
}

#[test]
fn what_is_not_kumas_has_no_score() {
    for document in [
        serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}),
        serde_json::json!({"type": "Secret", "name": "x"}),
        serde_json::json!(null),
    ] {
        assert_eq!(examine(&document, &Known::default(), &Kuma::default()).health(None), Health::default());
    }
}

/// JSON made of the words that rules look for, in any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let words: Vec<&'static str> = "to from rules default matches backendRefs targetRef kind name namespace labels tags \
        weight port path type value spec metadata conf http split destination kuma.io/service filters requestMirror \
        backendRef Mesh MeshService MeshHTTPRoute a_b_svc_80 / 0s 5s PathPrefix RegularExpression sources match spiffeID \
        Prefix allow percentage abort template {{ }} selector meshService ports status profiles exclude"
        .split_whitespace()
        .collect();
    let word = proptest::sample::select(words);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..6)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// The same below a real envelope, or a fixture with one part of it replaced.
fn any_document() -> impl Strategy<Value = Value> {
    let kinds: Vec<&'static str> = RULES.iter().flat_map(|rule| rule.kinds.iter().copied()).collect();
    let fixtures: Vec<Value> = RULES
        .iter()
        .flat_map(|rule| files(format!("{FIXTURES}/{}", rule.name)))
        .filter(|path| name(path).ends_with(".yaml"))
        .flat_map(|path| {
            let file = File::parse("f", &std::fs::read(path).unwrap()).unwrap();
            file.documents().iter().map(|document| document.value().clone()).collect::<Vec<_>>()
        })
        .collect();
    prop_oneof![
        1 => any_json(),
        2 => (proptest::sample::select(kinds), any_json(), any::<bool>()).prop_map(|(kind, spec, flat)| {
            let mut document = serde_json::json!({"apiVersion": "kuma.io/v1alpha1", "kind": kind,
                "metadata": {"name": "n", "namespace": "d"}, "spec": spec});
            if flat && let Some(map) = document["spec"].as_object_mut() {
                map.insert("type".to_owned(), kind.into());
                return document["spec"].take();
            }
            document
        }),
        4 => (proptest::sample::select(fixtures), any::<u64>(), any_json()).prop_map(|(mut document, place, value)| {
            replace(&mut document, place, value);
            document
        }),
    ]
}

/// Replaces one part of a document; `place` says which way down and how far.
fn replace(at: &mut Value, place: u64, value: Value) {
    let inner = match at {
        Value::Array(items) => !items.is_empty() && !place.is_multiple_of(4),
        Value::Object(map) => !map.is_empty() && !place.is_multiple_of(6),
        _ => false,
    };
    if !inner {
        *at = value;
        return;
    }
    let next = match at {
        Value::Array(items) => {
            let index = (place / 4) as usize % items.len();
            items.get_mut(index)
        }
        Value::Object(map) => {
            let index = (place / 6) as usize % map.len();
            map.values_mut().nth(index)
        }
        _ => None,
    };
    if let Some(next) = next {
        replace(next, place / 7, value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics_and_forgets_what_it_was_told(
        documents in proptest::collection::vec(any_document(), 1..6),
        complete in any::<bool>(),
        v3 in any::<bool>(),
    ) {
        let mut known = nothing_known(complete);
        let nothing = format!("{known:?}");
        documents.iter().for_each(|document| known.insert(document));
        documents.iter().for_each(|document| known.insert(document));
        let kuma = Kuma { version: if v3 { Version::V3_0 } else { Version::V2_14 }, ..Kuma::default() };
        for document in &documents {
            let health = examine(document, &known, &kuma).health(None);
            if let Some(score) = health.score {
                prop_assert!(score <= 100);
                prop_assert!(health.least.unwrap() <= score && score <= health.most.unwrap());
            }
            for finding in &health.findings {
                prop_assert!(!finding.message.is_empty() && !finding.help.is_empty());
                prop_assert!(finding.severity <= rule(finding.id).unwrap().severity);
            }
        }
        documents.iter().for_each(|document| known.remove(document));
        prop_assert_eq!(format!("{known:?}"), nothing);
    }
}
