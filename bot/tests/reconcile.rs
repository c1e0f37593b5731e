//! Whole passes on small worlds: a bare repository with a route, guards, and a mesh that does what its weights say.

#![allow(clippy::unwrap_used, reason = "a panic in a test's helper is the failure itself")]
#![allow(clippy::float_cmp, reason = "shares are quotients of small weights, and must not differ at all")]

use jiff::Timestamp;
use sluice_bot::config::Config;
use sluice_bot::forge::{Action, By, Filter, Forge, Local, Oid, Outcome as PullOutcome, Pull, State};
use sluice_bot::metrics::Metrics;
use sluice_bot::metrics::recording::{Header, Recording, ServiceCounts, Tick};
use sluice_bot::reconcile::{Pass, canary_shares};
use sluice_bot::repository::{Repository, Signature, branch_ref};
use sluice_rules::canary::tick::Counts;
use sluice_rules::decision::{Decision, Outcome};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Monday, 16 November 2026, 10:00 UTC.
const BEGIN: i64 = 1_794_823_200;
const ROUTE: &str = "policies/summarize.yaml";
const GUARDS: &str = "guards/all.yaml";

/// A guard that limits little: the step, so that large rungs take several writes.
const LOOSE: &str = "
apiVersion: sluice.dev/v1alpha1
kind: ShiftGuard
metadata: { name: all }
spec:
  match: { meshes: ['*'], services: ['*'], namespaces: ['*'] }
  caps: { maxStep: 50 }
";

struct World {
    folder: TempDir,
    config: Config,
    repository: Repository,
    forge: Forge,
    recording: Recording,
    /// Seconds since 1970.
    now: i64,
    mesh: Mesh,
}

/// What the mesh does each minute.
#[derive(Clone)]
struct Mesh {
    /// Envoy's names for the stable arm and the canary.
    clusters: [String; 2],
    /// Requests a minute.
    total: f64,
    /// Parts of the requests that fail, stable and canary.
    failing: [f64; 2],
    /// Mean scores by arm, 0 to 1.
    quality: Option<[f64; 2]>,
    /// Which arms are measured.
    seen: [bool; 2],
}

impl Mesh {
    fn of(stable: &str, canary: &str) -> Self {
        Self {
            clusters: [stable.to_owned(), canary.to_owned()],
            total: 3000.0,
            failing: [0.005; 2],
            quality: None,
            seen: [true; 2],
        }
    }
}

/// What one pass concluded and did about the only rollout.
struct Done {
    decision: Result<Decision, String>,
    pulls: Vec<PullOutcome>,
}

impl Done {
    fn outcome(&self) -> &Outcome {
        &self.decision.as_ref().unwrap_or_else(|error| panic!("{error}")).outcome
    }

    /// Why nothing was proposed.
    fn why(&self) -> &str {
        match self.outcome() {
            Outcome::Hold { why, .. } | Outcome::Held { why, .. } | Outcome::Over { why } => why,
            Outcome::Shadow { would } => would,
            Outcome::Propose { .. } => panic!("a proposal: {:?}", self.pulls),
        }
    }

    /// What became of the pull request.
    fn action(&self) -> &Action {
        assert_eq!(self.pulls.len(), 1, "{:?}", self.pulls);
        &self.pulls[0].action
    }
}

/// `sluice.yaml` with one rollout; `more` are further lines of it.
fn sluice_yaml(phase: &str, change: &str, more: &str) -> String {
    let objectives = if more.contains("objectives") { "" } else { "    objectives: {errors: {ceiling: 1%}}\n" };
    format!(
        "mesh: default\nmetrics: {{kind: recording, path: mesh.sluice.gz}}\n\
         forge: {{kind: local, path: repository.git}}\nguards: guards/\nrollouts:\n  - name: summarize\n    \
         route: {{kind: MeshHTTPRoute, name: summarize}}\n    stable: summarize-v1\n    canary: summarize-v2\n    \
         change: {change}\n    phase: {phase}\n{objectives}{more}"
    )
}

/// The route with these weights.
fn route(stable: u32, canary: u32) -> String {
    format!(
        "type: MeshHTTPRoute\nname: summarize\nmesh: default\nspec:\n  targetRef: {{ kind: Mesh }}\n  to:\n    - targetRef: {{ kind: MeshService, name: summarize }}\n      \
         rules:\n        - matches: [{{ path: {{ type: PathPrefix, value: / }} }}]\n          default:\n            backendRefs:\n              \
         - {{ kind: MeshService, name: summarize-v1, weight: {stable} }}\n              \
         - {{ kind: MeshService, name: summarize-v2, weight: {canary} }}\n"
    )
}

impl World {
    /// A canary at `weights`, in a phase.
    fn new(phase: &str, weights: [u32; 2]) -> Self {
        Self::with(&sluice_yaml(phase, "minor", ""), weights)
    }

    fn with(config: &str, [stable, canary]: [u32; 2]) -> Self {
        let files = [(ROUTE, route(stable, canary)), (GUARDS, LOOSE.to_owned())];
        Self::of(config, &files, Mesh::of("summarize-v1", "summarize-v2"))
    }

    fn of(config: &str, files: &[(&str, String)], mesh: Mesh) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::parse("sluice.yaml", config).unwrap().in_folder(folder.path());
        let path = config.local_forge().unwrap();
        let repository = Repository::init_bare(&path).unwrap();
        let forge = Forge::Local(Local::open(&path, config.bot()).unwrap());
        let header = Header {
            tick: 60,
            mesh: "default".into(),
            source: "a test".into(),
            created: Timestamp::from_second(BEGIN).unwrap(),
            from: Vec::new(),
            edges_ms: Vec::new(),
        };
        let recording = Recording { header, ticks: Vec::new() };
        let mut world = Self { folder, config, repository, forge, recording, now: BEGIN, mesh };
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        world.commit(&files);
        world
    }

    /// A scenario of `testdata/reconcile/`.
    fn scenario(name: &str, mesh: Mesh) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/reconcile").join(name);
        let config = fs::read_to_string(folder.join("sluice.yaml")).unwrap();
        let mut files = Vec::new();
        for part in ["guards", "policies"] {
            for entry in fs::read_dir(folder.join("repo").join(part)).unwrap().map(Result::unwrap) {
                let path = format!("{part}/{}", entry.file_name().to_str().unwrap());
                files.push((path, fs::read_to_string(entry.path()).unwrap()));
            }
        }
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.clone())).collect();
        Self::of(&config, &files, mesh)
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_second(self.now).unwrap()
    }

    fn person(&self) -> Signature {
        Signature { name: "Ada".into(), email: "ada@example.org".into(), time: self.time() }
    }

    /// A person commits to the branch.
    fn commit(&mut self, files: &[(&str, &str)]) -> Oid {
        self.commit_to("main", files)
    }

    fn commit_to(&mut self, branch: &str, files: &[(&str, &str)]) -> Oid {
        let tip = self.repository.head(branch).unwrap();
        let parents: Vec<_> = tip.into_iter().collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect();
        let commit = self.repository.commit(&parents, tip, &files, "by hand\n", &self.person()).unwrap();
        self.repository.update_ref(&branch_ref(branch), commit, tip).unwrap();
        commit
    }

    /// A person sets weights.
    fn weigh(&mut self, stable: u32, canary: u32) {
        self.commit(&[(ROUTE, &route(stable, canary))]);
    }

    /// A person merges a pull request.
    fn merge(&self, pull: &Pull) {
        self.repository.merge(&pull.base, pull.content.head, "Merge\n", &self.person()).unwrap();
    }

    /// The canary's share on the branch, in percent.
    fn share(&self) -> f64 {
        canary_shares(&self.config, &self.repository).unwrap().values().sum()
    }

    fn text(&self, path: &str) -> String {
        let head = self.repository.head("main").unwrap().unwrap();
        String::from_utf8(self.repository.file(head, path).unwrap().unwrap()).unwrap()
    }

    /// The mesh runs for some minutes with the weights of the branch, which nobody changes meanwhile.
    fn watch(&mut self, minutes: i64) {
        let share = canary_shares(&self.config, &self.repository).map_or(0.0, |shares| shares.values().sum()) / 100.0;
        for _ in 0..minutes {
            self.now += 60;
            let minute = (self.now - BEGIN) / 60;
            let mut services = BTreeMap::new();
            for arm in 0..2 {
                if !self.mesh.seen[arm] {
                    continue;
                }
                let requests = (self.mesh.total * if arm == 1 { share } else { 1.0 - share }).round();
                // Whole events, whose running sum follows the rate.
                let upto = |minute: i64| (minute as f64 * requests * self.mesh.failing[arm]).floor();
                let errors = (upto(minute) - upto(minute - 1)).clamp(0.0, requests);
                let scored = (requests * 0.1).floor();
                let wobble = [-0.02, 0.0, 0.02][(minute % 3) as usize];
                let scores = self.mesh.quality.map(|mean| {
                    ("quality".to_owned(), Counts { n: scored, x: scored * (mean[arm] + wobble).clamp(0.0, 1.0) })
                });
                let counts =
                    ServiceCounts { requests, errors, scores: scores.into_iter().collect(), ..Default::default() };
                services.insert(self.mesh.clusters[arm].clone(), counts);
            }
            self.recording.ticks.push(Tick { t: self.now, services });
        }
    }

    /// One pass, now.
    fn pass(&self) -> Done {
        let metrics = Metrics::Recording(self.recording.clone());
        let pass = Pass { config: &self.config, repository: &self.repository, forge: &self.forge, metrics: &metrics };
        let mut decided = pass.decide(self.time()).unwrap();
        let pulls = pass.act(&decided, self.time()).unwrap();
        Done { decision: decided.rollouts.remove(0).1, pulls }
    }

    /// Minutes, each with a pass at its end, until one of them opens a pull request.
    fn until_opened(&mut self, most: i64) -> Pull {
        for _ in 0..most {
            self.watch(1);
            let done = self.pass();
            if done.pulls.iter().any(|pull| matches!(pull.action, Action::Opened | Action::Merged)) {
                return self.pulls().pop().unwrap();
            }
        }
        panic!("nothing was opened: {}", self.pass().why());
    }

    fn pulls(&self) -> Vec<Pull> {
        self.forge.list(&Filter::default()).unwrap()
    }

    fn pull(&self) -> Pull {
        let mut pulls = self.pulls();
        assert_eq!(pulls.len(), 1, "{:?}", pulls.iter().map(|pull| &pull.content.title).collect::<Vec<_>>());
        pulls.remove(0)
    }

    /// The shares of every version of the route, oldest first.
    fn shares(&self) -> Vec<f64> {
        let head = self.repository.head("main").unwrap().unwrap();
        let versions = self.repository.history(head, ROUTE).unwrap().into_iter().rev();
        versions
            .map(|(_, _, bytes)| {
                let text = String::from_utf8(bytes).unwrap();
                let weights: Vec<f64> = text
                    .split("weight: ")
                    .skip(1)
                    .map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
                    .collect();
                100.0 * weights[1] / (weights[0] + weights[1])
            })
            .collect()
    }

    /// Every file of the repository, byte for byte.
    fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
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
}

/// The pull request as a person reads it. Digests are left out: the last bits of a logarithm differ between platforms.
fn snapshot(pull: &Pull) -> String {
    let text = format!("# {}\n\n{}", pull.content.title, pull.content.body);
    let mut told = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let digits = part.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        told.push_str(&if digits.len() == 64 { part.replace(digits, "<digest>") } else { part.to_owned() });
    }
    told
}

fn labelled(pull: &Pull, label: &str) -> bool {
    pull.content.labels.iter().any(|own| own == label)
}

// Routes in every form.

#[test]
fn proposes_the_next_rung_in_every_form_of_route() {
    // Scenario, Envoy's names for both arms, the file, and the weights that 25 % are in its own scale.
    let table = [
        ("traffic-route", ["translate-v1_ai_svc_8080", "translate-v2_ai_svc_8080"], "translate", [75, 25], 1),
        (
            "mesh-http-route",
            ["default_summarize-v1_ai_zone-1_msvc_8080", "default_summarize-v2_ai_zone-1_msvc_8080"],
            "summarize",
            [750, 250],
            2,
        ),
        (
            "mesh-http-route-3.0",
            ["kri_msvc_default_zone-1_ai_chat-v1_8080", "kri_msvc_default_zone-1_ai_chat-v2_8080"],
            "chat",
            [75, 25],
            1,
        ),
        ("mesh-tcp-route", ["vectors-a", "vectors-b"], "vectors", [75, 25], 1),
    ];
    for (scenario, [stable, canary], file, weights, rules) in table {
        let mut world = World::scenario(scenario, Mesh::of(stable, canary));
        let path = format!("policies/{file}.yaml");
        let before = world.text(&path);
        let pull = world.until_opened(20);
        assert_eq!(pull.content.title.split(": ").nth(1).map(|title| title.starts_with("10 % → 25 %")), Some(true));
        world.merge(&pull);
        assert_eq!(world.share(), 25.0, "{scenario}");
        let after = world.text(&path);
        let changed: Vec<_> = before.lines().zip(after.lines()).filter(|(old, new)| old != new).collect();
        assert_eq!(before.lines().count(), after.lines().count(), "{scenario}");
        assert_eq!(changed.len(), 2 * rules, "{scenario}: {changed:?}");
        for (pair, weight) in changed.chunks(2).flat_map(|pair| pair.iter().zip(weights)) {
            let found = pair.1.split("weight: ").nth(1).unwrap();
            let number = found.split(|c: char| !c.is_ascii_digit()).next().unwrap();
            assert_eq!(number, weight.to_string(), "{scenario}");
            let bare = |line: &str| line.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
            assert_eq!(bare(pair.0), bare(pair.1), "{scenario}: comments and layout stay");
        }
        if ["mesh-http-route", "mesh-tcp-route"].contains(&scenario) {
            insta::with_settings!({
                snapshot_path => format!("../../testdata/reconcile/{scenario}"),
                prepend_module_to_snapshot => false, omit_expression => true,
            }, { insta::assert_snapshot!("pull-request", snapshot(&pull)) });
        }
    }
}

#[test]
fn another_backend_keeps_its_weight() {
    let mut world = World::scenario("mesh-tcp-route", Mesh::of("vectors-a", "vectors-b"));
    let pull = world.until_opened(20);
    world.merge(&pull);
    assert!(world.text("policies/vectors.yaml").contains("vectors-archive, weight: 50"));
}

#[test]
fn weights_keep_the_scale_of_the_file_and_grow_it_only_where_it_is_too_coarse() {
    // Weights before, and after the next rung.
    let table = [
        ([90, 10], [75, 25]),
        ([900, 100], [750, 250]),
        ([9, 1], [75, 25]),
        ([3, 1], [2, 2]),
        ([30, 10], [20, 20]),
        ([750, 250], [500, 500]),
        ([57, 3], [54, 6]),
    ];
    for (before, after) in table {
        let mut world = World::new("automatic", before);
        world.until_opened(25);
        assert_eq!(world.text(ROUTE), route(after[0], after[1]), "from {before:?}");
    }
}

#[test]
fn rules_that_disagree_are_an_error_that_names_both_places() {
    let text = route(90, 10);
    let rule = text.split_once("        - matches").unwrap().1;
    let second = format!("        - matches{}", rule.replace("value: /", "value: /batch"))
        .replace("weight: 90", "weight: 80")
        .replace("weight: 10", "weight: 20");
    let files = [(ROUTE, format!("{text}{second}")), (GUARDS, LOOSE.to_owned())];
    let mut world = World::of(&sluice_yaml("automatic", "minor", ""), &files, Mesh::of("summarize-v1", "summarize-v2"));
    world.watch(30);
    let error = world.pass().decision.unwrap_err();
    assert!(error.starts_with("policies/summarize.yaml: "), "{error}");
    assert!(error.contains("`spec.to[0].rules[0].default.backendRefs` gives the canary 10 %"), "{error}");
    assert!(error.contains("`spec.to[0].rules[1].default.backendRefs` 20 %"), "{error}");
    assert!(world.pulls().is_empty());
}

// Phases.

#[test]
fn shadow_writes_nothing_and_tells_what_it_would_do() {
    let mut world = World::new("shadow", [90, 10]);
    let before = world.everything();
    let mut told = String::new();
    for _ in 0..20 {
        world.watch(1);
        let done = world.pass();
        assert!(done.pulls.is_empty(), "{:?}", done.pulls);
        if let Outcome::Shadow { would } = done.outcome() {
            told.clone_from(would);
        }
    }
    assert_eq!(told, "would propose 10 % → 25 % for `summarize-v2`: every signal is safe at this rung");
    world.mesh.failing[1] = 0.2;
    world.watch(10);
    let done = world.pass();
    assert!(done.why().starts_with("would propose 10 % → 0 % for `summarize-v2`: harm in errors"));
    // Nobody moved anything, and that is what it is compared with.
    let [compared] = &done.decision.as_ref().unwrap().compared[..] else { panic!("{:?}", done.decision) };
    assert!(compared.contains("would have rolled back from 10 %; it still has 10 %"), "{compared}");
    assert_eq!(world.everything(), before);
}

#[test]
fn assisted_opens_a_pull_request_and_leaves_merging_to_a_person() {
    let mut world = World::new("assisted", [90, 10]);
    let pull = world.until_opened(20);
    assert!(labelled(&pull, "sluice/promote") && pull.is_open());
    assert!(pull.content.body.contains("a person merges"), "{}", pull.content.body);
    for _ in 0..5 {
        world.watch(1);
        assert!(matches!(world.pass().action(), Action::Unchanged));
    }
    assert_eq!((world.share(), world.pulls().len()), (10.0, 1));
    world.merge(&world.pull());
    world.watch(1);
    let done = world.pass();
    assert!(matches!(done.action(), Action::Merged), "{:?}", done.pulls);
    assert_eq!(world.pull().state, State::Merged);
    assert_eq!(world.share(), 25.0);
}

#[test]
fn automatic_climbs_the_ladder_through_99_by_itself() {
    let mut world = World::new("automatic", [95, 5]);
    for _ in 0..90 {
        world.watch(1);
        world.pass();
    }
    assert_eq!(world.shares(), [5.0, 10.0, 25.0, 50.0, 99.0, 100.0]);
    assert!(world.pulls().iter().all(|pull| pull.state == State::Merged));
    assert_eq!(world.pass().why(), "at 100 %: finished");
}

#[test]
fn beyond_a_guard_automatic_asks_and_says_why() {
    let guards = LOOSE.replace("maxStep: 50", "maxShare: 20");
    let files = [(ROUTE, route(90, 10)), (GUARDS, guards)];
    let config = sluice_yaml("automatic", "minor", "");
    let mut world = World::of(&config, &files, Mesh::of("summarize-v1", "summarize-v2"));
    let pull = world.until_opened(20);
    assert!(pull.is_open() && world.share() == 10.0);
    assert!(pull.content.body.contains("goes beyond what a guard lets automation do"), "{}", pull.content.body);
    assert!(pull.content.body.contains("the limit without approval is 20 %"), "{}", pull.content.body);
    world.watch(5);
    assert!(matches!(world.pass().action(), Action::Unchanged));
    // A person may merge it.
    world.merge(&pull);
    world.watch(1);
    world.pass();
    assert_eq!((world.share(), world.pull().state), (25.0, State::Merged));
}

#[test]
fn a_step_larger_than_the_guard_allows_is_climbed_in_several_writes() {
    let files = [(ROUTE, route(75, 25)), (GUARDS, LOOSE.replace("maxStep: 50", "maxStep: 10"))];
    let config = sluice_yaml("automatic", "minor", "");
    let mut world = World::of(&config, &files, Mesh::of("summarize-v1", "summarize-v2"));
    for _ in 0..25 {
        world.watch(1);
        world.pass();
    }
    assert_eq!(world.shares(), [25.0, 35.0, 45.0, 50.0]);
}

#[test]
fn a_share_that_is_no_whole_number_climbs_too() {
    let files = [(ROUTE, route(2, 1)), (GUARDS, LOOSE.replace("maxStep: 50", "maxStep: 10"))];
    let config = sluice_yaml("automatic", "minor", "");
    let mut world = World::of(&config, &files, Mesh::of("summarize-v1", "summarize-v2"));
    for _ in 0..25 {
        world.watch(1);
        world.pass().outcome();
    }
    assert_eq!(world.share(), 50.0, "{:?}", world.shares());
}

#[test]
fn a_major_change_asks_for_each_promotion_and_rolls_back_by_itself() {
    let mut world = World::with(&sluice_yaml("automatic", "major", ""), [90, 10]);
    let pull = world.until_opened(20);
    assert!(pull.is_open());
    assert!(pull.content.body.contains("a major change always asks a person"), "{}", pull.content.body);
    world.mesh.failing[1] = 0.2;
    for _ in 0..10 {
        world.watch(1);
        world.pass();
    }
    assert_eq!(world.share(), 0.0);
}

// Rollbacks.

#[test]
fn a_rollback_is_merged_even_during_a_freeze() {
    let guards = LOOSE.replace(
        "  caps: { maxStep: 50 }",
        "  caps: { maxStep: 1, minInterval: 12h }\n  freeze: [{ cron: '0 8 * * *', duration: 12h, timeZone: UTC, reason: exams }]",
    );
    let files = [(ROUTE, route(50, 50)), (GUARDS, guards)];
    let config = sluice_yaml("automatic", "minor", "");
    let mut world = World::of(&config, &files, Mesh::of("summarize-v1", "summarize-v2"));
    world.watch(25);
    let done = world.pass();
    assert!(matches!(done.outcome(), Outcome::Held { until: Some(_), .. }), "{:?}", done.decision);
    assert!(done.why().contains("exams"), "{}", done.why());
    assert!(world.pulls().is_empty());
    world.mesh.failing[1] = 0.1;
    let pull = world.until_opened(10);
    assert!(labelled(&pull, "sluice/rollback"));
    assert_eq!((pull.state, world.share()), (State::Merged, 0.0));
}

#[test]
fn assisted_leaves_a_rollback_to_a_person_too() {
    let mut world = World::new("assisted", [50, 50]);
    world.mesh.failing[1] = 0.1;
    let pull = world.until_opened(10);
    assert!(labelled(&pull, "sluice/rollback") && pull.is_open());
    assert_eq!(world.share(), 50.0);
}

#[test]
fn a_rollback_replaces_an_open_promotion_in_place() {
    let mut world = World::new("assisted", [90, 10]);
    let promotion = world.until_opened(20);
    world.mesh.failing[1] = 0.2;
    let mut titles = Vec::new();
    for _ in 0..15 {
        world.watch(1);
        world.pass();
        titles.push(world.pulls().pop().unwrap().content.title);
    }
    let rollback = world.pulls().pop().unwrap();
    assert_eq!(rollback.key, promotion.key);
    assert!(rollback.is_open() && rollback.content.title.contains("roll back 10 % → 0 %"), "{titles:?}");
    assert_eq!(world.pulls().iter().filter(|pull| pull.is_open()).count(), 1);
    assert!(rollback.content.body.to_lowercase().contains("harm in errors"), "{}", rollback.content.body);
    world.merge(&rollback);
    assert_eq!(world.share(), 0.0);
}

#[test]
fn sudden_harm_turns_the_very_pull_request_around() {
    let mut world = World::new("assisted", [50, 50]);
    let promotion = world.until_opened(30);
    world.mesh.failing[1] = 0.5;
    // No pass saw the unease in between.
    world.watch(3);
    let done = world.pass();
    assert!(matches!(done.action(), Action::Updated), "{:?}", done.pulls);
    let pull = world.pull();
    assert_eq!(pull.number, promotion.number);
    assert!(pull.content.title.contains("roll back"), "{}", pull.content.title);
}

// People.

#[test]
fn a_human_commit_on_the_branch_is_not_overwritten() {
    let mut world = World::new("assisted", [90, 10]);
    let pull = world.until_opened(20);
    let theirs = world.commit_to(&pull.branch, &[(ROUTE, &route(85, 15))]);
    world.watch(1);
    assert!(matches!(world.pass().action(), Action::LeftToPeople));
    world.watch(5);
    assert!(matches!(world.pass().action(), Action::LeftToPeople));
    assert_eq!(world.repository.head(&pull.branch).unwrap(), Some(theirs));
    assert_eq!(world.pull().content, pull.content);
}

#[test]
fn a_rollback_passes_by_a_branch_with_human_commits() {
    for (phase, state, share) in [("automatic", State::Merged, 0.0), ("assisted", State::Open, 10.0)] {
        let mut world = World::with(&sluice_yaml(phase, "major", ""), [90, 10]);
        let promotion = world.until_opened(20);
        let theirs = world.commit_to(&promotion.branch, &[(ROUTE, &route(85, 15))]);
        world.mesh.failing[1] = 0.2;
        world.watch(10);
        let done = world.pass();
        assert!(matches!(done.pulls[0].action, Action::LeftToPeople), "{:?}", done.pulls);
        let [first, rollback] = world.pulls().try_into().unwrap();
        assert!(labelled(&rollback, "sluice/rollback") && rollback.content.title.contains("10 % → 0 %"));
        assert_eq!((rollback.state, world.share()), (state.clone(), share), "{phase}");
        // Their work stays as it is, with a word about what should have been there.
        assert_eq!(world.repository.head(&promotion.branch).unwrap(), Some(theirs));
        assert!(first.is_open() && first.comments.iter().any(|comment| comment.text.contains("weight: 0")));
        // Nothing new while nothing changes.
        let before = world.everything();
        let again = world.pass();
        assert!(again.pulls.iter().all(|pull| !matches!(pull.action, Action::Opened | Action::Updated)));
        if state == State::Open {
            assert_eq!(world.everything(), before);
            world.now += 3600; // the data ended, and the harm it showed did not
            let actions = world.pass().pulls.into_iter().map(|pull| pull.action);
            let idle = |action| matches!(action, Action::Kept | Action::Unchanged | Action::LeftToPeople);
            assert!(actions.into_iter().all(idle));
        }
    }
}

#[test]
fn a_pull_request_that_a_person_closed_is_remembered() {
    let mut world = World::new("assisted", [90, 10]);
    let pull = world.until_opened(20);
    world.forge.close(pull.number, "not now", By::Person("Ada".into()), world.time()).unwrap();
    let before = world.everything();
    for _ in 0..5 {
        world.watch(1);
        assert!(matches!(world.pass().action(), Action::Declined(_)));
    }
    assert_eq!(world.everything(), before);
    // Harm is another matter.
    world.mesh.failing[1] = 0.2;
    let rollback = world.until_opened(10);
    assert!(labelled(&rollback, "sluice/rollback") && rollback.is_open());
}

#[test]
fn weights_a_person_took_back_are_not_merged_again_without_one() {
    let mut world = World::new("automatic", [90, 10]);
    world.until_opened(20);
    assert_eq!(world.share(), 25.0);
    world.watch(1);
    world.weigh(90, 10);
    for _ in 0..30 {
        world.watch(1);
        world.pass();
    }
    assert_eq!(world.share(), 10.0, "{:?}", world.shares());
    assert!(world.pulls().last().unwrap().is_open());
}

#[test]
fn does_not_start_again_after_a_withdrawal_until_a_person_gives_weight() {
    let mut world = World::new("automatic", [90, 10]);
    world.mesh.failing[1] = 0.2;
    world.until_opened(15);
    assert_eq!(world.share(), 0.0);
    world.mesh.failing[1] = 0.005;
    world.watch(60);
    let done = world.pass();
    assert!(matches!(done.outcome(), Outcome::Over { .. }), "{:?}", done.decision);
    assert!(done.why().contains("was withdrawn"), "{}", done.why());
    assert_eq!(world.share(), 0.0);
    // A new run: the old harm is forgotten, the dwell is served again.
    world.weigh(90, 10);
    world.watch(5);
    assert!(world.pass().why().contains("dwell: 11m"), "{}", world.pass().why());
    let again = world.until_opened(20);
    assert!(labelled(&again, "sluice/promote"));
    assert_eq!(world.share(), 25.0);
}

#[test]
fn the_second_rollback_of_the_same_weights_is_merged_like_the_first() {
    let mut world = World::new("automatic", [90, 10]);
    world.mesh.failing[1] = 0.2;
    world.until_opened(15);
    assert_eq!(world.share(), 0.0);
    world.watch(5);
    world.weigh(90, 10);
    let second = world.until_opened(15);
    assert!(labelled(&second, "sluice/rollback"));
    assert_eq!((second.state, world.share()), (State::Merged, 0.0));
}

#[test]
fn a_rollback_declined_in_one_run_is_offered_in_the_next() {
    let mut world = World::new("assisted", [90, 10]);
    world.mesh.failing[1] = 0.2;
    let first = world.until_opened(15);
    world.forge.close(first.number, "known", By::Person("Ada".into()), world.time()).unwrap();
    world.watch(1);
    assert!(matches!(world.pass().action(), Action::Declined(_)));
    world.weigh(100, 0);
    world.watch(60);
    world.weigh(90, 10);
    let second = world.until_opened(15);
    assert!(labelled(&second, "sluice/rollback") && second.is_open());
}

#[test]
fn a_canary_taken_back_from_100_percent_is_on_trial_again() {
    let mut world = World::new("automatic", [95, 5]);
    for _ in 0..90 {
        world.watch(1);
        world.pass();
    }
    assert_eq!(world.share(), 100.0);
    world.weigh(50, 50);
    world.watch(2);
    let done = world.pass();
    assert!(done.why().contains("dwell"), "{}", done.why());
    assert_eq!(world.share(), 50.0);
    world.mesh.failing[1] = 0.2;
    world.until_opened(10);
    assert_eq!(world.share(), 0.0);
}

// Evidence.

#[test]
fn unease_closes_the_promotion_with_a_reason() {
    let mut world = World::new("assisted", [50, 50]);
    let pull = world.until_opened(30);
    world.mesh.failing[1] = 0.013;
    let mut closed = None;
    for _ in 0..10 {
        world.watch(1);
        if let Action::Closed(reason) = world.pass().pulls.remove(0).action {
            closed = Some(reason);
            break;
        }
    }
    let reason = closed.expect("closed");
    assert!(reason.starts_with("errors is safe so far, but the odds of harm stand at"), "{reason}");
    let pull = world.forge.pull(pull.number).unwrap().unwrap();
    assert_eq!(pull.state, State::Closed { reason, by: By::Bot });
}

#[test]
fn blind_data_keeps_an_open_pull_request() {
    let mut world = World::new("assisted", [90, 10]);
    let pull = world.until_opened(20);
    // One arm is missing, then both, then the source goes silent.
    world.mesh.seen = [true, false];
    world.watch(2);
    assert!(matches!(world.pass().action(), Action::Kept), "{:?}", world.pass().decision);
    world.mesh.seen = [false, false];
    world.watch(8);
    assert!(matches!(world.pass().action(), Action::Kept));
    assert!(world.pass().why().starts_with("blind"), "{}", world.pass().why());
    world.now += 3600;
    assert!(matches!(world.pass().action(), Action::Kept));
    assert_eq!(world.pass().why(), "blind: the newest data is 1h old");
    assert_eq!(world.pull().content, pull.content);
}

#[test]
fn a_gap_on_the_way_to_a_rung_keeps_the_pull_request() {
    let files = [(ROUTE, route(75, 25)), (GUARDS, LOOSE.replace("maxStep: 50", "maxStep: 10"))];
    let config = sluice_yaml("assisted", "minor", "");
    let mut world = World::of(&config, &files, Mesh::of("summarize-v1", "summarize-v2"));
    let first = world.until_opened(30);
    world.merge(&first);
    let second = world.until_opened(5);
    assert!(second.content.title.contains("35 % → 45 %"), "{}", second.content.title);
    world.mesh.seen = [true, false];
    world.watch(1);
    assert!(matches!(world.pass().action(), Action::Kept), "{:?}", world.pass().decision);
    world.mesh.seen = [true, true];
    world.watch(1);
    assert!(matches!(world.pass().action(), Action::Unchanged), "{:?}", world.pass().decision);
}

#[test]
fn missing_data_neither_opens_nor_merges_anything() {
    for seen in [[true, false], [false, true], [false, false]] {
        let mut world = World::new("automatic", [50, 50]);
        world.mesh.failing = [0.0, 0.5];
        world.mesh.seen = seen;
        for _ in 0..8 {
            world.watch(5);
            assert!(world.pass().pulls.is_empty(), "{seen:?}");
        }
    }
}

#[test]
fn a_new_canary_gets_its_first_rung_once_the_stable_arm_is_seen() {
    let mut world = World::new("automatic", [100, 0]);
    assert_eq!(world.pass().why(), "nothing was seen yet in either arm");
    world.mesh.seen = [false, false];
    world.watch(3);
    assert!(world.pass().why().starts_with("blind"), "{}", world.pass().why());
    assert!(world.pulls().is_empty());
    world.mesh.seen = [true, false];
    world.watch(1);
    let done = world.pass();
    assert!(matches!(done.action(), Action::Merged), "{:?}", done.pulls);
    assert_eq!(world.share(), 5.0);
    assert_eq!(world.text(ROUTE), route(95, 5));
}

#[test]
fn a_commit_that_keeps_the_weights_does_not_restart_the_dwell() {
    let minutes = |touched: bool| {
        let mut world = World::new("automatic", [90, 10]);
        world.watch(10);
        world.pass();
        if touched {
            world.commit(&[(ROUTE, &format!("# reviewed\n{}", route(90, 10)))]);
            world.commit(&[("README.md", "hello\n")]);
        }
        world.until_opened(20);
        world.now
    };
    assert_eq!(minutes(true), minutes(false));
}

#[test]
fn a_version_that_does_not_read_leaves_the_weights_in_force() {
    // GitOps cannot apply it either: the mesh keeps what it has, and so does the trial.
    let mut world = World::new("automatic", [90, 10]);
    world.watch(10);
    world.commit(&[(ROUTE, "spec: [\n")]);
    world.watch(1);
    assert!(world.pass().decision.is_err());
    world.commit(&[(ROUTE, &route(90, 10))]);
    world.watch(1);
    let done = world.pass();
    assert!(done.why().contains("dwell: 3m left") || done.why().contains("dwell: 4m left"), "{}", done.why());
}

#[test]
fn removing_the_canary_from_the_route_ends_its_run() {
    let mut world = World::new("automatic", [90, 10]);
    world.watch(10);
    let without: String =
        route(90, 10).lines().filter(|line| !line.contains("summarize-v2")).map(|line| format!("{line}\n")).collect();
    world.commit(&[(ROUTE, &without)]);
    world.now += 600;
    world.weigh(90, 10);
    world.watch(1);
    assert!(world.pass().why().contains("dwell: 15m left"), "{}", world.pass().why());
}

// What `sluice.yaml` may override.

#[test]
fn ladder_and_dwell_of_the_configuration_reach_the_judge() {
    let config = sluice_yaml("automatic", "minor", "    judge: {ladder: [7%, 40%, 100%], dwell: 5m}\n");
    let mut world = World::with(&config, [93, 7]);
    world.watch(1);
    assert_eq!(world.pass().why(), "dwell: 5m left on this rung");
    for _ in 0..60 {
        world.watch(1);
        world.pass();
    }
    assert_eq!(world.shares(), [7.0, 40.0, 90.0, 99.0, 100.0]);
    let first = &world.pulls()[0];
    assert!(first.content.title.contains("7 % → 40 %"), "{}", first.content.title);
}

#[test]
fn percentages_of_a_ladder_stay_readable() {
    // 0.07 times 100 is not 7 in binary fractions.
    let config = sluice_yaml("assisted", "minor", "    judge: {ladder: [7%, 14%, 29%, 57%, 100%], dwell: 5m}\n");
    for (before, title) in [([100, 0], "0 % → 7 %"), ([93, 7], "7 % → 14 %"), ([71, 29], "29 % → 57 %")] {
        let mut world = World::with(&config, before);
        let pull = world.until_opened(20);
        assert!(pull.content.title.contains(title), "{}", pull.content.title);
        assert!(!pull.content.body.contains("0000000"), "{}", pull.content.body);
    }
}

#[test]
fn hold_back_watches_98_percent_for_a_day() {
    let config = sluice_yaml("automatic", "minor", "    judge: {holdBack: true}\n");
    let mut world = World::with(&config, [50, 50]);
    for _ in 0..40 {
        world.watch(1);
        world.pass();
    }
    assert_eq!(world.shares(), [50.0, 98.0]);
    assert!(world.pass().why().starts_with("dwell: 23h"), "{}", world.pass().why());
    world.watch(24 * 60 - 60);
    assert!(world.pass().why().starts_with("dwell"), "{}", world.pass().why());
    world.watch(60);
    world.pass();
    world.watch(1);
    world.pass();
    assert_eq!(world.shares(), [50.0, 98.0, 99.0, 100.0]);
}

#[test]
fn ceilings_of_the_configuration_reach_the_judge() {
    // Half of the canary's few requests more fail than in the stable arm: only a generous ceiling lets it through.
    let judge = |more: &str| {
        let config = sluice_yaml("automatic", "minor", &format!("    judge: {{dwell: 5m{more}}}\n"));
        let mut world = World::with(&config, [90, 10]);
        world.mesh.total = 600.0;
        world.watch(30);
        match world.pass().outcome() {
            Outcome::Propose { .. } => "proposes".to_owned(),
            other => format!("{other:?}"),
        }
    };
    assert!(judge(", ceilings: [0.02%, 0.02%, 0.02%, 0.01%]").contains("undecided"));
    assert_eq!(judge(", ceilings: [20%, 20%, 10%, 10%]"), "proposes");
}

#[test]
fn a_score_is_judged_in_the_units_of_its_scale() {
    // One point of a hundred is allowed: half a point less passes, three points less ask a person.
    let objectives = "    objectives: {quality: {scale: [0, 100], nonInferiority: 1}}\n    judge: {dwell: 5m}\n";
    let after = |canary: f64, minutes: i64| {
        let mut world = World::with(&sluice_yaml("automatic", "minor", objectives), [50, 50]);
        world.mesh.quality = Some([0.8, canary]);
        world.watch(minutes);
        let done = world.pass();
        (world.pulls().pop(), done)
    };
    let (pull, _) = after(0.70, 240);
    let pull = pull.expect("a question");
    assert!(labelled(&pull, "sluice/ask") && pull.is_open(), "{:?}", pull.content.title);
    assert!(pull.content.body.contains("below its margin"), "{}", pull.content.body);
    let (pull, done) = after(0.9, 240);
    assert!(pull.is_some_and(|pull| labelled(&pull, "sluice/promote")), "{:?}", done.decision);
    // As a fraction of the scale: one whole unit of [0, 1] would let anything pass.
    let (pull, done) = after(0.79, 60);
    assert!(pull.is_none() && done.why().contains("undecided"), "{:?}", done.decision);
}
