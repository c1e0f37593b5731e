//! `sluice validate` and `sluice explain`, as a person or a program meets them.

#![allow(clippy::unwrap_used, reason = "a panic in a test's helper is the failure itself")]

use assert_cmd::Command;
use serde_json::Value;
use sluice_rules::document::File;
use sluice_rules::health::{self, Known, RULES};
use sluice_rules::validate::Kuma;
use std::fs;
use std::path::{Path, PathBuf};

const RULE_FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/rules");

const ALL_ZERO: &str = "\
type: MeshTCPRoute
name: chat
mesh: default
spec:
  to:
  - targetRef: {kind: MeshService, name: chat}
    rules: [{default: {backendRefs: [{kind: MeshService, name: chat-v1, port: 80, weight: 0}]}}]
";

/// What a run said: exit code, standard output, standard error.
fn run(arguments: &[&str], input: &str) -> (i32, String, String) {
    let output = Command::cargo_bin("sluice").unwrap().args(arguments).write_stdin(input).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(arguments: &[&str], input: &str) -> (i32, Vec<Value>) {
    let (code, out, error) = run(&[&["validate", "--format", "json"], arguments].concat(), input);
    assert_eq!(error, "");
    (code, serde_json::from_str(&out).unwrap())
}

fn fixtures() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for rule in RULES {
        let folder = Path::new(RULE_FIXTURES).join(rule.name);
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        found.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")));
    }
    found.sort();
    found
}

#[test]
fn underlines_what_it_is_about_and_sums_up() {
    let (code, out, _) = run(&["validate", "-"], ALL_ZERO);
    assert_eq!(code, 0, "a finding is no violation: {out}");
    insta::assert_snapshot!(out, @r"
    medium[KMH-T05 backends-serve-nobody]: weights send traffic to nobody
     --> -:7:37
    7 |     rules: [{default: {backendRefs: [{kind: MeshService, name: chat-v1, port: 80, weight: 0}]}}]
      |                                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ every weight is 0: callers lose the listener, connections are refused
      = help: give at least one backend a weight above 0
    1 document: 0 refused by Kuma 2.14, 1 finding (1 medium), lowest score 66
    ");
}

#[test]
fn a_program_gets_one_object_per_document_with_every_key() {
    let (code, rows) = json(&["-"], &format!("{ALL_ZERO}---\nkind: ConfigMap\napiVersion: v1\n---\n{ALL_ZERO}"));
    assert_eq!(code, 0);
    assert_eq!(rows.iter().map(|row| &row["document"]).collect::<Vec<_>>(), [0, 2], "the ConfigMap is skipped");
    let keys: Vec<_> = rows[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["file", "document", "kind", "name", "valid", "stage", "violations", "findings", "score"]);
    assert_eq!(
        rows[0],
        serde_json::json!({"file": "-", "document": 0, "kind": "MeshTCPRoute", "name": "chat", "valid": true, "stage": "",
            "violations": [], "score": 66, "findings": [{"id": "KMH-T05", "severity": "medium",
            "field": "spec.to[0].rules[0].default.backendRefs",
            "message": "every weight is 0: callers lose the listener, connections are refused"}]})
    );
}

#[test]
fn asks_the_generation_it_is_told_to() {
    let legacy = "type: TrafficPermission\nname: a\nmesh: default\nsources: [{match: {kuma.io/service: a}}]\n\
        destinations: [{match: {kuma.io/service: b}}]\n";
    for (version, id) in [("2.14", "KMH-O09"), ("3.0", "KMH-O06")] {
        let (_, rows) = json(&["--kuma", version, "-"], legacy);
        assert_eq!(rows[0]["findings"][0]["id"], id, "{version}");
    }
    let (code, _, error) = run(&["validate", "--kuma", "4", "-"], "");
    assert_eq!(code, 2, "{error}");
}

#[test]
fn text_that_is_no_yaml_is_a_failure_of_that_file_and_the_rest_is_examined() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), "a: [1\n").unwrap();
    fs::write(folder.path().join("b.yml"), ALL_ZERO).unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, rows) = json(&[path], "");
    assert_eq!((code, rows.len()), (1, 2));
    assert_eq!(
        (&rows[0]["valid"], &rows[0]["stage"], &rows[0]["score"]),
        (&false.into(), &"decode".into(), &Value::Null)
    );
    assert!(rows[0]["violations"][0]["message"].as_str().unwrap().starts_with("1:4: "), "{}", rows[0]);
    assert_eq!(rows[1]["findings"][0]["id"], "KMH-T05");
    let (code, out, _) = run(&["validate", path], "");
    assert!(code == 1 && out.contains("error[yaml]") && out.contains("a.yaml:1:4"), "{out}");
}

#[test]
fn a_folder_is_read_in_its_folders_but_not_in_hidden_ones() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["b/c/z.json", "a.yaml", ".git/x.yaml", "notes.txt", "values.yaml"] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let json = r#"{"type": "MeshRetry", "name": "z", "mesh": "default", "spec": {"to": []}}"#;
        let text = if file == "values.yaml" {
            "replicas: 3\n"
        } else if file.ends_with("json") {
            json
        } else {
            ALL_ZERO
        };
        fs::write(path, text).unwrap();
    }
    let (code, rows) = json(&[folder.path().to_str().unwrap()], "");
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!((code, names), (0, vec!["chat", "z"]));
    let (_, out, _) = run(&["validate", folder.path().to_str().unwrap()], "");
    assert!(out.ends_with("lowest score 66, 1 document skipped: not Kuma's\n"), "{out}");
}

#[test]
fn documents_know_each_other_and_a_list_is_named() {
    let service = "apiVersion: kuma.io/v1alpha1\nkind: MeshService\nmetadata: {name: chat, namespace: demo}\n\
        spec: {ports: [{port: 8080, appProtocol: http}]}\n";
    let route = "apiVersion: kuma.io/v1alpha1\nkind: MeshHTTPRoute\nmetadata: {name: chat, namespace: demo}\nspec:\n  to:\n  \
        - targetRef: {kind: MeshService, name: chat}\n    rules:\n    - matches: [{path: {type: PathPrefix, value: /}}]\n      \
        default: {backendRefs: [{kind: MeshService, name: chat, port: 80}]}\n";
    let list = "apiVersion: v1\nkind: List\nitems: []\n";
    let (_, out, _) = run(&["validate", "-"], &[route, service, list].join("---\n"));
    assert!(out.contains("MeshService `chat` has no port `80`, it has 8080"), "{out}");
    assert!(out.contains("note: - holds a List"), "{out}");
    let (_, out, _) = run(&["validate", "-"], route);
    assert!(!out.contains("KMH-T01"), "nothing is missing while not everything is known: {out}");
}

#[test]
fn a_path_that_is_not_there_stops_it_before_it_answers() {
    let (code, out, error) = run(&["validate", "-", "/no/such/file"], ALL_ZERO);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(error.contains("cannot read `/no/such/file`"), "{error}");
}

#[test]
fn characters_that_a_terminal_would_obey_become_visible() {
    let (_, out, _) = run(&["validate", "-"], &ALL_ZERO.replace("name: chat-v1", "name: \"\u{202e}chat\""));
    assert!(out.contains("⟨U+202E⟩chat") && !out.contains('\u{202e}'), "{out}");
}

/// The terminal says what the engine says, which admission asks as well: for every fixture of every rule.
#[test]
fn says_what_the_engine_says() {
    for path in fixtures() {
        let file = File::parse("f", &fs::read(&path).unwrap()).unwrap();
        let mut known = Known::default();
        file.documents().iter().for_each(|document| known.insert(document.value()));
        let (_, rows) = json(&[path.to_str().unwrap()], "");
        assert_eq!(rows.len(), file.documents().len(), "{}", path.display());
        for (row, document) in rows.iter().zip(file.documents()) {
            let health = health::examine(document.value(), &known, &Kuma::default()).health(None);
            let said: Vec<_> = row["findings"]
                .as_array()
                .unwrap()
                .iter()
                .map(|finding| {
                    (
                        finding["id"].as_str().unwrap(),
                        finding["field"].as_str().unwrap(),
                        finding["message"].as_str().unwrap(),
                    )
                })
                .collect();
            let fields: Vec<_> = health.findings.iter().map(|finding| finding.field.to_string()).collect();
            let found: Vec<_> = health
                .findings
                .iter()
                .zip(&fields)
                .map(|(f, field)| (f.id, field.as_str(), f.message.as_str()))
                .collect();
            assert_eq!(said, found, "{}", path.display());
            assert_eq!(row["score"].as_u64(), health.score.map(u64::from), "{}", path.display());
        }
    }
}

#[test]
fn explains_a_rule_by_id_short_form_and_name() {
    for name in ["KMH-T05", "t05", "backends-serve-nobody"] {
        let (code, out, _) = run(&["explain", name], "");
        assert!(code == 0 && out.starts_with("# KMH-T05 backends-serve-nobody\n"), "{out}");
    }
    let (code, out, _) = run(&["explain", "--list"], "");
    assert_eq!((code, out.lines().count()), (0, RULES.len()));
}

#[test]
fn an_unknown_rule_gets_the_nearest_names() {
    let (code, out, error) = run(&["explain", "backend-serves-nobody"], "");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(error.contains("`backends-serve-nobody`"), "{error}");
    assert_eq!(run(&["explain"], "").0, 2);
}
