//! Recordings beside the truth, and files that nobody should count with.

#![allow(clippy::unwrap_used, reason = "a panic here is the failure itself, in helpers too")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, and they must not differ at all")]

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_bot::metrics::counting::{self, Options};
use sluice_bot::metrics::recording::{Header, Recording, ServiceCounts, Tick, Writer};
use sluice_bot::metrics::{Metrics, Note, Objective, Question, Service};
use sluice_rules::canary::tick::{Arms, Counts};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

// Beside the truth: three meshes whose servers counted too.

const NAMES: [&str; 3] = ["canary-15m", "fault-24m", "healthy-32m"];

/// Each dump at the finest grain: one scrape per tick.
static FINE: LazyLock<BTreeMap<&str, Recording>> = LazyLock::new(|| {
    let convert = |name| {
        (name, counting::openmetrics(&kuma(&format!("{name}.openmetrics.gz")), &options(5), &mut |_| {}).unwrap())
    };
    NAMES.into_iter().map(convert).collect()
});

/// llm-v2 of canary-15m loses its cluster at minute 13, and with it what it answered since the scrape before.
const REMOVED: (&str, &str, f64) = ("canary-15m", "llm-v2", 1_795_561_458.0);

#[test]
fn equals_the_truth_at_the_end() {
    for (name, recording) in FINE.iter() {
        let clients = &truth(name)["client_counts"]["web->llm"];
        for backend in ["llm-v1", "llm-v2"] {
            let counted = sum(recording, backend, i64::MAX);
            for (class, code) in [(2, "200"), (4, "400"), (5, "500")] {
                let missed =
                    clients[format!("{backend} {code}")].as_f64().unwrap() - counted.answers.unwrap()[class - 1];
                let most = if (*name, backend) == (REMOVED.0, REMOVED.1) { 5.0 * 20.0 } else { 0.0 };
                assert!((0.0..=most).contains(&missed), "{name} {backend} {code}: {missed}");
            }
            assert_eq!(counted.retried, Some([0.0; 5]));
        }
    }
}

#[test]
fn counts_retried_failures_as_errors() {
    for (name, recording) in FINE.iter() {
        let servers = &truth(name)["server_counts"]["embed"];
        let (good, bad) = (servers["200"].as_f64().unwrap(), servers["503"].as_f64().unwrap());
        let counted = sum(recording, "embed", i64::MAX);
        assert_eq!((counted.errors, counted.requests), (bad, good + bad), "{name}");
        assert_eq!(counted.retried.unwrap()[4], bad, "every failure was tried again");
        assert_eq!(counted.answers.unwrap()[4], 0.0, "so no caller saw one");
    }
}

#[test]
fn counts_denied_calls_as_answers_of_class_4() {
    for (name, recording) in FINE.iter() {
        let denied = truth(name)["client_counts"]["batch->llm"]["- 403"].as_f64().unwrap();
        let counted = sum(recording, "llm", i64::MAX);
        assert_eq!((counted.requests, counted.errors), (denied, 0.0), "{name}");
        assert_eq!(counted.answers.unwrap()[3], denied);
    }
}

#[test]
fn lies_between_the_scrapes_around_every_row_of_the_timeline() {
    for (name, recording) in FINE.iter() {
        let timeline = fs::read_to_string(kuma(&format!("{name}.timeline.jsonl"))).unwrap();
        let rows: Vec<Value> = timeline.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        for row in &rows {
            // The servers were read up to 0.2 s before the row says; a tick of 5 s ends up to 5 s after its scrape.
            let t = row["t"].as_f64().unwrap();
            for backend in ["llm-v1", "llm-v2"] {
                if (*name, backend) == (REMOVED.0, REMOVED.1) && t > REMOVED.2 {
                    continue;
                }
                let at = |t: f64| sum(recording, backend, t as i64).answers.unwrap_or_default();
                let (before, after) = (at(t - 0.2), at(t + 10.0));
                for (class, code) in [(2, "200"), (4, "400"), (5, "500")] {
                    let truth = row["server_counts"][backend][code].as_f64().unwrap_or(0.0);
                    let (before, after) = (before[class - 1], after[class - 1]);
                    assert!(before <= truth && truth <= after, "{name} {t} {backend} {code}: {before} {truth} {after}");
                }
            }
        }
        assert!(rows.len() >= 6, "{name}");
    }
}

#[test]
fn adds_up_to_the_phases_that_the_servers_counted() {
    // Minutes, then 500s and answers of llm-v1 and llm-v2, as the applications counted them.
    let phases: [(&str, [i64; 2], [f64; 4]); 7] = [
        ("healthy-32m", [0, 8], [88.0, 18_119.0, 7.0, 939.0]),
        ("healthy-32m", [8, 16], [76.0, 17_260.0, 8.0, 1901.0]),
        ("healthy-32m", [16, 24], [69.0, 14_416.0, 25.0, 4778.0]),
        ("healthy-32m", [24, 32], [48.0, 9652.0, 40.0, 9650.0]),
        ("fault-24m", [0, 5], [55.0, 10_936.0, 3.0, 1241.0]),
        ("fault-24m", [5, 12], [63.0, 12_660.0, 15.0, 4130.0]),
        ("fault-24m", [12, 24], [127.0, 21_666.0, 387.0, 7301.0]),
    ];
    for (name, minutes, truth) in phases {
        let timeline = fs::read_to_string(kuma(&format!("{name}.timeline.jsonl"))).unwrap();
        let start: Value = serde_json::from_str(timeline.lines().next().unwrap()).unwrap();
        let start = start["t"].as_f64().unwrap() as i64;
        let [from, to] = minutes.map(|minute| start + 60 * minute);
        let metrics = Metrics::Recording(FINE[name].clone());
        let counted = |from, to| {
            let mut counted = [0.0; 4];
            for sample in metrics.samples(&question(from, to)).unwrap().samples {
                let Arms { canary, stable } = sample.signals["errors"];
                let [stable, canary] = [stable, canary].map(Option::unwrap);
                for (sum, more) in counted.iter_mut().zip([stable.x, stable.n, canary.x, canary.n]) {
                    *sum += more;
                }
            }
            counted
        };
        // A phase begins and ends somewhere in a tick of 5 s, and that tick within 5 s of its scrape.
        let (surely, perhaps) = (counted(from + 10, to), counted(from, to + 10));
        for ((surely, truth), perhaps) in surely.into_iter().zip(truth).zip(perhaps) {
            assert!(surely <= truth && truth <= perhaps, "{name} {minutes:?}: {surely} {truth} {perhaps}");
        }
    }
    let all = |name: &str, column: usize| {
        phases.iter().filter(|phase| phase.0 == name).map(|phase| phase.2[column]).sum::<f64>()
    };
    for name in ["healthy-32m", "fault-24m"] {
        let sums = ["llm-v1", "llm-v2"].map(|backend| sum(&FINE[name], backend, i64::MAX));
        let counted = [sums[0].errors, sums[0].requests, sums[1].errors, sums[1].requests];
        for (column, counted) in counted.into_iter().enumerate() {
            // The servers' phases leave out what was under way at the very end.
            let missed = counted - all(name, column);
            assert!((0.0..=10.0).contains(&missed), "{name}: {missed}");
        }
    }
}

#[test]
fn keeps_the_tails_of_good_and_bad_apart() {
    let question = |edge| Question {
        objectives: vec![Objective::Slow { over: Duration::from_millis(edge) }],
        ..question(i64::MIN, i64::MAX)
    };
    let slow = |name: &str, edge| {
        let answer = Metrics::Recording(FINE[name].clone()).samples(&question(edge)).unwrap();
        let sum = |arm: fn(&Arms) -> Option<Counts>| {
            let arms = answer.samples.iter().filter_map(|sample| arm(&sample.signals["slow"]));
            arms.fold((0.0, 0.0), |sum, counts| (sum.0 + counts.n, sum.1 + counts.x))
        };
        (sum(|arms| arms.stable), sum(|arms| arms.canary), answer.notes)
    };
    let ((all, stable), (all_canary, canary), notes) = slow("fault-24m", 100);
    assert_eq!((all, all_canary), (45_267.0, 12_673.0), "every answer has a time");
    assert!(notes.is_empty());
    assert!(canary / all_canary > 5.0 * stable / all, "{stable} {canary}");
    let (_, _, notes) = slow("fault-24m", 150);
    assert_eq!(notes, [Note::Edge { over: Duration::from_millis(150), edge_ms: 100.0 }]);
    assert_eq!(notes[0].to_string(), "`slow` counts answers above 100 ms, the bucket edge that stands in for 150ms");
}

#[test]
fn calls_a_removed_backend_a_gap_and_an_idle_one_a_zero() {
    let recording = &FINE["canary-15m"];
    let last = recording.ticks.last().unwrap();
    assert!(last.services.contains_key("llm-v1") && !last.services.contains_key("llm-v2"), "llm-v2 lost its weight");
    assert_eq!(last.services["llm-v1"].replicas, Some([1.0, 1.0]));
    let quiet = &FINE["fault-24m"].ticks[0].services["llm-v2"];
    assert_eq!((quiet.requests, quiet.replicas), (0.0, Some([1.0, 1.0])));
    let answer = Metrics::Recording(recording.clone()).samples(&question(last.t - 1, last.t)).unwrap();
    assert_eq!(answer.samples.len(), 1);
    assert_eq!(answer.samples[0].signals["errors"].canary, None);
    assert_eq!(answer.samples[0].replicas, None);
}

#[test]
fn converts_to_the_committed_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let out = folder.path().join("out");
        let recording =
            counting::openmetrics(&kuma(&format!("{name}.openmetrics.gz")), &options(30), &mut |_| {}).unwrap();
        recording.save(&out).unwrap();
        let committed = kuma(&format!("{name}.sluice.gz"));
        assert!(fs::read(&out).unwrap() == fs::read(&committed).unwrap(), "{name}: see testdata/metrics/README.md");
        assert_eq!(Recording::open(&committed).unwrap(), recording);
    }
}

#[test]
fn sums_the_same_whatever_the_tick() {
    for name in NAMES {
        let coarse = Recording::open(&kuma(&format!("{name}.sluice.gz"))).unwrap();
        for cluster in FINE[name].clusters() {
            let (one, other) = (sum(&coarse, cluster, i64::MAX), sum(&FINE[name], cluster, i64::MAX));
            assert_eq!((one.requests, one.errors), (other.requests, other.errors), "{name} {cluster}");
            assert_eq!(one.buckets, other.buckets);
        }
    }
}

#[test]
fn counts_one_caller_alone() {
    let only = Options { from: vec!["batch".into()], ..options(60) };
    let recording = counting::openmetrics(&kuma("fault-24m.openmetrics.gz"), &only, &mut |_| {}).unwrap();
    assert_eq!(Vec::from_iter(recording.clusters()), ["embed", "llm", "vectors"]);
    assert_eq!(sum(&recording, "embed", i64::MAX).answers.unwrap()[1], 4204.0);
}

// Namings: what running proxies of every kind said.

fn naming(file: &str) -> String {
    fs::read_to_string(kuma("../namings").join(file)).unwrap()
}

#[test]
fn finds_the_backends_under_every_naming() {
    // What the counters of web's clusters rose by, which the callers confirm but for the time it took to ask them.
    let namings =
        [("old-naming", [1429.0, 188.0]), ("old-naming-meshservice", [1419.0, 140.0]), ("new-naming", [1635.0, 166.0])];
    for (name, rise) in namings {
        let mut text = String::new();
        for caller in ["web", "batch"] {
            for (time, moment) in [(0, "t0"), (53, "t1")] {
                let file = naming(&format!("{name}.{caller}.{moment}.txt"));
                text += &file.lines().map(|line| format!("{line} {time}\n")).collect::<String>();
            }
        }
        let recording = convert(&(text + "# EOF\n"), 60).unwrap();
        assert_eq!(
            recording.clusters().len(),
            6,
            "embed, llm, llm-v1, llm-v2, rerank, vectors: {:?}",
            recording.clusters()
        );
        let answer = Metrics::Recording(recording).samples(&question(i64::MIN, i64::MAX)).unwrap();
        assert!(answer.notes.is_empty(), "{name}: {:?}", answer.notes);
        let arms = answer.samples[0].signals["errors"];
        assert_eq!([arms.stable.unwrap().n, arms.canary.unwrap().n], rise, "{name}");
    }
}

#[test]
fn finds_both_clusters_of_a_kubernetes_service() {
    let demo = Service { namespace: Some("demo".into()), ..Service::named("default", "llm-v1") };
    let web = Service { namespace: Some("web-team".into()), ..demo.clone() };
    let expected = [
        ("old-naming", vec!["default_llm-v1_demo_zone-1_msvc_80"]),
        ("new-naming", vec!["kri_msvc_default_zone-1_demo_llm-v1_80", "kri_msvc_default_zone-1_demo_llm-v1_http"]),
    ];
    for (name, expected) in expected {
        let file = naming(&format!("kubernetes.{name}.web.txt"));
        let clusters = file.lines().filter_map(|line| line.split("envoy_cluster_name=\"").nth(1)?.split('"').next());
        let clusters: BTreeSet<&str> = clusters.collect();
        let found =
            |service: &Service| clusters.iter().copied().filter(|c| service.matches(c, "default")).collect::<Vec<_>>();
        assert_eq!(found(&demo), expected);
        assert!(found(&web).is_empty());
    }
}

// Counters: what happens to them, made small.

fn options(tick: u32) -> Options {
    Options { tick, mesh: "default".into(), from: Vec::new() }
}

fn kuma(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/metrics/kuma").join(name)
}

fn question(from: i64, to: i64) -> Question {
    let service = |name: &str| Service::named("default", name);
    Question { stable: service("llm-v1"), canary: service("llm-v2"), objectives: vec![Objective::Errors], from, to }
}

/// Everything that was counted for a cluster until `t`.
fn sum(recording: &Recording, cluster: &str, t: i64) -> ServiceCounts {
    let mut sum = ServiceCounts::default();
    for counts in recording.ticks.iter().filter(|tick| tick.t <= t).filter_map(|tick| tick.services.get(cluster)) {
        let add = |sum: &mut Option<[f64; 5]>, more: Option<[f64; 5]>| {
            let sum = sum.get_or_insert([0.0; 5]);
            sum.iter_mut().zip(more.unwrap()).for_each(|(sum, more)| *sum += more);
        };
        sum.requests += counts.requests;
        sum.errors += counts.errors;
        add(&mut sum.answers, counts.answers);
        add(&mut sum.retried, counts.retried);
        if let Some(buckets) = &counts.buckets {
            let sum = sum.buckets.get_or_insert_with(|| vec![0.0; buckets.len()]);
            sum.iter_mut().zip(buckets).for_each(|(sum, more)| *sum += more);
        }
    }
    sum
}

fn truth(name: &str) -> Value {
    serde_json::from_slice(&fs::read(kuma(&format!("{name}.truth-at-end.json"))).unwrap()).unwrap()
}

fn convert(text: &str, tick: u32) -> Result<Recording, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    fs::write(&path, text).unwrap();
    let place = format!("{}/", folder.path().display());
    counting::openmetrics(&path, &options(tick), &mut |_| {}).map_err(|error| error.to_string().replace(&place, ""))
}

/// A line of a dump. `family` is short for the rest of its name.
fn line(
    family: &str,
    proxy: &str,
    labels: &str,
    value: impl std::fmt::Display,
    time: impl std::fmt::Display,
) -> String {
    let name = match family {
        "xx" => "envoy_cluster_upstream_rq_xx",
        "retry" => "envoy_cluster_retry_upstream_rq_xx",
        "time" => "envoy_cluster_upstream_rq_time_bucket",
        "healthy" => "envoy_cluster_membership_healthy",
        "total" => "envoy_cluster_membership_total",
        "uptime" => "envoy_server_uptime",
        other => other,
    };
    format!("{name}{{{labels},instance=\"{proxy}\",kuma_io_service=\"{proxy}\",mesh=\"default\"}} {value} {time}\n")
}

const OK: &str = "envoy_cluster_name=\"a\",envoy_response_code_class=\"2\"";
const BAD: &str = "envoy_cluster_name=\"a\",envoy_response_code_class=\"5\"";
const A: &str = "envoy_cluster_name=\"a\"";

/// Requests per tick of service `a`.
fn requests(text: String, tick: u32) -> Vec<(i64, f64)> {
    let recording = convert(&(text + "# EOF\n"), tick).unwrap();
    let ticks = recording.ticks.iter().filter_map(|tick| Some((tick.t, tick.services.get("a")?.requests)));
    ticks.collect()
}

#[test]
fn starts_counting_at_the_first_scrape() {
    let text = line("xx", "w", OK, 100, 0) + &line("xx", "w", OK, 103, 10) + &line("xx", "w", OK, 110, 20);
    assert_eq!(requests(text, 10), [(10, 3.0), (20, 7.0)]);
}

#[test]
fn counts_the_first_value_of_a_series_born_later() {
    let text = line("healthy", "w", A, 1, 0)
        + &line("healthy", "w", A, 1, 10)
        + &line("healthy", "w", A, 1, 20)
        + &line("xx", "w", BAD, 6, 20);
    assert_eq!(requests(text, 10), [(10, 0.0), (20, 6.0)]);
}

#[test]
fn counts_a_proxy_that_began_within_the_dump_from_zero() {
    let old = line("xx", "w", OK, 1, 0) + &line("xx", "w", OK, 1, 100);
    let young = line("xx", "v", OK, 9, 100) + &line("uptime", "v", "x=\"\"", 30, 100);
    assert_eq!(requests(old.clone() + &young, 100), [(100, 9.0)]);
    let elder = line("xx", "v", OK, 9, 100) + &line("uptime", "v", "x=\"\"", 300, 100);
    assert_eq!(requests(old + &elder, 100), [(100, 0.0)]);
}

#[test]
fn begins_again_at_zero_after_a_restart() {
    let counters = line("xx", "w", OK, 100, 0) + &line("xx", "w", OK, 4, 10);
    assert_eq!(requests(counters, 10), [(10, 4.0)]);
    // The new process has served more than the old one: only its uptime tells.
    let counters = line("xx", "w", OK, 100, 0) + &line("xx", "w", OK, 140, 10);
    let uptimes = line("uptime", "w", "x=\"\"", 5000, 0) + &line("uptime", "w", "x=\"\"", 8, 10);
    assert_eq!(requests(counters + &uptimes, 10), [(10, 140.0)]);
    // One counter that falls takes its cluster with it.
    let counters = line("xx", "w", OK, 100, 0) + &line("xx", "w", OK, 140, 10);
    let errors = line("xx", "w", BAD, 50, 0) + &line("xx", "w", BAD, 2, 10);
    assert_eq!(requests(counters + &errors, 10), [(10, 142.0)]);
}

#[test]
fn begins_again_at_zero_when_a_series_was_gone() {
    let other = (0..4).map(|n| line("healthy", "w", A, 1, n * 10)).collect::<String>();
    let text = line("xx", "w", OK, 100, 0) + &line("xx", "w", OK, 101, 10) + &line("xx", "w", OK, 105, 30);
    assert_eq!(requests(other.clone() + &text, 10), [(10, 1.0), (20, 0.0), (30, 105.0)]);
    // Coming back lower says nothing of the other series.
    let steady = line("xx", "w", BAD, 7, 0)
        + &line("xx", "w", BAD, 7, 10)
        + &line("xx", "w", BAD, 7, 20)
        + &line("xx", "w", BAD, 8, 30);
    for mark in ["", &line("xx", "w", OK, "NaN", 20)] {
        let text = line("xx", "w", OK, 100, 0) + &line("xx", "w", OK, 101, 10) + mark + &line("xx", "w", OK, 5, 30);
        assert_eq!(requests(other.clone() + &text + &steady, 10), [(10, 1.0), (20, 0.0), (30, 6.0)]);
    }
    // Prometheus marks the end of a series with NaN.
    let text = line("xx", "w", OK, 100, 0) + &line("xx", "w", OK, 101, 10) + &line("xx", "w", OK, "NaN", 20);
    assert_eq!(requests(other + &text, 10), [(10, 1.0), (20, 0.0), (30, 0.0)]);
}

#[test]
fn calls_a_missing_scrape_a_gap_and_loses_nothing() {
    let text = line("xx", "w", OK, 100, 0) + &line("xx", "w", OK, 101, 10) + &line("xx", "w", OK, 105, 30);
    assert_eq!(requests(text.clone(), 10), [(10, 1.0), (30, 4.0)]);
    // `up` of 0 is Prometheus saying that it got nothing, and so are the marks that it writes then.
    let down = line("up", "w", "x=\"\"", 0, 20);
    let text = text.replace("105 30", "NaN 20") + &line("healthy", "w", A, 1, 30);
    let text = text + &down + &line("healthy", "w", A, "NaN", 40);
    assert_eq!(requests(text, 10), [(10, 1.0), (30, 0.0)]);
}

#[test]
fn sums_callers_and_leaves_out_inbound_twins() {
    let own = |cluster: &str| format!("envoy_cluster_name=\"{cluster}\",envoy_response_code_class=\"2\"");
    let mut text = String::new();
    for cluster in ["a", "localhost_8080", "self_inbound_dp_main", "kuma_envoy_admin", "ads_cluster", "system_x"] {
        text += &(line("xx", "w", &own(cluster), 10, 0) + &line("xx", "w", &own(cluster), 15, 10));
    }
    text += &(line("xx", "v", &own("a"), 10, 1) + &line("xx", "v", &own("a"), 17, 9));
    text += &line("envoy_cluster_external_upstream_rq_xx", "v", &own("a"), 999, 9);
    let recording = convert(&(text + "# EOF\n"), 10).unwrap();
    assert_eq!(Vec::from_iter(recording.clusters()), ["a"]);
    assert_eq!(sum(&recording, "a", i64::MAX).requests, 12.0);
}

#[test]
fn takes_cumulative_buckets_apart() {
    let bucket = |le: &str, value, time| line("time", "w", &format!("{A},le=\"{le}\""), value, time);
    let mut text = line("xx", "w", OK, 0, 0);
    for (le, values) in [("0.5", [10, 11, 5]), ("5", [10, 14, 6]), ("+Inf", [20, 26, 7])] {
        for (time, value) in (0..).step_by(10).zip(values) {
            text += &bucket(le, value, time);
        }
    }
    let recording = convert(&(text + "# EOF\n"), 10).unwrap();
    assert_eq!(recording.header.edges_ms, [0.5, 5.0]);
    let buckets = recording.ticks.iter().map(|tick| tick.services["a"].buckets.clone().unwrap());
    assert_eq!(Vec::from_iter(buckets), [[1.0, 3.0, 2.0], [5.0, 1.0, 1.0]]);
}

#[derive(Debug, Clone)]
enum Event {
    Serve(u32),
    Fail(u32),
    RestartProxy,
    RemoveCluster,
    MissScrape,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..50_u32).prop_map(Event::Serve),
        2 => (1..5_u32).prop_map(Event::Fail),
        1 => Just(Event::RestartProxy),
        1 => Just(Event::RemoveCluster),
        1 => Just(Event::MissScrape),
    ];
    prop::collection::vec(event, 1..60)
}

proptest! {
    /// A proxy that loses nothing between a scrape and the restart after it: every request is counted, in one tick, once.
    #[test]
    fn counts_every_request_through_births_and_resets(events in events(), uptimes: bool) {
        let (mut good, mut bad) = (0_u32, 0_u32);
        let (mut since, mut total, mut errors) = (-1000_i64, 0_u32, 0_u32);
        let mut text = line("healthy", "w", A, 1, 0) + &line("uptime", "w", "x=\"\"", 1000, 0);
        text += &line("xx", "other", &OK.replace("\"a\"", "\"b\""), 1, 0);
        let mut unseen = false;
        for (event, time) in events.iter().zip((20_i64..).step_by(20)) {
            match event {
                Event::Serve(more) => { good += more; total += more; }
                Event::Fail(more) => { bad += more; total += more; errors += more; }
                // What no scrape saw is lost with the process, for us as for anyone: look first.
                Event::RestartProxy if !unseen => { (good, bad, since) = (0, 0, time - 12); }
                Event::RemoveCluster if !unseen => {
                    (good, bad) = (0, 0);
                    text += &line("uptime", "w", "x=\"\"", time - since, time);
                    continue;
                }
                Event::MissScrape => { unseen = true; continue }
                _ => {}
            }
            unseen = false;
            text += &line("healthy", "w", A, 1, time);
            // Without an uptime, a restart shows only if a counter falls, so let it fall.
            if uptimes || matches!(event, Event::RestartProxy) {
                text += &line("uptime", "w", "x=\"\"", time - since, time);
            }
            if good > 0 { text += &line("xx", "w", OK, good, time); }
            if bad > 0 { text += &line("retry", "w", BAD, bad, time); }
        }
        let recording = convert(&(text + &line("healthy", "w", A, 1, 2000) + &line("healthy", "w", A, 1, 2020) + "# EOF\n"), 20).unwrap();
        let counted = sum(&recording, "a", i64::MAX);
        prop_assert_eq!((counted.requests, counted.errors), (f64::from(total), f64::from(errors)));
    }

    #[test]
    fn reads_back_what_it_wrote(ticks in prop::collection::vec(tick(), 0..8)) {
        let mut t = 0;
        let ticks: Vec<Tick> = ticks.into_iter().map(|(gap, services)| { t += gap; Tick { t, services } }).collect();
        let recording = Recording { header: header(), ticks };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sluice.gz");
        recording.save(&path).unwrap();
        prop_assert_eq!(Recording::open(&path).unwrap(), recording);
    }

    #[test]
    fn survives_any_dump(text in "(envoy_cluster_upstream_rq_xx|up|\\{|\\}|instance=\"|mesh=\"|default|[\",\\\\ \n=a01.]|# EOF){0,40}") {
        let _ = convert(&text, 30);
    }

    #[test]
    fn recognises_every_cut(at in 0.0..1.0_f64) {
        let whole = fs::read(kuma("fault-24m.sluice.gz")).unwrap();
        let cut = &whole[..(whole.len() as f64 * at) as usize];
        let error = open(cut).unwrap_err();
        prop_assert!(["cut short", "is empty", "not a sluice recording"].iter().any(|why| error.contains(why)), "{}", error);
    }

    #[test]
    fn recognises_every_flipped_byte(at in 0.0..1.0_f64, flip in 1..=255_u8) {
        let mut bytes = fs::read(kuma("fault-24m.sluice.gz")).unwrap();
        let at = (bytes.len() as f64 * at) as usize;
        // The gzip header says when and where the file was made, which nobody relies on.
        prop_assume!(at >= 10);
        bytes[at] ^= flip;
        prop_assert!(open(&bytes).is_err());
    }
}

fn header() -> Header {
    let created = "2026-11-25T00:00:00Z".parse().unwrap();
    Header {
        tick: 30,
        mesh: "default".into(),
        source: "here".into(),
        created,
        from: vec!["web".into()],
        edges_ms: vec![0.5, 5.0],
    }
}

fn tick() -> impl Strategy<Value = (i64, BTreeMap<String, ServiceCounts>)> {
    let class = || prop::array::uniform5(0..10_000_u32);
    let number = || (0..1_000_000_u32).prop_map(|n| f64::from(n) / 8.0);
    let counts =
        (class(), class(), prop::option::of(prop::collection::vec(number(), 3)), prop::option::of(0..9_u32), number());
    let counts = counts.prop_map(|(answers, retried, buckets, replicas, score)| {
        let (answers, retried) = (answers.map(f64::from), retried.map(f64::from));
        ServiceCounts {
            requests: answers.iter().chain(&retried).sum(),
            errors: answers[4] + retried[4],
            answers: Some(answers),
            retried: Some(retried),
            buckets,
            replicas: replicas.map(|healthy| [f64::from(healthy), 9.0]),
            scores: BTreeMap::from([("quality".into(), Counts { n: score + 1.0, x: score })]),
        }
    });
    (30..100_i64, prop::collection::btree_map("\\PC{1,12}", counts, 0..4))
}

// Hostile dumps.

#[test]
fn names_the_line_and_the_remedy_of_a_bad_dump() {
    let good = line("xx", "w", OK, 1, 10);
    let wrong = |text: String| convert(&text, 30).unwrap_err();
    let errors = [
        wrong(good.clone()),
        wrong(good.clone() + "# EOF\n" + &good),
        wrong(good.clone() + &good + "# EOF\n"),
        wrong(good.clone() + &line("xx", "w", OK, 1, 9.5) + "# EOF\n"),
        wrong(line("xx", "w", OK, "+Inf", 10) + "# EOF\n"),
        wrong(line("xx", "w", OK, -1, 10) + "# EOF\n"),
        wrong(line("xx", "w", &OK.replace('2', "x"), 1, 10) + "# EOF\n"),
        wrong(line("time", "w", &format!("{A},le=\"fast\""), 1, 10) + "# EOF\n"),
        wrong(line("xx", "w", OK, 1, 10) + &line("time", "w", &format!("{A},le=\"5\""), 1, 10) + "# EOF\n"),
        wrong(line("xx", "w", OK, 1, "") + "# EOF\n"),
        wrong(line("xx", "w", OK, 1, 1_795_560_680_317_i64) + "# EOF\n"),
        wrong(line("xx", "w", OK, 1, 10).replace("default", "other") + "# EOF\n"),
        wrong(line("healthy", "w", A, 1, 10) + "# EOF\n"),
        wrong(line("xx", "w", OK, "NaN", 10) + "# EOF\n"),
        wrong("# EOF\n".into()),
        wrong(String::new()),
        wrong("x".repeat(2 << 20)),
        wrong((0..2).map(|t| line("xx", "w", OK, t, t * 1_000_000_000)).collect::<String>() + "# EOF\n"),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r#"
    dump: is cut short: it does not end with `# EOF`; copy or dump it again
    dump:3: there is something after `# EOF`; keep one dump per file
    dump:2: this series is there twice at this time; dump it again, each series once and in order
    dump:2: the clock of this series goes backwards, by 500 ms; dump it again, each series once and in order
    dump:1: the value is inf, not a finite count of zero or more; take this series out of the dump, or find out who wrote it
    dump:1: the value is -1, not a finite count of zero or more; take this series out of the dump, or find out who wrote it
    dump:1: `envoy_response_code_class` is `x`, not 1 to 5; dump Envoy's own metrics, with all their labels
    dump:1: `le` is `fast`, not a bucket edge; dump Envoy's own metrics, with all their labels
    dump: has histograms without the bucket `+Inf`; dump every `le`
    dump:1: the line has no timestamp; a scrape alone has no history; dump one with `promtool tsdb dump-openmetrics`
    dump:1: the timestamp `1795560680317` is not a time in seconds; timestamps are seconds since 1970, with a fraction
    dump: has no outbound cluster of mesh `default`; choose `--mesh` from other
    dump: has clusters but no `envoy_cluster_upstream_rq_xx`: nobody made a request, or nobody kept count; set the MeshMetric profile to Basic or All, and dump that family too
    dump: marks every series as ended and has no value; dump a longer time
    dump: has no outbound cluster of any mesh; dump `envoy_cluster_.*`, `envoy_server_uptime` and `up`
    dump: is cut short: it does not end with `# EOF`; copy or dump it again
    dump:1: the line is longer than 1048576 bytes; check that this is the right file
    dump: has 33333335 ticks of 1 clusters, more than 2000000 in all; use a longer `--tick`, fewer callers with `--from`, or a shorter dump
    "#);
    let folder = tempfile::tempdir().unwrap();
    assert!(counting::openmetrics(folder.path(), &options(30), &mut |_| {}).is_err());
}

#[test]
fn knows_one_series_by_its_labels_in_any_order() {
    let reordered = line("xx", "w", "envoy_response_code_class=\"2\",envoy_cluster_name=\"a\"", 1, 10);
    let error = convert(&(line("xx", "w", OK, 1, 10) + &reordered + "# EOF\n"), 30).unwrap_err();
    assert_eq!(error, "dump:2: this series is there twice at this time; dump it again, each series once and in order");
}

#[test]
fn reads_a_dump_whatever_its_order_and_compression() {
    let text: String = (0..5).map(|t| line("xx", "w", OK, 3 * t, 10 * t) + &line("xx", "w", BAD, t, 10 * t)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.gz");
    fs::write(&path, gzip(format!("{text}# EOF\n").as_bytes())).unwrap();
    let zipped = counting::openmetrics(&path, &options(10), &mut |_| {}).unwrap();
    let mut sorted: Vec<&str> = text.lines().collect();
    sorted.sort_by_key(|line| line.split(' ').next());
    let plain = convert(&(sorted.join("\r\n") + "\n# EOF"), 10).unwrap();
    assert_eq!(zipped.ticks, plain.ticks);
    assert_eq!(sum(&plain, "a", i64::MAX).requests, 16.0);
}

// Hostile recordings.

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn open(bytes: &[u8]) -> Result<Recording, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, bytes).unwrap();
    let place = format!("{}/", folder.path().display());
    Recording::open(&path).map_err(|error| error.to_string().replace(&place, ""))
}

/// A recording by hand, with a footer that fits.
fn by_hand(lines: &[&str]) -> String {
    use sha2::Digest;
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let sha256 = hex::encode(sha2::Sha256::digest(&text));
    format!("{text}{}\n", json!({"end": {"ticks": lines.len() - 1, "sha256": sha256}}))
}

const HEADER: &str = r#"{"format":"sluice-recording","version":1,"tick":30,"mesh":"default","source":"hand","created":"2026-11-25T00:00:00Z","edges_ms":[1,5],"weather":"fine"}"#;

#[test]
fn reads_a_recording_made_by_hand() {
    let text =
        by_hand(&[HEADER, r#"{"t":30,"services":{"a":{"requests":2,"errors":1}}}"#, r#"{"t":90,"services":{}}"#]);
    let recording = open(text.as_bytes()).unwrap();
    assert_eq!(recording.ticks.len(), 2);
    assert_eq!(open(&gzip(text.as_bytes())).unwrap(), recording);
}

#[test]
fn names_the_line_and_the_remedy_of_a_bad_recording() {
    let service = |counts: &str| by_hand(&[HEADER, &format!(r#"{{"t":30,"services":{{"a":{counts}}}}}"#)]);
    let (one, two) = (r#"{"t":30,"services":{}}"#, r#"{"t":60,"services":{}}"#);
    let good = by_hand(&[HEADER, one, two]);
    let without_footer = |text: &str| text.lines().take(3).map(|line| format!("{line}\n")).collect::<String>();
    let texts = [
        String::new(),
        "hello\n".into(),
        r#"{"format":"other"}"#.into(),
        HEADER.replace("\"version\":1", "\"version\":2"),
        HEADER.replace("\"version\":1", "\"version\":0"),
        HEADER.replace("\"tick\":30", "\"tick\":0") + "\n",
        HEADER.replace("[1,5]", "[5,1]") + "\n",
        HEADER.replace("2026-11-25T00:00:00Z", "today") + "\n",
        HEADER.replace("\"mesh\"", "\"mash\"") + "\n",
        HEADER.replace("\"tick\":30", "\"tick\":30,\"tick\":60") + "\n",
        without_footer(&good),
        good[..good.len() - 1].into(),
        good.replace("\"t\":60", "\"t\":61"),
        good.replace("\"ticks\":2", "\"ticks\":3"),
        good.clone() + "{}\n",
        by_hand(&[HEADER, two, one]),
        by_hand(&[HEADER, one, one]),
        by_hand(&[HEADER, one, r#"{"t":59,"services":{}}"#]),
        by_hand(&[HEADER, r#"{"t":30,"services":{"a":{"requests":1,"errors":0},"a":{"requests":2,"errors":0}}}"#]),
        by_hand(&[HEADER, r#"{"t":30}"#]),
        by_hand(&[HEADER, r#"{"t":30.5,"services":{}}"#]),
        service(r#"{"requests":1,"errors":NaN}"#),
        service(r#"{"requests":1e999,"errors":0}"#),
        service(r#"{"requests":-1,"errors":0}"#),
        service(r#"{"requests":null,"errors":0}"#),
        service(r#"{"requests":1,"errors":2}"#),
        service(r#"{"requests":1}"#),
        service(r#"{"requests":1,"errors":0,"retries":1}"#),
        service(r#"{"requests":1,"errors":0,"answers":[0,2,0,0,0],"retried":[0,0,0,0,0]}"#),
        service(r#"{"requests":1,"errors":0,"answers":[0,1,0,0,0]}"#),
        service(r#"{"requests":1,"errors":0,"buckets":[1]}"#),
        service(r#"{"requests":1,"errors":0,"buckets":[1,0,-1]}"#),
        service(r#"{"requests":1,"errors":0,"replicas":[2,1]}"#),
        service(r#"{"requests":1,"errors":0,"scores":{"quality":[1,2]}}"#),
        service(&format!("{}1{}", "[".repeat(500), "]".repeat(500))),
    ];
    let mut errors: Vec<String> = texts.iter().map(|text| open(text.as_bytes()).unwrap_err()).collect();
    errors.push(open(&gzip(good.as_bytes())[..60]).unwrap_err());
    errors.push(open(b"\xff\xfe\n").unwrap_err());
    insta::assert_snapshot!(errors.join("\n"), @r#"
    file: is empty; copy or record it again
    file:1: is not a sluice recording; make one with `sluice record`
    file:1: is not a sluice recording; make one with `sluice record`
    file:1: made by a newer sluice: it is version 2, and this one reads version 1; read it with a newer sluice, or record it again with this one
    file:1: the header names no version that was ever written; record it again, or repair whatever wrote it
    file:1: `tick` is 0 seconds, outside 1 to 86400; record it again, or repair whatever wrote it
    file:1: `edges_ms` are not growing numbers, at most 1000 of them; record it again, or repair whatever wrote it
    file:1: `created` is not a time such as 2026-11-24T23:06:21Z; record it again, or repair whatever wrote it
    file:1: the header is wrong: missing field `mesh`, column 151; record it again, or repair whatever wrote it
    file:1: the header is wrong: duplicate field `tick`, column 57; record it again, or repair whatever wrote it
    file: is cut short: there is no footer after 2 ticks; copy or record it again
    file:4: the file is cut short in the middle of this line; copy or record it again
    file:4: the checksum differs: the file was changed after it was written; copy or record it again
    file:4: the footer counts 3 ticks, the file has 2; copy or record it again
    file:5: there is something after the footer; keep one recording per file
    file:3: the clock goes backwards, from 60 to 30; record it again, or repair whatever wrote it
    file:3: tick 30 is there twice; record it again, or repair whatever wrote it
    file:3: tick 59 overlaps the one before: it ends 29 s later, a tick is 30 s; record it again, or repair whatever wrote it
    file:2: the line is wrong: `a` is there twice, column 80; record it again, or repair whatever wrote it
    file:2: the line is neither a tick (`t`, `services`) nor a footer (`end`); record it again, or repair whatever wrote it
    file:2: the line is wrong: invalid type: floating point `30.5`, expected i64, column 9; record it again, or repair whatever wrote it
    file:2: the line is wrong: expected value, column 48; record it again, or repair whatever wrote it
    file:2: the line is wrong: number out of range, column 41; record it again, or repair whatever wrote it
    file:2: `a`: `requests` is -1, not a finite count of zero or more; record it again, or repair whatever wrote it
    file:2: the line is wrong: invalid type: null, expected f64, column 40; record it again, or repair whatever wrote it
    file:2: `a`: 2 errors in 1 requests; record it again, or repair whatever wrote it
    file:2: the line is wrong: missing field `errors`, column 38; record it again, or repair whatever wrote it
    file:2: the line is wrong: unknown field `retries`, expected one of `requests`, `errors`, `answers`, `retried`, `buckets`, `replicas`, `scores`, column 58; record it again, or repair whatever wrote it
    file:2: `a`: `answers` and `retried` do not sum to `requests` and `errors`; record it again, or repair whatever wrote it
    file:2: `a`: `answers` and `retried` come together or not at all; record it again, or repair whatever wrote it
    file:2: `a`: 1 buckets for 2 edges; there is one more than edges; record it again, or repair whatever wrote it
    file:2: `a`: `buckets` is -1, not a finite count of zero or more; record it again, or repair whatever wrote it
    file:2: `a`: more healthy replicas than replicas; record it again, or repair whatever wrote it
    file:2: `a`: the values of `quality` are not in 0 to 1; record it again, or repair whatever wrote it
    file:2: the line is wrong: invalid type: sequence, expected f64, column 25; record it again, or repair whatever wrote it
    file:1: is cut short: its compressed data ends too early; copy or record it again
    file:1: the line is not UTF-8 text; check that this is the right file, plain text or gzip
    "#);
}

#[test]
fn does_not_unfold_a_small_file_without_end() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(HEADER.as_bytes()).unwrap();
    let nothing = vec![b' '; 1 << 20];
    (0..20).for_each(|_| gzip.write_all(&nothing).unwrap());
    let bytes = gzip.finish().unwrap();
    assert_eq!(
        open(&bytes).unwrap_err(),
        "file:1: the line is longer than 16777216 bytes; check that this is the right file"
    );
}

#[test]
fn leaves_no_file_when_there_is_no_folder() {
    let error = Writer::create(Path::new("no/such/folder/a.gz"), &header()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "no/such/folder/a.gz: cannot be written: its folder does not exist; create the folder first"
    );
}

// Questions.

#[test]
fn answers_with_gaps_and_sums() {
    let ticks = [
        r#"{"t":30,"services":{"llm-v1":{"requests":10,"errors":1,"buckets":[1,2,3],"replicas":[2,3]},"llm-v2":{"requests":0,"errors":0}}}"#,
        r#"{"t":60,"services":{"kri_msvc_default_z__llm-v1_80":{"requests":5,"errors":1,"replicas":[3,3]},"kri_msvc_default_z__llm-v1_http":{"requests":7,"errors":2,"replicas":[2,2]},"llm-v2":{"requests":1,"errors":1,"buckets":[0,0,1],"replicas":[1,1],"scores":{"quality":[4,3]}}}}"#,
        r#"{"t":90,"services":{}}"#,
    ];
    let text = by_hand(&[&[HEADER], ticks.as_slice()].concat());
    let metrics = Metrics::Recording(open(text.as_bytes()).unwrap());
    let objectives = vec![
        Objective::Errors,
        Objective::Slow { over: Duration::from_millis(2) },
        Objective::Score { name: "quality".into() },
    ];
    let ask = |from, to| metrics.samples(&Question { objectives: objectives.clone(), ..question(from, to) }).unwrap();
    let answer = ask(0, 90);
    let samples = answer.samples.iter().map(|sample| serde_json::to_string(sample).unwrap() + "\n").collect::<String>();
    insta::assert_snapshot!(samples, @r#"
    {"t":30,"signals":{"errors":{"canary":[0.0,0.0],"stable":[10.0,1.0]},"quality":{},"slow":{"stable":[6.0,5.0]}}}
    {"t":60,"signals":{"errors":{"canary":[1.0,1.0],"stable":[12.0,3.0]},"quality":{"canary":[4.0,3.0]},"slow":{"canary":[1.0,1.0]}},"replicas":{"canary":1.0,"stable":3.0}}
    {"t":90,"signals":{"errors":{},"quality":{},"slow":{}}}
    "#);
    assert_eq!(answer.notes, [Note::Edge { over: Duration::from_millis(2), edge_ms: 1.0 }]);
    let times = |answer: sluice_bot::metrics::Answer| answer.samples.iter().map(|sample| sample.t).collect::<Vec<_>>();
    assert_eq!(times(ask(30, 60)), [60]);
    assert_eq!(times(ask(60, 30)), [0_i64; 0]);
}

#[test]
fn tells_an_unknown_service_from_a_quiet_one() {
    let text = by_hand(&[HEADER, r#"{"t":30,"services":{"llm-v1":{"requests":1,"errors":0}}}"#]);
    let metrics = Metrics::Recording(open(text.as_bytes()).unwrap());
    let answer = metrics.samples(&question(0, 30)).unwrap();
    assert_eq!(answer.samples[0].signals["errors"].canary, None);
    assert_eq!(answer.notes[0].to_string(), "`llm-v2` was never seen in mesh `default`; seen were llm-v1");
}

#[test]
fn refuses_questions_without_sense() {
    let metrics = Metrics::Recording(open(by_hand(&[HEADER]).as_bytes()).unwrap());
    let ask = |question: Question| metrics.samples(&question).unwrap_err().to_string();
    let same = Question { canary: Service::named("default", "llm-v1"), ..question(0, 1) };
    assert_eq!(ask(same), "cannot ask the mesh: `llm-v1` is both the stable arm and the canary");
    let text = by_hand(&[HEADER, r#"{"t":30,"services":{"kri_msvc_default_z__llm_http":{"requests":1,"errors":0}}}"#]);
    let port = |port: &str| Service { port: Some(port.into()), ..Service::named("default", "llm") };
    let ports = Question { stable: port("8080"), canary: port("8081"), ..question(0, 1) };
    let error = Metrics::Recording(open(text.as_bytes()).unwrap()).samples(&ports).unwrap_err().to_string();
    let wanted = "`kri_msvc_default_z__llm_http` may be `llm:8080` as well as `llm:8081`; tell them apart by name";
    assert_eq!(error, format!("cannot ask the mesh: {wanted}"));
    for objectives in [vec![Objective::Errors, Objective::Errors], vec![Objective::Score { name: "slow".into() }]] {
        assert!(ask(Question { objectives, ..question(0, 1) }).starts_with("cannot ask the mesh: two objectives"));
    }
}
