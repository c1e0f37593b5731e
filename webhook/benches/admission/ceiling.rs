//! The yardstick: the same stack (axum, hyper, rustls), a review parsed into borrowed values, weights compared by position
//! against one cap. No identity of rules, no history, no schema, no metrics, no limits: nothing could do less.

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use sluice_webhook::tls::{Certificate, Oldest};
use std::borrow::Cow;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Deserialize)]
struct Review<'a> {
    #[serde(borrow)]
    request: Asked<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    uid: &'a str,
    #[serde(borrow)]
    object: Option<Route<'a>>,
    #[serde(borrow)]
    old_object: Option<Route<'a>>,
}

#[derive(Deserialize)]
struct Route<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow, default)]
    to: Vec<To<'a>>,
}

#[derive(Deserialize)]
struct To<'a> {
    #[serde(borrow, default)]
    rules: Vec<Rule<'a>>,
}

#[derive(Deserialize)]
struct Rule<'a> {
    #[serde(borrow)]
    default: Backends<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backends<'a> {
    #[serde(borrow, default)]
    backend_refs: Vec<Backend<'a>>,
}

#[derive(Deserialize)]
struct Backend<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    weight: u32,
}

/// The largest step, in percentage points.
const CAP: f64 = 25.0;

/// Serves with the certificate and key in two files, and writes its address to standard output.
pub(crate) async fn serve(chain: &str, key: &str) -> anyhow::Result<()> {
    let certificate = Certificate::default();
    certificate.set(&std::fs::read(chain)?, &std::fs::read(key)?)?;
    let tls = TlsAcceptor::from(Arc::new(certificate.server_config(Oldest::Tls13)?));
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", socket.local_addr()?);
    let router: Router = Router::new()
        .route("/validate", post(|body: Bytes| async move { ([(CONTENT_TYPE, "application/json")], answer(&body)) }))
        .layer(axum::extract::DefaultBodyLimit::disable());
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().header_read_timeout(None).writev(false);
    loop {
        let (stream, _) = socket.accept().await?;
        stream.set_nodelay(true)?;
        let (tls, builder, service) = (tls.clone(), builder.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            if let Ok(stream) = tls.accept(stream).await {
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            }
        });
    }
}

fn answer(body: &[u8]) -> String {
    let Ok(Review { request }) = serde_json::from_slice::<Review<'_>>(body) else { return String::new() };
    let step = step(request.old_object.as_ref(), request.object.as_ref());
    let (uid, allowed) = (request.uid, step <= CAP);
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{{"uid":"{uid}","allowed":{allowed}}}}}"#
    )
}

/// A rule's backends and their shares, in per cent.
type Shares<'a> = Vec<(&'a str, f64)>;

fn step(old: Option<&Route<'_>>, new: Option<&Route<'_>>) -> f64 {
    let (Some(old), Some(new)) = (old, new) else { return 100.0 };
    rules(old).iter().zip(&rules(new)).map(|(old, new)| distance(old, new)).fold(0.0, f64::max)
}

fn rules<'a>(route: &'a Route<'_>) -> Vec<Shares<'a>> {
    route.spec.to.iter().flat_map(|to| &to.rules).map(shares).collect()
}

fn shares<'a>(rule: &'a Rule<'_>) -> Shares<'a> {
    let backends = &rule.default.backend_refs;
    let sum: f64 = backends.iter().map(|backend| f64::from(backend.weight)).sum();
    backends.iter().map(|backend| (backend.name.as_ref(), 100.0 * f64::from(backend.weight) / sum)).collect()
}

fn distance(old: &Shares<'_>, new: &Shares<'_>) -> f64 {
    let share =
        |shares: &Shares<'_>, name: &str| shares.iter().find(|(known, _)| *known == name).map(|(_, share)| *share);
    let kept: f64 = old.iter().map(|(name, before)| (before - share(new, name).unwrap_or(0.0)).abs()).sum();
    let added: f64 = new.iter().filter(|(name, _)| share(old, name).is_none()).map(|(_, share)| share).sum();
    (kept + added) / 2.0
}
