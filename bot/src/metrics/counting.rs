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

use super::file_error::{FileError, Wrong, excerpt};
use super::lines::{Limits, Lines};
use super::openmetrics::{self, Line};
use super::recording::{Header, Recording, ServiceCounts, Tick};
use super::service::Destination;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

const LIMITS: Limits = Limits { line: 1 << 20, text: 1 << 40 };
const MOST_SERIES: usize = 500_000;
const MOST_SCRAPES: usize = 50_000_000;
const MOST_CELLS: usize = 2_000_000;
const MOST_FALLS: usize = 1_000_000;
const MOST_EDGES: usize = 100;

/// Envoy writes its uptime on its statistics clock, so it may be this old.
const UPTIME_LAG_MS: i64 = 10_000;

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
    let mut tally = dump.tally(path, options)?;
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

/// What a series counts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meaning {
    /// By class, 0 for 1xx to 4 for 5xx.
    Answers(usize),
    Retried(usize),
    /// By upper edge in milliseconds.
    Times(f64),
    Healthy,
    Members,
    Uptime,
    Up,
}

#[derive(Debug)]
struct Series {
    meaning: Meaning,
    proxy: usize,
    /// The cluster as this proxy sees it; of no use where a series belongs to the whole proxy.
    edge: usize,
    /// The time of the last line, marks included.
    line: Option<i64>,
    /// The last value and the scrape that it came from.
    value: f64,
    scrape: Option<usize>,
}

/// A proxy, as scraped.
#[derive(Debug, Default)]
struct Proxy {
    /// When a scrape of it succeeded, in order.
    scrapes: Vec<i64>,
    uptimes: BTreeMap<i64, f64>,
    /// Scrapes before which it restarted; 0 stands for "began within the dump".
    restarts: BTreeSet<usize>,
}

impl Proxy {
    /// Most samples come in order, or at times that another series told already.
    fn scraped(&mut self, time: i64) -> bool {
        match self.scrapes.last() {
            Some(&last) if last >= time => match self.scrapes.binary_search(&time) {
                Ok(_) => false,
                Err(at) => {
                    self.scrapes.insert(at, time);
                    true
                }
            },
            _ => {
                self.scrapes.push(time);
                true
            }
        }
    }

    fn find_restarts(&mut self, start: i64) {
        let mut before: Option<(i64, f64)> = None;
        for (&time, &uptime) in &self.uptimes {
            let at = self.scrapes.partition_point(|&scrape| scrape < time);
            let since = time - (uptime * 1000.0) as i64;
            let restarted = match before {
                Some((earlier, _)) if since > earlier + UPTIME_LAG_MS => true,
                Some((_, uptime_before)) => uptime < uptime_before,
                None => at == 0 && since > start + UPTIME_LAG_MS,
            };
            if restarted {
                self.restarts.insert(at);
            }
            before = Some((time, uptime));
        }
    }
}

/// A cluster in a proxy.
#[derive(Debug, Default)]
struct Edge {
    cluster: usize,
    /// When a counter of it fell, with the time of its value before.
    falls: BTreeSet<(i64, i64)>,
    /// The falls from one scrape to the next. A series that was missing in between came back, which says nothing of the others.
    resets: BTreeSet<i64>,
    /// Its bucket edges, each with the number of series that have it.
    buckets: BTreeMap<u64, usize>,
}

/// What the first reading learns.
struct Dump<'a> {
    options: &'a Options,
    /// Every series as written, and as it is when labels are put in order; `None` is one that we leave out.
    written: HashMap<Box<str>, Option<usize>>,
    ordered: HashMap<String, usize>,
    recent: (String, Option<usize>),
    series: Vec<Series>,
    proxies: Vec<Proxy>,
    proxy_ids: HashMap<String, usize>,
    clusters: Vec<String>,
    cluster_ids: HashMap<String, usize>,
    edge_ids: HashMap<(usize, usize), usize>,
    edges_of: Vec<Edge>,
    /// Upper bucket edges in milliseconds, the infinite one too.
    edges: Vec<f64>,
    meshes: BTreeSet<String>,
    callers: BTreeSet<String>,
    scrapes: usize,
    falls: usize,
    start: i64,
    end: i64,
    any_counter: bool,
}

impl<'a> Dump<'a> {
    fn new(options: &'a Options) -> Self {
        Self {
            options,
            written: HashMap::new(),
            ordered: HashMap::new(),
            recent: (String::new(), None),
            series: Vec::new(),
            proxies: Vec::new(),
            proxy_ids: HashMap::new(),
            clusters: Vec::new(),
            cluster_ids: HashMap::new(),
            edge_ids: HashMap::new(),
            edges_of: Vec::new(),
            edges: Vec::new(),
            meshes: BTreeSet::new(),
            callers: BTreeSet::new(),
            scrapes: 0,
            falls: 0,
            start: i64::MAX,
            end: i64::MIN,
            any_counter: false,
        }
    }

    /// The series that this text names, or `None` if it is not one that we count by.
    fn series(&mut self, text: &str, name: &str) -> Result<Option<usize>, Wrong> {
        if let Some(id) = self.lookup(text) {
            return Ok(id);
        }
        if self.written.len() >= MOST_SERIES {
            let what = format!("there are more than {MOST_SERIES} series");
            return Err(Wrong::new(what, "dump fewer families, or one mesh at a time"));
        }
        let id = self.new_series(text, name)?;
        self.written.insert(text.into(), id);
        Ok(id)
    }

    /// The same in the second reading, in which nothing is new.
    fn known(&mut self, text: &str) -> Result<Option<usize>, Wrong> {
        self.lookup(text)
            .ok_or_else(|| Wrong::new("the file changed while it was read", "wait until the dump is complete"))
    }

    /// Most lines name the series of the line before.
    fn lookup(&mut self, text: &str) -> Option<Option<usize>> {
        if self.recent.0 != text {
            self.recent.1 = *self.written.get(text)?;
            text.clone_into(&mut self.recent.0);
        }
        Some(self.recent.1)
    }

    fn new_series(&mut self, text: &str, name: &str) -> Result<Option<usize>, Wrong> {
        let labels = openmetrics::labels(text)?;
        let label = |name: &str| -> Option<&str> {
            let at = labels.binary_search_by(|(label, _)| (*label).cmp(name)).ok()?;
            Some(labels[at].1.as_ref())
        };
        let Some(family) = Family::of(name) else { return Ok(None) };
        let whole_proxy = matches!(family, Family::Uptime | Family::Up);

        // Prometheus calls what the proxy itself says `exported_…` when it has such a label of its own.
        let mesh = label("exported_mesh").or(label("mesh"));
        let cluster = label("envoy_cluster_name").unwrap_or_default();
        if !whole_proxy {
            // Zone proxies pass on what the callers have counted. (Their role was not seen on a running mesh.)
            let passes_on = label("kuma_proxy_role").is_some_and(|role| role.to_ascii_lowercase().starts_with("zone"));
            if passes_on || Destination::parse(cluster).is_none() {
                return Ok(None);
            }
            let callers = [label("kuma_io_service"), label("kuma_workload"), label("kuma_io_services")];
            let callers: Vec<&str> = callers
                .into_iter()
                .flatten()
                .flat_map(|names| names.split(','))
                .filter(|name| !name.is_empty())
                .collect();
            few(&mut self.meshes, mesh.iter().copied());
            if mesh != Some(&self.options.mesh) {
                return Ok(None);
            }
            few(&mut self.callers, callers.iter().copied());
            let wanted = |caller: &&str| {
                self.options
                    .from
                    .iter()
                    .any(|from| from == caller || Destination::parse(caller).is_some_and(|d| d.name == from))
            };
            if !self.options.from.is_empty() && !callers.iter().any(wanted) {
                return Ok(None);
            }
        }

        let meaning = match family {
            Family::Answers => Meaning::Answers(class(label("envoy_response_code_class"))?),
            Family::Retried => Meaning::Retried(class(label("envoy_response_code_class"))?),
            Family::Times => Meaning::Times(upper_edge(label("le"))?),
            Family::Healthy => Meaning::Healthy,
            Family::Members => Meaning::Members,
            Family::Uptime => Meaning::Uptime,
            Family::Up => Meaning::Up,
        };
        let ordered = format!("{name}{labels:?}");
        if let Some(&id) = self.ordered.get(&ordered) {
            return Ok(Some(id));
        }
        let proxy = match label("instance") {
            Some(instance) => format!("{:?}", (label("job"), instance)),
            None => format!("{:?}", (label("namespace"), label("pod"), label("dataplane"), label("kuma_workload"))),
        };
        let proxy = *self.proxy_ids.entry(proxy).or_insert_with(|| {
            self.proxies.push(Proxy::default());
            self.proxies.len() - 1
        });
        let edge = if whole_proxy {
            usize::MAX
        } else {
            let cluster = *self.cluster_ids.entry(cluster.to_owned()).or_insert_with(|| {
                self.clusters.push(cluster.to_owned());
                self.clusters.len() - 1
            });
            *self.edge_ids.entry((proxy, cluster)).or_insert_with(|| {
                self.edges_of.push(Edge { cluster, ..Edge::default() });
                self.edges_of.len() - 1
            })
        };
        if let Meaning::Times(upper) = meaning {
            *self.edges_of[edge].buckets.entry(upper.to_bits()).or_default() += 1;
            if let Err(at) = self.edges.binary_search_by(|edge| edge.total_cmp(&upper)) {
                self.edges.insert(at, upper);
            }
            if self.edges.len() > MOST_EDGES {
                return Err(Wrong::new(format!("there are more than {MOST_EDGES} bucket edges"), "check `le`"));
            }
        }
        self.any_counter |= family.is_counter();
        let id = self.series.len();
        self.series.push(Series { meaning, proxy, edge, line: None, value: 0.0, scrape: None });
        self.ordered.insert(ordered, id);
        Ok(Some(id))
    }

    /// First reading: scrapes, restarts, and whether the lines can be trusted.
    fn look(&mut self, id: usize, value: f64, time: i64) -> Result<(), Wrong> {
        const ONCE: &str = "dump it again, each series once and in order";
        let series = &mut self.series[id];
        let before = series.line.replace(time);
        match before {
            Some(last) if last == time => return Err(Wrong::new("this series is there twice at this time", ONCE)),
            Some(last) if last > time => {
                let what = format!("the clock of this series goes backwards, by {} ms", last - time);
                return Err(Wrong::new(what, ONCE));
            }
            _ => {}
        }
        if value.is_nan() {
            return Ok(());
        }
        if value.is_infinite() || value < 0.0 {
            let what = format!("the value is {value}, not a finite count of zero or more");
            return Err(Wrong::new(what, "take this series out of the dump, or find out who wrote it"));
        }
        let proxy = &mut self.proxies[series.proxy];
        let alive = series.meaning != Meaning::Up || value > 0.0;
        if alive && proxy.scraped(time) {
            self.scrapes += 1;
            if self.scrapes > MOST_SCRAPES {
                return Err(Wrong::new(format!("there are more than {MOST_SCRAPES} scrapes"), "dump a shorter time"));
            }
        }
        match series.meaning {
            Meaning::Up => {}
            Meaning::Uptime => {
                proxy.uptimes.insert(time, value);
            }
            meaning => {
                let counter = !matches!(meaning, Meaning::Healthy | Meaning::Members);
                let falls = &mut self.edges_of[series.edge].falls;
                if counter && value < series.value && falls.insert((before.unwrap_or(time), time)) {
                    self.falls += 1;
                    if self.falls > MOST_FALLS {
                        let what = format!("counters fall more than {MOST_FALLS} times");
                        return Err(Wrong::new(what, "check that these are counters, one series per proxy"));
                    }
                }
                self.start = self.start.min(time);
                self.end = self.end.max(time);
            }
        }
        series.value = value;
        Ok(())
    }

    /// Prepares the second reading.
    fn tally(&mut self, path: &Path, options: &Options) -> Result<Tally, FileError> {
        if self.edges_of.is_empty() {
            let list = |names: &BTreeSet<String>| names.iter().map(|name| excerpt(name)).collect::<Vec<_>>().join(", ");
            let (what, remedy) = if self.meshes.is_empty() {
                (
                    "has no outbound cluster of any mesh".to_owned(),
                    "dump `envoy_cluster_.*`, `envoy_server_uptime` and `up`".to_owned(),
                )
            } else if self.callers.is_empty() {
                (
                    format!("has no outbound cluster of mesh `{}`", options.mesh),
                    format!("choose `--mesh` from {}", list(&self.meshes)),
                )
            } else {
                ("has no caller that `--from` names".to_owned(), format!("choose from {}", list(&self.callers)))
            };
            return Err(FileError::new(path, what, remedy));
        }
        if !self.any_counter {
            let what =
                "has clusters but no `envoy_cluster_upstream_rq_xx`: nobody made a request, or nobody kept count";
            return Err(FileError::new(
                path,
                what,
                "set the MeshMetric profile to Basic or All, and dump that family too",
            ));
        }
        for edge in &self.edges_of {
            let complete =
                edge.buckets.len() == self.edges.len() && edge.buckets.values().min() == edge.buckets.values().max();
            if !edge.buckets.is_empty() && !complete {
                let what = format!(
                    "has {} of {} histogram buckets for `{}`",
                    edge.buckets.len(),
                    self.edges.len(),
                    excerpt(&self.clusters[edge.cluster])
                );
                return Err(FileError::new(path, what, "dump every `le`, and record proxies with other buckets apart"));
            }
        }
        if self.edges.last().is_some_and(|edge| edge.is_finite()) {
            return Err(FileError::new(path, "has histograms without the bucket `+Inf`", "dump every `le`"));
        }
        let length = i64::from(options.tick.max(1));
        let start = self.start.div_euclid(1000);
        let ticks = usize::try_from((self.end - start * 1000).div_euclid(length * 1000) + 2).unwrap_or(usize::MAX);
        if ticks.saturating_mul(self.clusters.len()) > MOST_CELLS {
            let what = format!("has {ticks} ticks of {} clusters, more than {MOST_CELLS} in all", self.clusters.len());
            return Err(FileError::new(
                path,
                what,
                "use a longer `--tick`, fewer callers with `--from`, or a shorter dump",
            ));
        }
        for proxy in &mut self.proxies {
            proxy.find_restarts(self.start);
        }
        for (&(proxy, _), &edge) in &self.edge_ids {
            let (scrapes, edge) = (&self.proxies[proxy].scrapes, &mut self.edges_of[edge]);
            let next = |time: i64| scrapes.get(scrapes.partition_point(|&scrape| scrape <= time));
            edge.resets =
                edge.falls.iter().filter(|(before, time)| next(*before) == Some(time)).map(|(_, time)| *time).collect();
        }
        for series in &mut self.series {
            (series.value, series.scrape) = (0.0, None);
        }
        Ok(Tally {
            start,
            length,
            cells: self.clusters.iter().map(|_| (0..ticks).map(|_| None).collect()).collect(),
            gauges: HashMap::new(),
        })
    }
}

/// What the second reading counts.
struct Tally {
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
    fn count(&mut self, dump: &mut Dump<'_>, id: usize, value: f64, time: i64) {
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

    fn flush(&mut self, dump: &mut Dump<'_>) {
        for (id, (tick, value)) in std::mem::take(&mut self.gauges) {
            self.gauge(dump, id, tick, value);
        }
    }

    /// Ticks in which nobody measured anything are left out.
    fn ticks(self, dump: &Dump<'_>) -> Vec<Tick> {
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

fn class(label: Option<&str>) -> Result<usize, Wrong> {
    match label {
        Some(class @ ("1" | "2" | "3" | "4" | "5")) => Ok(usize::from(class.as_bytes()[0] - b'1')),
        other => {
            let what = format!("`envoy_response_code_class` is `{}`, not 1 to 5", excerpt(other.unwrap_or_default()));
            Err(Wrong::new(what, "dump Envoy's own metrics, with all their labels"))
        }
    }
}

fn upper_edge(label: Option<&str>) -> Result<f64, Wrong> {
    let text = label.unwrap_or_default();
    match text.parse::<f64>() {
        Ok(edge) if edge >= 0.0 => Ok(edge),
        _ => {
            let what = format!("`le` is `{}`, not a bucket edge", excerpt(text));
            Err(Wrong::new(what, "dump Envoy's own metrics, with all their labels"))
        }
    }
}

/// Names for a message; nobody reads more than some.
fn few<'a>(names: &mut BTreeSet<String>, more: impl Iterator<Item = &'a str>) {
    for name in more {
        if names.len() < 20 && !names.contains(name) {
            names.insert(name.to_owned());
        }
    }
}
