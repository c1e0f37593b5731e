//! Reading: every line is checked before anyone counts with it.

use super::{Header, ServiceCounts, Tick, VERSION};
use crate::metrics::FileError;
use crate::metrics::file_error::{Wrong, excerpt};
use crate::metrics::lines::{Limits, Lines};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sluice_rules::canary::tick::Counts;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

const LIMITS: Limits = Limits { line: 16 << 20, text: 512 << 20 };
const AGAIN: &str = "copy or record it again";
const REPAIR: &str = "record it again, or repair whatever wrote it";

/// Reads a recording tick by tick, and is satisfied only when the footer agrees.
pub struct Reader {
    path: PathBuf,
    lines: Lines,
    header: Header,
    digest: Sha256,
    ticks: u64,
    last: Option<i64>,
    done: bool,
}

impl Reader {
    /// Opens a recording and reads its header.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut lines = Lines::open(path, LIMITS)?;
        let Some(line) = lines.next()? else {
            return Err(FileError::new(path, "is empty", AGAIN));
        };
        let header = header(line).map_err(|wrong| wrong.at(path, 1))?;
        let digest = Sha256::new_with_prefix(line);
        Ok(Self { path: path.to_owned(), lines, header, digest, ticks: 0, last: None, done: false })
    }

    /// What all ticks have in common.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next tick, or `None` when the recording ended and is complete.
    pub fn next_tick(&mut self) -> Result<Option<Tick>, FileError> {
        if self.done {
            return Ok(None);
        }
        let Some(line) = self.lines.next()? else {
            let what = format!("is cut short: there is no footer after {} ticks", self.ticks);
            return Err(FileError::new(&self.path, what, AGAIN));
        };
        let parsed = parse(line, &self.header, self.last);
        if let Ok(Parsed::Tick(_)) = &parsed {
            self.digest.update(line);
        }
        let number = self.lines.number();
        let wrong = match parsed {
            Ok(Parsed::Tick(tick)) => {
                self.last = Some(tick.t);
                self.ticks += 1;
                return Ok(Some(tick));
            }
            Ok(Parsed::Footer(footer)) if footer.ticks != self.ticks => {
                Wrong::new(format!("the footer counts {} ticks, the file has {}", footer.ticks, self.ticks), AGAIN)
            }
            Ok(Parsed::Footer(footer)) if footer.sha256 != hex::encode(self.digest.clone().finalize()) => {
                Wrong::new("the checksum differs: the file was changed after it was written", AGAIN)
            }
            Ok(Parsed::Footer(_)) => {
                if self.lines.next()?.is_some() {
                    let wrong = Wrong::new("there is something after the footer", "keep one recording per file");
                    return Err(wrong.at(&self.path, number + 1));
                }
                self.done = true;
                return Ok(None);
            }
            Err(wrong) => wrong,
        };
        Err(wrong.at(&self.path, number))
    }
}

enum Parsed {
    Tick(Tick),
    Footer(Footer),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    ticks: u64,
    sha256: String,
}

fn header(line: &str) -> Result<Header, Wrong> {
    const NOT: &str = "make one with `sluice record`";
    #[derive(serde::Deserialize)]
    struct Wire {
        tick: u32,
        mesh: String,
        source: String,
        created: String,
        #[serde(default)]
        from: Vec<String>,
        #[serde(default)]
        edges_ms: Vec<f64>,
    }
    let value: Value = serde_json::from_str(line).map_err(|_| Wrong::new("is not a sluice recording", NOT))?;
    if value.get("format").and_then(Value::as_str) != Some("sluice-recording") {
        return Err(Wrong::new("is not a sluice recording", NOT));
    }
    match value.get("version").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(version) if version > VERSION => {
            let what = format!("made by a newer sluice: it is version {version}, and this one reads version {VERSION}");
            return Err(Wrong::new(what, "read it with a newer sluice, or record it again with this one"));
        }
        _ => return Err(Wrong::new("the header names no version that was ever written", REPAIR)),
    }
    whole(line)?;
    let wire: Wire =
        serde_json::from_value(value).map_err(|error| Wrong::new(format!("the header is wrong: {error}"), REPAIR))?;
    if !(1..=86_400).contains(&wire.tick) {
        return Err(Wrong::new(format!("`tick` is {} seconds, outside 1 to 86400", wire.tick), REPAIR));
    }
    let rising = wire.edges_ms.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising || wire.edges_ms.iter().any(|edge| !edge.is_finite() || *edge < 0.0) || wire.edges_ms.len() > 1000 {
        return Err(Wrong::new("`edges_ms` are not growing numbers, at most 1000 of them", REPAIR));
    }
    let Wire { tick, mesh, source, created, from, edges_ms } = wire;
    let created =
        created.parse().map_err(|_| Wrong::new("`created` is not a time such as 2026-11-24T23:06:21Z", REPAIR))?;
    Ok(Header { tick, mesh, source, created, from, edges_ms })
}

/// A line that does not end may have lost something.
fn whole(line: &str) -> Result<(), Wrong> {
    if line.ends_with('\n') {
        Ok(())
    } else {
        Err(Wrong::new("the file is cut short in the middle of this line", AGAIN))
    }
}

fn parse(line: &str, header: &Header, last: Option<i64>) -> Result<Parsed, Wrong> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wire {
        t: Option<i64>,
        #[serde(default)]
        services: Option<Unique<Service>>,
        end: Option<Footer>,
    }
    whole(line)?;
    let wire: Wire = serde_json::from_str(line)
        .map_err(|error| Wrong::new(format!("the line is wrong: {}", excerpt_of(&error)), REPAIR))?;
    match wire {
        Wire { t: None, services: None, end: Some(footer) } => Ok(Parsed::Footer(footer)),
        Wire { t: Some(t), services: Some(services), end: None } => {
            if let Some(last) = last {
                in_order(last, t, header.tick)?;
            }
            let services = services.0.into_iter().map(|(name, service)| {
                let counts = service
                    .check(&header.edges_ms)
                    .map_err(|what| Wrong::new(format!("`{}`: {what}", excerpt(&name)), REPAIR))?;
                Ok((name, counts))
            });
            Ok(Parsed::Tick(Tick { t, services: services.collect::<Result<_, Wrong>>()? }))
        }
        _ => Err(Wrong::new("the line is neither a tick (`t`, `services`) nor a footer (`end`)", REPAIR)),
    }
}

fn in_order(last: i64, t: i64, tick: u32) -> Result<(), Wrong> {
    let step = t.saturating_sub(last);
    if step == 0 {
        Err(Wrong::new(format!("tick {t} is there twice"), REPAIR))
    } else if step < 0 {
        Err(Wrong::new(format!("the clock goes backwards, from {last} to {t}"), REPAIR))
    } else if step < i64::from(tick) {
        Err(Wrong::new(format!("tick {t} overlaps the one before: it ends {step} s later, a tick is {tick} s"), REPAIR))
    } else {
        Ok(())
    }
}

/// What serde says, without the `at line 1 column 7` that would contradict our own line.
fn excerpt_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    format!("{text}, column {}", error.column())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    requests: f64,
    errors: f64,
    answers: Option<[f64; 5]>,
    retried: Option<[f64; 5]>,
    buckets: Option<Vec<f64>>,
    replicas: Option<[f64; 2]>,
    scores: Option<Unique<Counts>>,
}

impl Service {
    fn check(self, edges_ms: &[f64]) -> Result<ServiceCounts, String> {
        let Self { requests, errors, answers, retried, buckets, replicas, scores } = self;
        let scores = scores.map_or_else(BTreeMap::new, |scores| scores.0);
        let all = [("requests", requests), ("errors", errors)].into_iter();
        let lists = [
            ("answers", answers.as_ref().map(<[f64; 5]>::as_slice)),
            ("retried", retried.as_ref().map(<[f64; 5]>::as_slice)),
            ("buckets", buckets.as_deref()),
            ("replicas", replicas.as_ref().map(<[f64; 2]>::as_slice)),
        ];
        let all =
            all.chain(lists.into_iter().flat_map(|(name, list)| list.into_iter().flatten().map(move |n| (name, *n))));
        let all =
            all.chain(scores.iter().flat_map(|(name, counts)| [(name.as_str(), counts.n), (name.as_str(), counts.x)]));
        for (name, number) in all {
            if !number.is_finite() || number < 0.0 {
                return Err(format!("`{}` is {number}, not a finite count of zero or more", excerpt(name)));
            }
        }
        if errors > requests {
            return Err(format!("{errors} errors in {requests} requests"));
        }
        // Whoever tells the classes tells both parts, and they are the same counts told twice.
        match (&answers, &retried) {
            (None, None) => {}
            (Some(answers), Some(retried)) => {
                let sum: f64 = answers.iter().chain(retried).sum();
                if !nearly(sum, requests) || !nearly(answers[4] + retried[4], errors) {
                    return Err("`answers` and `retried` do not sum to `requests` and `errors`".to_owned());
                }
            }
            _ => return Err("`answers` and `retried` come together or not at all".to_owned()),
        }
        if let Some(buckets) = &buckets
            && buckets.len() != edges_ms.len() + 1
        {
            return Err(format!(
                "{} buckets for {} edges; there is one more than edges",
                buckets.len(),
                edges_ms.len()
            ));
        }
        for (name, counts) in &scores {
            if counts.x > counts.n {
                return Err(format!("the values of `{}` are not in 0 to 1", excerpt(name)));
            }
        }
        if replicas.is_some_and(|[healthy, all]| healthy > all) {
            return Err("more healthy replicas than replicas".to_owned());
        }
        Ok(ServiceCounts { requests, errors, answers, retried, buckets, replicas, scores })
    }
}

/// Equal but for rounding: counts may be fractions.
fn nearly(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.max(other).max(1.0)
}

/// A JSON object in which no key stands twice; the usual reader would keep the last one and say nothing.
struct Unique<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Keys<T> {
            type Value = BTreeMap<String, T>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if all.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("`{}` is there twice", excerpt(&key))));
                    }
                    all.insert(key, value);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(Keys(PhantomData)).map(Self)
    }
}
