//! Everything that was ever written to a test API server, as its etcd tells: what nobody can have missed or made up.
//!
//! etcd listens on a unix socket in the server's folder and speaks JSON over HTTP beside its own protocol. HTTP/1.0 is
//! enough, and keeps an answer that goes on and on free of chunks. The API server must not compact what was
//! (`--etcd-compaction-interval=0`).

#![allow(clippy::unwrap_used, reason = "a panic in a test is the failure itself")]

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;

/// One write, in the order of revisions.
#[derive(Debug)]
pub(crate) struct Event {
    /// The `resourceVersion` that the write led to.
    pub(crate) revision: u64,
    /// Where the object is, such as `/registry/kuma.io/meshhttproutes/demo/summarize`.
    pub(crate) key: String,
    /// The object; none when it was deleted.
    pub(crate) object: Option<Value>,
}

/// The current revision.
pub(crate) async fn revision(folder: &Path) -> u64 {
    let answer = once(folder, "range", &json!({"key": base64("/")})).await;
    number(&answer["header"]["revision"])
}

/// All writes of objects of one group since a revision, up to now.
pub(crate) async fn history(folder: &Path, group: &str, since: u64) -> Vec<Event> {
    // What is written last marks the end. No resource is there, so the API server never sees it.
    let prefix = format!("/registry/{group}/");
    let end = format!("{prefix}~end");
    let put = once(folder, "put", &json!({"key": base64(&end), "value": base64("{}")})).await;
    let last = number(&put["header"]["revision"]);
    // The byte behind the slash.
    let after = format!("/registry/{group}0");
    let create = json!({"key": base64(&prefix), "range_end": base64(&after), "start_revision": since.to_string()});
    let mut lines = call(folder, "watch", &json!({ "create_request": create })).await;
    let mut events = Vec::new();
    loop {
        let line = lines.next_line().await.unwrap().unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer["error"].is_null() && answer["result"]["canceled"].is_null(), "etcd says: {answer}");
        for event in answer["result"]["events"].as_array().into_iter().flatten() {
            let kv = &event["kv"];
            let (key, revision) = (text(&kv["key"]), number(&kv["mod_revision"]));
            if revision == last {
                return events;
            }
            if key == end {
                continue;
            }
            let deleted = event["type"] == "DELETE";
            let object = (!deleted).then(|| serde_json::from_str(&text(&kv["value"])).unwrap());
            events.push(Event { revision, key, object });
        }
    }
}

async fn once(folder: &Path, method: &str, body: &Value) -> Value {
    let mut lines = call(folder, &format!("kv/{method}"), body).await;
    let line = lines.next_line().await.unwrap().unwrap();
    serde_json::from_str(&line).unwrap()
}

async fn call(folder: &Path, method: &str, body: &Value) -> Lines<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(folder.join("etcd.sock")).await.unwrap();
    let body = body.to_string();
    let head = format!("POST /v3/{method} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.lines().next().unwrap().contains(" 200 "), "etcd answers: {head}");
    stream.lines()
}

fn base64(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap()
}

fn text(value: &Value) -> String {
    let ByteString(bytes) = serde_json::from_value(value.clone()).unwrap_or_default();
    String::from_utf8(bytes).unwrap()
}

/// Numbers of 64 bits are texts in this JSON.
fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}
