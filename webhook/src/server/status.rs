//! The second port: is the process alive, is it ready, and its metrics.

use super::life::{Life, Phase};
use crate::telemetry::metrics::Metrics;
use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What must hold before reviews may come.
#[derive(Debug, Clone)]
pub struct Readiness {
    conditions: Arc<Mutex<Vec<(&'static str, Condition)>>>,
    life: Life,
}

/// One thing that must hold; at first it does not.
#[derive(Debug, Clone, Default)]
pub struct Condition(Arc<AtomicBool>);

impl Readiness {
    /// Nothing to wait for yet.
    pub fn new(life: &Life) -> Self {
        Self { conditions: Arc::default(), life: life.clone() }
    }

    /// One more thing to wait for, such as `guards`.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition::default();
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).push((name, condition.clone()));
        condition
    }

    /// What is missing; nothing when the process is ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<_> =
            conditions.iter().filter(|(_, condition)| !condition.0.load(Relaxed)).map(|(name, _)| *name).collect();
        if self.life.phase() != Phase::Serving {
            missing.push("time: it is shutting down");
        }
        missing
    }
}

impl Condition {
    /// It holds, or does not any more.
    pub fn set(&self, holds: bool) {
        self.0.store(holds, Relaxed);
    }
}

/// The routes of the status port.
pub fn router(readiness: Readiness, metrics: Arc<Metrics>) -> Router {
    let ready = || async move {
        let missing = readiness.missing();
        if missing.is_empty() {
            (StatusCode::OK, "ready\n".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready, it lacks {}\n", missing.join(", ")))
        }
    };
    let metrics = || async move {
        let text = metrics.render().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok::<_, StatusCode>(([(CONTENT_TYPE, kind)], text).into_response())
    };
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there are /live, /ready and /metrics\n") })
}
