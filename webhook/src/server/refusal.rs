//! Answers the server gives itself, when the handler gives none.

use crate::admission::{Answer, Summary};
use crate::review::{self, Response, Status};
use bytes::Bytes;
use serde_json::json;

/// The API server writes the uid in front of the objects; nobody else's order is worth reading 7 MiB when time is short.
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
        let line = message.clone();
        match review::uid(&body[..body.len().min(SCANNED)]) {
            None => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
                                    "reason": reason, "code": code});
                let summary = Summary { verdict, line, ..Summary::default() };
                Answer { status: code, body: Bytes::from(status.to_string()), summary }
            }
            Some(uid) => {
                let status = Some(Status { code, reason, message, details: None });
                let response = Response { uid: uid.clone(), status, ..Response::default() };
                let summary = Summary { verdict, uid, line, ..Summary::default() };
                Answer { status: 200, body: response.to_json(), summary }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const REVIEW: &str = r#"{"kind":"AdmissionReview","request":{"uid":"705ab4f5-6393","object":{"uid":"no"}}}"#;

    fn refused(body: &[u8]) -> (u16, Value) {
        let answer = Refusal::unavailable("too many reviews at once").answer(body);
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[test]
    fn a_refusal_without_a_uid_is_an_http_error_with_a_reason() {
        let (status, body) = refused(b"{");
        assert_eq!((status, &body["kind"], &body["code"]), (503, &json!("Status"), &json!(503)));
    }

    proptest! {
        #[test]
        fn a_cut_body_is_denied_by_its_uid_or_by_http(end in 0..REVIEW.len()) {
            let (status, body) = refused(&REVIEW.as_bytes()[..end]);
            let is_denied = status == 200 && body["response"]["uid"] == "705ab4f5-6393";
            prop_assert!(is_denied || status == 503);
            prop_assert_eq!(is_denied, end > REVIEW.find("6393").unwrap() + 4);
        }

        #[test]
        fn takes_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            refused(&body);
        }

        #[test]
        fn takes_any_punctuation(body in r#"[{}\[\]",:\\a ]{0,60}(request|uid)?[{}\[\]",:\\a ]{0,60}"#) {
            refused(body.as_bytes());
        }
    }
}
