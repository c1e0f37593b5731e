//! What is beyond a guard's limits, and what helps.

use super::{
    Approval, Caps, Cause, Code, Effect, Enforcement, Forward, History, NOISE, Request, ShiftGuard, Subject, approval,
};
use crate::field::FieldPath;
use crate::split::{Raised, ServiceKey, Shares};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// One limit that a change is beyond.
pub(super) struct Breach {
    code: Code,
    subject: ServiceKey,
    field: FieldPath,
    /// What is beyond which limit.
    problem: String,
    /// What a smaller change would be.
    instead: Option<String>,
    /// When waiting alone is enough.
    until: Option<Timestamp>,
    /// The earliest consent that counts: who approves an exception from a freeze must know of it.
    since: Option<Timestamp>,
}

/// Everything that the change is beyond, in the order of the guard's fields.
pub(super) fn breaches(
    guard: &ShiftGuard,
    subject: &Subject,
    forward: &[Forward],
    request: &Request,
    history: &History,
    now: Timestamp,
) -> Vec<Breach> {
    let Some(largest) = forward.iter().max_by(|a, b| a.rule.shift.total_cmp(&b.rule.shift)) else { return Vec::new() };
    let shift = largest.rule.shift;
    let field = largest.rule.raised.first().map_or(&largest.rule.field, |raised| &raised.field);
    let destination = subject.destination;
    let breach = |code, problem: String| Breach {
        code,
        subject: destination.clone(),
        field: field.clone(),
        problem,
        instead: None,
        until: None,
        since: None,
    };
    let mut found = Vec::new();
    let Caps { max_step, per_window, min_interval, max_share } = &guard.spec.caps;
    if let Some(most) = max_step.filter(|most| shift > most + NOISE) {
        let clients = if request.change.widened { " and reaches more clients" } else { "" };
        let (is, shall) = (number(shift), number(most));
        let problem = format!("`{destination}` moves by {is} points in one change{clients}, the limit is {shall}");
        let instead = Some(format!("take steps of at most {shall}"));
        found.push(Breach { instead, ..breach(Code::MaxStep, problem) });
    }
    if let Some(cap) = per_window {
        let span = cap.window.0.saturating_add(history.tolerance);
        let in_window = |time: Timestamp| now.duration_since(time) < span;
        let records = history.of(subject.mesh, destination).filter(|record| !record.rollback);
        let mut inside: Vec<_> = records.filter(|record| in_window(record.time)).collect();
        inside.sort_by_key(|record| record.time);
        let mut sum = shift + inside.iter().map(|record| record.shift).sum::<f64>();
        if sum > cap.shift + NOISE {
            let (before, limit, window) = (number(sum - shift), number(cap.shift), cap.window);
            let (is, all) = (number(shift), number(sum));
            let problem = format!(
                "`{destination}` moves by {is} points, {all} within {window} with the {before} before, the limit is {limit}"
            );
            let mut until = None;
            for record in inside {
                sum -= record.shift;
                if sum <= cap.shift + NOISE {
                    until = record.time.checked_add(span).ok();
                    break;
                }
            }
            let instead = until.is_none().then(|| format!("take steps of at most {limit}"));
            found.push(Breach { until, instead, ..breach(Code::PerWindow, problem) });
        }
    }
    if let Some(quiet) = min_interval {
        let last = history.of(subject.mesh, destination).map(|record| record.time).max();
        let span = quiet.0.saturating_add(history.tolerance);
        if let Some(last) = last.filter(|last| now.duration_since(*last) < span) {
            let problem = format!("`{destination}` moved at {last}, the quiet time between two shifts is {quiet}");
            let until = last.checked_add(span).ok();
            found.push(Breach { until, ..breach(Code::MinInterval, problem) });
        }
    }
    if let Some(most) = *max_share {
        for Forward { rule, stable } in forward.iter().filter(|forward| may_exceed(&forward.rule.after, most)) {
            let (before, after, stable) = (whole(&rule.before), whole(&rule.after), whole(stable));
            let share = |shares: &BTreeMap<_, f64>, service| shares.get(service).copied().unwrap_or(0.0);
            let mut raised: BTreeMap<&str, &FieldPath> = BTreeMap::new();
            for Raised { service, field, .. } in &rule.raised {
                raised.entry(service.unported()).or_insert(field);
            }
            for (service, to) in &after {
                let rises = *to > share(&before, service) + NOISE;
                let led = share(&stable, service) > most + NOISE;
                if *to > most + NOISE && rises && !led {
                    let (is, shall) = (number(*to), number(most));
                    let problem = format!("`{service}` gets {is} %, the limit without approval is {shall} %");
                    let instead = Some(format!("stay at {shall} %"));
                    let field = raised.get(service).copied().unwrap_or(&rule.field).clone();
                    found.push(Breach { instead, field, ..breach(Code::MaxShare, problem) });
                }
            }
        }
    }
    for freeze in &guard.spec.freeze {
        // It holds when it may hold: half of what two clocks may differ by is what one may be wrong by.
        let error = history.tolerance / 2;
        let mut moments = vec![now];
        if !error.is_zero() {
            moments.extend([now.saturating_sub(error), now.saturating_add(error)].into_iter().flatten());
        }
        let Some(mut ongoing) = moments.into_iter().find_map(|moment| freeze.ongoing(moment)) else { continue };
        ongoing.until = ongoing.until.and_then(|until| until.checked_add(error).ok());
        let reason = if freeze.reason.is_empty() { String::new() } else { format!(" ({})", freeze.reason) };
        let problem = format!("`{destination}` is frozen since {}{reason}", ongoing.since);
        let since = Some(ongoing.since);
        found.push(Breach { until: ongoing.until, since, ..breach(Code::Freeze, problem) });
    }
    found
}

/// May the whole share of any service be above this? Wide routes have many rules, and hardly ever one that is.
fn may_exceed(shares: &Shares, most: f64) -> bool {
    const FEW: usize = 32;
    if shares.len() > FEW {
        return true;
    }
    let services: Vec<_> = shares.iter().map(|(service, share)| (service.unported(), share)).collect();
    let of = |name| services.iter().filter(|(other, _)| *other == name).map(|(_, share)| share).sum::<f64>();
    services.iter().any(|(name, _)| of(*name) > most)
}

/// Shares over all ports of a service: two ports of a canary are one canary.
fn whole(shares: &Shares) -> BTreeMap<&str, f64> {
    let mut whole = BTreeMap::new();
    for (service, share) in shares {
        *whole.entry(service.unported()).or_insert(0.0) += share;
    }
    whole
}

impl Breach {
    /// `bound`: do the guard's limits bind whoever makes the change?
    pub(super) fn cause(
        self,
        guard: &ShiftGuard,
        request: &Request,
        approvals: &[Approval],
        bound: bool,
        now: Timestamp,
    ) -> Cause {
        let approvers = approval::approvers(guard, request, approvals, self.since, now);
        let required = guard.spec.approvals.as_ref().map(|approvals| approvals.required as usize);
        let effect = match guard.spec.enforcement {
            _ if !bound => Effect::Personal,
            _ if required.is_some_and(|required| approvers.len() >= required) => Effect::Approved,
            Enforcement::Enforce => Effect::Denied,
            Enforcement::Warn => Effect::Warned,
            Enforcement::Audit => Effect::Audited,
        };
        let outcome = match effect {
            Effect::Personal => "a person makes the change, so it passes".to_owned(),
            Effect::Approved => {
                let names: Vec<_> = approvers.iter().map(|name| format!("`{name}`")).collect();
                format!("lifted by approval of {}", names.join(", "))
            }
            Effect::Denied | Effect::Warned | Effect::Audited => self.remedies(guard, request, approvers.len()),
        };
        Cause {
            guard: guard.name().to_owned(),
            code: self.code,
            effect,
            message: format!("{}: {outcome}", self.problem),
            subject: self.subject,
            field: self.field,
            until: self.until.filter(|_| effect != Effect::Personal && effect != Effect::Approved),
        }
    }

    fn remedies(&self, guard: &ShiftGuard, request: &Request, given: usize) -> String {
        let mut remedies: Vec<String> = self.until.iter().map(|until| format!("passes at {until}")).collect();
        remedies.extend(self.instead.clone());
        if let Some(rule) = &guard.spec.approvals {
            let plural = if rule.required == 1 { "" } else { "s" };
            let from = match rule.groups.as_slice() {
                [] => String::new(),
                groups => {
                    let groups: Vec<_> = groups.iter().map(|group| format!("`{group}`")).collect();
                    format!(" from {}", groups.join(" or "))
                }
            };
            let timely = if self.since.is_some() { ", given during the freeze," } else { "" };
            let short = request.change.digest.get(..12).unwrap_or_default();
            let given = if given == 0 { String::new() } else { format!(" ({given} given)") };
            let required = rule.required;
            remedies.push(format!("get {required} approval{plural}{from}{timely} for digest {short}{given}"));
        }
        if remedies.is_empty() {
            return format!("guard `{}` takes no approvals, change the guard", guard.name());
        }
        remedies.join(", or ")
    }
}

/// Two decimals at most; a person reads this.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
