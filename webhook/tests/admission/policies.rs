//! Writes of policies.

use super::*;

fn strict() -> Value {
    json!([guard("strict", json!({"caps": {"maxStep": 1}}))])
}

#[test]
fn lets_pass_what_is_within_the_cap() {
    let admission = admission(json!([guard("g", json!({"caps": {"maxStep": 10}}))]));
    let response = respond(&admission, &shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 80, "v2": 20})));
    assert_eq!(response["allowed"], true);
    assert_eq!(response["auditAnnotations"]["shift"], "10");
    assert_eq!(response["auditAnnotations"]["digest"].as_str().unwrap().len(), 64);
}

#[test]
fn denies_a_step_beyond_the_cap_with_numbers_and_remedy() {
    let spec = json!({"caps": {"maxStep": 10}, "approvals": {"required": 1, "groups": ["oidc:sre"]}});
    let admission = admission(json!([guard("llm", spec)]));
    let answer = answer(
        &admission,
        shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 50, "v2": 50})).to_string().as_bytes(),
    );
    let response = well_formed(&answer);
    let causes = causes(&response);
    assert!(causes[0].starts_with("MaxStep spec.to[0].rules[0].default.backendRefs[1].weight: guard `llm`, maxStep: "));
    assert!(causes[0].contains("moves by 40 points in one change, the limit is 10"), "{causes:?}");
    let digest = response["auditAnnotations"]["digest"].as_str().unwrap();
    assert!(causes[1].contains(digest) && digest.len() == 64, "{causes:?}");
    assert_eq!(response["status"]["code"], 422);
    assert_eq!(answer.summary.reasons, [("llm".to_owned(), "maxStep")]);
    assert!(answer.summary.line.starts_with("UPDATE of MeshHTTPRoute `llm-split` by `system:serviceaccount:flux"));
}

#[test]
fn judges_creation_and_deletion_too() {
    let admission = admission(strict());
    for (before, after) in [(json!(null), json!({"v2": 1})), (json!({"v1": 50, "v2": 50}), json!(null))] {
        let response = respond(&admission, &shift(FLUX, &before, &after));
        assert_eq!(response["allowed"], false, "{before} {after}");
    }
}

#[test]
fn a_deletion_without_a_name_takes_it_from_the_old_object() {
    let mut review = shift(FLUX, &json!({"v1": 50, "v2": 50}), &json!(null));
    review["request"].as_object_mut().unwrap().remove("name");
    let response = respond(&admission(strict()), &review);
    assert_eq!(response["status"]["details"]["name"], "llm-split");
}

#[test]
fn a_name_that_the_server_makes_up_is_empty() {
    let mut review = shift(FLUX, &json!(null), &json!({"v2": 1}));
    review["request"].as_object_mut().unwrap().remove("name");
    review["request"]["object"]["metadata"] = json!({"generateName": "llm-", "namespace": "demo"});
    let response = respond(&admission(strict()), &review);
    assert_eq!((&response["allowed"], &response["status"]["details"]["name"]), (&json!(false), &json!("")));
}

#[test]
fn warns_and_audits_as_the_guards_say() {
    let guards = json!([
        guard("warns", json!({"caps": {"maxStep": 1}, "enforcement": "Warn"})),
        guard("audits", json!({"caps": {"maxStep": 2}, "enforcement": "Audit"})),
    ]);
    let admission = admission(guards);
    let answer = answer(
        &admission,
        shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 50, "v2": 50})).to_string().as_bytes(),
    );
    let response = well_formed(&answer);
    assert_eq!(response["allowed"], true);
    assert!(
        response["warnings"][0].as_str().unwrap().starts_with("guard `warns`, maxStep: `llm.demo` moves by 40 points")
    );
    assert_eq!(response["auditAnnotations"]["decision"], "warned");
    assert!(response["auditAnnotations"]["audit"].as_str().unwrap().starts_with("guard `audits`, maxStep: "));
    assert_eq!((answer.summary.verdict, answer.summary.line.as_str()), ("warned", ""));
}

#[test]
fn an_approval_of_the_digest_lifts_the_cap() {
    let spec = json!({"caps": {"maxStep": 10}, "approvals": {"required": 1, "groups": ["sre"]}});
    let admission = admission(json!([guard("llm", spec)]));
    let review = shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 50, "v2": 50}));
    let digest = respond(&admission, &review)["auditAnnotations"]["digest"].clone();
    let approve = |digest: Value| {
        let approval =
            json!({"digest": digest, "approver": "jane", "groups": ["sre"], "created": "2026-11-25T11:59:00Z"});
        admission.world.update(|world| world.approvals = vec![serde_json::from_value(approval.clone()).unwrap()]);
        respond(&admission, &review)
    };
    assert_eq!(approve(json!("0".repeat(64)))["allowed"], false);
    let response = approve(digest);
    assert_eq!(response["allowed"], true);
    assert!(response["auditAnnotations"]["approved"].as_str().unwrap().contains("lifted by approval of `jane`"));
}

#[test]
fn says_the_same_again_and_again_and_again() {
    let admission = admission(strict());
    let review = shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 50, "v2": 50}));
    let first = respond(&admission, &review);
    assert_eq!(respond(&admission, &review), first);
    let other = respond(&admission, &shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 50, "v2": 51})));
    assert_ne!(other["auditAnnotations"]["shift"], first["auditAnnotations"]["shift"]);
    // The same text in another namespace is another route.
    let mut elsewhere = review.clone();
    for side in ["object", "oldObject"] {
        elsewhere["request"][side]["metadata"]["namespace"] = json!("prod");
    }
    let elsewhere = respond(&admission, &elsewhere);
    assert!(causes(&elsewhere)[0].contains("`llm.prod`"), "{elsewhere}");
}

#[test]
fn exempt_writers_pass_and_are_counted() {
    let admission = admission(strict());
    for user in [
        CONTROL_PLANE,
        "system:serviceaccount:kong-mesh-system:kong-mesh-control-plane",
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:serviceaccount:kube-system:namespace-controller",
        "system:serviceaccount:kube-system:storage-version-migrator",
    ] {
        let review = shift(user, &json!({"v1": 90, "v2": 10}), &json!(null));
        let answer = answer(&admission, review.to_string().as_bytes());
        assert_eq!(well_formed(&answer)["allowed"], true);
        assert_eq!(answer.summary.verdict, "exempt");
    }
    let other = shift("system:serviceaccount:kuma-system:default", &json!({"v1": 90, "v2": 10}), &json!(null));
    assert_eq!(respond(&admission, &other)["allowed"], false);
}

#[test]
fn passes_what_is_not_its_business() {
    let admission = admission(strict());
    let change = shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 10, "v2": 90}));
    let edit = |pointer: &str, value: Value| {
        let mut review = change.clone();
        *review.pointer_mut(pointer).unwrap() = value;
        review
    };
    let mut status = change.clone();
    status["request"]["subResource"] = json!("status");
    let connect = edit("/request/operation", json!("CONNECT"));
    let future = edit("/request/operation", json!("LEVITATE"));
    let other_group = edit("/request/kind/group", json!("gateway.networking.k8s.io"));
    let other_kind = edit("/request/kind/kind", json!("MeshFutureThing"));
    for review in [status, connect, future, other_group, other_kind] {
        assert_eq!(respond(&admission, &review), json!({"uid": "7a9f6b1e-0001", "allowed": true}), "{review}");
    }
    assert_eq!(respond(&admission, &change)["allowed"], false);
}

#[test]
fn passes_an_object_that_says_the_same_as_before() {
    let admission = admission(strict());
    let mut review = shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 90, "v2": 10}));
    review["request"]["object"]["metadata"]["annotations"] = json!({"note": "new"});
    assert_eq!(respond(&admission, &review), json!({"uid": "7a9f6b1e-0001", "allowed": true}));
}

#[test]
fn a_label_that_puts_a_route_into_force_is_a_shift() {
    let admission = admission(strict());
    let mut review = shift(FLUX, &json!({"v2": 1}), &json!({"v2": 1}));
    review["request"]["oldObject"]["metadata"]["labels"]["kuma.io/effect"] = json!("shadow");
    assert_eq!(respond(&admission, &review)["allowed"], false);
    // Nor does a finalizer make a way around it.
    review["request"]["object"]["metadata"]["deletionTimestamp"] = json!(NOW);
    assert_eq!(respond(&admission, &review)["allowed"], false);
}

#[test]
fn lets_go_of_an_object_that_is_being_deleted() {
    let admission = admission(strict());
    let mut review = shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 90, "v2": 10}));
    review["request"]["object"]["metadata"]["deletionTimestamp"] = json!(NOW);
    review["request"]["object"]["metadata"]["labels"]["team"] = json!("other");
    assert_eq!(respond(&admission, &review)["allowed"], true);
    review["request"]["object"]["spec"] = route(&json!({"v1": 10, "v2": 90}))["spec"].clone();
    assert_eq!(respond(&admission, &review)["allowed"], false);
}

#[test]
fn people_pass_where_the_guard_is_about_automation() {
    let response =
        respond(&admission(strict()), &shift("jane", &json!({"v1": 90, "v2": 10}), &json!({"v1": 10, "v2": 90})));
    assert_eq!(response["allowed"], true);
    assert!(response["auditAnnotations"]["personal"].as_str().unwrap().contains("a person makes the change"));
}

#[test]
fn without_time_there_is_no_answer_but_a_clear_one() {
    let admission = admission(strict());
    let review = shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 10, "v2": 90})).to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(admission.answer(review.as_bytes(), Instant::now() - Duration::from_millis(1)));
    let response = well_formed(&answer);
    assert_eq!(
        (&response["status"]["code"], &response["status"]["reason"]),
        (&json!(503), &json!("ServiceUnavailable"))
    );
    assert_eq!(answer.summary.verdict, "unavailable");
}

#[test]
fn an_old_object_that_cannot_be_read_routed_nothing() {
    let admission = admission(strict());
    let mut review = shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v2": 100}));
    review["request"]["oldObject"]["spec"] = json!({"to": 7});
    assert_eq!(respond(&admission, &review)["allowed"], false);
    // Nor does it stay for ever.
    review["request"]["operation"] = json!("DELETE");
    review["request"]["object"] = Value::Null;
    assert_eq!(respond(&admission, &review)["allowed"], true);
}

#[test]
fn the_way_back_is_open_whatever_a_guard_asks_of_health() {
    let spec = json!({"caps": {"maxStep": 99}, "health": {"denySeverity": "medium"}});
    let admission = admission(json!([guard("healthy", spec)]));
    let (stable, half, all) = (json!({"v1": 100, "v2": 0}), json!({"v1": 50, "v2": 50}), json!({"v1": 0, "v2": 100}));
    let ask = |before: &Value, after: &Value, version: &str| {
        let mut review = shift(FLUX, before, after);
        review["request"]["oldObject"]["metadata"]["resourceVersion"] = version.into();
        respond(&admission, &review)
    };
    assert_eq!(ask(&stable, &half, "7")["allowed"], true);
    // A backend loses all of 50 % at once, which this guard refuses on the way forward.
    let forward = ask(&half, &all, "8");
    assert_eq!(forward["allowed"], false);
    let back = ask(&half, &stable, "8");
    assert_eq!((&back["allowed"], &back["auditAnnotations"]["rollback"]), (&json!(true), &json!("true")), "{back}");
    assert!(back["warnings"][0].as_str().unwrap().starts_with("guard `healthy`, denySeverity: "), "{back}");
    // It is on record: with the split of before it is no change that is still in flight.
    assert_eq!(ask(&stable, &half, "9")["allowed"], true);
}

/// A mirror's weights must not pass for those of the rule, however these are spelt.
#[test]
fn a_weight_is_what_it_is_however_it_is_spelt() {
    let mirror = |name: &str| {
        let backend = json!({"kind": "MeshService", "name": name, "port": 80, "weight": 50});
        json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend, "percentage": 1}})
    };
    let mut after = route(&json!({"v1": 1, "v2": 2}));
    after["spec"]["to"][0]["rules"][0]["default"]["filters"] = json!([mirror("m1"), mirror("m2")]);
    let before = route(&json!({"v1": 50, "v2": 50}));
    let text = review("UPDATE", FLUX, &before, &after).to_string();
    for spelt in [r#""weight": "#, r#""weight" :"#, r#""w\u0065ight":"#] {
        let text =
            text.replace(r#""weight":1}"#, &format!("{spelt}1}}")).replace(r#""weight":2}"#, &format!("{spelt}2}}"));
        let response = well_formed(&answer(&admission(strict()), text.as_bytes()));
        assert_eq!(response["auditAnnotations"]["shift"], "16.67", "{text}");
        assert_eq!(response["allowed"], false, "{text}");
    }
}
