//! What one review costs without HTTP: `cargo run --release --example admission_cost`.
//!
//! A row answers reviews in which one weight changes, each from what the one before asked for, one after the other in one
//! thread; the rows `again` answer one review again and again. Ten guards, one of which is about the service. Under each
//! pair stands what the parts of a first answer cost. At the end stands what each part of a route costs as routes grow:
//! it should stay the same. The time is the CPU time of the best round.

use serde_json::{Value, json};
use sluice_rules::guard::ShiftGuard;
use sluice_rules::health::{self, Known};
use sluice_rules::policy::{Identity, Policy};
use sluice_rules::split;
use sluice_rules::validate::{self, Kuma};
use sluice_webhook::admission::Admission;
use sluice_webhook::ledger::{Ledger, Memory};
use sluice_webhook::review::{self, Object};
use sluice_webhook::world::Shared;
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rounds; the best one counts, the others had company on the machine.
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let guards = (0..10).map(guard).collect::<Vec<_>>();
    for (name, rules, reviews, different) in [
        ("standard", 3, 2000, true),
        ("standard, again", 3, 2000, false),
        ("wide", 200, 200, true),
        ("wide, again", 200, 200, false),
    ] {
        let bodies: Vec<_> = (0..if different { reviews } else { 1 }).map(|number| review(rules, number)).collect();
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let admission = admission(&guards);
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let deadline = Instant::now() + Duration::from_secs(600);
            let start = cpu()?;
            runtime.block_on(async {
                for number in 0..reviews {
                    let answer = admission.answer(&bodies[number % bodies.len()], deadline).await;
                    assert_eq!(answer.status, 200);
                }
            });
            best = best.min((cpu()? - start) / reviews as f64);
        }
        println!("{name:<16} {:>7} bytes {:>8.1} us", bodies[0].len(), best * 1e6);
        if !different {
            parts(&bodies[0])?;
        }
    }
    println!("a first answer, us per");
    for (what, grown) in [("backend", backends as Grown), ("rule", rules), ("destination", destinations)] {
        let each: Vec<_> =
            [500, 5_000].into_iter().map(|count| first(&guards, count, grown)).collect::<Result<_, _>>()?;
        println!("  {what:<12} of 500: {:.1}, of 5,000: {:.1}", each[0], each[1]);
    }
    Ok(())
}

/// A spec with so many parts; the number tells two of them apart.
type Grown = fn(usize, usize) -> Value;

fn backends(count: usize, number: usize) -> Value {
    let refs = (0..count).map(
        |at| json!({"kind": "MeshService", "name": format!("v{at}"), "port": 80, "weight": 1 + (at + number) % 7}),
    );
    json!({"to": [{"targetRef": {"kind": "MeshService", "name": "llm"}, "rules": [{"default": {"backendRefs": refs.collect::<Value>()}}]}]})
}

fn rules(count: usize, number: usize) -> Value {
    let rule = |at: usize| json!({"matches": [{"path": {"type": "PathPrefix", "value": format!("/{at}")}}], "default": halves(number)});
    json!({"to": [{"targetRef": {"kind": "MeshService", "name": "llm"}, "rules": (0..count).map(rule).collect::<Value>()}]})
}

fn destinations(count: usize, number: usize) -> Value {
    let to = |at: usize| json!({"targetRef": {"kind": "MeshService", "name": format!("llm-{at}")}, "rules": [{"default": halves(number)}]});
    json!({"to": (0..count).map(to).collect::<Value>()})
}

fn halves(number: usize) -> Value {
    let backend =
        |name: &str, weight: usize| json!({"kind": "MeshService", "name": name, "port": 80, "weight": weight});
    json!({"backendRefs": [backend("v1", 50 + number), backend("v2", 50 - number)]})
}

/// What one part of a route costs when a handler sees it for the first time, in microseconds.
fn first(guards: &[Value], count: usize, grown: Grown) -> Result<f64, Box<dyn Error>> {
    let body = update(&grown(count, 0), &grown(count, 5), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let admission = admission(guards);
        let start = cpu()?;
        let answer = runtime.block_on(admission.answer(&body, Instant::now() + Duration::from_secs(600)));
        assert_eq!(answer.status, 200);
        best = best.min(cpu()? - start);
    }
    Ok(best * 1e6 / count as f64)
}

/// A handler with these guards that has seen nothing yet.
fn admission(guards: &[Value]) -> Admission {
    let world = Shared::default();
    world.update(|world| world.guards = guards.iter().filter_map(|guard| ShiftGuard::read(guard).ok()).collect());
    Admission::new(world, Ledger::Memory(Memory::default()))
}

/// What the parts of a first answer cost.
fn parts(body: &[u8]) -> Result<(), Box<dyn Error>> {
    let review = review::read(body).map_err(|_| "no review")?;
    let request = review.request.ok_or("no request")?;
    let (old, new) = (request.old_object.ok_or("no old object")?, request.object.ok_or("no object")?);
    let (kuma, known) = (Kuma::default(), Known::default());
    let read = |object: &Object| {
        let identity = Identity {
            kind: "MeshHTTPRoute".to_owned(),
            mesh: "default".to_owned(),
            namespace: Some("demo".to_owned()),
            name: "llm-split".to_owned(),
        };
        Policy::of_spec(identity, object.labels(), object.spec()).map_err(|_| "no policy")
    };
    let (old, policy) = (read(&old)?, read(&new)?);
    let (before, after) = (split::splits(&old).0, split::splits(&policy).0);
    let change = split::change(&before, &after);
    let document = || -> Result<Value, serde_json::Error> {
        let spec: Value = serde_json::from_str(new.spec())?;
        let metadata = json!({"name": "llm-split", "namespace": "demo", "labels": new.labels()});
        Ok(json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute", "metadata": metadata, "spec": spec}))
    };
    let value = document()?;
    time("review", || drop(black_box(review::read(body))))?;
    time("one typed spec", || drop(black_box(read(&new))))?;
    time("its splits", || drop(black_box(split::splits(&policy))))?;
    time("the change", || drop(black_box(split::change(&before, &after))))?;
    time("a digest", || drop(black_box(split::digest(&after))))?;
    time("the document", || drop(black_box(document())))?;
    time("validation", || drop(black_box(validate::verdict(&value, &kuma))))?;
    time("health", || drop(black_box(health::examine(&value, &known, &kuma).health(Some(&change)))))
}

fn time(name: &str, work: impl Fn()) -> Result<(), Box<dyn Error>> {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let (start, mut count, mut spent) = (cpu()?, 0, 0.0);
        // The kernel brings its figure up to date every few milliseconds.
        while spent < 0.03 {
            for _ in 0..20 {
                work();
            }
            count += 20;
            spent = cpu()? - start;
        }
        best = best.min(spent / f64::from(count));
    }
    println!("  {name:<20} {:>16.1} us", best * 1e6);
    Ok(())
}

/// The time that this thread had on a CPU, in seconds.
fn cpu() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().ok_or("no schedstat")?.parse()?;
    Ok(nanoseconds / 1e9)
}

/// Ten guards, of which one is about the service.
fn guard(number: usize) -> Value {
    let service = if number == 7 { "llm*".to_owned() } else { format!("team-{number}-*") };
    json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard", "metadata": {"name": format!("guard-{number}")},
    "spec": {
        "match": {"services": [service]},
        "caps": {"maxStep": 50, "perWindow": {"shift": 1e9, "window": "1h"}},
        "freeze": [{"cron": "0 18 29 2 *", "duration": "1h", "timeZone": "Europe/Berlin"}],
        "approvals": {"groups": ["sre"]},
    }})
}

fn review(rules: usize, number: usize) -> Vec<u8> {
    let weight = |number: usize| 10 + if number.is_multiple_of(2) { 0 } else { 1 + (number / 2) % 30 };
    let spec = |weight: usize| {
        let rules: Vec<_> = (0..rules)
            .map(|rule| {
                let canary = if rule == rules / 2 { weight } else { 10 };
                json!({"matches": [{"path": {"type": "PathPrefix", "value": format!("/v{}/summaries/of/documents", rule + 1)}, "method": "POST"}],
                    "default": {"backendRefs": [
                        {"kind": "MeshService", "name": "llm-v1", "namespace": "demo", "port": 8080, "weight": 100 - canary},
                        {"kind": "MeshService", "name": "llm-v2", "namespace": "demo", "port": 8080, "weight": canary}]}})
            })
            .collect();
        json!({"targetRef": {"kind": "Dataplane", "labels": {"app": "web"}}, "to": [{"rules": rules, "targetRef": {"kind": "MeshService", "name": "llm", "namespace": "demo"}}]})
    };
    update(&spec(weight(number)), &spec(weight(number + 1)), number)
}

/// A review of a write of a route, as an API server sends it.
fn update(old: &Value, new: &Value, number: usize) -> Vec<u8> {
    let object = |spec: &Value, version: usize| {
        let fields = json!({"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/last-applied-configuration": {}}, "f:labels": {".": {}, "f:kuma.io/mesh": {}}},
            "f:spec": {".": {}, "f:targetRef": {".": {}, "f:kind": {}, "f:labels": {".": {}, "f:app": {}}}, "f:to": {}}});
        let applied = json!({"spec": spec}).to_string();
        let applied = if applied.len() < 2_000 { applied } else { String::new() };
        json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute", "metadata": {
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied},
            "creationTimestamp": "2026-11-24T22:56:11Z", "generation": version,
            "labels": {"k8s.kuma.io/namespace": "demo", "kuma.io/env": "kubernetes", "kuma.io/mesh": "default", "kuma.io/origin": "zone", "kuma.io/policy-role": "producer", "kuma.io/zone": "zone-1"},
            "managedFields": [{"apiVersion": "kuma.io/v1alpha1", "fieldsType": "FieldsV1", "fieldsV1": fields, "manager": "kubectl-client-side-apply", "operation": "Update", "time": "2026-11-24T22:56:11Z"}],
            "name": "llm-split", "namespace": "demo", "resourceVersion": version.to_string(), "uid": "346fae31-9162-4701-a810-35fe4a32e0be"},
            "spec": spec})
    };
    let kind = json!({"group": "kuma.io", "version": "v1alpha1", "kind": "MeshHTTPRoute"});
    let resource = json!({"group": "kuma.io", "version": "v1alpha1", "resource": "meshhttproutes"});
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": format!("f0b2fc5b-81ac-47c3-beed-{number:012}"), "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": "llm-split", "namespace": "demo", "operation": "UPDATE",
        "userInfo": {"username": "system:serviceaccount:flux-system:kustomize-controller", "groups": ["system:serviceaccounts", "system:authenticated"]},
        "object": object(new, 100 + number), "oldObject": object(old, 99 + number), "dryRun": false,
        "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kustomize-controller", "fieldValidation": "Strict"}}})
    .to_string()
    .into_bytes()
}
