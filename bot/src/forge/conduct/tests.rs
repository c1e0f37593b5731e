//! A pass that dies after each of its writes, and what the next pass makes of it.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::forge::Local;
use crate::repository::{Signature, crash};

const ROUTE: &str = "policies/route.yaml";

struct World {
    dir: tempfile::TempDir,
    repository: Repository,
    forge: Forge,
    conduct: Conduct,
}

fn bot() -> Bot {
    Bot { id: "sluice".into(), name: "sluice".into(), email: "sluice@localhost".into() }
}

fn minute(minute: i64) -> Timestamp {
    Timestamp::from_second(1_750_000_000 + 60 * minute).unwrap()
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(dir.path()).unwrap();
        let forge = Forge::Local(Local::open(dir.path(), bot()).unwrap());
        let world = Self { dir, repository, forge, conduct: Conduct::new(bot()) };
        world.person("main", &[(ROUTE, "weight: 5\n"), ("README.md", "hello\n")], 0);
        world
    }

    /// Somebody commits to a branch.
    fn person(&self, branch: &str, files: &[(&str, &str)], at: i64) -> Oid {
        let tip = self.repository.head(branch).unwrap();
        let files = files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect::<Vec<_>>();
        let person = Signature { name: "Ada".into(), email: "ada@example.org".into(), time: minute(at) };
        let parents = tip.into_iter().collect::<Vec<_>>();
        let commit = self.repository.commit(&parents, tip, &files, "by hand\n", &person).unwrap();
        self.repository.update_ref(&branch_ref(branch), commit, tip).unwrap();
        commit
    }

    fn shift(&self, weight: u32) -> DesiredPull {
        DesiredPull {
            kind: "shift".into(),
            mesh: "default".into(),
            scope: "summarize".into(),
            base: "main".into(),
            base_at: self.repository.head("main").unwrap().unwrap(),
            changes: vec![(ROUTE.into(), format!("weight: {weight}\n").into_bytes())],
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

    fn pulls(&self) -> Vec<Pull> {
        self.forge.list(&Filter::default()).unwrap()
    }

    fn main(&self) -> Oid {
        self.repository.head("main").unwrap().unwrap()
    }

    fn refs(&self) -> Vec<(String, Oid)> {
        self.repository.references("refs/*").unwrap()
    }

    /// What people see, without ids and times.
    fn visible(&self) -> Vec<String> {
        let pulls = self.forge.list(&Filter::default()).unwrap();
        let mut seen = pulls
            .iter()
            .map(|pull| {
                let head = self.repository.file(pull.content.head, ROUTE).unwrap();
                let said = pull.comments.iter().map(|comment| &comment.text).collect::<Vec<_>>();
                let Content { title, body, digest, labels, evidence, .. } = &pull.content;
                let content = format!("{title} {body} {digest} {labels:?} {evidence:?} {head:?}");
                format!("#{} {} {:?} {content} {said:?}", pull.number, pull.branch, pull.state)
            })
            .collect::<Vec<_>>();
        for (name, at) in self.repository.references("refs/heads/*").unwrap() {
            seen.push(format!("{name} {:?}", self.repository.file(at, ROUTE).unwrap()));
        }
        seen
    }
}

fn objects(dir: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        count += if entry.file_type().unwrap().is_dir() { objects(&entry.path()) } else { 1 };
    }
    count
}

/// Kills a pass after each of its writes; the next one ends where an undisturbed one does, and the one after that
/// writes nothing.
fn survives(prepare: impl Fn(&mut World) -> Vec<DesiredPull>) {
    let undisturbed = |at: i64| {
        let mut world = World::new();
        let desired = prepare(&mut world);
        crash::after(None);
        for outcome in world.pass(&desired, at) {
            assert!(!matches!(outcome.action, Action::Failed(_)), "{outcome:?}");
        }
        (world.refs(), world.visible(), crash::spent())
    };
    let (refs, visible, writes) = undisturbed(100);
    assert!(writes > 0, "a scenario without writes proves nothing");
    for survived in 0..writes {
        for later in [0, 1] {
            let mut world = World::new();
            let desired = prepare(&mut world);
            crash::after(Some(survived));
            let killed = world.conduct.reconcile(&world.forge, &world.repository, &desired, minute(100));
            drop(killed);
            crash::after(None);
            world.pass(&desired, 100 + later);
            let place = format!("killed after write {survived} of {writes}, run again {later} min later");
            assert_eq!(world.visible(), visible, "{place}");
            if later == 0 {
                assert_eq!(world.refs(), refs, "{place}");
            }
            let before = (world.refs(), objects(&world.dir.path().join("objects")));
            crash::after(None);
            world.pass(&desired, 200);
            assert_eq!(crash::spent(), 0, "{place}: a pass over settled things wrote");
            assert_eq!((world.refs(), objects(&world.dir.path().join("objects"))), before, "{place}");
        }
    }
}

#[test]
fn a_new_pull_request_survives_a_crash_after_each_write() {
    survives(|world| vec![world.shift(10)]);
}

#[test]
fn two_new_pull_requests_survive_a_crash_after_each_write() {
    survives(|world| vec![world.shift(10), DesiredPull { scope: "translate".into(), ..world.shift(25) }]);
}

#[test]
fn new_content_survives_a_crash_after_each_write() {
    survives(|world| {
        world.pass(&[world.shift(10)], 1);
        vec![world.shift(25)]
    });
}

#[test]
fn a_rebuild_survives_a_crash_after_each_write() {
    survives(|world| {
        world.pass(&[world.shift(10)], 1);
        world.person("main", &[(ROUTE, "# moved\nweight: 5\n")], 2);
        let bytes = b"# moved\nweight: 10\n".to_vec();
        vec![DesiredPull { changes: vec![(ROUTE.into(), bytes)], ..world.shift(10) }]
    });
}

#[test]
fn an_automatic_merge_survives_a_crash_after_each_write() {
    survives(|world| vec![DesiredPull { auto_merge: true, ..world.shift(10) }]);
}

#[test]
fn the_next_rung_after_a_merge_survives_a_crash_after_each_write() {
    survives(|world| {
        world.pass(&[DesiredPull { auto_merge: true, ..world.shift(10) }], 1);
        vec![DesiredPull { auto_merge: true, ..world.shift(25) }]
    });
}

#[test]
fn a_withdrawal_survives_a_crash_after_each_write() {
    survives(|world| {
        world.pass(&[world.shift(10)], 1);
        Vec::new()
    });
}

#[test]
fn a_suggestion_to_people_survives_a_crash_after_each_write() {
    survives(|world| {
        world.pass(&[world.shift(10)], 1);
        let branch = world.shift(10).branch(&bot());
        world.person(&branch, &[(ROUTE, "weight: 7\n")], 2);
        vec![world.shift(25)]
    });
}

#[test]
fn new_content_of_a_declined_proposal_survives_a_crash_after_each_write() {
    survives(|world| {
        world.pass(&[world.shift(10)], 1);
        world.forge.close(1, "not now", By::Person("Ada".into()), minute(2)).unwrap();
        vec![DesiredPull { rollback: true, ..world.shift(0) }]
    });
}

#[test]
fn a_proposal_that_vanished_after_a_crash_leaves_no_branch_behind() {
    let world = World::new();
    crash::after(None);
    world.pass(&[world.shift(10)], 100);
    let writes = crash::spent();
    for survived in 0..writes {
        let world = World::new();
        crash::after(Some(survived));
        drop(world.conduct.reconcile(&world.forge, &world.repository, &[world.shift(10)], minute(100)));
        crash::after(None);
        world.pass(&[], 101);
        assert_eq!(world.repository.references("refs/heads/*").unwrap().len(), 1, "killed after write {survived}");
        assert!(world.forge.list(&Filter { open: true, ..Filter::default() }).unwrap().is_empty());
    }
}

/// Something that happens between two passes.
#[derive(Debug, Clone)]
enum Event {
    WeightWanted(u32),
    NothingWanted,
    MergesAllowed(bool),
    PersonCommitsToBranch,
    PersonAmendsUnderOurName,
    PersonCloses,
    PersonMerges,
    PersonRemovesBranch,
    PersonChangesTheFile,
    PersonChangesAnotherFile,
    PersonRewritesTheBase,
    Crash(usize),
    DaysPass(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0u32..6).prop_map(|weight| Event::WeightWanted(weight * 10)),
        1 => Just(Event::NothingWanted),
        1 => any::<bool>().prop_map(Event::MergesAllowed),
        2 => Just(Event::PersonCommitsToBranch),
        1 => Just(Event::PersonAmendsUnderOurName),
        1 => Just(Event::PersonCloses),
        1 => Just(Event::PersonMerges),
        1 => Just(Event::PersonRemovesBranch),
        1 => Just(Event::PersonChangesTheFile),
        1 => Just(Event::PersonChangesAnotherFile),
        1 => Just(Event::PersonRewritesTheBase),
        3 => (0usize..25).prop_map(Event::Crash),
        1 => (1i64..40).prop_map(Event::DaysPass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: people's commits stay, one pull request per proposal is open at most, and
    /// a pass settles things, so that the next one writes nothing.
    #[test]
    fn peoples_work_outlives_any_course_of_events(events in prop::collection::vec(event(), 1..14)) {
        let world = World::new();
        let (mut wanted, mut merges, mut crashes) = (Some(10), false, None);
        let mut theirs: Vec<(String, Oid)> = Vec::new();
        let mut now = 1;
        for event in events {
            now += 1;
            let open = world.pulls().into_iter().find(|pull| pull.is_open());
            let branch = open.as_ref().and_then(|pull| {
                let tip = world.repository.head(&pull.branch).unwrap()?;
                Some((pull.branch.clone(), tip))
            });
            match (event, open, branch) {
                (Event::WeightWanted(weight), ..) => wanted = Some(weight),
                (Event::NothingWanted, ..) => wanted = None,
                (Event::MergesAllowed(allowed), ..) => merges = allowed,
                (Event::PersonCommitsToBranch, _, Some((branch, _))) => {
                    let commit = world.person(&branch, &[("notes.md", &format!("{now}\n"))], now);
                    theirs.push((branch, commit));
                }
                (Event::PersonAmendsUnderOurName, _, Some((branch, tip))) => {
                    let old = world.repository.describe(tip).unwrap();
                    let files = vec![("notes.md".to_owned(), format!("{now}\n").into_bytes())];
                    let us = bot().signature(old.time);
                    let new = world.repository.commit(&old.parents, Some(tip), &files, &old.message, &us).unwrap();
                    world.repository.update_ref(&branch_ref(&branch), new, Some(tip)).unwrap();
                    theirs.retain(|(known, _)| *known != branch);
                    theirs.push((branch, new));
                }
                (Event::PersonCloses, Some(pull), _) => {
                    world.forge.close(pull.number, "no", By::Person("Ada".into()), minute(now)).unwrap();
                }
                (Event::PersonMerges, _, Some((_, tip))) => {
                    let person = Signature { name: "Ada".into(), email: "a@example.org".into(), time: minute(now) };
                    let _ = world.repository.merge("main", tip, "by hand", &person);
                }
                (Event::PersonRemovesBranch, _, Some((branch, tip))) => {
                    world.repository.delete_ref(&branch_ref(&branch), tip).unwrap();
                    theirs.retain(|(known, _)| *known != branch);
                }
                (Event::PersonChangesTheFile, ..) => {
                    world.person("main", &[(ROUTE, &format!("weight: 5 # {now}\n"))], now);
                }
                (Event::PersonChangesAnotherFile, ..) => {
                    world.person("main", &[("README.md", &format!("{now}\n"))], now);
                }
                (Event::PersonRewritesTheBase, ..) => {
                    let tip = world.main();
                    let files = vec![("README.md".to_owned(), format!("rewritten {now}\n").into_bytes())];
                    let person = Signature { name: "Ada".into(), email: "a@example.org".into(), time: minute(now) };
                    let new = world.repository.commit(&[], Some(tip), &files, "rewritten", &person).unwrap();
                    world.repository.update_ref("refs/heads/main", new, Some(tip)).unwrap();
                    // What was merged into the old base went with it.
                    theirs.retain(|(branch, _)| world.repository.head(branch).unwrap().is_some());
                }
                (Event::Crash(writes), ..) => crashes = Some(writes),
                (Event::DaysPass(days), ..) => now += days * 24 * 60,
                _ => {}
            }
            let desired = || wanted.map(|weight| DesiredPull { auto_merge: merges, ..world.shift(weight) });
            crash::after(crashes);
            if crashes.take().is_some() {
                let _ = world.conduct.reconcile(&world.forge, &world.repository, desired().as_slice(), minute(now));
                crash::after(None);
            }
            let outcomes = world.pass(desired().as_slice(), now);
            let failed = outcomes.iter().any(|outcome| matches!(outcome.action, Action::Failed(_)));
            prop_assert!(!failed, "{outcomes:?}");
            let refs = world.refs();
            crash::after(None);
            let again = world.pass(desired().as_slice(), now);
            prop_assert_eq!(crash::spent(), 0, "{:?} and then {:?}", outcomes, again);
            prop_assert_eq!(world.refs(), refs);

            let open = world.pulls().into_iter().filter(Pull::is_open).collect::<Vec<_>>();
            prop_assert!(open.len() <= 1, "{open:#?}");
            for (branch, commit) in &theirs {
                let tips = [world.repository.head(branch).unwrap(), Some(world.main())];
                let kept = tips.into_iter().flatten().any(|tip| world.repository.contains(tip, *commit).unwrap());
                prop_assert!(kept, "{commit} on `{branch}` is lost");
            }
        }
    }
}

#[test]
fn slugs_are_short_and_plain() {
    assert_eq!(slug("Summarize v2/../x@{"), "summarize-v2-x");
    assert_eq!(slug("../.."), "x");
    assert_eq!(slug(&"a".repeat(100)).len(), 40);
}

#[test]
fn a_fence_outlasts_the_text() {
    assert_eq!(fence("a ```` b"), "`````");
    assert_eq!(fence("plain"), "```");
}
