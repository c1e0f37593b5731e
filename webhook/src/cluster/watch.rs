//! One kind, listed and then watched, for as long as anybody listens.

use super::kinds::{Kind, Role};
use super::progress::Progress;
use futures::StreamExt;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// What a watch tells.
#[derive(Debug)]
pub(super) struct Message {
    pub kind: &'static Kind,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// The object as it is now.
    Applied(Value),
    /// The object as it was last.
    Deleted(Value),
    /// The list is complete: no other objects exist.
    Listed(BTreeSet<Key>),
}

/// An object's place among its kind.
pub(super) type Key = (Option<String>, String);

pub(super) fn key(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    (text("namespace"), text("name").unwrap_or_default())
}

/// Objects per page of a list: few, so that a large cluster costs no large moment of memory; two pages are there at once.
const PAGE: u32 = 250;
/// The API server ends a watch after this time, and it is taken up where it stood.
const WATCH: Duration = Duration::from_secs(290);
/// Bookmarks come about each minute: a connection that is silent for longer than two is dead.
const SILENCE: Duration = Duration::from_secs(150);
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Lists and watches a kind until nobody listens any more.
pub(super) async fn run(client: Client, kind: &'static Kind, sender: Sender<Message>, progress: Arc<Progress>) {
    let watch = Watch { client, kind, sender, progress };
    let mut version = None;
    let mut failures = 0_u32;
    while !watch.sender.is_closed() {
        let from = match version.take() {
            Some(from) => Ok(from),
            None => watch.list().await,
        };
        let ended = match from {
            Ok(from) => watch.follow(from).await,
            Err(error) => Ended { version: None, heard: false, error: Some(error) },
        };
        version = ended.version;
        failures = if ended.heard { 0 } else { failures.saturating_add(1) };
        if let Some(error) = ended.error {
            // One line when it begins, not one for each try.
            if failures <= 1 {
                tracing::warn!(kind = kind.kind, %error, "the watch ended; it is taken up again");
            } else {
                tracing::debug!(kind = kind.kind, %error, failures, "the watch fails again");
            }
            tokio::time::sleep(wait(failures)).await;
        }
    }
}

/// How long to wait after this many failures in a row: longer each time, and not in step with the other watches.
fn wait(failures: u32) -> Duration {
    let longest = SHORTEST_WAIT.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_WAIT);
    longest.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

struct Watch {
    client: Client,
    kind: &'static Kind,
    sender: Sender<Message>,
    progress: Arc<Progress>,
}

/// How a watch ended.
struct Ended {
    /// Where to take it up; none when that is too long ago and only a new list helps.
    version: Option<String>,
    /// Did the server tell anything? Then it is well, and the next try need not wait long.
    heard: bool,
    error: Option<kube::Error>,
}

#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    // Absent or null in a list of nothing.
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

impl Watch {
    /// Tells every object and returns the version of the list.
    async fn list(&self) -> kube::Result<String> {
        let mut keys = BTreeSet::new();
        let mut parameters = ListParams::default().limit(PAGE);
        let mut page = self.page(&parameters).await?;
        loop {
            let Page { metadata, items } = page;
            let telling = async {
                for object in items.into_iter().flatten() {
                    keys.insert(key(&object));
                    self.tell(What::Applied(object)).await;
                }
            };
            if metadata.r#continue.is_empty() {
                telling.await;
                self.tell(What::Listed(keys)).await;
                return Ok(metadata.resource_version);
            }
            // The server prepares the next page while this one is told.
            parameters.continue_token = Some(metadata.r#continue);
            let (next, ()) = tokio::join!(self.page(&parameters), telling);
            page = next?;
        }
    }

    async fn page(&self, parameters: &ListParams) -> kube::Result<Page> {
        let request = Request::new(self.kind.path);
        let request = match self.kind.role {
            Role::Definition => request.list_metadata(parameters),
            _ => request.list(parameters),
        };
        let page = self.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
        self.progress.heard(self.kind.name);
        Ok(page)
    }

    /// Tells what happens after a version, until the server or the connection ends it.
    async fn follow(&self, mut version: String) -> Ended {
        let mut heard = false;
        let result = self.events(&mut version, &mut heard).await;
        match result {
            Ok(()) => Ended { version: Some(version), heard: true, error: None },
            // What the server refuses (410: too old) or does not know it will not know next time either.
            Err(error @ kube::Error::Api(_)) => Ended { version: None, heard, error: Some(error) },
            Err(error) => Ended { version: Some(version), heard, error: Some(error) },
        }
    }

    async fn events(&self, version: &mut String, heard: &mut bool) -> kube::Result<()> {
        let parameters = WatchParams { bookmarks: true, ..WatchParams::default() }.timeout(WATCH.as_secs() as u32);
        let request = Request::new(self.kind.path);
        let request = match self.kind.role {
            Role::Definition => request.watch_metadata(&parameters, version),
            _ => request.watch(&parameters, version),
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let mut events = pin!(self.client.request_events::<Value>(request).await?);
        loop {
            let Ok(event) = tokio::time::timeout(SILENCE, events.next()).await else {
                tracing::info!(kind = self.kind.kind, "the watch is silent: connecting anew");
                return Ok(());
            };
            let Some(event) = event.transpose()? else { return Ok(()) };
            if let WatchEvent::Error(status) = event {
                return Err(kube::Error::Api(status));
            }
            *heard = true;
            self.progress.heard(self.kind.name);
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    remember(version, &object);
                    self.tell(What::Applied(object)).await;
                }
                WatchEvent::Deleted(object) => {
                    remember(version, &object);
                    self.tell(What::Deleted(object)).await;
                }
                WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
                WatchEvent::Error(_) => {}
            }
        }
    }

    async fn tell(&self, what: What) {
        // Nobody listens: the loop in `run` ends.
        let _ = self.sender.send(Message { kind: self.kind, what }).await;
    }
}

fn remember(version: &mut String, object: &Value) {
    if let Some(newer) = object["metadata"]["resourceVersion"].as_str() {
        newer.clone_into(version);
    }
}
