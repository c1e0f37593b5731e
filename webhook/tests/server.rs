//! The server on real TLS sockets: protocols, odd requests, slow and stuck callers.

#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

mod support {
    pub(crate) mod certificates;
    pub(crate) mod http;
}

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, version};
use sluice_webhook::server::{Limits, Phase, handler};
use sluice_webhook::tls::Oldest;
use std::sync::Arc;
use std::time::Duration;
use support::http::{allow, allowing, review, serve, serve_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HEAD: &str = "POST /validate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

#[tokio::test]
async fn speaks_http1_and_h2_and_keeps_connections() {
    let serving = serve(allowing(), Limits::default()).await;
    let mut http1 = serving.connect().await;
    let mut http2 = serving.client.connect_http2(serving.address).await.unwrap();
    assert_eq!(http1.alpn.as_deref(), Some(b"http/1.1".as_slice()));
    assert_eq!(http2.alpn.as_deref(), Some(b"h2".as_slice()));
    for uid in ["a", "b", "c"] {
        let reply = http1.post("/validate?timeout=10s", review(uid, 0)).await.unwrap();
        reply.assert_allowed(uid);
        assert!(!reply.closes());
        http2.post("/validate", review(uid, 100_000)).await.unwrap().assert_allowed(uid);
    }
    assert_eq!(serving.metric("connections"), 2.0);
    assert_eq!(serving.metric(r#"requests_total{verdict="allowed"}"#), 6.0);
}

#[tokio::test]
async fn takes_tls_1_2_only_when_told() {
    for (oldest, taken) in [(Oldest::Tls13, false), (Oldest::Tls12, true)] {
        let serving = serve_with(allowing(), Limits::default(), oldest).await;
        let config = ClientConfig::builder_with_protocol_versions(&[&version::TLS12])
            .with_root_certificates(serving.client.roots())
            .with_no_client_auth();
        let stream = TcpStream::connect(serving.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        assert_eq!(TlsConnector::from(Arc::new(config)).connect(name, stream).await.is_ok(), taken);
    }
}

#[tokio::test]
async fn says_what_is_wrong_with_a_request() {
    let serving = serve(allowing(), Limits::default()).await;
    let mut connection = serving.connect().await;
    let request = |method: &str, path: &str, kind: &str| {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        request.header(header::CONTENT_TYPE, kind).body(Full::new(review("a", 0))).unwrap()
    };
    for (method, path, kind, status) in [
        ("POST", "/validate", "text/plain", 415),
        ("POST", "/validate", "", 415),
        ("POST", "/validate", "application/jsonx", 415),
        ("PUT", "/validate", "application/json", 405),
        ("GET", "/validate", "application/json", 405),
        ("POST", "/", "application/json", 404),
    ] {
        let reply = connection.send(request(method, path, kind)).await.unwrap();
        assert_eq!(reply.status, status, "{method} {path} {kind}");
        let body = reply.json();
        assert_eq!((&body["kind"], body["code"].as_u64()), (&"Status".into(), Some(status.into())));
        assert!(!body["message"].as_str().unwrap().is_empty());
    }
    let charset = request("POST", "/validate", "application/json; charset=utf-8");
    connection.send(charset).await.unwrap().assert_allowed("a");
}

#[tokio::test]
async fn denies_a_body_that_is_too_large_and_takes_one_that_just_fits() {
    let serving = serve(allowing(), Limits::default()).await;
    let mut connection = serving.connect().await;
    let large = connection.post("/validate", review("large", 8_000_000)).await.unwrap();
    large.assert_denied(413, "large");
    let mib = 1024 * 1024;
    connection.post("/validate", review("fits", 7 * mib - 200)).await.unwrap().assert_allowed("fits");
    let mut http2 = serving.client.connect_http2(serving.address).await.unwrap();
    http2.post("/validate", review("h2", 8_000_000)).await.unwrap().assert_denied(413, "h2");
}

#[tokio::test]
async fn all_bodies_together_are_bounded() {
    let serving = serve(allowing(), Limits { bodies: 1024 * 1024, ..Limits::default() }).await;
    let mut connection = serving.connect().await;
    connection.post("/validate", review("big", 2_000_000)).await.unwrap().assert_denied(503, "big");
    connection.post("/validate", review("small", 900_000)).await.unwrap().assert_allowed("small");
    assert_eq!(serving.metric(r#"shed_total{reason="memory"}"#), 1.0);
}

#[tokio::test]
async fn a_panic_is_a_denial_and_the_server_goes_on() {
    let handler = handler(|body, _| async move {
        assert!(!body.windows(3).any(|part| part == b"bad"), "this is what the test is about");
        allow(&body)
    });
    let serving = serve(handler, Limits::default()).await;
    let mut connection = serving.connect().await;
    connection.post("/validate", review("bad", 0)).await.unwrap().assert_denied(500, "bad");
    let reply = connection.post("/validate", Bytes::from_static(b"bad")).await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (500, &500.into()));
    connection.post("/validate", review("good", 0)).await.unwrap().assert_allowed("good");
    assert_eq!(serving.metric("panics_total"), 2.0);
    assert_eq!(serving.metric("in_flight"), 0.0);
}

#[tokio::test]
async fn a_slow_body_is_answered_in_its_time_with_its_uid() {
    let serving = serve(allowing(), Limits::default()).await;
    let mut stream = serving.client.stream(serving.address).await.unwrap();
    let head = HEAD.replace("/validate", "/validate?timeout=1s");
    let begun = r#"{"kind":"AdmissionReview","request":{"uid":"slow","#;
    stream.write_all(format!("{head}content-length: 5000\r\n\r\n{begun}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""uid":"slow""#), "{answer}");
    assert!(answer.contains(r#""code":408"#), "{answer}");
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_an_idle_connection_is_not() {
    let limits = Limits { head: Duration::from_secs(1), ..Limits::default() };
    let serving = serve(allowing(), limits).await;
    let mut idle = serving.connect().await;
    idle.post("/validate", review("first", 0)).await.unwrap().assert_allowed("first");
    let mut fresh = serving.connect().await;
    let mut slow = serving.client.stream(serving.address).await.unwrap();
    slow.write_all(&HEAD.as_bytes()[..20]).await.unwrap();
    let mut byte = [0];
    let cut = tokio::time::timeout(Duration::from_secs(20), slow.read(&mut byte)).await.unwrap();
    assert!(!matches!(cut, Ok(1..)), "answered half a head");
    // Longer without a word than a head may take.
    idle.post("/validate", review("second", 0)).await.unwrap().assert_allowed("second");
    fresh.post("/validate", review("third", 0)).await.unwrap().assert_allowed("third");
}

#[tokio::test]
async fn stuck_handshakes_cost_only_themselves() {
    let limits = Limits { handshake: Duration::from_secs(2), ..Limits::default() };
    let serving = serve(allowing(), limits).await;
    let mut stuck = Vec::new();
    for at in 0..500 {
        let mut stream = TcpStream::connect(serving.address).await.unwrap();
        if at % 2 == 0 {
            // The beginning of a ClientHello that never comes.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        stuck.push(stream);
    }
    serving.connect().await.post("/validate", review("a", 0)).await.unwrap().assert_allowed("a");
    serving.until(r#"handshake_failures_total{reason="timeout"}"#, |count| count == 500.0).await;
    serving.until("connections", |count| count == 0.0).await;
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let serving = serve(allowing(), Limits { connections: 2, ..Limits::default() }).await;
    let mut first = serving.connect().await;
    first.post("/validate", review("1", 0)).await.unwrap().assert_allowed("1");
    let mut second = serving.connect().await;
    second.post("/validate", review("2", 0)).await.unwrap().assert_allowed("2");
    let (client, address) = (serving.client.clone(), serving.address);
    let third = tokio::spawn(async move {
        let mut third = client.connect(address).await.unwrap();
        third.post("/validate", review("3", 0)).await.unwrap().assert_allowed("3");
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!third.is_finished());
    drop(first);
    third.await.unwrap();
}

#[tokio::test]
async fn an_old_connection_is_renewed_with_an_answer() {
    let serving = serve(allowing(), Limits { age: Duration::from_millis(100), ..Limits::default() }).await;
    let mut connection = serving.connect().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let reply = connection.post("/validate", review("a", 0)).await.unwrap();
    reply.assert_allowed("a");
    assert!(reply.closes());
    connection.driver.await.unwrap().unwrap();
    // h2 says it with GOAWAY, which ends the connection of a caller that has nothing left to ask.
    let http2 = serving.client.connect_http2(serving.address).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), http2.driver).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let serving = serve(allowing(), Limits { idle: Duration::from_millis(100), ..Limits::default() }).await;
    let mut connection = serving.connect().await;
    connection.post("/validate", review("a", 0)).await.unwrap().assert_allowed("a");
    tokio::time::timeout(Duration::from_secs(20), connection.driver).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn finishes_what_it_has_begun() {
    let handler = handler(|body, _| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        allow(&body)
    });
    let serving = serve(handler, Limits::default()).await;
    let mut http1 = serving.connect().await;
    let mut http2 = serving.client.connect_http2(serving.address).await.unwrap();
    let first = tokio::spawn(async move { http1.post("/validate", review("a", 0)).await.unwrap() });
    let second = tokio::spawn(async move { http2.post("/validate", review("b", 0)).await.unwrap() });
    serving.until("in_flight", |count| count == 2.0).await;
    serving.enter(Phase::Stopping);
    first.await.unwrap().assert_allowed("a");
    second.await.unwrap().assert_allowed("b");
    serving.task.await.unwrap();
    assert!(TcpStream::connect(serving.address).await.is_err(), "still listening");
}

#[tokio::test]
async fn draining_serves_everybody_and_asks_them_to_leave() {
    let serving = serve(allowing(), Limits::default()).await;
    let mut old = serving.connect().await;
    old.post("/validate", review("a", 0)).await.unwrap().assert_allowed("a");
    serving.enter(Phase::Draining);
    let mut new = serving.connect().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    for connection in [&mut old, &mut new] {
        let reply = connection.post("/validate", review("b", 0)).await.unwrap();
        reply.assert_allowed("b");
        assert!(reply.closes());
    }
    serving.enter(Phase::Stopping);
    serving.task.await.unwrap();
}
