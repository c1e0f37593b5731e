//! Stopped half-way: by a signal, a full disk, somebody else's push. The next run makes up for it.

use crate::world::{Run, SLUICE, World};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How many moments are tried.
const MOMENTS: u32 = 15;

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn finish(child: Child, folder: &Path) -> Run {
    Run::of(&child.wait_with_output().unwrap(), folder)
}

/// What a person sees of a repository: every reference, by what it points at.
fn seen(world: &World) -> String {
    let refs = world.refs();
    refs.iter().map(|(name, target)| format!("{target} {name}\n")).collect()
}

/// An undisturbed world after two passes, and how long the first took.
fn undisturbed() -> (World, Duration) {
    let world = World::new();
    let begun = Instant::now();
    world.propose().exits(0);
    let took = begun.elapsed();
    world.propose().exits(0);
    (world, took)
}

#[test]
fn propose_killed_at_any_moment_is_made_up_for_by_the_next() {
    let (whole, took) = undisturbed();
    let mut unfinished = 0;
    for moment in 0..MOMENTS {
        let world = World::new();
        let mut child = world.start(&["propose"]);
        sleep(took.mul_f64(f64::from(moment) / f64::from(MOMENTS - 3)));
        child.kill().unwrap();
        child.wait().unwrap();
        world.fsck();
        unfinished += u32::from(seen(&world) != seen(&whole));
        world.propose().exits(0);
        world.propose().exits(0);
        assert_eq!(seen(&world), seen(&whole), "killed at moment {moment}");
        world.fsck();
    }
    assert!(unfinished > 3, "only {unfinished} runs were killed in time");
}

#[test]
fn propose_interrupted_at_any_moment_says_so_and_is_made_up_for() {
    let (whole, took) = undisturbed();
    let mut interrupted = 0;
    for moment in 1..MOMENTS {
        let world = World::new();
        let child = world.start(&["propose"]);
        sleep(took.mul_f64(f64::from(moment) / f64::from(MOMENTS - 3)));
        signal(&child, if moment % 2 == 0 { "-INT" } else { "-TERM" });
        let run = finish(child, &world.path(""));
        match run.code {
            Some(130) => {
                assert!(run.stderr.contains("interrupted: what was written is whole; run the command again"), "{run}");
                interrupted += 1;
            }
            // It was done already, or had not yet begun to listen.
            Some(0) | None => {}
            _ => panic!("{run}"),
        }
        world.fsck();
        assert_eq!(locks(&world.path("policies.git/refs")), Vec::<PathBuf>::new());
        world.propose().exits(0);
        world.propose().exits(0);
        assert_eq!(seen(&world), seen(&whole), "interrupted at moment {moment}");
    }
    assert!(interrupted > 3, "only {interrupted} runs were interrupted");
}

#[test]
fn a_demo_killed_at_any_moment_is_replaced_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let demo = |out: &str| {
        let mut command = Command::new(SLUICE);
        command.current_dir(folder.path()).args(["demo", "--out", out]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let whole = demo("whole");
    for moment in 0..MOMENTS {
        let mut child = demo("killed");
        // Most of the moments lie where folders and files appear and go away.
        sleep(Duration::from_millis(u64::from(moment * moment * 6)));
        if moment % 3 == 2 {
            signal(&child, "-INT");
            let run = finish(child, folder.path());
            assert!(matches!(run.code, Some(130) | None), "{run}");
        } else {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let page = folder.path().join("killed/report.html");
        assert!(!page.exists() || fs::read_to_string(page).unwrap().trim_end().ends_with("</html>"));
    }
    // Something of the user's own stays, whatever the demo replaces.
    fs::write(folder.path().join("killed/notes.txt"), "mine").unwrap();
    let again = finish(demo("killed"), folder.path()).exits(0);
    let whole = finish(whole, folder.path()).exits(0);
    assert_eq!(again.stdout.replace("killed", "whole"), whole.stdout);
    assert_eq!(fs::read_to_string(folder.path().join("killed/notes.txt")).unwrap(), "mine");
    let refs = |out: &str| {
        let path = folder.path().join(out).join("repository.git");
        sluice_bot::repository::Repository::open(&path).unwrap().references("refs/*").unwrap()
    };
    assert_eq!(refs("killed"), refs("whole"));
    let page = |out: &str| fs::read(folder.path().join(out).join("report.html")).unwrap();
    assert!(page("killed") == page("whole"));
}

#[test]
fn a_folder_that_holds_other_things_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let run = |out: &Path| {
        let done = Command::new(SLUICE).args(["demo", "--out"]).arg(out).output().unwrap();
        Run::of(&done, folder.path())
    };
    run(folder.path()).fails("error: `…` holds other things: name an empty or new folder with `--out`");
    run(&folder.path().join("notes.txt")).fails("error: cannot read `…/notes.txt`");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(folder.path().join("notes.txt")).unwrap(), "mine");
}

#[test]
fn what_is_left_of_the_demo_s_folder_is_never_only_a_part_without_its_mark() {
    // A demo that is killed while it clears an older one away leaves these behind, in this order.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    for left in
        [&["mesh.sluice.gz", ".sluice-demo"][..], &[".sluice-demo.partial", ".sluice-demo"], &[".sluice-demo"], &[]]
    {
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        for name in left {
            fs::write(out.join(name), "").unwrap();
        }
        sluice_bot::demo::prepare(&out).unwrap();
        assert!(out.join("sluice.yaml").exists() && out.join(".sluice-demo").exists());
        assert!(!out.join(".sluice-demo.partial").exists());
    }
    // Nothing that the demo did not make goes away with it.
    fs::create_dir(out.join("mine")).unwrap();
    sluice_bot::demo::prepare(&out).unwrap();
    assert!(out.join("mine").exists());
}

/// The locks of references below a folder.
fn locks(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { locks(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "lock"))
        .collect()
}

#[test]
fn a_lock_of_a_run_that_died_holds_the_next_one_up_for_a_second_at_most() {
    let world = World::new();
    let lock = world.path("policies.git/refs/heads/main.lock");
    fs::write(&lock, "").unwrap();
    fs::write(world.path("policies.git/sluice.lock"), "refs/heads/main").unwrap();
    world.propose().exits(0).says("pull request #2: merged");
    assert!(!lock.exists());
    assert_eq!(fs::read_to_string(world.path("policies.git/sluice.lock")).unwrap(), "");
}

#[test]
fn a_dead_lock_is_waited_for_and_then_removed() {
    let world = World::new();
    let lock = world.path("policies.git/refs/heads/main.lock");
    fs::write(&lock, "").unwrap();
    let run = world.propose().exits(3);
    assert!(run.stdout.contains("`refs/heads/main` is locked by another process; the next pass tries again"), "{run}");
    assert!(run.stdout.contains("pull request #1: opened"), "{run}");
    let file = File::options().write(true).open(&lock).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
    world.propose().exits(0).says("pull request #2: merged");
    assert!(!lock.exists());
    let (whole, _) = undisturbed();
    world.propose().exits(0);
    assert_eq!(world.git().head("main").unwrap(), whole.git().head("main").unwrap());
}

/// Starts `propose` and holds it just before its first reference moves.
fn held(world: &World) -> (Child, File) {
    let turn = File::options().create(true).truncate(false).write(true).open(world.path("policies.git/sluice.lock"));
    let turn = turn.unwrap();
    turn.lock().unwrap();
    let child = world.start(&["propose"]);
    let open = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let waits = || {
        let links = fs::read_dir(&open).unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        links.into_iter().any(|path| path.ends_with("sluice.lock"))
    };
    let begun = Instant::now();
    while !waits() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never asked for its turn");
        sleep(Duration::from_millis(5));
    }
    (child, turn)
}

#[test]
fn a_branch_that_moved_under_us_is_read_again_by_the_next_pass() {
    let world = World::new();
    let (child, turn) = held(&world);
    let text = world.plain_git(&["show", "main:policies/summarize.yaml"], b"");
    // Plain Git takes no turns: it pushes while we wait.
    let moved = pushed(&world, "policies/summarize.yaml", &(text + "\n# a remark\n"));
    drop(turn);
    let run = finish(child, &world.path("")).exits(3);
    assert!(run.stdout.contains("`main` moved"), "{run}");
    // What somebody pushed is still there, and nothing was put on top of it.
    assert_eq!(world.plain_git(&["rev-parse", "main"], b""), moved);
    world.fsck();
    world.propose();
    world.propose().exits(0);
    let text = world.plain_git(&["show", "main:policies/summarize.yaml"], b"");
    assert!(text.contains("# a remark"), "{text}");
    world.fsck();
}

#[test]
fn a_branch_that_was_rewritten_under_us_is_not_written_to() {
    let world = World::new();
    let (child, turn) = held(&world);
    let tree = world.plain_git(&["rev-parse", "main^{tree}"], b"");
    let who = ["-c", "user.name=Team", "-c", "user.email=team@example.org"];
    let fresh = world.plain_git(&[&who[..], &["commit-tree", &tree, "-m", "fresh history"]].concat(), b"");
    world.plain_git(&["update-ref", "refs/heads/main", &fresh], b"");
    drop(turn);
    let run = finish(child, &world.path("")).exits(3);
    assert!(run.stdout.contains("failed: "), "{run}");
    assert_eq!(world.plain_git(&["rev-parse", "main"], b""), fresh);
    world.fsck();
}

/// Commits a file to `main` as plain Git would.
fn pushed(world: &World, path: &str, text: &str) -> String {
    let (folder, name) = path.split_once('/').unwrap();
    let blob = world.plain_git(&["hash-object", "-w", "--stdin"], text.as_bytes());
    let replaced = |listed: String, name: &str, entry: String| -> String {
        listed
            .lines()
            .map(|line| if line.ends_with(&format!("\t{name}")) { entry.clone() } else { line.to_owned() } + "\n")
            .collect()
    };
    let inner = replaced(
        world.plain_git(&["ls-tree", &format!("main:{folder}")], b""),
        name,
        format!("100644 blob {blob}\t{name}"),
    );
    let inner = world.plain_git(&["mktree"], inner.as_bytes());
    let outer = replaced(world.plain_git(&["ls-tree", "main"], b""), folder, format!("040000 tree {inner}\t{folder}"));
    let tree = world.plain_git(&["mktree"], outer.as_bytes());
    let who = ["-c", "user.name=Team", "-c", "user.email=team@example.org"];
    let commit = [&who[..], &["commit-tree", &tree, "-p", "main", "-m", "a push"]].concat();
    let commit = world.plain_git(&commit, b"");
    world.plain_git(&["update-ref", "refs/heads/main", &commit], b"");
    commit
}

/// A small file system of its own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(kibibytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kibibytes}k");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "sluice-test"]).arg(folder.path()).output();
        let mounted = mounted.unwrap();
        assert!(
            mounted.status.success(),
            "this test fills a small disk and may not mount one: run it as root, in a container with \
             `--cap-add SYS_ADMIN`, or under `unshare --map-root-user --mount`; mount said: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self(folder)
    }

    /// Leaves this much room.
    fn fill(&self, left: usize) {
        let whole = vec![0; left];
        fs::write(self.0.path().join("room"), whole).unwrap();
        let mut stuffing = File::create(self.0.path().join("stuffing")).unwrap();
        while std::io::Write::write(&mut stuffing, &[0; 4096]).is_ok_and(|written| written > 0) {}
        fs::remove_file(self.0.path().join("room")).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.path().join("stuffing")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn run_on(disk: &Disk, arguments: &[&str]) -> Run {
    let done = Command::new(SLUICE).current_dir(disk.0.path()).args(arguments).output().unwrap();
    Run::of(&done, disk.0.path())
}

#[test]
fn a_full_disk_is_told_and_the_next_run_makes_up_for_it() {
    let (whole, _) = undisturbed();
    let whole = whole.git().references("refs/*").unwrap();
    for pages in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55] {
        let disk = Disk::of(2048);
        World::fill(disk.0.path(), &[]);
        let path = disk.0.path().join("policies.git");
        let refs = || sluice_bot::repository::Repository::open(&path).unwrap().references("refs/*").unwrap();
        let before = refs();
        disk.fill(pages * 4096);
        let run = run_on(&disk, &["propose"]);
        match run.code {
            Some(0) => {}
            Some(1 | 3) => {
                let told = run.stdout.clone() + &run.stderr;
                assert!(told.contains("no space left") && told.contains("free some"), "{pages} pages: {run}");
            }
            _ => panic!("{pages} pages: {run}"),
        }
        if pages == 0 {
            assert_eq!(refs(), before, "{run}");
        }
        fsck(&path);
        disk.empty();
        run_on(&disk, &["propose"]).exits(0);
        run_on(&disk, &["propose"]).exits(0);
        assert_eq!(refs(), whole, "{pages} pages");
        fsck(&path);
    }
}

#[test]
fn a_demo_on_a_full_disk_says_so_and_may_be_run_again() {
    for kibibytes in [4, 64, 300] {
        let disk = Disk::of(kibibytes);
        let run = run_on(&disk, &["demo", "--out", "demo"]);
        assert_eq!(run.code, Some(1), "{kibibytes} KiB: {run}");
        assert!(run.stderr.to_lowercase().contains("no space left"), "{kibibytes} KiB: {run}");
        assert!(!disk.0.path().join("demo/report.html").exists());
        let again = run_on(&disk, &["demo", "--out", "demo"]);
        assert!(!again.stderr.contains("holds other things"), "{again}");
    }
}

#[test]
fn a_recording_on_a_full_disk_leaves_the_older_one() {
    let disk = Disk::of(64);
    let dump = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/metrics/kuma/canary-15m.openmetrics.gz");
    fs::write(disk.0.path().join("new.sluice.gz"), "older").unwrap();
    disk.fill(0);
    let run = run_on(&disk, &["record", "--openmetrics", dump.to_str().unwrap(), "--out", "new.sluice.gz"]);
    run.fails("new.sluice.gz: cannot be written: the disk is full; free some space or choose another folder");
    assert_eq!(fs::read_to_string(disk.0.path().join("new.sluice.gz")).unwrap(), "older");
    let names = fs::read_dir(disk.0.path()).unwrap().count();
    assert_eq!(names, 2, "a partial file was left behind");
}

fn fsck(path: &Path) {
    let done =
        Command::new("git").arg("--git-dir").arg(path).args(["fsck", "--full", "--strict", "--no-dangling"]).output();
    let done = done.unwrap();
    assert!(done.status.success() && done.stdout.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Runs with standard output or error closed at once, as `| head -0` does.
fn with_closed(arguments: &[&str], world: &World, both: bool) -> Run {
    let mut command = Command::new(SLUICE);
    command.current_dir(world.path("")).args(arguments).stdin(Stdio::null()).stdout(closed());
    if both {
        let done = command.stderr(closed()).output().unwrap();
        return Run::of(&done, &world.path(""));
    }
    let done = command.output().unwrap();
    Run::of(&done, &world.path(""))
}

/// The writing end of a pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_panic() {
    let world = World::with(&[("policies/odd.yaml".to_owned(), b"a: [".to_vec())]);
    for both in [false, true] {
        for arguments in [
            &["propose"][..],
            &["propose", "--format", "json"],
            &["verify", "1"],
            &["verify", "99"],
            &["config", "schema"],
            &["config", "check"],
            &["config", "check", "missing.yaml"],
            &["propose", "--config", "missing.yaml"],
            &["--help"],
        ] {
            let run = with_closed(arguments, &world, both);
            // A panic exits with 101, a signal has no code.
            assert!(matches!(run.code, Some(0..=4)), "{arguments:?}: {run}");
        }
    }
    // The work was done all the same.
    assert_eq!(world.refs().keys().filter(|name| name.starts_with("refs/sluice/pulls/")).count(), 2);
    world.fsck();
}

#[test]
fn a_pull_request_stays_while_its_file_is_broken() {
    let world = World::new();
    world.propose().exits(0).says("pull request #1: opened");
    let good = world.plain_git(&["show", "main:policies/chat.yaml"], b"");
    world.commit(&[("policies/chat.yaml", "{")]);
    let pulls = seen(&world);
    let run = world.propose().exits(3).says("pull request #1: kept");
    assert!(run.stderr.contains("note: policies/chat.yaml:1:"), "{run}");
    assert_eq!(seen(&world), pulls);
    world.commit(&[("policies/chat.yaml", &(good + "\n"))]);
    world.propose().exits(0);
}
