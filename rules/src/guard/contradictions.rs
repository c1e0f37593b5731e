//! Guards that work against themselves or each other.

use super::{Enforcement, ShiftGuard, Spec};
use crate::diagnostic::Diagnostic;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// Guards whose parts work against each other, one warning each, with the names of those concerned.
///
/// Two guards are held against each other where some traffic may be under both and both refuse. Whether they take the
/// same approvals is their own affair: each of them is asked for its own.
pub fn contradictions(guards: &[ShiftGuard], now: Timestamp) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for guard in guards {
        if !names.insert(guard.name()) {
            let problem = "another guard has this name, causes cannot tell them apart";
            found.push(contradiction(guard, "metadata.name", problem.to_owned()));
        }
        found.extend(alone(guard, now));
    }
    let refusing: Vec<_> = guards.iter().filter(|guard| guard.spec.enforcement == Enforcement::Enforce).collect();
    // To ask for the time is dear, and a guard without a freeze that holds leaves some.
    let frozen: Vec<_> = refusing.iter().map(|guard| frozen(&[guard], now)).collect();
    for (index, one) in refusing.iter().enumerate() {
        for (other_index, other) in refusing.iter().enumerate().skip(index + 1) {
            if !one.spec.r#match.meets(&other.spec.r#match) {
                continue;
            }
            found.extend(never_fits(one, other));
            found.extend(never_fits(other, one));
            found.extend(never_binds(one, other));
            found.extend(never_binds(other, one));
            let (a, b) = (frozen[index], frozen[other_index]);
            let neither_alone = a != Some(Timestamp::MAX) && b != Some(Timestamp::MAX);
            if neither_alone && a.or(b).is_some() && frozen_for_ever(one, other, now) {
                let problem = format!("its freezes and those of guard `{}` together leave no time", other.name());
                found.push(contradiction(one, "spec.freeze", problem));
            }
        }
    }
    found
}

fn contradiction(guard: &ShiftGuard, field: &str, problem: String) -> Diagnostic {
    let field = field.parse().unwrap_or_default();
    Diagnostic::warning("guard-contradicts", field, format!("guard `{}`: {problem}", guard.name()))
}

fn alone(guard: &ShiftGuard, now: Timestamp) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut report = |field: &str, problem: String| found.push(contradiction(guard, field, problem));
    let Spec { caps, approvals, automation, freeze, .. } = &guard.spec;
    if let (Some(step), Some(window)) = (caps.max_step, &caps.per_window) {
        if step > window.shift {
            let sum = window.shift;
            report("spec.caps.maxStep", format!("a step of {step} never fits the {sum} of perWindow"));
        } else if caps.min_interval.as_ref().is_some_and(|quiet| quiet.0 >= window.window.0) {
            report("spec.caps.perWindow", "never binds: minInterval lets one step into a window".to_owned());
        }
    }
    if automation.human_needs_approval && approvals.is_none() {
        let problem = "humanNeedsApproval without `approvals`: nobody can approve anything";
        report("spec.automation.humanNeedsApproval", problem.to_owned());
    }
    if approvals.is_some() && automation.subjects.iter().any(|subject| subject == "*") {
        let problem = "everybody counts as automated, and automation approves nothing";
        report("spec.automation.subjects", problem.to_owned());
    }
    for (index, freeze) in freeze.iter().enumerate() {
        if freeze.ongoing(now).is_some_and(|ongoing| ongoing.until.is_none()) {
            report(&format!("spec.freeze[{index}]"), "the freeze starts again before it ends, for ever".to_owned());
        }
    }
    found
}

/// A step that one guard lets pass and that is beyond the other's window, be it empty.
fn never_fits(one: &ShiftGuard, other: &ShiftGuard) -> Option<Diagnostic> {
    let (step, window) = (one.spec.caps.max_step?, other.spec.caps.per_window.as_ref()?);
    // Where the other one limits steps too, that limit is the one to mind.
    let own = other.spec.caps.max_step.is_some_and(|step| step <= window.shift);
    let problem = || {
        let (sum, other) = (window.shift, other.name());
        format!("a step of {step} is never usable: guard `{other}` allows {sum} per {}", window.window)
    };
    (step > window.shift && !own).then(|| contradiction(one, "spec.caps.maxStep", problem()))
}

/// A window that the other guard's quiet time lets a single step into.
fn never_binds(one: &ShiftGuard, other: &ShiftGuard) -> Option<Diagnostic> {
    let (window, quiet) = (one.spec.caps.per_window.as_ref()?, other.spec.caps.min_interval?);
    let steps = [one.spec.caps.max_step, other.spec.caps.max_step];
    let step = steps.into_iter().flatten().reduce(f64::min)?;
    let problem = || format!("never binds: minInterval of guard `{}` lets one step into a window", other.name());
    let single = quiet.0 >= window.window.0 && step <= window.shift;
    (single && one.spec.caps.min_interval.is_none_or(|own| own < quiet))
        .then(|| contradiction(one, "spec.caps.perWindow", problem()))
}

/// Until when a freeze of these guards holds; the end of time when one has no end.
fn frozen(guards: &[&ShiftGuard], now: Timestamp) -> Option<Timestamp> {
    let freezes = guards.iter().flat_map(|guard| &guard.spec.freeze);
    freezes.filter_map(|freeze| freeze.ongoing(now)).map(|ongoing| ongoing.until.unwrap_or(Timestamp::MAX)).max()
}

/// Does one freeze begin before the other ends, time after time?
fn frozen_for_ever(one: &ShiftGuard, other: &ShiftGuard, now: Timestamp) -> bool {
    let horizon = now.saturating_add(HORIZON).unwrap_or(Timestamp::MAX);
    let mut at = now;
    for _ in 0..MOST_TURNS {
        match frozen(&[one, other], at) {
            Some(until) if until < horizon => at = until,
            Some(_) => return true,
            None => return false,
        }
    }
    true
}

/// Two schedules that leave no time for two months, or for so many turns, are taken to leave none at all.
const HORIZON: SignedDuration = SignedDuration::from_hours(24 * 62);
const MOST_TURNS: usize = 400;
