//! What `/metrics` shows. Labels are from short, fixed lists and the names of guards; never users or objects.

use crate::admission::Summary;
use crate::tls::Certificate;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Seconds. The API server's own first bucket ends at 5 ms, which is where this one starts to be coarse.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0];

/// The counters and gauges of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Verdict, Counter>,
    denials: Family<Denial, Counter>,
    duration: Histogram,
    shed: Family<Reason, Counter>,
    handshake_failures: Family<Reason, Counter>,
    /// Panics in the handler.
    pub panics: Counter,
    /// Requests to `/validate` that have no answer yet.
    pub in_flight: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Shifts that are reserved and neither confirmed nor given back.
    pub reservations: Gauge,
    /// When the cluster was last heard of.
    pub cache: Cache,
}

/// When the watched objects were last heard of; shown as an age, and not at all without a cluster.
#[derive(Debug, Clone, Default)]
pub struct Cache(Arc<Mutex<Option<Instant>>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denial {
    guard: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Metrics {
    /// Everything at zero; the certificate's end is read when metrics are.
    pub fn new(certificate: Certificate) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("sluice_webhook"),
            requests: Family::default(),
            denials: Family::default(),
            duration: Histogram::new(BUCKETS),
            shed: Family::default(),
            handshake_failures: Family::default(),
            panics: Counter::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            reservations: Gauge::default(),
            cache: Cache::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Answered admission reviews by verdict", metrics.requests.clone());
        registry.register("denials", "Causes of denials by guard and code", metrics.denials.clone());
        let about = "Time from a request's head to its answer";
        registry.register("request_duration_seconds", about, metrics.duration.clone());
        let about = "Reviews refused for lack of room: queue, late, memory";
        registry.register("shed", about, metrics.shed.clone());
        registry.register("handshake_failures", "Failed TLS handshakes", metrics.handshake_failures.clone());
        registry.register("panics", "Panics in the handler, each answered with a denial", metrics.panics.clone());
        registry.register("in_flight", "Requests without an answer yet", metrics.in_flight.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register(
            "reservations",
            "Reserved shifts, neither confirmed nor given back",
            metrics.reservations.clone(),
        );
        registry.register_collector(Box::new(Scraped { certificate, cache: metrics.cache.clone() }));
        metrics
    }

    /// Counts one answer and its time.
    pub fn answered(&self, summary: &Summary, took: Duration) {
        self.requests.get_or_create(&Verdict { verdict: summary.verdict }).inc();
        self.duration.observe(took.as_secs_f64());
        if summary.verdict == "denied" {
            for (guard, code) in &summary.reasons {
                self.denials.get_or_create(&Denial { guard: guard.clone(), code }).inc();
            }
        }
    }

    /// Counts a review for which there was no room: `queue`, `late` or `memory`.
    pub fn shed(&self, reason: &'static str) {
        self.shed.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a TLS handshake that failed: `timeout` or `error`.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshake_failures.get_or_create(&Reason { reason }).inc();
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    ///
    /// Formatting failed.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl Cache {
    /// The cluster was heard of now.
    pub fn heard(&self) {
        self.heard_before(Duration::ZERO);
    }

    /// The cluster was last heard of so long ago.
    pub fn heard_before(&self, age: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_sub(age);
    }

    fn age(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|heard| heard.elapsed())
    }
}

/// Values that are computed when metrics are read. One that is not known is left out rather than zero.
#[derive(Debug)]
struct Scraped {
    certificate: Certificate,
    cache: Cache,
}

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(until) = self.certificate.not_after() {
            let gauge = ConstGauge::new(until.as_second());
            let about = "When the certificate in use expires, Unix time";
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor("certificate_not_after_seconds", about, None, kind)?)?;
        }
        if let Some(age) = self.cache.age() {
            let gauge = ConstGauge::new(age.as_secs_f64());
            let about = "Time since the cluster was last heard of";
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor("cache_age_seconds", about, None, kind)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_verdict_guard_and_code() {
        let metrics = Metrics::new(Certificate::default());
        let reasons = vec![("llm".to_owned(), "maxStep"), ("llm".to_owned(), "freeze")];
        let denied = Summary { verdict: "denied", reasons, ..Summary::default() };
        metrics.answered(&denied, Duration::from_micros(700));
        metrics.answered(&Summary { verdict: "warned", ..denied }, Duration::from_millis(2));
        let text = metrics.render().unwrap();
        for line in [
            r#"sluice_webhook_requests_total{verdict="denied"} 1"#,
            r#"sluice_webhook_requests_total{verdict="warned"} 1"#,
            r#"sluice_webhook_denials_total{guard="llm",code="maxStep"} 1"#,
            r#"sluice_webhook_request_duration_seconds_bucket{le="0.001"} 1"#,
            r#"sluice_webhook_request_duration_seconds_bucket{le="0.002"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn leaves_out_what_it_does_not_know() {
        let metrics = Metrics::new(Certificate::default());
        assert!(!metrics.render().unwrap().contains("cache_age_seconds"));
        metrics.cache.heard();
        assert!(metrics.render().unwrap().contains("sluice_webhook_cache_age_seconds "));
        assert!(!metrics.render().unwrap().contains("certificate_not_after"));
    }
}
