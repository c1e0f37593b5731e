//! Validation and health over any JSON or YAML.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_rules::health::{Known, Subject, examine};
use sluice_rules::validate::{Kuma, Version, verdict};
use sluice_rules::{document::File, policy::Policy};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = File::parse("fuzz.yaml", bytes) else { return };
    for version in [Version::V2_14, Version::V3_0] {
        let kuma = Kuma { version, ..Kuma::default() };
        let mut known = Known::default();
        for document in file.documents() {
            known.insert(document.value());
        }
        known.complete = bytes.len() % 2 == 0;
        for document in file.documents() {
            let value = document.value();
            let verdict = verdict(value, &kuma);
            assert_eq!(verdict.stage.is_none(), verdict.violations.is_empty());
            drop(Policy::read(value));
            let subject = Subject { document: value, change: None };
            let health = examine(&subject, &known, &kuma);
            assert!(health.score.is_none_or(|score| score <= 100));
        }
    }
});
