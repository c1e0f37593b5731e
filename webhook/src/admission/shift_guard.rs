//! `ShiftGuard`: a guard, too, is admitted.

use super::approval::object;
use super::route::causes_of;
use super::{Admission, Outcome, World, Write};
use crate::review::{Object, Request};
use jiff::{SignedDuration, Timestamp};
use sluice_rules::diagnostic::Diagnostic;
use sluice_rules::guard::{Freeze, ShiftGuard, contradictions, glob};
use std::slice;

pub(super) fn judge(write: &Write, request: &Request<'_, Object<'_>>, admission: &Admission, world: &World) -> Outcome {
    if write.changes_nothing() || write.lets_go() {
        return Outcome::passed();
    }
    // Whether a guard may go is a question of rights; the audit log keeps who took it away.
    let Some(new) = write.new else { return Outcome::passed() };
    let guard = match object(new, request).and_then(|document| ShiftGuard::read(&document)) {
        Ok(guard) => guard,
        Err(wrong) => return refused(&wrong),
    };
    let others: Vec<_> = world.guards.iter().filter(|other| other.name() != guard.name()).collect();
    let now = admission.clock.now();
    let (odd, mut wrong): (Vec<_>, Vec<_>) = contradictions(slice::from_ref(&guard), now).into_iter().partition(is_odd);
    wrong.extend(others.iter().filter(|other| overlap(&guard, other)).flat_map(|other| between(&guard, other, now)));
    let mut outcome = if wrong.is_empty() { Outcome::passed() } else { refused(&wrong) };
    for Diagnostic { field, message, .. } in odd {
        outcome.warn(format!("{field}: {message}"));
    }
    outcome
}

/// Caps that work against each other make one of them useless; everything else leaves no change that can ever pass.
fn is_odd(found: &Diagnostic) -> bool {
    found.field.to_string().starts_with("spec.caps.")
}

/// What this guard and another make impossible together, with both names.
fn between(guard: &ShiftGuard, other: &ShiftGuard, now: Timestamp) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (asks, binds) in [(guard, other), (other, guard)] {
        let groups = asks.spec.approvals.iter().flat_map(|approvals| &approvals.groups);
        for group in groups.filter(|group| binds.spec.automation.subjects.iter().any(|subject| glob(subject, group))) {
            let (asks, binds) = (asks.name(), binds.name());
            let problem = format!(
                "guard `{asks}` asks `{group}` for approval, and to guard `{binds}` they are automation, which approves nothing"
            );
            let field = if asks == guard.name() { "spec.approvals.groups" } else { "spec.automation.subjects" };
            found.push(contradicts(field, problem));
        }
    }
    let freezes = || guard.spec.freeze.iter().chain(&other.spec.freeze);
    if !guard.spec.freeze.is_empty() && !other.spec.freeze.is_empty() && leave_no_time(freezes, now) {
        let problem = format!(
            "the freezes of guards `{}` and `{}` together leave no time for a shift",
            guard.name(),
            other.name()
        );
        found.push(contradicts("spec.freeze", problem));
    }
    found
}

fn contradicts(field: &str, problem: String) -> Diagnostic {
    Diagnostic::error("guard-contradicts", field.parse().unwrap_or_default(), problem)
}

/// Does one freeze follow the other, for longer than any freeze may last?
fn leave_no_time<'a, I: Iterator<Item = &'a Freeze>>(freezes: impl Fn() -> I, now: Timestamp) -> bool {
    let end = now.saturating_add(SignedDuration::from_hours(24 * 367)).unwrap_or(Timestamp::MAX);
    let mut at = now;
    for _ in 0..MOST_FREEZES {
        let ends = freezes().filter_map(|freeze| freeze.ongoing(at)).map(|ongoing| ongoing.until.unwrap_or(end));
        match ends.max() {
            None => return false,
            Some(until) if until >= end => return true,
            Some(until) => at = until,
        }
    }
    true
}

/// Two freezes that take turns this often without a gap are taken for endless.
const MOST_FREEZES: usize = 400;

/// May a policy be under both? In doubt, no: patterns that only meet in the middle are taken for different.
fn overlap(one: &ShiftGuard, other: &ShiftGuard) -> bool {
    let meet = |ours: &[String], theirs: &[String]| {
        ours.iter().any(|ours| theirs.iter().any(|theirs| glob(ours, theirs) || glob(theirs, ours)))
    };
    let (one, other) = (&one.spec.r#match, &other.spec.r#match);
    meet(&one.meshes, &other.meshes) && meet(&one.services, &other.services) && meet(&one.namespaces, &other.namespaces)
}

fn refused(wrong: &[Diagnostic]) -> Outcome {
    let mut outcome = Outcome::refused(causes_of(wrong));
    outcome.reason("", "guard");
    outcome
}
