//! Ledgers and policies, read from and written to the API server.

use super::clock::Clock;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_rules::guard;
use sluice_rules::policy::Identity;
use std::sync::Arc;
use std::time::Instant;
use tokio::time::timeout_at;

/// Ledgers and policies at the API server, and its clock.
#[derive(Debug)]
pub(super) struct Store {
    client: Client,
    pub(super) clock: Clock,
}

struct Client(kube::Client);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// A ledger at one version of its object.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) version: String,
    pub(super) ledger: Arc<guard::Ledger>,
}

/// Why the API server did not do as it was told.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There was no time left.
    Late,
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

const LEDGERS: &str = "/apis/sluice.dev/v1alpha1/shiftledgers";

/// No object of Kubernetes is larger.
const LARGEST: usize = 4 << 20;

impl View {
    /// Reads the object of a ledger.
    pub(super) fn of(object: &Value) -> Result<Self, Trouble> {
        let read = |at: &str| object.pointer(at).cloned().unwrap_or_default();
        let ledger = serde_json::from_value(read("/spec")).map_err(|error| Trouble::Failed(error.into()))?;
        let version = read("/metadata/resourceVersion").as_str().unwrap_or_default().to_owned();
        Ok(Self { version, ledger: Arc::new(ledger) })
    }

    pub(super) fn is_older(&self, other: &Self) -> bool {
        is_older(&self.version, &other.version)
    }
}

/// Versions of one kind of object are numbers that grow; where they are not, the last to come is right.
pub(super) fn is_older(version: &str, than: &str) -> bool {
    matches!((version.parse::<u64>(), than.parse::<u64>()), (Ok(ours), Ok(theirs)) if ours < theirs)
}

impl Store {
    pub(super) fn new(client: kube::Client) -> Self {
        Self { client: Client(client), clock: Clock::default() }
    }

    pub(super) fn client(&self) -> kube::Client {
        self.client.0.clone()
    }

    /// A ledger as the API server has it; none where there is none.
    pub(super) async fn get(&self, name: &str, deadline: Instant) -> Result<Option<View>, Trouble> {
        let (status, body) = self.call(Method::GET, &format!("{LEDGERS}/{name}"), Vec::new(), deadline).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => View::of(&parsed(status, &body)?).map(Some),
        }
    }

    /// Writes a ledger on a version, or creates it; none when it has another version or exists already.
    pub(super) async fn put(
        &self,
        name: &str,
        version: Option<&str>,
        ledger: guard::Ledger,
        deadline: Instant,
    ) -> Result<Option<View>, Trouble> {
        let mut object = json!({
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "ShiftLedger",
            "metadata": {"name": name},
            "spec": ledger,
        });
        let (method, path) = match version {
            Some(version) => {
                object["metadata"]["resourceVersion"] = version.into();
                (Method::PUT, format!("{LEDGERS}/{name}"))
            }
            None => (Method::POST, LEDGERS.to_owned()),
        };
        let (status, body) = self.call(method, &path, object.to_string().into_bytes(), deadline).await?;
        if status == StatusCode::CONFLICT || (version.is_some() && status == StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        let written: Written = serde_json::from_value(parsed(status, &body)?).map_err(failed)?;
        Ok(Some(View { version: written.metadata.resource_version, ledger: Arc::new(ledger) }))
    }

    /// A policy as the API server has it, and as of which version that is so. An object that is not there has no version,
    /// but the list without it has: whatever was seen of it before is older.
    pub(super) async fn policy(&self, policy: &Identity, deadline: Instant) -> Result<Found, Trouble> {
        // What could not be a name of Kubernetes is none, and must not become part of a path.
        let Some(path) = path(policy) else { return Ok(Found::default()) };
        let (status, body) = self.call(Method::GET, &path, Vec::new(), deadline).await?;
        // The kind or its namespace is gone.
        if status == StatusCode::NOT_FOUND {
            return Ok(Found::default());
        }
        let list: Listed = serde_json::from_value(parsed(status, &body)?).map_err(failed)?;
        let named = |object: &Value| object.pointer("/metadata/name").is_some_and(|name| *name == *policy.name);
        Ok(Found { object: list.items.into_iter().find(named), version: Some(list.metadata.resource_version) })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<(StatusCode, Vec<u8>), Trouble> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("content-type", "application/json").header("accept", "application/json");
        let request = request.body(Body::from(body)).map_err(failed)?;
        let exchange = async {
            let sent = Instant::now();
            let answer = self.client.0.send(request).await.map_err(failed)?;
            if let Some(date) = answer.headers().get("date").and_then(|date| date.to_str().ok()) {
                self.clock.note(date, sent);
            }
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(Trouble::Failed)?;
            Ok((status, body.to_bytes().to_vec()))
        };
        timeout_at(deadline.into(), exchange).await.map_err(|_| Trouble::Late)?
    }
}

/// What was found of a policy.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) object: Option<Value>,
    /// The version of the list it was looked for in.
    pub(super) version: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Listed {
    metadata: Metadata,
    items: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Trouble {
    Trouble::Failed(error.into())
}

fn parsed(status: StatusCode, body: &[u8]) -> Result<Value, Trouble> {
    let value: Result<Value, _> = serde_json::from_slice(body);
    if status.is_success() {
        return value.map_err(failed);
    }
    let message = value.ok().and_then(|status| Some(status.get("message")?.as_str()?.chars().take(300).collect()));
    let message: String = message.unwrap_or_default();
    Err(failed(format!("the API server answers {}: {message}", status.as_u16()).trim_end_matches(": ")))
}

/// The list of one policy. Kinds of Kuma say their plural as Kubernetes derives it; those that 3.0 removes have no namespace.
fn path(policy: &Identity) -> Option<String> {
    let fits = |text: &str| {
        let letters = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
        !text.is_empty() && text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.chars().all(letters)
    };
    let all = [Some(policy.kind.as_str()), Some(policy.name.as_str()), policy.namespace.as_deref()];
    if !all.into_iter().flatten().all(fits) {
        return None;
    }
    let plural = format!("{}s", policy.kind.to_ascii_lowercase());
    let namespace = policy.namespace.as_ref().map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
    Some(format!("/apis/kuma.io/v1alpha1/{namespace}{plural}?fieldSelector=metadata.name%3D{}", policy.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_one_place_and_odd_names_have_none() {
        let policy = |kind: &str, namespace: Option<&str>, name: &str| {
            let identity = json!({"kind": kind, "mesh": "default", "namespace": namespace, "name": name});
            path(&serde_json::from_value(identity).unwrap())
        };
        let found = policy("MeshHTTPRoute", Some("demo"), "a").unwrap();
        let of = "?fieldSelector=metadata.name%3D";
        assert_eq!(found, format!("/apis/kuma.io/v1alpha1/namespaces/demo/meshhttproutes{of}a"));
        let found = policy("TrafficRoute", None, "a.b").unwrap();
        assert_eq!(found, format!("/apis/kuma.io/v1alpha1/trafficroutes{of}a.b"));
        for name in ["", "../a", "a/b", "a?b", "a%2fb", ".", "ä"] {
            assert_eq!(policy("MeshHTTPRoute", Some("demo"), name), None, "{name}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_older("9", "10"));
        assert!(!is_older("10", "9"));
        assert!(!is_older("a", "b") && !is_older("b", "a"));
    }
}
