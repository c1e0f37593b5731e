//! Decision quality: how often each player cries wolf, what it misses, how long it takes, and what that costs.
//!
//! `cargo bench --bench decision_quality -- [--runs N] [--seed N] [--only TEXT] [--players TEXT] [--json]`
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod players;
mod world;

use players::{Argo, Clairvoyant, Flagger, Kayenta, Move, Ours, Player};
use world::{Scenario, World, scenarios};

#[derive(Clone, Copy, Default)]
struct Outcome {
    rolled_back: Option<usize>,
    promoted: Option<usize>,
    excess: f64,
}

const PLAYERS: [&str; 7] = ["F11", "F60", "Argo", "K1h", "K3h", "limit", "ours"];

fn player(name: &str, scenario: &Scenario, seed: u64) -> (Box<dyn Player>, f64) {
    match name {
        "F11" => (Box::new(Flagger { step: 5.0, allowed: 5, failures: 0 }), 5.0),
        "F60" => (Box::new(Flagger { step: 1.0, allowed: 10, failures: 0 }), 1.0),
        "Argo" => (Box::new(Argo::default()), 5.0),
        "K1h" => (Box::new(Kayenta::new(10, 60, seed)), 10.0),
        "K3h" => (Box::new(Kayenta::new(60, 180, seed)), 10.0),
        "limit" => (Box::new(Clairvoyant::new(scenario.errors, (scenario.latency)(30))), 5.0),
        _ => (Box::new(Ours::new()), 5.0),
    }
}

/// One run: to the end of the horizon, promoted harm keeps hurting.
fn run(name: &str, scenario: &Scenario, seed: u64) -> Outcome {
    let (mut player, mut share) = player(name, scenario, seed);
    let mut world = World::new(*scenario, seed);
    let mut outcome = Outcome::default();
    for minute in 0..scenario.hours * 60 {
        let seen = world.step(share);
        outcome.excess += seen.excess;
        if outcome.promoted.is_some() {
            continue;
        }
        match player.play(minute, share, &seen) {
            Move::Rollback => {
                outcome.rolled_back = Some(minute + 1);
                break;
            }
            Move::Share(next) => share = next,
        }
        if share >= 100.0 {
            outcome.promoted = Some(minute + 1);
        }
    }
    outcome
}

/// Wilson's 95 % interval, in percent.
fn wilson(hits: usize, runs: usize) -> (f64, f64) {
    let (n, p, z) = (runs as f64, hits as f64 / runs as f64, 1.96_f64);
    let centre = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 100.0 / (1.0 + z * z / n);
    ((centre - half).max(0.0) * scale, (centre + half) * scale)
}

fn quantile(values: &mut [usize], q: f64) -> Option<usize> {
    values.sort_unstable();
    values.get(((values.len() as f64 * q) as usize).min(values.len().checked_sub(1)?)).copied()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut runs, mut seed, mut only, mut chosen, mut json) = (1000_usize, 1_u64, String::new(), String::new(), false);
    let measuring = std::env::args().any(|argument| argument == "--bench");
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--runs" => runs = value().parse().expect("a number"),
            "--seed" => seed = value().parse().expect("a number"),
            "--only" => only = value(),
            "--players" => chosen = value(),
            "--json" => json = true,
            _ => {}
        }
    }
    if !measuring {
        // `cargo test --all-targets` starts benchmarks too: a few runs show that this one still works.
        (runs, only) = (2, "errors x4".to_owned());
    }
    if !json {
        println!(
            "{runs} runs a cell, seed {seed}; rolled back and promoted in % with Wilson's 95 % interval; minutes are medians (90 % quantile)\n"
        );
        println!(
            "| scenario | player | rolled back | promoted | undecided | min to roll back | min to promote | excess failures |"
        );
        println!("|---|---|---|---|---|---|---|---|");
    }
    for (index, scenario) in scenarios().iter().enumerate() {
        if !scenario.name.contains(&only) {
            continue;
        }
        for name in PLAYERS {
            if !chosen.is_empty() && !chosen.split(',').any(|one| one == name) {
                continue;
            }
            let one = |i: usize| run(name, scenario, seed * 1_000_003 + index as u64 * 100_019 + i as u64);
            let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
                let threads = 2;
                let parts: Vec<_> = (0..threads)
                    .map(|part| scope.spawn(move || (part..runs).step_by(threads).map(one).collect::<Vec<_>>()))
                    .collect();
                parts.into_iter().flat_map(|part| part.join().expect("a run")).collect()
            });
            let mut back: Vec<usize> = outcomes.iter().filter_map(|o| o.rolled_back).collect();
            let mut up: Vec<usize> = outcomes.iter().filter_map(|o| o.promoted).collect();
            let excess = outcomes.iter().map(|o| o.excess).sum::<f64>() / runs as f64;
            let percent = |hits: usize| 100.0 * hits as f64 / runs as f64;
            let undecided = percent(runs - back.len() - up.len());
            let show = |hits: usize| {
                let (low, high) = wilson(hits, runs);
                format!("{:.1} ({low:.1}-{high:.1})", percent(hits))
            };
            let minutes = |values: &mut Vec<usize>| match (quantile(values, 0.5), quantile(values, 0.9)) {
                (Some(median), Some(tail)) => format!("{median} ({tail})"),
                _ => "-".to_owned(),
            };
            if json {
                println!(
                    "{{\"scenario\":{:?},\"player\":{name:?},\"harmful\":{},\"rolledBack\":{},\"promoted\":{},\"medianRollback\":{:?},\"medianPromote\":{:?},\"excess\":{excess:.1}}}",
                    scenario.name,
                    scenario.harmful,
                    percent(back.len()),
                    percent(up.len()),
                    quantile(&mut back, 0.5).unwrap_or(0),
                    quantile(&mut up, 0.5).unwrap_or(0)
                );
            } else {
                println!(
                    "| {} | {name} | {} | {} | {undecided:.1} | {} | {} | {excess:.0} |",
                    scenario.name,
                    show(back.len()),
                    show(up.len()),
                    minutes(&mut back),
                    minutes(&mut up)
                );
            }
        }
    }
}
