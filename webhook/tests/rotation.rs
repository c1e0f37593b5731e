//! Certificates are renewed and replicas replaced while 64 callers ask: no request fails.

#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

mod support {
    pub(crate) mod certificates;
    pub(crate) mod http;
    pub(crate) mod load;
    pub(crate) mod process;
}

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use support::certificates::{Authority, Pair};
use support::http::{Client, metric};
use support::load::{Endpoints, Load};
use support::process::{Process, is_ready, prepare, signal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_rotations_and_a_replaced_replica_fail_no_request() {
    let authority = Authority::new();
    let client = Client::new(&authority);
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = authority.leaf();
    prepare(folder.path(), &first);
    prepare(other.path(), &authority.leaf());
    mount(folder.path(), 0, &first);
    let mut old = Process::start(folder.path(), &["--drain", "3s"]).await;
    let endpoints = Endpoints::new(&[old.reviews]);
    let load = Load::start(64, &client, &endpoints);

    let mut before = first;
    for turn in 1..=20 {
        let pair = if turn % 7 == 0 { authority.intermediate().leaf_with_chain() } else { authority.leaf() };
        match turn % 5 {
            // The way of Kubernetes, again and again.
            1 | 2 => mount(folder.path(), turn, &pair),
            3 => {
                replace(folder.path(), "tls.key", &pair.key);
                still_served(&client, old.reviews, &before).await;
                replace(folder.path(), "tls.crt", &pair.chain);
            }
            4 => {
                fs::write(folder.path().join("tls.crt"), &pair.chain).unwrap();
                still_served(&client, old.reviews, &before).await;
                fs::write(folder.path().join("tls.key"), &pair.key).unwrap();
            }
            _ => {
                fs::write(folder.path().join("tls.crt"), "not a certificate").unwrap();
                still_served(&client, old.reviews, &before).await;
                mount(folder.path(), turn, &pair);
            }
        }
        served(&client, old.reviews, &pair).await;
        before = pair;
    }
    assert!(old.log().contains("the certificate before stays in use"), "{}", old.log());
    assert!(metric(&old.metrics().await, "certificate_not_after_seconds") > 0.0);
    let rotated = load.answered();

    let new = Process::start(other.path(), &[]).await;
    signal(old.id(), "TERM");
    let (old_status, both) = (old.status, [old.reviews, new.reviews]);
    let watched = endpoints.clone();
    // What Kubernetes does with the endpoints of a Service, here within 100 ms.
    let service = tokio::spawn(async move {
        loop {
            let ready = is_ready(old_status).await;
            watched.set(if ready { &both } else { &both[1..] });
            if !ready {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(old.ended().await.success());
    service.await.unwrap();
    let moved = load.answered();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen = load.stop().await;
    println!(
        "{} requests on {} connections, {rotated} of them while certificates changed: {} failed",
        seen.answered,
        seen.connections,
        seen.failures.len()
    );
    assert!(seen.failures.is_empty(), "{:?}", &seen.failures[..seen.failures.len().min(5)]);
    assert!(rotated > 1000 && seen.answered > moved, "{seen:?}");
}

/// Puts a pair in place as the kubelet does: files are links through `..data`, and `..data` is swapped in one step.
fn mount(folder: &Path, turn: usize, pair: &Pair) {
    let name = format!("..{turn}");
    let data = folder.join(&name);
    fs::create_dir(&data).unwrap();
    fs::write(data.join("tls.crt"), &pair.chain).unwrap();
    fs::write(data.join("tls.key"), &pair.key).unwrap();
    symlink(&name, folder.join("..data_tmp")).unwrap();
    let before = fs::read_link(folder.join("..data"));
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), folder.join("link")).unwrap();
        fs::rename(folder.join("link"), folder.join(file)).unwrap();
    }
    if let Ok(before) = before {
        fs::remove_dir_all(folder.join(before)).unwrap();
    }
}

/// Puts one file in place by renaming another over it.
fn replace(folder: &Path, name: &str, content: &str) {
    fs::write(folder.join("new"), content).unwrap();
    fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

async fn shown(client: &Client, address: SocketAddr) -> rustls::pki_types::CertificateDer<'static> {
    client.connect(address).await.unwrap().leaf
}

/// Waits until new connections see this pair.
async fn served(client: &Client, address: SocketAddr, pair: &Pair) {
    for _ in 0..300 {
        if shown(client, address).await == pair.leaf() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new certificate is not served after 15 s");
}

/// Gives the server the time to look, and expects that it found nothing better than what it had.
async fn still_served(client: &Client, address: SocketAddr, pair: &Pair) {
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(shown(client, address).await, pair.leaf());
}
