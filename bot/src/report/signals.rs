//! The signals of a rollout: evidence, rates and scores over time, and a table by rung.

use super::chart::{Bound, Chart, Line, Role, Scale, within};
use super::{Story, span};
use maud::{Markup, html};
use sluice_rules::canary::{Arms, Counts, SignalVerdict, Tick};
use sluice_rules::evidence::SignalClaim;
use sluice_rules::proposal::body::escape::visible;
use sluice_rules::proposal::body::words::{count, odds, rate, share};

/// Ticks on each side that a rate is averaged over, at least.
const SMOOTH: usize = 2;
/// A long story is averaged over more, so that a line shows about so many separate values.
const VALUES: usize = 60;
/// A chart per signal twice over: beyond this many a page is no page any more.
const SIGNALS: usize = 12;

/// Evidence and rate of each signal, side by side.
pub(super) fn charts(id: &str, story: &Story) -> Vec<Chart> {
    let mut charts = Vec::new();
    for (index, name) in names(story).into_iter().take(SIGNALS).enumerate() {
        charts.extend(evidence(&format!("{id}-e{index}"), story, name));
        charts.extend(rates(&format!("{id}-r{index}"), story, name));
    }
    charts
}

fn names(story: &Story) -> Vec<&str> {
    let mut names: Vec<&str> = story.ticks.iter().flat_map(|tick| tick.signals.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn evidence(id: &str, story: &Story, name: &str) -> Option<Chart> {
    // Once an arm serves nothing there is nothing left to compare, and what the judge holds is no news.
    let claims: Vec<(i64, Option<&SignalClaim>)> = story
        .points
        .iter()
        .map(|point| (point.t, point.claim.signals.get(name).filter(|_| compared(point.share))))
        .collect();
    let known = || claims.iter().filter_map(|(t, claim)| Some((*t, (*claim)?)));
    let (_, last) = known().next_back()?;
    let (from, to) = span(&story.ticks);
    let safe_bound = (1.0 / story.policy.beta).ln();
    let harm_bound = last.harm_bound;
    let all = known().flat_map(|(_, claim)| [claim.harm, claim.safe]).filter(|log| log.is_finite());
    let (low, high) = all.fold((0.0_f64, 0.0_f64), |(low, high), log| (low.min(log), high.max(log)));
    // What lies far beyond a bound or far below even is not told apart: near the bound is where it matters.
    let scale = Scale::odds(low.clamp(-4.6, -2.3), high.clamp(harm_bound * 1.15, harm_bound.max(safe_bound) * 1.7));
    let peak = known().max_by(|a, b| a.1.harm.total_cmp(&b.1.harm))?;
    let verdict = match (last.verdict, last.score) {
        (SignalVerdict::Harm, false) => "harm",
        (SignalVerdict::Harm, true) => "below its margin",
        (SignalVerdict::Safe, _) => "safe",
        (SignalVerdict::Undecided, _) => "undecided",
    };
    let summary = format!(
        "Harm stood highest at {}, {} ({} needed). While both arms served, safety ended at {} ({} needed); the last \
         verdict was: {verdict}.",
        within((from, to), peak.0),
        odds(peak.1.harm),
        odds(harm_bound),
        odds(last.safe),
        odds(safe_bound),
    );
    let line = |role, label: &str, value: fn(&SignalClaim) -> f64| Line {
        role,
        label: label.to_owned(),
        points: claims.iter().map(|(t, claim)| (*t, claim.map(value))).collect(),
    };
    Some(Chart {
        id: id.to_owned(),
        title: format!("Evidence in {}", visible(name)),
        summary,
        from,
        to,
        scale,
        lines: vec![
            line(Role::Harm, "harm", |claim| claim.harm),
            line(Role::Safe, "safety on the rung", |claim| claim.safe),
        ],
        bounds: vec![
            Bound {
                role: Role::Harm,
                at: harm_bound,
                label: format!(
                    "{} {}",
                    if last.score { "asks a person at" } else { "rolls back at" },
                    short_odds(harm_bound)
                ),
            },
            Bound { role: Role::Safe, at: safe_bound, label: format!("safe at {}", short_odds(safe_bound)) },
        ],
        spans: Vec::new(),
        changes: changes(&story.ticks),
    })
}

fn rates(id: &str, story: &Story, name: &str) -> Option<Chart> {
    let declared = story.policy.signals.get(name);
    let score = declared.and_then(|signal| signal.score_margin()).is_some()
        || story.points.iter().any(|point| point.claim.signals.get(name).is_some_and(|claim| claim.score));
    let (canary, stable) =
        (smooth(&story.ticks, name, |arms| arms.canary), smooth(&story.ticks, name, |arms| arms.stable));
    let window = 2 * side(&story.ticks) + 1;
    let factor = if score { 1.0 } else { 100.0 };
    let values = || canary.iter().chain(&stable).filter_map(|(_, value)| *value);
    values().next()?;
    let (low, high) = values().fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    let (from, to) = span(&story.ticks);
    let objective = declared.and_then(|signal| signal.ceiling);
    let shown = objective.filter(|objective| *objective <= 3.0 * high);
    let tell = |value: f64| if score { format!("{value:.3}") } else { rate(value) };
    let mean = |points: &[(i64, Option<f64>)]| {
        points.iter().rev().find_map(|(_, value)| *value).map_or("no data".to_owned(), tell)
    };
    let peak = canary.iter().filter_map(|(t, value)| Some((*t, (*value)?))).max_by(|a, b| a.1.total_cmp(&b.1));
    let mut summary = format!("At the end: canary {}, stable {}.", mean(&canary), mean(&stable));
    if let (Some((t, value)), false) = (peak, score) {
        summary += &format!(" The canary's highest was {} at {}.", tell(value), within((from, to), t));
    }
    if let Some(objective) = objective {
        summary += &format!(" The objective allows {}.", tell(objective));
    }
    let lacking = |tick: &&Tick| {
        let arms = tick.signals.get(name).and_then(|arms| arms.canary);
        compared(tick.share) && arms.is_none_or(|counts| counts.n <= 0.0)
    };
    match story.ticks.iter().filter(lacking).count() {
        0 => {}
        1 => summary += " One look had no data of the canary.",
        gaps => summary += &format!(" {gaps} looks had no data of the canary."),
    }
    let line = |role, label: &str, points: Vec<(i64, Option<f64>)>| Line {
        role,
        label: label.to_owned(),
        points: points.into_iter().map(|(t, value)| (t, value.map(|value| value * factor))).collect(),
    };
    let title = match (score, name) {
        (true, _) => format!("Mean of {}", visible(name)),
        (false, "errors") => "Requests that failed".to_owned(),
        (false, "slow") => "Requests that were too slow".to_owned(),
        (false, _) => format!("Bad requests in {}", visible(name)),
    };
    Some(Chart {
        id: id.to_owned(),
        title,
        summary,
        from,
        to,
        scale: if score {
            Scale::plain(low, high, format!("0 to 1, over {window} looks"))
        } else {
            Scale::percent(100.0 * high.max(shown.unwrap_or(0.0)) * 1.05, format!("% of requests, over {window} looks"))
        },
        lines: vec![line(Role::Canary, "canary", canary), line(Role::Stable, "stable", stable)],
        bounds: shown
            .map(|objective| Bound {
                role: Role::Share,
                at: objective * factor,
                label: format!("objective {}", rate(objective)),
            })
            .into_iter()
            .collect(),
        spans: Vec::new(),
        changes: changes(&story.ticks),
    })
}

/// Counts of neighbouring ticks together; a tick without data is a gap, whatever its neighbours have.
fn smooth(ticks: &[Tick], name: &str, arm: fn(&Arms) -> Option<Counts>) -> Vec<(i64, Option<f64>)> {
    let counts: Vec<Option<Counts>> =
        ticks.iter().map(|tick| tick.signals.get(name).and_then(arm).filter(|counts| counts.n > 0.0)).collect();
    let (pace, side) = (pace(ticks), side(ticks));
    let mut points = Vec::with_capacity(ticks.len());
    for (index, tick) in ticks.iter().enumerate() {
        if index > 0 && tick.t - ticks[index - 1].t > pace * 5 / 2 {
            points.push((ticks[index - 1].t + 1, None));
        }
        let value = counts[index].map(|_| {
            let near = &counts[index.saturating_sub(side)..(index + side + 1).min(counts.len())];
            let (n, x) = near.iter().flatten().fold((0.0, 0.0), |(n, x), counts| (n + counts.n, x + counts.x));
            x / n
        });
        points.push((tick.t, value));
    }
    points
}

fn side(ticks: &[Tick]) -> usize {
    SMOOTH.max(ticks.len() / VALUES / 2)
}

/// The usual time between two ticks.
fn pace(ticks: &[Tick]) -> i64 {
    let mut steps: Vec<i64> = ticks.windows(2).map(|pair| pair[1].t - pair[0].t).collect();
    steps.sort_unstable();
    steps.get(steps.len() / 2).copied().unwrap_or(60).max(1)
}

/// Whether both arms get traffic.
fn compared(share: f64) -> bool {
    share > 0.0 && share < 100.0
}

fn changes(ticks: &[Tick]) -> Vec<i64> {
    ticks.windows(2).filter(|pair| (pair[0].share - pair[1].share).abs() > 1e-9).map(|pair| pair[0].t).collect()
}

/// The counts of each rung, one row for each signal: what the charts show, as numbers.
pub(super) fn rungs(story: &Story) -> Markup {
    let names = names(story);
    let mut rows = Vec::new();
    let mut start = 0;
    let mut since = span(&story.ticks).0;
    while start < story.ticks.len() {
        let at = story.ticks[start].share;
        let length = story.ticks[start..].iter().take_while(|tick| (tick.share - at).abs() < 1e-9).count();
        let ticks = &story.ticks[start..start + length];
        let until = ticks[length - 1].t;
        let end = story.points.get(start + length - 1);
        for name in names.iter().take(SIGNALS) {
            let sum = |arm: fn(&Arms) -> Option<Counts>| {
                let arms = ticks.iter().filter_map(|tick| tick.signals.get(*name).and_then(arm));
                arms.fold((0.0, 0.0), |(n, x), counts| (n + counts.n, x + counts.x))
            };
            let claim = end.and_then(|point| point.claim.signals.get(*name));
            let score = claim.is_some_and(|claim| claim.score);
            let claim = claim.filter(|_| compared(at));
            let tell = |(n, x): (f64, f64)| match n {
                n if n <= 0.0 => "no data".to_owned(),
                n if score => format!("mean {:.3} of {}", x / n, count(n)),
                n => format!("{} of {} ({})", count(x), count(n), rate(x / n)),
            };
            rows.push([
                format!("{}, {}–{}", share(at), within(span(&story.ticks), since), within(span(&story.ticks), until)),
                visible(name),
                tell(sum(|arms| arms.canary)),
                tell(sum(|arms| arms.stable)),
                claim.map_or("–".to_owned(), |claim| odds(claim.harm)),
                claim.map_or("–".to_owned(), |claim| odds(claim.safe)),
            ]);
        }
        since = until;
        start += length;
    }
    const HEAD: [&str; 6] =
        ["rung", "signal", "canary: bad of all", "stable: bad of all", "harm at its end", "safety at its end"];
    html! {
        table.cards {
            thead { tr { @for head in HEAD { th scope="col" { (head) } } } }
            tbody {
                @for row in rows.iter().take(200) {
                    tr { @for (cell, head) in row.iter().zip(HEAD) { td data-label=(head) { span { (cell) } } } }
                }
            }
        }
        @if rows.len() > 200 { p.muted { "and " (rows.len() - 200) " more" } }
    }
}

fn short_odds(log: f64) -> String {
    format!("{} : 1", count(log.exp()))
}
