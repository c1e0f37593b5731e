//! The way so far: rungs, gaps and the chart of the evidence.

use crate::canary::{Arms, Counts, Tick};
use crate::evidence::Evidence;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Ticks in a row at one share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rung {
    pub(super) share: f64,
    /// End of the tick before the first, or the first when there is none before.
    pub(super) since: i64,
    pub(super) until: i64,
    pub(super) looks: usize,
    /// Canary and stable counts of ticks in which both arms served.
    pub(super) counts: BTreeMap<String, [Counts; 2]>,
}

pub(super) fn rungs(ticks: &[Tick]) -> Vec<Rung> {
    let mut found: Vec<Rung> = Vec::new();
    let mut last = None;
    for tick in ticks {
        if found.last().is_none_or(|rung| (rung.share - tick.share).abs() > 1e-9) {
            let since = last.unwrap_or(tick.t);
            found.push(Rung { share: tick.share, since, until: tick.t, looks: 0, counts: BTreeMap::new() });
        }
        last = Some(tick.t);
        let Some(rung) = found.last_mut() else { continue };
        rung.until = tick.t;
        rung.looks += 1;
        for (name, arms) in &tick.signals {
            let Some((canary, stable)) = both(arms) else { continue };
            let sums = rung.counts.entry(name.clone()).or_insert([Counts { n: 0.0, x: 0.0 }; 2]);
            for (sum, arm) in sums.iter_mut().zip([canary, stable]) {
                *sum = Counts { n: sum.n + arm.n, x: sum.x + arm.x };
            }
        }
    }
    found
}

/// Both arms of a tick, when both served.
pub(super) fn both(arms: &Arms) -> Option<(Counts, Counts)> {
    let served = |arm: Option<Counts>| arm.filter(|counts| counts.n > 0.0);
    Some((served(arms.canary)?, served(arms.stable)?))
}

/// Ticks in which no signal had both arms, though both had a share.
pub(super) fn gaps(ticks: &[Tick]) -> usize {
    let compared = ticks.iter().filter(|tick| tick.share > 0.0 && tick.share < 100.0);
    compared.filter(|tick| !tick.signals.values().any(|arms| both(arms).is_some())).count()
}

/// Most points of a chart: GitHub draws more, but nobody sees them.
const POINTS: usize = 60;

/// The evidence in percent of its bound, as a Mermaid chart: the strongest harm and the weakest safety of all signals,
/// which are what decides. So one chart does for any number of signals, and it holds no foreign word.
pub(super) fn mermaid(evidence: &Evidence) -> Option<String> {
    let points = evidence.points().ok()?;
    let (first, last) = (points.first()?.t, points.last()?.t);
    if points.len() < 3 || last <= first || points.iter().all(|point| point.share <= 0.0) {
        return None;
    }
    let safe_bound = (1.0 / evidence.policy.beta).ln();
    let mut harm = Vec::new();
    let mut safe = Vec::new();
    let kept = points.len().min(POINTS);
    for index in 0..kept {
        let point = &points[index * (points.len() - 1) / (kept - 1)];
        let signals = point.claim.signals.values();
        let worst = signals.clone().map(|s| s.harm / s.harm_bound).fold(f64::NEG_INFINITY, f64::max);
        let weakest = signals.map(|s| s.safe / safe_bound).fold(f64::INFINITY, f64::min);
        // Far below is as good as below; a chart that follows it there shows nothing else.
        let percent = |part: f64| if part.is_finite() { (part * 100.0).clamp(-100.0, 200.0).round() as i64 } else { 0 };
        harm.push(percent(worst).to_string());
        safe.push(percent(weakest).to_string());
    }
    let bound = vec!["100"; kept].join(", ");
    let mut out = String::new();
    let _ = write!(
        out,
        "\nThe way there, in percent of what is needed: **red** is the strongest evidence of harm, **green** the weakest \
         evidence of safety (it starts anew on each rung), **grey** the bound. Red above grey rolls back; green above \
         grey may move on.\n\n\
         ```mermaid\n\
         %%{{init: {{\"themeVariables\": {{\"xyChart\": {{\"plotColorPalette\": \"#cf222e, #2da44e, #8c959f\"}}}}}}}}%%\n\
         xychart-beta\n    \
         x-axis \"minutes since the first look\" 0 --> {}\n    \
         y-axis \"percent of the bound\" -100 --> 200\n    \
         line [{}]\n    line [{}]\n    line [{bound}]\n```\n",
        ((last - first) as f64 / 60.0).ceil().max(1.0),
        harm.join(", "),
        safe.join(", "),
    );
    Some(out)
}
