//! What a handler remembers never shows in what it says.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use sluice_rules::health::Known;

/// Guards with every kind of limit that needs no history.
fn guards() -> Value {
    let caps = json!({"maxStep": 25, "maxShare": 80});
    json!([
        guard("caps", json!({"caps": caps, "approvals": {"required": 1, "groups": ["oidc:sre"]}})),
        guard("health", json!({"health": {"minScore": 70, "denySeverity": "high"}, "enforcement": "Warn"})),
    ])
}

/// One state of a route: weights of its two rules, and what is odd about it.
type State = ([u32; 4], &'static str);

fn state() -> impl Strategy<Value = State> {
    let weight = || prop_oneof![8 => 0..4_u32, 4 => 1..100_u32, 1 => any::<u32>()];
    let plain = Just("");
    let odd = select(vec!["name", "labels", "path", "mirror", "misspelt", "wrong", "loose", "redirect"]);
    ([weight(), weight(), weight(), weight()], prop_oneof![4 => plain, 1 => odd])
}

fn object(name: &str, ([a, b, c, d], odd): State) -> Value {
    let mut route = route(&json!({"chat-v1": a, "chat-v2": b}));
    let mut more = super::route(&json!({"chat-v1": c, "chat-v3": d}))["spec"]["to"][0]["rules"][0].clone();
    more["matches"][0]["path"]["value"] = json!("/more");
    let rules = route["spec"]["to"][0]["rules"].as_array_mut().unwrap();
    rules.push(more);
    let first = &mut rules[0];
    let backend = json!({"kind": "MeshService", "name": "chat-v1", "port": 80, "weight": c});
    match odd {
        "path" => first["matches"][0]["path"]["value"] = json!("no-path"),
        "mirror" => {
            first["default"]["filters"] = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": backend}}]);
        }
        "redirect" => {
            first["default"]["filters"] = json!([{"type": "RequestRedirect", "requestRedirect": {"hostname": "a.b"}}]);
        }
        "misspelt" => first["default"]["backendRefs"][0]["wieght"] = json!(c),
        "wrong" => first["default"]["backendRefs"][0]["weight"] = json!(f64::from(c) - 0.5),
        "labels" => route["metadata"]["labels"]["kuma.io/effect"] = json!("shadow"),
        _ => {}
    }
    // Without a version it shows nothing that history could take note of.
    route["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    route["metadata"]["name"] = if odd == "name" { json!("Not_a.name") } else { json!(name) };
    route
}

/// A mesh in which one backend serves nobody.
fn known() -> Known {
    let mut known = Known::default();
    known.complete = true;
    for (name, total) in [("llm", 1), ("chat-v1", 1), ("chat-v2", 0)] {
        known.insert(&json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshService",
            "metadata": {"name": name, "namespace": "demo", "labels": {"kuma.io/mesh": "default"}},
            "spec": {"ports": [{"port": 80, "targetPort": 80, "appProtocol": "http"}]},
            "status": {"dataplaneProxies": {"total": total, "connected": total, "healthy": total}}}));
    }
    known
}

fn handler() -> Admission {
    let admission = admission(guards());
    admission.world.update(|world| world.known = known().into());
    admission
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_handler_that_remembers_says_what_a_new_one_says(
        states in proptest::collection::vec(state(), 2..9),
        writes in proptest::collection::vec((0..9_usize, 0..9_usize, select(vec!["a", "b"])), 1..40),
    ) {
        let remembers = handler();
        for (old, new, name) in writes {
            let side = |at: usize| states.get(at).map_or(Value::Null, |state| object(name, *state));
            let (before, after) = (side(old), side(new));
            let operation = match (&before, &after) {
                (Value::Null, Value::Null) => continue,
                (Value::Null, _) => "CREATE",
                (_, Value::Null) => "DELETE",
                _ => "UPDATE",
            };
            let mut review = review(operation, FLUX, &before, &after);
            review["request"]["dryRun"] = json!(true);
            let mut text = review.to_string();
            if states.get(new).is_some_and(|state| state.1 == "loose") {
                text = text.replace(r#""weight":"#, r#""weight": "#);
            }
            let says = |admission: &Admission| {
                let answer = answer(admission, text.as_bytes());
                (well_formed(&answer), answer.summary.verdict, answer.summary.reasons)
            };
            prop_assert_eq!(says(&remembers), says(&handler()), "{}", text);
        }
    }
}
