//! A simulated mesh: Poisson requests, binomial errors, lognormal latency seen through Envoy's buckets.

use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Binomial, Distribution, Gamma, Poisson};
use rand_pcg::Pcg64;

/// Upper edges of the buckets that matter, in seconds; the last bucket is above the last edge.
pub const EDGES: [f64; 6] = [0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Requests above this edge are slow.
pub const SLOW_EDGE: usize = 3;
const MEDIAN: f64 = 0.8;
const SIGMA: f64 = 0.7;
/// Answers scored a minute and arm.
const LABELS: f64 = 20.0;

/// What is wrong with the canary, or with the world around it.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub rps: f64,
    pub base: f64,
    pub hours: usize,
    /// The canary's ratio of errors at a minute.
    pub errors: fn(usize) -> f64,
    /// The canary's ratio of latency, so many minutes after the last weight change.
    pub latency: fn(usize) -> f64,
    /// Errors of both arms at a minute.
    pub shared: fn(usize) -> f64,
    /// Load at a minute.
    pub load: fn(usize) -> f64,
    /// Variance of the noise on each arm's error rate, and for how many minutes it stays.
    pub burst: (f64, usize),
    /// Chance that a minute's scrape of an arm is missing.
    pub missing: f64,
    /// Part of the weight that is really applied.
    pub applied: f64,
    /// Minutes by which the canary's scrape lags.
    pub skew: usize,
    /// Counters of the canary restart every so many minutes, losing the minute.
    pub resets: usize,
    /// Variance over runs of the canary's true part of the traffic (sticky callers).
    pub sticky: f64,
    /// Latency of both arms at a minute: longer prompts, say.
    pub shared_latency: fn(usize) -> f64,
    /// How many times longer the canary's answers are.
    pub verbosity: f64,
    /// What the canary's mean quality score differs by, and minutes until a label arrives.
    pub quality: Option<(f64, usize)>,
    /// Part of the canary's failures that a gateway's retry hides from the caller.
    pub masked: f64,
    /// Whether the canary is really worse.
    pub harmful: bool,
}

/// One arm in one minute.
#[derive(Clone, Copy, Default)]
pub struct Minute {
    pub n: f64,
    /// Failed attempts, retried ones too.
    pub errors: f64,
    /// Failures that reached the caller.
    pub visible: f64,
    /// Answers above the token budget.
    pub long: f64,
    pub buckets: [f64; 7],
    /// Errors beyond what the stable version would have made, expected.
    pub excess: f64,
}

impl Minute {
    pub fn slow(&self) -> f64 {
        self.buckets[SLOW_EDGE + 1..].iter().sum()
    }

    /// The p99 in seconds, interpolated as Prometheus does.
    pub fn p99(&self) -> f64 {
        let rank = 0.99 * self.n;
        let mut below = 0.0;
        for (i, count) in self.buckets.iter().enumerate() {
            if below + count >= rank && *count > 0.0 {
                let low = if i == 0 { 0.0 } else { EDGES[i - 1] };
                let Some(high) = EDGES.get(i) else { return low };
                return low + (high - low) * (rank - below) / count;
            }
            below += count;
        }
        0.0
    }
}

/// Both arms in one minute; `None` where the scrape is missing.
#[derive(Clone, Copy)]
pub struct Seen {
    pub canary: Option<Minute>,
    pub stable: Option<Minute>,
    /// Scored answers of both arms, `[n, sum]`, where labels arrived.
    pub quality: Option<[(f64, f64); 2]>,
    /// What happened, scraped or not.
    pub excess: f64,
}

pub struct World {
    scenario: Scenario,
    rng: Pcg64,
    minute: usize,
    noise: [f64; 2],
    changed: usize,
    share: f64,
    clump: f64,
    held: Vec<Option<Minute>>,
}

impl World {
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        let mut rng = Pcg64::seed_from_u64(seed);
        let clump = gamma(&mut rng, scenario.sticky);
        Self { scenario, rng, minute: 0, noise: [1.0; 2], changed: 0, share: -1.0, clump, held: Vec::new() }
    }

    /// The next minute with the canary at `share` percent.
    pub fn step(&mut self, share: f64) -> Seen {
        let s = self.scenario;
        if (share - self.share).abs() > 1e-9 {
            self.share = share;
            self.changed = self.minute;
        }
        let t = self.minute;
        self.minute += 1;
        if s.burst.0 > 0.0 && t.is_multiple_of(s.burst.1) {
            self.noise = [gamma(&mut self.rng, s.burst.0), gamma(&mut self.rng, s.burst.0)];
        }
        let total = poisson(&mut self.rng, s.rps * 60.0 * (s.load)(t));
        let part = (share / 100.0 * s.applied * if share < 100.0 { self.clump } else { 1.0 }).clamp(0.0, 1.0);
        let n_canary = binomial(&mut self.rng, total, part);
        let base = s.base * (s.shared)(t);
        let (bad, slow) = ((s.errors)(t), (s.latency)(t - self.changed));
        let both = (s.shared_latency)(t);
        let mut canary = self.arm(n_canary, base * bad * self.noise[0], both * slow, s.verbosity);
        canary.excess = n_canary * base * (bad - 1.0).max(0.0);
        canary.visible -= binomial(&mut self.rng, canary.errors, s.masked);
        let stable = self.arm(total - n_canary, base * self.noise[1], both, 1.0);
        let quality = s.quality.filter(|(_, delay)| t >= *delay && share < 100.0).map(|(drop, _)| {
            [0.83 + drop, 0.83].map(|mean| {
                let n = poisson(&mut self.rng, LABELS).max(1.0);
                (n, binomial(&mut self.rng, n * 7.0, mean) / 7.0)
            })
        });
        let excess = canary.excess;
        let mut canary = (!self.rng.random_bool(s.missing)).then_some(canary);
        let stable = (!self.rng.random_bool(s.missing)).then_some(stable);
        if s.resets > 0 && t % s.resets == s.resets - 1 {
            canary = None;
        }
        if s.skew > 0 {
            self.held.push(canary);
            canary = if t >= s.skew { self.held[t - s.skew] } else { None };
        }
        Seen { canary, stable, quality, excess }
    }

    fn arm(&mut self, n: f64, error: f64, slower: f64, longer: f64) -> Minute {
        let mut minute = Minute { n, ..Minute::default() };
        minute.errors = binomial(&mut self.rng, n, error);
        minute.visible = minute.errors;
        // The budget is the stable version's 95th percentile of a lognormal length with σ = 0.6.
        minute.long = binomial(&mut self.rng, n, 1.0 - normal_cdf(1.645 - longer.ln() / 0.6));
        let (mut left, mut above) = (n, 1.0);
        for (i, edge) in EDGES.iter().enumerate() {
            let beyond = 1.0 - normal_cdf((edge / (MEDIAN * slower)).ln() / SIGMA);
            let inside = binomial(&mut self.rng, left, ((above - beyond) / above).clamp(0.0, 1.0));
            minute.buckets[i] = inside;
            left -= inside;
            above = beyond.max(1e-12);
        }
        minute.buckets[EDGES.len()] = left;
        minute
    }
}

fn poisson(rng: &mut impl Rng, mean: f64) -> f64 {
    if mean <= 0.0 { 0.0 } else { Poisson::new(mean).map_or(0.0, |d| d.sample(rng)) }
}

pub fn binomial(rng: &mut impl Rng, n: f64, p: f64) -> f64 {
    if n <= 0.0 { 0.0 } else { Binomial::new(n as u64, p.clamp(0.0, 1.0)).map_or(0.0, |d| d.sample(rng) as f64) }
}

/// Mean 1, variance `v`.
fn gamma(rng: &mut impl Rng, v: f64) -> f64 {
    if v <= 0.0 { 1.0 } else { Gamma::new(1.0 / v, v).map_or(1.0, |d| d.sample(rng)) }
}

/// Abramowitz & Stegun 7.1.26, good to 1.5e-7.
pub fn normal_cdf(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let erf = 1.0 - poly * (-x * x).exp();
    if z >= 0.0 { 0.5 * (1.0 + erf) } else { 0.5 * (1.0 - erf) }
}

/// A good canary at 50 requests a second with 0.5 % errors, watched for six hours.
pub const CALM: Scenario = Scenario {
    name: "",
    rps: 50.0,
    base: 0.005,
    hours: 6,
    errors: |_| 1.0,
    latency: |_| 1.0,
    shared: |_| 1.0,
    load: |_| 1.0,
    burst: (0.0, 1),
    missing: 0.0,
    applied: 1.0,
    skew: 0,
    resets: 0,
    sticky: 0.0,
    shared_latency: |_| 1.0,
    verbosity: 1.0,
    quality: None,
    masked: 0.0,
    harmful: false,
};

/// Everything that is measured.
pub fn scenarios() -> Vec<Scenario> {
    let good = CALM;
    let bad = Scenario { harmful: true, ..CALM };
    let daily = |t: usize| 1.0 + 0.8 * (t as f64 / 1440.0 * std::f64::consts::TAU).sin();
    vec![
        Scenario { name: "no change, 50 rps", ..good },
        Scenario { name: "no change, 50 rps, 24 h", hours: 24, ..good },
        Scenario { name: "no change, base 0.9 %", base: 0.009, ..good },
        Scenario { name: "no change, 2 rps", rps: 2.0, ..good },
        Scenario { name: "no change, 2 rps, 24 h", rps: 2.0, hours: 24, ..good },
        Scenario { name: "no change, 0.5 rps, 24 h", rps: 0.5, hours: 24, ..good },
        Scenario { name: "shared 10-min outage x6", shared: |t| if (60..70).contains(&t) { 6.0 } else { 1.0 }, ..good },
        Scenario { name: "outage x6 in minute 20", shared: |t| if (20..30).contains(&t) { 6.0 } else { 1.0 }, ..good },
        Scenario { name: "load +-80 %, 24 h", load: daily, hours: 24, ..good },
        Scenario { name: "30 % scrapes missing", missing: 0.3, ..good },
        Scenario { name: "bursty errors", burst: (0.5, 1), ..good },
        Scenario { name: "bursty errors, 24 h", burst: (0.5, 1), hours: 24, ..good },
        Scenario { name: "bursts of 5 minutes", burst: (0.5, 5), ..good },
        Scenario { name: "cold cache, 2 min x2.5 slower", latency: |m| if m < 2 { 2.5 } else { 1.0 }, ..good },
        Scenario { name: "counter resets each 10 min", resets: 10, ..good },
        Scenario { name: "clock skew of 1 min", skew: 1, ..good },
        Scenario { name: "sticky sessions", sticky: 0.02, ..good },
        Scenario {
            name: "mix shifts to long prompts in minute 30",
            shared_latency: |t| if t < 30 { 1.0 } else { 1.5 },
            ..good
        },
        Scenario { name: "weight not applied (half)", applied: 0.5, ..good },
        Scenario { name: "errors x1.5", errors: |_| 1.5, ..bad },
        Scenario { name: "errors x2", errors: |_| 2.0, ..bad },
        Scenario { name: "errors x4", errors: |_| 4.0, ..bad },
        Scenario { name: "errors x1.5, 2 rps, 24 h", rps: 2.0, hours: 24, errors: |_| 1.5, ..bad },
        Scenario { name: "errors x2, 2 rps, 24 h", rps: 2.0, hours: 24, errors: |_| 2.0, ..bad },
        Scenario { name: "errors x4, 2 rps", rps: 2.0, errors: |_| 4.0, ..bad },
        Scenario { name: "ramp x1 to x4 in 2 h", errors: |t| 1.0 + 3.0 * (t as f64 / 120.0).min(1.0), ..bad },
        Scenario { name: "x2 from minute 20", errors: |t| if t < 20 { 1.0 } else { 2.0 }, ..bad },
        Scenario { name: "x2 from minute 50", errors: |t| if t < 50 { 1.0 } else { 2.0 }, ..bad },
        Scenario { name: "latency +10 %", latency: |_| 1.1, ..bad },
        Scenario { name: "latency +20 %", latency: |_| 1.2, ..bad },
        Scenario { name: "bursty x2", burst: (0.5, 1), errors: |_| 2.0, ..bad },
        Scenario { name: "bursts of 5 minutes, x2", burst: (0.5, 5), errors: |_| 2.0, ..bad },
        Scenario { name: "one bad pod of ten (x10)", errors: |_| 1.9, ..bad },
        Scenario { name: "two zones, one x4", errors: |_| 2.5, ..bad },
        Scenario { name: "x4, gateway retries hide 80 %", errors: |_| 4.0, masked: 0.8, ..bad },
        Scenario { name: "answers 30 % longer", verbosity: 1.3, ..bad },
        Scenario { name: "quality -3 points, labels 1 h late, 24 h", quality: Some((-0.03, 60)), hours: 24, ..bad },
        Scenario { name: "slow base 0.05 %, x4", base: 0.0005, errors: |_| 4.0, ..bad },
    ]
}
