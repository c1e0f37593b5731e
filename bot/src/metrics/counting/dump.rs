//! First reading: which series there are, when each proxy was scraped, and where its counters began again.

use super::{Family, Options};
use crate::metrics::file_error::{FileError, Wrong, excerpt};
use crate::metrics::openmetrics;
use crate::metrics::service::Destination;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

const MOST_SERIES: usize = 500_000;
const MOST_SCRAPES: usize = 10_000_000;
const MOST_FALLS: usize = 1_000_000;
const MOST_EDGES: usize = 100;

/// Envoy writes its uptime on its statistics clock, so it may be this old.
const UPTIME_LAG_MS: i64 = 10_000;

/// What the first reading learns.
pub(super) struct Dump<'a> {
    pub(super) options: &'a Options,
    /// Every series as written, and as it is when labels are put in order; `None` is one that we leave out.
    written: HashMap<Box<str>, Option<usize>>,
    ordered: HashMap<String, usize>,
    recent: (String, Option<usize>),
    pub(super) series: Vec<Series>,
    pub(super) proxies: Vec<Proxy>,
    proxy_ids: HashMap<String, usize>,
    pub(super) clusters: Vec<String>,
    cluster_ids: HashMap<String, usize>,
    edge_ids: HashMap<(usize, usize), usize>,
    pub(super) edges_of: Vec<Edge>,
    /// Upper bucket edges in milliseconds, the infinite one too.
    pub(super) edges: Vec<f64>,
    meshes: BTreeSet<String>,
    callers: BTreeSet<String>,
    scrapes: usize,
    falls: usize,
    pub(super) start: i64,
    pub(super) end: i64,
    any_counter: bool,
}

impl<'a> Dump<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
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
    pub(super) fn series(&mut self, text: &str, name: &str) -> Result<Option<usize>, Wrong> {
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
    pub(super) fn known(&mut self, text: &str) -> Result<Option<usize>, Wrong> {
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
        self.series.push(Series { meaning, proxy, edge, line: None, valued: None, value: 0.0, scrape: None });
        self.ordered.insert(ordered, id);
        Ok(Some(id))
    }

    /// First reading: scrapes, restarts, and whether the lines can be trusted.
    pub(super) fn look(&mut self, id: usize, value: f64, time: i64) -> Result<(), Wrong> {
        const ONCE: &str = "dump it again, each series once and in order";
        let series = &mut self.series[id];
        match series.line.replace(time) {
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
        let before = series.valued.replace(time);
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

    /// Is there something to count, and can it be counted?
    pub(super) fn check(&self, path: &Path) -> Result<(), FileError> {
        if self.edges_of.is_empty() {
            let list = |names: &BTreeSet<String>| names.iter().map(|name| excerpt(name)).collect::<Vec<_>>().join(", ");
            let (what, remedy) = if self.meshes.is_empty() {
                (
                    "has no outbound cluster of any mesh".to_owned(),
                    "dump `envoy_cluster_.*`, `envoy_server_uptime` and `up`".to_owned(),
                )
            } else if self.callers.is_empty() {
                (
                    format!("has no outbound cluster of mesh `{}`", self.options.mesh),
                    format!("choose `--mesh` from {}", list(&self.meshes)),
                )
            } else {
                ("has no caller that `--from` names".to_owned(), format!("choose from {}", list(&self.callers)))
            };
            return Err(FileError::new(path, what, remedy));
        }
        if self.start > self.end {
            return Err(FileError::new(path, "marks every series as ended and has no value", "dump a longer time"));
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
        Ok(())
    }

    /// After the first reading: what the second one relies on.
    pub(super) fn settle(&mut self) {
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
    }
}

/// What a series counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Meaning {
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
pub(super) struct Series {
    pub(super) meaning: Meaning,
    pub(super) proxy: usize,
    /// The cluster as this proxy sees it; of no use where a series belongs to the whole proxy.
    pub(super) edge: usize,
    /// The time of the last line, and of the last one with a value rather than a mark.
    pub(super) line: Option<i64>,
    pub(super) valued: Option<i64>,
    /// The last value and the scrape that it came from.
    pub(super) value: f64,
    pub(super) scrape: Option<usize>,
}

/// A proxy, as scraped.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    /// When a scrape of it succeeded, in order.
    pub(super) scrapes: Vec<i64>,
    pub(super) uptimes: BTreeMap<i64, f64>,
    /// Scrapes before which it restarted; 0 stands for "began within the dump".
    pub(super) restarts: BTreeSet<usize>,
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
pub(super) struct Edge {
    pub(super) cluster: usize,
    /// When a counter of it fell, with the time of its value before.
    pub(super) falls: BTreeSet<(i64, i64)>,
    /// The falls from one scrape to the next. A series that was missing in between came back, which says nothing of the others.
    pub(super) resets: BTreeSet<i64>,
    /// Its bucket edges, each with the number of series that have it.
    pub(super) buckets: BTreeMap<u64, usize>,
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
