//! Guards from any YAML, and their judgement of a fixed change: reading never panics, judging neither, and a refusal
//! says why.
#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use sluice_rules::document::File;
use sluice_rules::guard::{Author, History, Outcome, Request, ShiftGuard, contradictions, judge};
use sluice_rules::policy::Policy;
use sluice_rules::split::{change, splits};

fn route(weights: [u32; 2]) -> Policy {
    Policy::read(&json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute", "metadata": {"name": "llm", "namespace": "demo"},
        "spec": {"to": [{"targetRef": {"kind": "MeshService", "name": "llm"}, "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "default": {"backendRefs": [
                {"kind": "MeshService", "name": "llm-v1", "port": 80, "weight": weights[0]},
                {"kind": "MeshService", "name": "llm-v2", "port": 80, "weight": weights[1]},
            ]},
        }]}]},
    }))
    .expect("a route")
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = File::parse("guards.yaml", bytes) else { return };
    let guards: Vec<_> = file.documents().iter().filter_map(|found| ShiftGuard::read(found.value()).ok()).collect();
    let now: Timestamp = "2026-11-25T12:00:00Z".parse().expect("a time");
    let _ = contradictions(&guards, now);
    let (old, new) = (route([90, 10]), route([40, 60]));
    let request = Request {
        identity: new.identity().clone(),
        author: Author::Account { name: "system:serviceaccount:argocd:argocd".into(), groups: Vec::new() },
        change: change(&splits(&old).0, &splits(&new).0).into(),
    };
    let verdict = judge(&guards, &request, &History::default(), &[], now);
    assert_eq!(
        verdict.outcome == Outcome::Denied,
        verdict.causes.iter().any(|cause| cause.effect == sluice_rules::guard::Effect::Denied)
    );
    assert!(verdict.causes.iter().all(|cause| !cause.message.is_empty()));
});
