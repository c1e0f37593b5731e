//! From the counters of a mesh to counts per tick.
//!
//! The counters are cumulative, belong to proxies that come and go, and say more than one may add up. The rules, each checked
//! against what the servers themselves counted:
//!
//! - Only the callers' side counts: a cluster that leads out of a proxy ([`service`](super::service)). Inbound clusters and the
//!   `external_upstream` families hold the same requests again.
//! - Requests are `upstream_rq_xx` plus `retry_upstream_rq_xx`, errors the class 5 of both. A failure that the caller tried again
//!   shows in the second alone, and a canary that answers 503 would look healthy without it. A denied call is an answer of class 4.
//! - Times come from `upstream_rq_time_bucket`, which follows `upstream_rq_xx` up to 5 s later: its total is its own.
//! - An increase belongs to the tick in which it was seen. A counter that falls began again at 0, and with it all counters of that
//!   cluster in that proxy; when `server_uptime` tells of a restart, all counters of the proxy did.
//! - A series appears with its first count, so its first value is an increase, provided that the proxy was scraped before. At the
//!   very first scrape of a proxy nothing is known and the value is only where counting starts, unless its uptime says that it began
//!   within the dump.
//! - A series that is missing from a scrape of its proxy is gone (a backend without weight loses its cluster); when it comes back
//!   it began at 0. A scrape that is missing altogether says nothing: what happened meanwhile is counted in the tick of the next one.
//! - `NaN` is how Prometheus marks the end of a series. No counter of Envoy's has that value, so we read it as the mark.
//! - A service was measured in a tick if a caller that knows it was scraped then (and once before). `membership_*` is there before
//!   the first request, so "nobody asked" is a zero and "nobody looked" is a gap.
//!
//! The file is read twice, first for the scrapes and restarts of every proxy, since a counter alone tells neither; what stays in
//! memory is one small state per series, the scrape times per proxy, and the counts.

mod dump;
mod tally;

use super::file_error::{FileError, Wrong};
use super::lines::{Limits, Lines};
use super::openmetrics::{self, Line};
use super::recording::{Header, Recording};
use dump::Dump;
use std::path::Path;
use tally::Tally;

const LIMITS: Limits = Limits { line: 1 << 20, text: 1 << 40 };

/// What to take from a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Seconds of one tick.
    pub tick: u32,
    /// The mesh to count in.
    pub mesh: String,
    /// The callers to count, by service or workload; empty means all.
    pub from: Vec<String>,
}

/// Counts an OpenMetrics dump, plain or gzip. `progress` hears how many bytes of the file were read; it is read twice.
pub fn openmetrics(path: &Path, options: &Options, progress: &mut dyn FnMut(u64)) -> Result<Recording, FileError> {
    let mut dump = Dump::new(options);
    let mut newest = i64::MIN;
    let length = read(path, &mut |read| progress(read), &mut |sample| {
        let (value, time) = sample.measurement()?;
        let Some(id) = dump.series(sample.series, sample.name)? else { return Ok(()) };
        newest = newest.max(time);
        dump.look(id, value, time)
    })?;
    dump.check(path)?;
    dump.settle();
    let mut tally = Tally::new(&dump, path)?;
    read(path, &mut |read| progress(length + read), &mut |sample| {
        let (value, time) = sample.measurement()?;
        if let Some(id) = dump.known(sample.series)? {
            tally.count(&mut dump, id, value, time);
        }
        Ok(())
    })?;
    tally.flush(&mut dump);
    let source = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Recording {
        header: Header {
            tick: options.tick,
            mesh: options.mesh.clone(),
            source,
            created: jiff::Timestamp::from_millisecond(newest).unwrap_or_default(),
            from: options.from.clone(),
            edges_ms: dump.edges[..dump.edges.len().saturating_sub(1)].to_vec(),
        },
        ticks: tally.ticks(&dump),
    })
}

/// Every sample of a family that we count by, in the order of the file.
fn read(
    path: &Path,
    progress: &mut dyn FnMut(u64),
    each: &mut dyn FnMut(openmetrics::Sample<'_>) -> Result<(), Wrong>,
) -> Result<u64, FileError> {
    let mut lines = Lines::open(path, LIMITS)?;
    let mut ended = false;
    while let Some(line) = lines.next()? {
        let done = match openmetrics::split(line) {
            _ if ended => Err(Wrong::new("there is something after `# EOF`", "keep one dump per file")),
            Ok(Some(Line::End)) => {
                ended = true;
                Ok(())
            }
            Ok(Some(Line::Sample(sample))) if Family::of(sample.name).is_some() => each(sample),
            Ok(_) => Ok(()),
            Err(wrong) => Err(wrong),
        };
        let number = lines.number();
        done.map_err(|wrong| wrong.at(path, number))?;
        if number.is_multiple_of(4096) {
            progress(lines.position());
        }
    }
    if !ended {
        return Err(FileError::new(path, "is cut short: it does not end with `# EOF`", "copy or dump it again"));
    }
    progress(lines.position());
    Ok(lines.position())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Answers,
    Retried,
    Times,
    Healthy,
    Members,
    Uptime,
    Up,
}

impl Family {
    fn of(name: &str) -> Option<Self> {
        match name {
            "envoy_cluster_upstream_rq_xx" => Some(Self::Answers),
            "envoy_cluster_retry_upstream_rq_xx" => Some(Self::Retried),
            "envoy_cluster_upstream_rq_time_bucket" => Some(Self::Times),
            "envoy_cluster_membership_healthy" => Some(Self::Healthy),
            // Without the `_total` that the parser takes off.
            "envoy_cluster_membership" => Some(Self::Members),
            "envoy_server_uptime" => Some(Self::Uptime),
            "up" => Some(Self::Up),
            _ => None,
        }
    }

    fn is_counter(self) -> bool {
        matches!(self, Self::Answers | Self::Retried | Self::Times)
    }
}
