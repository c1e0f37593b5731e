//! `sluice-webhook serve` as its own process.
#![allow(dead_code, clippy::unwrap_used, reason = "each test takes what it needs, and a panic is its failure")]

use super::certificates::Pair;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const GUARDS: &str = r#"apiVersion: sluice.dev/v1alpha1
kind: ShiftGuard
metadata: {name: everything}
spec:
  match: {meshes: ["*"], services: ["*"], namespaces: ["*"]}
  enforcement: Enforce
  caps: {maxStep: 25}
"#;

/// A running webhook; it is killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) reviews: SocketAddr,
    pub(crate) status: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// Writes what `serve` needs into a folder.
pub(crate) fn prepare(folder: &Path, pair: &Pair) {
    fs::write(folder.join("guards.yaml"), GUARDS).unwrap();
    fs::write(folder.join("tls.crt"), &pair.chain).unwrap();
    fs::write(folder.join("tls.key"), &pair.key).unwrap();
}

/// The command that serves from a folder, on free ports of loopback.
pub(crate) fn arguments(folder: &Path, more: &[&str]) -> Vec<String> {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (guards, cert, key) = (path("guards.yaml"), path("tls.crt"), path("tls.key"));
    let program = env!("CARGO_BIN_EXE_sluice-webhook");
    let first = [program, "serve", "--guards", &guards, "--cert", &cert, "--key", &key];
    let ports = ["--listen", "127.0.0.1:0", "--status-listen", "127.0.0.1:0"];
    [&first[..], &ports, more].concat().into_iter().map(str::to_owned).collect()
}

impl Process {
    /// Serves from a folder and returns when it is ready.
    pub(crate) async fn start(folder: &Path, more: &[&str]) -> Self {
        Self::run(&arguments(folder, more)).await
    }

    /// The same with a command of the test's choice, which ends in `serve`.
    pub(crate) async fn run(command: &[String]) -> Self {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{}`: {error}", command[0]));
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *written.lock().unwrap() += &(line + "\n");
            }
        });
        let placeholder = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { child, reviews: placeholder, status: placeholder, log };
        let line = process.logged("reviews on ").await;
        let (_, rest) = line.split_once("reviews on ").unwrap();
        let (reviews, status) = rest.split_once(", status on ").unwrap();
        (process.reviews, process.status) =
            (reviews.parse().unwrap(), status.split('"').next().unwrap().parse().unwrap());
        process.until_ready(true).await;
        process
    }

    /// Waits for a line of the log.
    pub(crate) async fn logged(&self, part: &str) -> String {
        for _ in 0..3000 {
            if let Some(line) = self.log().lines().find(|line| line.contains(part)) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("`{part}` is not in the log for 30 s:\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) async fn until_ready(&self, wanted: bool) {
        for _ in 0..3000 {
            if is_ready(self.status).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("ready is not {wanted} for 30 s:\n{}", self.log());
    }

    pub(crate) async fn metrics(&self) -> String {
        get(self.status, "/metrics").await.unwrap()
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        for _ in 0..3000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not end within 30 s:\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(id: u32, name: &str) {
    let done = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
    assert!(done.success());
}

/// Is the process with this status port ready?
pub(crate) async fn is_ready(status: SocketAddr) -> bool {
    get(status, "/ready").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// A plain GET: the answer with its head.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
