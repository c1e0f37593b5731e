//! `sluice-webhook replay` over what a real API server sent.

#![allow(clippy::unwrap_used, reason = "a panic is the failure itself")]

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};

const STRICT: &str = "apiVersion: sluice.dev/v1alpha1
kind: ShiftGuard
metadata: {name: strict}
spec:
  automation: {subjects: ['*'], humanNeedsApproval: true}
  caps: {maxStep: 5}
  approvals: {groups: ['oidc:sre']}
";

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../testdata/admission/recorded/{name}.jsonl"))
}

fn replay(reviews: &Path, guards: &str) -> (i32, String, String) {
    replay_with(reviews, guards, &[])
}

fn replay_with(reviews: &Path, guards: &str, options: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guards.yaml");
    std::fs::write(&path, guards).unwrap();
    let mut command = Command::cargo_bin("sluice-webhook").unwrap();
    let command = command.arg("replay").arg(reviews).arg("--guards").arg(path).args(["--now", "2026-11-25T12:00:00Z"]);
    command.args(options);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One line for each review: what it says to somebody who skims it.
fn skimmed(name: &str) -> String {
    let (code, told, errors) = replay(&recorded(name), STRICT);
    assert_eq!((code, errors.as_str()), (0, ""));
    let skim = |line: &Value| {
        let causes = line["causes"].as_array().unwrap().iter();
        let causes: Vec<_> = causes.map(|cause| cause["reason"].as_str().unwrap()).collect();
        let (verdict, code) = (line["verdict"].as_str().unwrap(), &line["code"]);
        format!(
            "{} {verdict} {code} shift {} {}\n",
            &line["uid"].as_str().unwrap()[..8],
            line["shift"],
            causes.join(" ")
        )
    };
    lines(&told).iter().map(skim).collect()
}

#[test]
fn answers_reviews_of_people_under_a_strict_guard() {
    insta::assert_snapshot!(skimmed("reviews"));
}

#[test]
fn answers_a_gitops_account_under_a_strict_guard() {
    insta::assert_snapshot!(skimmed("gitops"));
}

#[test]
fn refuses_no_write_of_the_control_plane_or_the_controllers() {
    for name in ["control-plane", "controllers"] {
        let (code, told, _) = replay(&recorded(name), STRICT);
        let lines = lines(&told);
        let reviews = std::fs::read_to_string(recorded(name)).unwrap().lines().count();
        assert_eq!((code, lines.len()), (0, reviews));
        assert!(lines.iter().all(|line| line["verdict"] == "exempt" && line["allowed"] == true));
    }
}

#[test]
fn answers_as_a_server_that_is_told_of_accounts_and_of_kuma() {
    let first = |options: &[&str]| {
        let (code, told, errors) = replay_with(&recorded("gitops"), STRICT, options);
        assert_eq!((code, errors.as_str()), (0, ""));
        lines(&told)
    };
    let account = "system:serviceaccount:flux-system:kustomize-controller";
    assert!(first(&[]).iter().any(|line| line["allowed"] == false));
    assert!(first(&["--exempt", account]).iter().all(|line| line["verdict"] == "exempt"));
    assert_ne!(first(&["--kuma", "3.0"]), first(&["--kuma", "2.14"]));
}

#[test]
fn says_which_line_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let reviews = folder.path().join("reviews.jsonl");
    let first = std::fs::read_to_string(recorded("reviews")).unwrap();
    let first = first.lines().next().unwrap();
    for (second, problem) in
        [("{", "reviews.jsonl:3 is no JSON: EOF"), ("{\"a\": 1}", "reviews.jsonl:3 is no review: ")]
    {
        std::fs::write(&reviews, format!("{first}\n\n{second}\n")).unwrap();
        let (code, told, errors) = replay(&reviews, STRICT);
        assert_eq!((code, lines(&told).len()), (2, 1), "{errors}");
        assert!(errors.contains(problem), "{errors}");
    }
}

#[test]
fn says_what_is_wrong_with_the_guards() {
    let (code, told, errors) = replay(&recorded("reviews"), &STRICT.replace("maxStep: 5", "maxStep: 500"));
    assert_eq!((code, told.as_str()), (2, ""));
    assert!(errors.contains("guards.yaml:6") && errors.contains("at most 100"), "{errors}");
}
