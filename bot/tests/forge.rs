//! The policy repository and its pull requests, on real bare repositories.

#![allow(clippy::unwrap_used, reason = "a panic in a test's helper is the failure itself")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sluice_bot::forge::{
    Absent, Action, Bot, By, Conduct, Content, DesiredPull, Error, Filter, Forge, Local, NewPull, Oid, Outcome, Pull,
    State,
};
use sluice_bot::repository::{FILE_LIMIT, LeftOut, Repository, Signature, branch_ref};

const ROUTE: &str = "policies/route.yaml";

struct World {
    dir: PathBuf,
    repository: Repository,
    forge: Forge,
    conduct: Conduct,
    _temporary: Option<tempfile::TempDir>,
}

fn bot() -> Bot {
    Bot { id: "sluice".into(), name: "sluice".into(), email: "sluice@localhost".into() }
}

fn minute(minute: i64) -> Timestamp {
    Timestamp::from_second(1_750_000_000 + 60 * minute).unwrap()
}

fn day(day: i64) -> i64 {
    day * 24 * 60
}

fn person(at: i64) -> Signature {
    Signature { name: "Ada".into(), email: "ada@example.org".into(), time: minute(at) }
}

fn files(files: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect()
}

impl World {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let world = Self::at(temporary.path());
        world.by_hand("main", &[(ROUTE, "weight: 5\n"), ("README.md", "hello\n")], 0);
        Self { _temporary: Some(temporary), ..world }
    }

    fn at(dir: &Path) -> Self {
        let repository = Repository::init_bare(dir).unwrap();
        let forge = Forge::Local(Local::open(dir, bot()).unwrap());
        Self { dir: dir.to_owned(), repository, forge, conduct: Conduct::new(bot()), _temporary: None }
    }

    fn main(&self) -> Oid {
        self.repository.head("main").unwrap().unwrap()
    }

    /// Somebody commits to a branch.
    fn by_hand(&self, branch: &str, changes: &[(&str, &str)], at: i64) -> Oid {
        self.commit(branch, changes, &person(at))
    }

    fn commit(&self, branch: &str, changes: &[(&str, &str)], who: &Signature) -> Oid {
        let tip = self.repository.head(branch).unwrap();
        let parents = tip.into_iter().collect::<Vec<_>>();
        let commit = self.repository.commit(&parents, tip, &files(changes), "by hand\n", who).unwrap();
        self.repository.update_ref(&branch_ref(branch), commit, tip).unwrap();
        commit
    }

    fn shift(&self, weight: u32) -> DesiredPull {
        DesiredPull {
            kind: "shift".into(),
            mesh: "default".into(),
            scope: "summarize".into(),
            base: "main".into(),
            base_at: self.main(),
            changes: files(&[(ROUTE, &format!("weight: {weight}\n"))]),
            title: format!("shift `summarize` to {weight} %"),
            body: format!("To {weight} %.\n"),
            message: format!("shift summarize to {weight} %"),
            labels: vec!["sluice".into()],
            digest: format!("w{weight}"),
            evidence: format!("{{\"weight\":{weight}}}").into_bytes(),
            auto_merge: false,
            rollback: false,
        }
    }

    fn pass(&self, desired: &[DesiredPull], at: i64) -> Vec<Outcome> {
        self.conduct.reconcile(&self.forge, &self.repository, desired, minute(at)).unwrap()
    }

    fn only(&self, desired: DesiredPull, at: i64) -> Action {
        let mut outcomes = self.pass(&[desired], at);
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        outcomes.remove(0).action
    }

    fn pulls(&self) -> Vec<Pull> {
        self.forge.list(&Filter::default()).unwrap()
    }

    fn pull(&self, number: u64) -> Pull {
        self.forge.pull(number).unwrap().unwrap()
    }

    fn text(&self, branch: &str) -> String {
        let tip = self.repository.head(branch).unwrap().unwrap();
        String::from_utf8(self.repository.file(tip, ROUTE).unwrap().unwrap()).unwrap()
    }

    /// Every reference and every file of the repository, byte for byte.
    fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.dir.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => drop(found.insert(entry.path(), fs::read(entry.path()).unwrap())),
                }
            }
        }
        found
    }

    /// Git itself finds nothing wrong.
    fn is_sound(&self) {
        let check = Command::new("git").args(["fsck", "--full", "--strict"]).current_dir(&self.dir).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
}

// The repository.

#[test]
fn a_commit_changes_only_the_files_it_names() {
    let world = World::new();
    let before = world.main();
    let after = world.by_hand("main", &[("guards/llm.yaml", "kind: ShiftGuard\n")], 1);
    let diff = world.repository.diff(before, after).unwrap();
    assert!(diff.contains("+++ b/guards/llm.yaml\n@@ -0,0 +1 @@\n+kind: ShiftGuard\n"), "{diff}");
    assert_eq!(diff.matches("diff --git").count(), 1);
    assert_eq!(world.repository.changed_lines(before, after).unwrap(), 1);
    let listed = world.repository.files(after, |path| path.ends_with(".yaml")).unwrap();
    let paths = listed.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>();
    assert_eq!(paths, ["guards/llm.yaml", ROUTE]);
    world.is_sound();
}

#[test]
fn a_file_keeps_its_mode_and_a_link_is_never_followed() {
    let world = World::new();
    let git = git2::Repository::open(&world.dir).unwrap();
    let tree = git.find_commit(world.main()).unwrap().tree().unwrap();
    let blob = git.blob(b"policies").unwrap();
    let mut update = git2::build::TreeUpdateBuilder::new();
    update.upsert("run.sh", git.blob(b"#!\n").unwrap(), git2::FileMode::BlobExecutable);
    update.upsert("link", blob, git2::FileMode::Link);
    update.upsert("linked.yaml", blob, git2::FileMode::Link);
    let tree = git.find_tree(update.create_updated(&git, &tree).unwrap()).unwrap();
    let who = git2::Signature::new("Ada", "ada@example.org", &git2::Time::new(1, 0)).unwrap();
    let base = git.commit(None, &who, &who, "odd", &tree, &[]).unwrap();

    assert_eq!(world.repository.files(base, |path| path.ends_with(".yaml")).unwrap().len(), 1);
    assert_eq!(world.repository.file(base, "linked.yaml").unwrap(), None);
    let write = |path: &str| world.repository.commit(&[], Some(base), &files(&[(path, "x\n")]), "m", &person(0));
    let ran = git.find_commit(write("run.sh").unwrap()).unwrap().tree().unwrap();
    assert_eq!(ran.get_name("run.sh").unwrap().filemode(), i32::from(git2::FileMode::BlobExecutable));
    for path in ["link/route.yaml", "linked.yaml", "../x", "/x", "a//b", ".git/config", "a/.GIT/x", "a\\b", ""] {
        let error = write(path).unwrap_err();
        assert!(!error.waits() && error.to_string().contains("cannot write"), "{path}: {error}");
    }
}

#[test]
fn a_file_that_is_too_large_is_named_instead_of_read() {
    let world = World::new();
    let large = "#".repeat(FILE_LIMIT + 1);
    let tip = world.by_hand("main", &[("crds.yaml", &large)], 1);
    let yaml = |path: &str| path.ends_with(".yaml");
    assert_eq!(world.repository.files(tip, yaml).unwrap().len(), 1);
    let large = LeftOut::Large(FILE_LIMIT + 1);
    assert_eq!(world.repository.left_out(tip, yaml).unwrap(), [("crds.yaml".to_owned(), large)]);
}

#[test]
fn history_tells_which_weight_was_in_force_when() {
    let world = World::new();
    world.by_hand("main", &[("README.md", "other\n")], 1);
    world.only(DesiredPull { auto_merge: true, ..world.shift(10) }, 2);
    world.by_hand("main", &[("README.md", "again\n")], 3);
    let told = world.repository.history(world.main(), ROUTE).unwrap();
    let told = told.iter().map(|(at, _, bytes)| (*at, std::str::from_utf8(bytes).unwrap())).collect::<Vec<_>>();
    assert_eq!(told, [(minute(2), "weight: 10\n"), (minute(0), "weight: 5\n")]);
}

#[test]
fn a_reference_moves_only_from_where_it_was_seen() {
    let world = World::new();
    let first = world.main();
    let second = world.by_hand("main", &[(ROUTE, "weight: 6\n")], 1);
    let error = world.repository.update_ref("refs/heads/main", first, Some(first)).unwrap_err();
    assert!(matches!(&error, Error::Moved { found: Some(found), .. } if *found == second), "{error}");
    assert!(error.waits());
    let error = world.repository.update_ref("refs/heads/main", first, None).unwrap_err();
    assert!(matches!(error, Error::Moved { expected: None, .. }), "{error}");
    let error = world.repository.delete_ref("refs/heads/main", first).unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{error}");
    let error = world.repository.update_ref("refs/heads/gone", first, Some(second)).unwrap_err();
    assert!(matches!(error, Error::Moved { found: None, .. }), "{error}");
    assert_eq!(world.main(), second);
}

#[test]
fn writers_racing_for_one_reference_lose_nothing() {
    let world = World::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let dir = &world.dir;
            scope.spawn(move || {
                let world = World::at(dir);
                for turn in 0..10 {
                    loop {
                        let tip = world.main();
                        let path = format!("notes/{writer}-{turn}");
                        let changes = files(&[(&path, "x")]);
                        let commit = world.repository.commit(&[tip], Some(tip), &changes, "race", &person(1)).unwrap();
                        match world.repository.update_ref("refs/heads/main", commit, Some(tip)) {
                            Ok(()) => break,
                            Err(error) => assert!(error.waits(), "{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(world.repository.files(world.main(), |path| path.starts_with("notes/")).unwrap().len(), 40);
}

#[test]
fn a_dead_lock_is_broken_and_a_living_one_waited_for() {
    let world = World::new();
    let lock = world.dir.join("refs/heads/main.lock");
    fs::write(&lock, "").unwrap();
    let tip = world.main();
    let error = world.repository.update_ref("refs/heads/main", tip, Some(tip)).unwrap_err();
    assert!(error.waits(), "{error}");
    let old = fs::FileTimes::new().set_modified(std::time::SystemTime::now() - Duration::from_secs(60));
    fs::File::options().write(true).open(&lock).unwrap().set_times(old).unwrap();
    world.by_hand("main", &[(ROUTE, "weight: 6\n")], 1);
    // Below `refs/sluice/` nobody else writes: a lock left there is dead at once.
    fs::create_dir_all(world.dir.join("refs/sluice/pulls")).unwrap();
    fs::write(world.dir.join("refs/sluice/pulls/1.lock"), "").unwrap();
    assert!(matches!(world.only(world.shift(10), 2), Action::Opened));
}

#[test]
fn a_merge_joins_changes_of_different_files_and_refuses_the_same_one() {
    let world = World::new();
    let fork = world.main();
    let tip =
        world.repository.commit(&[fork], Some(fork), &files(&[(ROUTE, "weight: 10\n")]), "m", &person(1)).unwrap();
    let base = world.by_hand("main", &[("README.md", "other\n")], 2);
    let merged = world.repository.merge("main", tip, "Merge\n", &person(3)).unwrap();
    assert_eq!(world.repository.describe(merged).unwrap().parents, [base, tip]);
    assert_eq!(world.text("main"), "weight: 10\n");
    assert_eq!(world.repository.merge("main", tip, "Merge\n", &person(4)).unwrap(), merged, "merging again is nothing");

    // The same file, far apart: Git would merge it, a policy is not merged by lines.
    let long = (0..40).map(|n| format!("line{n}: 1\n")).collect::<String>();
    let fork = world.by_hand("main", &[(ROUTE, &long)], 5);
    let theirs = files(&[(ROUTE, &long.replace("line39: 1", "line39: 2"))]);
    let tip = world.repository.commit(&[fork], Some(fork), &theirs, "m", &person(6)).unwrap();
    world.by_hand("main", &[(ROUTE, &long.replace("line0: 1", "line0: 2"))], 7);
    let error = world.repository.merge("main", tip, "Merge\n", &person(8)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot merge into `main`: both sides changed `{ROUTE}`"));
    assert!(!error.waits());
}

#[test]
fn a_full_disk_is_told_plainly_and_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::tmpfs(dir.path(), "512k");
    let world = World::at(&dir.path().join("policies.git"));
    world.by_hand("main", &[(ROUTE, "weight: 5\n")], 0);
    assert!(matches!(world.only(world.shift(10), 1), Action::Opened));
    let refs = world.repository.references("refs/*").unwrap();

    let filler = dir.path().join("filler");
    for left in (0..48).map(|step| step * 1024) {
        // Everything is taken save a little more each time, so that each write in turn is the one that fails.
        fill(&filler, left);
        let desired = DesiredPull { evidence: noise(6_000), ..world.shift(25) };
        match world.only(desired, 2) {
            Action::Failed(error) => {
                assert!(!error.waits() && error.to_string().starts_with("no space left for"), "{error:?}");
                world.is_sound();
                let main = refs.iter().find(|(name, _)| name == "refs/heads/main").unwrap();
                assert_eq!(world.main(), main.1);
                assert_eq!(world.pulls().len(), 1);
            }
            Action::Updated | Action::Unchanged => {
                assert!(left > 0, "the disk was not full: the test proves nothing");
                fs::remove_file(&filler).unwrap();
                assert_eq!(world.pull(1).content.digest, "w25");
                world.is_sound();
                drop(mount);
                return;
            }
            other => panic!("{other:?}"),
        }
        fs::remove_file(&filler).unwrap();
    }
    panic!("it never recovered");
}

/// Takes all space but `left` bytes.
fn fill(path: &Path, left: u64) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[0; 1024]).is_ok() {}
    let size = file.metadata().unwrap().len();
    file.set_len(size.saturating_sub(left)).unwrap();
}

/// Bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, size: &str) -> Self {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        let told = mount.as_ref().map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(
            mount.as_ref().is_ok_and(|output| output.status.success()),
            "this test needs a small disk and may not mount one ({told:?}): run the tests as root, in a container with \
             `--cap-add SYS_ADMIN`"
        );
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

// The forge.

fn new_pull(world: &World, key: &str) -> NewPull {
    let content = Content {
        head: world.main(),
        base_at: world.main(),
        title: "a title".into(),
        body: "a body with `ünï`\n".into(),
        digest: "d1".into(),
        labels: vec!["sluice".into()],
        evidence: vec![0, 255, b'\n'],
    };
    NewPull { key: key.into(), author: "sluice".into(), branch: "main".into(), base: "main".into(), content }
}

#[test]
fn a_pull_request_reads_back_as_it_was_opened() {
    let world = World::new();
    let new = new_pull(&world, "k");
    let opened = world.forge.open(new.clone(), minute(1)).unwrap();
    assert_eq!(world.pull(1), opened);
    assert_eq!((opened.content, opened.state, opened.created), (new.content, State::Open, minute(1)));
    assert_eq!(world.forge.pull(2).unwrap(), None);
    let opened_again = world.forge.open(new_pull(&world, "k"), minute(2)).unwrap();
    assert_eq!((opened_again.number, opened_again.created), (1, minute(1)));
}

#[test]
fn equal_content_and_equal_comments_write_nothing() {
    let world = World::new();
    world.forge.open(new_pull(&world, "k"), minute(1)).unwrap();
    world.forge.comment(1, Some("sticky"), "hello", minute(2)).unwrap();
    let before = world.everything();
    world.forge.comment(1, Some("sticky"), "hello", minute(3)).unwrap();
    world.forge.update(1, new_pull(&world, "k").content, minute(3)).unwrap();
    assert!(world.everything() == before);
    world.forge.comment(1, Some("sticky"), "hello again", minute(4)).unwrap();
    world.forge.comment(1, None, "and more", minute(5)).unwrap();
    let said = world.pull(1).comments.into_iter().map(|comment| comment.text).collect::<Vec<_>>();
    assert_eq!(said, ["hello again", "and more"]);
}

#[test]
fn numbers_are_allotted_once_among_racing_processes() {
    let world = World::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let dir = &world.dir;
            scope.spawn(move || {
                let world = World::at(dir);
                for turn in 0..5 {
                    world.forge.open(new_pull(&world, &format!("{writer}-{turn}")), minute(1)).unwrap();
                }
            });
        }
    });
    let numbers = world.pulls().iter().map(|pull| pull.number).collect::<Vec<_>>();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_merge_of_something_else_than_was_reviewed_is_refused() {
    let world = World::new();
    world.only(world.shift(10), 1);
    let reviewed = world.pull(1).content.head;
    world.by_hand(&world.pull(1).branch, &[(ROUTE, "weight: 99\n")], 2);
    let error = world.forge.merge(1, reviewed, minute(3)).unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{error}");
    assert_eq!(world.text("main"), "weight: 5\n");
}

#[test]
fn a_damaged_pull_request_is_named() {
    let world = World::new();
    let odd = world.repository.commit(&[], None, &files(&[("pull.json", "{")]), "odd", &person(1)).unwrap();
    world.repository.update_ref("refs/sluice/pulls/7", odd, None).unwrap();
    let error = world.forge.list(&Filter::default()).unwrap_err();
    assert!(error.to_string().starts_with("`refs/sluice/pulls/7` is no pull request: "), "{error}");
}

// Conduct.

#[test]
fn a_proposal_becomes_one_branch_and_one_pull_request() {
    let world = World::new();
    assert!(matches!(world.only(world.shift(10), 1), Action::Opened));
    let pull = world.pull(1);
    assert!(pull.branch.starts_with("sluice/shift/summarize-") && pull.branch.len() == 31, "{}", pull.branch);
    assert_eq!((pull.key.as_str(), pull.content.base_at), (&*world.shift(10).key(&bot()), world.main()));
    assert_eq!(world.text(&pull.branch), "weight: 10\n");
    let diff = world.repository.diff(world.main(), pull.content.head).unwrap();
    assert!(diff.ends_with("@@ -1 +1 @@\n-weight: 5\n+weight: 10\n"), "{diff}");
    world.is_sound();
}

#[test]
fn a_second_pass_writes_nothing_at_all() {
    let world = World::new();
    let desired = [world.shift(10), DesiredPull { scope: "translate".into(), ..world.shift(25) }];
    world.pass(&desired, 1);
    let before = world.everything();
    for pass in 2..12 {
        assert!(world.pass(&desired, pass).iter().all(|outcome| matches!(outcome.action, Action::Unchanged)));
    }
    assert!(world.everything() == before);
}

#[test]
fn equal_input_leads_to_equal_ids() {
    let ids = || {
        let world = World::new();
        world.pass(&[world.shift(10)], 1);
        world.pass(&[DesiredPull { auto_merge: true, ..world.shift(25) }], 2);
        world.repository.references("refs/*").unwrap()
    };
    assert_eq!(ids(), ids());
}

#[test]
fn new_content_refreshes_the_same_pull_request_by_one_commit() {
    let world = World::new();
    world.only(world.shift(10), 1);
    let before = world.pull(1);
    assert!(matches!(world.only(world.shift(25), 2), Action::Updated));
    let after = world.pull(1);
    assert_eq!((world.pulls().len(), after.branch.clone()), (1, before.branch));
    assert_eq!(world.repository.describe(after.content.head).unwrap().parents, [before.content.head]);
    assert_eq!((after.content.body.as_str(), after.content.digest.as_str()), ("To 25 %.\n", "w25"));
}

#[test]
fn collecting_garbage_changes_nothing() {
    let world = World::new();
    world.only(world.shift(10), 1);
    world.pass(&[DesiredPull { auto_merge: true, ..world.shift(25) }], 2);
    world.only(world.shift(50), 3);
    let before = world.pulls();
    let collected = Command::new("git").args(["gc", "--prune=now", "--quiet"]).current_dir(&world.dir).status();
    assert!(collected.unwrap().success());
    assert_eq!(world.pulls(), before);
    let world = World { _temporary: world._temporary, ..World::at(&world.dir) };
    assert!(matches!(world.only(world.shift(50), 4), Action::Unchanged));
    assert!(matches!(world.only(world.shift(51), 5), Action::Updated));
    world.pass(&[], 6);
    assert_eq!(world.repository.references("refs/heads/*").unwrap().len(), 1, "a packed branch can be removed");
    world.is_sound();
}

#[test]
fn labels_are_peoples_after_opening() {
    let world = World::new();
    world.only(world.shift(10), 1);
    world.only(DesiredPull { labels: vec!["other".into()], ..world.shift(25) }, 2);
    assert_eq!(world.pull(1).content.labels, ["sluice"]);
}

#[test]
fn a_persons_commit_is_never_overwritten_and_answered_once_per_digest() {
    let world = World::new();
    world.only(world.shift(10), 1);
    let branch = world.pull(1).branch;
    let theirs = world.by_hand(&branch, &[(ROUTE, "weight: 7\n")], 2);
    assert!(matches!(world.only(world.shift(10), 3), Action::LeftToPeople));
    assert!(world.pull(1).comments.is_empty(), "nothing new to say");
    for at in 4..7 {
        assert!(matches!(world.only(world.shift(25), at), Action::LeftToPeople));
    }
    let [comment] = &world.pull(1).comments[..] else { panic!() };
    assert!(comment.text.contains("-weight: 5\n+weight: 25\n") && comment.at == minute(4), "{}", comment.text);
    world.only(DesiredPull { auto_merge: true, ..world.shift(50) }, 7);
    assert_eq!(world.pull(1).comments.len(), 1, "it is rewritten, not repeated");
    assert_eq!(world.repository.head(&branch).unwrap(), Some(theirs));
    assert_eq!(world.text("main"), "weight: 5\n", "what people changed is not merged for them");
    world.pass(&[], 8);
    assert!(world.pull(1).is_open(), "nor closed under their hands");
    assert_eq!(world.repository.head(&branch).unwrap(), Some(theirs));
}

#[test]
fn our_commit_amended_under_our_name_is_a_persons_commit() {
    let world = World::new();
    world.only(world.shift(10), 1);
    let pull = world.pull(1);
    let ours = world.repository.describe(pull.content.head).unwrap();
    let changes = files(&[(ROUTE, "weight: 8\n")]);
    let amended = world
        .repository
        .commit(&ours.parents, Some(ours.id), &changes, &ours.message, &bot().signature(ours.time))
        .unwrap();
    world.repository.update_ref(&branch_ref(&pull.branch), amended, Some(ours.id)).unwrap();
    assert!(matches!(world.only(world.shift(25), 2), Action::LeftToPeople));
    assert_eq!(world.text(&pull.branch), "weight: 8\n");
}

#[test]
fn what_a_person_closed_rests_until_content_and_time_passed() {
    let world = World::new();
    world.only(world.shift(10), 1);
    world.forge.close(1, "not this week", By::Person("Ada".into()), minute(2)).unwrap();
    let before = world.everything();
    for at in [3, day(29), day(400)] {
        assert!(matches!(world.only(world.shift(10), at), Action::Declined(_)), "the same is never offered again");
    }
    let Action::Declined(reason) = world.only(world.shift(25), day(29)) else { panic!() };
    assert_eq!(reason, "Ada closed #1; it may return after 2025-07-15T15:08:40Z");
    assert!(world.everything() == before);
    assert!(matches!(world.only(world.shift(25), day(31)), Action::Opened));
    assert_eq!(world.pull(2).content.digest, "w25");
    assert!(!world.pull(1).is_open());
}

#[test]
fn a_rollback_does_not_wait_for_the_cool_down() {
    let world = World::new();
    let rollback = |weight| DesiredPull { rollback: true, kind: "rollback".into(), ..world.shift(weight) };
    world.only(rollback(0), 1);
    world.forge.close(1, "a false alarm", By::Person("Ada".into()), minute(2)).unwrap();
    assert!(matches!(world.only(rollback(0), 3), Action::Declined(_)), "a person decided about this very one");
    assert!(matches!(world.only(rollback(1), 4), Action::Opened));
}

#[test]
fn a_branch_a_person_removed_counts_as_closing() {
    let world = World::new();
    world.only(world.shift(10), 1);
    let pull = world.pull(1);
    world.repository.delete_ref(&branch_ref(&pull.branch), pull.content.head).unwrap();
    let outcomes = world.pass(&[world.shift(10)], 2);
    assert!(matches!(&outcomes[..], [closed, declined]
        if matches!(closed.action, Action::Closed(_)) && matches!(declined.action, Action::Declined(_))));
}

#[test]
fn a_moot_proposal_is_closed_with_its_reason_and_its_branch_removed() {
    let mut world = World::new();
    world.only(world.shift(10), 1);
    let key = world.pull(1).key;
    world.conduct.absent.insert(key.clone(), Absent::Keep);
    assert!(matches!(world.pass(&[], 2)[..], [Outcome { action: Action::Kept, .. }]), "missing data withdraws nothing");
    world.conduct.absent.insert(key, Absent::Close("`summarize` is no longer on trial".into()));
    world.pass(&[], 3);
    let state = State::Closed { reason: "`summarize` is no longer on trial".into(), by: By::Bot };
    assert_eq!((world.pull(1).state, world.pull(1).closed_at), (state, Some(minute(3))));
    assert_eq!(world.repository.references("refs/heads/*").unwrap().len(), 1);
    assert!(matches!(world.only(world.shift(10), 4), Action::Opened), "what we closed ourselves may return");
}

#[test]
fn a_base_that_moved_elsewhere_is_left_alone_and_merges() {
    let world = World::new();
    world.only(world.shift(10), 1);
    let head = world.pull(1).content.head;
    world.by_hand("main", &[("README.md", "other\n")], 2);
    assert!(matches!(world.only(world.shift(10), 3), Action::Unchanged));
    assert_eq!(world.pull(1).content.head, head);
    assert!(matches!(world.only(DesiredPull { auto_merge: true, ..world.shift(10) }, 4), Action::Merged));
    assert_eq!(world.text("main"), "weight: 10\n");
    assert_eq!(world.repository.file(world.main(), "README.md").unwrap().unwrap(), b"other\n");
    assert_eq!(world.pull(1).merged_at, Some(minute(4)));
    assert_eq!(world.repository.references("refs/heads/*").unwrap().len(), 1, "the branch is no longer needed");
}

#[test]
fn a_base_that_changed_the_same_file_is_built_upon() {
    let world = World::new();
    world.only(world.shift(10), 1);
    let head = world.pull(1).content.head;
    let base = world.by_hand("main", &[(ROUTE, "# new\nweight: 5\n")], 2);
    let desired = DesiredPull { changes: files(&[(ROUTE, "# new\nweight: 10\n")]), ..world.shift(10) };
    assert!(matches!(world.only(desired.clone(), 3), Action::Rebuilt));
    let pull = world.pull(1);
    assert_eq!(world.repository.describe(pull.content.head).unwrap().parents, [head, base], "nothing is rewritten");
    assert_eq!(world.repository.changed_lines(world.main(), pull.content.head).unwrap(), 2);
    assert!(matches!(world.only(DesiredPull { auto_merge: true, ..desired }, 4), Action::Merged));
    assert_eq!(world.text("main"), "# new\nweight: 10\n");
}

#[test]
fn what_was_computed_from_a_base_that_moved_since_never_undoes_the_move() {
    let world = World::new();
    let stale = DesiredPull { auto_merge: true, ..world.shift(10) };
    world.by_hand("main", &[(ROUTE, "weight: 5\nretries: 3\n")], 1);
    let Action::Failed(error) = world.only(stale, 2) else { panic!() };
    assert!(error.waits(), "{error}");
    assert_eq!(world.text("main"), "weight: 5\nretries: 3\n");
}

#[test]
fn a_merge_by_hand_is_noticed() {
    let world = World::new();
    world.only(world.shift(10), 1);
    let head = world.pull(1).content.head;
    world.repository.merge("main", head, "by hand\n", &person(2)).unwrap();
    let outcomes = world.pass(&[], 3);
    assert!(matches!(outcomes[..], [Outcome { action: Action::Merged, .. }]), "{outcomes:?}");
    assert_eq!((world.pull(1).state, world.pull(1).merged_at), (State::Merged, Some(minute(3))));
}

#[test]
fn a_merge_somebody_took_back_is_not_merged_again_by_itself() {
    let world = World::new();
    world.only(DesiredPull { auto_merge: true, ..world.shift(10) }, 1);
    world.by_hand("main", &[(ROUTE, "weight: 5\n")], 2);
    assert!(matches!(world.only(DesiredPull { auto_merge: true, ..world.shift(10) }, 3), Action::Opened));
    assert_eq!(world.text("main"), "weight: 5\n");
}

#[test]
fn somebody_elses_branch_under_our_name_is_left_where_it_is() {
    let world = World::new();
    let name = world.shift(10).branch(&bot());
    let main = world.main();
    world.repository.update_ref(&branch_ref(&name), main, None).unwrap();
    let theirs = world.by_hand(&name, &[(ROUTE, "weight: 1\n")], 1);
    assert!(matches!(world.only(world.shift(10), 2), Action::Opened));
    assert_eq!(world.pull(1).branch, format!("{name}-2"));
    assert!(matches!(world.only(world.shift(10), 3), Action::Unchanged));
    assert_eq!(world.repository.head(&name).unwrap(), Some(theirs));
}

#[test]
fn another_bots_pull_requests_are_not_ours_to_close() {
    let world = World::new();
    world.only(world.shift(10), 1);
    let other = Conduct::new(Bot { id: "sluice-eu".into(), ..bot() });
    other.reconcile(&world.forge, &world.repository, &[], minute(2)).unwrap();
    assert!(world.pull(1).is_open());
    assert!(world.repository.head(&world.pull(1).branch).unwrap().is_some());
}

#[test]
fn one_proposal_that_fails_does_not_stop_the_others() {
    let world = World::new();
    let broken = DesiredPull { scope: "broken".into(), changes: files(&[("../x", "x")]), ..world.shift(10) };
    let outcomes = world.pass(&[broken, world.shift(10), world.shift(25)], 1);
    assert!(
        matches!(
            &outcomes[..],
            [
                Outcome { action: Action::Failed(_), .. },
                Outcome { action: Action::Opened, .. },
                Outcome { action: Action::Failed(_), .. },
            ]
        ),
        "{outcomes:?}"
    );
    assert_eq!(world.pulls().len(), 1);
}

fn take_turns(world: &World, turns: std::ops::Range<u64>) {
    for turn in turns {
        let weight = 10 + (turn % 80) as u32;
        let desired = DesiredPull { auto_merge: turn % 3 == 0, ..world.shift(weight) };
        let others = (0..3).map(|n| DesiredPull { scope: format!("other-{n}"), ..world.shift(weight + 1) });
        let desired = std::iter::once(desired).chain(others).filter(|_| turn % 5 != 0).collect::<Vec<_>>();
        world.pass(&desired, turn as i64);
    }
}

/// Also the process that [`a_killed_process_leaves_what_the_next_one_completes`] starts and kills.
#[test]
fn many_turns_leave_a_sound_repository() {
    if let Ok(dir) = std::env::var("SLUICE_TEST_REPOSITORY") {
        take_turns(&World::at(Path::new(&dir)), 1..u64::MAX);
    }
    let world = World::new();
    take_turns(&world, 1..40);
    world.is_sound();
    assert!(world.pulls().len() > 10, "{} pull requests", world.pulls().len());
}

#[test]
fn a_killed_process_leaves_what_the_next_one_completes() {
    let world = World::new();
    for kill in 0..25u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "many_turns_leave_a_sound_repository"])
            .env("SLUICE_TEST_REPOSITORY", &world.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + kill * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        world.is_sound();
    }
    // A lock of a branch people push to as well is only broken when it is old.
    let mut desired = vec![DesiredPull { scope: "last".into(), ..world.shift(99) }];
    for attempt in 0.. {
        let failed =
            world.pass(&desired, 10_000).into_iter().any(|outcome| matches!(outcome.action, Action::Failed(_)));
        if !failed {
            break;
        }
        assert!(attempt < 30, "it does not converge");
        std::thread::sleep(Duration::from_millis(500));
        desired[0].base_at = world.main();
    }
    let open = world.forge.list(&Filter { open: true, ..Filter::default() }).unwrap();
    assert_eq!(open.len(), 1, "{open:#?}");
    let branches = world.repository.references("refs/heads/*").unwrap();
    assert_eq!(branches.len(), 2, "{branches:?}");
    assert!(world.pulls().len() > 1, "the killed processes did nothing");
    let before = world.everything();
    world.pass(&desired, 20_000);
    assert!(world.everything() == before);
}

/// The cool-down is an argument.
#[test]
fn a_cool_down_can_be_shorter() {
    let mut world = World::new();
    world.conduct.cool_down = SignedDuration::from_mins(1);
    world.only(world.shift(10), 1);
    world.forge.close(1, "no", By::Person("Ada".into()), minute(2)).unwrap();
    assert!(matches!(world.only(world.shift(25), 3), Action::Opened));
}
