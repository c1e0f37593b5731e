//! The README's table of pitfalls is complete, and every test that it names exists.

use std::collections::BTreeSet;
use std::path::Path;

const README: &str = include_str!("../README.md");

/// `module::test` for every function of every source file below a folder, by the file's name and its folder's.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
            let modules = [name(&path), name(path.parent().expect("a folder"))];
            for line in std::fs::read_to_string(&path).expect("text").lines() {
                let Some((_, rest)) = line.split_once("fn ") else { continue };
                let function: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                found.extend(modules.iter().map(|module| format!("{module}::{function}")));
            }
            found.insert(name(&path));
        }
    }
}

fn rows() -> Vec<(usize, &'static str)> {
    let cells = README.lines().filter_map(|line| {
        let (number, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
        Some((number.parse().ok()?, rest))
    });
    cells.collect()
}

#[test]
fn every_pitfall_has_a_row() {
    let numbers: Vec<_> = rows().into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, (1..=46).collect::<Vec<_>>());
}

#[test]
fn every_test_that_a_row_names_exists() {
    let mut found = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tests", "../rules/src"] {
        functions(&root.join(folder), &mut found);
    }
    let mut named = 0;
    for (number, row) in rows() {
        for name in row.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
            named += 1;
            assert!(found.contains(name), "row {number} names `{name}`, and there is no such test");
        }
    }
    assert!(named > 50, "only {named} tests are named");
}
