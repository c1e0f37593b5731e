//! The handler over any bytes: it answers every one, well-formed, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sluice_rules::document::File;
use sluice_rules::guard::ShiftGuard;
use sluice_webhook::admission::Admission;
use sluice_webhook::ledger::{Ledger, Memory};
use sluice_webhook::world::Shared;
use std::time::{Duration, Instant};

const GUARD: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: ShiftGuard
metadata: {name: everything}
spec:
  automation: {subjects: ["system:*", "admin"], humanNeedsApproval: true}
  caps: {maxStep: 10, perWindow: {shift: 30, window: 1h}, minInterval: 1s, maxShare: 50}
  freeze: [{cron: "0 18 * * FRI", duration: 62h, timeZone: Europe/Berlin}]
  approvals: {required: 1, groups: ["oidc:sre"], maxAge: 24h}
  health: {minScore: 70, denySeverity: high}
"#;

fn admission() -> Admission {
    let file = File::parse("guard.yaml", GUARD.as_bytes()).expect("YAML");
    let guard = ShiftGuard::read(file.documents()[0].value()).expect("a guard");
    let world = Shared::default();
    world.update(|world| world.guards = vec![guard.clone()]);
    Admission::new(world, Ledger::Memory(Memory::default()))
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    static ADMISSION: Admission = admission();
}

fuzz_target!(|body: &[u8]| {
    let answer = RUNTIME.with(|runtime| {
        ADMISSION.with(|admission| runtime.block_on(admission.answer(body, Instant::now() + Duration::from_secs(5))))
    });
    let body: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
    if answer.status == 200 {
        assert_eq!(body["kind"], "AdmissionReview");
        let response = &body["response"];
        assert!(response["uid"].is_string() && response["allowed"].is_boolean());
        assert!(response["allowed"] == true || response["status"]["message"].is_string());
        assert_ne!(response["status"]["code"], 429, "clients retry 429 in silence");
        let warnings = response["warnings"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(warnings.len() <= 11);
        for warning in warnings {
            let text = warning.as_str().expect("a warning is text");
            assert!(text.chars().count() <= 256 && !text.chars().any(char::is_control));
        }
    } else {
        assert!(answer.status >= 400 && answer.status != 429);
    }
});
