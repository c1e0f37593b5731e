//! Lengths of time as guards write them.

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A length of time above zero and at most a year: `10m`, `1h30m`, `62h`, `7d`. A day is 24 hours here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub SignedDuration);

const UNITS: [(char, i64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Why a text is no [`Period`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no length of time above zero and at most 366d; write it like `10m`, `1h30m` or `62h`")]
pub struct PeriodError(String);

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || PeriodError(text.to_owned());
        let (mut seconds, mut rest, mut units) = (0_i64, text, UNITS.iter());
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
            let number: i64 = rest[..digits].parse().map_err(|_| refuse())?;
            rest = &rest[digits..];
            // Larger units first, each once.
            let (unit, size) = units.find(|(unit, _)| rest.starts_with(*unit)).ok_or_else(refuse)?;
            rest = &rest[unit.len_utf8()..];
            seconds = number.checked_mul(*size).and_then(|more| seconds.checked_add(more)).ok_or_else(refuse)?;
        }
        if !(1..=366 * 86_400).contains(&seconds) {
            return Err(refuse());
        }
        Ok(Self(SignedDuration::from_secs(seconds)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seconds = self.0.as_secs();
        // People say 62h and 24h; days only where they wrote more than a few.
        let units = if seconds % 86_400 == 0 && seconds > 3 * 86_400 { &UNITS[..] } else { &UNITS[1..] };
        for (unit, size) in units {
            if seconds / size > 0 {
                write!(f, "{}{unit}", seconds / size)?;
                seconds %= size;
            }
        }
        Ok(())
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
            "minLength": 2,
            "description": "A length of time above zero and at most 366d: 10m, 1h30m, 62h, 7d. A day is 24 hours.",
        })
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
