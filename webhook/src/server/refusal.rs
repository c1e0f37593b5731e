//! Answers the server gives itself, when the handler gives none.

use crate::admission::{Answer, Summary};
use bytes::Bytes;
use serde_json::json;

/// A uid is 36 characters; one that is longer than this is not echoed.
const MAX_UID: usize = 256;
/// The API server writes the uid in front of the objects; nobody else's order is worth reading 7 MiB.
const SCANNED: usize = 1024 * 1024;

/// Why the server refuses a review, or the whole request.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The HTTP code that the client of the API server gets. Never 429: clients repeat that in silence.
    pub(super) code: u16,
    /// Kubernetes' word for it, such as `ServiceUnavailable`.
    pub(super) reason: &'static str,
    /// What happened and what to do, one sentence.
    pub(super) message: String,
    /// `unavailable` or `malformed`.
    pub(super) verdict: &'static str,
}

impl Refusal {
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { code: 503, reason: "ServiceUnavailable", message: message.into(), verdict: "unavailable" }
    }

    pub(super) fn malformed(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), verdict: "malformed" }
    }

    /// A denial when the body, which may be cut off, tells the uid; else an error of the same code. Without a uid no
    /// AdmissionReview is valid, and the API server shows the message of a `Status`.
    pub(super) fn answer(self, body: &[u8]) -> Answer {
        let Self { code, reason, message, verdict } = self;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                   "reason": reason, "code": code});
        let uid = uid(body);
        let (http, reply) = match &uid {
            None => (code, status),
            Some(uid) => (
                200,
                json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                       "response": {"uid": uid, "allowed": false, "status": status}}),
            ),
        };
        let uid = uid.unwrap_or_default();
        let summary = Summary { verdict, reasons: Vec::new(), uid, line: message };
        Answer { status: http, body: Bytes::from(reply.to_string()), summary }
    }
}

/// The uid of a review, `request.uid`, read without the rest of the body: it may be cut off or broken behind it.
pub(super) fn uid(body: &[u8]) -> Option<String> {
    let body = &body[..body.len().min(SCANNED)];
    let (mut depth, mut in_request, mut key, mut at) = (0_usize, false, None, 0);
    while at < body.len() {
        match body[at] {
            b'"' => {
                let end = string_end(body, at + 1)?;
                let text = &body[at..=end];
                at = end + 1;
                let gap = body[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                if body.get(at + gap) == Some(&b':') {
                    at += gap + 1;
                    key = Some(text);
                    continue;
                }
                if in_request && depth == 2 && key == Some(b"\"uid\"".as_slice()) {
                    let uid: String = serde_json::from_slice(text).ok()?;
                    return Some(uid).filter(|uid| !uid.is_empty() && uid.len() <= MAX_UID);
                }
                key = None;
                continue;
            }
            b'{' | b'[' => {
                in_request |= depth == 1 && body[at] == b'{' && key == Some(b"\"request\"".as_slice());
                depth += 1;
                key = None;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                in_request &= depth > 1;
                key = None;
            }
            b',' => key = None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the string that starts at `at`, behind its quote, has its closing quote.
fn string_end(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match body.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REVIEW: &str = r#"{"kind":"AdmissionReview", "uid":"no", "request" : {"object":{"uid":"no","request":{"uid":"no"}},
        "names":["uid","request"], "name":"uid", "uid" : "705ab4f5-\u0036393", "operation":"UPDATE"}}"#;

    #[test]
    fn finds_the_uid_of_the_request_and_no_other() {
        assert_eq!(uid(REVIEW.as_bytes()).as_deref(), Some("705ab4f5-6393"));
        for without in ["", "{}", r#"{"uid":"a"}"#, r#"{"request":[{"uid":"a"}]}"#, r#"{"a":{"request":{"uid":"a"}}}"#]
        {
            assert_eq!(uid(without.as_bytes()), None, "{without}");
        }
    }

    #[test]
    fn does_not_echo_what_is_no_uid() {
        let long = format!(r#"{{"request":{{"uid":"{}"}}}}"#, "a".repeat(257));
        for odd in [r#"{"request":{"uid":7}}"#, r#"{"request":{"uid":""}}"#, r#"{"request":{"uid":"\x"}}"#, &long] {
            assert_eq!(uid(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn a_refusal_without_a_uid_is_an_http_error_with_a_reason() {
        let answer = Refusal::unavailable("too many reviews at once").answer(b"{");
        assert_eq!(answer.status, 503);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&body["kind"], &body["code"]), (&json!("Status"), &json!(503)));
    }

    proptest! {
        #[test]
        fn a_cut_body_has_the_uid_or_none(end in 0..REVIEW.len()) {
            let found = uid(&REVIEW.as_bytes()[..end]);
            prop_assert!(found.is_none() || found.as_deref() == Some("705ab4f5-6393"));
        }

        #[test]
        fn takes_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            uid(&body);
        }

        #[test]
        fn takes_any_punctuation(body in r#"[{}\[\]",:\\a ]{0,60}(request|uid)?[{}\[\]",:\\a ]{0,60}"#) {
            uid(body.as_bytes());
        }
    }
}
