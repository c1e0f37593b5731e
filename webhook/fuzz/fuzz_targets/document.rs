//! Validation and health over any JSON or YAML; and what is said of a spec's shape is said of the spec.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sluice_rules::health::{Known, examine};
use sluice_rules::split::{Shape, Split, splits};
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
            let answer = verdict(value, &kuma);
            assert_eq!(answer.stage.is_none(), answer.violations.is_empty());
            let health = examine(value, &known, &kuma).health(None);
            assert!(health.score.is_none_or(|score| score <= 100));
            let real = read(value);
            if let Some((numbered, filled)) = by_shape(value) {
                assert_eq!(Some(filled), real);
                assert_eq!(verdict(&numbered, &kuma), answer);
                assert_eq!(examine(&numbered, &known, &kuma).health(None), health);
            }
        }
    }
});

fn read(value: &Value) -> Option<Vec<Split>> {
    Policy::read(value).ok().map(|policy| splits(&policy).0)
}

/// The document that stands for this one, and the splits that are made from it.
fn by_shape(value: &Value) -> Option<(Value, Vec<Split>)> {
    let shape = Shape::of(&value.get("spec")?.to_string())?;
    let mut numbered = value.clone();
    *numbered.get_mut("spec")? = serde_json::from_str(shape.spec()).ok()?;
    let filled = shape.fill(&read(&numbered)?)?;
    Some((numbered, filled))
}
