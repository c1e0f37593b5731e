//! A recording: counts per tick and service, in a file.
//!
//! # Format, version 1
//!
//! Gzip over lines of JSON (uncompressed is read too), UTF-8, one object per line, each line ended by a line feed: a header,
//! one line per tick, a footer.
//!
//! ```text
//! {"format":"sluice-recording","version":1,"tick":30,"mesh":"default","source":"canary-15m.openmetrics.gz","created":"2026-11-24T23:06:21Z","from":[],"edges_ms":[0.5,1,5]}
//! {"t":1795560708,"services":{"llm-v1":{"requests":612,"errors":2,"answers":[0,601,0,9,2],"retried":[0,0,0,0,0],"buckets":[0,0,3,599],"replicas":[1,1],"scores":{"quality":[40,37.5]}}}}
//! {"end":{"ticks":1,"sha256":"…"}}
//! ```
//!
//! **Header.** `tick`: seconds, 1 to 86400. `mesh`: whose clusters these are. `source`: what it was made from. `created`: time of the
//! newest measurement in it, so that the same input gives the same bytes. `from`: the callers that were counted, empty for all.
//! `edges_ms`: upper bucket edges in milliseconds, growing; empty if nobody measured times.
//!
//! **Tick.** `t`: its end, seconds since 1970 UTC; it covers the `tick` seconds before. `t` grows by at least `tick` from line to
//! line; a tick that is left out is a gap. `services`: by Envoy cluster name, as the callers' metrics say it (so `…_80` and `…_http` of
//! one service stand side by side, and [`Service::matches`] brings them together). A service that is left out was not measured in
//! this tick; one that was measured and got nothing has zeros.
//!
//! | key | |
//! |---|---|
//! | `requests` | answers and retried attempts |
//! | `errors` | of class 5 among them |
//! | `answers`, `retried` | optional, the same by class, 1 to 5: what the callers got, and what they tried again; together they sum to `requests` |
//! | `buckets` | optional: answers per bucket, one more than there are edges; they lag behind `requests` by some seconds, so their sum is their own total |
//! | `replicas` | optional: endpoints at the end of the tick, healthy and in all |
//! | `scores` | optional: business metrics by name, `[number of values, their sum]`, each value in 0 to 1 |
//!
//! Every number is finite and not negative; counts may be fractions.
//!
//! **Footer.** The number of ticks, and the SHA-256 of every byte before the footer line, uncompressed. A file without it was cut short.
//!
//! **Versions.** A reader ignores header keys that it does not know, and refuses unknown keys anywhere else, since a count that is
//! ignored may change what the others mean. So new header keys keep the version; anything else raises it, and a reader says so
//! about a version above its own.

mod reader;
mod writer;

pub use reader::Reader;
pub(crate) use reader::{Unique, excerpt_of};
pub use writer::Writer;

use super::file_error::excerpt;
use super::{Answer, FileError, MetricsError, Note, Objective, Question, Service};
use sluice_rules::canary::tick::{Arms, Counts, Replicas, Sample};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// The version of the format that is written, and the newest that is read.
pub const VERSION: u64 = 1;

/// What a whole recording has in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Seconds of one tick.
    pub tick: u32,
    /// The mesh whose clusters these are.
    pub mesh: String,
    /// What it was made from.
    pub source: String,
    /// The time of the newest measurement.
    pub created: jiff::Timestamp,
    /// The callers that were counted; empty means all.
    pub from: Vec<String>,
    /// Upper bucket edges in milliseconds, growing.
    pub edges_ms: Vec<f64>,
}

/// One tick: what every service that was measured did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tick {
    /// End of the tick, seconds since 1970 UTC.
    pub t: i64,
    /// By Envoy cluster name.
    pub services: BTreeMap<String, ServiceCounts>,
}

/// What one service did in one tick, as its callers saw it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServiceCounts {
    /// Answers and retried attempts.
    pub requests: f64,
    /// Of class 5 among them.
    pub errors: f64,
    /// What the callers got, by class 1 to 5.
    pub answers: Option<[f64; 5]>,
    /// What the callers tried again, by class 1 to 5.
    pub retried: Option<[f64; 5]>,
    /// Answers per bucket; the last is above every edge.
    pub buckets: Option<Vec<f64>>,
    /// Healthy endpoints and all endpoints.
    pub replicas: Option<[f64; 2]>,
    /// Business metrics.
    pub scores: BTreeMap<String, Counts>,
}

/// A recording in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// What all ticks have in common.
    pub header: Header,
    /// Oldest first.
    pub ticks: Vec<Tick>,
}

impl Recording {
    /// Reads a whole file.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut reader = Reader::open(path)?;
        let mut ticks = Vec::new();
        while let Some(tick) = reader.next_tick()? {
            ticks.push(tick);
        }
        Ok(Self { header: reader.header().clone(), ticks })
    }

    /// Writes a whole file, or nothing at all.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let mut writer = Writer::create(path, &self.header)?;
        for tick in &self.ticks {
            writer.tick(tick)?;
        }
        writer.finish()
    }

    /// Every cluster that was ever measured.
    pub fn clusters(&self) -> BTreeSet<&str> {
        self.ticks.iter().flat_map(|tick| tick.services.keys().map(String::as_str)).collect()
    }

    pub(super) fn samples(&self, question: &Question) -> Result<Answer, MetricsError> {
        let seen = self.clusters();
        let mut notes = Vec::new();
        let mut arm = |service: &Service| -> BTreeSet<&str> {
            let found: BTreeSet<&str> =
                seen.iter().copied().filter(|cluster| service.matches(cluster, &self.header.mesh)).collect();
            if found.is_empty() {
                let seen = seen.iter().copied().map(str::to_owned).collect();
                notes.push(Note::Unseen { service: service.clone(), seen });
            }
            found
        };
        let (stable, canary) = (arm(&question.stable), arm(&question.canary));
        if let Some(cluster) = stable.intersection(&canary).next() {
            let (one, other) = (&question.stable, &question.canary);
            let what = format!("`{}` may be `{one}` as well as `{other}`; tell them apart by name", excerpt(cluster));
            return Err(MetricsError::Question(what));
        }

        let mut edge = None;
        for objective in &question.objectives {
            let &Objective::Slow { over } = objective else { continue };
            edge = edge_for(over, &self.header.edges_ms);
            match edge {
                Some(edge) => {
                    let edge_ms = self.header.edges_ms[edge];
                    if (edge_ms - over.as_secs_f64() * 1e3).abs() > 1e-6 {
                        notes.push(Note::Edge { over, edge_ms });
                    }
                }
                None => notes.push(Note::NoTimes),
            }
        }

        let asked = self.ticks.iter().filter(|tick| question.from < tick.t && tick.t <= question.to);
        let samples = asked.map(|tick| {
            let arm = |names: &BTreeSet<&str>| -> Vec<&ServiceCounts> {
                names.iter().filter_map(|name| tick.services.get(*name)).collect()
            };
            let (stable, canary) = (arm(&stable), arm(&canary));
            let signals = question.objectives.iter().map(|objective| {
                let arms = Arms { canary: counts(objective, &canary, edge), stable: counts(objective, &stable, edge) };
                (objective.signal().to_owned(), arms)
            });
            let replicas = replicas(&stable).zip(replicas(&canary));
            Sample {
                t: tick.t,
                signals: signals.collect(),
                replicas: replicas.map(|(stable, canary)| Replicas { canary, stable }),
            }
        });
        Ok(Answer { samples: samples.collect(), notes })
    }
}

// What a reader refuses, a writer refuses too: better no recording than one that nobody can read.

impl Header {
    fn check(&self) -> Result<(), String> {
        if !(1..=86_400).contains(&self.tick) {
            return Err(format!("`tick` is {} seconds, outside 1 to 86400", self.tick));
        }
        let edges = &self.edges_ms;
        let rising = edges.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || edges.iter().any(|edge| !edge.is_finite() || *edge < 0.0) || edges.len() > 1000 {
            return Err("`edges_ms` are not growing numbers, at most 1000 of them".to_owned());
        }
        Ok(())
    }
}

impl Tick {
    /// Does it fit the header and come after the tick that ended at `last`?
    fn check(&self, header: &Header, last: Option<i64>) -> Result<(), String> {
        let t = self.t;
        if jiff::Timestamp::from_second(t).is_err() {
            return Err(format!("{t} is no time of any calendar, in seconds since 1970"));
        }
        let last = last.unwrap_or(i64::MIN);
        let step = t.saturating_sub(last);
        if t == last {
            return Err(format!("tick {t} is there twice"));
        }
        if step < 0 {
            return Err(format!("the clock goes backwards, from {last} to {t}"));
        }
        if step < i64::from(header.tick) {
            return Err(format!(
                "tick {t} overlaps the one before: it ends {step} s later, a tick is {} s",
                header.tick
            ));
        }
        for (name, service) in &self.services {
            service.check(&header.edges_ms).map_err(|what| format!("`{}`: {what}", excerpt(name)))?;
        }
        Ok(())
    }
}

impl ServiceCounts {
    fn check(&self, edges_ms: &[f64]) -> Result<(), String> {
        let Self { requests, errors, answers, retried, buckets, replicas, scores } = self;
        let lists: [(&str, &[f64]); 6] = [
            ("requests", &[*requests]),
            ("errors", &[*errors]),
            ("answers", answers.as_ref().map_or(&[], <[f64; 5]>::as_slice)),
            ("retried", retried.as_ref().map_or(&[], <[f64; 5]>::as_slice)),
            ("buckets", buckets.as_deref().unwrap_or_default()),
            ("replicas", replicas.as_ref().map_or(&[], <[f64; 2]>::as_slice)),
        ];
        let scored = scores.iter().flat_map(|(name, counts)| [(name.as_str(), counts.n), (name.as_str(), counts.x)]);
        let numbers = lists.into_iter().flat_map(|(name, list)| list.iter().map(move |number| (name, *number)));
        for (name, number) in numbers.chain(scored) {
            if !number.is_finite() || number < 0.0 {
                return Err(format!("`{}` is {number}, not a finite count of zero or more", excerpt(name)));
            }
        }
        if errors > requests {
            return Err(format!("{errors} errors in {requests} requests"));
        }
        // Whoever tells the classes tells both parts, and they are the same counts told twice.
        match (answers, retried) {
            (None, None) => {}
            (Some(answers), Some(retried)) => {
                let sum: f64 = answers.iter().chain(retried).sum();
                if !nearly(sum, *requests) || !nearly(answers[4] + retried[4], *errors) {
                    return Err("`answers` and `retried` do not sum to `requests` and `errors`".to_owned());
                }
            }
            _ => return Err("`answers` and `retried` come together or not at all".to_owned()),
        }
        if let Some(buckets) = buckets
            && buckets.len() != edges_ms.len() + 1
        {
            return Err(format!(
                "{} buckets for {} edges; there is one more than edges",
                buckets.len(),
                edges_ms.len()
            ));
        }
        for (name, counts) in scores {
            if counts.x > counts.n {
                return Err(format!("the values of `{}` are not in 0 to 1", excerpt(name)));
            }
        }
        if replicas.is_some_and(|[healthy, all]| healthy > all) {
            return Err("more healthy replicas than replicas".to_owned());
        }
        Ok(())
    }
}

/// Equal but for rounding: counts may be fractions.
fn nearly(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.max(other).max(1.0)
}

fn counts(objective: &Objective, arm: &[&ServiceCounts], edge: Option<usize>) -> Option<Counts> {
    let sum = |of: &dyn Fn(&ServiceCounts) -> Option<Counts>| {
        let known = arm.iter().filter_map(|counts| of(counts));
        known.reduce(|sum, counts| Counts { n: sum.n + counts.n, x: sum.x + counts.x })
    };
    match objective {
        Objective::Errors => sum(&|counts| Some(Counts { n: counts.requests, x: counts.errors })),
        Objective::Slow { .. } => sum(&|counts| {
            let (buckets, edge) = (counts.buckets.as_ref()?, edge?);
            Some(Counts { n: buckets.iter().sum(), x: buckets[edge + 1..].iter().sum() })
        }),
        Objective::Score { name } => sum(&|counts| counts.scores.get(name).copied()),
    }
}

/// Two clusters that lead to one service lead to the same endpoints, so the larger view counts and not their sum.
fn replicas(arm: &[&ServiceCounts]) -> Option<f64> {
    arm.iter().filter_map(|counts| counts.replicas).map(|[healthy, _]| healthy).reduce(f64::max)
}

/// The largest edge that is not above the limit: whatever is slower than the limit is then counted as slow, together with some
/// that is a little faster. The other way round, a canary could hide in the last bucket below the edge. Both arms are counted
/// alike, so comparing them stays fair. A limit below every edge takes the smallest.
fn edge_for(over: Duration, edges_ms: &[f64]) -> Option<usize> {
    let over = over.as_nanos() as f64 / 1e6;
    let below = edges_ms.iter().rposition(|&edge| edge <= over);
    below.or(if edges_ms.is_empty() { None } else { Some(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_takes_a_slow_answer_for_a_fast_one() {
        let edges = [0.5, 1.0, 5.0, 1000.0, 2500.0];
        let edge = |ms| edge_for(Duration::from_millis(ms), &edges).map(|edge| edges[edge]);
        assert_eq!(edge(2000), Some(1000.0));
        assert_eq!(edge(2500), Some(2500.0));
        assert_eq!(edge(60_000), Some(2500.0));
        assert_eq!(edge(0), Some(0.5));
        assert_eq!(edge_for(Duration::from_secs(1), &[]), None);
    }
}
