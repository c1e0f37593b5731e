//! The page of a small demo: well-formed, self-contained, deaf to hostile names. It is left in the target's `tmp/report.html`
//! to look at.

// Clippy knows tests by their attribute, not their helpers.
#![allow(clippy::unwrap_used)]

use sluice_bot::report::{Outcome, PullView, Report, Story, html};
use sluice_rules::canary::{Arms, Call, Counts, Judge, Policy, Replicas, SignalPolicy, Tick};
use sluice_rules::evidence::{Evidence, Subject, replay};
use sluice_rules::field::FieldPath;
use sluice_rules::proposal::{Kind, Proposal, WeightChange, body};
use std::collections::BTreeMap;

/// 2026-11-25 09:00 UTC.
const START: i64 = 1_795_597_200;

/// Numbers that look random and never change.
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About `mean`, with a spread like counting's.
    fn count(&mut self, mean: f64) -> f64 {
        let noise: f64 = (0..6).map(|_| self.unit()).sum::<f64>() - 3.0;
        (mean + noise * 1.4 * mean.sqrt() + 0.5).floor().max(0.0)
    }
}

struct World {
    name: &'static str,
    rps: f64,
    errors: f64,
    /// The canary's errors as a multiple of the stable ones, by minute.
    harm: fn(i64) -> f64,
    quality: bool,
    minutes: i64,
    blind: std::ops::Range<i64>,
}

/// Plays a canary, merging what the judge proposes three minutes later.
fn play(world: &World) -> Story {
    let mut dice = Dice(world.name.bytes().map(u64::from).sum());
    let mut policy = Policy::default();
    policy.signals.insert("errors".into(), SignalPolicy { ceiling: Some(0.01), ..SignalPolicy::default() });
    policy.signals.insert("slow".into(), SignalPolicy { ceiling: Some(0.05), ..SignalPolicy::default() });
    if world.quality {
        let quality = SignalPolicy { non_inferiority: Some(0.05), ..SignalPolicy::default() };
        policy.signals.insert("quality".into(), quality);
    }
    let subject = Subject {
        rollout: world.name.into(),
        mesh: "default".into(),
        route: format!("MeshHTTPRoute demo/{}", world.name),
        stable: format!("{}-v1", world.name),
        canary: format!("{}-v2", world.name),
    };
    let mut judge = Judge::new(policy.clone()).unwrap();
    let (mut share, mut ticks, mut pulls, mut events) = (5.0, Vec::new(), Vec::<PullView>::new(), Vec::new());
    let mut planned: Option<(i64, f64)> = None;
    let mut outcome = Outcome::Undecided;
    for minute in 1..=world.minutes {
        let t = START + minute * 60;
        if let Some((at, next)) = planned
            && minute >= at
        {
            share = next;
            planned = None;
            let pull = pulls.last_mut().unwrap();
            pull.state = "merged".into();
            pull.ended = Some(t - 60);
            events.push((t - 60, format!("#{} merged", pull.number)));
        }
        let total = world.rps * 60.0 * (1.0 + 0.2 * (minute as f64 / 40.0).sin());
        let mut arms = |bad: f64, more: f64| {
            let mut arm = |part: f64, rate: f64| {
                let n = dice.count(total * part);
                Some(Counts { n, x: dice.count(n * rate).min(n) })
            };
            let stable = arm(1.0 - share / 100.0, bad);
            let canary = arm(share / 100.0, bad * more);
            Arms { canary: canary.filter(|_| share > 0.0 && !world.blind.contains(&minute)), stable }
        };
        let mut signals = BTreeMap::from([
            ("errors".to_owned(), arms(world.errors, (world.harm)(minute))),
            ("slow".to_owned(), arms(0.02, 1.0)),
        ]);
        if world.quality {
            let mut score = |part: f64, mean: f64| {
                let n = (total * part / 20.0).ceil();
                Some(Counts { n, x: n * (mean + 0.02 * (dice.unit() - 0.5)) })
            };
            let stable = score(1.0 - share / 100.0, 0.81);
            signals.insert("quality".into(), Arms { canary: score(share / 100.0, 0.84), stable });
        }
        let replicas = world.quality.then_some(Replicas { canary: 6.0, stable: 6.0 });
        let tick = Tick { t, share, signals, replicas };
        let verdict = judge.observe(&tick).unwrap();
        ticks.push(tick);
        let moves = matches!(verdict.call, Call::Promote | Call::Rollback) && (verdict.share - share).abs() > 1e-9;
        if moves && planned.is_none() {
            let kind = if verdict.call == Call::Rollback { Kind::Rollback } else { Kind::Promote };
            planned = Some((minute + 3, verdict.share));
            let evidence = Evidence::new(subject.clone(), policy.clone(), ticks.clone()).unwrap();
            let number = 11 + pulls.len() as u64;
            pulls.push(pull(number, kind, &subject, share, verdict.share, t, evidence));
            events.push((t, format!("#{number} opened: {}", verdict.reason)));
        }
        if share >= 100.0 || share <= 0.0 {
            outcome = if share > 0.0 { Outcome::Promoted } else { Outcome::RolledBack };
            if events.iter().filter(|(at, _)| *at >= t - 600).count() == 0 {
                break;
            }
        }
    }
    let points = replay(&policy, &ticks).unwrap();
    let last = points.last().unwrap();
    let headline = match outcome {
        Outcome::Promoted => format!("Promoted to 100 % in {} minutes", ticks.len()),
        Outcome::RolledBack => "Rolled back at 25 % for failed requests".to_owned(),
        _ => format!("Stays at {share} %: {}", last.claim.reason),
    };
    let explanation = "Every look counted requests and bad ones in both arms. What moved the weight is below, with the \
                       evidence at that moment.\n\nNothing was changed in the mesh but through these pull requests.";
    Story { subject, headline, explanation: explanation.into(), outcome, points, ticks, policy, pulls, events }
}

fn pull(number: u64, kind: Kind, subject: &Subject, from: f64, to: f64, t: i64, evidence: Evidence) -> PullView {
    let refs = FieldPath::root().key("spec").key("to").index(0).key("rules").index(0).key("default").key("backendRefs");
    let change = |index: usize, backend: &str, from: f64, to: f64| WeightChange {
        field: refs.index(index).key("weight"),
        backend: backend.into(),
        from: from as u64,
        to: to as u64,
    };
    let proposal = Proposal {
        begun: None,
        kind,
        subject: subject.clone(),
        path: format!("policies/{}.yaml", subject.rollout),
        document: 0,
        changes: vec![change(0, &subject.stable, 100.0 - from, 100.0 - to), change(1, &subject.canary, from, to)],
        from,
        to,
        then: vec![],
        guards: vec![],
        person: None,
        evidence,
    };
    PullView {
        number,
        title: body::title(&proposal),
        state: "open".into(),
        opened: t,
        ended: None,
        body_markdown: body::body(&proposal),
        diff: DIFF
            .replace("NAME", &subject.rollout)
            .replace("S0", &(100.0 - from).to_string())
            .replace("S1", &(100.0 - to).to_string())
            .replace("C0", &from.to_string())
            .replace("C1", &to.to_string()),
    }
}

const DIFF: &str = "\
--- a/policies/NAME.yaml
+++ b/policies/NAME.yaml
@@ -14,10 +14,10 @@ spec:
         default:
           backendRefs:
             - kind: MeshService
               name: NAME-v1 # the version everybody knows, with a comment long enough to scroll on a telephone
-              weight: S0
+              weight: S1
             - kind: MeshService
               name: NAME-v2
-              weight: C0
+              weight: C1
";

fn demo() -> Report {
    let good = World {
        name: "summarize",
        rps: 50.0,
        errors: 0.005,
        harm: |_| 1.0,
        quality: true,
        minutes: 330,
        blind: 22..29,
    };
    let bad = World {
        name: "translate",
        rps: 40.0,
        errors: 0.005,
        harm: |minute| if minute > 45 { 4.0 } else { 1.0 },
        quality: false,
        minutes: 90,
        blind: 0..0,
    };
    let small =
        World { name: "embed", rps: 0.4, errors: 0.01, harm: |_| 1.0, quality: false, minutes: 900, blind: 300..420 };
    Report {
        title: "Sluice demo".into(),
        generated: START + 3 * 3600,
        mesh: "default".into(),
        rollouts: vec![play(&good), play(&bad), play(&small)],
        notes: vec!["The recording is synthetic: its numbers are drawn, not measured.".into()],
    }
}

const NASTY: [&str; 7] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "</title></style></pre></svg>",
    "a' onmouseover='alert(1)",
    "\u{202e}evil\u{202c}\u{200b}\0\u{1b}[31m",
    "https://evil.example @all #1 `x` | y",
    "&lt;b&gt; ]]> --> <!--",
];

#[test]
fn the_demo_page_is_well_formed_and_stands_alone() {
    let page = html(&demo());
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/report.html"), &page).unwrap();
    assert_well_formed(&page);
    assert_eq!(html(&demo()), page);
    for fetched in ["http:", "https:", "src=", "@import", "url(", "<script", "<link", "<iframe", "javascript:"] {
        assert!(!page.contains(fetched), "{fetched}");
    }
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
}

#[test]
fn every_chart_has_a_name_and_its_words() {
    let page = html(&demo());
    assert!(page.matches("<svg class=\"chart\"").count() >= 3 * 5);
    assert_eq!(page.matches("<svg class=\"chart\"").count(), page.matches("<desc id=").count());
    for part in page.split("aria-labelledby=\"").skip(1) {
        for id in part.split('"').next().unwrap().split(' ') {
            assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
    }
    for svg in page.split("<svg ").skip(1) {
        let tag = svg.split('>').next().unwrap();
        assert!(tag.contains("role=\"img\"") || tag.contains("aria-hidden"), "{tag}");
    }
}

#[test]
fn says_in_words_what_happened() {
    let text = words(&html(&demo()));
    for told in
        ["Promoted to 100 %", "rolled back", "undecided", "5 % from 09:00", "looks had no data of the canary", "#11"]
    {
        assert!(text.contains(told), "{told}");
    }
    insta::assert_snapshot!(text.split("Pull requests").next().unwrap());
}

#[test]
fn hostile_text_stays_text_everywhere() {
    for nasty in NASTY {
        let mut report = demo();
        report.rollouts.truncate(1);
        let nasty = nasty.to_owned();
        (report.title, report.mesh, report.notes) = (nasty.clone(), nasty.clone(), vec![nasty.clone()]);
        let story = &mut report.rollouts[0];
        story.subject = Subject {
            rollout: nasty.clone(),
            mesh: nasty.clone(),
            route: nasty.clone(),
            stable: nasty.clone(),
            canary: nasty.clone(),
        };
        (story.headline, story.explanation) = (nasty.clone(), nasty.clone());
        story.events.push((START, nasty.clone()));
        for tick in &mut story.ticks {
            let arms = tick.signals["errors"];
            tick.signals.insert(nasty.clone(), arms);
        }
        story.points = replay(&story.policy, &story.ticks).unwrap();
        story.pulls.truncate(1);
        let pull = &mut story.pulls[0];
        (pull.title, pull.state, pull.diff) = (nasty.clone(), nasty.clone(), format!("+{nasty}\n-{nasty}"));
        pull.body_markdown = format!(
            "{nasty}\n### {nasty}\n- {nasty}\n| {nasty} |\n|---|\n| {nasty} |\n```\n{nasty}\n```\n<details>\n<summary>{nasty}</summary>"
        );
        let page = html(&report);
        assert_well_formed(&page);
        for c in ['\u{202e}', '\u{202c}', '\u{200b}', '\0', '\u{1b}'] {
            assert!(!page.contains(c), "{c:?}");
        }
        for tag in page.split('<').skip(1) {
            let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            assert!(!["script", "img", "a2"].contains(&name.as_str()), "{tag}");
            let inside = tag.split('>').next().unwrap();
            for attribute in outside_quotes(inside).split_whitespace().skip(1) {
                assert!(!attribute.starts_with("on") && !attribute.starts_with("src"), "{inside}");
            }
        }
    }
}

#[test]
fn an_empty_report_and_a_story_without_ticks_are_pages_too() {
    let mut report = demo();
    report.rollouts.truncate(1);
    let story = &mut report.rollouts[0];
    (story.ticks, story.points, story.pulls, story.events) = (vec![], vec![], vec![], vec![]);
    assert_well_formed(&html(&report));
    assert!(words(&html(&report)).contains("Nothing was seen of it yet."));
    report.rollouts.clear();
    assert_well_formed(&html(&report));
    assert!(words(&html(&report)).contains("No rollout is on trial."));
}

#[test]
fn a_single_tick_and_odd_numbers_draw() {
    let mut report = demo();
    report.rollouts.truncate(1);
    let story = &mut report.rollouts[0];
    story.ticks.truncate(1);
    story.points.truncate(1);
    for claim in story.points[0].claim.signals.values_mut() {
        (claim.harm, claim.safe) = (f64::NEG_INFINITY, f64::INFINITY);
    }
    let page = html(&report);
    assert_well_formed(&page);
    assert!(!page.contains("NaN") && !page.contains(" inf"), "{page}");
}

#[test]
fn text_has_enough_contrast_in_both_themes() {
    let style = include_str!("../src/report/style.css");
    let (light, dark) = style.split_once("@media (prefers-color-scheme: dark)").unwrap();
    for theme in [light, dark] {
        let colour = |name: &str| {
            let value = theme.split(&format!("--{name}: #")).nth(1).unwrap_or_else(|| panic!("{name}"));
            let channel = |at: usize| {
                let c = f64::from(u8::from_str_radix(&value[at..at + 2], 16).unwrap()) / 255.0;
                if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
        };
        let pairs = ["text", "muted", "link", "canary", "stable", "harm", "safe", "share", "ask"]
            .into_iter()
            .flat_map(|front| [(front, "back"), (front, "panel")])
            .chain([("add", "add-back"), ("del", "del-back")]);
        for (front, back) in pairs {
            let (a, b) = (colour(front), colour(back));
            let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
            assert!(contrast >= 4.5, "{front} on {back}: {contrast:.2}");
        }
    }
}

fn outside_quotes(tag: &str) -> String {
    tag.split('"').step_by(2).collect::<Vec<_>>().join("")
}

/// Tags open and close in order.
fn assert_well_formed(page: &str) {
    const VOID: [&str; 2] = ["meta", "br"];
    let mut open: Vec<&str> = Vec::new();
    for part in page.strip_prefix("<!DOCTYPE html>").unwrap().split('<').skip(1) {
        let tag = part.split('>').next().unwrap();
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "…{part:.200}");
        } else {
            let name = tag.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap();
            assert!(!name.is_empty(), "{part:.200}");
            if !VOID.contains(&name) {
                open.push(name);
            }
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

/// The page as a reader without pictures has it.
fn words(page: &str) -> String {
    let body = page.split("</style>").nth(1).unwrap();
    let mut text = String::new();
    for (index, part) in body.split('<').enumerate() {
        let content = if index == 0 { part } else { part.split_once('>').map_or("", |(_, text)| text) };
        let svg = part.starts_with("text") || part.starts_with("title") || part.starts_with("desc");
        if !content.trim().is_empty() && !svg {
            text.push_str(content.trim_end());
            text.push('\n');
        }
    }
    text
}
