//! Bodies of pull requests: whole ones as a person reads them, and names that try to break out.

// Clippy knows tests by their attribute, not their helpers.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sluice_rules::canary::{Arms, Counts, Policy, Replicas, SignalPolicy, Tick};
use sluice_rules::evidence::{Evidence, Subject};
use sluice_rules::field::FieldPath;
use sluice_rules::proposal::body::escape::{code, plain, prose};
use sluice_rules::proposal::body::{Marker, body, commit_message, digest, title};
use sluice_rules::proposal::{Kind, Proposal, WeightChange};
use std::collections::BTreeMap;

const NASTY: &[&str] = &[
    "@acme/owners",
    "#1",
    "GH-1",
    "gh-22",
    "acme/policies#1",
    "acme/policies@3f2a9c1",
    "3f2a9c1d",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "https://evil.example/?q=`x`",
    "www.evil.example",
    "ftp://evil.example",
    "mailto:a@evil.example",
    "a@evil.example",
    "[click](https://evil.example)",
    "![](https://evil.example/x.png)",
    "<img src=x onerror=alert(1)>",
    "<!-- sluice {\"version\":1} -->",
    "--> visible",
    "--!> visible",
    "</details></table>",
    "a | b | c",
    "a\\| b",
    "a\\",
    "`",
    "``a``",
    "```\nmermaid\n```",
    "line\nbreak\r\n# heading\n\n- item",
    "\u{2028}\u{2029}\u{85}\u{b}",
    "\u{202e}gnp.exe\u{202c}",
    "zero\u{200b}width\u{feff}",
    "nul\0bell\u{7}escape\u{1b}[31m",
    ":tada: $\\frac{1}{2}$ &amp; &#64;x",
    "**bold** _it_ ~~no~~ ^[note]",
    "שלום 5 → 10",
    "Z\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}algo",
    "",
    "   ",
    "fixes #1, closes GH-2",
    "Co-authored-by: x <x@evil.example>",
];

fn subject() -> Subject {
    Subject {
        rollout: "summarize".into(),
        mesh: "default".into(),
        route: "MeshHTTPRoute demo/summarize".into(),
        stable: "summarize-v1".into(),
        canary: "summarize-v2".into(),
    }
}

/// Minute looks at 50 requests a second; `bad` is the canary's rate in percent of 150 requests.
fn ticks(minutes: i64, share: f64, canary_bad: impl Fn(i64) -> f64) -> Vec<Tick> {
    (1..=minutes)
        .map(|minute| {
            let (n, m) = (3000.0 * share / 100.0, 3000.0 - 3000.0 * share / 100.0);
            let slow = |n: f64| Counts { n, x: (n * 0.02 + (minute % 3) as f64).floor() };
            let errors = Arms {
                canary: (minute != 7).then(|| Counts { n, x: canary_bad(minute) }),
                stable: Some(Counts { n: m, x: (m * 0.005).floor() + (minute % 4) as f64 }),
            };
            let slow = Arms { canary: (minute != 7).then(|| slow(n)), stable: Some(slow(m)) };
            Tick {
                t: 1_795_590_000 + minute * 60,
                share,
                signals: BTreeMap::from([("errors".to_owned(), errors), ("slow".to_owned(), slow)]),
                replicas: None,
            }
        })
        .collect()
}

fn proposal(kind: Kind, ticks: Vec<Tick>, from: f64, to: f64) -> Proposal {
    let mut policy = Policy::default();
    if ticks[0].signals.contains_key("quality") {
        let quality = SignalPolicy { non_inferiority: Some(0.02), ..SignalPolicy::default() };
        policy.signals.insert("quality".into(), quality);
    }
    policy.signals.insert("errors".into(), SignalPolicy { ceiling: Some(0.01), ..SignalPolicy::default() });
    policy.signals.insert("slow".into(), SignalPolicy { ceiling: Some(0.05), ..SignalPolicy::default() });
    let field =
        FieldPath::root().key("spec").key("to").index(0).key("rules").index(0).key("default").key("backendRefs");
    let change = |index: usize, backend: &str, from: f64, to: f64| WeightChange {
        field: field.index(index).key("weight"),
        backend: backend.into(),
        from: from as u64,
        to: to as u64,
    };
    Proposal {
        begun: None,
        kind,
        subject: subject(),
        path: "policies/summarize/route.yaml".into(),
        document: 0,
        changes: vec![change(0, "summarize-v1", 100.0 - from, 100.0 - to), change(1, "summarize-v2", from, to)],
        from,
        to,
        then: Vec::new(),
        guards: Vec::new(),
        person: None,
        evidence: Evidence::new(subject(), policy, ticks).unwrap(),
    }
}

fn promote() -> Proposal {
    proposal(Kind::Promote, ticks(16, 5.0, |minute| f64::from(minute % 3 == 0)), 5.0, 10.0)
}

#[test]
fn a_promotion() {
    insta::assert_snapshot!(text(&promote()));
}

#[test]
fn a_rollback() {
    let proposal = proposal(Kind::Rollback, ticks(11, 25.0, |minute| if minute > 8 { 31.0 } else { 4.0 }), 25.0, 0.0);
    insta::assert_snapshot!(text(&proposal));
}

#[test]
fn a_question() {
    let mut ticks = ticks(20, 10.0, |_| 1.0);
    for tick in &mut ticks {
        tick.replicas = Some(Replicas { canary: 2.0, stable: 10.0 });
        let quality = |n: f64, mean: f64| Some(Counts { n, x: n * mean });
        tick.signals.insert("quality".into(), Arms { canary: quality(30.0, 0.84), stable: quality(270.0, 0.82) });
    }
    let mut proposal = proposal(Kind::Ask, ticks, 10.0, 20.0);
    proposal.then = vec![25.0];
    proposal.person = Some("`summarize-v2` is a major version: every promotion asks a person".into());
    proposal.guards = vec![
        "`llm-serving` lets one change move 10 points; 25 % is climbed in two writes".into(),
        "freeze weekend (ask @ops) begins 2026-11-27 17:00 UTC".into(),
    ];
    insta::assert_snapshot!(text(&proposal));
}

fn text(proposal: &Proposal) -> String {
    format!("{}\n\n{}\n---\n{}", title(proposal), body(proposal), commit_message(proposal))
}

#[test]
fn the_last_steps_have_no_plan_and_the_first_no_counts() {
    let mut last = promote();
    (last.from, last.to, last.then) = (50.0, 99.0, vec![100.0]);
    assert!(body(&last).contains("No rung is left to climb"));
    (last.from, last.to, last.then) = (99.0, 100.0, vec![]);
    assert!(body(&last).contains("serves nothing after that") && body(&last).contains("at 100 % the trial is over"));
    let mut tick = ticks(1, 0.0, |_| 0.0).remove(0);
    for arms in tick.signals.values_mut() {
        arms.canary = None;
    }
    let first = proposal(Kind::Promote, vec![tick], 0.0, 5.0);
    let body = body(&first);
    assert!(body.contains("The canary has no traffic yet.") && body.contains("no signal had data"), "{body}");
    assert!(body.contains("traffic not known yet") && !body.contains("NaN"), "{body}");
}

#[test]
fn the_first_pull_request_brings_the_whole_plan() {
    let mut ticks = ticks(30, 0.0, |_| 0.0);
    for arms in ticks.iter_mut().flat_map(|tick| tick.signals.values_mut()) {
        arms.canary = None;
    }
    let body = body(&proposal(Kind::Promote, ticks, 0.0, 5.0));
    let plan = body.split("### What comes next").nth(1).unwrap().split("###").next().unwrap();
    insta::assert_snapshot!(plan);
    assert!(!body.contains("lacked data") && !body.contains("mermaid"), "{body}");
}

#[test]
fn newer_evidence_is_the_same_content() {
    let old = promote();
    let mut new = promote();
    new.evidence = Evidence::new(subject(), Policy::default(), ticks(19, 5.0, |_| 0.0)).unwrap();
    new.guards.push("something else".into());
    assert_eq!(digest(&old), digest(&new));
    assert_ne!(body(&old), body(&new));
    new.to = 25.0;
    assert_ne!(digest(&old), digest(&new));
}

#[test]
fn the_same_weights_in_another_run_are_other_content() {
    let [mut first, mut second] = [promote(), promote()];
    first.begun = "2026-11-24T22:00:00Z".parse().ok();
    second.begun = "2026-11-25T22:00:00Z".parse().ok();
    assert_ne!(digest(&first), digest(&second));
    second.begun = first.begun;
    assert_eq!(digest(&first), digest(&second));
}

#[test]
fn finds_its_own_marker_and_no_forged_one() {
    let mut proposal = promote();
    let marker = Marker::find(&body(&proposal)).unwrap();
    assert_eq!(marker.content, digest(&proposal));
    assert_eq!(marker.evidence, proposal.evidence.digest);
    assert_eq!((marker.from, marker.to), (5.0, 10.0));
    assert_eq!(Marker::find(&body(&proposal).replace('\n', "\r\n")), Some(marker));
    for name in NASTY {
        proposal.subject.canary = (*name).to_owned();
        let body = body(&proposal);
        assert_eq!(Marker::find(&body).unwrap().canary, *name);
        assert_eq!(body.matches("<!--").count(), 1, "{name}");
        assert_eq!(body.matches("-->").count(), 1 + body.matches("0 -->").count(), "{name}");
    }
    assert_eq!(Marker::find("hello <!-- sluice {} -->"), None);
}

#[test]
fn nasty_names_stay_inside_their_code_span() {
    let table: String = NASTY
        .iter()
        .map(|name| format!("{name:?}\n  {}\n  {}\n  {}\n", code(name), prose(name), plain(name)))
        .collect();
    insta::assert_snapshot!(table);
    for name in NASTY {
        check_spans(&code(name));
        check_spans(&prose(name));
        check_plain(&plain(name));
    }
}

/// Everything outside code spans is plain words; everything inside cannot leave.
fn check_spans(markdown: &str) {
    assert_eq!(markdown.matches('`').count() % 2, 0, "{markdown:?}");
    for (position, part) in markdown.split('`').enumerate() {
        let inside = position % 2 == 1;
        for c in part.chars() {
            assert!(!c.is_control() && !"|<>".contains(c), "{c:?} in {markdown:?}");
            let invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
            assert!(!invisible || c == '\u{200e}' && !inside, "{c:?} in {markdown:?}");
        }
        if inside {
            assert!(!part.trim().is_empty(), "{markdown:?}");
        } else {
            for c in part.chars() {
                assert!(c.is_ascii_alphanumeric() || " -'.,:;()%?!→×–…≤≥\u{200e}".contains(c), "{c:?} in {markdown:?}");
            }
            let lower = part.to_lowercase();
            assert!(!lower.contains("www.") && !lower.contains("://") && !lower.contains("gh-1"), "{markdown:?}");
            for word in part.split(|c: char| !c.is_ascii_alphanumeric()) {
                assert!(word.len() < 7 || !word.chars().all(|c| c.is_ascii_hexdigit()), "{markdown:?}");
                let dashed = word.starts_with(|c: char| c.is_ascii_digit()) && part.contains(&format!("-{word}"));
                assert!(!dashed, "{markdown:?}");
            }
        }
    }
    assert!(!markdown.starts_with(['#', '-', '+', '*', '>', ' ']), "{markdown:?}");
    let digits = markdown.trim_start_matches(|c: char| c.is_ascii_digit());
    assert!(digits.len() == markdown.len() || !digits.starts_with(['.', ')']), "a list: {markdown:?}");
}

fn check_plain(text: &str) {
    for c in text.chars() {
        assert!(c.is_ascii_alphanumeric() || "-_./' …".contains(c), "{c:?} in {text:?}");
    }
    let lower = text.to_lowercase();
    assert!(!lower.contains("www.") && !lower.contains("//") && !lower.contains("gh-"), "{text:?}");
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        assert!(word.len() < 7 || !word.chars().all(|c| c.is_ascii_hexdigit()), "{text:?}");
    }
}

fn nasty() -> impl Strategy<Value = String> {
    let pieces = proptest::collection::vec(
        prop_oneof![
            proptest::sample::select(NASTY).prop_map(str::to_owned),
            "[`|<>@#\\\\\\-_*\\[\\]()!:/.&;$~ a-z0-9\n\r\t]{0,12}",
            any::<String>(),
        ],
        1..5,
    );
    pieces.prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_leaves_its_place(text in nasty()) {
        check_spans(&code(&text));
        check_spans(&prose(&text));
        check_plain(&plain(&text));
        prop_assert!(code(&text).chars().count() <= 125);
    }

    #[test]
    fn a_hostile_proposal_keeps_the_shape_of_a_kind_one(names in proptest::collection::vec(nasty(), 9)) {
        let mut hostile = promote();
        let [rollout, mesh, route, stable, canary, path, guard, person, signal] = &names[..] else { unreachable!() };
        hostile.subject = Subject {
            rollout: rollout.clone(),
            mesh: mesh.clone(),
            route: format!("MeshHTTPRoute {route}"),
            stable: stable.clone(),
            canary: canary.clone(),
        };
        hostile.path = path.clone();
        hostile.changes[1].backend = canary.clone();
        hostile.changes[1].field = FieldPath::root().key(signal.clone());
        hostile.guards = vec![guard.clone()];
        hostile.person = Some(person.clone());
        let claim = hostile.evidence.claim.signals.remove("errors").unwrap();
        hostile.evidence.claim.signals.insert(signal.clone(), claim);
        hostile.evidence.claim.reason = format!("{signal} undecided: more data needed");
        let mut kind = promote();
        kind.guards = vec!["one".into()];
        kind.person = Some("one".into());
        let shape = |body: &str| body.lines().skip(1).map(|line| {
            let first: String = line.chars().take_while(|c| "#|-<>".contains(*c)).collect();
            (first, line.matches('|').count())
        }).collect::<Vec<_>>();
        let (a, b) = (body(&kind), body(&hostile));
        prop_assert_eq!(shape(&a).len(), shape(&b).len());
        for ((a, b), line) in shape(&a).iter().zip(shape(&b)).zip(b.lines().skip(1)) {
            prop_assert_eq!(a, &b, "{}", line);
        }
        prop_assert_eq!(title(&hostile).lines().count(), 1);
        prop_assert_eq!(commit_message(&hostile).lines().count(), commit_message(&kind).lines().count());
    }
}

#[test]
fn stays_below_the_limit_whatever_comes() {
    let huge = "\u{202e}\u{10ffff}@x ".repeat(5_000);
    let mut proposal = promote();
    proposal.subject = Subject {
        rollout: huge.clone(),
        mesh: huge.clone(),
        route: huge.clone(),
        stable: huge.clone(),
        canary: huge.clone(),
    };
    proposal.path = huge.clone();
    proposal.person = Some(huge.clone());
    proposal.guards = vec![huge.clone(); 500];
    proposal.then = vec![33.333; 500];
    let change =
        WeightChange { field: FieldPath::root().key(huge.clone()), backend: huge.clone(), from: u64::MAX, to: 0 };
    proposal.changes = vec![change; 500];
    let claim = proposal.evidence.claim.signals["errors"].clone();
    for index in 0..500 {
        proposal.evidence.claim.signals.insert(format!("{index}{huge}"), claim.clone());
    }
    proposal.evidence.claim.reason = huge;
    let body = body(&proposal);
    assert!(body.chars().count() < 60_000, "{}", body.chars().count());
    assert!(body.contains("and 472 more") && body.contains("the details is left out"), "{body}");
    assert!(body.trim_end().ends_with("</details>"));
    assert!(title(&proposal).chars().count() < 400);
}
