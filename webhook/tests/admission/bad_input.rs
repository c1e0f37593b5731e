//! What no API server should send, and somebody will.

use super::*;
use proptest::prelude::*;

fn strict() -> Admission {
    admission(json!([guard("strict", json!({"caps": {"maxStep": 1}}))]))
}

/// The HTTP status and reason of an answer without a uid.
fn without_uid(body: &[u8]) -> String {
    let answer = answer(&strict(), body);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.summary.verdict, "malformed");
    let status: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&status["kind"], &status["code"], &status["status"]),
        (&json!("Status"), &json!(400), &json!("Failure"))
    );
    status["message"].as_str().unwrap().to_owned()
}

/// The message of a well-formed denial with the uid `u`.
fn denied(body: &[u8]) -> String {
    let answer = answer(&strict(), body);
    let response = well_formed(&answer);
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("u"), &json!(false)));
    response["status"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_body_without_a_uid_gets_an_http_status_with_a_reason() {
    for (body, reason) in [
        ("", "EOF while parsing a value"),
        ("not JSON", "the body is no AdmissionReview: expected ident"),
        ("null", "invalid type: null"),
        ("[]", "the body is no AdmissionReview: invalid length"),
        ("{}", "the AdmissionReview has no `request`"),
        (r#"{"apiVersion":"admission.k8s.io/v1","request":null}"#, "has no `request`"),
        (r#"{"apiVersion":"admission.k8s.io/v1","request":{}}"#, "has no `request.uid`"),
        (r#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":""}}"#, "has no `request.uid`"),
        (r#"{"apiVersion":"admission.k8s.io/v1beta1","request":{}}"#, "has no `request.uid`"),
        (r#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":7}}"#, "invalid type: integer `7`"),
        ("\u{feff}{}", "expected value"),
    ] {
        let message = without_uid(body.as_bytes());
        assert!(message.contains(reason), "{body}: {message}");
    }
    assert!(without_uid(b"{\"request\":\xff").contains("no AdmissionReview"));
}

#[test]
fn a_broken_review_is_answered_by_its_uid() {
    for (body, reason) in [
        (r#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u","#, "no AdmissionReview: EOF"),
        (r#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u","name":[]}}"#, "invalid type: sequence"),
        (
            r#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u","name":"a","name":"b"}}"#,
            "duplicate field `name`",
        ),
        (r#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u","uid":"v"}}"#, "duplicate field `uid`"),
        (r#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u"}} trailing"#, "trailing characters"),
        (r#"{"apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"u"}}"#, "asked in `admission.k8s.io/v1beta1`"),
        (r#"{"request":{"uid":"u"}}"#, "asked in no version at all"),
    ] {
        let message = denied(body.as_bytes());
        assert!(message.contains(reason), "{body}: {message}");
    }
}

fn of_route(operation: &str, rest: &str) -> String {
    let kind = r#"{"group":"kuma.io","version":"v1alpha1","kind":"MeshHTTPRoute"}"#;
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{kind},"operation":"{operation}","name":"a"{rest}}}}}"#
    )
}

#[test]
fn a_side_that_must_be_there_and_is_not_is_named() {
    for (operation, rest, reason) in [
        ("CREATE", "", "CREATE without `request.object`"),
        ("CREATE", r#","object":null"#, "CREATE without `request.object`"),
        ("UPDATE", r#","object":{}"#, "UPDATE without `request.oldObject`"),
        ("UPDATE", r#","oldObject":{}"#, "UPDATE without `request.object`"),
        ("DELETE", r#","object":{}"#, "DELETE without `request.oldObject`"),
        ("CREATE", r#","object":7"#, "the object cannot be read"),
        ("CREATE", r#","object":{"metadata":{"name":7}}"#, "the object cannot be read"),
        ("CREATE", r#","object":{"spec":{},"spec":{}}"#, "duplicate field `spec`"),
    ] {
        let message = denied(of_route(operation, rest).as_bytes());
        assert!(message.contains(reason), "{operation} {rest}: {message}");
    }
}

#[test]
fn an_object_of_another_kind_may_have_any_shape() {
    let body = r#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u","operation":"CREATE","object":[7]}}"#;
    assert_eq!(well_formed(&answer(&strict(), body.as_bytes()))["allowed"], true);
}

fn with_refs(refs: &str) -> String {
    let spec = format!(
        r#"{{"to":[{{"targetRef":{{"kind":"MeshService","name":"b"}},"rules":[{{"default":{{"backendRefs":[{refs}]}}}}]}}]}}"#
    );
    of_route("CREATE", &format!(r#","object":{{"metadata":{{"name":"a","namespace":"demo"}},"spec":{spec}}}"#))
}

#[test]
fn weights_that_are_none_are_named_with_their_field() {
    let body = with_refs(
        r#"{"weight":-1},{"weight":1.5},{"weight":4294967296},{"weight":"90"},{"weight":1e400},{"weight":true}"#,
    );
    let response = well_formed(&answer(&strict(), body.as_bytes()));
    let causes = causes(&response);
    let refs = "FieldValueInvalid spec.to[0].rules[0].default.backendRefs";
    // A number that no reader can hold breaks the JSON; it is reported alone.
    assert!(causes[0].contains("number out of range"), "{causes:?}");
    let body = with_refs(r#"{"weight":-1},{"weight":1.5},{"weight":4294967296},{"weight":"90"},{"weight":true}"#);
    let response = well_formed(&answer(&strict(), body.as_bytes()));
    let causes = super::causes(&response);
    let range = "a weight is a whole number from 0 to 4294967295";
    assert_eq!(causes[0], format!("{refs}[0].weight: {range}, not -1"));
    assert_eq!(causes[1], format!("{refs}[1].weight: {range}, not 1.5"));
    assert_eq!(causes[2], format!("{refs}[2].weight: {range}, not 4294967296"));
    assert_eq!(causes[3], format!("{refs}[3].weight: {range}, not the text \"90\""));
    assert!(causes[4].starts_with(&format!("{refs}[4].weight: invalid type: boolean `true`")), "{causes:?}");
    assert_eq!(response["status"]["code"], 422);
}

#[test]
fn a_weight_that_is_there_twice_is_refused() {
    let message = denied(with_refs(r#"{"name":"x","weight":1,"weight":100}"#).as_bytes());
    assert!(message.contains("duplicate field `weight`"), "{message}");
}

#[test]
fn nesting_is_answered_wherever_it_is() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let maps = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    for nested in [&deep, &maps] {
        let message = denied(with_refs(nested).as_bytes());
        assert!(message.contains("recursion limit exceeded"), "{message}");
        // Where nobody looks it does no harm.
        let body = of_route("CONNECT", &format!(r#","extra":{nested}"#));
        assert_eq!(well_formed(&answer(&strict(), body.as_bytes()))["allowed"], true);
        let message = denied(format!(r#"{{"request":{{"uid":"u","name":{nested}}}}}"#).as_bytes());
        assert!(message.contains("no AdmissionReview"), "{message}");
        without_uid(nested.as_bytes());
        without_uid(&nested.as_bytes()[..9_000]);
    }
}

#[test]
fn large_objects_are_answered() {
    let filler = "x".repeat(1_400_000);
    let mut review = shift(FLUX, &json!({"v1": 90, "v2": 10}), &json!({"v1": 50, "v2": 50}));
    for side in ["object", "oldObject"] {
        review["request"][side]["metadata"]["annotations"] = json!({"fat": filler});
    }
    assert_eq!(respond(&strict(), &review)["allowed"], false);
    let body = format!(r#"{{"request":{{"uid":"u","fat":"{}""#, "x".repeat(8_000_000));
    assert!(denied(body.as_bytes()).contains("no AdmissionReview: EOF"));
}

#[test]
fn control_characters_stay_out_of_messages() {
    let mut review = shift("eve\u{1b}[2J\n", &json!({"v1": 90, "v2": 10}), &json!({"v1": 50, "v2": 50}));
    review["request"]["name"] = json!("a\u{7}\u{202e}b");
    review["request"]["userInfo"]["groups"] = json!(["system:serviceaccount:x\r\n"]);
    for side in ["object", "oldObject"] {
        review["request"][side]["spec"]["to"][0]["targetRef"]["name"] = json!("llm\u{0}\u{1b}]0;x\u{7}");
    }
    let response = respond(&strict(), &review);
    assert_eq!(response["status"]["details"]["name"], "a  b");
    let kind = r#"{"apiVersion":"admission.k8s.io/v1\u0007","request":{"uid":"u"}}"#;
    assert!(denied(kind.as_bytes()).contains("asked in `admission.k8s.io/v1 `"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_an_answer(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let answer = answer(&strict(), &body);
        prop_assert!(answer.status == 400 || answer.status == 200);
    }

    #[test]
    fn a_damaged_review_gets_a_well_formed_answer(
        pick in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..6),
    ) {
        let lines = recordings::reviews();
        let mut body = pick.get(lines).to_string().into_bytes();
        let uid = sluice_webhook::review::uid(&body).unwrap();
        for (place, byte, how) in edits {
            if body.is_empty() {
                break;
            }
            let place = place.index(body.len());
            match how {
                0 => body[place] = byte,
                1 => body.insert(place, byte),
                2 => drop(body.remove(place)),
                _ => body.truncate(place),
            }
        }
        let answer = answer(&strict(), &body);
        if answer.status == 200 {
            let response = well_formed(&answer);
            if sluice_webhook::review::uid(&body).as_deref() == Some(&uid) {
                prop_assert_eq!(&response["uid"], &json!(uid));
            }
        } else {
            prop_assert_eq!(answer.status, 400);
        }
    }

    #[test]
    fn a_review_with_a_strange_value_gets_a_well_formed_answer(
        pick in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        value in prop::sample::select(vec!["null", "-1", "1.5", "4294967296", "\"90\"", "[]", "{}", "[[]]", "\"\\u0000\"", "true"]),
    ) {
        let lines = recordings::reviews();
        let mut review = pick.get(lines).clone();
        let mut places = Vec::new();
        pointers(&review["request"], "/request", &mut places);
        let pointer = place.get(&places);
        *review.pointer_mut(pointer).unwrap() = serde_json::from_str(value).unwrap();
        let answer = answer(&strict(), review.to_string().as_bytes());
        if answer.status == 200 {
            well_formed(&answer);
        } else {
            prop_assert_eq!(pointer, "/request/uid");
        }
    }
}

fn pointers(value: &Value, at: &str, places: &mut Vec<String>) {
    let mut child = |key: String, value: &Value| {
        let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        pointers(value, &at, places);
        places.push(at);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| child(key.clone(), value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| child(index.to_string(), value)),
        _ => {}
    }
}
