//! Three replicas, 200 writers at once, and kills in between: what moved is what the ledgers say, and never more than may.
//!
//! The replicas are processes beside a real API server, behind a proxy that stands for their Service. Two of them and the
//! API server are killed without a word while the writers write; what is left has to sort out what became of everything
//! that was admitted. Then etcd's own history is held against the ledgers and against the limits.
//!
//! `SLUICE_RACE_SEEDS=20 cargo test -p sluice-webhook --test e2e_race -- --nocapture` runs 20 seeds instead of 2 and
//! prints a line for each. A seed decides who writes what when, and when what is killed; the rest is up to the machine.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod race {
    pub(crate) mod account;
    pub(crate) mod scene;
    pub(crate) mod stage;
    pub(crate) mod writer;
}
mod support {
    pub(crate) mod certificates;
    pub(crate) mod cluster;
    pub(crate) mod etcd;
    pub(crate) mod http;
    pub(crate) mod process;
    pub(crate) mod proxy;
}

use race::account::{self, Tally};
use race::scene::SUBJECTS;
use race::stage::{REPLICAS, Stage};
use race::writer::{self, Entry, Journal, Outcome};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::etcd;
use tokio::time::sleep;

const WRITERS: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_further_than_it_may_whoever_is_killed() {
    let seeds = std::env::var("SLUICE_RACE_SEEDS").map_or(2, |seeds| seeds.parse().unwrap());
    let mut stage = Stage::new().await;
    let mut problems = Vec::new();
    println!(
        "seed | admitted (forward) | denied | refused by another | conflicts | unknown | fullest window/cap | outstanding | s"
    );
    let mut passed = [0; SUBJECTS.len()];
    for seed in 1..=seeds {
        let (fullest, found) = race(&mut stage, seed).await;
        passed.iter_mut().zip(fullest).for_each(|(passed, fullest)| *passed = fullest.max(*passed));
        problems.extend(found.into_iter().map(|problem| format!("seed {seed}: {problem}")));
    }
    // A webhook that lets nothing pass would be no use. In one race a reservation of a replica that was killed may stand
    // in the way of all others until its lease is over.
    for (subject, passed) in SUBJECTS.iter().zip(passed) {
        // Quiet times leave time for a few steps only.
        let least = if subject.quiet.is_some() { 1 } else { subject.cap / 3 };
        if passed < least {
            problems
                .push(format!("never more than {passed} of {} points of {} were let pass", subject.cap, subject.name));
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// After so long every write was seen.
const SEEN: Duration = Duration::from_secs(20);

/// One race; gives back the fullest window of each subject, and what went wrong.
async fn race(stage: &mut Stage, seed: u64) -> (Vec<u32>, Vec<String>) {
    let start = Instant::now();
    let namespace = format!("race-{seed}");
    let since = etcd::revision(stage.folder()).await;
    stage.prepare(&namespace).await;

    let journal = Arc::new(Journal::default());
    let mut writers = Vec::new();
    for index in 0..WRITERS {
        let client = stage.writer(index);
        writers.push(tokio::spawn(writer::run(client, namespace.clone(), seed << 32 | index, journal.clone())));
    }
    kill(stage, &mut Pcg64::seed_from_u64(seed)).await;
    for writer in writers {
        writer.await.unwrap();
    }
    let settled = stage.settle(&namespace).await;

    let mut problems = Vec::new();
    let mut events = etcd::history(stage.folder(), "kuma.io", since + 1).await;
    events.retain(|event| event.key.contains(&format!("/{namespace}/")));
    let entries = journal.entries();
    let moves = account::moves(&events, &entries, &mut problems);
    // A way back may have passed without a reservation a moment ago: it is in the ledger as soon as it is seen.
    let asked = Instant::now();
    let ledgers = loop {
        let (ledgers, mut differ) = (stage.ledgers(&namespace).await, Vec::new());
        account::compare(&moves, &ledgers, &mut differ);
        if differ.is_empty() || asked.elapsed() > SEEN {
            problems.extend(differ);
            break ledgers;
        }
        sleep(Duration::from_millis(500)).await;
    };
    let tally = account::hold(&moves, &mut problems);
    let outstanding = ledgers.iter().flat_map(|ledger| ledger.outstanding()).count();
    if !settled {
        problems.push(format!("{outstanding} reservations are outstanding although every lease is over"));
    }
    if !problems.is_empty() {
        // A race cannot be played again: all that happened is told.
        moves.iter().for_each(|found| println!("seed {seed}, etcd: {found:?}"));
        let entries = ledgers.iter().flat_map(|ledger| &ledger.entries);
        entries.for_each(|entry| println!("seed {seed}, ledger: {entry:?}"));
    }
    report(seed, &tally, &entries, outstanding, start.elapsed());
    (tally.fullest.iter().map(|(fullest, _)| *fullest).collect(), problems)
}

/// Kills two replicas and the API server; some replicas come back at once, others only for the next race.
async fn kill(stage: &mut Stage, rng: &mut Pcg64) {
    let first = rng.random_range(0..REPLICAS);
    let second = (first + rng.random_range(1..REPLICAS)) % REPLICAS;
    let mut victims = vec![Some(first), Some(second), None];
    let last = victims.remove(rng.random_range(0..3));
    victims.push(last);
    for victim in victims {
        sleep(Duration::from_millis(rng.random_range(300..2500))).await;
        let Some(replica) = victim else {
            stage.restart_server(Duration::from_millis(rng.random_range(0..1500))).await;
            continue;
        };
        stage.kill(replica);
        if rng.random_bool(0.4) {
            stage.start(replica).await;
        }
    }
}

fn report(seed: u64, tally: &Tally, entries: &[Entry], outstanding: usize, took: Duration) {
    let count =
        |outcome| entries.iter().filter(|entry| entry.answer.is_some_and(|(_, found)| found == outcome)).count();
    let fullest: Vec<_> = tally.fullest.iter().map(|(sum, cap)| format!("{sum}/{cap}")).collect();
    println!(
        "{seed:4} | {} ({}) | {} | {} | {} | {} | {} | {outstanding} | {:.0}",
        tally.moves,
        tally.forward,
        count(Outcome::Denied),
        count(Outcome::Unwanted),
        count(Outcome::Conflict),
        count(Outcome::Unknown),
        fullest.join(" "),
        took.as_secs_f64(),
    );
}
