//! Callers on kept-alive HTTP/1.1 connections, and what they measure. Bare bytes: every cycle spent here is one that a
//! server on the same two processors does not get.

use crate::body::{Differs, Template};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// No review is sent twice, in whatever row.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// What the callers of one row saw in one round.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// How long each answer took, ascending.
    pub(crate) times: Vec<Duration>,
    /// Answers that did not allow what every guard allows.
    pub(crate) refused: u64,
    pub(crate) took: Duration,
}

/// Trusts one certificate.
pub(crate) fn connector(certificate: CertificateDer<'static>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Asks over `connections` connections for some time.
pub(crate) async fn run(
    tls: &TlsConnector,
    address: SocketAddr,
    template: &Template,
    differs: Differs,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Seen> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        streams.push(tls.connect(ServerName::try_from("localhost")?, stream).await?);
    }
    let begun = Instant::now();
    let callers: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            let caller = Caller { stream, template: template.clone(), buffer: Vec::new() };
            tokio::spawn(caller.ask(differs, begun + time))
        })
        .collect();
    let mut seen = Seen::default();
    for caller in callers {
        let (times, refused) = caller.await??;
        seen.times.extend(times);
        seen.refused += refused;
    }
    seen.took = begun.elapsed();
    seen.times.sort_unstable();
    Ok(seen)
}

struct Caller {
    stream: TlsStream<TcpStream>,
    template: Template,
    buffer: Vec<u8>,
}

impl Caller {
    async fn ask(mut self, differs: Differs, until: Instant) -> anyhow::Result<(Vec<Duration>, u64)> {
        let (mut times, mut refused) = (Vec::new(), 0);
        let head = format!(
            "POST /validate?timeout=10s HTTP/1.1\r\nhost: localhost\r\nuser-agent: kube-apiserver-admission\r\ncontent-type: \
             application/json\r\naccept: application/json\r\ncontent-length: {}\r\n\r\n",
            self.template.len()
        );
        let mut request = Vec::with_capacity(head.len() + self.template.len());
        while Instant::now() < until {
            request.clear();
            request.extend_from_slice(head.as_bytes());
            request.extend_from_slice(self.template.fill(NUMBERS.fetch_add(1, Relaxed), differs));
            let asked = Instant::now();
            self.stream.write_all(&request).await?;
            self.stream.flush().await?;
            let is_allowed = self.read().await?;
            times.push(asked.elapsed());
            refused += u64::from(!is_allowed);
        }
        Ok((times, refused))
    }

    /// Reads one answer: does it allow?
    async fn read(&mut self) -> anyhow::Result<bool> {
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                anyhow::bail!("the server closed the connection after {:?}", String::from_utf8_lossy(&self.buffer));
            }
            let Some(end) = find(&self.buffer, b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end])?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.ok_or_else(|| anyhow::anyhow!("no content-length in {head}"))?.parse()?;
            if self.buffer.len() >= end + 4 + length {
                return Ok(find(&self.buffer[end..], br#""allowed":true"#).is_some());
            }
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
