//! The validator beside Kuma's own control planes, over the verdicts recorded in `testdata/validation/`.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods)]

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;
use sluice_rules::field::{FieldPath, Segment};
use sluice_rules::schema;
use sluice_rules::validate::{Kuma, Verdict, Version, Violation, verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

#[derive(Deserialize)]
struct Recorded {
    id: String,
    kind: String,
    form: String,
    yaml: String,
    valid: bool,
    stage: String,
    violations: Vec<Violation>,
    #[serde(default)]
    unknown: Vec<String>,
}

impl Recorded {
    fn document(&self) -> Value {
        serde_yaml::from_str(&self.yaml).unwrap()
    }
}

fn recorded(version: Version) -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../testdata/validation/{version}.jsonl.gz"));
    let file = File::open(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    BufReader::new(GzDecoder::new(file)).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

fn stage(verdict: &Verdict) -> String {
    verdict.stage.map_or_else(String::new, |stage| serde_json::to_value(stage).unwrap().as_str().unwrap().to_owned())
}

/// How many documents agree, from the coarsest question to the finest.
#[derive(Default)]
struct Agreement {
    documents: usize,
    valid: usize,
    stage: usize,
    fields: usize,
    messages: usize,
}

fn agreement(version: Version) -> Agreement {
    let kuma = Kuma { version, ..Kuma::default() };
    let mut table: BTreeMap<(String, String), Agreement> = BTreeMap::new();
    for recorded in recorded(version) {
        let answer = verdict(&recorded.document(), &kuma);
        let fields = |violations: &[Violation]| -> BTreeSet<String> {
            violations.iter().map(|violation| violation.field.clone()).collect()
        };
        let messages = |violations: &[Violation]| -> BTreeSet<Violation> { violations.iter().cloned().collect() };
        let valid = answer.stage.is_none() == recorded.valid;
        let stage_agrees = valid && stage(&answer) == recorded.stage;
        let fields_agree = stage_agrees && fields(&answer.violations) == fields(&recorded.violations);
        let messages_agree = fields_agree && messages(&answer.violations) == messages(&recorded.violations);
        if !messages_agree {
            println!(
                "{} {} {}: Kuma says {:?} {:?}, we say {:?} {:?}\n{}",
                recorded.id,
                recorded.kind,
                recorded.form,
                recorded.stage,
                recorded.violations,
                stage(&answer),
                answer.violations,
                recorded.yaml,
            );
        }
        let row = table.entry((recorded.kind.clone(), recorded.form.clone())).or_default();
        row.documents += 1;
        row.valid += usize::from(valid);
        row.stage += usize::from(stage_agrees);
        row.fields += usize::from(fields_agree);
        row.messages += usize::from(messages_agree);
    }
    let mut sum = Agreement::default();
    println!("Kuma {version}: documents, agree on valid, stage, fields, messages");
    for ((kind, form), row) in table {
        let Agreement { documents, valid, stage, fields, messages } = row;
        println!("{kind:24} {form:10} {documents:5} {valid:5} {stage:5} {fields:5} {messages:5}");
        sum.documents += documents;
        sum.valid += valid;
        sum.stage += stage;
        sum.fields += fields;
        sum.messages += messages;
    }
    sum
}

fn assert_agrees(version: Version, documents: usize) {
    let sum = agreement(version);
    assert_eq!(sum.documents, documents, "the recording is incomplete");
    for (what, agree) in
        [("valid", sum.valid), ("stage", sum.stage), ("fields", sum.fields), ("messages", sum.messages)]
    {
        assert!(agree * 100 >= documents * 99, "only {agree} of {documents} agree on {what}; see the output above");
    }
}

#[test]
fn answers_as_the_2_14_control_plane() {
    assert_agrees(Version::V2_14, 680);
}

#[test]
fn answers_as_the_3_0_control_plane() {
    assert_agrees(Version::V3_0, 771);
}

/// As the recording writes it: every key after a dot.
fn dotted(path: &FieldPath) -> String {
    let mut text = String::new();
    for segment in path.segments() {
        match segment {
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            Segment::Key(key) => text.push_str(&format!(".{key}")),
        }
    }
    text
}

#[test]
fn names_the_fields_that_the_api_server_drops() {
    for version in [Version::V2_14, Version::V3_0] {
        let mut compared = 0;
        for recorded in recorded(version) {
            // An object whose metadata does not decode was never looked into.
            let undecoded = recorded.violations.iter().any(|violation| violation.message.contains("cannot be handled"));
            if recorded.form != "k8s" || undecoded {
                continue;
            }
            let found = schema::unknown_fields(&recorded.document(), version);
            let found: BTreeSet<String> = found.iter().map(dotted).collect();
            let expected: BTreeSet<String> = recorded.unknown.iter().cloned().collect();
            assert_eq!(found, expected, "{}\n{}", recorded.id, recorded.yaml);
            compared += 1;
        }
        assert!(compared > 300, "{version}: {compared}");
    }
}
