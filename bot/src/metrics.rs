//! What the mesh did, as counts per tick: the questions that every metrics source answers.
//!
//! The decision code asks [`Metrics::samples`] and cannot tell a recording from a live source. Counts come from the callers'
//! side of the mesh (see [`counting`] for the rules); `sluice record` turns a dump into a [`recording`].

pub mod counting;
mod file_error;
mod lines;
mod openmetrics;
pub mod recording;
pub mod service;

pub use file_error::FileError;
pub use recording::Recording;
pub use service::Service;

use sluice_rules::canary::tick::Sample;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// A source of counts.
#[derive(Debug, Clone)]
pub enum Metrics {
    /// A file that `sluice record` wrote.
    Recording(Recording),
}

impl Metrics {
    /// Opens a recording.
    pub fn recording(path: &Path) -> Result<Self, MetricsError> {
        Ok(Self::Recording(Recording::open(path)?))
    }

    /// The end of the newest tick, where the source is one that ends.
    pub fn newest(&self) -> Option<jiff::Timestamp> {
        match self {
            Self::Recording(recording) => {
                recording.ticks.last().and_then(|tick| jiff::Timestamp::from_second(tick.t).ok())
            }
        }
    }

    /// What both arms did in every tick that ends after `from` and not after `to`, oldest first.
    ///
    /// Every sample holds every signal asked for. An arm that nobody measured in a tick is `None` there: a gap, neither zero
    /// nor a failure. An arm that was measured and got no requests is a zero.
    pub fn samples(&self, question: &Question) -> Result<Answer, MetricsError> {
        question.check()?;
        match self {
            Self::Recording(recording) => recording.samples(question),
        }
    }
}

/// What the decision code wants to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The arm that served before.
    pub stable: Service,
    /// The arm on trial.
    pub canary: Service,
    /// The signals to count.
    pub objectives: Vec<Objective>,
    /// Ticks end after this, seconds since 1970 UTC; asking again with the last tick's `t` repeats nothing.
    pub from: i64,
    /// Ticks end at this or before.
    pub to: i64,
}

impl Question {
    fn check(&self) -> Result<(), MetricsError> {
        if self.stable == self.canary {
            return Err(MetricsError::Question(format!("`{}` is both the stable arm and the canary", self.stable)));
        }
        let mut signals = BTreeSet::new();
        for objective in &self.objectives {
            let signal = objective.signal();
            let taken = matches!(objective, Objective::Score { name } if name == "errors" || name == "slow");
            if taken || !signals.insert(signal) {
                return Err(MetricsError::Question(format!(
                    "two objectives would both be called `{signal}`; rename one"
                )));
            }
        }
        Ok(())
    }
}

/// One signal of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objective {
    /// Answers of class 5 and retried attempts of class 5, over all answers and retried attempts.
    Errors,
    /// Answers that took longer, over the answers whose time is known.
    Slow {
        /// The limit; see [`Note::Edge`] for the bucket edge that stands in for it.
        over: Duration,
    },
    /// A business metric in `[0, 1]`.
    Score {
        /// Its name, which is the signal's.
        name: String,
    },
}

impl Objective {
    /// What the signal is called in a [`Sample`].
    pub fn signal(&self) -> &str {
        match self {
            Self::Errors => "errors",
            Self::Slow { .. } => "slow",
            Self::Score { name } => name,
        }
    }
}

/// The counts, and what a person should know about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// One per tick, oldest first.
    pub samples: Vec<Sample>,
    /// What the counts do not show by themselves.
    pub notes: Vec<Note>,
}

/// Something a person should know about an [`Answer`].
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// `slow` was counted above this bucket edge rather than above the limit itself.
    Edge {
        /// The limit that was asked for.
        over: Duration,
        /// The edge that was used, in milliseconds.
        edge_ms: f64,
    },
    /// The source has no times at all, so `slow` is a gap throughout.
    NoTimes,
    /// The source never saw this service, so its arm is a gap throughout.
    Unseen {
        /// The service that was asked for.
        service: Service,
        /// The clusters that the source did see.
        seen: Vec<String>,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edge { over, edge_ms } => {
                write!(out, "`slow` counts answers above {edge_ms} ms, the bucket edge that stands in for {over:?}")
            }
            Self::NoTimes => write!(out, "`slow` is unknown: nobody measured times"),
            Self::Unseen { service, seen } => {
                write!(out, "`{service}` was never seen in mesh `{}`", service.mesh)?;
                match seen.as_slice() {
                    [] => write!(out, ", and neither was any other service"),
                    seen => write!(out, "; seen were {}", seen.join(", ")),
                }
            }
        }
    }
}

/// Why there is no answer. Each of these is stalled: a person changes something.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The question makes no sense.
    #[error("cannot ask the mesh: {0}")]
    Question(String),
}
