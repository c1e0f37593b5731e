//! Each file of `testdata/admission/cases` is one request and its whole answer.

use super::*;
use std::path::Path;

#[test]
fn every_case_is_answered_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/admission/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        let case: Value = serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let user = case["user"].as_str().unwrap_or(FLUX);
        let mut response = respond(&admission(case["guards"].clone()), &shift(user, &case["before"], &case["after"]));
        response.as_object_mut().unwrap().remove("uid");
        if response != case["expected"] {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            wrong.push(format!("{name} answers\n{}", serde_yaml::to_string(&json!({"expected": response})).unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
