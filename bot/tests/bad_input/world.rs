//! A small repository with its configuration and recording, in which both rollouts are ready for their next rung.

use assert_cmd::Command;
use sluice_bot::metrics::recording::{Header, Recording, ServiceCounts, Tick};
use sluice_bot::repository::{Oid, Repository, Signature};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tempfile::TempDir;

/// When the routes were committed, seconds since 1970 UTC.
pub const BEGIN: i64 = 1_795_560_000;
/// Seconds of a tick.
pub const TICK: u32 = 30;
const TICKS: i64 = 40;

/// The binary under test.
pub const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// A folder with `sluice.yaml`, `policies.git` and `mesh.sluice.gz`.
pub struct World {
    folder: TempDir,
}

/// What a run of the binary left.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Files of a repository: path and bytes.
pub type Files = Vec<(String, Vec<u8>)>;

pub fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/bad-input").join(path)
}

/// The files below a folder, by their path in it.
pub fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.push((name, fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The cases of a folder of fixtures: name and path.
pub fn cases(folder: &str, extension: &str) -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(testdata(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().unwrap_or_default() == extension)
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no fixtures in {folder}");
    found
}

/// Compares with the snapshot beside a fixture.
macro_rules! told {
    ($folder:expr, $name:expr, $text:expr) => {
        insta::with_settings!({
            snapshot_path => format!("../../../testdata/bad-input/{}", $folder),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!($name.as_str(), $text) })
    };
}
pub(crate) use told;

pub fn team(time: i64) -> Signature {
    let time = jiff::Timestamp::from_second(time).unwrap();
    Signature { name: "Platform team".into(), email: "platform@example.org".into(), time }
}

impl World {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The world with some files put over those of its repository.
    pub fn with(changes: &[(String, Vec<u8>)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::fill(folder.path(), changes);
        Self { folder }
    }

    pub fn fill(folder: &Path, changes: &[(String, Vec<u8>)]) {
        let given = files(&testdata("world"));
        let mut repository: BTreeMap<_, _> = given.into_iter().collect();
        fs::write(folder.join("sluice.yaml"), repository.remove("sluice.yaml").unwrap()).unwrap();
        repository.extend(changes.iter().cloned());
        let repository: Files = repository.into_iter().collect();
        let git = Repository::init_bare(&folder.join("policies.git")).unwrap();
        let first = git.commit(&[], None, &repository, "Mesh policies\n", &team(BEGIN)).unwrap();
        git.update_ref("refs/heads/main", first, None).unwrap();
        recording().save(&folder.join("mesh.sluice.gz")).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> String {
        fs::read_to_string(self.path("sluice.yaml")).unwrap()
    }

    pub fn set_config(&self, text: &str) {
        fs::write(self.path("sluice.yaml"), text).unwrap();
    }

    pub fn git(&self) -> Repository {
        Repository::open(&self.path("policies.git")).unwrap()
    }

    /// Commits to `main`; the next second each time.
    pub fn commit(&self, changes: &[(&str, &str)]) -> Oid {
        let git = self.git();
        let head = git.head("main").unwrap().unwrap();
        let time = git.describe(head).unwrap().time.as_second() + 1;
        let changes: Files = changes.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect();
        let next = git.commit(&[head], Some(head), &changes, "Change\n", &team(time)).unwrap();
        git.update_ref("refs/heads/main", next, Some(head)).unwrap();
        next
    }

    /// Runs Git itself on the repository.
    pub fn plain_git(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(self.path("policies.git")).args(arguments).write_stdin(input);
        let done = command.output().unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Every reference and where it points.
    pub fn refs(&self) -> BTreeMap<String, Oid> {
        self.git().references("refs/*").unwrap().into_iter().collect()
    }

    /// Every object.
    pub fn objects(&self) -> BTreeSet<String> {
        let listed = self.plain_git(&["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"], b"");
        listed.lines().map(str::to_owned).collect()
    }

    pub fn fsck(&self) {
        let told = self.plain_git(&["fsck", "--full", "--strict", "--no-dangling"], b"");
        assert_eq!(told, "");
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(SLUICE);
        let done = command.current_dir(self.folder.path()).args(arguments).output().unwrap();
        Run::of(&done, self.folder.path())
    }

    pub fn propose(&self) -> Run {
        self.run(&["propose"])
    }

    /// A child that may be stopped.
    pub fn start(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = std::process::Command::new(SLUICE);
        command.current_dir(self.folder.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs `propose` and tells everything that came of it.
    pub fn told(&self) -> String {
        let (refs, objects) = (self.refs(), self.objects());
        let run = self.propose();
        let mut text = run.to_string();
        let after = self.refs();
        for (name, target) in &after {
            match refs.get(name) {
                None => text += &format!("new: {name}\n"),
                Some(before) if before != target => text += &format!("moved: {name}\n"),
                Some(_) => {}
            }
        }
        if refs == after {
            text += if objects == self.objects() {
                "nothing was written\n"
            } else {
                "objects were written, no reference moved\n"
            };
        }
        self.fsck();
        text
    }

    /// Asserts that `propose` fails with this message and writes nothing at all.
    pub fn refuses(&self, message: &str) {
        let (refs, objects) = (self.refs(), self.objects());
        let run = self.propose();
        run.fails(message);
        assert_eq!((refs, objects), (self.refs(), self.objects()));
    }
}

impl Run {
    pub fn of(done: &Output, folder: &Path) -> Self {
        let here = folder.display().to_string();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(&here, "…");
        let run = Self { code: done.status.code(), stdout: text(&done.stdout), stderr: text(&done.stderr) };
        assert!(!run.stderr.contains("panicked"), "{run}");
        run
    }

    #[track_caller]
    pub fn fails(&self, message: &str) {
        assert_eq!(self.code, Some(1), "{self}");
        assert!(self.stderr.contains(message), "no `{message}` in:\n{self}");
        assert_eq!(self.stdout, "", "{self}");
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        assert!(self.stdout.contains(what) || self.stderr.contains(what), "no `{what}` in:\n{self}");
        self
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.map_or("none".to_owned(), |code| code.to_string());
        writeln!(f, "exit code {code}")?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            for line in text.lines() {
                writeln!(f, "{name}: {line}")?;
            }
        }
        Ok(())
    }
}

/// Twenty minutes in which each canary was as good as the version before it.
pub fn recording() -> Recording {
    let header = Header {
        tick: TICK,
        mesh: "default".into(),
        source: "a test".into(),
        created: jiff::Timestamp::from_second(BEGIN + TICKS * i64::from(TICK)).unwrap(),
        from: Vec::new(),
        edges_ms: Vec::new(),
    };
    let counts = |requests: f64, errors: f64| ServiceCounts { requests, errors, ..ServiceCounts::default() };
    let tick = |index: i64| Tick {
        t: BEGIN + index * i64::from(TICK),
        services: ["chat", "summarize"]
            .iter()
            .flat_map(|name| {
                let bad = (index % 3) as f64;
                [(format!("{name}-v1"), counts(9500.0, 38.0 + bad)), (format!("{name}-v2"), counts(500.0, 1.0 + bad))]
            })
            .collect(),
    };
    Recording { header, ticks: (1..=TICKS).map(tick).collect() }
}
