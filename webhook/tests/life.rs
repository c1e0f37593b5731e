//! The process: ready when it may be, gone when told, with and without a parent.

#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

mod support {
    pub(crate) mod certificates;
    pub(crate) mod http;
    pub(crate) mod process;
}

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use support::certificates::Authority;
use support::http::{Client, metric, review, shift};
use support::process::{Process, arguments, get, is_ready, prepare, signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn serves_status_in_plain_text() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    prepare(folder.path(), &authority.leaf());
    let process = Process::start(folder.path(), &["--log-format", "json"]).await;
    for (path, status) in [("/live", 200), ("/ready", 200), ("/metrics", 200), ("/validate", 404), ("/", 404)] {
        let answer = get(process.status, path).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    let mut stream = TcpStream::connect(process.status).await.unwrap();
    stream.write_all(b"POST /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let log = process.log();
    assert!(log.contains("history is kept in memory only"), "{log}");
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[tokio::test]
async fn is_ready_only_with_guards_and_a_certificate() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let pair = authority.leaf();
    prepare(folder.path(), &pair);
    let guards = fs::read(folder.path().join("guards.yaml")).unwrap();
    fs::write(folder.path().join("guards.yaml"), "kind: [").unwrap();
    fs::remove_file(folder.path().join("tls.key")).unwrap();
    let command = arguments(folder.path(), &[]);
    let starting = tokio::spawn(async move { Process::run(&command).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    fs::write(folder.path().join("tls.key"), &pair.key).unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!starting.is_finished(), "ready without guards");
    fs::write(folder.path().join("guards.yaml"), guards).unwrap();
    let process = starting.await.unwrap();
    let log = process.log();
    assert!(log.contains("no certificate to serve") && log.contains("no guards yet"), "{log}");
    assert!(log.contains("guards.yaml:1:"), "the mistake has no place: {log}");
    assert_eq!(log.matches("no guards yet").count(), 1, "said more than once: {log}");
}

#[tokio::test]
async fn says_what_guards_contradict_and_takes_new_ones() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    prepare(folder.path(), &authority.leaf());
    let process = Process::start(folder.path(), &[]).await;
    let path = folder.path().join("guards.yaml");
    let guards = fs::read_to_string(&path).unwrap();
    let contradictory = guards.replace("maxStep: 25", "maxStep: 25, perWindow: {shift: 10, window: 1h}");
    fs::write(&path, contradictory).unwrap();
    process.logged("guard `everything`: a step of 25 never fits the 10 of perWindow").await;
    assert_eq!(process.log().matches("1 guards and 0 approvals").count(), 2, "{}", process.log());
}

#[tokio::test]
async fn a_denial_is_one_line_of_the_log_and_counted_by_guard_and_code() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    prepare(folder.path(), &authority.leaf());
    let process = Process::start(folder.path(), &[]).await;
    let mut connection = Client::new(&authority).connect(process.reviews).await.unwrap();
    connection.post("/validate", shift("small", 90, 80)).await.unwrap().assert_allowed("small");
    connection.post("/validate", shift("large", 90, 10)).await.unwrap().assert_denied(422, "large");
    let line = process.logged("large").await;
    assert!(line.contains("everything") && line.contains("denied"), "{line}");
    let log = process.log();
    assert_eq!(log.matches("large").count(), 1, "{log}");
    assert!(!log.contains("small") && !log.contains("nobody logs this"), "{log}");
    let metrics = process.metrics().await;
    assert_eq!(metric(&metrics, r#"requests_total{verdict="denied"}"#), 1.0);
    assert_eq!(metric(&metrics, r#"denials_total{guard="everything",code="maxStep"}"#), 1.0, "{metrics}");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    prepare(folder.path(), &authority.leaf());
    let mut process = Process::start(folder.path(), &["--drain", "1h"]).await;
    signal(process.id(), "INT");
    process.until_ready(false).await;
    // It still answers.
    Client::new(&authority).connect(process.reviews).await.unwrap().post("/validate", review("a", 0)).await.unwrap();
    signal(process.id(), "TERM");
    assert_eq!(process.ended().await.code(), Some(1));
}

/// The kernel spares the first process of a container from signals that it has no handler for.
#[tokio::test]
async fn drains_as_the_first_process_of_a_container() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    prepare(folder.path(), &authority.leaf());
    let mut command: Vec<_> = ["unshare", "--user", "--map-root-user", "--pid", "--fork"].map(str::to_owned).into();
    command.extend(arguments(folder.path(), &["--drain", "500ms"]));
    let mut process = Process::run(&command).await;
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id())).unwrap();
    let inner: u32 = children.trim().parse().unwrap_or_else(|_| panic!("not one child of unshare: {children}"));
    let status = fs::read_to_string(format!("/proc/{inner}/status")).unwrap();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    assert_eq!(ids.split_whitespace().last(), Some("1"), "not the first process: {ids}");
    signal(inner, "TERM");
    process.until_ready(false).await;
    assert!(process.ended().await.success());
    assert!(process.log().contains("shutting down"), "{}", process.log());
}

#[tokio::test]
async fn running_out_of_files_is_not_the_end() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    prepare(folder.path(), &authority.leaf());
    let mut command: Vec<_> = ["sh", "-c", r#"ulimit -n 48; exec "$@""#, "sh"].map(str::to_owned).into();
    command.extend(arguments(folder.path(), &[]));
    let process = Process::run(&command).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(TcpStream::connect(process.reviews).await.unwrap());
    }
    let line = format!("no new connections to {} for the moment", process.reviews);
    process.logged(&line).await;
    drop(streams);
    process.until_ready(true).await;
    Client::new(&authority).connect(process.reviews).await.unwrap();
    assert_eq!(process.log().matches(&line).count(), 1);
}

#[tokio::test]
async fn listens_on_ipv4_and_ipv6_with_one_address() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    prepare(folder.path(), &authority.leaf());
    let mut command = arguments(folder.path(), &[]);
    for address in command.iter_mut().filter(|argument| *argument == "127.0.0.1:0") {
        *address = "[::]:0".to_owned();
    }
    // `Process::run` asks at the unspecified address, which Linux takes for this host.
    let process = Process::run(&command).await;
    for host in ["127.0.0.1", "[::1]"] {
        let address: SocketAddr = format!("{host}:{}", process.status.port()).parse().unwrap();
        assert!(is_ready(address).await, "not at {address}");
    }
}

#[tokio::test]
async fn sends_traces_with_the_uid_and_no_object() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let received = tokio::spawn(async move {
        let (mut stream, _) = collector.accept().await.unwrap();
        let (mut received, mut buffer) = (Vec::new(), vec![0; 65536]);
        while !received.windows(9).any(|part| part == b"trace-uid") {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "no uid in {}", String::from_utf8_lossy(&received));
            received.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&received).into_owned()
    });
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    prepare(folder.path(), &authority.leaf());
    let mut process = Process::start(folder.path(), &["--drain", "0s", "--otlp-endpoint", &endpoint]).await;
    let mut connection = Client::new(&authority).connect(process.reviews).await.unwrap();
    // A body of which the server itself says no, whatever the handler does: too large.
    connection.post("/validate", review("trace-uid", 8_000_000)).await.unwrap().assert_denied(413, "trace-uid");
    assert_eq!(metric(&process.metrics().await, r#"requests_total{verdict="malformed"}"#), 1.0);
    signal(process.id(), "TERM");
    assert!(process.ended().await.success());
    let received = tokio::time::timeout(Duration::from_secs(20), received).await.expect("no traces came").unwrap();
    assert!(received.starts_with("POST /v1/traces") && received.contains("malformed"), "{received}");
    assert!(!received.contains("xxxx"), "the object is in the trace");
}

#[test]
fn says_what_is_wrong_with_its_arguments() {
    let serve = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-webhook"));
        let output = command.arg("serve").args(more).env_remove("RUST_LOG").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let files = ["--guards", "g", "--cert", "c", "--key", "k"];
    assert_eq!(serve(&[]).0, Some(2));
    assert_eq!(serve(&[&files[..], &["--kuma", "1.0"]].concat()).0, Some(2));
    let (code, text) = serve(&[&files[..], &["--otlp-endpoint", "https://collector"]].concat());
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot send traces to `https://collector`"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = serve(&[&files[..], &["--listen", &address]].concat());
    assert_eq!(code, Some(1));
    assert!(text.contains(&format!("error: cannot listen on {address}")), "{text}");
}
