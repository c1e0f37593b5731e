//! `sluice.yaml`: what is accepted, and what a person is told about what is not.

#![allow(clippy::unwrap_used, reason = "a panic in a test's helper is the failure itself")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_bot::config::{Aim, Config, Kuma, Percent, SIZE_LIMIT};

fn fixtures(prefix: &str) -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/config");
    let mut found = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .filter(|(name, _)| name.starts_with(prefix))
        .collect::<Vec<_>>();
    found.sort();
    assert!(!found.is_empty());
    found
}

fn fixture(name: &str) -> String {
    fs::read_to_string(&fixtures(name)[0].1).unwrap()
}

fn mistakes(text: &str) -> Vec<String> {
    let errors = Config::parse("sluice.yaml", text).unwrap_err();
    errors.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn valid_files_are_read() {
    for (name, path) in fixtures("valid") {
        if let Err(errors) = Config::load(&path) {
            panic!("{name}:\n{errors}");
        }
    }
}

#[test]
fn invalid_files_report_every_mistake_with_its_place() {
    for (name, path) in fixtures("invalid") {
        let text = fs::read_to_string(path).unwrap();
        let errors = Config::parse("sluice.yaml", &text).expect_err(&name);
        insta::with_settings!({
            snapshot_path => "../../testdata/config", prepend_module_to_snapshot => false, omit_expression => true,
        }, { insta::assert_snapshot!(name, errors.to_string()) });
    }
}

#[test]
fn everything_arrives_typed() {
    let config = Config::parse("sluice.yaml", &fixture("valid.everything")).unwrap();
    assert_eq!(config.kuma, Some(Kuma::V3_0));
    assert_eq!((config.branch.as_str(), config.bot.id.as_str()), ("production", "sluice-eu"));
    let rollout = &config.rollouts[0];
    let slow = rollout.objectives.slow.unwrap();
    assert_eq!((slow.over, slow.ceiling), (Duration::from_secs(90), Percent::new(0.005).unwrap()));
    assert_eq!(rollout.objectives.business["quality"].aim, Aim::NonInferiority(0.01));
    let judge = rollout.judge.as_ref().unwrap();
    assert_eq!(judge.deadline, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(judge.hold_back, Some(true));
    assert_eq!(judge.ladder.as_ref().unwrap().len(), 4);
}

#[test]
fn what_is_left_out_has_defaults() {
    let config = Config::parse("sluice.yaml", &fixture("valid.smallest")).unwrap();
    assert_eq!((config.branch.as_str(), config.guards.as_str(), config.kuma), ("main", "guards/", None));
    assert_eq!(config.bot().name, "sluice");
}

#[test]
fn what_is_not_in_this_version_says_so() {
    let config = Config::parse("sluice.yaml", &fixture("valid.sketch")).unwrap();
    let metrics = config.recording().unwrap_err().to_string();
    assert_eq!(
        metrics,
        "`metrics: {kind: prometheus}` is not in this version yet: use `metrics: {kind: recording, path: …}`"
    );
    let forge = config.local_forge().unwrap_err().to_string();
    assert_eq!(forge, "`forge: {kind: github}` is not in this version yet: use `forge: {kind: local, path: …}`");
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sluice.yaml");
    fs::write(&file, fixture("valid.smallest")).unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.recording().unwrap(), dir.path().join("recording/"));
    assert_eq!(config.local_forge().unwrap(), dir.path().join("policies.git"));
}

#[test]
fn a_file_that_is_missing_or_no_text_is_one_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sluice.yaml");
    let errors = Config::load(&file).unwrap_err();
    assert!(errors.to_string().contains("sluice.yaml: cannot read it"), "{errors}");
    fs::write(&file, b"mesh: \xff\n").unwrap();
    let errors = Config::load(&file).unwrap_err();
    assert!(errors.to_string().contains("it is not UTF-8"), "{errors}");
    fs::write(&file, vec![b'#'; SIZE_LIMIT + 1]).unwrap();
    let errors = Config::load(&file).unwrap_err();
    assert!(errors.to_string().contains("it has more than 1048576 bytes"), "{errors}");
}

#[test]
fn a_secret_never_appears_in_a_message() {
    let told = mistakes(&fixture("invalid.secrets")).join("\n");
    assert!(told.contains("holds credentials") && !told.contains("hunter2"), "{told}");
}

#[test]
fn hostile_text_is_refused_quickly() {
    let hostile = [
        "[".repeat(100_000),
        "a:\n ".repeat(1_000),
        format!("mesh: {}", "é".repeat(500_000)),
        format!("{}: x", "k".repeat(900_000)),
        "x: 1\n".repeat(150_000),
        format!("rollouts: [{}]", "{},".repeat(200_000)),
        (0..60_000).map(|n| format!("key{n}: 1\n")).collect(),
        "\u{feff}mesh: default".to_owned(),
        "a: \"\\u001b[31m\u{202e}\"".to_owned(),
    ];
    for text in hostile {
        let started = Instant::now();
        let errors = Config::parse("sluice.yaml", &text).unwrap_err().to_string();
        assert!(started.elapsed() < Duration::from_secs(20), "{:.40} took {:?}", text, started.elapsed());
        assert!(errors.lines().count() <= 101 && errors.len() < 40_000, "{:.40} told {} bytes", text, errors.len());
        assert!(!errors.contains(['\u{1b}', '\u{202e}']), "{errors}");
    }
}

#[test]
fn the_schema_knows_the_keys_the_reader_knows() {
    let schema = serde_json::to_value(Config::schema()).unwrap();
    // The reader lists the keys of a table when a key is not even close to one of them.
    let places = [
        ("", "/properties"),
        ("bot", "/$defs/BotIdentity/properties"),
        ("rollouts[0]", "/$defs/Rollout/properties"),
        ("rollouts[0].route", "/$defs/Route/properties"),
        ("rollouts[0].judge", "/$defs/Judge/properties"),
        ("rollouts[0].objectives.slow", "/$defs/Slow/properties"),
    ];
    let text = "qqqqqqqqqqqqqqqq: 1\nbot: {qqqqqqqqqqqqqqqq: 1}\nrollouts: [{qqqqqqqqqqqqqqqq: 1, \
                route: {qqqqqqqqqqqqqqqq: 1}, judge: {qqqqqqqqqqqqqqqq: 1}, objectives: {slow: {qqqqqqqqqqqqqqqq: 1}}}]\n";
    let told = mistakes(text);
    for (path, properties) in places {
        let place = if path.is_empty() { "the file has".to_owned() } else { format!("`{path}` has") };
        let line = told.iter().find(|line| line.contains(&place)).unwrap_or_else(|| panic!("{place}: {told:#?}"));
        let (_, listed) = line.split_once(" has ").unwrap();
        let mut known = listed.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let properties = schema.pointer(properties).unwrap().as_object().unwrap();
        let mut schema = properties.keys().cloned().collect::<Vec<_>>();
        known.sort();
        schema.sort();
        assert_eq!(known, schema, "{path}");
    }
}

#[test]
fn the_schema_stays_as_reviewed() {
    let schema = serde_json::to_string_pretty(&Config::schema()).unwrap();
    insta::with_settings!({
        snapshot_path => "../../testdata/config", prepend_module_to_snapshot => false, omit_expression => true,
    }, { insta::assert_snapshot!("schema", schema) });
}

#[test]
fn removing_any_line_never_panics_and_places_stay_inside_the_file() {
    let text = fixture("valid.everything");
    let lines = text.lines().collect::<Vec<_>>();
    for skipped in 0..lines.len() {
        let kept = lines.iter().enumerate().filter(|(index, _)| *index != skipped).map(|(_, line)| *line);
        let text = kept.collect::<Vec<_>>().join("\n");
        if let Err(errors) = Config::parse("sluice.yaml", &text) {
            for (line, column) in errors.mistakes.iter().filter_map(|mistake| mistake.place) {
                assert!((1..=lines.len()).contains(&line) && column >= 1, "{errors}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_answered_without_a_panic(text in "(mesh|rollouts|judge|[-:{}\\[\\]%&*!|> \n\t'\"a-c0-9.])*") {
        let _ = Config::parse("sluice.yaml", &text);
    }

    #[test]
    fn a_percentage_reads_back_as_written(hundredths in 1u32..=9_999) {
        let written = f64::from(hundredths) / 100.0;
        let text = fixture("valid.sketch").replace("ceiling: 1%", &format!("ceiling: {written}%"));
        let config = Config::parse("sluice.yaml", &text).unwrap();
        prop_assert_eq!(config.rollouts[0].objectives.errors.unwrap().ceiling.to_string(), format!("{written}%"));
    }
}
