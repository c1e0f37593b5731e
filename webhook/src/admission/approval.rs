//! `ShiftApproval`: a person's word, given in that person's own name.

use super::route::{author, causes_of};
use super::{Admission, Cause, Outcome, World, Write};
use crate::review::{Object, Request};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_rules::diagnostic::Diagnostic;
use sluice_rules::field::FieldPath;
use sluice_rules::guard::{Approval, Author, ShiftGuard, glob};

/// How far the clock of whoever writes `created` may be off.
const CLOCK_ERROR: SignedDuration = SignedDuration::from_mins(1);
/// How long an approval may last where no guard says.
const USUAL_AGE: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn judge(write: &Write, request: &Request<'_, Object<'_>>, admission: &Admission, world: &World) -> Outcome {
    // To take an approval back is always right.
    let Some(new) = write.new else { return Outcome::passed() };
    if let Some(old) = write.old {
        if old.spec() == new.spec() {
            return Outcome::passed();
        }
        let message = "an approval never changes: delete it and create another";
        return refused(vec![Cause { reason: "Immutable", message: message.to_owned(), field: "spec".to_owned() }]);
    }
    let approval = match object(new, request).and_then(|document| Approval::read(&document)) {
        Ok(approval) => approval,
        Err(wrong) => return refused(causes_of(&wrong)),
    };
    let mut outcome = Outcome::passed();
    let user = author(&request.user_info);
    let causes = if request.user_info.username == admission.settings.bot {
        stated_by_the_bot(&approval, world)
    } else {
        stated_by_a_person(&approval, &user, world)
    };
    let times = wrong_times(&approval, world, admission.clock.now());
    outcome.annotate("digest", &approval.digest);
    outcome.refuse(causes.into_iter().chain(times).collect());
    if outcome.is_denied() {
        outcome.reason("", "approval");
    }
    outcome
}

fn refused(causes: Vec<Cause>) -> Outcome {
    let mut outcome = Outcome::refused(causes);
    outcome.reason("", "approval");
    outcome
}

/// The object with as much metadata as its reader looks at.
pub(super) fn object(object: &Object, request: &Request<'_, Object<'_>>) -> Result<Value, Vec<Diagnostic>> {
    let mut metadata = json!({"name": object.metadata.name.as_deref().or(request.name.as_deref()).unwrap_or_default()});
    if let Some(created) = &object.metadata.creation_timestamp {
        metadata["creationTimestamp"] = created.as_ref().into();
    }
    let mut document = json!({"apiVersion": object.api_version, "kind": request.kind.kind, "metadata": metadata});
    if !object.spec().is_empty() {
        let malformed = |error: serde_json::Error| {
            vec![Diagnostic::error("object-malformed", FieldPath::root().key("spec"), error.to_string())]
        };
        document["spec"] = serde_json::from_str(object.spec()).map_err(malformed)?;
    }
    Ok(document)
}

/// The bot hears people on the forge, so it speaks for others, but never for a machine.
fn stated_by_the_bot(approval: &Approval, world: &World) -> Vec<Cause> {
    let approver = Author::Account { name: approval.approver.clone(), groups: approval.groups.clone() };
    automated(&approver, world).map(|guard| of_automation(&approval.approver, guard)).into_iter().collect()
}

fn stated_by_a_person(approval: &Approval, user: &Author, world: &World) -> Vec<Cause> {
    let Author::Account { name, groups } = user else { return Vec::new() };
    let mut causes = Vec::new();
    if let Some(guard) = automated(user, world) {
        causes.push(of_automation(name, guard));
    }
    if approval.approver != *name {
        let message = format!("you are `{name}`: approve in your own name, not as `{}`", approval.approver);
        causes.push(Cause { reason: "Forbidden", message, field: "spec.approver".to_owned() });
    }
    for (index, group) in approval.groups.iter().enumerate().filter(|(_, group)| !groups.contains(group)) {
        let message = format!("`{name}` is not in group `{group}`");
        causes.push(Cause { reason: "Forbidden", message, field: format!("spec.groups[{index}]") });
    }
    let asking: Vec<_> = world.guards.iter().filter_map(|guard| guard.spec.approvals.as_ref()).collect();
    let allowed =
        |asked: &[String]| asked.is_empty() || groups.iter().any(|has| asked.iter().any(|group| glob(group, has)));
    if !asking.iter().any(|approvals| allowed(&approvals.groups)) {
        let mut wanted: Vec<_> =
            asking.iter().flat_map(|approvals| &approvals.groups).map(|group| format!("`{group}`")).collect();
        wanted.sort();
        wanted.dedup();
        let message = match wanted.as_slice() {
            [] => "no guard takes approvals".to_owned(),
            wanted => format!("`{name}` may not approve: guards ask for {}", wanted.join(" or ")),
        };
        causes.push(Cause { reason: "Forbidden", message, field: "spec.approver".to_owned() });
    }
    causes
}

/// The first guard in whose eyes this account is automation.
fn automated<'a>(account: &Author, world: &'a World) -> Option<&'a ShiftGuard> {
    let Author::Account { name, groups } = account else { return None };
    world.guards.iter().find(|guard| {
        let subjects = &guard.spec.automation.subjects;
        [name].into_iter().chain(groups).any(|text| subjects.iter().any(|pattern| glob(pattern, text)))
    })
}

fn of_automation(name: &str, guard: &ShiftGuard) -> Cause {
    let message = format!("`{name}` is automation to guard `{}`, and automation approves nothing", guard.name());
    Cause { reason: "Forbidden", message, field: "spec.approver".to_owned() }
}

fn wrong_times(approval: &Approval, world: &World, now: Timestamp) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut report = |field: &str, message: String| {
        causes.push(Cause { reason: "FieldValueInvalid", message, field: format!("spec.{field}") });
    };
    if now.duration_since(approval.created).abs() > CLOCK_ERROR {
        let created = approval.created;
        report("created", format!("an approval is given now: it is {now}, not {created}; leave it out"));
    }
    let asking = || world.guards.iter().filter_map(|guard| guard.spec.approvals.as_ref());
    let longest = asking().filter_map(|approvals| approvals.max_age).max().map_or(USUAL_AGE, |age| age.0);
    let latest = now.saturating_add(longest).unwrap_or(Timestamp::MAX);
    match approval.expires {
        // Some guard would take it for ever.
        None if asking().any(|approvals| approvals.max_age.is_none()) || asking().next().is_none() => {
            report("expires", format!("say until when it holds, at most {latest}"));
        }
        Some(expires) if expires <= now => report("expires", format!("it is over already: it is {now}")),
        Some(expires) if expires > latest => report("expires", format!("must be at most {latest}")),
        _ => {}
    }
    causes
}
