//! `ShiftGuard`: a guard, too, is admitted.

use super::approval::object;
use super::route::causes_of;
use super::{Admission, Outcome, World, Write};
use crate::review::{Object, Request};
use sluice_rules::diagnostic::{Diagnostic, Severity};
use sluice_rules::guard::{ShiftGuard, contradictions};

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
    let others = world.guards.iter().filter(|other| other.name() != guard.name());
    let mut guards: Vec<_> = others.cloned().collect();
    let now = admission.clock.now();
    let known = contradictions(&guards, now);
    guards.push(guard);
    let found: Vec<_> = contradictions(&guards, now).into_iter().filter(|found| !known.contains(found)).collect();
    let (wrong, odd): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.severity == Severity::Error);
    let mut outcome = if wrong.is_empty() { Outcome::passed() } else { refused(&wrong) };
    for Diagnostic { field, message, .. } in odd {
        outcome.warn(format!("{field}: {message}"));
    }
    outcome
}

fn refused(wrong: &[Diagnostic]) -> Outcome {
    let mut outcome = Outcome::refused(causes_of(wrong));
    outcome.reason("", "guard");
    outcome
}
