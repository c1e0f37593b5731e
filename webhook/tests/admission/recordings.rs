//! What a real API server sent.

use super::*;
use std::path::Path;
use std::sync::LazyLock;

const FILES: [&str; 5] = ["reviews", "people", "gitops", "controllers", "control-plane"];

fn read(name: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../testdata/admission/recorded/{name}.jsonl"));
    let text = std::fs::read_to_string(file).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.get_mut("review").map(Value::take).unwrap_or(value)
    };
    text.lines().map(line).collect()
}

/// All of them.
pub(crate) fn reviews() -> &'static [Value] {
    static REVIEWS: LazyLock<Vec<Value>> = LazyLock::new(|| FILES.iter().flat_map(|name| read(name)).collect());
    &REVIEWS
}

/// Nothing may pass, by anybody, at any time, in any health.
fn forbidding() -> Admission {
    let everything = json!({
        "automation": {"subjects": ["*"], "humanNeedsApproval": true},
        "caps": {"maxStep": 0.001, "maxShare": 0.001, "perWindow": {"shift": 0.001, "window": "7d"}, "minInterval": "7d"},
        "freeze": [{"cron": "0 0 * * *", "duration": "25h"}],
        "health": {"minScore": 100, "denySeverity": "info"},
    });
    admission(json!([guard("forbids", everything)]))
}

#[test]
fn no_write_of_the_control_plane_or_a_controller_is_refused_whatever_the_guards() {
    let admission = forbidding();
    let writes: Vec<_> = ["control-plane", "controllers"].into_iter().flat_map(read).collect();
    assert!(writes.len() > 50);
    for review in writes {
        assert_eq!(respond(&admission, &review)["allowed"], true, "{review}");
    }
}

#[test]
fn a_forbidding_guard_stops_every_recorded_shift() {
    let admission = forbidding();
    let denied = reviews().iter().filter(|review| respond(&admission, review)["allowed"] == false).count();
    assert!(denied >= 10, "{denied}");
}

#[test]
fn every_recorded_review_gets_a_well_formed_answer_without_guards() {
    let admission = admission(json!([]));
    for review in reviews() {
        assert_eq!(respond(&admission, review)["allowed"], true, "{review}");
    }
}

#[test]
fn unknown_fields_of_a_newer_api_server_change_nothing() {
    let admission = forbidding();
    for review in reviews() {
        let mut newer = review.clone();
        newer["future"] = json!({"uid": [1]});
        newer["request"]["future"] = json!([{"uid": "no"}]);
        assert_eq!(respond(&admission, &newer), respond(&admission, review));
    }
}
