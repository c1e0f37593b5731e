//! What comes after this proposal if all stays well: how much must be seen on each rung, and when that may be.

use super::super::Proposal;
use super::escape::code;
use super::words::{about, count, moment, ratio, share};
use crate::canary::{Counts, Policy};
use crate::evidence::Evidence;
use std::fmt::Write;

/// Looks that say what "current traffic" is.
const RECENT: usize = 30;

/// Traffic of one signal, both arms together, per second.
#[derive(Debug, Clone, Copy)]
struct Traffic {
    requests: f64,
    bad: f64,
    /// Seconds between looks.
    pace: f64,
    burstiness: f64,
    objective: Option<f64>,
}

/// What a rung asks of its slowest signal.
struct Need<'a> {
    signal: &'a str,
    text: String,
    seconds: f64,
}

pub(super) fn section(out: &mut String, proposal: &Proposal) {
    let evidence = &proposal.evidence;
    let policy = &evidence.policy;
    let Some(now) = evidence.ticks.last().map(|tick| tick.t) else { return };
    if proposal.to >= 100.0 - 1e-9 {
        let _ = writeln!(out, "\n### What comes next\n\nThis is the last step: at 100 % the trial is over.");
        return;
    }
    if proposal.to <= 0.0 {
        let _ = writeln!(
            out,
            "\n### What comes next\n\nMerging ends the trial; giving the canary weight again begins a new one."
        );
        return;
    }
    let rungs = policy.rungs();
    let climbed: Vec<f64> =
        rungs.into_iter().filter(|rung| *rung >= proposal.to - 1e-9 && *rung < 100.0 - 1e-9).take(20).collect();
    if climbed.is_empty() {
        let _ = writeln!(out, "\n### What comes next\n\nNo rung is left to climb: at 100 % the trial is over.");
        return;
    }
    let scores = evidence.claim.signals.values().any(|signal| signal.score);
    let traffic: Vec<_> = evidence
        .claim
        .signals
        .iter()
        .filter(|(_, signal)| !signal.score)
        .filter_map(|(name, signal)| Some((name.as_str(), measure(evidence, name, signal.burstiness)?)))
        .collect();
    let _ = writeln!(
        out,
        "\n### What comes next\n\n\
         This is the way if the canary is as good as the stable arm and traffic stays as it was lately (the last {} looks at most). Each step is a pull \
         request of its own; a rung is left when the evidence is there, not when the time is up.\n\n\
         | on the rung | must not be | about this much to see | at the earliest done |\n|---|---|---|---|",
        RECENT,
    );
    let mut at = now as f64;
    let mut known = true;
    for rung in climbed {
        let slowest = traffic
            .iter()
            .map(|(name, traffic)| need(policy, rung, name, *traffic))
            .max_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let dwell = policy.dwell_at(rung).0 as f64;
        let margin = format!("{} times as bad", ratio(policy.margin_at(rung)));
        let Some(need) = slowest else {
            let unknown = if scores { "what the business metrics need" } else { "traffic not known yet" };
            let _ = writeln!(out, "| {} | {margin} | {unknown} | – |", share(rung));
            known = false;
            continue;
        };
        let stay = need.seconds.max(dwell);
        at += stay;
        known &= at.is_finite();
        let done = if known { format!("{}, after {}", moment(at as i64), about(stay)) } else { "–".to_owned() };
        let _ = writeln!(out, "| {} | {margin} | {} for {} | {done} |", share(rung), need.text, code(need.signal));
    }
    let last = if known {
        format!("At the earliest 100 % is proposed at {}, {} from now.", moment(at as i64), about(at - now as f64))
    } else {
        "From what was seen so far no time can be named.".to_owned()
    };
    let _ = writeln!(
        out,
        "\n{last} Time for review and for guards comes on top{}.",
        if scores { ", as does what business metrics need, which cannot be foreseen" } else { "" }
    );
}

fn measure(evidence: &Evidence, name: &str, burstiness: f64) -> Option<Traffic> {
    let ticks = &evidence.ticks;
    let pace = match (ticks.first(), ticks.last()) {
        (Some(first), Some(last)) if ticks.len() > 1 => (last.t - first.t) as f64 / (ticks.len() - 1) as f64,
        _ => return None,
    };
    let mut sum = Counts { n: 0.0, x: 0.0 };
    let mut looks = 0.0;
    for tick in ticks.iter().rev().take(RECENT) {
        let Some(arms) = tick.signals.get(name) else { continue };
        let all = match super::trace::both(arms) {
            Some((canary, stable)) => Counts { n: canary.n + stable.n, x: canary.x + stable.x },
            // Before the first rung the stable arm is all the traffic there is.
            None if tick.share <= 0.0 => arms.stable.unwrap_or(Counts { n: 0.0, x: 0.0 }),
            None => continue,
        };
        sum = Counts { n: sum.n + all.n, x: sum.x + all.x };
        looks += 1.0;
    }
    let seconds = looks * pace;
    let objective = evidence.policy.signals.get(name).and_then(|signal| signal.ceiling);
    (seconds > 0.0 && sum.n > 0.0).then(|| Traffic {
        requests: sum.n / seconds,
        bad: sum.x / seconds,
        pace,
        burstiness: burstiness.max(0.0),
        objective,
    })
}

/// The faster of two ways to be safe: the ratio excluded, or the rate comfortably low. The same arithmetic as the
/// judge's, in expectation and for a canary that equals the stable arm; the constants are what its mixtures cost.
fn need<'a>(policy: &Policy, rung: f64, signal: &'a str, traffic: Traffic) -> Need<'a> {
    let target = (1.0 / policy.beta).ln() + std::f64::consts::LN_2;

    let theta = |ratio: f64| ratio * rung / (ratio * rung + 100.0 - rung);
    let (equal, worse) = (theta(1.0), theta(policy.margin_at(rung)));
    let per_event = equal * (equal / worse).ln() + (1.0 - equal) * ((1.0 - equal) / (1.0 - worse)).ln();
    let per_look = traffic.bad * traffic.pace;
    let bursts = 1.0 + (per_look - 1.0).max(0.0) * 2.0 * traffic.burstiness * equal * (1.0 - equal);
    let events = (target + 0.357) / per_event * bursts;
    let by_ratio = events / traffic.bad;

    let ceiling = policy.ceiling_at(rung, traffic.objective);
    let rate = traffic.bad / traffic.requests;
    let canary = traffic.requests * rung / 100.0;
    let calm = 1.0 + canary * traffic.pace * ceiling * traffic.burstiness;
    let requests = [(0.5, 0.5_f64), (0.25, 0.3), (0.08, 0.2)]
        .into_iter()
        .filter_map(|(part, weight)| {
            let below = ceiling * part;
            let per = (rate * (below / ceiling).ln() + (1.0 - rate) * ((1.0 - below) / (1.0 - ceiling)).ln()) / calm;
            (per > 0.0).then(|| (target - weight.ln()) / per)
        })
        .fold(f64::INFINITY, f64::min);
    let by_rate = requests / canary;

    if by_ratio <= by_rate {
        let text = if events.is_finite() { count(events.ceil()) } else { "many".to_owned() };
        Need { signal, text: format!("{text} bad requests in both arms"), seconds: by_ratio }
    } else {
        Need { signal, text: format!("{} requests of the canary", count(requests.ceil())), seconds: by_rate }
    }
}
