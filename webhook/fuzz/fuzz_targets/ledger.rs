//! Ledgers: any JSON read as one, and any course of events. Reservations, sights of the policy and clocks that jump are
//! drawn from the input; whatever comes, nothing panics, the bounds hold and what the ledger says survives JSON.
#![no_main]

use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use sluice_rules::document::File;
use sluice_rules::guard::{
    Author, Concern, Cover, Event, History, Ledger, Mark, Outcome, Request, ShiftGuard, Sight, Terms, judge,
};
use sluice_rules::policy::Policy;
use sluice_rules::split::{Split, change, splits};

const GUARD: &str = "
apiVersion: sluice.dev/v1alpha1
kind: ShiftGuard
metadata: {name: llm}
spec: {automation: {subjects: ['*']}, caps: {perWindow: {shift: 30, window: 1h}}}
";
const TERMS: Terms =
    Terms { lease: SignedDuration::from_secs(60), tolerance: SignedDuration::from_secs(4), watched: true };

fn route(canary: u32) -> Policy {
    Policy::read(&json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute", "metadata": {"name": "llm", "namespace": "demo"},
        "spec": {"to": [{"targetRef": {"kind": "MeshService", "name": "llm"}, "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "default": {"backendRefs": [
                {"kind": "MeshService", "name": "llm-v1", "port": 80, "weight": 100 - canary},
                {"kind": "MeshService", "name": "llm-v2", "port": 80, "weight": canary},
            ]},
        }]}]},
    }))
    .expect("a route")
}

fuzz_target!(|bytes: &[u8]| {
    let start: Timestamp = "2026-11-25T12:00:00Z".parse().expect("a time");
    let cover = |ledger: &Ledger| Cover::least(ledger.mesh.clone(), ledger.destination.clone());
    if let Ok(mut ledger) = serde_json::from_slice::<Ledger>(bytes) {
        let _ = Ledger::name(&ledger.mesh, &ledger.destination);
        let covering = cover(&ledger);
        ledger.bound(&covering, start);
        let mut history = History::default();
        ledger.tell(&mut history, None, &TERMS, start);
        // Whichever policy it tells of is deleted.
        if let Some(entry) = ledger.entries.first() {
            let (policy, version) = (entry.record.policy.clone(), entry.version.clone().unwrap_or_default());
            let uid = entry.uid.clone();
            let event = Event { policy, uid, version, splits: Vec::new(), before: None, gone: true, at: Some(start) };
            ledger.follow(&event, SignedDuration::from_hours(24), &TERMS, start);
            ledger.bound(&covering, start);
        }
        return;
    }
    let file = File::parse("guard.yaml", GUARD.as_bytes()).expect("YAML");
    let guards = [ShiftGuard::read(file.documents()[0].value()).expect("a guard")];
    let states: Vec<(Policy, Vec<Split>)> = (0..=100)
        .map(|canary| {
            let policy = route(canary);
            let split = splits(&policy).0;
            (policy, split)
        })
        .collect();
    let mut ledger: Option<Ledger> = None;
    let (mut stored, mut version, mut now) = (0_usize, 1_u64, start);
    let mut admitted: Option<(usize, u64)> = None;
    for event in bytes.chunks_exact(3).take(200) {
        let seconds = i64::from(event[2]) * 20 - 1000;
        match event[0] % 4 {
            // Somebody asks; admission reserves.
            0 => {
                let wanted = usize::from(event[1] % 101);
                let identity = states[wanted].0.identity().clone();
                let change = change(&states[stored].1, &states[wanted].1);
                if change.rules.is_empty() {
                    continue;
                }
                let author = Author::Account { name: "argocd".into(), groups: Vec::new() };
                let request = Request { identity, author, change: change.into() };
                let covers = Concern::of(&guards, &request).covers();
                let covering = &covers[0];
                let ledger =
                    ledger.get_or_insert_with(|| Ledger::new(covering.mesh.clone(), covering.destination.clone()));
                let mut history = History::default();
                ledger.tell(&mut history, None, &TERMS, now);
                let verdict = judge(&guards, &request, &history, &[], now);
                if verdict.outcome == Outcome::Denied {
                    continue;
                }
                let mark = Mark {
                    policy: request.identity.clone(),
                    uid: "u".into(),
                    version: Some(version.to_string()),
                    digest: ledger.digest(&states[wanted].1),
                };
                ledger.reserve(&mark, verdict.records[0].clone(), "a", covering, &TERMS);
                admitted = Some((wanted, version));
            }
            // What was admitted is written, if nothing came between.
            1 => {
                if let Some((wanted, on)) = admitted.take().filter(|(_, on)| *on == version) {
                    (stored, version) = (wanted, on + 1);
                }
            }
            // The watch tells, or somebody wrote behind admission.
            2 => {
                if event[1] > 200 {
                    (stored, version) = (usize::from(event[1] - 200), version + 1);
                }
                let Some(ledger) = &mut ledger else { continue };
                let (policy, split) = &states[stored];
                let text = version.to_string();
                let sight = Sight {
                    policy: policy.identity(),
                    uid: "u",
                    version: Some(&text),
                    splits: split,
                    before: None,
                    gone: false,
                    fresh: event[1] % 2 == 0,
                    at: None,
                };
                ledger.observe(&sight, SignedDuration::from_hours(24), &TERMS, now);
                let covering = cover(ledger);
                ledger.bound(&covering, now);
            }
            _ => now = now.saturating_add(SignedDuration::from_secs(seconds)).expect("in range"),
        }
    }
    if let Some(ledger) = ledger {
        assert!(ledger.entries.len() <= 256);
        let text = serde_json::to_string(&ledger).expect("JSON");
        assert!(text.len() <= 256 * 1024);
        assert_eq!(serde_json::from_str::<Ledger>(&text).expect("the same"), ledger);
    }
});
