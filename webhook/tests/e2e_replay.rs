//! `replay` and `serve` give the same answers to the same reviews.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod support {
    pub(crate) mod certificates;
    pub(crate) mod http;
    pub(crate) mod process;
}

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use support::certificates::Authority;
use support::http::{Client, metric};
use support::process::{Process, prepare};

const RECORDINGS: [&str; 5] = ["control-plane", "controllers", "gitops", "people", "reviews"];

fn testdata(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(path)).unwrap()
}

/// Times are those of each process.
fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let is_time = |word: &str| {
                let word = word.trim_end_matches([',', ':', ';']);
                word.ends_with('Z') && word.parse::<jiff::Timestamp>().is_ok()
            };
            text.split(' ').map(|word| if is_time(word) { "TIME" } else { word }).collect::<Vec<_>>().join(" ").into()
        }
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), masked(value))).collect(),
        other => other.clone(),
    }
}

/// What a response says, as `replay` tells it; the verdict it leaves to the metrics.
fn told(response: &Value) -> Value {
    let empty = |value: &Value, otherwise: Value| if value.is_null() { otherwise } else { value.clone() };
    json!({
        "uid": response["uid"],
        "allowed": response["allowed"],
        "code": response["status"]["code"],
        "message": response["status"]["message"],
        "causes": empty(&response["status"]["details"]["causes"], json!([])),
        "warnings": empty(&response["warnings"], json!([])),
        "annotations": empty(&response["auditAnnotations"], json!({})),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_answers_every_recorded_review_as_the_server_does() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    prepare(folder.path(), &authority.leaf());
    let guards = folder.path().join("guards.yaml");
    std::fs::write(&guards, testdata("e2e/replay-guards.yaml")).unwrap();
    let recorded: String = RECORDINGS.map(|name| testdata(&format!("admission/recorded/{name}.jsonl"))).concat();
    let reviews = folder.path().join("all.jsonl");
    std::fs::write(&reviews, &recorded).unwrap();

    let process = Process::start(folder.path(), &[]).await;
    let mut connection = Client::new(&authority).connect(process.reviews).await.unwrap();
    let mut served = Vec::new();
    for line in recorded.lines() {
        let recorded: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(line).unwrap();
        let review = recorded.get("review").map_or(line, |review| review.get());
        let reply = connection.post("/validate?timeout=10s", review.to_owned().into()).await.unwrap();
        assert_eq!(reply.status, 200);
        served.push(told(&reply.json()["response"]));
    }

    let mut command = assert_cmd::Command::cargo_bin("sluice-webhook").unwrap();
    let output = command.arg("replay").arg(&reviews).arg("--guards").arg(&guards).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    let mut differences = String::new();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!((lines.lines().count(), served.len()), (149, 149));
    for (line, server) in lines.lines().zip(&served) {
        let mut replayed: Value = serde_json::from_str(line).unwrap();
        let fields = replayed.as_object_mut().unwrap();
        *verdicts.entry(fields["verdict"].as_str().unwrap().to_owned()).or_default() += 1;
        for derived in ["verdict", "shift", "score", "digest"] {
            fields.remove(derived);
        }
        if masked(&replayed) != masked(server) {
            writeln!(differences, "replay: {replayed}\nserver: {server}").unwrap();
        }
    }
    assert_eq!(differences, "");
    // The guards were of consequence, and the server counted the same verdicts.
    let metrics = process.metrics().await;
    for verdict in ["allowed", "warned", "denied", "exempt"] {
        let counted = metric(&metrics, &format!("requests_total{{verdict=\"{verdict}\"}}"));
        assert!(verdicts[verdict] > 0, "{verdicts:?}");
        assert_eq!(counted as usize, verdicts[verdict], "{verdict}");
    }
    let denied = |reason: &str| {
        served.iter().any(|told| told["causes"].as_array().unwrap().iter().any(|cause| cause["reason"] == reason))
    };
    for reason in ["MaxStep", "PerWindow", "MaxShare", "Digest"] {
        assert!(denied(reason), "nothing was denied for {reason}");
    }
}
