//! `sluice-webhook cel`.

#![allow(clippy::unwrap_used, reason = "a panic is the failure itself")]

use assert_cmd::Command;
use serde_json::Value;

const GUARDS: &str = r#"apiVersion: sluice.dev/v1alpha1
kind: ShiftGuard
metadata: {name: llm}
spec:
  match: {meshes: [default], services: ["llm-*"], namespaces: [demo]}
  automation: {subjects: ["system:serviceaccount:argocd:*", "it's"]}
  caps: {maxStep: 10, maxShare: 50, perWindow: {shift: 30, window: 1h}}
  freeze:
  - {cron: "0 18 * * FRI", duration: 62h, timeZone: Europe/Berlin, reason: weekend}
---
apiVersion: sluice.dev/v1alpha1
kind: ShiftGuard
metadata: {name: slow}
spec: {enforcement: Warn, caps: {minInterval: 10m}}
---
apiVersion: sluice.dev/v1alpha1
kind: ShiftGuard
metadata: {name: all}
spec: {enforcement: Audit, caps: {maxStep: 20.5}}
"#;

fn cel(guards: &str, arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guards.yaml");
    std::fs::write(&path, guards).unwrap();
    let mut command = Command::cargo_bin("sluice-webhook").unwrap();
    let command = command.args(["cel", "--now", "2026-11-25T12:00:00Z", "--guards"]).arg(path).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("---\n").skip(1);
    documents.map(|document| serde_yaml::from_str(document).unwrap()).collect()
}

#[test]
fn writes_a_policy_and_a_binding_for_what_cel_can_hold() {
    let (code, told, errors) = cel(GUARDS, &["--days", "12"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    insta::assert_snapshot!(told);
}

#[test]
fn a_guard_that_cel_cannot_hold_gets_none() {
    let (_, told, _) = cel(GUARDS, &[]);
    let names: Vec<_> = documents(&told).iter().map(|document| document["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["sluice-belt-llm", "sluice-belt-llm", "sluice-belt-all", "sluice-belt-all"]);
}

#[test]
fn enforcement_becomes_the_action_of_the_binding() {
    let (_, told, _) = cel(GUARDS, &[]);
    let documents = documents(&told);
    assert_eq!(documents[1]["spec"]["validationActions"][0], "Deny");
    assert_eq!(documents[3]["spec"]["validationActions"][0], "Audit");
}

#[test]
fn with_a_lease_the_belt_holds_only_while_nobody_renews_it() {
    let (_, told, _) = cel(GUARDS, &["--lease", "sluice-system/belt"]);
    let documents = documents(&told);
    assert_eq!(documents[0]["spec"]["paramKind"]["kind"], "Lease");
    assert_eq!(documents[1]["spec"]["paramRef"]["name"], "belt");
    let validations = documents[0]["spec"]["validations"].as_array().unwrap();
    assert!(validations.iter().all(|one| one["expression"].as_str().unwrap().starts_with("!variables.away || (")));
}

#[test]
fn writes_down_every_freeze_until_the_horizon() {
    let starts = |cron: &str, duration: &str, days: &str| {
        let guard = format!(
            "{{apiVersion: sluice.dev/v1alpha1, kind: ShiftGuard, metadata: {{name: f}}, \
             spec: {{freeze: [{{cron: \"{cron}\", duration: {duration}}}]}}}}"
        );
        let (_, told, _) = cel(&guard, &["--days", days]);
        documents(&told)[0]["spec"]["validations"][0]["expression"].as_str().unwrap().matches("time >= ").count()
    };
    assert_eq!(starts("0 10 * * *", "4h", "3"), 4);
    assert_eq!(starts("0 13 * * *", "30s", "3"), 3);
    assert_eq!(starts("0,20 13 * * *", "5m", "2"), 4);
    assert_eq!(starts("0 0 * * *", "25h", "30"), 1);
}

#[test]
fn says_what_is_wrong_with_the_arguments() {
    for arguments in [["--lease", "belt"], ["--days", "0"], ["--now", "yesterday"]] {
        let (code, told, errors) = cel(GUARDS, &arguments);
        assert_eq!((code, told.as_str()), (2, ""), "{errors}");
        assert!(errors.contains(arguments[0]), "{errors}");
    }
}
