//! A pass or a demo as one HTML page that stands alone: no network, no script, no font of its own.
//!
//! [`html()`] is a pure function of a [`Report`], so the same recording gives the same bytes. Everything foreign is text:
//! maud escapes it, and characters that do not show are made to show.

mod chart;
mod markdown;
mod signals;

use chart::{Chart, Line, Role, Scale, Span, clock, spark, within};
use markdown::visible_lines;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sluice_rules::canary::{Policy, Tick};
use sluice_rules::evidence::{Point, Subject};
use sluice_rules::proposal::body::escape::visible;
use sluice_rules::proposal::body::words::{about, moment, share};

/// What the page tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The page's title.
    pub title: String,
    /// The recorded time at which the report was made, seconds since 1970 UTC.
    pub generated: i64,
    /// The mesh.
    pub mesh: String,
    /// One story for each rollout, in the order they are shown.
    pub rollouts: Vec<Story>,
    /// What else a reader should know, one paragraph each.
    pub notes: Vec<String>,
}

/// One rollout from its first look to its last.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// What is on trial.
    pub subject: Subject,
    /// The story in one line: `Promoted to 100 % in 64 minutes`.
    pub headline: String,
    /// Why it went that way, for somebody who did not watch; paragraphs are parted by blank lines.
    pub explanation: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The judge's state after each tick, as `evidence::replay` gives it.
    pub points: Vec<Point>,
    /// The counts the judge saw.
    pub ticks: Vec<Tick>,
    /// The rules in force.
    pub policy: Policy,
    /// The pull requests, oldest first.
    pub pulls: Vec<PullView>,
    /// What happened besides, at what second.
    pub events: Vec<(i64, String)>,
}

/// How a rollout stands at the end of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The canary serves everything.
    Promoted,
    /// The stable arm serves everything again.
    RolledBack,
    /// Somebody or something holds it on its rung.
    Held,
    /// Too little was seen to say.
    Undecided,
    /// A person is asked.
    Asks,
    /// A guard's freeze keeps it where it is.
    Frozen,
    /// Only recorded: nothing was written.
    Shadow,
}

/// A pull request as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullView {
    /// Its number on the forge.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// `open`, `merged` or `closed`, perhaps with words around it.
    pub state: String,
    /// When it was opened, seconds since 1970 UTC.
    pub opened: i64,
    /// When it was merged or closed.
    pub ended: Option<i64>,
    /// Its body.
    pub body_markdown: String,
    /// Its change, as a unified diff.
    pub diff: String,
}

impl Outcome {
    /// A sign, a word and a CSS class: nobody has to tell colours apart.
    fn shown(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Promoted => ("✓", "promoted", "good"),
            Self::RolledBack => ("↩", "rolled back", "bad"),
            Self::Held => ("=", "held", "calm"),
            Self::Undecided => ("…", "undecided", "calm"),
            Self::Asks => ("?", "asks a person", "ask"),
            Self::Frozen => ("❄", "frozen", "calm"),
            Self::Shadow => ("◌", "shadow", "calm"),
        }
    }
}

/// The page.
pub fn html(report: &Report) -> String {
    let title = visible(&report.title);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Nothing here fetches or runs anything; a browser is told to see to it.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(include_str!("report/style.css"))) }
            }
            body {
                header {
                    h1 { (title) }
                    p.muted { "Mesh " bdi { (visible(&report.mesh)) } ", recorded until " (time(report.generated)) ". All times are UTC." }
                }
                main {
                    (summary(report))
                    @for (index, story) in report.rollouts.iter().enumerate() {
                        (rollout(index, story, report.generated))
                    }
                    @if !report.notes.is_empty() {
                        section aria-labelledby="notes" {
                            h2 id="notes" { "Notes" }
                            @for note in &report.notes { (paragraphs(note)) }
                        }
                    }
                    (reading())
                }
                footer { p.muted { "Written by Sluice. This page holds all its data and fetches nothing." } }
            }
        }
    };
    page.into_string()
}

fn summary(report: &Report) -> Markup {
    html! {
        section aria-labelledby="summary" {
            h2 id="summary" { "Summary" }
            @if report.rollouts.is_empty() {
                p { "No rollout is on trial." }
            } @else {
                table.cards.summary {
                    thead { tr {
                        th scope="col" { "rollout" }
                        th scope="col" { "outcome" }
                        th scope="col" { "in one line" }
                        th scope="col" { "canary's share" }
                    } }
                    tbody {
                        @for (index, story) in report.rollouts.iter().enumerate() {
                            tr {
                                td data-label="rollout" { span { a href=(format!("#r{index}")) { bdi { (visible(&story.subject.rollout)) } } } }
                                td data-label="outcome" { span { (badge(story.outcome)) } }
                                td data-label="in one line" { span { (visible(&story.headline)) } }
                                td data-label="canary's share" { span { (spark(&steps(&story.ticks), &shares_in_words(&story.ticks))) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn rollout(index: usize, story: &Story, generated: i64) -> Markup {
    let id = format!("r{index}");
    let subject = &story.subject;
    let heading = format!("{id}-h");
    html! {
        section.rollout id=(id) aria-labelledby=(heading) {
            h2 id=(heading) { bdi { (visible(&subject.rollout)) } " " (badge(story.outcome)) }
            p.headline { (visible(&story.headline)) }
            (paragraphs(&story.explanation))
            p.muted {
                bdi { (visible(&subject.route)) } ": " bdi { (visible(&subject.stable)) } " (stable) → "
                bdi { (visible(&subject.canary)) } " (canary)"
            }
            @if story.ticks.is_empty() {
                p { "Nothing was seen of it yet." }
            } @else {
                h3 { "What happened" }
                div.charts {
                    (timeline(&id, story).figure())
                    @for chart in signals::charts(&id, story) { (chart.figure()) }
                }
                details {
                    summary { "The same as numbers, by rung" }
                    (signals::rungs(story))
                }
            }
            @if !story.pulls.is_empty() {
                h3 { "Pull requests" }
                @for pull in &story.pulls { (pull_view(pull, generated)) }
            }
            @if !story.events.is_empty() {
                h3 { "Events" }
                ol.events {
                    @for (t, text) in &story.events { li { (time(*t)) " " span { (visible(text)) } } }
                }
            }
        }
    }
}

/// The share in force over time, with the pull requests that changed it.
fn timeline(id: &str, story: &Story) -> Chart {
    let (from, to) = span(&story.ticks);
    let steps = steps(&story.ticks);
    let mut summary = shares_in_words(&story.ticks);
    if !story.pulls.is_empty() {
        let merged = story.pulls.iter().filter(|pull| is_merged(pull)).count();
        summary += &format!(
            " {} pull request{}, {merged} merged.",
            story.pulls.len(),
            if story.pulls.len() == 1 { "" } else { "s" }
        );
    }
    Chart {
        id: format!("{id}-share"),
        title: "The canary's share of the traffic".to_owned(),
        summary,
        from,
        to,
        scale: Scale::percent(steps.iter().map(|(_, share)| *share).fold(10.0, f64::max), "% of the route's traffic"),
        lines: vec![Line {
            role: Role::Share,
            label: "share in force".to_owned(),
            points: steps.into_iter().map(|(t, share)| (t, Some(share))).collect(),
        }],
        bounds: Vec::new(),
        spans: story
            .pulls
            .iter()
            .map(|pull| Span {
                label: format!("#{}", pull.number),
                from: pull.opened,
                to: pull.ended,
                merged: is_merged(pull),
            })
            .collect(),
        changes: Vec::new(),
    }
}

fn pull_view(pull: &PullView, generated: i64) -> Markup {
    let name = format!("Change of pull request {}", pull.number);
    html! {
        details.pull {
            summary {
                strong { "#" (pull.number) } " " (visible(&pull.title)) " "
                span.muted {
                    "(" (visible(&pull.state)) ", opened " (time(pull.opened))
                    @match pull.ended {
                        Some(ended) => { ", ended " (clock(ended, "%H:%M")) }
                        None => { ", open for " (about((generated - pull.opened).max(0) as f64)) }
                    }
                    ")"
                }
            }
            @if !pull.diff.trim().is_empty() {
                h4 { "Change" }
                (diff(&pull.diff, &name))
            }
            @if !pull.body_markdown.trim().is_empty() {
                h4 { "What it said" }
                div.words { (markdown::render(&pull.body_markdown)) }
            }
        }
    }
}

fn diff(text: &str, name: &str) -> Markup {
    let text = visible_lines(text.trim_end_matches('\n'));
    html! {
        pre.diff tabindex="0" role="region" aria-label=(name) {
            @for line in text.split('\n') {
                @let class = match line.as_bytes() {
                    [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => "file",
                    [b'd', b'i', b'f', b'f', b' ', ..] | [b'i', b'n', b'd', b'e', b'x', b' ', ..] => "file",
                    [b'+', ..] => "add",
                    [b'-', ..] => "del",
                    [b'@', b'@', ..] => "hunk",
                    _ => "same",
                };
                span class=(class) { (line) "\n" }
            }
        }
    }
}

/// How to read the charts, once for all.
fn reading() -> Markup {
    html! {
        section aria-labelledby="reading" {
            h2 id="reading" { "How to read the evidence" }
            p {
                "Evidence is told as odds. " b { "1,240 : 1" } " means that what was seen is 1,240 times more likely if the claim "
                "holds than if it does not; " b { "1 : 37" } " speaks against the claim. The charts show the logarithm, so equal "
                "steps are equal factors; a line along an edge is beyond it. The odds hold however often one looks."
            }
            dl {
                dt { "Harm" }
                dd { "The canary has more bad requests than allowed. Passing its bound rolls back. It looks at the canary's whole life." }
                dt { "Safety" }
                dd { "The canary is not as bad as this rung must exclude. All signals must pass before the share is raised. It starts anew on each rung, and harm overrules it." }
                dt { "Gaps" }
                dd { "No data from an arm. They count neither for nor against, and lines break there." }
            }
        }
    }
}

fn badge(outcome: Outcome) -> Markup {
    let (sign, word, class) = outcome.shown();
    html! { span.badge.(class) { span aria-hidden="true" { (sign) } " " (word) } }
}

fn paragraphs(text: &str) -> Markup {
    html! {
        @for part in text.split("\n\n").filter(|part| !part.trim().is_empty()) { p { (visible(&part.trim().replace('\n', " "))) } }
    }
}

fn time(t: i64) -> Markup {
    html! { time datetime=(clock(t, "%Y-%m-%dT%H:%M:%SZ")) { (moment(t)) } }
}

fn is_merged(pull: &PullView) -> bool {
    pull.state.to_lowercase().contains("merged")
}

/// From the first tick's beginning, as far as known, to the last tick.
fn span(ticks: &[Tick]) -> (i64, i64) {
    let to = ticks.last().map_or(1, |tick| tick.t);
    match ticks {
        [first, second, ..] => (first.t - (second.t - first.t), to),
        [only] => (only.t - 60, to),
        [] => (0, to),
    }
}

/// The corners of the shares: a tick ends at its time, so its share began at the tick before.
fn steps(ticks: &[Tick]) -> Vec<(i64, f64)> {
    let mut corners: Vec<(i64, f64)> = Vec::new();
    let mut before = span(ticks).0;
    for tick in ticks {
        match corners.last() {
            Some((_, share)) if (share - tick.share).abs() < 1e-9 => {}
            Some((_, share)) => {
                let share = *share;
                corners.extend([(before, share), (before, tick.share)]);
            }
            None => corners.push((before, tick.share)),
        }
        before = tick.t;
    }
    corners.extend(ticks.last().map(|tick| (tick.t, tick.share)));
    corners
}

/// `5 % from 09:00, 10 % from 09:16, 25 % from 09:33 until 10:04.`
fn shares_in_words(ticks: &[Tick]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut last = None;
    let mut before = span(ticks).0;
    for tick in ticks {
        if last.is_none_or(|last: f64| (last - tick.share).abs() > 1e-9) {
            parts.push(format!("{} from {}", share(tick.share), within(span(ticks), before)));
            last = Some(tick.share);
        }
        before = tick.t;
    }
    if parts.len() > 12 {
        let skipped = parts.len() - 12;
        parts.splice(6..parts.len() - 6, [format!("… {skipped} more …")]);
    }
    match ticks.last() {
        Some(tick) => format!("{} until {}.", parts.join(", "), within(span(ticks), tick.t)),
        None => "Nothing seen yet.".to_owned(),
    }
}
