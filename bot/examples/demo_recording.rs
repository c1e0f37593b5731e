//! Makes `testdata/demo/mesh.sluice.gz`: a simulated mesh that answers the bot's moves, beside one that really ran.
//!
//! `cargo run --release --example demo_recording`, after anything that changes what the bot does in the demo.
//!
//! Arrivals, token sizes and the load's shape come from `testdata/demo/traces/`; service times, error rates and faults are
//! made up here. The demo then runs over the recording, so it makes the same moves as long as the engine is the same.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers: a panic tells them what is wrong")]

use rand::SeedableRng;
use rand_distr::{Binomial, Distribution, Poisson};
use rand_pcg::Pcg64;
use sluice_bot::demo::{self, BEGIN, World};
use sluice_bot::metrics::Metrics;
use sluice_bot::metrics::recording::{Header, Recording, ServiceCounts, Tick};
use sluice_rules::canary::Counts;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SEED: u64 = 20_261_124;
const TICK: i64 = 30;

/// One pair of services.
struct Pair {
    rollout: &'static str,
    clusters: [&'static str; 2],
    /// Requests a second over both, on average.
    rps: f64,
    /// How many shifted copies of the trace are laid over each other: many callers, smoother arrivals.
    callers: usize,
    code: bool,
    errors: f64,
    /// Median milliseconds of an answer of average length.
    median: f64,
    replicas: [f64; 2],
    /// What the canary's error rate and median are multiplied by, minutes after the demo began.
    fault: fn(f64) -> (f64, f64),
    /// Mean quality of stable and canary, and answers scored in a tick.
    quality: Option<([f64; 2], f64)>,
}

const NO_FAULT: fn(f64) -> (f64, f64) = |_| (1.0, 1.0);

const PAIRS: [Pair; 6] = [
    Pair {
        rollout: "summarize",
        clusters: ["default_summarize-v1_ai_zone-1_msvc_8080", "default_summarize-v2_ai_zone-1_msvc_8080"],
        rps: 60.0,
        callers: 24,
        code: false,
        errors: 0.004,
        median: 700.0,
        replicas: [8.0, 8.0],
        fault: NO_FAULT,
        quality: None,
    },
    Pair {
        rollout: "chat",
        clusters: ["kri_msvc_default_zone-1_ai_chat-v1_8080", "kri_msvc_default_zone-1_ai_chat-v2_8080"],
        rps: 40.0,
        callers: 16,
        code: false,
        errors: 0.004,
        median: 600.0,
        replicas: [6.0, 4.0],
        fault: |minute| if minute >= 34.0 { (5.0, 1.3) } else { (1.0, 1.0) },
        quality: None,
    },
    Pair {
        rollout: "rerank",
        clusters: ["default_rerank-v1_ai_zone-1_msvc_8080", "default_rerank-v2_ai_zone-1_msvc_8080"],
        rps: 50.0,
        callers: 24,
        code: true,
        errors: 0.003,
        median: 40.0,
        replicas: [8.0, 1.0],
        fault: NO_FAULT,
        quality: None,
    },
    Pair {
        rollout: "translate",
        clusters: ["translate-v1_ai_svc_8080", "translate-v2_ai_svc_8080"],
        rps: 0.03,
        callers: 3,
        code: false,
        errors: 0.004,
        median: 500.0,
        replicas: [2.0, 1.0],
        fault: NO_FAULT,
        quality: None,
    },
    Pair {
        rollout: "classify",
        clusters: ["classify-v1", "classify-v2"],
        rps: 30.0,
        callers: 16,
        code: true,
        errors: 0.003,
        median: 80.0,
        replicas: [4.0, 4.0],
        fault: NO_FAULT,
        quality: Some(([0.83, 0.74], 12.0)),
    },
    Pair {
        rollout: "moderate",
        clusters: ["default_moderate-v1_trust_zone-1_msvc_8080", "default_moderate-v2_trust_zone-1_msvc_8080"],
        rps: 45.0,
        callers: 16,
        code: false,
        errors: 0.004,
        median: 120.0,
        replicas: [5.0, 5.0],
        fault: NO_FAULT,
        quality: None,
    },
];

/// Requests and generated tokens per half minute.
type Trace = Vec<(f64, f64)>;

struct Simulated {
    rng: Pcg64,
    traces: [Trace; 2],
    /// The day's shape, one value for every ten minutes, mean 1.
    day: Vec<f64>,
    really_ran: Recording,
    metrics: Metrics,
    before: BTreeMap<String, f64>,
    next: i64,
}

fn main() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/demo");
    let kuma = demo.join("../metrics/kuma/fault-24m.sluice.gz");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("demo");
    demo::prepare(&out).unwrap();
    let mut world = Simulated::new(&demo.join("traces"), &kuma);
    let summary = demo::run(&out, &mut world, &mut |_| {}).unwrap();
    let Metrics::Recording(recording) = &world.metrics;
    let path: PathBuf = demo.join("mesh.sluice.gz");
    recording.save(&path).unwrap();
    println!("{} ticks to {}", recording.ticks.len(), path.display());
    for story in &summary.report.rollouts {
        println!("{}: {}", story.subject.rollout, story.headline);
    }
}

fn columns(path: &Path) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| line.split(',').map(|field| field.parse().unwrap()).collect()).collect()
}

impl Simulated {
    fn new(traces: &Path, kuma: &Path) -> Self {
        let trace = |name: &str| -> Trace {
            columns(&traces.join(name)).into_iter().map(|row| (row[1], row[3] / row[1].max(1.0))).collect()
        };
        let rates: Vec<f64> = columns(&traces.join("servegen-m-small-day.csv")).into_iter().map(|row| row[1]).collect();
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let really_ran = Recording::open(kuma).unwrap();
        let header = Header {
            source: "demo_recording, and fault-24m.openmetrics.gz".to_owned(),
            from: Vec::new(),
            ..really_ran.header.clone()
        };
        let first = really_ran.ticks[0].t;
        Self {
            rng: Pcg64::seed_from_u64(SEED),
            traces: [trace("azure-llm-2023-conv.csv"), trace("azure-llm-2023-code.csv")],
            day: rates.into_iter().map(|rate| rate / mean).collect(),
            next: first - (first - BEGIN) / TICK * TICK,
            really_ran,
            metrics: Metrics::Recording(Recording { header, ticks: Vec::new() }),
            before: BTreeMap::new(),
        }
    }

    fn tick(&mut self, t: i64, shares: &BTreeMap<String, f64>) -> Tick {
        let real = self.really_ran.ticks.iter().find(|tick| tick.t == t);
        let mut services = real.map(|tick| tick.services.clone()).unwrap_or_default();
        for pair in &PAIRS {
            let share = shares.get(pair.rollout).copied().unwrap_or(0.0);
            self.serve(pair, t, share, &mut services);
        }
        Tick { t, services }
    }

    fn serve(&mut self, pair: &Pair, t: i64, share: f64, services: &mut BTreeMap<String, ServiceCounts>) {
        let minute = (t - BEGIN) as f64 / 60.0;
        let trace = &self.traces[usize::from(pair.code)];
        // Copies of the trace, each begun at another moment, as if several callers behaved like the recorded one.
        let at = (t / TICK) as usize;
        let lag = |caller: usize| (at + caller * 37) % trace.len();
        let arrivals: f64 = (0..pair.callers).map(|caller| trace[lag(caller)].0).sum();
        let usual = trace.iter().map(|(n, _)| n).sum::<f64>() / trace.len() as f64 * pair.callers as f64;
        let tokens: f64 = (0..pair.callers).map(|caller| trace[lag(caller)].1).sum::<f64>() / pair.callers as f64;
        let usual_tokens = trace.iter().map(|(_, tokens)| tokens).sum::<f64>() / trace.len() as f64;
        let hour = self.day[(t / 600) as usize % self.day.len()];
        let mean = pair.rps * TICK as f64 * arrivals / usual * hour;
        let total = Poisson::new(mean.max(1e-6)).unwrap().sample(&mut self.rng);
        let to_canary = self.binomial(total, share / 100.0);
        let (more_errors, slower) = (pair.fault)(minute);
        // Longer answers take longer; a few tokens more or less do not.
        let length = (tokens / usual_tokens).sqrt();
        let arms = [(total - to_canary, 1.0, 1.0), (to_canary, more_errors, slower)];
        for (arm, (n, errors, slower)) in arms.into_iter().enumerate() {
            if arm == 1 && share <= 0.0 {
                continue; // without weight the cluster is gone from the callers
            }
            let bad = self.binomial(n, pair.errors * errors);
            let client = self.binomial(n - bad, 0.008);
            let buckets = self.buckets(n, pair.median * length * slower);
            let replicas = pair.replicas[arm];
            let mut counts = ServiceCounts {
                requests: n,
                errors: bad,
                answers: Some([0.0, n - bad - client, 0.0, client, bad]),
                retried: Some([0.0; 5]),
                buckets: Some(buckets),
                replicas: Some([replicas, replicas]),
                scores: BTreeMap::new(),
            };
            if let Some((means, scored)) = pair.quality {
                let scored = Poisson::new(scored).unwrap().sample(&mut self.rng).min(n);
                let sum: f64 = (0..scored as usize).map(|_| self.binomial(20.0, means[arm]) / 20.0).sum();
                counts.scores.insert("quality".to_owned(), Counts { n: scored, x: (sum * 1e4).round() / 1e4 });
            }
            services.insert(pair.clusters[arm].to_owned(), counts);
        }
    }

    /// Lognormal service times with σ = 0.6, in Envoy's buckets.
    fn buckets(&mut self, n: f64, median: f64) -> Vec<f64> {
        let edges = self.really_ran.header.edges_ms.clone();
        let (mut left, mut above, mut buckets) = (n, 1.0, Vec::new());
        for edge in edges {
            let beyond = 0.5 * erfc((edge / median).ln() / 0.6 / std::f64::consts::SQRT_2);
            let inside = self.binomial(left, ((above - beyond) / above).clamp(0.0, 1.0));
            buckets.push(inside);
            left -= inside;
            above = beyond.max(1e-12);
        }
        buckets.push(left);
        buckets
    }

    fn binomial(&mut self, n: f64, p: f64) -> f64 {
        if n <= 0.0 { 0.0 } else { Binomial::new(n as u64, p.clamp(0.0, 1.0)).unwrap().sample(&mut self.rng) as f64 }
    }
}

impl World for Simulated {
    fn at(&mut self, now: i64, shares: &BTreeMap<String, f64>) -> &Metrics {
        while self.next <= now {
            // What began before the last pass's merges was served under the weights of then.
            let then = if self.next - TICK < now - demo::EVERY { self.before.clone() } else { shares.clone() };
            let tick = self.tick(self.next, &then);
            let Metrics::Recording(recording) = &mut self.metrics;
            recording.header.created = jiff::Timestamp::from_second(tick.t).unwrap();
            recording.ticks.push(tick);
            self.next += TICK;
        }
        self.before = shares.clone();
        &self.metrics
    }
}

/// Complementary error function, Abramowitz & Stegun 7.1.26.
fn erfc(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let poly =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = poly * (-x * x).exp();
    if x >= 0.0 { tail } else { 2.0 - tail }
}
