//! A backend's weight, as it may be written.

use serde::{Deserialize, Deserializer, de};
use std::fmt;

/// A backend's weight: a whole number that fits 32 bits. Weights are relative, nothing asks for a sum of 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight(pub u32);

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WeightVisitor)
    }
}

struct WeightVisitor;

impl de::Visitor<'_> for WeightVisitor {
    type Value = Weight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 to 4294967295")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Weight, E> {
        u32::try_from(value).map(Weight).map_err(|_| refuse(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Weight, E> {
        u32::try_from(value).map(Weight).map_err(|_| refuse(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Weight, E> {
        // `10.0` too: Kuma's decoder refuses any fraction.
        Err(refuse(format_args!("{value:?}")))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Weight, E> {
        Err(refuse(format_args!("the text {value:?}")))
    }
}

fn refuse<E: de::Error>(found: impl fmt::Display) -> E {
    E::custom(format_args!("a weight is a whole number from 0 to {}, not {found}", u32::MAX))
}
