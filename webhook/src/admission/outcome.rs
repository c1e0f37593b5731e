//! What is made of a request, as the answer that goes over the wire.

use super::{Answer, Summary};
use crate::review::{self, Cause, Details, Object, Request, Response, Status};
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeMap;

/// More warnings than this are counted and not told.
const MOST_WARNINGS: usize = 10;
/// The API server cuts a warning here, in characters.
const LONGEST_WARNING: usize = 256;
/// Audit events are cut as a whole, so that each annotation is kept short. In bytes.
const LONGEST_ANNOTATION: usize = 1024;

/// What is made of a request.
#[derive(Debug)]
pub(super) struct Outcome {
    verdict: &'static str,
    status: Option<(u16, &'static str, String)>,
    causes: Vec<Cause>,
    warnings: Vec<String>,
    annotations: BTreeMap<&'static str, String>,
    reasons: Vec<(String, &'static str)>,
}

impl Outcome {
    fn new(verdict: &'static str) -> Self {
        Self {
            verdict,
            status: None,
            causes: Vec::new(),
            warnings: Vec::new(),
            annotations: BTreeMap::new(),
            reasons: Vec::new(),
        }
    }

    /// It may happen.
    pub(super) fn passed() -> Self {
        Self::new("allowed")
    }

    /// It may happen, because of who does it.
    pub(super) fn exempt() -> Self {
        Self::new("exempt")
    }

    /// It may not happen, for each of these causes.
    pub(super) fn refused(causes: Vec<Cause>) -> Self {
        let mut outcome = Self::passed();
        outcome.refuse(causes);
        outcome
    }

    /// The request makes no sense.
    pub(super) fn malformed(problem: String) -> Self {
        Self { status: Some((400, "BadRequest", problem)), ..Self::new("malformed") }
    }

    /// Somebody else changes the same: the client should try again.
    pub(super) fn conflict(problem: String) -> Self {
        Self { status: Some((409, "Conflict", problem)), ..Self::new("unavailable") }
    }

    /// It cannot be judged now.
    pub(super) fn unavailable(problem: String) -> Self {
        Self { status: Some((503, "ServiceUnavailable", problem)), ..Self::new("unavailable") }
    }

    /// Adds causes for which it may not happen. Without any, nothing changes.
    pub(super) fn refuse(&mut self, causes: Vec<Cause>) {
        if !causes.is_empty() {
            self.verdict = "denied";
            self.causes.extend(causes);
        }
    }

    /// What was refused so far passes, with its causes as warnings.
    pub(super) fn pardon(&mut self) {
        self.verdict = "allowed";
        for cause in std::mem::take(&mut self.causes) {
            self.warn_of_limit(format!("{}: {}", cause.message, cause.field));
        }
    }

    /// Adds a warning for whoever applies.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// A guard warns: the request passes, and the verdict says so.
    pub(super) fn warn_of_limit(&mut self, warning: String) {
        // In front of all other warnings: those may be cut off.
        let place = self.warnings.iter().take_while(|warning| warning.starts_with("guard ")).count();
        self.warnings.insert(place, warning);
        if self.verdict == "allowed" {
            self.verdict = "warned";
        }
    }

    /// Adds what the audit log keeps. Keys are plain: letters and hyphens.
    pub(super) fn annotate(&mut self, key: &'static str, value: impl ToString) {
        self.annotations.insert(key, cut(clean(value.to_string()), LONGEST_ANNOTATION));
    }

    /// Adds a guard and its limit that decided, for metrics.
    pub(super) fn reason(&mut self, guard: &str, code: &'static str) {
        let reason = (guard.to_owned(), code);
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// Is it refused so far?
    pub(super) fn is_denied(&self) -> bool {
        self.verdict == "denied"
    }

    /// Why it is refused so far.
    #[cfg(test)]
    pub(super) fn causes(&self) -> &[Cause] {
        &self.causes
    }

    /// The answer.
    pub(super) fn into_answer<O: Named>(mut self, request: &Request<'_, O>) -> Answer {
        let allowed = self.status.is_none() && self.causes.is_empty();
        let name = request.name.as_deref().filter(|name| !name.is_empty());
        let name = name.or_else(|| request.old_object.as_ref().or(request.object.as_ref())?.name());
        let name = clean(name.unwrap_or_default());
        if !self.reasons.is_empty() {
            let guards: Vec<_> = self.reasons.iter().map(|(guard, code)| format!("{guard}/{code}")).collect();
            self.annotate("guards", guards.join(","));
        }
        if self.verdict != "allowed" || !self.annotations.is_empty() {
            self.annotate("decision", self.verdict);
        }
        let mut line = String::new();
        let mut status = None;
        if !allowed {
            let (code, reason, message) = self.status.unwrap_or_else(|| {
                let causes = self.causes.iter().map(|Cause { field, message, .. }| match field.as_str() {
                    "" => message.clone(),
                    field => format!("{field}: {message}"),
                });
                (422, "Invalid", causes.collect::<Vec<_>>().join("; "))
            });
            let message = clean(message);
            let (kind, user) = (&request.kind.kind, clean(&*request.user_info.username));
            line = clean(format!("{} of {kind} `{name}` by `{user}`: {message}", request.operation));
            let causes = self.causes.into_iter();
            let causes: Vec<_> = causes
                .map(|cause| Cause { message: clean(cause.message), field: clean(cause.field), reason: cause.reason })
                .collect();
            let details = (!causes.is_empty()).then(|| Details {
                name,
                kind: clean(&**kind),
                group: clean(&*request.kind.group),
                causes,
            });
            status = Some(Status { code, reason, message, details });
        }
        let response = Response {
            uid: request.uid.clone().into_owned(),
            allowed,
            status,
            warnings: budget(&self.warnings),
            audit_annotations: self.annotations,
        };
        let summary = Summary { verdict: self.verdict, reasons: self.reasons, uid: response.uid.clone(), line };
        Answer { status: 200, body: response.to_json(), summary }
    }
}

/// What knows its name.
pub(super) trait Named {
    /// The name.
    fn name(&self) -> Option<&str>;
}

impl Named for Object<'_> {
    fn name(&self) -> Option<&str> {
        self.metadata.name.as_deref()
    }
}

impl Named for &serde_json::value::RawValue {
    fn name(&self) -> Option<&str> {
        None
    }
}

/// The answer to a body that is no review: by its uid where it shows one, else by HTTP status alone.
pub(super) fn malformed(body: &[u8], problem: &str) -> Answer {
    let Some(uid) = review::uid(body) else { return refused_without_uid(problem) };
    denial(uid, problem)
}

/// The answer to a review of a version that is not understood.
pub(super) fn other_version(version: &str, uid: &str) -> Answer {
    let version = if version.is_empty() { "no version at all".to_owned() } else { format!("`{}`", clean(version)) };
    let problem = format!(
        "this webhook answers AdmissionReviews of `{}` and was asked in {version}: set admissionReviewVersions to [\"v1\"]",
        review::VERSION
    );
    if uid.is_empty() { refused_without_uid(&problem) } else { denial(uid.to_owned(), &problem) }
}

fn denial(uid: String, problem: &str) -> Answer {
    let message = cut(clean(problem), LONGEST_ANNOTATION);
    let status = Status { code: 400, reason: "BadRequest", message: message.clone(), details: None };
    let response = Response { uid: uid.clone(), allowed: false, status: Some(status), ..Response::default() };
    let summary = Summary { verdict: "malformed", uid, line: message, ..Summary::default() };
    Answer { status: 200, body: response.to_json(), summary }
}

/// The answer when there is no uid to echo: the API server reads the HTTP status.
pub(super) fn refused_without_uid(problem: &str) -> Answer {
    let message = cut(clean(problem), LONGEST_ANNOTATION);
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "BadRequest", "code": 400, "message": message,
    });
    let summary = Summary { verdict: "malformed", line: message, ..Summary::default() };
    Answer { status: 400, body: Bytes::from(status.to_string()), summary }
}

/// As many warnings as the API server passes on, each as long.
fn budget(warnings: &[String]) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut more = 0;
    for warning in warnings {
        let warning = shorten(&clean(&**warning), LONGEST_WARNING);
        match told {
            _ if told.contains(&warning) => {}
            _ if told.len() < MOST_WARNINGS => told.push(warning),
            _ => more += 1,
        }
    }
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told
}

/// Control characters make the API server drop a warning in silence, and disturb terminals.
pub(super) fn clean(text: impl Into<String>) -> String {
    let text = text.into();
    let is_odd = |c: char| c.is_control() || is_format(c);
    match text.contains(is_odd) {
        true => text.chars().map(|c| if is_odd(c) { ' ' } else { c }).collect(),
        false => text,
    }
}

/// Turns the direction of text, or hides in it.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// At most so many characters.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 3).chain("...".chars()).collect()
}

/// At most so many bytes.
fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most - 3).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_fit_what_the_api_server_passes_on() {
        let mut warnings: Vec<String> =
            (0..15).map(|number| format!("{number}\u{1b}[31m{}", "ä".repeat(300))).collect();
        warnings.push(warnings[0].clone());
        let told = budget(&warnings);
        assert_eq!(told.len(), 11);
        assert_eq!(told[10], "and 5 more");
        for warning in &told {
            assert!(warning.chars().count() <= LONGEST_WARNING && !warning.contains('\u{1b}'), "{warning}");
        }
        assert!(told.iter().map(|warning| warning.chars().count()).sum::<usize>() <= 4096);
    }

    #[test]
    fn annotations_are_cut_between_characters() {
        let text = cut("ä".repeat(600), LONGEST_ANNOTATION);
        assert!(text.len() <= LONGEST_ANNOTATION && text.ends_with("ä..."), "{}", text.len());
    }
}
