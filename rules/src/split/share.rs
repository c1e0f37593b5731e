//! The weights that give a canary its share.

use super::{Backend, Split};
use crate::field::FieldPath;

/// New weights, and what they do to the file's scale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reweigh {
    /// The weights that change, in the order of the file; empty when the split is as wanted.
    pub weights: Vec<(FieldPath, u64)>,
    /// 1 when the file's own scale is kept. Otherwise a power of ten: the scale was too coarse for the share, and all
    /// weights of the rule grew by this factor, so that the shares of other backends stay.
    pub factor: u64,
}

/// Why a split cannot have a share.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ShareError {
    /// The rule does not name the backend.
    #[error("no backend `{0}` in this rule")]
    Missing(String),
    /// The name fits several backends.
    #[error("`{0}` names several backends of this rule; say which port, such as `{1}`")]
    Ambiguous(String, String),
    /// The canary and the stable backend are one.
    #[error("canary and stable are the same backend `{0}`")]
    Same(String),
    /// No share at all.
    #[error("{0} is no percentage from 0 to 100")]
    Percent(f64),
    /// Finer than a millionth of a percent.
    #[error("{0} % is finer than a millionth of a percent")]
    TooFine(f64),
    /// Neither has weight, so there is nothing to share out.
    #[error("`{0}` and `{1}` both have weight 0, so there is nothing to share out between them")]
    NoWeight(String, String),
    /// A weight would not fit.
    #[error("{0} % needs a weight above 4294967295")]
    TooLarge(f64),
}

/// Percentages are taken in millionths: 100 % of them.
const WHOLE: u128 = 100_000_000;

impl Split {
    /// The backend that a person calls `name`.
    ///
    /// # Errors
    ///
    /// When the rule names no such backend, or several.
    pub fn find(&self, name: &str) -> Result<&Backend, ShareError> {
        if let Some(exact) = self.backends.iter().find(|backend| backend.service.as_str() == name) {
            return Ok(exact);
        }
        let mut fitting = self.backends.iter().filter(|backend| backend.is(name));
        let first = fitting.next().ok_or_else(|| ShareError::Missing(name.to_owned()))?;
        match fitting.next() {
            Some(other) => Err(ShareError::Ambiguous(name.to_owned(), other.service.to_string())),
            None => Ok(first),
        }
    }

    /// The weights that give the canary `percent` of what canary and stable have together.
    ///
    /// The file's own scale stays where the percentage is exact in it. Otherwise all weights of the rule grow by the
    /// smallest power of ten that makes it exact, and [`Reweigh::factor`] says so. Other backends keep their shares.
    ///
    /// # Errors
    ///
    /// When there is no such pair or no such percentage.
    pub fn with_share(&self, canary: &str, stable: &str, percent: f64) -> Result<Reweigh, ShareError> {
        let (canary, stable) = (self.find(canary)?, self.find(stable)?);
        if canary.service == stable.service {
            return Err(ShareError::Same(canary.service.to_string()));
        }
        if !(0.0..=100.0).contains(&percent) {
            return Err(ShareError::Percent(percent));
        }
        let parts = (percent * 1e6).round();
        if (parts - percent * 1e6).abs() > 1e-4 {
            return Err(ShareError::TooFine(percent));
        }
        let sum = u128::from(canary.weight + stable.weight);
        if sum == 0 {
            return Err(ShareError::NoWeight(canary.service.to_string(), stable.service.to_string()));
        }
        // A percentage has eight decimals as a fraction, so the eighth power of ten always does.
        let mut factor: u128 = 1;
        while !(sum * factor * parts as u128).is_multiple_of(WHOLE) {
            factor *= 10;
        }
        let of_canary = sum * factor * parts as u128 / WHOLE;
        let mut weights = Vec::new();
        for backend in &self.backends {
            let total = match backend {
                _ if backend.service == canary.service => Some(of_canary),
                _ if backend.service == stable.service => Some(sum * factor - of_canary),
                _ => None,
            };
            if factor == 1 && total.is_none_or(|total| total == u128::from(backend.weight)) {
                continue;
            }
            // Named twice: the first place takes all, so that the rest can be deleted in peace.
            let first = total.unwrap_or(u128::from(backend.first) * factor);
            let rest = backend.also.iter().map(|entry| {
                let weight = total.map_or(u128::from(entry.weight) * factor, |_| 0);
                (&entry.field, entry.explicit, entry.weight, weight)
            });
            let here = (&backend.field, backend.explicit, backend.first, first);
            for (field, explicit, old, new) in [here].into_iter().chain(rest) {
                let new = u32::try_from(new).map_err(|_| ShareError::TooLarge(percent))?;
                // On a new scale a default weight is written out, so that a reader sees all parts.
                if u64::from(new) != old || (factor > 1 && !explicit) {
                    weights.push((field.clone(), u64::from(new)));
                }
            }
        }
        Ok(Reweigh { weights, factor: factor as u64 })
    }
}
