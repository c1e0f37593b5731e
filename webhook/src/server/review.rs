//! One review: its time, its body, its turn, its answer.

use super::body::{self, Problem};
use super::gate::Full;
use super::refusal::Refusal;
use super::{Reviews, status};
use crate::admission::{Answer, Summary};
use crate::telemetry::REVIEW;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CONTENT_TYPE, HeaderMap};
use jiff::SignedDuration;
use prometheus_client::metrics::gauge::Gauge;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{Instrument as _, field::Empty};

/// `POST /validate`.
pub(super) async fn validate(State(reviews): State<Arc<Reviews>>, request: Request) -> Response {
    let begun = Instant::now();
    let _in_flight = InFlight::new(&reviews.metrics.in_flight);
    let span = tracing::debug_span!(target: REVIEW, "review", otel.kind = "server", uid = Empty, verdict = Empty);
    let answer = answer(&reviews, request, begun).instrument(span.clone()).await;
    let Summary { uid, verdict, .. } = &answer.summary;
    span.record("uid", uid.as_str());
    span.record("verdict", *verdict);
    reviews.metrics.answered(&answer.summary, begun.elapsed());
    log(&reviews, &answer.summary);
    respond(answer)
}

async fn answer(reviews: &Reviews, request: Request, begun: Instant) -> Answer {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        let message = "the content type must be `application/json`";
        return Refusal::malformed(415, "UnsupportedMediaType", message).answer(b"");
    }
    let time = Time::new(begun, reviews.limits.budget, told(head.uri.query()));
    let body = body::read(body, reviews.limits.body, &reviews.memory, time.answer).await;
    let outcome = match body.problem {
        None => judge(reviews, &body.bytes, &time).await,
        Some(problem) => Err(incomplete(reviews, problem)),
    };
    outcome.unwrap_or_else(|refusal| refusal.answer(&body.bytes))
}

async fn judge(reviews: &Reviews, body: &Bytes, time: &Time) -> Result<Answer, Refusal> {
    let _pass = reviews.gate.enter(time.answer).await.map_err(|full| {
        let (reason, message) = match full {
            Full::Queue => ("queue", "the admission webhook has too many reviews at this moment: apply again"),
            Full::Late => ("late", "the admission webhook cannot answer in time at this moment: apply again"),
        };
        reviews.metrics.shed(reason);
        Refusal::unavailable(message)
    })?;
    let work = async { (reviews.handler)(body.clone(), time.answer).await };
    match tokio::time::timeout_at(time.end.into(), AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => {
            reviews.metrics.panics.inc();
            let message =
                "the admission webhook failed on this object: report it with the object and the log's `panic`";
            Err(Refusal { code: 500, reason: "InternalError", ..Refusal::unavailable(message) })
        }
        Err(_) => {
            reviews.metrics.shed("late");
            Err(Refusal::unavailable("the admission webhook found no verdict in time: apply again"))
        }
    }
}

fn incomplete(reviews: &Reviews, problem: Problem) -> Refusal {
    match problem {
        Problem::TooLarge => {
            let limit = reviews.limits.body / (1024 * 1024);
            let message = format!("the review is larger than {limit} MiB: make the object smaller");
            Refusal::malformed(413, "RequestEntityTooLarge", message)
        }
        Problem::Slow => Refusal::malformed(408, "Timeout", "the review was not complete before its time was over"),
        Problem::Broken => Refusal::malformed(400, "BadRequest", "the review broke off"),
        Problem::Memory => {
            reviews.metrics.shed("memory");
            Refusal::unavailable("the admission webhook has too many large reviews at this moment: apply again")
        }
    }
}

/// An answer as a response.
pub(super) fn respond(answer: Answer) -> Response {
    (status(answer.status), [(CONTENT_TYPE, "application/json")], answer.body).into_response()
}

/// One line for whatever was not let through; no line for what was.
fn log(reviews: &Reviews, summary: &Summary) {
    let Summary { verdict, uid, line, .. } = summary;
    match *verdict {
        "denied" => tracing::info!(verdict, uid, "{}", visible(line)),
        // Not from an API server.
        "malformed" if uid.is_empty() => tracing::debug!(verdict, "{}", visible(line)),
        // In an overload they are many, and alike: the metrics have their number.
        "malformed" | "unavailable" if reviews.is_first_of_second() => {
            tracing::info!(verdict, uid, "{}", visible(line));
        }
        _ => {}
    }
}

/// A name with a line feed in it must not look like another line of the log.
fn visible(line: &str) -> String {
    line.chars().fold(String::with_capacity(line.len()), |mut text, c| {
        if c.is_control() {
            text.extend(c.escape_unicode());
        } else {
            text.push(c);
        }
        text
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The time that the API server grants, `?timeout=10s`. One that cannot be read grants what we take anyway.
fn told(query: Option<&str>) -> Option<Duration> {
    let text = query?.split('&').find_map(|pair| pair.strip_prefix("timeout="))?;
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

/// When what must be there.
#[derive(Debug)]
struct Time {
    /// The handler's answer.
    answer: Instant,
    /// Ours, when the handler has none.
    end: Instant,
}

impl Time {
    /// A part is kept for both ways: the caller's clock started before ours and stops after it.
    fn new(begun: Instant, budget: Duration, told: Option<Duration>) -> Self {
        let total = told.map_or(budget, |told| told.min(budget));
        let margin = (total / 8).clamp(Duration::from_millis(10), Duration::from_millis(250));
        Self { answer: begun + total.saturating_sub(margin), end: begun + total.saturating_sub(margin * 3 / 4) }
    }
}

struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_time_that_is_granted() {
        let read = |query| told(Some(query)).map(|told| told.as_millis());
        assert_eq!(read("timeout=10s"), Some(10_000));
        assert_eq!(read("a=b&timeout=1m0s"), Some(60_000));
        assert_eq!(read("timeout=1.5s"), Some(1500));
        for odd in ["timeout=", "timeout=-1s", "timeout=soon", "timeouts=1s", "timeout=99999999999999999999s"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn keeps_a_margin_and_never_takes_more_than_the_budget() {
        let begun = Instant::now();
        let budget = Duration::from_millis(2500);
        let given = |told| (Time::new(begun, budget, told).answer - begun).as_millis();
        assert_eq!(given(None), 2250);
        assert_eq!(given(Some(Duration::from_secs(30))), 2250);
        assert_eq!(given(Some(Duration::from_secs(1))), 875);
        assert_eq!(given(Some(Duration::from_millis(1))), 0);
    }

    #[test]
    fn a_line_of_the_log_stays_one_line() {
        assert_eq!(visible("a\nb\u{1b}[31mc é"), r"a\u{a}b\u{1b}[31mc é");
    }
}
