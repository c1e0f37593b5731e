//! What `sluice demo` promises, on the real binary and with Git's own eyes.

#![allow(clippy::unwrap_used, reason = "a panic in a test's helper is the failure itself")]

use assert_cmd::Command;
use serde_json::Value;
use sluice_bot::demo::LLM_BEGIN;
use sluice_bot::forge::{Bot, Filter, Forge, Local, Pull, State};
use sluice_rules::decision::canary_share;
use sluice_rules::document::File;
use sluice_rules::policy::Policy;
use sluice_rules::split::splits;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

/// What the guard `model-serving` lets automation move in one write.
const MAX_STEP: f64 = 25.0;

struct Demo {
    dir: PathBuf,
    stdout: String,
    _temporary: TempDir,
}

/// Two demos, made side by side.
static DEMOS: LazyLock<[Demo; 2]> = LazyLock::new(|| {
    let made: Vec<_> = [(); 2].map(|()| std::thread::spawn(make)).into_iter().map(|run| run.join().unwrap()).collect();
    made.try_into().unwrap_or_else(|_| unreachable!("two were started"))
});

fn make() -> Demo {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("demo");
    let run = sluice().arg("demo").arg("--out").arg(&dir).assert().success();
    let stdout = text(&run.get_output().stdout);
    Demo { dir, stdout, _temporary: temporary }
}

fn demo() -> &'static Demo {
    &DEMOS[0]
}

fn sluice() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Demo {
    fn repository(&self) -> PathBuf {
        self.dir.join("repository.git")
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.repository(), arguments)
    }

    fn pulls(&self) -> Vec<Pull> {
        let nobody = Bot { id: String::new(), name: String::new(), email: String::new() };
        Forge::Local(Local::open(&self.repository(), nobody).unwrap()).list(&Filter::default()).unwrap()
    }

    fn pulls_of(&self, rollout: &str) -> Vec<Pull> {
        let title = format!("canary({rollout}): ");
        self.pulls().into_iter().filter(|pull| pull.content.title.starts_with(&title)).collect()
    }

    /// The canary's share in a rollout's route at a commit, in percent.
    fn share(&self, commit: &str, rollout: &str) -> f64 {
        let path = format!("policies/{rollout}.yaml");
        let bytes = self.git(&["show", &format!("{commit}:{path}")]);
        let file = File::parse(&path, bytes.as_bytes()).unwrap();
        let route = file.documents().iter().filter_map(|document| Policy::read(document.value()).ok());
        let suffix = if rollout == "translate" { "_ai_svc_8080" } else { "" };
        let [stable, canary] = ["v1", "v2"].map(|version| format!("{rollout}-{version}{suffix}"));
        let shares: Vec<f64> = route
            .filter_map(|route| canary_share(&path, &route, &splits(&route).0, &stable, &canary).ok().map(|(s, _)| s))
            .collect();
        assert_eq!(shares.len(), 1, "{path} at {commit}");
        shares[0]
    }

    /// The shares a rollout had on the branch, oldest first.
    fn shares(&self, rollout: &str) -> Vec<f64> {
        let path = format!("policies/{rollout}.yaml");
        let commits = self.git(&["log", "--first-parent", "--reverse", "--format=%H", "main", "--", &path]);
        commits.lines().map(|commit| self.share(commit, rollout)).collect()
    }

    /// Shares before and after what a pull request proposes.
    fn shift(&self, pull: &Pull) -> (f64, f64) {
        let rollout = rollout(pull);
        let at = |commit: git2::Oid| self.share(&commit.to_string(), &rollout);
        (at(pull.content.base_at), at(pull.content.head))
    }

    /// How a rollout ended, as the command told it: the headline and the explanation.
    fn told(&self, rollout: &str) -> String {
        let mut lines = self.stdout.lines().skip_while(|line| !line.starts_with(&format!("{rollout} ")));
        [lines.next(), lines.next()].map(Option::unwrap_or_default).join("\n")
    }

    fn evidence(&self, pull: &Pull) -> Value {
        serde_json::from_str(&self.git(&["show", &format!("refs/sluice/pulls/{}:evidence.json", pull.number)])).unwrap()
    }
}

fn git(repository: &Path, arguments: &[&str]) -> String {
    let run = Command::new("git").arg("-C").arg(repository).args(arguments).assert().success();
    text(&run.get_output().stdout)
}

fn rollout(pull: &Pull) -> String {
    let title = &pull.content.title;
    title.split_once('(').and_then(|(_, rest)| rest.split_once(')')).unwrap_or_else(|| panic!("{title}")).0.to_owned()
}

fn is_rollback(pull: &Pull) -> bool {
    pull.content.labels.iter().any(|label| label == "sluice/rollback")
}

#[test]
fn climbs_every_rung_through_merged_pull_requests() {
    let demo = demo();
    assert_eq!(demo.shares("summarize"), [5.0, 10.0, 25.0, 50.0, 75.0, 99.0, 100.0]);
    let pulls = demo.pulls_of("summarize");
    assert!(pulls.iter().all(|pull| pull.state == State::Merged), "{:?}", pulls);
    let merged: Vec<_> = pulls.iter().map(|pull| demo.shift(pull)).collect();
    assert_eq!(merged, [(5.0, 10.0), (10.0, 25.0), (25.0, 50.0), (50.0, 75.0), (75.0, 99.0), (99.0, 100.0)]);
    assert!(demo.told("summarize").contains("Promoted to 100 %"), "{}", demo.told("summarize"));
}

#[test]
fn stays_within_a_step_of_the_guards_and_never_swaps_two_backends() {
    let demo = demo();
    for pull in demo.pulls() {
        let (from, to) = demo.shift(&pull);
        let title = &pull.content.title;
        if is_rollback(&pull) {
            assert!(from > 0.0 && to == 0.0, "{title}");
        } else {
            assert!((to - from).abs() <= MAX_STEP + 1e-9, "{title}");
            // Taking one backend's last weight while giving another its first fails every request for a moment.
            assert!(!(from <= 0.0 && to >= 100.0 || from >= 100.0 && to <= 0.0), "{title}");
            assert!(to < 100.0 || from >= 99.0, "{title}");
        }
    }
}

#[test]
fn rolls_back_a_canary_that_turns_bad() {
    let demo = demo();
    let shares = demo.shares("chat");
    assert_eq!(shares.first(), Some(&10.0));
    assert_eq!(shares.last(), Some(&0.0));
    let pulls = demo.pulls_of("chat");
    let last = pulls.last().unwrap();
    assert!(is_rollback(last) && last.state == State::Merged, "{last:?}");
    assert_eq!(pulls.iter().filter(|pull| is_rollback(pull)).count(), 1, "one rollback, and no new start after it");
    assert_eq!(demo.evidence(last)["claim"]["call"], "rollback");
    assert!(demo.told("chat").contains("Rolled back"), "{}", demo.told("chat"));
    assert!(demo.told("chat").contains("Harm in errors"), "{}", demo.told("chat"));
}

#[test]
fn holds_where_replicas_are_too_few_and_says_how_many_are_needed() {
    let demo = demo();
    assert_eq!(demo.shares("rerank").last(), Some(&25.0));
    assert!(demo.pulls_of("rerank").iter().all(|pull| pull.state == State::Merged));
    assert!(demo.told("rerank").contains("2 canary replicas needed"), "{}", demo.told("rerank"));
}

#[test]
fn stays_undecided_for_lack_of_data_and_says_how_much_is_missing() {
    let demo = demo();
    assert_eq!(demo.shares("translate"), [5.0]);
    assert!(demo.pulls_of("translate").is_empty());
    let told = demo.told("translate");
    assert!(told.contains("Undecided") && told.contains("more bad requests"), "{told}");
}

#[test]
fn asks_a_person_where_answers_are_worse() {
    let demo = demo();
    let pulls = demo.pulls_of("classify");
    assert_eq!(pulls.len(), 1);
    assert!(pulls[0].is_open() && pulls[0].content.labels.contains(&"sluice/ask".to_owned()), "{:?}", pulls[0]);
    assert_eq!(demo.evidence(&pulls[0])["claim"]["call"], "ask");
    assert!(demo.told("classify").contains("Quality is below its margin"), "{}", demo.told("classify"));
    assert_eq!(demo.shares("classify"), [10.0], "nothing moves until a person answers");
}

#[test]
fn a_freeze_holds_a_canary_that_is_ready() {
    let demo = demo();
    assert_eq!(demo.shares("moderate"), [25.0]);
    assert!(demo.pulls_of("moderate").is_empty());
    let told = demo.told("moderate");
    assert!(told.contains("held by a guard until 2026-11-25T06:00:00Z"), "{told}");
    assert!(told.contains("nightly labelling") && told.contains("25 % → 50 %"), "{told}");
}

#[test]
fn the_mesh_that_ran_is_rolled_back_within_three_minutes_of_its_fault_and_not_before() {
    let demo = demo();
    let pulls = demo.pulls_of("llm");
    assert_eq!(pulls.len(), 1);
    assert!(is_rollback(&pulls[0]));
    assert_eq!(demo.shift(&pulls[0]), (25.0, 0.0));
    let minute = |at: Option<jiff::Timestamp>| (at.unwrap().as_second() - LLM_BEGIN) as f64 / 60.0;
    let (opened, merged) = (minute(Some(pulls[0].created)), minute(pulls[0].merged_at));
    assert!((12.0..=15.0).contains(&opened), "opened in minute {opened}");
    assert!((12.0..=15.0).contains(&merged), "merged in minute {merged}");
    assert_eq!(demo.shares("llm"), [0.0, 10.0, 25.0, 0.0]);
}

#[test]
fn every_pull_request_touches_lines_with_a_weight_and_no_other() {
    let demo = demo();
    for pull in demo.pulls() {
        let [base, head] = [pull.content.base_at, pull.content.head].map(|commit| commit.to_string());
        let diff = demo.git(&["diff", "--unified=0", &base, &head]);
        let changed: Vec<&str> = diff
            .lines()
            .filter(|line| (line.starts_with('+') || line.starts_with('-')) && !line.starts_with("+++ "))
            .filter(|line| !line.starts_with("--- "))
            .collect();
        // Both weights of a pair, before and after, and nothing else; `classify` has two rules.
        let pairs = if rollout(&pull) == "classify" { 2 } else { 1 };
        assert_eq!(changed.len(), 4 * pairs, "{}:\n{diff}", pull.content.title);
        assert!(changed.iter().all(|line| line.contains("weight")), "{}:\n{diff}", pull.content.title);
        let bare = |sign: char| -> Vec<String> {
            let lines = changed.iter().filter(|line| line.starts_with(sign));
            lines.map(|line| line[1..].chars().filter(|c| !c.is_ascii_digit()).collect()).collect()
        };
        assert_eq!(bare('-'), bare('+'), "more than numbers changed:\n{diff}");
        assert_eq!(demo.git(&["diff", "--name-only", &base, &head]).lines().count(), 1, "one document each");
    }
}

#[test]
fn proposing_again_writes_no_object_and_no_reference() {
    let demo = demo();
    let again = tempfile::tempdir().unwrap();
    copy(&demo.dir, again.path());
    let repository = again.path().join("repository.git");
    let propose = || {
        let run = sluice().arg("propose").arg("--config").arg(again.path().join("sluice.yaml")).assert().success();
        text(&run.get_output().stdout)
    };
    let state = || {
        let objects = git(&repository, &["cat-file", "--batch-all-objects", "--batch-check"]);
        (git(&repository, &["for-each-ref"]), git(&repository, &["count-objects", "-v"]), objects)
    };
    let first = propose();
    let before = state();
    let second = propose();
    assert_eq!(before, state());
    assert!(second.contains("unchanged"), "{second}");
    assert_eq!(first, second);
    // The demo's own last pass saw the same: not even the first one had anything to write.
    assert_eq!(before.0, demo.git(&["for-each-ref"]));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn verifies_every_pull_request_from_the_evidence_it_carries() {
    let demo = demo();
    let pulls = demo.pulls();
    assert!(pulls.len() > 10);
    for pull in pulls {
        let number = pull.number.to_string();
        let run = sluice().args(["verify", &number, "--repository"]).arg(demo.repository()).assert().success();
        let stdout = text(&run.get_output().stdout);
        assert!(stdout.starts_with("equal: "), "#{number}: {stdout}");
    }
}

#[test]
fn names_the_tick_whose_count_was_changed_in_any_pull_request() {
    let demo = demo();
    for pull in demo.pulls() {
        let mut evidence = demo.evidence(&pull);
        let ticks = evidence["ticks"].as_array_mut().unwrap();
        let seen = |tick: &Value| tick["signals"]["errors"]["stable"][0].as_f64().is_some_and(|n| n > 1.0);
        let changed: Vec<_> = (0..ticks.len()).filter(|index| seen(&ticks[*index])).collect();
        let index = changed[changed.len() / 2];
        let count = &mut ticks[index]["signals"]["errors"]["stable"][0];
        *count = Value::from(count.as_f64().unwrap() + 1.0);
        let run = sluice().args(["verify", "-"]).write_stdin(evidence.to_string()).assert().code(4);
        let stdout = text(&run.get_output().stdout);
        assert!(stdout.starts_with("different:\n") && stdout.contains(&format!("ticks[{index}] ")), "{stdout}");
        assert!(stdout.lines().filter(|line| line.trim_start().starts_with("ticks[")).count() == 1, "{stdout}");
    }
}

#[test]
fn evidence_swapped_for_other_evidence_is_not_what_the_pull_request_promised() {
    let demo = demo();
    let [one, other] = ["1", "2"].map(|number| format!("refs/sluice/pulls/{number}"));
    let again = tempfile::tempdir().unwrap();
    copy(&demo.repository(), again.path());
    // A commit like the one of #1 whose evidence is that of #2.
    let files = git(again.path(), &["ls-tree", &one]);
    let swapped = git(again.path(), &["rev-parse", &format!("{other}:evidence.json")]);
    let own = git(again.path(), &["rev-parse", &format!("{one}:evidence.json")]);
    let mut mktree = Command::new("git");
    mktree.arg("-C").arg(again.path()).arg("mktree").write_stdin(files.replace(own.trim(), swapped.trim()));
    let tree = text(&mktree.assert().success().get_output().stdout);
    let who = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
    let commit = git(again.path(), &[&who[..], &["commit-tree", tree.trim(), "-p", &one, "-m", "swap"]].concat());
    git(again.path(), &["update-ref", &one, commit.trim()]);
    let run = sluice().args(["verify", "1", "--repository"]).arg(again.path()).assert().code(4);
    assert!(text(&run.get_output().stdout).contains("digest in the pull request"));
}

#[test]
fn reports_on_one_page_that_fetches_nothing() {
    let demo = demo();
    let page = fs::read_to_string(demo.dir.join("report.html")).unwrap();
    for loads in ["http://", "https://", "<script src", "<link", "<img", "<iframe", "@import", "url("] {
        assert!(!page.contains(loads), "the page holds `{loads}`");
    }
    for (place, _) in page.match_indices("href=\"") {
        assert_eq!(&page[place + 6..place + 7], "#", "links stay on the page");
    }
    for rollout in ["summarize", "chat", "rerank", "translate", "classify", "moderate", "llm"] {
        assert!(page.contains(&format!("{rollout}-v2")) && page.contains(rollout), "{rollout} is missing");
    }
    for pull in demo.pulls() {
        assert!(page.contains(&format!("#{}", pull.number)), "#{} is missing", pull.number);
    }
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
}

#[test]
fn two_demos_leave_the_same_references_and_the_same_page() {
    let [one, other] = &*DEMOS;
    assert_eq!(one.git(&["for-each-ref"]), other.git(&["for-each-ref"]));
    let page = |demo: &Demo| fs::read_to_string(demo.dir.join("report.html")).unwrap();
    assert!(page(one) == page(other), "the pages differ");
    let words = |demo: &Demo| demo.stdout.replace(&demo.dir.display().to_string(), "DIR");
    assert_eq!(words(one), words(other));
}

#[test]
fn git_finds_nothing_wrong_with_the_repository() {
    let demo = demo();
    let run = Command::new("git").arg("-C").arg(demo.repository()).args(["fsck", "--strict", "--full"]).assert();
    let output = run.success().get_output().clone();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!said.contains("error") && !said.contains("missing"), "{said}");
}

#[test]
fn replaces_an_earlier_demo_and_nothing_else() {
    let temporary = tempfile::tempdir().unwrap();
    let mine = temporary.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("letter.txt"), "dear").unwrap();
    let run = sluice().arg("demo").arg("--out").arg(&mine).assert().code(1);
    assert!(text(&run.get_output().stderr).contains("holds other things"));
    let left: BTreeMap<_, _> = fs::read_dir(&mine).unwrap().map(|e| (e.unwrap().file_name(), ())).collect();
    assert_eq!(left.len(), 1);
}

#[test]
fn the_readme_quotes_what_the_demo_prints() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let quoted = readme.split("```text\n").find(|block| block.contains("passes over a recorded mesh")).unwrap();
    let quoted = quoted.split("```").next().unwrap();
    assert!(demo().stdout.contains(quoted.trim_end()), "the README quotes\n{quoted}");
}
