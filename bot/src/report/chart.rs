//! Small charts as inline SVG.
//!
//! Our own, because a plotting library draws fixed colours and no `<title>`: these take their colours from the page's CSS
//! variables, so that they follow the dark theme and print, and say to a screen reader what they show. Lines differ by
//! dash pattern as well as by colour. A chart scales with its column and is drawn for about 400 CSS pixels.

use jiff::{Timestamp, tz::TimeZone};
use maud::{Markup, html};
use std::fmt::Write;

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 224.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 26.0;
/// Height of one row of pull requests above the plot.
const ROW: f64 = 15.0;
/// Points a line keeps: about one for each pixel.
const POINTS: usize = 400;

/// What a line is; decides its colour and its dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Share,
    Canary,
    Stable,
    Harm,
    Safe,
}

impl Role {
    fn class(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Canary => "canary",
            Self::Stable => "stable",
            Self::Harm => "harm",
            Self::Safe => "safe",
        }
    }
}

/// One line; `None` is a gap and is drawn as one.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) role: Role,
    pub(super) label: String,
    pub(super) points: Vec<(i64, Option<f64>)>,
}

/// A dashed level with its label on it.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) role: Role,
    pub(super) at: f64,
    pub(super) label: String,
}

/// A pull request: from when it was opened until it ended.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) label: String,
    pub(super) from: i64,
    pub(super) to: Option<i64>,
    pub(super) merged: bool,
}

/// The upright axis.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
    unit: String,
}

impl Scale {
    /// From 0 to `highest` percent, with round ticks.
    pub(super) fn percent(highest: f64, unit: impl Into<String>) -> Self {
        let highest = if highest.is_finite() { highest.clamp(1e-6, 100.0) } else { 100.0 };
        let step = round_step(highest / 4.0);
        let steps = (highest / step - 1e-9).ceil().max(1.0);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let ticks =
            (0..=steps as usize).map(|i| (i as f64 * step, format!("{:.decimals$} %", i as f64 * step))).collect();
        Self { low: 0.0, high: steps * step, ticks, unit: unit.into() }
    }

    /// Between two numbers, with round ticks.
    pub(super) fn plain(low: f64, high: f64, unit: impl Into<String>) -> Self {
        let spread = (high - low).max(1e-6);
        let step = round_step(spread / 4.0);
        let (first, last) = ((low / step).floor(), (high / step).ceil().max((low / step).floor() + 1.0));
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let ticks = (0..=(last - first) as usize)
            .map(|i| ((first + i as f64) * step, format!("{:.decimals$}", (first + i as f64) * step)))
            .collect();
        Self { low: first * step, high: last * step, ticks, unit: unit.into() }
    }

    /// Odds for `ln E` from `low` to `high`, a tick at powers of ten.
    pub(super) fn odds(low: f64, high: f64) -> Self {
        let ten = std::f64::consts::LN_10;
        let (first, last) = ((low / ten).floor() as i32, (high / ten).ceil() as i32);
        let stride = ((last - first) / 6 + 1).max(1);
        let ticks = (first..=last)
            .filter(|power| power % stride == 0)
            .map(|power| {
                let many = match power.unsigned_abs() {
                    0 => "even".to_owned(),
                    1 => "10".to_owned(),
                    2 => "100".to_owned(),
                    3 => "1,000".to_owned(),
                    more => format!("10{}", superscript(more)),
                };
                let label = match power.signum() {
                    0 => many,
                    1 => format!("{many} : 1"),
                    _ => format!("1 : {many}"),
                };
                (f64::from(power) * ten, label)
            })
            .collect();
        Self {
            low: f64::from(first) * ten,
            high: f64::from(last) * ten,
            ticks,
            unit: "odds for the claim (ln E, log scale)".to_owned(),
        }
    }
}

/// A chart over time.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    /// Unique on the page.
    pub(super) id: String,
    pub(super) title: String,
    /// What it shows, in words: for those who do not see it, and for those in a hurry.
    pub(super) summary: String,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) scale: Scale,
    pub(super) lines: Vec<Line>,
    pub(super) bounds: Vec<Bound>,
    pub(super) spans: Vec<Span>,
    /// Moments at which the share changed, as thin uprights.
    pub(super) changes: Vec<i64>,
}

impl Chart {
    /// The figure: caption, drawing, legend, words.
    pub(super) fn figure(&self) -> Markup {
        html! {
            figure {
                figcaption { (self.title) }
                (self.svg())
                ul.legend {
                    @for line in &self.lines {
                        li { (swatch(line.role)) (line.label) }
                    }
                    @if !self.spans.is_empty() {
                        li { span.glyph aria-hidden="true" { "○" } "opened" }
                        li { span.glyph aria-hidden="true" { "●" } "merged" }
                        @if self.spans.iter().any(|span| span.to.is_some() && !span.merged) {
                            li { span.glyph aria-hidden="true" { "×" } "closed" }
                        }
                    }
                }
                p.said { (self.summary) }
            }
        }
    }

    fn svg(&self) -> Markup {
        let rows = self.rows();
        let top = TOP + ROW * rows.iter().map(|(row, _)| row + 1).max().unwrap_or(0) as f64;
        let height = HEIGHT + top - TOP;
        let floor = height - BOTTOM;
        let x = |t: i64| {
            let part = (t - self.from) as f64 / (self.to - self.from).max(1) as f64;
            LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
        };
        let y = |value: f64| {
            let part = (value - self.scale.low) / (self.scale.high - self.scale.low);
            floor - part.clamp(0.0, 1.0) * (floor - top)
        };
        let (title, desc) = (format!("{}-t", self.id), format!("{}-d", self.id));
        html! {
            svg.chart viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-labelledby=(format!("{title} {desc}")) {
                title id=(title) { (self.title) }
                desc id=(desc) { (self.summary) }
                text.unit x="2" y="12" { (self.scale.unit) }
                @for (at, label) in &self.scale.ticks {
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(px(y(*at))) y2=(px(y(*at))) {}
                    text.tick x=(LEFT - 5.0) y=(px(y(*at) + 4.0)) text-anchor="end" { (label) }
                }
                @for (t, label) in time_ticks(self.from, self.to) {
                    line.grid x1=(px(x(t))) x2=(px(x(t))) y1=(px(floor)) y2=(px(floor + 4.0)) {}
                    text.tick x=(px(x(t).clamp(LEFT + 6.0, WIDTH - RIGHT - 14.0))) y=(px(floor + 17.0)) text-anchor="middle" { (label) }
                }
                @for t in &self.changes {
                    line.change x1=(px(x(*t))) x2=(px(x(*t))) y1=(px(top)) y2=(px(floor)) {}
                }
                line.axis x1=(LEFT) x2=(WIDTH - RIGHT) y1=(px(floor)) y2=(px(floor)) {}
                @for bound in &self.bounds {
                    line.bound.(bound.role.class()) x1=(LEFT) x2=(WIDTH - RIGHT) y1=(px(y(bound.at))) y2=(px(y(bound.at))) {}
                }
                @for line in &self.lines {
                    path.line.(line.role.class()) d=(path(&line.points, &x, &y)) {}
                }
                @for (label, at) in self.bound_labels(&y, top) {
                    text.on.(label.role.class()) x=(WIDTH - RIGHT - 2.0) y=(px(at)) text-anchor="end" { (label.label) }
                }
                @for (row, span) in rows {
                    @let level = TOP + ROW * row as f64 + 2.0;
                    @let (from, to) = (x(span.from), span.to.map_or(WIDTH - RIGHT, &x));
                    line.span.open[span.to.is_none()] x1=(px(from)) x2=(px(to)) y1=(px(level)) y2=(px(level)) {}
                    circle.opened cx=(px(from)) cy=(px(level)) r="3" {}
                    @if span.to.is_some() && span.merged {
                        circle.merged cx=(px(to.max(from + 5.0))) cy=(px(level)) r="3.4" {}
                    } @else if span.to.is_some() {
                        path.closed d=(format!("M{} {}l6 6m0 -6l-6 6", px(to.max(from + 5.0) - 3.0), px(level - 3.0))) {}
                    }
                    @let left = label_left(from);
                    text.tick x=(px(if left { from - 7.0 } else { to.max(from + 5.0) + 7.0 })) y=(px(level + 4.0))
                        text-anchor=(if left { "end" } else { "start" }) { (span.label) }
                }
            }
        }
    }

    /// Which row each pull request is drawn in, so that none covers another.
    fn rows(&self) -> Vec<(usize, &Span)> {
        const LABEL: f64 = 46.0;
        let per_second = (WIDTH - LEFT - RIGHT) / (self.to - self.from).max(1) as f64;
        let mut ends: Vec<f64> = Vec::new();
        self.spans
            .iter()
            .map(|span| {
                let mut from = LEFT + (span.from - self.from) as f64 * per_second;
                let mut to = LEFT + (span.to.unwrap_or(self.to) - self.from) as f64 * per_second;
                if label_left(from) {
                    from -= LABEL;
                } else {
                    to = to.max(from) + LABEL;
                }
                // Beyond four rows they may overlap: the list below the charts has them all.
                let row = ends.iter().position(|end| *end < from).unwrap_or(ends.len()).min(3);
                if row == ends.len() {
                    ends.push(0.0);
                }
                ends[row] = ends[row].max(to);
                (row, span)
            })
            .collect()
    }

    /// Labels just above their bounds, moved apart where bounds are close.
    fn bound_labels(&self, y: &impl Fn(f64) -> f64, top: f64) -> Vec<(&Bound, f64)> {
        let mut placed: Vec<(&Bound, f64)> = self.bounds.iter().map(|bound| (bound, y(bound.at) - 4.0)).collect();
        placed.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut last = top - 4.0;
        for (_, at) in &mut placed {
            *at = at.max(last + 12.0);
            last = *at;
        }
        placed
    }
}

/// Whether a label has no room to the right of `x`.
fn label_left(x: f64) -> bool {
    x > WIDTH - 60.0
}

/// A line of shares in a table cell; `label` says in words what it shows.
pub(super) fn spark(points: &[(i64, f64)], label: &str) -> Markup {
    let (from, to) = (points.first().map_or(0, |p| p.0), points.last().map_or(1, |p| p.0));
    let x = |t: i64| 2.0 + 116.0 * (t - from) as f64 / (to - from).max(1) as f64;
    let y = |share: f64| 28.0 - 26.0 * share / 100.0;
    let points: Vec<_> = points.iter().map(|(t, share)| (*t, Some(*share))).collect();
    html! {
        svg.spark viewBox="0 0 120 30" role="img" aria-label=(label) {
            line.grid x1="2" x2="118" y1="28" y2="28" {}
            path.line.share d=(path(&points, &x, &y)) {}
        }
    }
}

fn swatch(role: Role) -> Markup {
    html! {
        svg.swatch viewBox="0 0 28 10" aria-hidden="true" { path.line.(role.class()) d="M1 5H27" {} }
    }
}

fn path(points: &[(i64, Option<f64>)], x: &impl Fn(i64) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let stride = points.len().div_ceil(POINTS).max(1);
    let mut out = String::new();
    let mut pen = false;
    let mut dot = None;
    for (index, (t, value)) in points.iter().enumerate() {
        let gap = value.is_none();
        if !gap && index % stride != 0 && index + 1 != points.len() {
            continue;
        }
        match value.filter(|value| value.is_finite()) {
            Some(value) => {
                let _ = write!(out, "{}{} {}", if pen { 'L' } else { 'M' }, px(x(*t)), px(y(value)));
                dot = if pen { None } else { Some(()) };
                pen = true;
            }
            None => {
                // A lone point between two gaps would not show: a stroke of no length does, with round caps.
                if dot.take().is_some() {
                    out.push_str("h0");
                }
                pen = false;
            }
        }
    }
    if dot.is_some() {
        out.push_str("h0");
    }
    out
}

/// At most five moments that people would name: full hours, quarters, days; in UTC.
fn time_ticks(from: i64, to: i64) -> Vec<(i64, String)> {
    const STEPS: [i64; 15] =
        [60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000];
    let length = (to - from).max(1);
    let step = STEPS.into_iter().find(|step| length / step <= 4).unwrap_or(length / 4);
    let first = from.div_euclid(step) * step + if from.rem_euclid(step) == 0 { 0 } else { step };
    (0..6)
        .map(|i| first + i * step)
        .take_while(|t| *t <= to)
        .map(|t| {
            let midnight = t.rem_euclid(86_400) == 0;
            (t, clock(t, if midnight && length > 86_400 / 2 { "%b %-d" } else { "%H:%M" }))
        })
        .collect()
}

/// A moment in UTC in jiff's notation.
pub(super) fn clock(t: i64, format: &str) -> String {
    Timestamp::from_second(t).map_or_else(|_| t.to_string(), |t| t.to_zoned(TimeZone::UTC).strftime(format).to_string())
}

/// A moment within a story: the time alone, with the day where the story is longer than one.
pub(super) fn within((from, to): (i64, i64), t: i64) -> String {
    clock(t, if to - from > 72_000 { "%b %-d %H:%M" } else { "%H:%M" })
}

fn round_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let digit = rough / power;
    let round = [1.0, 2.0, 2.5, 5.0].into_iter().find(|step| digit <= step + 1e-9).unwrap_or(10.0);
    // 2.5 needs one more digit than the others; at small powers that is noise in a label.
    if (round - 2.5).abs() < 1e-9 && power < 10.0 { 5.0 * power } else { round * power }
}

fn superscript(number: u32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    number.to_string().chars().filter_map(|c| c.to_digit(10)).map(|digit| DIGITS[digit as usize]).collect()
}

fn px(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_moments_that_people_would_name() {
        let labels = |from, to| time_ticks(from, to).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        let nine = 1_795_597_200; // 2026-11-25 09:00
        assert_eq!(labels(nine, nine + 3600), ["09:00", "09:15", "09:30", "09:45", "10:00"]);
        assert_eq!(labels(nine + 60, nine + 3 * 86_400), ["Nov 26", "Nov 27", "Nov 28"]);
        assert!(labels(nine, nine).len() <= 5);
    }

    #[test]
    fn draws_gaps_as_gaps_and_lone_points_as_dots() {
        let points = [(0, Some(1.0)), (1, None), (2, Some(1.0)), (3, Some(2.0))];
        assert_eq!(path(&points, &|t| t as f64, &|v| v), "M0 1h0M2 1L3 2");
    }

    #[test]
    fn scales_have_round_ticks_for_any_range() {
        for high in [1e-9, 0.013, 0.5, 1.0, 3.7, 42.0, 100.0, f64::NAN] {
            let scale = Scale::percent(high, "");
            assert!((2..=6).contains(&scale.ticks.len()), "{high}: {scale:?}");
        }
        assert_eq!(Scale::percent(0.9, "").ticks[1].1, "0.5 %");
        assert_eq!(Scale::odds(-3.0, 6.0).ticks.len(), 6);
        assert!(Scale::plain(0.81, 0.86, "").ticks.len() >= 2);
    }
}
