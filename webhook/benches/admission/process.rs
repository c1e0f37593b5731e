//! The servers under test, each its own process, and what the kernel says of them.

use crate::ready::{free_port, is_ready};
use anyhow::Context as _;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// From its start until it was ready.
    pub(crate) start: Duration,
}

/// Files that both servers read.
pub(crate) struct Files {
    folder: tempfile::TempDir,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Files {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
        fs::write(folder.path().join("tls.crt"), certificate.pem())?;
        fs::write(folder.path().join("tls.key"), key.serialize_pem())?;
        Ok(Self { folder, certificate: certificate.der().clone() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Guards with everything on, of which three match the reviews and the others do not.
    fn write_guards(&self, count: usize) -> anyhow::Result<PathBuf> {
        let mut text = String::new();
        for at in 0..count {
            let (meshes, services) = match at {
                0 => ("\"*\"".to_owned(), "\"*\"".to_owned()),
                1 => ("default".to_owned(), "\"route-*\"".to_owned()),
                2 => ("default".to_owned(), "llm-v2".to_owned()),
                _ => (format!("mesh-{at}"), "\"*\"".to_owned()),
            };
            let _ = write!(
                text,
                "---\napiVersion: sluice.dev/v1alpha1\nkind: ShiftGuard\nmetadata: {{name: guard-{at}}}\nspec:\n  match: \
                 {{meshes: [{meshes}], services: [{services}], namespaces: [\"*\"]}}\n  enforcement: Enforce\n  \
                 automation: {{subjects: [\"system:serviceaccount:*:*\"], humanNeedsApproval: false}}\n  caps: {{maxStep: \
                 25, perWindow: {{shift: 1000000000, window: 1h}}, maxShare: 90}}\n  freeze: [{{cron: \"0 0 29 2 *\", \
                 duration: 1h, timeZone: Europe/Berlin, reason: leap day}}]\n  approvals: {{required: 1, groups: \
                 [\"oidc:sre\"], maxAge: 24h}}\n  health: {{minScore: 1}}\n"
            );
        }
        let digest = "0123456789abcdef".repeat(4);
        let _ = write!(
            text,
            "---\napiVersion: sluice.dev/v1alpha1\nkind: ShiftApproval\nmetadata: {{name: one}}\nspec: {{digest: {digest}, \
             approver: mia, groups: [\"oidc:sre\"], created: 2026-11-25T08:00:00Z}}\n"
        );
        let path = self.path("guards.yaml");
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Server {
    /// The yardstick: this program, run again.
    pub(crate) fn ceiling(files: &Files) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("ceiling").arg(files.path("tls.crt")).arg(files.path("tls.key"));
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no output of the ceiling")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()?, start: begun.elapsed() })
    }

    /// The webhook with everything on.
    pub(crate) fn webhook(files: &Files, guards: usize) -> anyhow::Result<Self> {
        let guards = files.write_guards(guards)?;
        let (address, status) = (free_port()?, free_port()?);
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-webhook"));
        command.arg("serve").arg("--guards").arg(guards);
        command.arg("--cert").arg(files.path("tls.crt")).arg("--key").arg(files.path("tls.key"));
        command.args(["--listen", &address.to_string(), "--status-listen", &status.to_string()]);
        command.args(["--log", "warn,sluice_webhook=error"]);
        let begun = Instant::now();
        let mut server = Self { child: command.spawn()?, address, start: Duration::ZERO };
        while !is_ready(status) {
            if let Some(status) = server.child.try_wait()? {
                anyhow::bail!("the webhook ended with {status}");
            }
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(30), "the webhook is not ready after 30 s");
            std::thread::sleep(Duration::from_micros(200));
        }
        server.start = begun.elapsed();
        Ok(server)
    }

    /// Processor time so far, user and system.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let text = fs::read_to_string(self.proc("stat"))?;
        // Behind the name, which may have spaces in it: fields 14 and 15 of proc(5), in hundredths of a second.
        let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |at: usize| fields.get(at - 3).context("a short /proc/PID/stat")?.parse::<u64>().context("no number");
        Ok(Duration::from_millis((ticks(14)? + ticks(15)?) * 10))
    }

    /// Resident memory now and at its most, in KiB.
    pub(crate) fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let text = fs::read_to_string(self.proc("status"))?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).context("a short /proc/PID/status")?;
            line.trim().trim_end_matches(" kB").parse::<u64>().context("no number")
        };
        Ok((value("VmRSS:")?, value("VmHWM:")?))
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
