//! The judge on a mesh that really ran: counts from its recordings, weights from their timelines.
#![allow(missing_docs, clippy::unwrap_used)]

use serde_json::Value;
use sluice_bot::metrics::{Metrics, Objective, Question, Service};
use sluice_rules::canary::{Call, Policy, Tick};
use sluice_rules::evidence::{Point, replay};
use std::path::Path;
use std::time::Duration;

struct Recorded {
    /// Minute 0, seconds since 1970.
    start: f64,
    points: Vec<Point>,
}

/// Judges a recording tick by tick, with the weights that its timeline says were in force.
fn judged(name: &str) -> Recorded {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/metrics/kuma");
    let timeline = std::fs::read_to_string(folder.join(format!("{name}.timeline.jsonl"))).unwrap();
    let rows: Vec<Value> = timeline.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let start = rows[0]["t"].as_f64().unwrap();
    let weights: Vec<(f64, f64)> = rows
        .iter()
        .filter_map(|row| {
            // The first row says `start, v1=90 v2=10`, later ones carry the weights as numbers that sum to 100.
            let at_start = row["event"].as_str().and_then(|event| event.split_once("v2="));
            let share = at_start.map_or(row["v2"].as_f64(), |(_, v2)| v2.parse().ok())?;
            Some((row["t"].as_f64()?, share))
        })
        .collect();
    let metrics = Metrics::recording(&folder.join(format!("{name}.sluice.gz"))).unwrap();
    let question = Question {
        stable: Service::named("default", "llm-v1"),
        canary: Service::named("default", "llm-v2"),
        objectives: vec![Objective::Errors, Objective::Slow { over: Duration::from_millis(100) }],
        from: start as i64,
        to: i64::MAX,
    };
    let answer = metrics.samples(&question).unwrap();
    let ticks: Vec<Tick> = answer
        .samples
        .into_iter()
        .map(|sample| {
            let begun = sample.t as f64 - 30.0;
            let share = weights.iter().rev().find(|(t, _)| *t <= begun).unwrap_or(&weights[0]).1;
            sample.with_share(share)
        })
        .collect();
    assert!(ticks.len() > 25, "{} ticks", ticks.len());
    Recorded { start, points: replay(&Policy::default(), &ticks).unwrap() }
}

impl Recorded {
    fn minute_of(&self, call: Call) -> Option<f64> {
        let point = self.points.iter().find(|point| point.claim.call == call)?;
        Some((point.t as f64 - self.start) / 60.0)
    }
}

#[test]
fn a_fault_in_minute_12_is_rolled_back_within_three_minutes_and_not_before() {
    let minute = judged("fault-24m").minute_of(Call::Rollback).expect("a rollback");
    println!("fault-24m: fault in minute 12.0, rollback in minute {minute:.1}");
    assert!((12.0..=15.0).contains(&minute), "rolled back in minute {minute:.1}");
}

#[test]
fn a_canary_that_is_worse_from_the_start_is_rolled_back_within_four_minutes() {
    let minute = judged("canary-15m").minute_of(Call::Rollback).expect("a rollback");
    println!("canary-15m: worse from minute 0.0, rollback in minute {minute:.1}");
    assert!(minute <= 4.0, "rolled back in minute {minute:.1}");
}

#[test]
fn a_healthy_mesh_sees_no_rollback_no_harm_and_no_question() {
    let recorded = judged("healthy-32m");
    assert_eq!(recorded.minute_of(Call::Rollback), None);
    assert_eq!(recorded.minute_of(Call::Ask), None);
    for point in &recorded.points {
        for (name, signal) in &point.claim.signals {
            assert!(signal.harm < signal.harm_bound, "{name} harmed at {}", point.t);
        }
    }
}
