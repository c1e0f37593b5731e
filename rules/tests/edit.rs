//! Edits every weight of every example policy, as it is and in many other spellings.
#![allow(clippy::disallowed_methods, reason = "the fixtures are files")]

use serde_json::Value;
use sluice_rules::document::{Edit, EditError, File};
use sluice_rules::field::FieldPath;
use std::path::{Path, PathBuf};

#[test]
fn an_edit_changes_the_weight_and_no_other_byte() {
    let (mut files, mut edits) = (0, 0);
    for (name, text) in corpus() {
        let file = File::parse(&name, text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?} in {text}"));
        let found = weights(&file);
        assert!(!found.is_empty(), "{name} has no weight:\n{text}");
        files += 1;
        for (document, field, old) in &found {
            for value in [0, 7, 100, 65_535] {
                edits += 1;
                check(&file, *document, field, *old, value);
            }
        }
        edits += 1;
        check_all_at_once(&file, &found);
    }
    println!("{files} files, {edits} edits, every other byte identical");
    assert!(files >= 500, "{files} files");
}

#[test]
fn every_example_takes_a_weight_where_there_is_none() {
    let mut count = 0;
    for (name, text) in examples() {
        for (spelling, text) in [("LF", text.clone()), ("CRLF", crlf(&text)), ("cut", text.trim_end().to_owned())] {
            let file = File::parse(&name, text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"));
            let field: FieldPath = "weight".parse().expect("a field path");
            let mappings = mappings(file.documents()[0].value(), &FieldPath::root());
            for field in mappings.iter().map(|mapping| mapping.key("weight")).chain([field]) {
                if file.documents()[0].locate(&field).is_some() {
                    continue;
                }
                let after = file.edit(0, &[Edit { field: field.clone(), value: 42 }]);
                let after = match after {
                    Ok(after) => after,
                    // A line behind a cut block scalar would end it with the newline that it lacks.
                    Err(EditError::Unverified { .. }) if spelling == "cut" && text.contains(": |\n") => continue,
                    Err(error) => panic!("{spelling}: {error}\n{text}"),
                };
                let new = File::parse(&name, after.as_bytes()).expect("the result is YAML");
                assert_eq!(value_at(new.documents()[0].value(), &field), Some(&Value::from(42)));
                // Without the added bytes, the text is the old one.
                let at = after.bytes().zip(text.bytes()).take_while(|(after, text)| after == text).count();
                assert_eq!(after.as_bytes()[at + after.len() - text.len()..], text.as_bytes()[at..], "{after}");
                if spelling == "CRLF" {
                    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
                }
                count += 1;
            }
        }
    }
    println!("{count} weights added");
    assert!(count > 1000, "{count} weights added");
}

#[test]
fn an_anchored_policy_is_edited_only_where_nobody_else_looks() {
    let (_, text) =
        examples().into_iter().find(|(name, _)| name.ends_with("to-meshtcproute.yaml")).expect("an example");
    let text = text.replace("weight: 90", "weight: &most 90").replace("weight: 10", "weight: *most");
    let file = File::parse("route.yaml", text.as_bytes()).expect("YAML");
    for (document, field, _) in weights(&file) {
        let error = file.edit(document, &[Edit { field, value: 5 }]).expect_err("both weights would change");
        assert!(error.to_string().contains("write the value out first"), "{error}");
    }
}

/// One edit: the value is there, and cutting the written values out of both texts leaves the same bytes.
fn check(file: &File, document: usize, field: &FieldPath, old: u64, value: u64) {
    let after = file.edit(document, &[Edit { field: field.clone(), value }]);
    let after = after.unwrap_or_else(|error| panic!("{error}\n{}", file.text()));
    let new = File::parse(file.path(), after.as_bytes()).expect("the result is YAML");
    let (before, place) = (place(file, document, field), place(&new, document, field));
    assert_eq!(after[..place.start], file.text()[..before.start]);
    assert_eq!(after[place.end..], file.text()[before.end..]);
    assert_eq!(after[place].trim_matches(['"', '\'']), value.to_string());
    assert_eq!(number(value_at(new.documents()[document].value(), field)), Some(value));
    // The way back leads to the same bytes.
    let back = new.edit(document, &[Edit { field: field.clone(), value: old }]).expect("the way back");
    assert_eq!(back, file.text());
}

/// All weights of each document in one call.
fn check_all_at_once(file: &File, found: &[(usize, FieldPath, u64)]) {
    for document in file.documents() {
        let own = found.iter().filter(|(index, ..)| *index == document.index());
        let edits: Vec<Edit> = own.map(|(_, field, old)| Edit { field: field.clone(), value: old + 1 }).collect();
        let after = file.edit(document.index(), &edits).unwrap_or_else(|error| panic!("{error}"));
        let mut expected = file.text().to_owned();
        let mut spans: Vec<_> =
            edits.iter().map(|edit| (place(file, document.index(), &edit.field), edit.value)).collect();
        spans.sort_by_key(|(span, _)| span.start);
        for (span, value) in spans.into_iter().rev() {
            let written = &file.text()[span.clone()];
            let digits = written.trim_matches(['"', '\'']);
            expected.replace_range(span, &written.replace(digits, &value.to_string()));
        }
        assert_eq!(after, expected);
    }
}

fn place(file: &File, document: usize, field: &FieldPath) -> std::ops::Range<usize> {
    file.documents()[document].locate(field).unwrap_or_else(|| panic!("{field} has no place")).span
}

fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    }
}

fn value_at<'a>(value: &'a Value, field: &FieldPath) -> Option<&'a Value> {
    use sluice_rules::field::Segment;
    field.segments().iter().try_fold(value, |value, segment| match segment {
        Segment::Key(key) => value.get(&**key),
        Segment::Index(index) => value.get(index),
    })
}

/// Every weight of every document: fields of that name, and the value of a JSON patch for one.
fn weights(file: &File) -> Vec<(usize, FieldPath, u64)> {
    let mut found = Vec::new();
    for document in file.documents() {
        for path in mappings(document.value(), &FieldPath::root()) {
            let mapping = value_at(document.value(), &path).and_then(Value::as_object).expect("a mapping");
            let patched = mapping.get("path").and_then(Value::as_str).is_some_and(|path| path.ends_with("/weight"));
            let field = path.key(if patched { "value" } else { "weight" });
            if let Some(old) = number(value_at(document.value(), &field)) {
                found.push((document.index(), field, old));
            }
        }
    }
    found
}

/// The paths of all mappings in a value.
fn mappings(value: &Value, path: &FieldPath) -> Vec<FieldPath> {
    match value {
        Value::Object(map) => {
            let inner = map.iter().flat_map(|(key, value)| mappings(value, &path.key(key.clone())));
            std::iter::once(path.clone()).chain(inner).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, value)| mappings(value, &path.index(index))).collect()
        }
        _ => Vec::new(),
    }
}

fn examples() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kuma/examples");
    walk(&root, &mut files);
    files.sort();
    let read = |path: PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).expect("the file is text"));
    files.into_iter().map(read).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
}

/// The examples with weights and the other shapes a weight comes in, each in every spelling.
fn corpus() -> Vec<(String, String)> {
    let mut sources: Vec<(String, String)> =
        examples().into_iter().filter(|(_, text)| text.contains("weight:")).collect();
    assert!(sources.len() >= 7, "{} examples have weights", sources.len());
    sources.extend(SHAPES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));

    let mut corpus = Vec::new();
    for (name, text) in &sources {
        for (first, respell) in SPELLINGS {
            let once = respell(text);
            for (second, respell) in [("", (|text| text.to_owned()) as Respell)].iter().chain(ENDINGS) {
                corpus.push((format!("{name} {first} {second}"), respell(&once)));
            }
        }
    }
    corpus.sort_by(|a, b| a.1.cmp(&b.1));
    corpus.dedup_by(|a, b| a.1 == b.1);
    corpus
}

type Respell = fn(&str) -> String;

/// Other ways to write the same policy.
const SPELLINGS: &[(&str, Respell)] = &[
    ("as it is", |text| text.to_owned()),
    ("comments behind", |text| each_weight(text, |line| format!("{line} # weight: 1, é 日本"))),
    ("tabs before comments", |text| each_weight(text, |line| format!("{line}\t# was 5\t"))),
    ("comments between", |text| {
        each_weight(text, |line| format!("# weight: 1\n{line}\n\n        # \"quoted\" {{weight: 2}}"))
    }),
    ("anchors", |text| each_weight(text, |line| line.replace("weight: ", "weight: &w "))),
    ("anchors on keys", |text| text.replace("name: ", "&n name: ")),
    ("quoted keys", |text| text.replace("weight:", "\"weight\":").replace("name:", "'name':")),
    ("blanks before colons", |text| text.replace("weight:", "weight \t:\t ")),
    ("quoted values", |text| requoted(text, '"')),
    ("single-quoted values", |text| requoted(text, '\'')),
    ("tagged values", |text| text.replace("weight: ", "weight: !!int ")),
    ("trailing blanks", |text| text.lines().map(|line| format!("{line}  \n")).collect()),
    ("multi-byte text", |text| text.replace("name: ", "name: é日本𝄞-")),
    ("JSON", |text| json(text, false)),
    ("JSON, pretty", |text| json(text, true)),
    ("flow", |text| json(text, true).replace("\"weight\":", "weight:").replace("\"name\":", "'name':  ")),
    ("after another document", |text| {
        format!("---\nname: first\nweights: [1, 2]\n...\n---\n# next\n{}", undirected(text))
    }),
    ("before other documents", |text| format!("{text}---\ntext: |+\n  weight: 1\n\n---\n--- {{a: [weight]}}\n")),
    ("behind a block scalar", |text| format!("# c\n---\n- |\n  weight: 1\n   x\n---\n{}", undirected(text))),
    ("version directive", |text| format!("%YAML 1.2\n---\n{}", undirected(text))),
];

/// Other ways to store the same text.
const ENDINGS: &[(&str, Respell)] = &[
    ("CRLF", crlf),
    ("BOM", |text| format!("\u{feff}{text}")),
    ("no final newline", |text| text.trim_end().to_owned()),
    ("BOM, CRLF, no final newline", |text| format!("\u{feff}{}", crlf(text.trim_end()))),
    ("many final newlines", |text| format!("{text}\n\n\n")),
];

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

fn undirected(text: &str) -> &str {
    text.strip_prefix("---\n").unwrap_or(text)
}

/// Rewrites the lines that end in a plain weight.
fn each_weight(text: &str, rewrite: fn(&str) -> String) -> String {
    let is_weight = |line: &str| {
        line.rsplit_once("weight: ").is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text.lines().map(|line| if is_weight(line) { rewrite(line) } else { line.to_owned() } + "\n").collect()
}

/// Quotes the numbers behind `weight:`.
fn requoted(text: &str, quote: char) -> String {
    let mut parts = text.split("weight: ");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = part.split_at(digits);
        result += &if number.is_empty() {
            format!("weight: {rest}")
        } else {
            format!("weight: {quote}{number}{quote}{rest}")
        };
    }
    result
}

fn json(text: &str, pretty: bool) -> String {
    let file = File::parse("source.yaml", text.as_bytes()).expect("YAML");
    let print = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
    let documents = file.documents().iter().map(|document| print(document.value()).expect("JSON") + "\n");
    documents.collect::<Vec<_>>().join("---\n")
}

/// Shapes that the examples lack.
const SHAPES: &[(&str, &str)] = &[
    (
        "TrafficRoute, Universal",
        "type: TrafficRoute\nname: route\nmesh: default\nconf:\n  split:\n  - weight: 90\n    destination:\n      version: '1'\n  \
         - destination: {version: '2'}\n    weight: 10\n",
    ),
    (
        "TrafficRoute, Kubernetes",
        "apiVersion: kuma.io/v1alpha1\nkind: TrafficRoute\nmesh: default\nmetadata: {name: route}\nspec:\n    conf:\n        split:\n        \
         -   weight: 90\n            destination: {kuma.io/service: a}\n        -   weight: 10\n            destination: {kuma.io/service: b}\n",
    ),
    (
        "flow mappings",
        "kind: MeshHTTPRoute\nspec:\n  to:\n  - rules:\n    - default:\n        backendRefs:\n        - {kind: MeshService, name: a, weight: 90}\n        \
         - { weight: 10, kind: MeshService, name: b } # canary\n        - {name: c,\n           weight: 0\n          }\n",
    ),
    (
        "merge keys",
        "kind: MeshTCPRoute\ncommon: &common {kind: MeshService, port: 80}\nspec:\n  backendRefs:\n  - <<: *common\n    name: a\n    weight: 90\n  \
         - name: b\n    weight: 10\n    <<: [*common]\n",
    ),
    (
        "strategic merge patch",
        "apiVersion: kuma.io/v1alpha1\nkind: MeshHTTPRoute\nmetadata:\n  name: route\nspec:\n  to:\n    - rules:\n        - default:\n            \
         backendRefs:\n              - name: b\n                weight: 25\n",
    ),
    (
        "JSON patch",
        "- op: replace\n  path: /spec/to/0/rules/0/default/backendRefs/0/weight\n  value: 90\n- op: test\n  path: /kind\n  value: MeshHTTPRoute\n\
         - {op: replace, path: /spec/to/0/rules/0/default/backendRefs/1/weight, value: 10}\n",
    ),
    (
        "several policies",
        "---\nkind: MeshHTTPRoute\nspec: {backendRefs: [{name: a, weight: 60}, {name: b, weight: 40}]}\n---\nkind: MeshTCPRoute\nspec:\n  \
         backendRefs:\n  - name: a\n    weight: 60\n    tags:\n      version: v1\n  - name: b\n    weight: 40\n",
    ),
];
