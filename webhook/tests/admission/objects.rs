//! Writes of our own kinds.

use super::*;

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn sre_guard() -> Value {
    json!([guard("llm", json!({"caps": {"maxStep": 10}, "approvals": {"groups": ["oidc:*"], "maxAge": "24h"}}))])
}

fn approval(changes: Value) -> Value {
    let mut spec =
        json!({"digest": DIGEST, "approver": "jane", "groups": ["oidc:sre"], "expires": "2026-11-25T18:00:00Z"});
    for (key, value) in changes.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftApproval",
        "metadata": {"name": "a", "creationTimestamp": NOW}, "spec": spec})
}

fn create(user: &str, groups: &[&str], object: &Value) -> Value {
    let mut review = review("CREATE", user, &Value::Null, object);
    review["request"]["userInfo"]["groups"] = json!(groups);
    review
}

/// The fields of the causes, none when it is allowed.
fn fields(response: &Value) -> Vec<String> {
    let causes = response["status"]["details"]["causes"].as_array().into_iter().flatten();
    causes.map(|cause| cause["field"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_approval_is_given_in_ones_own_name() {
    let admission = admission(sre_guard());
    let ask = |user: &str, groups: &[&str], changes: Value| {
        fields(&respond(&admission, &create(user, groups, &approval(changes))))
    };
    let none: [&str; 0] = [];
    assert_eq!(ask("jane", &["oidc:sre", "system:authenticated"], json!({})), none);
    assert_eq!(ask("jane", &["oidc:sre"], json!({"groups": []})), none);
    assert_eq!(ask("jack", &["oidc:sre"], json!({})), ["spec.approver"]);
    assert_eq!(ask("jane", &["oidc:sre"], json!({"groups": ["oidc:sre", "oidc:boss"]})), ["spec.groups[1]"]);
    assert_eq!(ask("jane", &["people"], json!({"groups": []})), ["spec.approver"]);
    assert_eq!(ask("jane", &["oidc:sre"], json!({"digest": "E3B0"})), ["spec.digest"]);
}

#[test]
fn the_bot_writes_for_people_and_not_for_machines() {
    let admission = admission(sre_guard());
    let ask = |changes: Value| fields(&respond(&admission, &create(BOT, &[], &approval(changes))));
    let none: [&str; 0] = [];
    assert_eq!(ask(json!({})), none);
    assert_eq!(ask(json!({"approver": FLUX})), ["spec.approver"]);
}

#[test]
fn automation_approves_nothing() {
    let admission = admission(sre_guard());
    let response = respond(&admission, &create(FLUX, &["oidc:sre"], &approval(json!({"approver": FLUX}))));
    assert_eq!(fields(&response), ["spec.approver"]);
    assert!(causes(&response)[0].contains("automation approves nothing"));
}

#[test]
fn an_approval_ends_within_the_age_that_guards_take() {
    let admission = admission(sre_guard());
    let ask = |changes: Value| fields(&respond(&admission, &create("jane", &["oidc:sre"], &approval(changes))));
    let none: [&str; 0] = [];
    assert_eq!(ask(json!({"expires": "2026-11-26T12:00:00Z"})), none);
    assert_eq!(ask(json!({"expires": null})), none);
    assert_eq!(ask(json!({"expires": "2026-11-26T12:00:01Z"})), ["spec.expires"]);
    assert_eq!(ask(json!({"expires": "2026-11-25T11:59:59Z"})), ["spec.expires"]);
    assert_eq!(ask(json!({"created": "2026-11-25T11:59:30Z"})), none);
    assert_eq!(ask(json!({"created": "2026-11-25T11:58:30Z"})), ["spec.created"]);
    assert_eq!(ask(json!({"created": "2026-11-25T12:01:30Z"})), ["spec.created"]);
}

#[test]
fn where_a_guard_takes_approvals_of_any_age_they_say_when_they_end() {
    let admission = admission(json!([guard("llm", json!({"approvals": {"groups": ["oidc:sre"]}}))]));
    let response = respond(&admission, &create("jane", &["oidc:sre"], &approval(json!({"expires": null}))));
    assert_eq!(fields(&response), ["spec.expires"]);
}

#[test]
fn without_a_guard_that_takes_approvals_there_are_none() {
    let response = respond(&admission(json!([])), &create("jane", &["oidc:sre"], &approval(json!({}))));
    assert!(causes(&response)[0].contains("no guard takes approvals"), "{response}");
}

#[test]
fn an_approval_never_changes_and_may_be_taken_back() {
    let admission = admission(sre_guard());
    let (old, other) = (approval(json!({})), approval(json!({"digest": "0".repeat(64)})));
    let response = respond(&admission, &review("UPDATE", "jane", &old, &other));
    assert_eq!(fields(&response), ["spec"]);
    assert_eq!(respond(&admission, &review("UPDATE", "jane", &old, &old))["allowed"], true);
    assert_eq!(respond(&admission, &review("DELETE", "jack", &old, &Value::Null))["allowed"], true);
}

#[test]
fn only_the_webhook_writes_ledgers() {
    let admission = admission(json!([]));
    let ledger = |entries: u32| json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftLedger", "metadata": {"name": "l"}, "spec": {"entries": entries}});
    let migrator = "system:serviceaccount:kube-system:storage-version-migrator";
    let webhook = "system:serviceaccount:sluice-system:sluice-webhook";
    for (user, operation, old, new, allowed) in [
        (webhook, "UPDATE", ledger(1), ledger(2), true),
        ("admin", "UPDATE", ledger(1), ledger(2), false),
        ("admin", "CREATE", Value::Null, ledger(1), false),
        ("admin", "DELETE", ledger(1), Value::Null, false),
        (CONTROL_PLANE, "UPDATE", ledger(1), ledger(2), false),
        ("system:serviceaccount:kube-system:generic-garbage-collector", "DELETE", ledger(1), Value::Null, false),
        (migrator, "UPDATE", ledger(1), ledger(1), true),
        (migrator, "UPDATE", ledger(1), ledger(2), false),
    ] {
        let response = respond(&admission, &review(operation, user, &old, &new));
        assert_eq!(response["allowed"], allowed, "{user} {operation}");
    }
}

#[test]
fn a_guard_that_cannot_be_read_is_refused_with_every_field() {
    let admission = admission(json!([]));
    let spec = json!({"caps": {"maxStep": 0, "maxShares": 3}, "freeze": [{"cron": "x", "duration": "1h"}]});
    let response = respond(&admission, &create("admin", &[], &guard("g", spec)));
    assert_eq!(fields(&response), ["spec.caps.maxShares", "spec.freeze[0].cron", "spec.caps.maxStep"]);
}

#[test]
fn a_guard_with_a_useless_limit_is_told_so() {
    let admission = admission(json!([]));
    let odd = guard("g", json!({"caps": {"maxStep": 20, "perWindow": {"shift": 10, "window": "1h"}}}));
    let response = respond(&admission, &create("admin", &[], &odd));
    assert_eq!(response["allowed"], true);
    let said = response["warnings"].to_string();
    assert!(said.contains("guard `g`: a step of 20 never fits the 10 of perWindow"), "{said}");
}

#[test]
fn a_guard_under_which_nothing_can_ever_pass_is_refused() {
    let admission = admission(json!([]));
    let ask = |spec: Value| fields(&respond(&admission, &create("admin", &[], &guard("g", spec))));
    assert_eq!(ask(json!({"automation": {"humanNeedsApproval": true}})), ["spec.automation.humanNeedsApproval"]);
    assert_eq!(ask(json!({"automation": {"subjects": ["*"]}, "approvals": {}})), ["spec.automation.subjects"]);
    assert_eq!(ask(json!({"freeze": [{"cron": "0 0 * * *", "duration": "25h"}]})), ["spec.freeze[0]"]);
}

#[test]
fn guards_that_contradict_each_other_are_refused_with_both_names() {
    let ask = |there: Value, new: Value| {
        let admission = admission(json!([guard("there", there)]));
        causes(&respond(&admission, &create("admin", &[], &guard("new", new))))
    };
    let nights = |cron: &str| json!({"freeze": [{"cron": cron, "duration": "12h"}]});
    let found = ask(nights("0 0 * * *"), nights("0 12 * * *"));
    assert!(found[0].contains("guards `new` and `there` together leave no time"), "{found:?}");
    assert!(ask(nights("0 0 * * *"), nights("1 12 * * *")).is_empty());
    let of_mesh =
        |mesh: &str, cron: &str| json!({"match": {"meshes": [mesh]}, "freeze": [{"cron": cron, "duration": "12h"}]});
    assert!(ask(of_mesh("a", "0 0 * * *"), of_mesh("b", "0 12 * * *")).is_empty());
    assert!(!ask(of_mesh("a", "0 0 * * *"), of_mesh("*", "0 12 * * *")).is_empty());
    let found = ask(json!({"automation": {"subjects": ["oidc:*"]}}), json!({"approvals": {"groups": ["oidc:sre"]}}));
    assert!(found[0].contains("guard `new` asks `oidc:sre` for approval, and to guard `there` they are automation"));
}
