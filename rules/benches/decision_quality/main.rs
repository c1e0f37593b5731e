//! Decision quality: how often each player cries wolf, what it misses, how long it takes, and what that costs.
//!
//! `cargo bench --bench decision_quality -- [--runs N] [--seed N] [--only TEXT] [--players A,B] [--json]`
//!
//! Players: F11 and F60 are Flagger's rule climbing 5 and 1 points a minute, Argo the measurement rule of Argo Rollouts, K1h
//! and K3h Kayenta's judge every 10 minutes for an hour and hourly for three, `limit` a sequential test that knows the true
//! ratios, `ours` this crate.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod players;
mod world;

use players::{Argo, Clairvoyant, Flagger, Kayenta, Move, Ours, Player};
use world::{Scenario, World, scenarios};

#[derive(Clone, Copy, Default)]
struct Outcome {
    rolled_back: Option<usize>,
    promoted: Option<usize>,
    asked: Option<usize>,
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
        _ => (Box::new(Ours::new(scenario)), 5.0),
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
            Move::Ask => {
                outcome.asked.get_or_insert(minute + 1);
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

/// All runs of one player in one scenario.
struct Cell {
    runs: usize,
    back: Vec<usize>,
    up: Vec<usize>,
    asked: Vec<usize>,
    excess: f64,
}

impl Cell {
    fn new(outcomes: &[Outcome]) -> Self {
        let mut back: Vec<usize> = outcomes.iter().filter_map(|o| o.rolled_back).collect();
        let mut up: Vec<usize> = outcomes.iter().filter_map(|o| o.promoted).collect();
        let mut asked: Vec<usize> = outcomes.iter().filter_map(|o| o.asked).collect();
        back.sort_unstable();
        up.sort_unstable();
        asked.sort_unstable();
        let runs = outcomes.len();
        Self { runs, back, up, asked, excess: outcomes.iter().map(|o| o.excess).sum::<f64>() / runs as f64 }
    }

    fn percent(&self, hits: usize) -> f64 {
        100.0 * hits as f64 / self.runs as f64
    }

    /// The median of minutes to the rollback; `ask 480` where a person is asked instead.
    fn ended(&self) -> String {
        if self.asked.len() > self.back.len() {
            return format!("ask {}", minutes(&self.asked));
        }
        minutes(&self.back)
    }

    /// `0.3 (0.1-0.9)`: percent with Wilson's 95 % interval.
    fn rate(&self, hits: usize) -> String {
        let (low, high) = wilson(hits, self.runs);
        format!("{:.1} ({low:.1}-{high:.1})", self.percent(hits))
    }
}

fn median(sorted: &[usize]) -> Option<usize> {
    sorted.get(sorted.len() / 2).copied()
}

fn minutes(sorted: &[usize]) -> String {
    median(sorted).map_or("-".to_owned(), |minutes| minutes.to_string())
}

struct Arguments {
    runs: usize,
    seed: u64,
    only: String,
    players: String,
    json: bool,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self { runs: 1000, seed: 1, only: String::new(), players: String::new(), json: false };
        let mut measuring = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().expect("a value");
            match argument.as_str() {
                "--bench" => measuring = true,
                "--runs" => read.runs = value().parse().expect("a number"),
                "--seed" => read.seed = value().parse().expect("a number"),
                "--only" => read.only = value(),
                "--players" => read.players = value(),
                "--json" => read.json = true,
                other => panic!("unknown argument {other}"),
            }
        }
        if !measuring {
            // `cargo test --all-targets` starts benchmarks too: a few runs show that this one still works.
            (read.runs, read.only) = (2, "errors x4".to_owned());
        }
        read
    }

    fn plays(&self, name: &str) -> bool {
        self.players.is_empty() || self.players.split(',').any(|one| one == name)
    }
}

fn main() {
    let arguments = Arguments::read();
    let players: Vec<&str> = PLAYERS.into_iter().filter(|name| arguments.plays(name)).collect();
    let mut table: Vec<(Scenario, Vec<Cell>)> = Vec::new();
    for (index, scenario) in scenarios().into_iter().enumerate() {
        if !scenario.name.contains(&arguments.only) {
            continue;
        }
        let mut cells = Vec::new();
        for name in &players {
            let seed = arguments.seed * 1_000_003 + index as u64 * 100_019;
            let one = |i: usize| run(name, &scenario, seed + i as u64);
            let runs = arguments.runs;
            let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
                let threads = 2;
                let parts: Vec<_> = (0..threads)
                    .map(|part| scope.spawn(move || (part..runs).step_by(threads).map(one).collect::<Vec<_>>()))
                    .collect();
                parts.into_iter().flat_map(|part| part.join().expect("a run")).collect()
            });
            let cell = Cell::new(&outcomes);
            if arguments.json {
                println!(
                    "{{\"scenario\":{:?},\"player\":{name:?},\"harmful\":{},\"runs\":{runs},\"rolledBack\":{},\"promoted\":{},\"medianRollback\":{},\"medianPromote\":{},\"excess\":{:.1}}}",
                    scenario.name,
                    scenario.harmful,
                    cell.percent(cell.back.len()),
                    cell.percent(cell.up.len()),
                    median(&cell.back).map_or("null".to_owned(), |m| m.to_string()),
                    median(&cell.up).map_or("null".to_owned(), |m| m.to_string()),
                    cell.excess
                );
            }
            cells.push(cell);
        }
        table.push((scenario, cells));
    }
    if !arguments.json {
        print(&arguments, &players, &table);
    }
}

fn print(arguments: &Arguments, players: &[&str], table: &[(Scenario, Vec<Cell>)]) {
    let ours = players.iter().position(|name| *name == "ours");
    println!("{} runs a cell, seed {}; in brackets Wilson's 95 % interval.\n", arguments.runs, arguments.seed);
    let head = |first: &str, more: &str| {
        println!("| {first} | {} |{more}", players.join(" | "));
        println!("|---|{}{}", "---|".repeat(players.len()), if more.is_empty() { "" } else { "---|---|---|" });
    };
    println!("**The canary is no worse.** Rolled back falsely, %.\n");
    head("scenario", " ours promoted, % | ours minutes to 100 % | ours asked, % |");
    for (scenario, cells) in table.iter().filter(|(scenario, _)| !scenario.harmful) {
        let rates: Vec<String> = cells.iter().map(|cell| cell.rate(cell.back.len())).collect();
        let more = ours.map(|index| {
            let cell = &cells[index];
            format!(" {} | {} | {} |", cell.rate(cell.up.len()), minutes(&cell.up), cell.percent(cell.asked.len()))
        });
        println!("| {} | {} |{}", scenario.name, rates.join(" | "), more.unwrap_or_default());
    }
    println!("\n**The canary is worse.** Promoted all the same, %; then the median of minutes to the rollback.\n");
    head("scenario", "");
    for (scenario, cells) in table.iter().filter(|(scenario, _)| scenario.harmful) {
        let rates: Vec<String> =
            cells.iter().map(|cell| format!("{}, {}", cell.rate(cell.up.len()), cell.ended())).collect();
        println!("| {} | {} |", scenario.name, rates.join(" | "));
    }
    println!("\n**What it costs.** Mean failed requests beyond those of the stable version.\n");
    head("scenario", "");
    for (scenario, cells) in table.iter().filter(|(scenario, _)| scenario.harmful) {
        let costs: Vec<String> = cells.iter().map(|cell| format!("{:.0}", cell.excess)).collect();
        println!("| {} | {} |", scenario.name, costs.join(" | "));
    }
}
