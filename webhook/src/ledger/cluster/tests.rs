//! Replicas against an API server that compares versions, tells its time, and fails when it is told to.

use super::super::tests::{Route, world};
use super::super::{Asked, Before, Ledger, Seen, Unavailable};
use super::*;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use sluice_rules::guard::Outcome;
use std::convert::Infallible;

/// The API server: ledgers and routes by their paths, with versions.
#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// The version of routes altogether.
    listed: u64,
    calls: u64,
    /// Added to the true time.
    ahead: SignedDuration,
    mood: Mood,
    /// Who is told of ledgers as they are written, a little later.
    watching: Vec<Cluster>,
    /// What happens before the next request is answered that names this.
    meanwhile: Option<(&'static str, Happening)>,
}

type Happening = futures::future::BoxFuture<'static, ()>;

#[derive(Default, Clone, Copy, PartialEq)]
enum Mood {
    #[default]
    Well,
    /// Every write comes second.
    Contended,
    /// Nothing works.
    Down,
    /// Writes, and does not answer.
    Silent,
    /// Refuses to write ledgers of this destination's name.
    Refuses(&'static str),
}

const LEDGERS: &str = "/apis/sluice.dev/v1alpha1/shiftledgers";

#[derive(Clone, Default)]
struct Api(Arc<Mutex<Server>>);

impl Api {
    fn replica(&self, name: &str) -> Cluster {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                tokio::task::yield_now().await;
                let asked = format!("{} {}", head.uri.path(), String::from_utf8_lossy(&body));
                let now = lock(&api.0).meanwhile.take_if(|(name, _)| asked.contains(*name));
                if let Some((_, happening)) = now {
                    happening.await;
                }
                let answer = lock(&api.0).answer(&head.method, &head.uri, &body);
                match answer {
                    Some(answer) => Ok::<_, Infallible>(answer),
                    None => std::future::pending().await,
                }
            }
        });
        Cluster::new(kube::Client::new(service, "default"), name, LEASE)
    }

    fn set(&self, mood: Mood) {
        lock(&self.0).mood = mood;
    }

    /// Before the next request about `name` is answered, `other` makes a reservation, and the watch tells `replica`.
    fn overtake(&self, name: &'static str, replica: &Cluster, other: &Cluster, asked: Asked, world: &Arc<World>) {
        let (api, replica, other, world) = (self.clone(), replica.clone(), other.clone(), world.clone());
        let happening = async move {
            let name = other.0.slot(&Case::new(&asked, &world, &other.0.terms, "").covers()[0]).name.clone();
            other.0.refresh(&other.0.slot_of(name.clone()), soon()).await.unwrap();
            assert!(admits(&other, &asked, &world).await);
            let object = lock(&api.0).objects[&format!("{LEDGERS}/{name}")].clone();
            replica.apply(Event::Apply(serde_json::from_value(object).unwrap()), &mut None);
        };
        lock(&self.0).meanwhile = Some((name, Box::pin(happening)));
    }

    fn calls(&self) -> u64 {
        lock(&self.0).calls
    }

    fn ledgers(&self) -> Vec<guard::Ledger> {
        let server = lock(&self.0);
        let ledgers = server.objects.iter().filter(|(path, _)| path.starts_with(LEDGERS));
        ledgers.map(|(_, object)| serde_json::from_value(object["spec"].clone()).unwrap()).collect()
    }

    fn ledger(&self) -> guard::Ledger {
        self.ledgers().remove(0)
    }

    /// Puts a route into the cluster as it is.
    fn store(&self, route: &Route) {
        let path = format!("/apis/kuma.io/v1alpha1/namespaces/demo/meshhttproutes/{}", route.name);
        let object = route.canary.map(|canary| route.object(canary));
        let mut server = lock(&self.0);
        server.listed = server.listed.max(route.version);
        let objects = &mut server.objects;
        match object {
            Some(object) => drop(objects.insert(path, object)),
            None => drop(objects.remove(&path)),
        }
    }

    /// Lets time pass, and a replica know.
    async fn wait(&self, replica: &Cluster, seconds: i64) {
        lock(&self.0).ahead += SignedDuration::from_secs(seconds);
        let deadline = Instant::now() + Duration::from_secs(5);
        replica.0.store.get("any", deadline).await.unwrap();
    }
}

impl Server {
    fn answer(&mut self, method: &Method, uri: &Uri, body: &[u8]) -> Option<Response<Full<Bytes>>> {
        let path = uri.path();
        self.calls += 1;
        let writes = method != Method::GET;
        let refused =
            matches!(self.mood, Mood::Refuses(name) if writes && String::from_utf8_lossy(body).contains(name));
        let (status, object) = match self.mood {
            Mood::Down => (StatusCode::SERVICE_UNAVAILABLE, json!({"message": "down"})),
            Mood::Contended if writes => (StatusCode::CONFLICT, json!({})),
            _ if refused => (StatusCode::FORBIDDEN, json!({"message": "no"})),
            _ if writes => self.write(method, path, body),
            _ if uri.query().is_some() => (StatusCode::OK, self.list(uri)),
            _ => match self.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => (StatusCode::NOT_FOUND, json!({})),
            },
        };
        if writes && self.mood == Mood::Silent {
            return None;
        }
        let now = Timestamp::now().checked_add(self.ahead).unwrap();
        let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let answer = Response::builder().status(status).header("date", date);
        Some(answer.body(Full::from(object.to_string())).unwrap())
    }

    /// The list of one object.
    fn list(&self, uri: &Uri) -> Value {
        let name = uri.query().unwrap().strip_prefix("fieldSelector=metadata.name%3D").unwrap();
        let found = self.objects.get(&format!("{}/{name}", uri.path()));
        json!({"metadata": {"resourceVersion": self.listed.to_string()}, "items": found.into_iter().collect::<Vec<_>>()})
    }

    fn write(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = if method == Method::POST { format!("{path}/{name}") } else { path.to_owned() };
        let present = self.objects.get(&path).map(|object| &object["metadata"]["resourceVersion"]);
        let fits = match present {
            None => method == Method::POST,
            Some(version) => method == Method::PUT && *version == object["metadata"]["resourceVersion"],
        };
        if !fits {
            return (StatusCode::CONFLICT, json!({"message": "the object has been modified"}));
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path, object.clone());
        for replica in self.watching.clone() {
            let ledger = serde_json::from_value(object.clone()).unwrap();
            tokio::spawn(async move {
                sleep(jitter(4)).await;
                replica.apply(Event::Apply(ledger), &mut None);
            });
        }
        (StatusCode::OK, object)
    }
}

fn window(shift: u32) -> World {
    world(json!({"perWindow": {"shift": shift, "window": "1h"}}))
}

fn seen(route: &Route, before: Before, gone: bool) -> Seen {
    let policy = route.policy(route.canary.unwrap_or(0));
    Seen { policy, before, uid: route.uid.clone(), version: route.version.to_string(), gone }
}

async fn admits(replica: &Cluster, asked: &Asked, world: &World) -> bool {
    let verdict = Ledger::Cluster(replica.clone()).admit(asked, world).await.unwrap();
    verdict.outcome == Outcome::Allowed
}

#[tokio::test]
async fn a_shift_is_reserved_before_the_answer_and_confirmed_by_the_watch() {
    let (api, world, mut route) = (Api::default(), window(20), Route::new("summarize", 10));
    let replica = api.replica("a");
    assert!(admits(&replica, &route.to(20), &world).await);
    assert_eq!(api.ledger().outstanding().count(), 1);
    let before = Before::Was(route.policy(10));
    route.write(20);
    replica.seen(seen(&route, before, false), &world).await;
    assert_eq!(api.ledger().outstanding().count(), 0);
    assert_eq!(api.ledger().entries.len(), 1);
    let Counts { reserved, confirmed, dropped, observed, outstanding, ledgers, .. } = replica.counts();
    assert_eq!((reserved, confirmed, dropped, observed, outstanding, ledgers), (1, 1, 0, 0, 0, 1));
    assert!(admits(&replica, &route.to(30), &world).await);
    assert!(!admits(&replica, &route.to(31), &world).await);
}

#[tokio::test]
async fn a_denial_asks_nobody() {
    let (api, world, route) = (Api::default(), window(20), Route::new("summarize", 10));
    let replica = api.replica("a");
    assert!(admits(&replica, &route.to(20), &world).await);
    let calls = api.calls();
    api.set(Mood::Down);
    assert!(!admits(&replica, &route.to(31), &world).await);
    let dry = Asked { dry_run: true, ..route.to(20) };
    assert!(admits(&replica, &dry, &world).await);
    assert_eq!(api.calls(), calls);
}

#[tokio::test]
async fn what_no_guard_covers_has_no_ledger() {
    let (api, route) = (Api::default(), Route::new("summarize", 10));
    assert!(admits(&api.replica("a"), &route.to(90), &World::default()).await);
    assert_eq!(api.calls(), 0);
}

#[tokio::test]
async fn a_dry_run_reserves_nothing() {
    let (api, world, route) = (Api::default(), window(20), Route::new("summarize", 10));
    assert!(admits(&api.replica("a"), &Asked { dry_run: true, ..route.to(20) }, &world).await);
    assert!(api.ledgers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_replicas_cannot_exceed_a_cap_together() {
    let (api, world) = (Api::default(), Arc::new(window(20)));
    let replicas: Vec<_> = ["a", "b", "c"].map(|name| api.replica(name)).into();
    let mut tasks = Vec::new();
    for index in 0..12 {
        let (replica, world) = (replicas[index % 3].clone(), world.clone());
        tasks.push(tokio::spawn(async move {
            let (mut route, mut sum) = (Route::new(&format!("r{index}"), 10), 0);
            for canary in 11..16 {
                let present = route.canary.unwrap();
                // A lost race is no admission; whoever loses it asks again, for more.
                match Ledger::Cluster(replica.clone()).admit(&route.to(canary), &world).await {
                    Ok(verdict) if verdict.outcome == Outcome::Allowed => {
                        let before = Before::Was(route.policy(present));
                        route.write(canary);
                        replica.seen(seen(&route, before, false), &world).await;
                        sum += canary - present;
                    }
                    Ok(_) => break,
                    Err(Unavailable::Contended(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            sum
        }));
    }
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    assert!((10..=20).contains(&sum), "{sum}");
    let recorded: f64 = api.ledger().entries.iter().map(|entry| entry.record.shift).sum();
    assert!((recorded - sum as f64).abs() < 1e-9, "{recorded} are recorded, {sum} were admitted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_replicas_that_watch_keep_what_each_other_writes() {
    const DESTINATIONS: [&[&str]; 3] = [&["first", "second"], &["first"], &["second"]];
    for round in 0..20 {
        let (api, world) = (Api::default(), Arc::new(window(20)));
        let replicas: Vec<_> = ["a", "b", "c"].map(|name| api.replica(name)).into();
        lock(&api.0).watching.clone_from(&replicas);
        let mut tasks = Vec::new();
        for index in 0..12_usize {
            let (replica, world) = (replicas[index % 3].clone(), world.clone());
            tasks.push(tokio::spawn(async move {
                let (destinations, shift) = (DESTINATIONS[(index + round) % 3], 1 + index as u64 % 5);
                let asked = split(&format!("r{index}"), destinations, 10 + shift);
                let passed = Ledger::Cluster(replica).admit(&asked, &world).await;
                passed.is_ok_and(|verdict| verdict.outcome == Outcome::Allowed).then_some((destinations, shift as f64))
            }));
        }
        let mut admitted = Vec::new();
        for task in tasks {
            admitted.extend(task.await.unwrap());
        }
        let differs = || {
            let ledgers = api.ledgers();
            let differs = |ledger: &&guard::Ledger| {
                let of = |(destinations, _): &&(&[&str], f64)| destinations.contains(&plain(ledger));
                let sum: f64 = admitted.iter().filter(of).map(|(_, shift)| shift).sum();
                let recorded: f64 = ledger.entries.iter().map(|entry| entry.record.shift).sum();
                assert!(sum <= 20.0, "round {round}: {sum} were admitted of {}", ledger.destination);
                (recorded - sum).abs() > 1e-9
            };
            ledgers.iter().find(differs).cloned()
        };
        // What is given back goes in the background.
        for _ in 0..100 {
            if differs().is_none() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(differs(), None, "round {round}: admitted were {admitted:?}");
    }
}

fn plain(ledger: &guard::Ledger) -> &str {
    ledger.destination.as_str().split('.').next().unwrap_or_default()
}

#[tokio::test]
async fn a_replica_with_an_old_view_finds_out_by_writing() {
    let (api, world) = (Api::default(), window(20));
    let (a, b) = (api.replica("a"), api.replica("b"));
    let (one, two) = (Route::new("one", 10), Route::new("two", 10));
    assert!(admits(&b, &two.to(15), &world).await);
    assert!(admits(&a, &one.to(20), &world).await);
    assert!(!admits(&b, &two.to(22), &world).await);
    assert_eq!((a.counts().conflicts, b.counts().conflicts), (1, 1));
}

#[tokio::test]
async fn who_always_comes_second_is_told_so_and_a_way_back_passes() {
    let (api, world, mut route) = (Api::default(), window(20), Route::new("summarize", 10));
    let replica = api.replica("a");
    assert!(admits(&replica, &route.to(20), &world).await);
    route.write(20);
    for mood in [Mood::Contended, Mood::Down] {
        api.set(mood);
        let refused = replica.admit(&route.to(21), &world).await.unwrap_err();
        match mood {
            Mood::Contended => assert!(matches!(refused, Unavailable::Contended(_)), "{refused}"),
            _ => assert_eq!(
                refused.to_string(),
                "the ledger of `summarize.demo` cannot be reached: the API server answers 503: down"
            ),
        }
        let back = replica.admit(&route.to(10), &world).await.unwrap();
        assert_eq!(back.outcome, Outcome::Allowed);
        assert!(back.notes[0].starts_with("the way back passes although"), "{:?}", back.notes);
    }
}

#[tokio::test]
async fn a_move_beside_admission_is_recorded_once_others_had_their_time() {
    let (api, world, mut route) = (Api::default(), window(20), Route::new("summarize", 10));
    let (a, b) = (api.replica("a"), api.replica("b"));
    let before = Before::Was(route.policy(10));
    route.write(25);
    for replica in [&a, &b] {
        replica.seen(seen(&route, before.clone(), false), &world).await;
        replica.tend_once(&world).await;
    }
    assert!(api.ledgers().is_empty());
    for replica in [&a, &b] {
        lock(&replica.0.waiting).iter_mut().for_each(|waiting| waiting.due = Instant::now());
        replica.tend_once(&world).await;
    }
    let ledger = api.ledger();
    assert_eq!(ledger.entries.len(), 1);
    assert!(ledger.entries[0].observed && (ledger.entries[0].record.shift - 15.0).abs() < 1e-9);
    assert!(!admits(&a, &route.to(31), &world).await);
    assert!(admits(&b, &route.to(30), &world).await);
}

#[tokio::test]
async fn the_routes_of_the_first_list_are_no_moves() {
    let (api, world, route) = (Api::default(), window(20), Route::new("summarize", 10));
    let replica = api.replica("a");
    replica.seen(seen(&route, Before::Unknown, false), &world).await;
    assert!(lock(&replica.0.waiting).is_empty());
    replica.seen(seen(&route, Before::Absent, false), &world).await;
    assert_eq!(lock(&replica.0.waiting).len(), 1, "one that is created beside admission is");
}

#[tokio::test]
async fn a_reservation_of_a_replica_that_is_gone_is_ended_by_another() {
    let (api, world, mut route) = (Api::default(), window(20), Route::new("summarize", 10));
    assert!(admits(&api.replica("gone"), &route.to(20), &world).await);
    let replica = api.replica("b");
    replica.0.refresh(&replica.0.slot_of(api_name()), soon()).await.unwrap();
    let before = Before::Was(route.policy(10));
    route.write(20);
    replica.seen(seen(&route, before, false), &world).await;
    assert_eq!(api.ledger().outstanding().count(), 1, "the other one has its time");
    lock(&replica.0.waiting)[0].due = Instant::now();
    replica.tend_once(&world).await;
    assert_eq!(api.ledger().outstanding().count(), 0);
    assert_eq!(api.ledger().entries.len(), 1);
}

#[tokio::test]
async fn the_first_list_tells_what_became_of_a_reservation() {
    let (api, world, mut route) = (Api::default(), window(20), Route::new("summarize", 10));
    let replica = api.replica("b");
    let other = Route::new("other", 10);
    // Of neither policy anything is known yet.
    assert!(replica.0.knowing(route.policy(10).identity()).is_empty());
    assert!(admits(&api.replica("gone"), &route.to(20), &world).await);
    replica.0.refresh(&replica.0.slot_of(api_name()), soon()).await.unwrap();
    assert_eq!(replica.0.knowing(route.policy(10).identity()).len(), 1);
    assert!(replica.0.knowing(other.policy(10).identity()).is_empty());
    route.write(20);
    for route in [&other, &route] {
        replica.seen(seen(route, Before::Unknown, false), &world).await;
    }
    assert_eq!(lock(&replica.0.waiting).len(), 1, "the other route is told of nothing");
    lock(&replica.0.waiting)[0].due = Instant::now();
    replica.tend_once(&world).await;
    assert_eq!(shifts(&api), [(10.0, false)]);
}

/// A replica that is gone admitted a move that happened; then the route moved on beside admission.
async fn left_behind(api: &Api, world: &World, route: &mut Route) -> (Cluster, [Seen; 2]) {
    assert!(admits(&api.replica("gone"), &route.to(20), world).await);
    let replica = api.replica("b");
    replica.0.refresh(&replica.0.slot_of(api_name()), soon()).await.unwrap();
    let events = [20, 25].map(|canary| {
        let before = Before::Was(route.policy(route.canary.unwrap()));
        route.write(canary);
        seen(route, before, false)
    });
    (replica, events)
}

fn shifts(api: &Api) -> Vec<(f64, bool)> {
    let ledger = api.ledger();
    assert_eq!(ledger.outstanding().count(), 0);
    ledger.entries.iter().map(|entry| (entry.record.shift, entry.observed)).collect()
}

#[tokio::test]
async fn what_others_left_behind_is_told_in_its_order() {
    let (api, world, mut route) = (Api::default(), window(100), Route::new("summarize", 10));
    let (replica, [first, second]) = left_behind(&api, &world, &mut route).await;
    // However they come and whichever is due: the later one alone would make the reservation look void.
    for seen in [second, first] {
        replica.seen(seen, &world).await;
    }
    lock(&replica.0.waiting)[1].due = Instant::now();
    replica.tend_once(&world).await;
    assert_eq!(api.ledger().outstanding().count(), 1);
    lock(&replica.0.waiting)[0].due = Instant::now();
    replica.tend_once(&world).await;
    assert_eq!(shifts(&api), [(10.0, false), (5.0, true)]);
    assert!(lock(&replica.0.waiting).is_empty());
}

#[tokio::test]
async fn what_is_still_to_be_told_is_known_to_the_next_judgement() {
    let (api, world, mut route) = (Api::default(), window(100), Route::new("summarize", 10));
    let (replica, events) = left_behind(&api, &world, &mut route).await;
    for seen in events {
        replica.seen(seen, &world).await;
    }
    assert!(admits(&replica, &route.to(26), &world).await);
    let before = Before::Was(route.policy(25));
    route.write(26);
    replica.seen(seen(&route, before, false), &world).await;
    replica.tend_once(&world).await;
    assert_eq!(shifts(&api), [(10.0, false), (5.0, true), (1.0, false)]);
}

#[tokio::test]
async fn a_review_that_moves_nothing_tells_what_the_watch_missed() {
    let (api, world, mut route) = (Api::default(), window(100), Route::new("summarize", 10));
    let replica = api.replica("a");
    assert!(admits(&replica, &route.to(20), &world).await);
    route.write(20);
    let asked = route.to(20);
    let version = asked.version.as_deref().unwrap();
    let (policy, ledger) = (&asked.request.identity, Ledger::Cluster(replica.clone()));
    ledger.shown(policy, &asked.uid, version, &asked.before, &world);
    replica.tend_once(&world).await;
    assert_eq!(shifts(&api), [(10.0, false)]);
    ledger.shown(policy, &asked.uid, version, &asked.before, &world);
    assert!(lock(&replica.0.waiting).is_empty(), "nothing is outstanding any more");
}

fn api_name() -> String {
    guard::Ledger::name("default", &"summarize.demo".into())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[tokio::test]
async fn after_its_lease_a_reservation_is_what_the_object_says() {
    for (written, entries) in [(false, 0), (true, 1)] {
        let (api, world, mut route) = (Api::default(), window(20), Route::new("summarize", 10));
        let replica = api.replica("a");
        assert!(admits(&replica, &route.to(20), &world).await);
        if written {
            route.write(20);
        }
        api.store(&route);
        api.wait(&replica, 50).await;
        replica.tend_once(&world).await;
        assert_eq!(api.ledger().outstanding().count(), 1, "it may be in flight");
        api.wait(&replica, 20).await;
        replica.tend_once(&world).await;
        assert_eq!(api.ledger().outstanding().count(), 0);
        assert_eq!(api.ledger().entries.len(), entries);
    }
}

#[tokio::test]
async fn a_creation_that_never_came_ends_with_its_lease() {
    let (api, world, mut route) = (Api::default(), window(100), Route::new("summarize", 10));
    let replica = api.replica("a");
    assert!(admits(&replica, &route.created(10), &world).await);
    api.wait(&replica, 70).await;
    replica.tend_once(&world).await;
    assert!(api.ledger().entries.is_empty());
    assert_eq!(replica.counts().dropped, 1);
}

#[tokio::test]
async fn what_is_told_late_of_an_object_that_is_gone_is_no_move() {
    let (api, world, mut route) = (Api::default(), window(1000), Route::new("summarize", 10));
    let (a, b) = (api.replica("a"), api.replica("b"));
    // One replica records how the route is created and deleted, twice; the other waits in case nobody does.
    route.remove();
    for canary in [Some(12), None, Some(0), None] {
        let asked = match canary {
            Some(canary) => route.created(canary),
            None => route.away(),
        };
        assert!(admits(&a, &asked, &world).await);
        b.0.refresh(&b.0.slot_of(api_name()), soon()).await.unwrap();
        let before = route.canary.map_or(Before::Absent, |canary| Before::Was(route.policy(canary)));
        route.version += 1;
        let event = match canary {
            Some(canary) => seen(&Route { canary: Some(canary), ..route.clone() }, before, false),
            None => seen(&route, before, true),
        };
        route.canary = canary;
        for replica in [&b, &a] {
            replica.seen(event.clone(), &world).await;
        }
    }
    let told = shifts(&api);
    assert_eq!((told.len(), told.iter().any(|(_, observed)| *observed)), (4, false));
    assert!(!lock(&b.0.waiting).is_empty());
    // Another creation comes to nothing. When its lease is over, no object is there any more.
    assert!(admits(&a, &route.created(5), &world).await);
    route.version += 1;
    route.remove();
    api.store(&route);
    api.wait(&a, 70).await;
    a.tend_once(&world).await;
    assert_eq!(shifts(&api), told);
    b.0.refresh(&b.0.slot_of(api_name()), soon()).await.unwrap();
    lock(&b.0.waiting).iter_mut().for_each(|waiting| waiting.due = Instant::now());
    b.tend_once(&world).await;
    assert_eq!(shifts(&api), told);
}

#[tokio::test]
async fn a_write_without_an_answer_reserves_until_the_lease_is_over() {
    let (api, world, route) = (Api::default(), window(20), Route::new("summarize", 10));
    let replica = api.replica("a");
    api.store(&route);
    api.wait(&replica, 0).await;
    api.set(Mood::Silent);
    let hurried = Asked { deadline: Instant::now() + Duration::from_millis(200), ..route.to(20) };
    assert!(matches!(replica.admit(&hurried, &world).await, Err(Unavailable::Late)));
    api.set(Mood::Well);
    let other = Route::new("other", 10);
    assert!(!admits(&replica, &other.to(25), &world).await, "it counts");
    api.wait(&replica, 70).await;
    replica.tend_once(&world).await;
    assert!(admits(&replica, &other.to(25), &world).await);
}

#[tokio::test]
async fn an_admitted_deletion_is_confirmed_and_not_a_second_move() {
    let (api, world, mut route) = (Api::default(), window(100), Route::new("summarize", 10));
    let replica = api.replica("a");
    assert!(admits(&replica, &route.away(), &world).await);
    let before = Before::Was(route.policy(10));
    route.version += 1;
    replica.seen(seen(&route, before, true), &world).await;
    let ledger = api.ledger();
    assert_eq!((ledger.entries.len(), ledger.outstanding().count()), (1, 0));
    assert!(!ledger.entries[0].observed);
    assert!(lock(&replica.0.waiting).is_empty());
}

#[tokio::test]
async fn an_apply_that_asks_thrice_counts_once() {
    let (api, world, mut route) = (Api::default(), window(20), Route::new("summarize", 10));
    let (a, b) = (api.replica("a"), api.replica("b"));
    for replica in [&a, &b, &a] {
        assert!(admits(replica, &route.to(30), &world).await);
        route.touch();
    }
    assert_eq!(api.ledger().entries.len(), 1);
}

/// A policy whose destinations' canaries all go from 10 % to this.
fn split(name: &str, destinations: &[&str], canary: u64) -> Asked {
    let refs = |name: &str, canary: u64| {
        json!([{"kind": "MeshService", "name": format!("{name}-v1"), "weight": 100 - canary},
               {"kind": "MeshService", "name": format!("{name}-v2"), "weight": canary}])
    };
    let to = |name: &str, canary: u64| json!({"targetRef": {"kind": "MeshService", "name": name}, "rules": [{"default": {"backendRefs": refs(name, canary)}}]});
    let route = Route::new(name, 10);
    let splits = |canary| {
        let mut object = route.object(10);
        object["spec"]["to"] = destinations.iter().map(|name| to(name, canary)).collect();
        sluice_rules::split::splits(&sluice_rules::policy::Policy::read(&object).unwrap()).0
    };
    let (before, after) = (splits(10), splits(canary));
    let mut asked = route.to(20);
    asked.request.change = sluice_rules::split::change(&before, &after).into();
    Asked { before: Arc::new(before.into()), after: Arc::new(after.into()), ..asked }
}

/// What a ledger was given goes back in the background.
async fn until_returned(replica: &Cluster) {
    for _ in 0..100 {
        if replica.counts().returned == 1 {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing was given back");
}

#[tokio::test]
async fn a_change_of_two_destinations_reserves_in_both_or_in_none() {
    let (api, world) = (Api::default(), window(20));
    let replica = api.replica("a");
    let asked = split("both", &["first", "second"], 20);
    api.set(Mood::Refuses("second-v2"));
    assert!(matches!(replica.admit(&asked, &world).await, Err(Unavailable::Unreachable { .. })));
    until_returned(&replica).await;
    assert_eq!(api.ledgers().len(), 1);
    assert!(api.ledger().entries.is_empty());
    api.set(Mood::Well);
    assert!(admits(&replica, &asked, &world).await);
    let outstanding: Vec<_> = api.ledgers().iter().map(|ledger| ledger.outstanding().count()).collect();
    assert_eq!(outstanding, [1, 1]);
}

#[tokio::test]
async fn what_others_write_while_a_ledger_is_written_is_not_undone() {
    let (api, world) = (Api::default(), Arc::new(window(20)));
    let (a, b) = (api.replica("a"), api.replica("b"));
    // While the first ledger is written the second one changes, and the watch tells of it at once.
    api.overtake("first-v2", &a, &b, split("other", &["second"], 25), &world);
    assert!(!admits(&a, &split("both", &["first", "second"], 20), &world).await);
    until_returned(&a).await;
    let shifts: Vec<f64> = api.ledgers().iter().flat_map(|ledger| &ledger.entries).map(|e| e.record.shift).collect();
    assert_eq!(shifts, [15.0]);
}

#[tokio::test]
async fn what_others_write_while_an_object_is_read_is_not_undone() {
    let (api, world, route) = (Api::default(), Arc::new(window(20)), Route::new("summarize", 10));
    let (a, b) = (api.replica("a"), api.replica("b"));
    api.store(&route);
    assert!(admits(&a, &route.to(20), &world).await);
    api.wait(&a, 70).await;
    api.overtake("meshhttproutes", &a, &b, Route::new("other", 10).to(15), &world);
    a.tend_once(&world).await;
    let ledger = api.ledger();
    let outstanding: Vec<_> = ledger.outstanding().map(|(entry, _)| &*entry.record.policy.name).collect();
    assert_eq!(outstanding, ["other"]);
}

#[tokio::test]
async fn the_watch_keeps_the_views_and_never_takes_them_back() {
    let (api, world, route) = (Api::default(), window(20), Route::new("summarize", 10));
    let (a, b) = (api.replica("a"), api.replica("b"));
    assert!(admits(&a, &route.to(20), &world).await);
    let object = |api: &Api| {
        let server = lock(&api.0);
        serde_json::from_value(server.objects.values().next().unwrap().clone()).unwrap()
    };
    let (old, mut listed) = (object(&api), None);
    assert!(admits(&a, &Route::new("other", 10).to(15), &world).await);
    for event in [Event::Init, Event::InitApply(object(&api)), Event::InitDone, Event::Apply(old)] {
        b.apply(event, &mut listed);
    }
    assert!(b.is_synced());
    assert_eq!((b.counts().outstanding, b.counts().ledgers), (2, 1));
    assert!(!admits(&b, &Route::new("third", 10).to(16), &world).await);
    b.apply(Event::Delete(object(&api)), &mut listed);
    assert_eq!(b.counts().ledgers, 0);
}

#[tokio::test]
async fn what_was_read_does_not_hide_what_came_meanwhile() {
    let slot = Api::default().replica("a").0.slot_of(api_name());
    let view = |version: u32| {
        let ledger = guard::Ledger::new("default", "summarize.demo".into());
        Some(View { version: version.to_string(), ledger: Arc::new(ledger) })
    };
    let refreshed = |at: Option<&str>, read| {
        slot.refresh(at, read);
        slot.view().map(|view| view.version)
    };
    assert_eq!(refreshed(None, view(9)).as_deref(), Some("9"));
    assert_eq!(refreshed(Some("8"), view(8)).as_deref(), Some("9"), "the watch told of 9 while 8 was on its way");
    assert_eq!(refreshed(Some("8"), view(10)).as_deref(), Some("10"));
    assert_eq!(refreshed(Some("10"), view(7)).as_deref(), Some("7"), "the server went back");
    assert_eq!(refreshed(Some("7"), None), None);
}

#[tokio::test]
async fn a_ledger_of_another_destination_under_the_name_is_reported() {
    let (api, world, route) = (Api::default(), window(20), Route::new("summarize", 10));
    let replica = api.replica("a");
    let other = guard::Ledger::new("default", "other".into());
    replica.0.store.put(&api_name(), None, other, soon()).await.unwrap().unwrap();
    let error = replica.admit(&route.to(20), &world).await.unwrap_err().to_string();
    assert!(error.contains("is the ledger of `other`: delete it"), "{error}");
}
