//! A client, and a server with a handler of the test's choice.
#![allow(dead_code, clippy::unwrap_used, reason = "each test takes what it needs, and a panic is its failure")]

use super::certificates::Authority;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use sluice_webhook::admission::{Answer, Summary};
use sluice_webhook::server::{self, Handler, Life, Limits, Listener, Phase};
use sluice_webhook::telemetry::metrics::Metrics;
use sluice_webhook::tls::{Certificate, Oldest};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A server in this process.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    pub(crate) life: Life,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) task: JoinHandle<()>,
}

/// Serves a handler on loopback.
pub(crate) async fn serve(handler: Handler, limits: Limits) -> Serving {
    serve_with(handler, limits, Oldest::Tls13).await
}

pub(crate) async fn serve_with(handler: Handler, limits: Limits, oldest: Oldest) -> Serving {
    let authority = Authority::new();
    let certificate = Certificate::default();
    let pair = authority.leaf();
    certificate.set(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    let tls = TlsAcceptor::from(Arc::new(certificate.server_config(oldest).unwrap()));
    let metrics = Arc::new(Metrics::new(certificate));
    let socket = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = socket.local_addr().unwrap();
    let life = Life::default();
    let router = server::router(handler, &limits, Arc::clone(&metrics));
    let listener = Listener::new(socket, Some(tls), router, &limits, &life, Arc::clone(&metrics));
    Serving { address, client: Client::new(&authority), life, metrics, task: tokio::spawn(listener.run()) }
}

impl Serving {
    pub(crate) async fn connect(&self) -> Connection {
        self.client.connect(self.address).await.unwrap()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.life.enter(phase);
    }

    /// The value of a metric, by its whole name with labels and without the prefix.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(&self.metrics.render().unwrap(), name)
    }

    /// Waits until a metric has a value.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        for _ in 0..3000 {
            if wanted(self.metric(name)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("`{name}` is {} for 30 s", self.metric(name));
    }
}

/// A metric's value in a scraped text; 0 when it is not there yet.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let value = |line: &str| line.strip_prefix("sluice_webhook_")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or(0.0)
}

/// An answer that allows, with the uid of the review.
pub(crate) fn allow(body: &[u8]) -> Answer {
    let review: Value = serde_json::from_slice(body).unwrap();
    let uid = review["request"]["uid"].as_str().unwrap();
    let reply = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                       "response": {"uid": uid, "allowed": true}});
    let summary = Summary { verdict: "allowed", uid: uid.to_owned(), ..Summary::default() };
    Answer { status: 200, body: reply.to_string().into(), summary }
}

/// A handler that allows everything.
pub(crate) fn allowing() -> Handler {
    server::handler(|body, _| async move { allow(&body) })
}

/// A review as the API server sends it, with nothing in it but a uid and padding.
pub(crate) fn review(uid: &str, padding: usize) -> Bytes {
    let object = json!({"padding": "x".repeat(padding)});
    // The uid stands first, as the API server writes it.
    let object = format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{uid}","object":{object}}}}}"#
    );
    object.into()
}

/// A dry run of a route's change by a GitOps controller, from one weight of the stable backend to another.
pub(crate) fn shift(uid: &str, before: u32, after: u32) -> Bytes {
    let route = |stable: u32| {
        let backends = json!([{"kind": "MeshService", "name": "llm-v1", "port": 80, "weight": stable},
                              {"kind": "MeshService", "name": "llm-v2", "port": 80, "weight": 100 - stable}]);
        json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshHTTPRoute",
               "metadata": {"name": "canary", "namespace": "demo", "labels": {"kuma.io/mesh": "default"},
                            "annotations": {"note": "nobody logs this"}},
               "spec": {"targetRef": {"kind": "Mesh"}, "to": [{
                   "targetRef": {"kind": "MeshService", "name": "llm"},
                   "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                              "default": {"backendRefs": backends}}]}]}})
    };
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": uid, "kind": {"group": "kuma.io", "version": "v1alpha1", "kind": "MeshHTTPRoute"},
        "resource": {"group": "kuma.io", "version": "v1alpha1", "resource": "meshhttproutes"},
        "name": "canary", "namespace": "demo", "operation": "UPDATE", "dryRun": true,
        "userInfo": {"username": "system:serviceaccount:flux-system:kustomize-controller"},
        "object": route(after), "oldObject": route(before)}});
    review.to_string().into()
}

/// A TLS client that trusts one authority.
#[derive(Clone)]
pub(crate) struct Client {
    roots: Arc<RootCertStore>,
    http1: TlsConnector,
    http2: TlsConnector,
}

/// One connection.
pub(crate) struct Connection {
    sender: Sender,
    /// What the server showed.
    pub(crate) leaf: CertificateDer<'static>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) driver: JoinHandle<Result<(), hyper::Error>>,
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

/// A response that has been read.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) fn new(authority: &Authority) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate()).unwrap();
        let roots = Arc::new(roots);
        let connector = |alpn: &[&[u8]]| {
            let mut config = ClientConfig::builder().with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        Self { http1: connector(&[b"http/1.1"]), http2: connector(&[b"h2", b"http/1.1"]), roots }
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// A TLS stream without HTTP.
    pub(crate) async fn stream(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.handshake(&self.http1, address).await
    }

    /// Connects with HTTP/1.1, as the API server does.
    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<Connection> {
        let stream = self.handshake(&self.http1, address).await?;
        let (leaf, alpn) = seen(&stream);
        let (sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        Ok(Connection { sender: Sender::Http1(sender), leaf, alpn, driver: tokio::spawn(driver) })
    }

    /// Connects with h2.
    pub(crate) async fn connect_http2(&self, address: SocketAddr) -> std::io::Result<Connection> {
        let stream = self.handshake(&self.http2, address).await?;
        let (leaf, alpn) = seen(&stream);
        let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        Ok(Connection { sender: Sender::Http2(sender), leaf, alpn, driver: tokio::spawn(driver) })
    }

    async fn handshake(&self, tls: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        tls.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

fn seen(stream: &TlsStream<TcpStream>) -> (CertificateDer<'static>, Option<Vec<u8>>) {
    let session = stream.get_ref().1;
    let leaf = session.peer_certificates().unwrap()[0].clone().into_owned();
    (leaf, session.alpn_protocol().map(<[u8]>::to_vec))
}

impl Connection {
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, hyper::Error> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        Ok(Reply { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    /// Sends a review.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Reply, hyper::Error> {
        let uri = match self.sender {
            Sender::Http1(_) => path.to_owned(),
            Sender::Http2(_) => format!("https://localhost{path}"),
        };
        let request = Request::post(uri)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .unwrap();
        self.send(request).await
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A denial with this code and uid, and nothing but a review.
    pub(crate) fn assert_denied(&self, code: u16, uid: &str) {
        let review = self.json();
        assert_eq!(self.status, 200, "{review}");
        assert_eq!(review["kind"], "AdmissionReview");
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        let response = &review["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!(uid), &json!(false)));
        assert_eq!(response["status"]["code"], code, "{review}");
        assert!(!response["status"]["message"].as_str().unwrap().is_empty());
    }

    pub(crate) fn assert_allowed(&self, uid: &str) {
        assert_eq!(self.status, 200);
        let response = &self.json()["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!(uid), &json!(true)));
    }

    /// Does the server end the connection behind this response?
    pub(crate) fn closes(&self) -> bool {
        self.headers.get(header::CONNECTION).is_some_and(|value| value == "close")
    }
}
