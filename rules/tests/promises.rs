//! What the decision engine promises, measured on the whole judge.
#![allow(missing_docs, clippy::unwrap_used)]

use rand::SeedableRng;
use rand_distr::{Binomial, Distribution};
use rand_pcg::Pcg64;
use sluice_rules::canary::{Arms, Call, Counts, Judge, Policy, Reason, Tick, Verdict};
use std::collections::BTreeMap;

fn draw(rng: &mut Pcg64, n: f64, p: f64) -> Counts {
    Counts { n, x: Binomial::new(n as u64, p).unwrap().sample(rng) as f64 }
}

fn tick(t: i64, share: f64, errors: Arms) -> Tick {
    Tick { t, share, signals: BTreeMap::from([("errors".to_owned(), errors)]), replicas: None }
}

fn both(canary: Counts, stable: Counts) -> Arms {
    Arms { canary: Some(canary), stable: Some(stable) }
}

/// Runs `runs` canaries at a fixed share for `looks` ticks and counts those for which `hit` was ever true.
fn ever(
    runs: u64,
    looks: i64,
    share: f64,
    policy: &Policy,
    rates: [f64; 2],
    hit: impl Fn(&Verdict, &Judge) -> bool,
) -> u64 {
    let total = 600.0;
    (0..runs)
        .filter(|seed| {
            let mut rng = Pcg64::seed_from_u64(*seed);
            let mut judge = Judge::new(policy.clone()).unwrap();
            let canary = (total * share / 100.0_f64).round();
            (1..=looks).any(|minute| {
                let errors = both(draw(&mut rng, canary, rates[0]), draw(&mut rng, total - canary, rates[1]));
                let verdict = judge.observe(&tick(minute * 60, share, errors)).unwrap();
                hit(&verdict, &judge)
            })
        })
        .count() as u64
}

/// Three standard errors above a promised rate.
fn allowed(promise: f64, runs: u64) -> u64 {
    let n = runs as f64;
    (n * promise + 3.0 * (n * promise * (1.0 - promise)).sqrt()).ceil() as u64
}

#[test]
fn false_rollbacks_stay_below_alpha_over_a_day_of_looks_at_any_base_rate() {
    let policy = Policy { alpha: 0.1, ..Policy::default() };
    let runs = 60;
    for base in [0.005, 0.05, 0.2, 0.4] {
        // Exactly at the edge of what is allowed: 1.1 times the stable rate.
        let hits = ever(runs, 1440, 25.0, &policy, [1.1 * base, base], |verdict, _| verdict.call == Call::Rollback);
        assert!(hits <= allowed(policy.alpha, runs), "base {base}: {hits} of {runs}");
    }
}

#[test]
fn a_canary_as_bad_as_the_margin_is_rarely_called_safe() {
    let policy = Policy { beta: 0.1, alpha: 1e-9, ..Policy::default() };
    let runs = 100;
    for (base, share, margin) in [(0.01, 50.0, 1.25), (0.04, 25.0, 1.5), (0.2, 25.0, 1.5)] {
        let rates = [margin * base, base];
        let hits = ever(runs, 240, share, &policy, rates, |verdict, _| verdict.call == Call::Promote);
        assert!(hits <= allowed(policy.beta, runs), "base {base} at {share} %: {hits} of {runs}");
    }
}

#[test]
fn missing_data_neither_rolls_back_nor_promotes() {
    let mut judge = Judge::new(Policy::default()).unwrap();
    let stable = Counts { n: 2850.0, x: 14.0 };
    let gaps = [
        Arms::default(),
        Arms { canary: None, stable: Some(stable) },
        Arms { canary: Some(Counts { n: 150.0, x: 150.0 }), stable: None },
    ];
    for minute in 1..200 {
        let verdict = judge.observe(&tick(minute * 60, 5.0, gaps[minute as usize % 3])).unwrap();
        assert_eq!(verdict.call, Call::Hold, "minute {minute}: {}", verdict.reason);
        assert!(minute < 20 || matches!(verdict.reason, Reason::Blind(_)));
    }
}

#[test]
fn a_quiet_canary_is_undecided_rather_than_blind() {
    let mut judge = Judge::new(Policy::default()).unwrap();
    for minute in 1..60 {
        let errors = both(Counts { n: 0.0, x: 0.0 }, Counts { n: 20.0, x: 0.0 });
        let verdict = judge.observe(&tick(minute * 60, 5.0, errors)).unwrap();
        assert_eq!(verdict.call, Call::Hold);
        assert!(minute < 20 || matches!(verdict.reason, Reason::Undecided(..)), "{}", verdict.reason);
    }
}

#[test]
fn replays_to_identical_bytes_in_any_order_of_the_signals() {
    let lines = |order: [&str; 3]| -> Vec<Tick> {
        (1..120)
            .map(|minute| {
                let signals: Vec<String> = order
                    .iter()
                    .map(|name| {
                        let x = (minute * name.len()) % 5;
                        format!("\"{name}\":{{\"canary\":[150,{x}],\"stable\":[2850,{}]}}", 10 + x)
                    })
                    .collect();
                let text = format!("{{\"t\":{},\"share\":5,\"signals\":{{{}}}}}", minute * 60, signals.join(","));
                serde_json::from_str(&text).unwrap()
            })
            .collect()
    };
    let judged = |ticks: Vec<Tick>| {
        let points = sluice_rules::evidence::replay(&Policy::default(), &ticks).unwrap();
        serde_json::to_vec(&points).unwrap()
    };
    let first = judged(lines(["errors", "slow", "tokens"]));
    assert_eq!(first, judged(lines(["tokens", "errors", "slow"])));
    assert_eq!(first, judged(lines(["slow", "tokens", "errors"])));
}

#[test]
fn a_weight_that_is_not_applied_asks_a_person() {
    let mut judge = Judge::new(Policy::default()).unwrap();
    let calls: Vec<Call> = (1..60)
        .map(|minute| {
            let errors = both(Counts { n: 150.0, x: 1.0 }, Counts { n: 2850.0, x: 14.0 });
            judge.observe(&tick(minute * 60, 25.0, errors)).unwrap().call
        })
        .collect();
    assert!(calls.contains(&Call::Ask), "5 % of the requests at a weight of 25 % goes unnoticed");
    assert!(!calls.contains(&Call::Promote) && !calls.contains(&Call::Rollback));
}

#[test]
fn what_is_worse_and_too_rare_to_matter_is_not_rolled_back() {
    let mut judge = Judge::new(Policy::default()).unwrap();
    for minute in 1..500 {
        // Ten times the stable rate, and still one bad request in fifty thousand.
        let rare = |every: i64| f64::from(minute % every == 0);
        let errors = both(Counts { n: 10_000.0, x: rare(5) }, Counts { n: 30_000.0, x: rare(17) });
        let verdict = judge.observe(&tick(minute * 60, 25.0, errors)).unwrap();
        assert_ne!(verdict.call, Call::Rollback, "minute {minute}");
    }
}

#[test]
fn one_bad_minute_rolls_nothing_back() {
    let mut judge = Judge::new(Policy::default()).unwrap();
    for minute in 1..60 {
        let x = if minute == 10 { 150.0 } else { f64::from(minute % 4 == 0) };
        let errors = both(Counts { n: 150.0, x }, Counts { n: 2850.0, x: 14.0 });
        let verdict = judge.observe(&tick(minute * 60, 5.0, errors)).unwrap();
        assert_ne!(verdict.call, Call::Rollback, "minute {minute}: {}", verdict.reason);
    }
}

#[test]
fn large_rungs_are_climbed_in_several_writes_without_waiting_again() {
    let mut judge = Judge::new(Policy::default()).unwrap();
    let at = |share: f64, minute: i64, judge: &mut Judge| {
        let canary = Counts { n: 30.0 * share, x: (0.15 * share).round() };
        let stable = Counts { n: 3000.0 - 30.0 * share, x: (15.0 - 0.15 * share).round() };
        judge.observe(&tick(minute * 60, share, both(canary, stable))).unwrap()
    };
    let mut minute = 0;
    let cleared = loop {
        minute += 1;
        let verdict = at(50.0, minute, &mut judge);
        if verdict.call == Call::Promote {
            break verdict;
        }
        assert!(minute < 60, "{}", verdict.reason);
    };
    assert_eq!(cleared.share, 100.0);
    let on_the_way = at(99.0, minute + 1, &mut judge);
    assert_eq!((on_the_way.call, on_the_way.share), (Call::Promote, 100.0));
    assert_eq!(on_the_way.reason, Reason::OnTheWay);
    let mut fresh = Judge::new(Policy::default()).unwrap();
    assert_eq!(at(99.0, 1, &mut fresh).call, Call::Hold, "nothing was cleared on the way to here");
}
