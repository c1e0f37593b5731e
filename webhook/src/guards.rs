//! Guards and approvals from files: where there is no cluster to watch.

use crate::world::Shared;
use jiff::Timestamp;
use sluice_rules::diagnostic::Diagnostic;
use sluice_rules::document::{Document, File};
use sluice_rules::guard::{Approval, ShiftGuard, contradictions};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A file or a folder of `ShiftGuard` and `ShiftApproval` documents, read again every second.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    /// What was read last.
    seen: Option<Content>,
    /// What was taken or reported last.
    settled: Option<Content>,
    loaded: bool,
}

/// Each file's name and bytes, or why they cannot be read.
type Content = Result<Vec<(String, Vec<u8>)>, String>;

/// What the files say.
#[derive(Debug, Default)]
pub struct Rules {
    /// The guards.
    pub guards: Vec<ShiftGuard>,
    /// The approvals.
    pub approvals: Vec<Approval>,
}

/// Reads a file, or every `.yaml`, `.yml` and `.json` file in a folder and its folders; names with a dot in front are
/// passed over, such as the `..data` of a mounted ConfigMap.
///
/// # Errors
///
/// Everything that is wrong, one line each, with its place.
pub fn load(path: &Path) -> Result<Rules, Vec<String>> {
    parse(&read(path).map_err(|error| vec![error])?)
}

impl Files {
    /// A file or a folder.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None, settled: None, loaded: false }
    }

    /// Reads the files and puts what they say into the world, if it changed. Broken files leave the world as it is. True
    /// when guards have been loaded, now or before.
    ///
    /// A change counts when two calls in a row have seen it: a file that is being written must not lift a limit.
    pub fn poll(&mut self, world: &Shared, now: Timestamp) -> bool {
        let content = read(&self.path);
        let is_settled = self.seen.is_none() || self.seen.as_ref() == Some(&content);
        if is_settled && self.settled.as_ref() != Some(&content) {
            match content.as_ref().map_err(|error| vec![error.clone()]).and_then(|files| parse(files)) {
                Ok(rules) => self.take(rules, world, now),
                Err(problems) => self.report(&problems),
            }
            self.settled = Some(content.clone());
        }
        self.seen = Some(content);
        self.loaded
    }

    fn take(&mut self, Rules { guards, approvals }: Rules, world: &Shared, now: Timestamp) {
        let path = self.path.display();
        tracing::info!("{} guards and {} approvals from {path}", guards.len(), approvals.len());
        if guards.is_empty() {
            tracing::warn!("no ShiftGuard in {path}: nothing limits how far automation moves traffic");
        }
        for problem in contradictions(&guards, now) {
            tracing::warn!("{path}: {problem}");
        }
        world.update(|world| {
            world.guards.clone_from(&guards);
            world.approvals.clone_from(&approvals);
        });
        self.loaded = true;
    }

    fn report(&self, problems: &[String]) {
        let kept = if self.loaded { "the guards before stay in force" } else { "no guards yet" };
        for problem in problems {
            tracing::error!("{kept}: {problem}");
        }
    }
}

fn read(path: &Path) -> Content {
    let mut files = Vec::new();
    if path.is_dir() {
        walk(path, &mut files)?
    } else {
        files.push(path.to_owned())
    }
    files.sort();
    let read = |file: PathBuf| match std::fs::read(&file) {
        Ok(bytes) => Ok((file.display().to_string(), bytes)),
        Err(error) => Err(format!("cannot read {}: {error}", file.display())),
    };
    files.into_iter().map(read).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let problem = |error| format!("cannot read {}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(problem)? {
        let entry = entry.map_err(problem)?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A link to a folder is not followed: it may lead back here.
        if entry.file_type().map_err(problem)?.is_dir() {
            walk(&path, files)?;
        } else if ["yaml", "yml", "json"].iter().any(|kind| path.extension() == Some(OsStr::new(kind))) {
            files.push(path);
        }
    }
    Ok(())
}

fn parse(files: &[(String, Vec<u8>)]) -> Result<Rules, Vec<String>> {
    let mut rules = Rules::default();
    let mut wrong = Vec::new();
    for (path, bytes) in files {
        match File::parse(path, bytes) {
            Ok(file) => {
                for document in file.documents() {
                    wrong.extend(rules.add(document).iter().map(|problem| at(&file, document, problem)));
                }
            }
            Err(problems) => wrong.extend(problems.iter().map(ToString::to_string)),
        }
    }
    if wrong.is_empty() { Ok(rules) } else { Err(wrong) }
}

impl Rules {
    fn add(&mut self, document: &Document) -> Vec<Diagnostic> {
        let value = document.value();
        match value["kind"].as_str() {
            Some("ShiftGuard") => match ShiftGuard::read(value) {
                Ok(guard) => self.guards.push(guard),
                Err(problems) => return problems,
            },
            Some("ShiftApproval") => match Approval::read(value) {
                Ok(approval) => self.approvals.push(approval),
                Err(problems) => return problems,
            },
            // Anything else may be a guard with a slip in its kind, which nobody would miss.
            _ => {
                let field = "kind".parse().unwrap_or_default();
                let message = "must be `ShiftGuard` or `ShiftApproval`: other documents do not belong here";
                return vec![Diagnostic::error("guard-malformed", field, message)];
            }
        }
        Vec::new()
    }
}

fn at(file: &File, document: &Document, problem: &Diagnostic) -> String {
    let (line, column) = document.locate(&problem.field).map_or((1, 1), |place| (place.line, place.column));
    format!("{}:{line}:{column}: {problem}", file.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GUARD: &str = "apiVersion: sluice.dev/v1alpha1\nkind: ShiftGuard\nmetadata: {name: llm}\nspec:\n  match: \
                         {meshes: [\"*\"], services: [\"*\"], namespaces: [\"*\"]}\n  enforcement: Enforce\n  \
                         caps: {maxStep: 25}\n";

    fn approval(digest: &str) -> String {
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: ShiftApproval\nmetadata: {{name: a}}\nspec: {{digest: {digest}, \
             approver: mia, created: 2026-11-25T10:00:00Z}}\n"
        )
    }

    #[test]
    fn reads_guards_and_approvals_from_the_files_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("team")).unwrap();
        fs::create_dir_all(folder.path().join("..data")).unwrap();
        fs::write(folder.path().join("guard.yaml"), GUARD).unwrap();
        fs::write(folder.path().join("team/approval.yml"), approval(&"a".repeat(64))).unwrap();
        fs::write(folder.path().join("..data/guard.yaml"), "left: out").unwrap();
        fs::write(folder.path().join("README.md"), "left out").unwrap();
        let rules = load(folder.path()).unwrap();
        assert_eq!((rules.guards.len(), rules.approvals.len()), (1, 1));
        assert_eq!(rules.guards[0].name(), "llm");
    }

    #[test]
    fn says_where_each_mistake_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guards.yaml");
        fs::write(&path, format!("{}---\nkind: ShiftGaurd\n---\n{}", GUARD.replace("25", "250"), approval("abc")))
            .unwrap();
        let wrong: Vec<_> =
            load(&path).unwrap_err().iter().map(|line| line.replace(path.to_str().unwrap(), "f")).collect();
        assert_eq!(
            wrong,
            [
                "f:7:19: error[guard-malformed] spec.caps.maxStep: must be above 0 and at most 100, not 250",
                "f:9:7: error[guard-malformed] kind: must be `ShiftGuard` or `ShiftApproval`: other documents do not belong here",
                "f:14:16: error[approval-malformed] spec.digest: must be a SHA-256 digest, 64 digits of lower case hex",
            ]
        );
    }

    #[test]
    fn broken_or_half_written_files_leave_the_guards_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guards.yaml");
        let (world, now) = (Shared::default(), Timestamp::UNIX_EPOCH);
        let mut files = Files::new(&path);
        assert!(!files.poll(&world, now), "there is no file yet");
        fs::write(&path, GUARD).unwrap();
        assert!(!files.poll(&world, now) && files.poll(&world, now));
        assert_eq!(world.load().guards.len(), 1);
        let mut poll = |text: &str| {
            fs::write(&path, text).unwrap();
            files.poll(&world, now);
            world.load().guards.first().and_then(|guard| guard.spec.caps.max_step)
        };
        assert_eq!(poll(""), Some(25.0), "just emptied: somebody may be writing");
        assert_eq!(poll("kind: ["), Some(25.0));
        assert_eq!(poll("kind: ["), Some(25.0), "broken for good");
        assert_eq!(poll(&GUARD.replace("25", "10")), Some(25.0));
        assert_eq!(poll(&GUARD.replace("25", "10")), Some(10.0));
        fs::remove_file(&path).unwrap();
        assert!(files.poll(&world, now) && files.poll(&world, now));
        assert_eq!(world.load().guards.len(), 1, "a file that is gone lifts no limit");
    }
}
