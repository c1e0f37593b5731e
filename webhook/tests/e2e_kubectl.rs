//! What people and automation do with kubectl against a real API server, and what they are told. Each story is kept as
//! the terminal shows it, in `snapshots/`; `INSTA_UPDATE=always cargo test -p sluice-webhook --test e2e_kubectl` writes
//! them anew.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

mod support {
    pub(crate) mod certificates;
    pub(crate) mod cluster;
    pub(crate) mod e2e;
    pub(crate) mod process;
}

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::cluster::until;
use support::e2e::{ANNA, ARGOCD, BEN, CARL, Story, approval, digest, fixture, guard, route};

#[tokio::test(flavor = "multi_thread")]
async fn a_step_beyond_the_cap_needs_an_approval_of_its_very_digest() {
    let mut story = Story::begin("steps").await;
    story.given(&route("summarize", 5)).await;
    // The first of all by name: it is the one that an account is automation to.
    story.guard("abrupt", "caps: {maxStep: 10}\napprovals: {groups: ['oidc:sre'], maxAge: 24h}").await;

    let told = story.applies("a step within the cap", &ARGOCD, "canary-10.yaml", &route("summarize", 10)).await;
    assert!(told.success);
    let told = story.applies("a step over the cap", &ARGOCD, "canary-40.yaml", &route("summarize", 40)).await;
    assert!(!told.success);
    let digest = digest(&told);
    let wrong = digest.chars().rev().collect::<String>();
    for (what, account, file, document) in [
        ("automation approves nothing", &ARGOCD, "approval.yaml", approval("by-argocd", &ARGOCD, &digest)),
        ("somebody outside the group", &BEN, "approval.yaml", approval("by-ben", &BEN, &digest)),
        (
            "who claims a group",
            &BEN,
            "approval.yaml",
            approval("by-ben", &BEN, &digest).replace("oidc:dev", "oidc:sre"),
        ),
        ("in the name of another", &ANNA, "approval.yaml", approval("by-carl", &CARL, &digest)),
        ("half a digest", &ANNA, "approval.yaml", approval("half", &ANNA, &digest[..12])),
    ] {
        assert!(!story.applies(what, account, file, &document).await.success, "{what}");
    }
    let told = story.applies("a wrong digest", &ANNA, "approval.yaml", &approval("wrong", &ANNA, &wrong)).await;
    assert!(told.success);
    let told = story.applies("which lifts nothing", &ARGOCD, "canary-40.yaml", &route("summarize", 40)).await;
    assert!(!told.success);
    let told = story.applies("the right digest", &ANNA, "approval.yaml", &approval("right", &ANNA, &digest)).await;
    assert!(told.success);
    story.would_pass(&ARGOCD, &route("summarize", 40)).await;
    let told = story.applies("which lets another step wait", &ARGOCD, "canary-41.yaml", &route("summarize", 41)).await;
    assert!(!told.success);
    let told = story.applies("and this one pass", &ARGOCD, "canary-40.yaml", &route("summarize", 40)).await;
    assert!(told.success);
    let arguments = ["patch", "shiftapproval", "right", "--type=merge", "-p", r#"{"spec":{"reason":"or not"}}"#];
    assert!(!story.kubectl("an approval never changes", &ANNA, &arguments, "").await.success);
    assert_eq!(story.tells_the_ledger().await.lines().count(), 2);
    insta::assert_snapshot!(story.end());
}

/// A freeze from an hour ago to an hour from now, whatever the time.
fn freeze() -> String {
    let since = (Timestamp::now() - SignedDuration::from_hours(1)).to_zoned(jiff::tz::TimeZone::UTC);
    let (minute, hour, day, month) = (since.minute(), since.hour(), since.day(), since.month());
    format!("freeze: [{{cron: '{minute} {hour} {day} {month} *', duration: 2h, reason: release week}}]")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_open_in_a_freeze() {
    let mut story = Story::begin("freeze").await;
    story.given(&route("summarize", 5)).await;
    story.guard("half", "caps: {maxStep: 50}").await;
    let told = story.applies("a step before the freeze", &ARGOCD, "canary-15.yaml", &route("summarize", 15)).await;
    assert!(told.success);
    story.guard("release-week", &freeze()).await;
    let told = story.applies("no step forward", &ARGOCD, "canary-16.yaml", &route("summarize", 16)).await;
    assert!(!told.success);
    let told = story.applies("back half of the way", &ARGOCD, "canary-10.yaml", &route("summarize", 10)).await;
    assert!(told.success);
    let told = story.applies("all of the way", &ARGOCD, "canary-5.yaml", &route("summarize", 5)).await;
    assert!(told.success);
    let told = story.applies("and not beyond it", &ARGOCD, "canary-4.yaml", &route("summarize", 4)).await;
    assert!(!told.success);
    story.tells_the_ledger().await;
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_steps_are_one_large_one() {
    let mut story = Story::begin("window").await;
    story.given(&route("summarize", 5)).await;
    story.guard("slowly", "caps: {perWindow: {shift: 12, window: 1h}}").await;
    for canary in [10, 15, 20, 17] {
        let file = format!("canary-{canary}.yaml");
        let told = story.applies("one more step", &ARGOCD, &file, &route("summarize", canary)).await;
        assert_eq!(told.success, canary != 20);
    }
    assert!(!story.applies("the window is full", &ARGOCD, "canary-18.yaml", &route("summarize", 18)).await.success);
    story.tells_the_ledger().await;
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_shifts_keep_their_distance() {
    let mut story = Story::begin("interval").await;
    story.given(&route("summarize", 5)).await;
    story.guard("patience", "caps: {maxStep: 50, minInterval: 10m}").await;
    assert!(story.applies("a step", &ARGOCD, "canary-6.yaml", &route("summarize", 6)).await.success);
    assert!(!story.applies("another at once", &ARGOCD, "canary-7.yaml", &route("summarize", 7)).await.success);
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_answers_alike_and_reserves_nothing() {
    let mut story = Story::begin("dry-run").await;
    story.given(&route("summarize", 5)).await;
    story.guard("slowly", "caps: {perWindow: {shift: 12, window: 1h}}").await;
    for (canary, passes) in [(15, true), (15, true), (13, true), (18, false)] {
        let file = format!("canary-{canary}.yaml");
        let dry = ["apply", "--server-side", "--dry-run=server", "-f", &file];
        let told = story.kubectl("what if", &ARGOCD, &dry, &route("summarize", canary)).await;
        assert_eq!(told.success, passes);
    }
    assert_eq!(story.tells_the_ledger().await, "");
    assert!(!story.applies("in earnest", &ARGOCD, "canary-18.yaml", &route("summarize", 18)).await.success);
    assert!(story.applies("in earnest", &ARGOCD, "canary-15.yaml", &route("summarize", 15)).await.success);
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_reviews_of_one_apply_count_once() {
    let mut story = Story::begin("gitops").await;
    // Server-side apply over what client-side apply left asks several times.
    let told = story.quietly(&ANNA, &["apply", "-f", "-"], &route("summarize", 5)).await;
    assert!(told.success, "{}", told.err);
    story.guard("slowly", "caps: {perWindow: {shift: 12, window: 1h}}").await;
    // And a second registration asks about everything once more.
    let told =
        story.quietly(&ANNA, &["get", "validatingwebhookconfiguration", "sluice-webhook", "-o", "json"], "").await;
    let registered: Value = serde_json::from_str(&told.out).unwrap();
    let mut again = registered["webhooks"][0].clone();
    again["name"] = "again.example.com".into();
    again["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": "gitops"}});
    let configuration = json!({
        "apiVersion": registered["apiVersion"], "kind": registered["kind"],
        "metadata": {"name": "again"}, "webhooks": [again],
    });
    story.given(&configuration.to_string()).await;
    let dry = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
    until("the second registration is in force", async || {
        let log = story.stage.audit_log();
        story.quietly(&ANNA, &dry, &route("probe", 5)).await.success && log.contains("again.example.com/shift")
    })
    .await;
    let arguments = ["apply", "--server-side", "--force-conflicts", "--field-manager=argocd", "-f", "canary-15.yaml"];
    let told = story.kubectl("takes the route over", &ARGOCD, &arguments, &route("summarize", 15)).await;
    assert!(told.success, "{}", told.err);
    let audited = story.stage.audited("gitops", "summarize", "again.example.com/shift").await;
    assert_eq!(audited["again.example.com/shift"], audited["shifts.sluice.dev/shift"]);
    let arguments = ["apply", "--server-side", "--field-manager=argocd", "-f", "canary-15.yaml"];
    let told = story.kubectl("the same again", &ARGOCD, &arguments, &route("summarize", 15)).await;
    assert!(told.success, "{}", told.err);
    assert_eq!(story.tells_the_ledger().await.lines().count(), 1);
    let arguments = ["apply", "--server-side", "--field-manager=argocd", "-f", "canary-17.yaml"];
    let told = story.kubectl("what is left of the window", &ARGOCD, &arguments, &route("summarize", 17)).await;
    assert!(told.success, "{}", told.err);
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_bound_where_a_guard_says_so_and_nobody_approves_their_own_change() {
    let mut story = Story::begin("people").await;
    story.given(&route("summarize", 5)).await;
    story.guard("machines", "caps: {maxStep: 10}").await;
    let told = story.applies("a person's own step", &ANNA, "canary-30.yaml", &route("summarize", 30)).await;
    assert!(told.success);
    let spec =
        "automation: {humanNeedsApproval: true}\ncaps: {maxStep: 10}\napprovals: {groups: ['oidc:sre'], maxAge: 24h}";
    story.guard("everybody", spec).await;
    let told = story.applies("people are bound", &ANNA, "canary-60.yaml", &route("summarize", 60)).await;
    assert!(!told.success);
    let digest = digest(&told);
    let own = approval("own", &ANNA, &digest);
    assert!(story.applies("one's own approval", &ANNA, "approval.yaml", &own).await.success);
    // Somebody else may build on it: then it is known, and still not enough for its author.
    story.would_pass(&CARL, &route("summarize", 60)).await;
    let told = story.applies("does not help", &ANNA, "canary-60.yaml", &route("summarize", 60)).await;
    assert!(!told.success);
    let other = approval("other", &CARL, &digest);
    assert!(story.applies("a colleague's", &CARL, "approval.yaml", &other).await.success);
    story.would_pass(&ANNA, &route("summarize", 60)).await;
    let told = story.applies("does", &ANNA, "canary-60.yaml", &route("summarize", 60)).await;
    assert!(told.success);
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn to_delete_and_to_create_moves_traffic() {
    let mut story = Story::begin("deletion").await;
    story.given(&route("summarize", 5)).await;
    story.guard("slowly", "caps: {maxStep: 10, perWindow: {shift: 12, window: 1h}}").await;
    let delete = ["delete", "meshhttproute", "summarize"];
    let told = story.kubectl("a small canary goes", &ARGOCD, &delete, "").await;
    assert!(told.success, "{}", told.err);
    let told = story.applies("comes back larger", &ARGOCD, "canary-11.yaml", &route("summarize", 11)).await;
    assert!(!told.success);
    let told = story.applies("as another route", &ARGOCD, "canary-9.yaml", &route("other", 9)).await;
    assert!(!told.success);
    let told = story.applies("as it was", &ARGOCD, "canary-5.yaml", &route("summarize", 5)).await;
    assert!(told.success, "{}", told.err);
    let told = story
        .kubectl(
            "a person's step",
            &ANNA,
            &["apply", "--server-side", "--force-conflicts", "-f", "canary-40.yaml"],
            &route("summarize", 40),
        )
        .await;
    assert!(told.success, "{}", told.err);
    story.tells_the_ledger().await;
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_leads_away_is_not_simply_deleted() {
    let mut story = Story::begin("deletion-far").await;
    story.given(&route("summarize", 40)).await;
    story.guard("slowly", "caps: {maxStep: 10}").await;
    let delete = ["delete", "meshhttproute", "summarize"];
    assert!(!story.kubectl("40 % at once", &ARGOCD, &delete, "").await.success);
    // As the API server deletes a collection: the review has no name.
    let all = ["delete", "--raw", "/apis/kuma.io/v1alpha1/namespaces/deletion-far/meshhttproutes"];
    assert!(!story.kubectl("all of them", &ARGOCD, &all, "").await.success);
    let told = story.quietly(&ANNA, &["get", "meshhttproutes", "-o", "name"], "").await;
    assert_eq!(told.out, "meshhttproute.kuma.io/summarize\n");
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_warns_or_keeps_a_record_only() {
    let mut story = Story::begin("warn").await;
    story.given(&route("summarize", 5)).await;
    story.guard("advice", "enforcement: Warn\ncaps: {maxStep: 10}").await;
    assert!(story.applies("a warning", &ARGOCD, "canary-30.yaml", &route("summarize", 30)).await.success);
    let audited = story.stage.audited("warn", "summarize", "shifts.sluice.dev/shift").await;
    assert_eq!(audited["shifts.sluice.dev/decision"], "warned");
    assert_eq!(audited["shifts.sluice.dev/guards"], "advice-warn/maxStep");

    let mut quiet = Story::begin("audit").await;
    quiet.given(&route("summarize", 5)).await;
    let record = guard("record", "match: {namespaces: [audit]}\nenforcement: Audit\ncaps: {maxStep: 10}");
    quiet.given(&record).await;
    let dry = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
    until("the guard is in force", async || {
        assert!(quiet.quietly(&ARGOCD, &dry, &route("probe", 100)).await.success);
        let probed = quiet.stage.audited("audit", "probe", "shifts.sluice.dev/decision").await;
        !probed["shifts.sluice.dev/audit"].is_null()
    })
    .await;
    let told = quiet.applies("not a word", &ARGOCD, "canary-30.yaml", &route("summarize", 30)).await;
    assert!(told.success && !told.err.contains("record"), "{}", told.err);
    let audited = quiet.stage.audited("audit", "summarize", "shifts.sluice.dev/audit").await;
    quiet.note("the audit log", &serde_json::to_string_pretty(&ours(&audited)).unwrap());
    insta::assert_snapshot!(story.end() + &quiet.end());
}

/// The annotations that are the webhook's.
fn ours(annotations: &Value) -> Value {
    let all = annotations.as_object().unwrap().clone();
    all.into_iter().filter(|(key, _)| key.contains("sluice.dev/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_that_contradict_are_refused_with_both_names() {
    let mut story = Story::begin("guards").await;
    let one = "match: {namespaces: [guards]}\napprovals: {groups: ['oidc:sre'], maxAge: 24h}\ncaps: {maxStep: 10}";
    story.given(&guard("asks", one)).await;
    let other = "match: {namespaces: [guards]}\nautomation: {subjects: ['oidc:sre']}\ncaps: {maxStep: 10}";
    let dry = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
    until("the first is known", async || !story.quietly(&ANNA, &dry, &guard("binds", other)).await.success).await;
    let told = story.applies("one asks whom the other binds", &ANNA, "guard.yaml", &guard("binds", other)).await;
    assert!(!told.success);
    let odd = guard(
        "odd",
        "caps: {maxStep: 50, perWindow: {shift: 12, window: 1h}}\nfreeze: [{cron: '0 0 31 2 *', duration: 1h}]",
    );
    assert!(!story.applies("a day that never comes", &ANNA, "guard.yaml", &odd).await.success);
    let odd = guard("odd", "caps: {maxStep: 400}");
    assert!(!story.applies("more than there is", &ANNA, "guard.yaml", &odd).await.success);
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_webhook_writes_ledgers() {
    let mut story = Story::begin("ledgers").await;
    story.given(&route("summarize", 5)).await;
    story.guard("slowly", "caps: {perWindow: {shift: 12, window: 1h}}").await;
    assert!(story.applies("a step", &ARGOCD, "canary-15.yaml", &route("summarize", 15)).await.success);
    story.tells_the_ledger().await;
    let told = story.quietly(&ANNA, &["get", "shiftledgers", "-o", "json"], "").await;
    let list: Value = serde_json::from_str(&told.out).unwrap();
    let ours = list["items"].as_array().unwrap().iter().find(|item| item["spec"]["destination"] == "backend.ledgers");
    let name = ours.unwrap()["metadata"]["name"].as_str().unwrap();
    for account in [&ANNA, &ARGOCD, &support::e2e::CONTROL_PLANE] {
        let patch = ["patch", "shiftledger", name, "--type=merge", "-p", r#"{"spec":{"entries":[]}}"#];
        assert!(!story.kubectl("history is not rewritten", account, &patch, "").await.success);
        let delete = ["delete", "shiftledger", name];
        assert!(!story.kubectl("nor forgotten", account, &delete, "").await.success);
    }
    assert!(!story.applies("the window is full", &ARGOCD, "canary-18.yaml", &route("summarize", 18)).await.success);
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_and_asked_for() {
    let mut story = Story::begin("health").await;
    story.given(&route("summarize", 5)).await;
    let gone = route("summarize", 100);
    assert!(story.applies("all at once", &ANNA, "canary-100.yaml", &gone).await.success);
    let nowhere = route("lost", 5).replace("name: canary", "name: canari");
    assert!(story.applies("a service that is not there", &ANNA, "lost.yaml", &nowhere).await.success);
    let arguments = ["apply", "--server-side", "-f", "timeout.yaml"];
    assert!(story.kubectl("a policy of another kind", &ANNA, &arguments, &fixture("mesh-timeout.yaml")).await.success);
    story.guard("healthy", "caps: {maxStep: 99}\nhealth: {denySeverity: medium}").await;
    let told = story.applies("where a guard asks for health", &ANNA, "canary-0.yaml", &route("summarize", 0)).await;
    assert!(!told.success);
    let told = story.applies("a step", &ARGOCD, "canary-20.yaml", &route("summarize", 20)).await;
    assert!(told.success, "{}", told.err);
    let told = story.applies("the way back, however odd", &ARGOCD, "canary-100.yaml", &route("summarize", 100)).await;
    assert!(told.success, "{}", told.err);
    story.tells_the_ledger().await;
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_kinds_of_routes_are_held_alike() {
    let mut story = Story::begin("kinds").await;
    let (tcp, traffic) = (fixture("mesh-tcp-route.yaml"), fixture("traffic-route.yaml"));
    let at = |document: &str, canary: u32| {
        document.replace("CANARY", &canary.to_string()).replace("STABLE", &(100 - canary).to_string())
    };
    story.given(&at(&tcp, 5)).await;
    story.given(&at(&traffic, 5)).await;
    story.guard("streams", "caps: {maxStep: 10}").await;
    let probe = at(&traffic, 100);
    story.guard_over("legacy", "match: {services: ['legacy*']}\ncaps: {maxStep: 10}", &probe).await;
    for (what, document) in [("tcp", &tcp), ("traffic", &traffic)] {
        for canary in [40, 12] {
            let told = story.applies("a step", &ARGOCD, &format!("{what}-{canary}.yaml"), &at(document, canary)).await;
            assert_eq!(told.success, canary == 12, "{}", told.err);
        }
    }
    insta::assert_snapshot!(story.end());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_webhook_refuses_gives_its_reservation_back() {
    let mut story = Story::begin("rejected").await;
    story.given(&route("summarize", 5)).await;
    story.given(&fixture("another-webhook.yaml")).await;
    story.guard("slowly", "caps: {perWindow: {shift: 12, window: 1h}}").await;
    until("the other webhook refuses", async || {
        let told = story.quietly(&ANNA, &["apply", "--server-side", "-f", "-"], &refused(&route("probe", 0))).await;
        told.err.contains("another.example.com")
    })
    .await;
    let step = refused(&route("summarize", 15));
    let told = story.applies("we let it pass, another does not", &ARGOCD, "canary-15.yaml", &step).await;
    assert!(!told.success && told.err.contains("another.example.com"), "{}", told.err);
    assert!(story.ledger().await.contains("reserved"), "{}", story.ledger().await);
    let told = story.applies("it may be in flight", &ARGOCD, "canary-14.yaml", &route("summarize", 14)).await;
    assert!(!told.success);
    // Anything newer of the object shows that it is not.
    let told = story.quietly(&ANNA, &["annotate", "meshhttproute", "summarize", "note=newer"], "").await;
    assert!(told.success, "{}", told.err);
    story.would_pass(&ARGOCD, &route("summarize", 14)).await;
    let told = story.applies("and then it is not", &ARGOCD, "canary-14.yaml", &route("summarize", 14)).await;
    assert!(told.success, "{}", told.err);
    story.tells_the_ledger().await;
    insta::assert_snapshot!(story.end());
}

/// With a label that the other webhook refuses.
fn refused(document: &str) -> String {
    document.replace("labels: {", "labels: {refuse: 'yes', ")
}
