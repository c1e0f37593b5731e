//! One of many writers: it reads a route, changes a share a little, and writes it in one of the usual ways.

use super::scene::{Canaries, ROUTES, Route, canaries};
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Names the entry of the journal that led to what is written.
pub(crate) const ANNOTATION: &str = "race/entry";
/// What carries this label is refused by the test's own webhook.
pub(crate) const UNWANTED: &str = "race/unwanted";

/// Writes per writer.
const TURNS: usize = 4;
/// The longest rest before a write, in milliseconds.
const REST: u64 = 3000;
/// A connection to a server that was killed may hang.
const PATIENCE: Duration = Duration::from_secs(30);
/// No canary gets more, in percent.
const MOST: u32 = 40;

/// A way to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// On the version that was read.
    Put,
    /// Server-side apply, on whatever version there is.
    Apply,
    Delete,
    DryRun,
    /// Another webhook refuses it.
    Unwanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// Our webhook refused it.
    Denied,
    /// The test's webhook refused it.
    Unwanted,
    /// Somebody else came first.
    Conflict,
    /// Nobody knows.
    Unknown,
}

/// One attempt to write.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) act: Act,
    /// Of the object that is to be deleted.
    pub(crate) uid: Option<String>,
    pub(crate) sent: Timestamp,
    /// When and what was answered.
    pub(crate) answer: Option<(Timestamp, Outcome)>,
}

/// What all writers did.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Vec<Entry>>);

impl Journal {
    fn begin(&self, act: Act, uid: Option<String>) -> usize {
        let mut entries = self.0.lock().unwrap();
        entries.push(Entry { act, uid, sent: Timestamp::now(), answer: None });
        entries.len() - 1
    }

    fn end(&self, entry: usize, outcome: Outcome) {
        self.0.lock().unwrap()[entry].answer = Some((Timestamp::now(), outcome));
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap().clone()
    }
}

/// Where routes of a kind are.
pub(crate) fn routes(client: &Client, namespace: &str, route: &Route) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("kuma.io", "v1alpha1", route.kind);
    Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk_with_plural(&gvk, &route.plural()))
}

/// Takes all turns of one writer.
pub(crate) async fn run(client: Client, namespace: String, seed: u64, journal: Arc<Journal>) {
    let mut rng = Pcg64::seed_from_u64(seed);
    for _ in 0..TURNS {
        sleep(Duration::from_millis(rng.random_range(0..REST))).await;
        let route = &ROUTES[rng.random_range(0..ROUTES.len())];
        let api = routes(&client, &namespace, route);
        let present = loop {
            match timeout(PATIENCE, api.get_opt(route.name)).await {
                Ok(Ok(present)) => break present,
                // The API server is away.
                _ => sleep(Duration::from_millis(200)).await,
            }
        };
        write(&api, &namespace, route, present, &mut rng, &journal).await;
    }
}

async fn write(
    api: &Api<DynamicObject>,
    namespace: &str,
    route: &Route,
    present: Option<DynamicObject>,
    rng: &mut Pcg64,
    journal: &Journal,
) {
    let act = match rng.random_range(0..100) {
        0..55 => Act::Put,
        55..75 => Act::Apply,
        75..83 => Act::DryRun,
        83..92 => Act::Unwanted,
        _ if present.is_some() => Act::Delete,
        _ => Act::Put,
    };
    let metadata = present.as_ref().map(|object| object.metadata.clone()).unwrap_or_default();
    if act == Act::Delete {
        let entry = journal.begin(act, metadata.uid.clone());
        let only = Preconditions { uid: metadata.uid, resource_version: None };
        let parameters = DeleteParams::default().preconditions(only);
        let answer = timeout(PATIENCE, api.delete(route.name, &parameters)).await;
        return journal.end(entry, outcome(answer.map(|answer| answer.map(drop)), act));
    }
    let mut shares = match &present {
        Some(object) => canaries(&serde_json::to_value(object).unwrap()),
        None => route.to.iter().map(|name| ((*name).to_owned(), 0)).collect(),
    };
    step(&mut shares, rng);
    let mut object = route.object(namespace, &shares);
    let entry = journal.begin(act, None);
    object["metadata"]["annotations"] = json!({ANNOTATION: entry.to_string()});
    if act == Act::Unwanted {
        object["metadata"]["labels"][UNWANTED] = "true".into();
    }
    let dry_run = act == Act::DryRun;
    let answer = timeout(PATIENCE, async {
        if act == Act::Apply {
            return api.patch(route.name, &PatchParams::apply("gitops").force(), &Patch::Apply(&object)).await;
        }
        let parameters = PostParams { dry_run, ..PostParams::default() };
        if present.is_none() {
            return api.create(&parameters, &serde_json::from_value(object).unwrap()).await;
        }
        object["metadata"]["resourceVersion"] = json!(metadata.resource_version);
        api.replace(route.name, &parameters, &serde_json::from_value::<DynamicObject>(object).unwrap()).await
    })
    .await;
    journal.end(entry, outcome(answer.map(|answer| answer.map(drop)), act));
}

/// Moves one share or all of them by a few points.
fn step(shares: &mut Canaries, rng: &mut Pcg64) {
    let only = rng.random_range(0..2 * shares.len());
    for (at, share) in shares.values_mut().enumerate() {
        if only >= 2 || only == at || rng.random_bool(0.3) {
            let by = rng.random_range(1..=4);
            *share = if rng.random_bool(0.65) { (*share + by).min(MOST) } else { share.saturating_sub(by) };
        }
    }
}

fn outcome(answer: Result<Result<(), Error>, tokio::time::error::Elapsed>, act: Act) -> Outcome {
    match answer {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(Error::Api(status))) => match status.code {
            // What is gone or there already was somebody else's doing too.
            404 | 409 => Outcome::Conflict,
            422 => Outcome::Denied,
            400 if act == Act::Unwanted => Outcome::Unwanted,
            // One that has just started may not know its own roles yet.
            403 | 429 | 500.. => Outcome::Unknown,
            _ => panic!("an odd answer: {status:?}"),
        },
        Ok(Err(_)) | Err(_) => Outcome::Unknown,
    }
}
