//! Writers, replicas with skewed clocks and old views, objects that are written late, removed and created again, writes
//! that are lost or refused, watches that lag and break: whatever the order, no window ever holds more than its cap, a
//! way back is told from a step forward, and no reservation outlives its lease.

use super::*;
use crate::guard::history::is_rollback;
use crate::guard::tests::{guard, identity, route};
use crate::guard::{Author, NOISE, Outcome, Request, ShiftGuard, judge};
use crate::split::{RuleChange, change};
use proptest::prelude::*;
use serde_json::{Value, json};

const SKEW: i64 = 30;
const TERMS: Terms =
    Terms { lease: SignedDuration::from_secs(60), tolerance: SignedDuration::from_secs(2 * SKEW), watched: true };
const CAP: f64 = 30.0;
const REPLICAS: usize = 3;
const POLICIES: usize = 2;
/// What each policy gives to its canary before anything happens.
const BEGIN: u32 = 10;

#[derive(Debug, Clone)]
enum Step {
    /// A replica is asked to move a policy to a share, or to create it with this share where there is none.
    Ask { replica: usize, policy: usize, canary: u32 },
    /// A replica is asked to create a policy, which may exist.
    Create { replica: usize, policy: usize, canary: u32 },
    /// A replica is asked to delete a policy.
    Delete { replica: usize, policy: usize },
    /// A replica that can read the ledger and not write it is asked to move a policy: a way back passes all the same.
    Unrecorded { replica: usize, policy: usize, canary: u32 },
    /// One of the writes in flight reaches etcd, which compares versions.
    Write(usize),
    /// One of the writes in flight is refused by somebody else.
    Refuse(usize),
    /// One of the writes in flight is refused by its own webhook after all, which gives its reservation back.
    Return(usize),
    /// Something else than the splits changes.
    Touch(usize),
    /// A replica's watch shows it the next change.
    Watch(usize),
    /// A replica's watch breaks: it is shown what there is, and nothing of what was.
    List(usize),
    /// A replica's view of the ledger catches up.
    Refresh(usize),
    /// A replica looks after reservations whose lease is over.
    Tend(usize),
    /// Time passes.
    Wait(i64),
}

/// What an object is, or was at last.
#[derive(Debug, Clone, Copy)]
struct Object {
    uid: u64,
    version: u64,
    /// None when it is gone.
    canary: Option<u32>,
}

/// A change in etcd, in the order of versions.
struct Change {
    policy: usize,
    before: Option<u32>,
    object: Object,
}

struct Write {
    policy: usize,
    /// The object it was admitted on; none when it creates one.
    on: Option<Object>,
    uid: u64,
    canary: Option<u32>,
    /// Its shift when it is no way back.
    forward: f64,
    /// Its reservation, if it is new, and the end of its lease.
    held: Option<(Mark, Timestamp)>,
    /// When the API server gives the request up.
    until: i64,
}

/// One API server with its routes and one ledger; times are seconds, and true.
struct World {
    now: i64,
    /// The last version and the last uid.
    version: u64,
    uid: u64,
    skews: [i64; REPLICAS],
    objects: Vec<Object>,
    changes: Vec<Change>,
    /// How many changes each replica was shown.
    shown: [usize; REPLICAS],
    /// The ledger and its own version.
    ledger: (Ledger, u64),
    views: Vec<(Ledger, u64)>,
    in_flight: Vec<Write>,
    /// When a shift became real, and how far it went forward.
    moved: Vec<(i64, f64)>,
    /// Writes that were judged as something else than they were.
    misjudged: Vec<String>,
    /// What reviews showed to replicas that could not write it.
    waiting: Vec<(usize, Event)>,
    guards: Vec<ShiftGuard>,
    limits: Limits,
}

/// What the guard asks for, in seconds.
#[derive(Debug, Clone, Copy)]
struct Limits {
    window: i64,
    quiet: Option<i64>,
}

const HOUR: Limits = Limits { window: 3600, quiet: None };

fn policy(index: usize) -> Identity {
    Identity { name: format!("route-{index}"), ..identity() }
}

fn splits(canary: Option<u32>) -> Vec<Split> {
    route(&canary.map_or(Value::Null, |canary| json!({"summarize": 100 - canary, "v2": canary})))
}

/// Nothing stands long enough to end the run of shifts that began before all of them.
fn is_way_back(rule: &RuleChange) -> bool {
    is_rollback(rule, &splits(Some(BEGIN))[0].shares())
}

impl World {
    fn new(skews: [i64; REPLICAS], limits: Limits) -> Self {
        let ledger = (Ledger::new("default", ServiceKey::from("summarize.demo")), 0);
        let mut caps = json!({"perWindow": {"shift": CAP, "window": format!("{}s", limits.window)}});
        if let Some(quiet) = limits.quiet {
            caps["minInterval"] = format!("{quiet}s").into();
        }
        Self {
            now: 0,
            version: 10,
            uid: POLICIES as u64,
            skews,
            objects: (0..POLICIES as u64).map(|uid| Object { uid, version: 5, canary: Some(BEGIN) }).collect(),
            changes: Vec::new(),
            shown: [0; REPLICAS],
            views: vec![ledger.clone(); REPLICAS],
            ledger,
            in_flight: Vec::new(),
            moved: Vec::new(),
            misjudged: Vec::new(),
            waiting: Vec::new(),
            guards: vec![guard(json!({"caps": caps, "settle": "240h"}))],
            limits,
        }
    }

    fn clock(&self, replica: usize) -> Timestamp {
        let begin: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        begin.saturating_add(SignedDuration::from_secs(self.now + self.skews[replica])).unwrap()
    }

    fn cover(&self) -> Cover {
        let cover = Cover::least("default", ServiceKey::from("summarize.demo"));
        Cover { settle: SignedDuration::from_hours(240), ..cover }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask { replica, policy, canary } => {
                self.ask(replica, policy, self.present(policy), Some(canary), true);
            }
            Step::Create { replica, policy, canary } => self.ask(replica, policy, None, Some(canary), true),
            Step::Delete { replica, policy } => {
                if let Some(object) = self.present(policy) {
                    self.ask(replica, policy, Some(object), None, true);
                }
            }
            Step::Unrecorded { replica, policy, canary } => {
                let canary = Some(canary).filter(|canary| *canary > 0);
                self.views[replica] = self.ledger.clone();
                self.ask(replica, policy, self.present(policy), canary, false);
            }
            Step::Write(index) => self.write(index),
            Step::Refuse(index) if !self.in_flight.is_empty() => {
                self.in_flight.remove(index % self.in_flight.len());
            }
            Step::Refuse(_) => {}
            Step::Return(index) => self.give_back(index),
            Step::Touch(policy) => {
                if let Some(Object { uid, canary, .. }) = self.present(policy) {
                    self.store(policy, uid, canary);
                }
            }
            Step::Watch(replica) => self.watch(replica),
            Step::List(replica) => self.list(replica),
            Step::Refresh(replica) => self.views[replica] = self.ledger.clone(),
            Step::Tend(replica) => self.tend(replica),
            Step::Wait(seconds) => {
                self.now += seconds;
                self.in_flight.retain(|write| write.until > self.now);
            }
        }
    }

    /// The object, unless it is gone.
    fn present(&self, policy: usize) -> Option<Object> {
        Some(self.objects[policy]).filter(|object| object.canary.is_some())
    }

    /// What etcd holds from now on.
    fn store(&mut self, policy: usize, uid: u64, canary: Option<u32>) {
        self.version += 1;
        let object = Object { uid, version: self.version, canary };
        let before = std::mem::replace(&mut self.objects[policy], object).canary;
        self.changes.push(Change { policy, before, object });
    }

    /// Compare and swap: only a view that is the present one may be written.
    fn put(&mut self, replica: usize, ledger: Ledger) -> bool {
        if self.views[replica].1 != self.ledger.1 {
            self.views[replica] = self.ledger.clone();
            return false;
        }
        self.ledger = (ledger, self.ledger.1 + 1);
        self.views[replica] = self.ledger.clone();
        true
    }

    fn ask(&mut self, replica: usize, index: usize, on: Option<Object>, canary: Option<u32>, recorded: bool) {
        let (before, after) = (splits(on.and_then(|object| object.canary)), splits(canary));
        let change = change(&before, &after);
        if change.shift < NOISE {
            return;
        }
        let way_back = is_way_back(&change.rules[0]);
        let request = Request { identity: policy(index), author: Author::Bot, change: change.into() };
        self.uid += 1;
        let uid = on.map_or(self.uid, |object| object.uid);
        for _ in 0..3 {
            let now = self.clock(replica);
            let mut ledger = self.views[replica].0.clone();
            let version = on.map(|object| object.version.to_string());
            let mark = Mark {
                policy: policy(index),
                uid: uid.to_string(),
                version: version.clone(),
                digest: ledger.digest(&after),
            };
            let settle = self.cover().settle;
            for (_, event) in self.waiting.iter().filter(|(by, event)| *by == replica && event.policy == mark.policy) {
                ledger.follow(event, settle, &TERMS, now);
            }
            if let Some(object) = on {
                let event = self.event(index, object, None, Some(now));
                ledger.follow(&event, settle, &TERMS, now);
                if !recorded {
                    self.waiting.push((replica, event));
                }
            }
            let mut history = History::default();
            ledger.tell(&mut history, Some(&mark), &TERMS, now);
            let mut verdict = judge(&self.guards, &request, &history, &[], now);
            if verdict.outcome == Outcome::Denied {
                return;
            }
            let record = verdict.records.remove(0);
            let forward = if record.rollback { 0.0 } else { record.shift };
            // A way back may count as forward: what is created while it exists is judged as if nothing had been there.
            let wrong = record.rollback && !way_back;
            if !recorded && !record.rollback {
                return;
            }
            let held = ledger.reserve(&mark, record, &replica.to_string(), &self.cover(), &TERMS);
            let held = held.map(|until| (mark, until)).filter(|_| recorded);
            if !recorded || self.put(replica, ledger) {
                if wrong {
                    self.misjudged.push(format!("{on:?} to {canary:?}"));
                }
                let until = self.now + TERMS.lease.as_secs();
                self.in_flight.push(Write { policy: index, on, uid, canary, forward, held, until });
                return;
            }
        }
    }

    fn write(&mut self, index: usize) {
        if self.in_flight.is_empty() {
            return;
        }
        let write = self.in_flight.remove(index % self.in_flight.len());
        let version = |object: Object| object.version;
        if self.present(write.policy).map(version) == write.on.map(version) {
            self.store(write.policy, write.uid, write.canary);
            self.moved.push((self.now, write.forward));
        }
    }

    fn give_back(&mut self, index: usize) {
        let held: Vec<_> = (0..self.in_flight.len()).filter(|at| self.in_flight[*at].held.is_some()).collect();
        if held.is_empty() {
            return;
        }
        if let Some((mark, until)) = self.in_flight.remove(held[index % held.len()]).held
            && self.ledger.0.release(&mark, until)
        {
            self.ledger.1 += 1;
        }
    }

    /// What the watch shows goes into the ledger, against whatever others write.
    fn watch(&mut self, replica: usize) {
        let Some(Change { policy, before, object }) = self.changes.get(self.shown[replica]) else { return };
        let event = self.event(*policy, *object, Some(*before), Some(self.clock(replica)));
        self.shown[replica] += 1;
        self.catch_up(replica);
        self.follow(replica, &event);
    }

    fn list(&mut self, replica: usize) {
        self.shown[replica] = self.changes.len();
        self.catch_up(replica);
        for index in 0..POLICIES {
            if let Some(object) = self.present(index) {
                let event = self.event(index, object, None, None);
                self.follow(replica, &event);
            }
        }
    }

    /// `before` is what it was, where that is known.
    fn event(&self, index: usize, object: Object, before: Option<Option<u32>>, at: Option<Timestamp>) -> Event {
        let Object { uid, version, canary } = object;
        Event {
            policy: policy(index),
            uid: uid.to_string(),
            version: version.to_string(),
            splits: splits(canary.or(before.flatten())),
            before: before.filter(|_| canary.is_some()).map(splits),
            gone: canary.is_none(),
            at,
        }
    }

    /// What was seen earlier is told first.
    fn catch_up(&mut self, replica: usize) {
        for (_, event) in self.waiting.extract_if(.., |(by, _)| *by == replica).collect::<Vec<_>>() {
            self.follow(replica, &event);
        }
    }

    fn follow(&mut self, replica: usize, event: &Event) {
        for _ in 0..2 {
            let now = self.clock(replica);
            let mut ledger = self.views[replica].0.clone();
            let noted = ledger.follow(event, self.cover().settle, &TERMS, now);
            if !noted.is_some() || self.put(replica, ledger) {
                return;
            }
        }
    }

    /// Reads the ledger and then an object, and tells the one of the other.
    fn look(&mut self, replica: usize, index: usize) {
        self.views[replica] = self.ledger.clone();
        let (now, policy, Object { uid, canary, .. }) = (self.clock(replica), policy(index), self.objects[index]);
        let mut ledger = self.ledger.0.clone();
        // Of what is gone nobody knows the uid; the version is that of the list.
        let known = ledger.policies.iter().find(|known| known.policy == policy).map(|known| known.uid.clone());
        let uid = canary.map(|_| uid.to_string()).or(known).unwrap_or_default();
        let version = canary.map_or(self.version, |_| self.objects[index].version).to_string();
        let splits = splits(canary);
        let sight = Sight {
            policy: &policy,
            uid: &uid,
            version: Some(&version),
            splits: &splits,
            before: None,
            gone: canary.is_none(),
            fresh: true,
            at: Some(now),
        };
        if ledger.observe(&sight, self.cover().settle, &TERMS, now).is_some() {
            self.put(replica, ledger);
        }
    }

    fn tend(&mut self, replica: usize) {
        let now = self.clock(replica);
        self.catch_up(replica);
        for index in 0..POLICIES {
            let ours = |entry: &Entry| entry.record.policy == policy(index);
            if self.ledger.0.outstanding().any(|(entry, _)| ours(entry) && entry.is_overdue(&TERMS, now)) {
                self.look(replica, index);
            }
        }
    }

    fn fullest(&self) -> f64 {
        let inside = |last: i64| self.moved.iter().filter(move |(at, _)| *at <= last && last - at < self.limits.window);
        let sums = self.moved.iter().map(|(last, _)| inside(*last).map(|(_, shift)| shift).sum());
        sums.fold(0.0, f64::max)
    }

    /// The shortest time between two steps forward, if it is shorter than the guard asks for.
    fn too_soon(&self) -> Option<i64> {
        let forward: Vec<_> = self.moved.iter().filter(|(_, shift)| *shift > 0.0).map(|(at, _)| at).collect();
        let apart = forward.windows(2).map(|pair| pair[1] - pair[0]).min();
        apart.zip(self.limits.quiet).filter(|(apart, quiet)| apart < quiet).map(|(apart, _)| apart)
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
        1 => (0usize..8).prop_map(Step::Return),
        2 => ask().prop_map(|(replica, policy, canary)| Step::Create { replica, policy, canary: canary % 20 }),
        2 => (0..REPLICAS, 0..POLICIES).prop_map(|(replica, policy)| Step::Delete { replica, policy }),
        1 => (0..POLICIES).prop_map(Step::Touch),
        5 => (0..REPLICAS).prop_map(Step::Watch),
        1 => (0..REPLICAS).prop_map(Step::List),
        2 => (0..REPLICAS).prop_map(Step::Refresh),
        1 => (0..REPLICAS).prop_map(Step::Tend),
        4 => (0i64..90).prop_map(Step::Wait),
        1 => (90i64..900).prop_map(Step::Wait),
    ]
}

fn any_unrecorded() -> impl Strategy<Value = Step> {
    let ask = (0..REPLICAS, 0..POLICIES, 0u32..20);
    ask.prop_map(|(replica, policy, canary)| Step::Unrecorded { replica, policy, canary })
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let window = prop_oneof![Just(20i64), Just(120), Just(600)];
    let quiet = prop_oneof![3 => Just(None), 1 => (1i64..60).prop_map(Some)];
    (window, quiet).prop_map(|(window, quiet)| Limits { window, quiet })
}

fn any_skews() -> impl Strategy<Value = [i64; REPLICAS]> {
    let any = || prop_oneof![-SKEW..=SKEW, Just(-SKEW), Just(SKEW)];
    [any(), any(), any()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_window_holds_more_than_its_cap_and_nothing_leaks(
        skews in any_skews(), limits in any_limits(), steps in prop::collection::vec(any_step(), 1..200),
    ) {
        let mut world = World::new(skews, limits);
        for step in &steps {
            world.step(step);
            prop_assert!(world.fullest() <= CAP + NOISE, "{} of {CAP} after {step:?}", world.fullest());
            prop_assert_eq!(world.too_soon(), None, "after {:?}", step);
            prop_assert!(world.misjudged.is_empty(), "{:?} after {step:?}", world.misjudged);
        }
        // Time passes.
        world.step(&Step::Wait(60 + 4 * SKEW));
        (0..REPLICAS).for_each(|replica| world.tend(replica));
        prop_assert_eq!(world.ledger.0.outstanding().count(), 0);
        // What was written is known, and nothing else counts.
        for index in 0..POLICIES {
            world.look(0, index);
        }
        let counted = world.ledger.0.entries.iter().filter(|entry| !entry.record.rollback);
        let counted: f64 = counted.map(|entry| entry.record.shift).sum();
        let moved: f64 = world.moved.iter().map(|(_, shift)| shift).sum();
        prop_assert!((counted - moved).abs() < 1e-6, "{counted} are recorded, {moved} are real");
    }

    /// What nobody could record is noticed late or never, but makes no step forward pass for a way back.
    #[test]
    fn whatever_passes_unrecorded_a_step_forward_is_no_way_back(
        skews in any_skews(), steps in prop::collection::vec(prop_oneof![20 => any_step(), 2 => any_unrecorded()], 1..200),
    ) {
        let mut world = World::new(skews, HOUR);
        for step in &steps {
            world.step(step);
            prop_assert!(world.misjudged.is_empty(), "{:?} after {step:?}", world.misjudged);
        }
    }
}

#[test]
fn the_simulation_admits_what_fits() {
    // Without this the property above could hold because nothing ever passes.
    let mut world = World::new([0; REPLICAS], HOUR);
    for (replica, canary) in [(0, 20), (1, 30), (2, 40), (0, 41)] {
        world.step(&Step::Ask { replica, policy: 0, canary });
        world.step(&Step::Write(0));
    }
    assert!((world.fullest() - CAP).abs() < NOISE);
    assert_eq!(world.objects[0].canary, Some(40));
}

#[test]
fn a_replica_whose_clock_is_ahead_ages_no_record_early() {
    let mut world = World::new([-SKEW, SKEW, 0], Limits { window: 600, quiet: None });
    world.step(&Step::Ask { replica: 0, policy: 0, canary: 40 });
    world.step(&Step::Write(0));
    world.step(&Step::Watch(0));
    world.step(&Step::Wait(599));
    world.step(&Step::Refresh(1));
    world.step(&Step::Ask { replica: 1, policy: 0, canary: 41 });
    assert!(world.in_flight.is_empty());
    // Its clock reads 60 s too much of the other's stamp, and the window is as much longer.
    world.step(&Step::Wait(1));
    world.step(&Step::Ask { replica: 1, policy: 0, canary: 41 });
    assert_eq!(world.in_flight.len(), 1);
}
