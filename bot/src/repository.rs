//! The policy repository: read a revision, write a commit, move a reference.
//!
//! Everything works on a bare repository. A commit is a tree edit, so nothing is ever checked out and a file that
//! Sluice does not change keeps its bytes. Invariant: objects are written first and a reference moves last, by
//! compare-and-swap; whatever stops us in between leaves unreachable objects and nothing else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use git2::build::TreeUpdateBuilder;
use git2::{DiffFormat, DiffOptions, ErrorClass, ErrorCode, FileMode, ObjectType, TreeWalkMode, TreeWalkResult};
use jiff::Timestamp;

pub use git2::Oid;

/// A file larger than this is no policy: [`Repository::files`] leaves it out and [`Repository::left_out`] names it.
pub const FILE_LIMIT: usize = 1 << 20;

/// A branch or tag lock this old belongs to a process that died; Git itself holds one for milliseconds.
const LOCK_AGE: Duration = Duration::from_secs(10);

/// A bare Git repository.
pub struct Repository {
    git: git2::Repository,
}

/// Who made a commit, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The name Git shows.
    pub name: String,
    /// The address beside it.
    pub email: String,
    /// The commit's time; Git keeps whole seconds.
    pub time: Timestamp,
}

/// A commit as [`Repository::describe`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// The commit.
    pub id: Oid,
    /// Its tree.
    pub tree: Oid,
    /// Its parents, first one first.
    pub parents: Vec<Oid>,
    /// Name and address of the author.
    pub author: (String, String),
    /// Name and address of the committer.
    pub committer: (String, String),
    /// When it was committed.
    pub time: Timestamp,
    /// The whole message.
    pub message: String,
}

/// Why [`Repository::files`] leaves something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum LeftOut {
    /// It has this many bytes, beyond [`FILE_LIMIT`].
    #[error("{0} bytes are more than a policy file needs; split it")]
    Large(usize),
    /// What it leads to may be anywhere.
    #[error("it is a symbolic link; put a copy here, or remove it")]
    Link,
    /// Its files are in another repository.
    #[error("it is a submodule; put its files here, or remove it")]
    Submodule,
    /// No message could spell it, and no configuration name it.
    #[error("its name is not UTF-8; rename it")]
    Name,
}

/// Why the repository could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Time heals it: try again.
    #[error("{message}")]
    Waiting {
        /// What could not be done, and what it waits for.
        message: String,
        /// What Git said.
        source: Option<git2::Error>,
    },
    /// A person has to change something.
    #[error("{message}")]
    Stalled {
        /// What could not be done, and what to change.
        message: String,
        /// What Git said.
        source: Option<git2::Error>,
    },
    /// A reference is not where it was when we looked; look again.
    #[error("`{name}` moved under us: expected {}, found {}", shown(.expected), shown(.found))]
    Moved {
        /// The reference's full name.
        name: String,
        /// Where it had to be; `None`: it had to be absent.
        expected: Option<Oid>,
        /// Where it is.
        found: Option<Oid>,
    },
    /// Both sides changed the same files.
    #[error("cannot merge into `{base}`: both sides changed {}", quoted(.paths))]
    Conflict {
        /// The branch that was to receive the change.
        base: String,
        /// The files both sides changed, sorted.
        paths: Vec<String>,
    },
}

impl Error {
    /// Does time heal it? Otherwise a person acts next.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Moved { .. })
    }

    pub(crate) fn stalled(message: impl Into<String>) -> Self {
        Self::Stalled { message: message.into(), source: None }
    }

    pub(crate) fn waiting(message: impl Into<String>) -> Self {
        Self::Waiting { message: message.into(), source: None }
    }
}

impl Repository {
    /// Opens a repository that exists.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let git = git2::Repository::open(path).map_err(|source| Error::Stalled {
            message: format!("cannot open the repository `{}`", path.display()),
            source: Some(source),
        })?;
        Ok(Self { git })
    }

    /// Creates a bare repository with the branch `main` unborn; opens it when it is there already.
    pub fn init_bare(path: &Path) -> Result<Self, Error> {
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).mkpath(true).initial_head("main").external_template(false);
        let git = git2::Repository::init_opts(path, &options).map_err(|source| Error::Stalled {
            message: format!("cannot create the repository `{}`", path.display()),
            source: Some(source),
        })?;
        Ok(Self { git })
    }

    /// Where the repository lives.
    pub fn path(&self) -> &Path {
        self.git.path()
    }

    /// The commit a branch points at; `None` when there is no such branch.
    pub fn head(&self, branch: &str) -> Result<Option<Oid>, Error> {
        self.target(&branch_ref(branch))
    }

    /// The commit a reference points at, by its full name; `None` when there is no such reference.
    pub fn target(&self, name: &str) -> Result<Option<Oid>, Error> {
        match self.git.find_reference(name).and_then(|found| found.peel_to_commit()) {
            Ok(commit) => Ok(Some(commit.id())),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(self.failed(&format!("cannot read `{name}`"), error)),
        }
    }

    /// Full names and targets of the references that match a glob, sorted by name.
    pub fn references(&self, glob: &str) -> Result<Vec<(String, Oid)>, Error> {
        let failed = |error| self.failed(&format!("cannot list `{glob}`"), error);
        let mut found = Vec::new();
        for reference in self.git.references_glob(glob).map_err(failed)? {
            let reference = reference.map_err(failed)?;
            if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
                found.push((name.to_owned(), target));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The regular files of a commit that `wanted` accepts, sorted by path.
    ///
    /// Symbolic links, submodules, paths that are not UTF-8 and files beyond [`FILE_LIMIT`] are left out.
    pub fn files(&self, commit: Oid, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut files = Vec::new();
        for (path, id, size) in self.entries(commit, wanted)? {
            if size <= FILE_LIMIT {
                files.push((path, self.blob(id)?));
            }
        }
        Ok(files)
    }

    /// What [`Repository::files`] leaves out, and why, sorted by path. `wanted` is asked about links and submodules
    /// too, and a folder whose name is not UTF-8 is there whatever is below it.
    pub fn left_out(&self, commit: Oid, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, LeftOut)>, Error> {
        let entries = self.entries(commit, &wanted)?.into_iter();
        let large = entries.filter(|(_, _, size)| *size > FILE_LIMIT);
        let mut found: Vec<_> = large.map(|(path, _, size)| (path, LeftOut::Large(size))).collect();
        let walked = self.commit_tree(commit)?.walk(TreeWalkMode::PreOrder, |folder, entry| {
            let path = format!("{folder}{}", String::from_utf8_lossy(entry.name_bytes()));
            let is_folder = entry.kind() == Some(ObjectType::Tree);
            let why = match entry.name() {
                Err(_) if is_folder || wanted(&path) => LeftOut::Name,
                Ok(_) if entry.kind() == Some(ObjectType::Commit) && wanted(&path) => LeftOut::Submodule,
                Ok(_) if !is_folder && !is_regular(entry) && wanted(&path) => LeftOut::Link,
                _ => return TreeWalkResult::Ok,
            };
            found.push((path, why));
            TreeWalkResult::Skip
        });
        walked.map_err(|error| self.failed(&format!("cannot list the files of {commit}"), error))?;
        found.sort();
        Ok(found)
    }

    /// One regular file of a commit; `None` when there is none at that path.
    pub fn file(&self, commit: Oid, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let tree = self.commit_tree(commit)?;
        self.regular(&tree, path)?.map(|id| self.blob(id)).transpose()
    }

    /// The versions of one file, newest first: when each came into force on this branch, by which commit, its bytes.
    ///
    /// Follows first parents, so a merged pull request counts once, at the time of its merge. A commit that removes
    /// the file is left out: no version is in force then. Renames are not followed.
    pub fn history(&self, tip: Oid, path: &str) -> Result<Vec<(Timestamp, Oid, Vec<u8>)>, Error> {
        let mut versions = Vec::new();
        let mut next = Some(tip);
        let mut tree = self.commit_tree(tip)?;
        while let Some(id) = next {
            let commit = self.find(id)?;
            let parent = commit.parent_id(0).ok();
            let parent_tree = parent.map(|parent| self.commit_tree(parent)).transpose()?;
            // Equal trees hold equal files: most of a long history is skipped here.
            if parent_tree.as_ref().map(git2::Tree::id) != Some(tree.id()) {
                let here = self.regular(&tree, path)?;
                let before = parent_tree.as_ref().map(|tree| self.regular(tree, path)).transpose()?.flatten();
                if let Some(blob) = here.filter(|_| here != before) {
                    versions.push((committed(&commit), id, self.blob(blob)?));
                }
            }
            next = parent;
            if let Some(parent_tree) = parent_tree {
                tree = parent_tree;
            }
        }
        Ok(versions)
    }

    /// Author, parents and message of a commit.
    pub fn describe(&self, id: Oid) -> Result<CommitInfo, Error> {
        let commit = self.find(id)?;
        let person = |signature: git2::Signature<'_>| {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            (text(signature.name_bytes()), text(signature.email_bytes()))
        };
        Ok(CommitInfo {
            id,
            tree: commit.tree_id(),
            parents: commit.parent_ids().collect(),
            author: person(commit.author()),
            committer: person(commit.committer()),
            time: committed(&commit),
            message: String::from_utf8_lossy(commit.message_bytes()).into_owned(),
        })
    }

    /// Is `ancestor` the same commit as `id` or one of its ancestors?
    pub fn contains(&self, id: Oid, ancestor: Oid) -> Result<bool, Error> {
        if id == ancestor {
            return Ok(true);
        }
        self.git
            .graph_descendant_of(id, ancestor)
            .map_err(|error| self.failed(&format!("cannot compare {id} and {ancestor}"), error))
    }

    /// Writes a commit and moves no reference.
    ///
    /// The tree is that of `base` with `changes` put over it, or `changes` alone without a base. A file keeps its mode.
    pub fn commit(
        &self,
        parents: &[Oid],
        base: Option<Oid>,
        changes: &[(String, Vec<u8>)],
        message: &str,
        signature: &Signature,
    ) -> Result<Oid, Error> {
        let tree = self.edited(base, changes)?;
        self.commit_of(parents, tree, message, signature)
    }

    /// The tree of `base` with `changes` put over it.
    pub(crate) fn edited(&self, base: Option<Oid>, changes: &[(String, Vec<u8>)]) -> Result<Oid, Error> {
        let base = base.map(|base| self.commit_tree(base)).transpose()?;
        let mut update = TreeUpdateBuilder::new();
        for (path, bytes) in changes {
            let mode = match &base {
                Some(tree) => self.mode(tree, path)?,
                None => writable(path).map(|()| FileMode::Blob)?,
            };
            spend()?;
            let what = format!("cannot write `{path}`");
            let blob = self.stored(&what, self.git.blob(bytes))?;
            update.upsert(path.as_str(), blob, mode);
        }
        let what = "cannot write a tree";
        let base = match base {
            Some(tree) => tree,
            None => {
                spend()?;
                let empty = self.git.treebuilder(None).and_then(|builder| builder.write());
                let empty = self.stored(what, empty)?;
                self.git.find_tree(empty).map_err(|error| self.failed(what, error))?
            }
        };
        spend()?;
        let edited = self.stored(what, update.create_updated(&self.git, &base))?;
        let tree = self.git.find_tree(edited).map_err(|error| self.failed(what, error))?;
        for (path, _) in changes {
            // Reads every folder on the way: each of them was written too.
            let found = tree.get_path(Path::new(path)).map(|entry| entry.id());
            self.stored(&format!("cannot write `{path}`"), found)?;
        }
        Ok(edited)
    }

    /// A commit of a tree that is written already.
    pub(crate) fn commit_of(
        &self,
        parents: &[Oid],
        tree: Oid,
        message: &str,
        signature: &Signature,
    ) -> Result<Oid, Error> {
        let failed = |error| self.failed("cannot write a commit", error);
        let time = git2::Time::new(signature.time.as_second(), 0);
        let who = git2::Signature::new(&signature.name, &signature.email, &time).map_err(failed)?;
        let parents = parents.iter().map(|id| self.find(*id)).collect::<Result<Vec<_>, _>>()?;
        let tree = self.git.find_tree(tree).map_err(failed)?;
        spend()?;
        let written = self.git.commit(None, &who, &who, message, &tree, &parents.iter().collect::<Vec<_>>());
        self.stored("cannot write a commit", written)
    }

    /// Moves a reference, by its full name, if it is where `expected` says; `None`: only if it is absent.
    pub fn update_ref(&self, name: &str, new: Oid, expected: Option<Oid>) -> Result<(), Error> {
        spend()?;
        let _ours = self.exclusive()?;
        self.break_stale_lock(name)?;
        let current = expected.unwrap_or(Oid::ZERO_SHA1);
        match self.git.reference_matching(name, new, true, current, "sluice") {
            Ok(_) => {}
            Err(error) => return Err(self.unmoved(name, expected, error)),
        }
        if self.target(name)? != Some(new) && self.is_full() {
            return Err(self.full(None));
        }
        Ok(())
    }

    /// Removes a reference, by its full name, if it is where `expected` says.
    pub fn delete_ref(&self, name: &str, expected: Oid) -> Result<(), Error> {
        spend()?;
        let _ours = self.exclusive()?;
        self.break_stale_lock(name)?;
        let deleted = self.git.find_reference(name).and_then(|mut reference| {
            if reference.target() != Some(expected) {
                return Err(git2::Error::new(ErrorCode::Modified, ErrorClass::Reference, "the reference moved"));
            }
            reference.delete()
        });
        deleted.map_err(|error| self.unmoved(name, Some(expected), error))
    }

    /// What `tip` changes over `base`, as a unified diff.
    pub fn diff(&self, base: Oid, tip: Oid) -> Result<String, Error> {
        let mut text = Vec::new();
        let print = |diff: git2::Diff<'_>| {
            diff.print(DiffFormat::Patch, |_, _, line| {
                if matches!(line.origin(), '+' | '-' | ' ') {
                    text.push(line.origin() as u8);
                }
                text.extend_from_slice(line.content());
                true
            })
        };
        self.compare(base, tip)
            .and_then(print)
            .map_err(|error| self.failed(&format!("cannot compare {base} and {tip}"), error))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// How many lines `tip` adds and removes over `base`, together.
    pub fn changed_lines(&self, base: Oid, tip: Oid) -> Result<usize, Error> {
        let stats = self.compare(base, tip).and_then(|diff| diff.stats());
        let stats = stats.map_err(|error| self.failed(&format!("cannot compare {base} and {tip}"), error))?;
        Ok(stats.insertions() + stats.deletions())
    }

    /// The paths that differ between two commits, sorted.
    pub fn changed_paths(&self, base: Oid, tip: Oid) -> Result<BTreeSet<String>, Error> {
        let diff = self.compare(base, tip);
        let diff = diff.map_err(|error| self.failed(&format!("cannot compare {base} and {tip}"), error))?;
        let paths = diff.deltas().flat_map(|delta| [delta.old_file().path_bytes(), delta.new_file().path_bytes()]);
        Ok(paths.flatten().map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }

    /// The newest commit both sides share; `None` when they share none.
    pub fn fork(&self, one: Oid, other: Oid) -> Result<Option<Oid>, Error> {
        match self.git.merge_base(one, other) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(self.failed(&format!("cannot compare {one} and {other}"), error)),
        }
    }

    /// Merges `tip` into the branch `base` with a merge commit, and moves the branch; where the branch is afterwards.
    ///
    /// A tip the branch already holds changes nothing. Invariant: no file is merged line by line. When both sides
    /// changed one file the answer is [`Error::Conflict`], for two edits of a policy that each pass their checks may
    /// not pass them together.
    pub fn merge(&self, base: &str, tip: Oid, message: &str, signature: &Signature) -> Result<Oid, Error> {
        let name = branch_ref(base);
        let Some(head) = self.target(&name)? else {
            return Err(Error::stalled(format!("cannot merge into `{base}`: there is no such branch")));
        };
        if self.contains(head, tip)? {
            return Ok(head);
        }
        let failed = |error| self.failed(&format!("cannot merge into `{base}`"), error);
        let Some(fork) = self.fork(head, tip)? else {
            return Err(Error::stalled(format!("cannot merge into `{base}`: the two share no history")));
        };
        let theirs = self.changed_paths(fork, tip)?;
        let both: BTreeSet<_> = self.changed_paths(fork, head)?.intersection(&theirs).cloned().collect();
        // Both sides may have come to the same file; then there is nothing to disagree about.
        let disputed = self.changed_paths(head, tip)?.intersection(&both).cloned().collect::<Vec<_>>();
        if !disputed.is_empty() {
            return Err(Error::Conflict { base: base.to_owned(), paths: disputed });
        }
        let mut index = self.git.merge_commits(&self.find(head)?, &self.find(tip)?, None).map_err(failed)?;
        if index.has_conflicts() {
            return Err(Error::Conflict { base: base.to_owned(), paths: theirs.into_iter().collect() });
        }
        spend()?;
        let tree = self.stored(&format!("cannot merge into `{base}`"), index.write_tree_to(&self.git))?;
        let merged = self.commit_of(&[head, tip], tree, message, signature)?;
        // Reads every folder the merge wrote before anything depends on them.
        self.changed_paths(head, merged)?;
        self.update_ref(&name, merged, Some(head))?;
        Ok(merged)
    }

    /// Makes sure that an object is there when its writing is said to have succeeded.
    ///
    /// On a full disk libgit2 was seen to report success for an object that was never stored; believing it would put
    /// a commit out of reach of everything built upon it.
    fn stored(&self, what: &str, written: Result<Oid, git2::Error>) -> Result<Oid, Error> {
        let checked = written.and_then(|id| {
            let read = self.git.odb().and_then(|odb| odb.read(id).map(|_| id));
            if read.is_err() {
                // What is there but unreadable would be taken for the object by the next write.
                let name = id.to_string();
                let _ = fs::remove_file(self.git.path().join("objects").join(&name[..2]).join(&name[2..]));
            }
            read
        });
        checked.map_err(|error| if self.is_full() { self.full(Some(error)) } else { self.failed(what, error) })
    }

    /// Is there no space for even one more page?
    fn is_full(&self) -> bool {
        let probe = self.git.path().join("sluice.probe");
        let written = fs::write(&probe, [0; 4096]);
        let _ = fs::remove_file(&probe);
        written.is_err_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    fn find(&self, id: Oid) -> Result<git2::Commit<'_>, Error> {
        self.git.find_commit(id).map_err(|error| self.failed(&format!("cannot read the commit {id}"), error))
    }

    fn commit_tree(&self, id: Oid) -> Result<git2::Tree<'_>, Error> {
        self.find(id)?.tree().map_err(|error| self.failed(&format!("cannot read the tree of {id}"), error))
    }

    fn blob(&self, id: Oid) -> Result<Vec<u8>, Error> {
        let blob = self.git.find_blob(id).map_err(|error| self.failed(&format!("cannot read the file {id}"), error))?;
        Ok(blob.content().to_vec())
    }

    fn compare(&self, base: Oid, tip: Oid) -> Result<git2::Diff<'_>, git2::Error> {
        let (base, tip) = (self.git.find_commit(base)?.tree()?, self.git.find_commit(tip)?.tree()?);
        self.git.diff_tree_to_tree(Some(&base), Some(&tip), Some(&mut DiffOptions::new()))
    }

    fn entries(&self, commit: Oid, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Oid, usize)>, Error> {
        let failed = |error| self.failed(&format!("cannot list the files of {commit}"), error);
        let mut found = Vec::new();
        let walked = self.commit_tree(commit)?.walk(TreeWalkMode::PreOrder, |folder, entry| {
            // Skipping a folder whose name is not UTF-8 leaves out everything below it.
            let Ok(name) = entry.name() else { return TreeWalkResult::Skip };
            let path = format!("{folder}{name}");
            if is_regular(entry) && wanted(&path) {
                found.push((path, entry.id()));
            }
            TreeWalkResult::Ok
        });
        walked.map_err(failed)?;
        found.sort();
        let odb = self.git.odb().map_err(failed)?;
        let sized = |(path, id)| Ok((path, id, odb.read_header(id).map_err(failed)?.0));
        found.into_iter().map(sized).collect()
    }

    fn regular(&self, tree: &git2::Tree<'_>, path: &str) -> Result<Option<Oid>, Error> {
        match tree.get_path(Path::new(path)) {
            Ok(entry) => Ok(Some(entry.id()).filter(|_| is_regular(&entry))),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(self.failed(&format!("cannot read `{path}`"), error)),
        }
    }

    /// The mode a file at `path` is written with. Writing through a link would land somewhere nobody reviewed.
    fn mode(&self, tree: &git2::Tree<'_>, path: &str) -> Result<FileMode, Error> {
        writable(path)?;
        for (end, _) in path.match_indices('/') {
            match tree.get_path(Path::new(&path[..end])) {
                Ok(entry) if entry.kind() != Some(ObjectType::Tree) => {
                    return Err(Error::stalled(format!("cannot write `{path}`: `{}` is not a folder", &path[..end])));
                }
                Ok(_) => {}
                Err(_) => return Ok(FileMode::Blob),
            }
        }
        match tree.get_path(Path::new(path)) {
            Ok(entry) if !is_regular(&entry) => {
                Err(Error::stalled(format!("cannot write `{path}`: it is no regular file")))
            }
            Ok(entry) if entry.filemode() == i32::from(FileMode::BlobExecutable) => Ok(FileMode::BlobExecutable),
            _ => Ok(FileMode::Blob),
        }
    }

    /// Sluice processes take turns at references; the kernel ends a dead process's turn.
    fn exclusive(&self) -> Result<File, Error> {
        let path = self.git.path().join("sluice.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        file.and_then(|file| file.lock().map(|()| file)).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => self.full(None),
            _ => Error::stalled(format!("cannot lock `{}`: {error}", path.display())),
        })
    }

    /// Removes the lock a killed process left beside a reference.
    ///
    /// Only Sluice writes under `refs/sluice/`, and it holds [`Repository::exclusive`] while it does: a lock found
    /// there now is a dead one. Elsewhere people push too, so only age tells.
    fn break_stale_lock(&self, name: &str) -> Result<(), Error> {
        for (path, ours) in [
            (self.git.path().join(format!("{name}.lock")), name.starts_with("refs/sluice/")),
            (self.git.path().join("packed-refs.lock"), false),
        ] {
            let Ok(found) = fs::metadata(&path) else { continue };
            let age = found.modified().ok().and_then(|written| written.elapsed().ok());
            if !ours && age.is_none_or(|age| age < LOCK_AGE) {
                return Err(Error::waiting(format!(
                    "`{name}` is locked by another process; the next pass tries again"
                )));
            }
            fs::remove_file(&path).map_err(|error| {
                Error::stalled(format!("cannot remove the dead lock `{}`: {error}; remove it", path.display()))
            })?;
        }
        Ok(())
    }

    fn unmoved(&self, name: &str, expected: Option<Oid>, error: git2::Error) -> Error {
        match error.code() {
            ErrorCode::Modified | ErrorCode::Exists | ErrorCode::NotFound => {
                let found = self.target(name).unwrap_or_default();
                Error::Moved { name: name.to_owned(), expected, found }
            }
            _ if self.is_full() => self.full(Some(error)),
            _ => self.failed(&format!("cannot move `{name}`"), error),
        }
    }

    fn failed(&self, what: &str, source: git2::Error) -> Error {
        // libgit2 has no code for a full disk, only the operating system's words.
        if ["No space left on device", "Disk quota exceeded"].iter().any(|full| source.message().contains(full)) {
            return self.full(Some(source));
        }
        let message = format!("{what} in `{}`", self.git.path().display());
        match source.code() {
            ErrorCode::Locked => Error::Waiting { message, source: Some(source) },
            _ => Error::Stalled { message, source: Some(source) },
        }
    }

    fn full(&self, source: Option<git2::Error>) -> Error {
        let message = format!("no space left for `{}`: free some, nothing was changed", self.git.path().display());
        Error::Stalled { message, source }
    }
}

/// What turns `old` into `new`, as a unified diff of one file. Reads and writes no repository.
pub fn patch(path: &str, old: &[u8], new: &[u8]) -> Result<String, Error> {
    let name = Path::new(path);
    let text =
        git2::Patch::from_buffers(old, Some(name), new, Some(name), None)
            .and_then(|mut patch| patch.to_buf())
            .map_err(|source| Error::Stalled { message: format!("cannot compare `{path}`"), source: Some(source) })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The full name of a branch.
pub fn branch_ref(branch: &str) -> String {
    format!("refs/heads/{branch}")
}

fn is_regular(entry: &git2::TreeEntry<'_>) -> bool {
    entry.kind() == Some(ObjectType::Blob) && entry.filemode() != i32::from(FileMode::Link)
}

/// Refuses paths that Git or a checkout would read as something else.
fn writable(path: &str) -> Result<(), Error> {
    let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.eq_ignore_ascii_case(".git");
    if path.split('/').any(odd) || path.contains(['\\', '\0']) {
        return Err(Error::stalled(format!("cannot write `{}`: not a path inside a repository", path.escape_debug())));
    }
    Ok(())
}

fn committed(commit: &git2::Commit<'_>) -> Timestamp {
    // Git accepts any number; one outside the calendar is as good as the beginning of time.
    Timestamp::from_second(commit.time().seconds()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn shown(id: &Option<Oid>) -> String {
    id.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
}

fn quoted(paths: &[String]) -> String {
    paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(not(test))]
fn spend() -> Result<(), Error> {
    Ok(())
}

#[cfg(test)]
use crash::spend;

/// A process that dies between two writes, for tests: after a number of writes every further one fails.
#[cfg(test)]
pub(crate) mod crash {
    use std::cell::Cell;

    use super::Error;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
        static SPENT: Cell<usize> = const { Cell::new(0) };
    }

    /// Lets this thread write `writes` more times; `None`: as often as it likes.
    pub(crate) fn after(writes: Option<usize>) {
        LEFT.set(writes);
        SPENT.set(0);
    }

    /// How many writes this thread made since [`after`].
    pub(crate) fn spent() -> usize {
        SPENT.get()
    }

    pub(super) fn spend() -> Result<(), Error> {
        match LEFT.get() {
            Some(0) => return Err(Error::stalled("the test ended this process")),
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
        SPENT.set(SPENT.get() + 1);
        Ok(())
    }
}
