//! `ShiftLedger`: the webhook's own book.

use super::{Outcome, Settings, Write};
use crate::review::{Cause, Object, Request};

pub(super) fn judge(write: &Write, request: &Request<'_, Object<'_>>, settings: &Settings) -> Outcome {
    let user = &request.user_info.username;
    // The storage migrator writes every object again, as it is.
    let rewritten = settings.exempt.contains(user) && write.changes_nothing();
    if *user == settings.webhook || rewritten {
        return Outcome::exempt();
    }
    let message = format!(
        "a ShiftLedger is written by `{}` alone, not by `{user}`: to let a shift pass, create a ShiftApproval, or change \
         the ShiftGuard",
        settings.webhook
    );
    Outcome::refused(vec![Cause { reason: "Forbidden", message, field: "spec".to_owned() }])
}
