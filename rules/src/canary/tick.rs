//! What one look at the mesh saw: counts per signal in two arms.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Requests seen in a tick and how many of them were bad.
///
/// On the wire `[n, x]`. For a business metric in `[0, 1]`, `x` is the sum of its `n` values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, f64)", into = "(f64, f64)")]
pub struct Counts {
    /// Requests (or scored answers).
    pub n: f64,
    /// Bad ones among them (or the sum of the scores).
    pub x: f64,
}

impl From<(f64, f64)> for Counts {
    fn from((n, x): (f64, f64)) -> Self {
        Self { n, x }
    }
}

impl From<Counts> for (f64, f64) {
    fn from(counts: Counts) -> Self {
        (counts.n, counts.x)
    }
}

/// One signal in both arms; a missing arm is a gap, neither zero nor a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arms {
    /// The arm on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Counts>,
    /// The arm that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Counts>,
}

/// How many endpoints serve each arm, where known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replicas {
    /// Endpoints of the canary.
    pub canary: f64,
    /// Endpoints of the stable arm.
    pub stable: f64,
}

/// What a metrics source knows of one tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// End of the tick, seconds since 1970 UTC.
    pub t: i64,
    /// Signal name to counts; `errors` and `slow` come from the mesh, others from business metrics.
    pub signals: BTreeMap<String, Arms>,
    /// Endpoints per arm at the end of the tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
}

/// A [`Sample`] with the canary's share (percent, 0 to 100) that was in force while it was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// End of the tick, seconds since 1970 UTC.
    pub t: i64,
    /// The canary's share in percent.
    pub share: f64,
    /// Counts per signal.
    pub signals: BTreeMap<String, Arms>,
    /// Endpoints per arm at the end of the tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
}

impl Sample {
    /// The sample as the judge takes it.
    pub fn with_share(self, share: f64) -> Tick {
        Tick { t: self.t, share, signals: self.signals, replicas: self.replicas }
    }
}
