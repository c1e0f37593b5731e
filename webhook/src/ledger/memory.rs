//! History in this process.

use super::case::Case;
use super::{Asked, Unavailable};
use crate::world::World;
use jiff::{SignedDuration, Timestamp};
use sluice_rules::guard::{self, Cover, Terms, Verdict};
use sluice_rules::split::ServiceKey;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// History in this process: one clock, and no watch, so that an object's next review tells what became of a change.
#[derive(Debug, Default)]
pub struct Memory {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    ledgers: BTreeMap<Subject, Arc<Mutex<guard::Ledger>>>,
    /// Beyond so many, those in which nothing counts any more are looked for.
    many: usize,
}

type Subject = (String, ServiceKey);

/// One clock only, hence no tolerance.
const TERMS: Terms = Terms { lease: super::LEASE, tolerance: SignedDuration::ZERO, watched: false };

/// Fewer ledgers than this are all kept.
const MANY: usize = 10_000;

impl Memory {
    pub(super) fn admit(&self, asked: &Asked, world: &World) -> Result<Verdict, Unavailable> {
        if Instant::now() >= asked.deadline {
            return Err(Unavailable::Late);
        }
        Ok(self.admit_at(asked, world, asked.now))
    }

    fn admit_at(&self, asked: &Asked, world: &World, now: Timestamp) -> Verdict {
        let case = Case::new(asked, world, &TERMS, "");
        let covers = case.covers();
        let held: Vec<_> = covers.iter().map(|cover| self.ledger(cover, now)).collect();
        // All at once and in one order, so that a change of several destinations sees none of them move meanwhile.
        let mut ledgers: Vec<_> =
            held.iter().map(|ledger| ledger.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        for (ledger, cover) in ledgers.iter_mut().zip(&covers) {
            case.observe(ledger, cover, now);
        }
        let verdict = case.judge(&ledgers.iter().map(|ledger| &**ledger).collect::<Vec<_>>(), now);
        if case.reserves(&verdict) {
            for (ledger, cover) in ledgers.iter_mut().zip(&covers) {
                case.reserve(ledger, cover, &verdict);
            }
        }
        verdict
    }

    fn ledger(&self, cover: &Cover, now: Timestamp) -> Arc<Mutex<guard::Ledger>> {
        let Kept { ledgers, many } = &mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if ledgers.len() > MANY.max(*many) {
            // Nobody holds it, and all of it is older than the longest time a guard may ask about.
            ledgers.retain(|_, ledger| {
                let idle = |ledger: &guard::Ledger| {
                    let age = |entry: &guard::Entry| now.duration_since(entry.record.time);
                    ledger.entries.iter().all(|entry| age(entry) > SignedDuration::from_hours(24 * 366))
                };
                Arc::strong_count(ledger) > 1 || !ledger.lock().is_ok_and(|ledger| idle(&ledger))
            });
            // All of them are looked at: not again before they are twice as many.
            *many = 2 * ledgers.len();
        }
        let subject = (cover.mesh.clone(), cover.destination.clone());
        let new = || Arc::new(Mutex::new(guard::Ledger::new(cover.mesh.clone(), cover.destination.clone())));
        ledgers.entry(subject).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Route, world};
    use super::*;
    use serde_json::json;
    use sluice_rules::guard::{Code, Outcome};

    fn at(seconds: i64) -> Timestamp {
        let begin: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        begin.saturating_add(SignedDuration::from_secs(seconds)).unwrap()
    }

    fn codes(verdict: &Verdict) -> Vec<Code> {
        verdict.causes.iter().map(|cause| cause.code).collect()
    }

    #[test]
    fn the_window_counts_what_was_admitted() {
        let (memory, world) = (Memory::default(), world(json!({"perWindow": {"shift": 20, "window": "1h"}})));
        let mut route = Route::new("summarize", 10);
        for canary in [20, 30] {
            assert_eq!(memory.admit_at(&route.to(canary), &world, at(0)).outcome, Outcome::Allowed);
            route.write(canary);
        }
        let denied = memory.admit_at(&route.to(31), &world, at(3599));
        assert_eq!(codes(&denied), [Code::PerWindow]);
        assert_eq!(memory.admit_at(&route.to(31), &world, at(3600)).outcome, Outcome::Allowed);
    }

    #[test]
    fn a_write_that_never_came_counts_no_more() {
        let (memory, world) = (Memory::default(), world(json!({"perWindow": {"shift": 20, "window": "1h"}})));
        let mut route = Route::new("summarize", 10);
        assert_eq!(memory.admit_at(&route.to(30), &world, at(0)).outcome, Outcome::Allowed);
        assert_eq!(memory.admit_at(&route.to(29), &world, at(1)).outcome, Outcome::Denied, "it may be in flight");
        assert_eq!(memory.admit_at(&route.to(29), &world, at(60)).outcome, Outcome::Allowed, "its lease is over");
        route.touch();
        assert_eq!(memory.admit_at(&route.to(28), &world, at(61)).outcome, Outcome::Allowed, "something else came");
    }

    #[test]
    fn one_apply_that_asks_thrice_counts_once() {
        let (memory, world) = (Memory::default(), world(json!({"perWindow": {"shift": 20, "window": "1h"}})));
        let mut route = Route::new("summarize", 10);
        for _ in 0..3 {
            assert_eq!(memory.admit_at(&route.to(30), &world, at(0)).outcome, Outcome::Allowed);
            route.touch();
        }
    }

    #[test]
    fn a_dry_run_is_judged_and_reserves_nothing() {
        let (memory, world) = (Memory::default(), world(json!({"perWindow": {"shift": 20, "window": "1h"}})));
        let route = Route::new("summarize", 10);
        let dry = Asked { dry_run: true, ..route.to(30) };
        for _ in 0..2 {
            assert_eq!(memory.admit_at(&dry, &world, at(0)).outcome, Outcome::Allowed);
        }
        assert_eq!(memory.admit_at(&Asked { dry_run: true, ..route.to(31) }, &world, at(0)).outcome, Outcome::Denied);
        assert_eq!(memory.admit_at(&route.to(29), &world, at(0)).outcome, Outcome::Allowed);
    }

    #[test]
    fn routes_of_one_destination_share_its_window() {
        let (memory, world) = (Memory::default(), world(json!({"perWindow": {"shift": 20, "window": "1h"}})));
        let (one, two) = (Route::new("one", 10), Route::new("two", 10));
        assert_eq!(memory.admit_at(&one.to(25), &world, at(0)).outcome, Outcome::Allowed);
        assert_eq!(memory.admit_at(&two.to(25), &world, at(0)).outcome, Outcome::Denied);
        assert_eq!(memory.admit_at(&two.to(15), &world, at(0)).outcome, Outcome::Allowed);
    }

    #[test]
    fn a_move_that_passed_beside_the_webhook_is_counted_when_a_review_shows_it() {
        let (memory, world) = (Memory::default(), world(json!({"perWindow": {"shift": 20, "window": "1h"}})));
        let mut route = Route::new("summarize", 10);
        assert_eq!(memory.admit_at(&route.to(11), &world, at(0)).outcome, Outcome::Allowed);
        route.write(11);
        memory.admit_at(&Asked { dry_run: true, ..route.to(12) }, &world, at(1));
        route.write(25);
        assert_eq!(codes(&memory.admit_at(&route.to(32), &world, at(2))), [Code::PerWindow]);
        assert_eq!(memory.admit_at(&route.to(30), &world, at(2)).outcome, Outcome::Allowed);
    }

    #[test]
    fn deleting_and_creating_are_counted() {
        let (memory, world) = (Memory::default(), world(json!({"perWindow": {"shift": 150, "window": "1h"}})));
        let mut route = Route::new("summarize", 10);
        assert_eq!(memory.admit_at(&route.away(), &world, at(0)).outcome, Outcome::Allowed);
        route.remove();
        assert_eq!(codes(&memory.admit_at(&route.created(60), &world, at(1))), [Code::PerWindow]);
    }

    #[test]
    fn what_comes_too_late_is_not_judged() {
        let (memory, world) = (Memory::default(), world(json!({})));
        let asked = Asked { deadline: Instant::now(), ..Route::new("summarize", 10).to(20) };
        assert!(matches!(memory.admit(&asked, &world), Err(Unavailable::Late)));
    }

    #[test]
    fn racing_changes_cannot_exceed_a_cap_together() {
        let (memory, world) = (Memory::default(), world(json!({"perWindow": {"shift": 20, "window": "1h"}})));
        let sum: f64 = std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..16)
                .map(|index| {
                    let (memory, world) = (&memory, &world);
                    scope.spawn(move || {
                        let mut route = Route::new(&format!("r{index}"), 10);
                        let mut sum = 0.0;
                        for canary in 11..30 {
                            if memory.admit(&route.to(canary), world).unwrap().outcome == Outcome::Allowed {
                                route.write(canary);
                                sum += 1.0;
                            }
                        }
                        sum
                    })
                })
                .collect();
            tasks.into_iter().map(|task| task.join().unwrap()).sum()
        });
        assert!((sum - 20.0).abs() < 1e-9, "{sum}");
    }
}
