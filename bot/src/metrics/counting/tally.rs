//! Second reading: every increase goes to the tick in which it was seen.

use super::dump::{Dump, Meaning};
use crate::metrics::file_error::FileError;
use crate::metrics::recording::{ServiceCounts, Tick};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

const MOST_CELLS: usize = 2_000_000;

/// What the second reading counts.
pub(super) struct Tally {
    /// Where the first tick begins, and how long one is, in seconds.
    start: i64,
    length: i64,
    /// By cluster and tick.
    cells: Vec<Vec<Option<Box<Cell>>>>,
    /// The last value of a gauge in the tick that it is in.
    gauges: HashMap<usize, (usize, f64)>,
}

#[derive(Debug, Default)]
struct Cell {
    answers: [f64; 5],
    retried: [f64; 5],
    /// Cumulative, as Prometheus has them.
    times: Option<Vec<f64>>,
    healthy: Option<f64>,
    members: Option<f64>,
}

impl Tally {
    /// Makes room for the second reading.
    pub(super) fn new(dump: &Dump<'_>, path: &Path) -> Result<Self, FileError> {
        let length = i64::from(dump.options.tick.max(1));
        let start = dump.start.div_euclid(1000);
        let ticks = usize::try_from((dump.end - start * 1000).div_euclid(length * 1000) + 2).unwrap_or(usize::MAX);
        if ticks.saturating_mul(dump.clusters.len()) > MOST_CELLS {
            let what = format!("has {ticks} ticks of {} clusters, more than {MOST_CELLS} in all", dump.clusters.len());
            return Err(FileError::new(
                path,
                what,
                "use a longer `--tick`, fewer callers with `--from`, or a shorter dump",
            ));
        }
        Ok(Self {
            start,
            length,
            cells: dump.clusters.iter().map(|_| (0..ticks).map(|_| None).collect()).collect(),
            gauges: HashMap::new(),
        })
    }

    pub(super) fn count(&mut self, dump: &mut Dump<'_>, id: usize, value: f64, time: i64) {
        let series = &mut dump.series[id];
        if value.is_nan() || series.edge == usize::MAX {
            return;
        }
        let (proxy, edge) = (&dump.proxies[series.proxy], &dump.edges_of[series.edge]);
        // The file may have changed since the first reading; what is unknown then counts nothing.
        let at = match series.scrape.map(|last| last + 1) {
            Some(next) if proxy.scrapes.get(next) == Some(&time) => next,
            _ => match proxy.scrapes.binary_search(&time) {
                Ok(at) => at,
                Err(_) => return,
            },
        };
        let before = std::mem::replace(&mut series.value, value);
        let seen = series.scrape.replace(at);
        if at == 0 && !proxy.restarts.contains(&0) {
            return;
        }
        let Some(tick) = tick_of(time, self.start, self.length) else { return };
        let Some(cell) = self.cells[edge.cluster].get_mut(tick) else { return };
        let cell = cell.get_or_insert_default();
        let goes_on = at > 0 && seen == Some(at - 1) && !proxy.restarts.contains(&at) && !edge.resets.contains(&time);
        let increase = if goes_on { value - before } else { value };
        match series.meaning {
            Meaning::Answers(class) => cell.answers[class] += increase,
            Meaning::Retried(class) => cell.retried[class] += increase,
            Meaning::Times(upper) => {
                if let Ok(bucket) = dump.edges.binary_search_by(|edge| edge.total_cmp(&upper)) {
                    cell.times.get_or_insert_with(|| vec![0.0; dump.edges.len()])[bucket] += increase;
                }
            }
            Meaning::Healthy | Meaning::Members => {
                if let Some((last, value)) = self.gauges.insert(id, (tick, value))
                    && last != tick
                {
                    self.gauge(dump, id, last, value);
                }
            }
            Meaning::Uptime | Meaning::Up => {}
        }
    }

    /// Every caller sees the endpoints; one that sees fewer is behind, so the largest view counts.
    fn gauge(&mut self, dump: &Dump<'_>, id: usize, tick: usize, value: f64) {
        let series = &dump.series[id];
        let Some(Some(cell)) = self.cells[dump.edges_of[series.edge].cluster].get_mut(tick) else { return };
        let known = if series.meaning == Meaning::Healthy { &mut cell.healthy } else { &mut cell.members };
        *known = Some(known.map_or(value, |known| known.max(value)));
    }

    pub(super) fn flush(&mut self, dump: &mut Dump<'_>) {
        for (id, (tick, value)) in std::mem::take(&mut self.gauges) {
            self.gauge(dump, id, tick, value);
        }
    }

    /// Ticks in which nobody measured anything are left out.
    pub(super) fn ticks(self, dump: &Dump<'_>) -> Vec<Tick> {
        let mut ticks: BTreeMap<i64, Tick> = BTreeMap::new();
        for (cluster, cells) in dump.clusters.iter().zip(self.cells) {
            for (tick, cell) in cells.into_iter().enumerate() {
                let Some(cell) = cell else { continue };
                let t = self.start + tick as i64 * self.length;
                let tick = ticks.entry(t).or_insert_with(|| Tick { t, services: BTreeMap::new() });
                tick.services.insert(cluster.clone(), cell.into_counts());
            }
        }
        ticks.into_values().collect()
    }
}

impl Cell {
    fn into_counts(self) -> ServiceCounts {
        let buckets = self.times.map(|mut cumulative| {
            let mut below = 0.0_f64;
            for bucket in &mut cumulative {
                // Buckets are scraped together, so a larger one below is rounding, or a restart that no uptime told.
                let all = bucket.max(below);
                *bucket = all - below;
                below = all;
            }
            cumulative
        });
        let replicas =
            self.healthy.or(self.members).map(|healthy| [healthy, self.members.unwrap_or(healthy).max(healthy)]);
        ServiceCounts {
            requests: self.answers.iter().chain(&self.retried).sum(),
            errors: self.answers[4] + self.retried[4],
            answers: Some(self.answers),
            retried: Some(self.retried),
            buckets,
            replicas,
            scores: BTreeMap::new(),
        }
    }
}

/// Ticks are counted by their end, so a scrape on the boundary belongs to the tick before it.
fn tick_of(time: i64, start: i64, length: i64) -> Option<usize> {
    let since = time.checked_sub(start * 1000)?;
    usize::try_from((since + length * 1000 - 1).div_euclid(length * 1000)).ok()
}
