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

const LIMITS: Limits = Limits { line: 16 << 20, text: 256 << 20 };
const MOST_COUNTS: usize = 4_000_000;
const AGAIN: &str = "copy or record it again";
const REPAIR: &str = "record it again, or repair whatever wrote it";

/// Reads a recording tick by tick, and is satisfied only when the footer agrees.
pub struct Reader {
    path: PathBuf,
    lines: Lines,
    header: Header,
    digest: Sha256,
    ticks: u64,
    counts: usize,
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
        Ok(Self { path: path.to_owned(), lines, header, digest, ticks: 0, counts: 0, last: None, done: false })
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
                self.counts += tick.services.values().map(|service| 1 + service.scores.len()).sum::<usize>();
                if self.counts > MOST_COUNTS {
                    let wrong =
                        Wrong::new(format!("there are more than {MOST_COUNTS} counts"), "record a shorter time");
                    return Err(wrong.at(&self.path, number));
                }
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
        #[serde(rename = "format")]
        _format: String,
        #[serde(rename = "version")]
        _version: u64,
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
    // From the text once more: a value has forgotten which keys were there twice.
    let wire: Wire = serde_json::from_str(line)
        .map_err(|error| Wrong::new(format!("the header is wrong: {}", excerpt_of(&error)), REPAIR))?;
    let Wire { tick, mesh, source, created, from, edges_ms, .. } = wire;
    let created =
        created.parse().map_err(|_| Wrong::new("`created` is not a time such as 2026-11-24T23:06:21Z", REPAIR))?;
    let header = Header { tick, mesh, source, created, from, edges_ms };
    header.check().map_err(|what| Wrong::new(what, REPAIR))?;
    Ok(header)
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
            let services = services.0.into_iter().map(|(name, service)| (name, service.into()));
            let tick = Tick { t, services: services.collect() };
            tick.check(header, last).map_err(|what| Wrong::new(what, REPAIR))?;
            Ok(Parsed::Tick(tick))
        }
        _ => Err(Wrong::new("the line is neither a tick (`t`, `services`) nor a footer (`end`)", REPAIR)),
    }
}

/// What serde says, without the `at line 1 column 7` that would contradict our own line.
pub(crate) fn excerpt_of(error: &serde_json::Error) -> String {
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

impl From<Service> for ServiceCounts {
    fn from(service: Service) -> Self {
        let Service { requests, errors, answers, retried, buckets, replicas, scores } = service;
        let scores = scores.map_or_else(BTreeMap::new, |scores| scores.0);
        Self { requests, errors, answers, retried, buckets, replicas, scores }
    }
}

/// A JSON object in which no key stands twice; the usual reader would keep the last one and say nothing.
pub(crate) struct Unique<T>(pub(crate) BTreeMap<String, T>);

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
