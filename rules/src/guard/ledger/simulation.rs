//! Writers, replicas with skewed clocks and old views, writes that are late, lost or refused, crashes: whatever the
//! order, no window ever holds more than its cap and no reservation outlives its lease.

use super::*;
use crate::guard::tests::{guard, identity, route};
use crate::guard::{Author, NOISE, Outcome, Request, ShiftGuard, judge};
use crate::split::change;
use proptest::prelude::*;
use serde_json::json;

const SKEW: i64 = 30;
const TERMS: Terms =
    Terms { lease: SignedDuration::from_secs(60), tolerance: SignedDuration::from_secs(2 * SKEW), watched: true };
const CAP: f64 = 30.0;
const REPLICAS: usize = 3;
const POLICIES: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    /// A replica is asked to move a policy to a share.
    Ask { replica: usize, policy: usize, canary: u32 },
    /// One of the writes in flight reaches etcd, which compares versions.
    Write(usize),
    /// One of the writes in flight is refused by somebody else.
    Refuse(usize),
    /// Something else than the splits changes.
    Touch(usize),
    /// A replica's watch shows it a policy.
    Watch { replica: usize, policy: usize },
    /// A replica's view of the ledger catches up.
    Refresh(usize),
    /// A replica looks after reservations whose lease is over.
    Tend(usize),
    /// Time passes.
    Wait(i64),
}

struct Object {
    version: u64,
    canary: u32,
}

struct Write {
    policy: usize,
    version: u64,
    canary: u32,
    shift: f64,
    /// When the API server gives the request up.
    until: i64,
}

/// One API server with its routes and one ledger; times are seconds, and true.
struct World {
    now: i64,
    version: u64,
    skews: [i64; REPLICAS],
    objects: Vec<Object>,
    /// The ledger and its own version.
    ledger: (Ledger, u64),
    views: Vec<(Ledger, u64)>,
    in_flight: Vec<Write>,
    /// When a forward shift became real, and how far it went.
    moved: Vec<(i64, f64)>,
    guards: Vec<ShiftGuard>,
    window: i64,
}

fn policy(index: usize) -> Identity {
    Identity { name: format!("route-{index}"), ..identity() }
}

fn splits(canary: u32) -> Vec<Split> {
    route(&json!({"v1": 100 - canary, "v2": canary}))
}

impl World {
    fn new(skews: [i64; REPLICAS], window: i64) -> Self {
        let ledger = (Ledger::new("default", ServiceKey::from("summarize.demo")), 0);
        let caps = json!({"perWindow": {"shift": CAP, "window": format!("{window}s")}});
        Self {
            now: 0,
            version: 10,
            skews,
            objects: (0..POLICIES).map(|_| Object { version: 5, canary: 10 }).collect(),
            views: vec![ledger.clone(); REPLICAS],
            ledger,
            in_flight: Vec::new(),
            moved: Vec::new(),
            guards: vec![guard(json!({"caps": caps}))],
            window,
        }
    }

    fn clock(&self, replica: usize) -> Timestamp {
        let begin: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        begin.saturating_add(SignedDuration::from_secs(self.now + self.skews[replica])).unwrap()
    }

    fn cover(&self) -> Cover {
        let cover = Cover::least("default", ServiceKey::from("summarize.demo"));
        Cover { settle: SignedDuration::from_hours(24), ..cover }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask { replica, policy, canary } => self.ask(*replica, *policy, *canary),
            Step::Write(index) => self.write(*index),
            Step::Refuse(index) if !self.in_flight.is_empty() => {
                self.in_flight.remove(index % self.in_flight.len());
            }
            Step::Refuse(_) => {}
            Step::Touch(policy) => {
                self.version += 1;
                self.objects[*policy].version = self.version;
            }
            Step::Watch { replica, policy } => self.look(*replica, *policy, false),
            Step::Refresh(replica) => self.views[*replica] = self.ledger.clone(),
            Step::Tend(replica) => self.tend(*replica),
            Step::Wait(seconds) => {
                self.now += seconds;
                self.in_flight.retain(|write| write.until > self.now);
            }
        }
    }

    /// Compare and swap: only a view that is the present one may be written.
    fn put(&mut self, replica: usize) -> bool {
        if self.views[replica].1 != self.ledger.1 {
            self.views[replica] = self.ledger.clone();
            return false;
        }
        self.views[replica].1 += 1;
        self.ledger = self.views[replica].clone();
        true
    }

    fn observe(&mut self, replica: usize, index: usize, fresh: bool) -> Noted {
        let (now, policy) = (self.clock(replica), policy(index));
        let Object { version, canary } = &self.objects[index];
        let (version, splits, uid) = (version.to_string(), splits(*canary), format!("u{index}"));
        let sight = Sight {
            policy: &policy,
            uid: &uid,
            version: Some(&version),
            splits: &splits,
            before: None,
            gone: false,
            fresh,
            at: Some(now),
        };
        let settle = self.cover().settle;
        self.views[replica].0.observe(&sight, settle, &TERMS, now)
    }

    fn ask(&mut self, replica: usize, index: usize, canary: u32) {
        let version = self.objects[index].version;
        let change = change(&splits(self.objects[index].canary), &splits(canary));
        if change.shift < NOISE {
            return;
        }
        let request = Request { identity: policy(index), author: Author::Bot, change: change.into() };
        for _ in 0..3 {
            self.observe(replica, index, false);
            let now = self.clock(replica);
            let mut ledger = self.views[replica].0.clone();
            let digest = ledger.digest(&splits(canary));
            let (uid, admitted) = (format!("u{index}"), Some(version.to_string()));
            let mark = Mark { policy: policy(index), uid, version: admitted, digest };
            let mut history = History::default();
            ledger.tell(&mut history, Some(&mark), &TERMS, now);
            let mut verdict = judge(&self.guards, &request, &history, &[], now);
            if verdict.outcome == Outcome::Denied {
                return;
            }
            let record = verdict.records.remove(0);
            let shift = if record.rollback { 0.0 } else { record.shift };
            ledger.reserve(&mark, record, &replica.to_string(), &self.cover(), &TERMS);
            self.views[replica].0 = ledger;
            if self.put(replica) {
                let until = self.now + TERMS.lease.as_secs();
                self.in_flight.push(Write { policy: index, version, canary, shift, until });
                return;
            }
        }
    }

    fn write(&mut self, index: usize) {
        if self.in_flight.is_empty() {
            return;
        }
        let write = self.in_flight.remove(index % self.in_flight.len());
        if self.objects[write.policy].version == write.version {
            self.version += 1;
            self.objects[write.policy] = Object { version: self.version, canary: write.canary };
            self.moved.push((self.now, write.shift));
        }
    }

    /// What the watch or a fresh look shows goes into the ledger, against whatever others write.
    fn look(&mut self, replica: usize, index: usize, fresh: bool) {
        self.views[replica] = self.ledger.clone();
        if self.observe(replica, index, fresh).is_some() {
            self.put(replica);
        }
    }

    fn tend(&mut self, replica: usize) {
        let now = self.clock(replica);
        for index in 0..POLICIES {
            let ours = |entry: &Entry| entry.record.policy == policy(index);
            if self.ledger.0.outstanding().any(|(entry, _)| ours(entry) && entry.is_overdue(&TERMS, now)) {
                self.look(replica, index, true);
            }
        }
    }

    fn fullest(&self) -> f64 {
        let inside = |last: i64| self.moved.iter().filter(move |(at, _)| *at <= last && last - at < self.window);
        let sums = self.moved.iter().map(|(last, _)| inside(*last).map(|(_, shift)| shift).sum());
        sums.fold(0.0, f64::max)
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let ask = || (0..REPLICAS, 0..POLICIES, 0u32..=100);
    prop_oneof![
        6 => ask().prop_map(|(replica, policy, canary)| Step::Ask { replica, policy, canary }),
        // Small steps fill the window to the brim.
        6 => (0..REPLICAS, 0..POLICIES, 5u32..30).prop_map(|(replica, policy, canary)| Step::Ask { replica, policy, canary }),
        6 => (0usize..8).prop_map(Step::Write),
        1 => (0usize..8).prop_map(Step::Refuse),
        1 => (0..POLICIES).prop_map(Step::Touch),
        3 => (0..REPLICAS, 0..POLICIES).prop_map(|(replica, policy)| Step::Watch { replica, policy }),
        2 => (0..REPLICAS).prop_map(Step::Refresh),
        1 => (0..REPLICAS).prop_map(Step::Tend),
        4 => (0i64..90).prop_map(Step::Wait),
        1 => (90i64..900).prop_map(Step::Wait),
    ]
}

fn any_skews() -> impl Strategy<Value = [i64; REPLICAS]> {
    let any = || prop_oneof![-SKEW..=SKEW, Just(-SKEW), Just(SKEW)];
    [any(), any(), any()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_window_holds_more_than_its_cap_and_nothing_leaks(
        skews in any_skews(), window in prop_oneof![Just(20i64), Just(120), Just(600)],
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut world = World::new(skews, window);
        for step in &steps {
            world.step(step);
            prop_assert!(world.fullest() <= CAP + NOISE, "{} of {CAP} after {step:?}", world.fullest());
        }
        // Everybody goes; one replica is left, and time passes.
        world.step(&Step::Wait(60 + 4 * SKEW));
        world.tend(0);
        prop_assert_eq!(world.ledger.0.outstanding().count(), 0);
        // What was written is known, and nothing else counts.
        for index in 0..POLICIES {
            world.look(0, index, true);
        }
        let counted = world.ledger.0.entries.iter().filter(|entry| !entry.record.rollback);
        let counted: f64 = counted.map(|entry| entry.record.shift).sum();
        let moved: f64 = world.moved.iter().map(|(_, shift)| shift).sum();
        prop_assert!((counted - moved).abs() < 1e-6, "{counted} are recorded, {moved} are real");
    }
}

#[test]
fn the_simulation_admits_what_fits() {
    // Without this the property above could hold because nothing ever passes.
    let mut world = World::new([0; REPLICAS], 600);
    for (replica, canary) in [(0, 20), (1, 30), (2, 40), (0, 41)] {
        world.step(&Step::Ask { replica, policy: 0, canary });
        world.step(&Step::Write(0));
    }
    assert!((world.fullest() - CAP).abs() < NOISE);
    assert_eq!(world.objects[0].canary, 40);
}

#[test]
fn a_replica_whose_clock_is_ahead_ages_no_record_early() {
    let mut world = World::new([-SKEW, SKEW, 0], 600);
    world.step(&Step::Ask { replica: 0, policy: 0, canary: 40 });
    world.step(&Step::Write(0));
    world.step(&Step::Watch { replica: 0, policy: 0 });
    world.step(&Step::Wait(599));
    world.step(&Step::Refresh(1));
    world.step(&Step::Ask { replica: 1, policy: 0, canary: 41 });
    assert!(world.in_flight.is_empty());
    // Its clock reads 60 s too much of the other's stamp, and the window is as much longer.
    world.step(&Step::Wait(1));
    world.step(&Step::Ask { replica: 1, policy: 0, canary: 41 });
    assert_eq!(world.in_flight.len(), 1);
}
