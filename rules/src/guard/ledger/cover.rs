//! Which destinations have a ledger, and how long their history matters.

use super::Ledger;
use crate::guard::{ShiftGuard, Traffic};
use crate::policy::Identity;
use crate::split::{ServiceKey, Split};
use jiff::SignedDuration;
use std::collections::BTreeMap;

/// A destination that guards cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    /// Its mesh.
    pub mesh: String,
    /// The destination.
    pub destination: ServiceKey,
    /// How long a move matters: the longest window, quiet time or `settle` of the guards, at least a day.
    pub keep: SignedDuration,
    /// The longest `settle` of the guards.
    pub settle: SignedDuration,
}

/// The destinations that a policy splits and that guards cover, in a stable order.
pub fn covered_splits<'a>(
    guards: &[ShiftGuard],
    policy: &'a Identity,
    splits: impl IntoIterator<Item = &'a Split>,
) -> Vec<Cover> {
    let mut destinations: BTreeMap<(&str, &ServiceKey), Traffic> = BTreeMap::new();
    for split in splits {
        let traffic = destinations.entry((&split.mesh, &split.destination));
        traffic.or_insert_with(|| Traffic::new(&split.mesh, policy.namespace.as_deref())).add_split(split);
    }
    let destinations = destinations.into_iter();
    destinations.filter_map(|((mesh, destination), traffic)| Cover::of(guards, mesh, destination, &traffic)).collect()
}

impl Cover {
    fn of(guards: &[ShiftGuard], mesh: &str, destination: &ServiceKey, traffic: &Traffic) -> Option<Self> {
        Self::by(guards.iter().filter(|guard| guard.spec.r#match.fits(traffic)), mesh, destination)
    }

    /// A destination under these guards; none without any.
    pub(in crate::guard) fn by<'a>(
        guards: impl Iterator<Item = &'a ShiftGuard>,
        mesh: &str,
        destination: &ServiceKey,
    ) -> Option<Self> {
        let mut found: Option<Self> = None;
        for guard in guards {
            let cover = found.get_or_insert_with(|| Self::least(mesh, destination.clone()));
            let caps = &guard.spec.caps;
            let times = [caps.per_window.as_ref().map(|cap| cap.window), caps.min_interval];
            cover.settle = cover.settle.max(guard.spec.settle());
            cover.keep = times.into_iter().flatten().fold(cover.keep.max(cover.settle), |keep, time| keep.max(time.0));
        }
        found
    }

    /// A destination whose ledger is there, when the policy says nothing of it any more.
    pub fn of_ledger(guards: &[ShiftGuard], policy: &Identity, ledger: &Ledger) -> Self {
        let mut traffic = Traffic::new(&ledger.mesh, policy.namespace.as_deref());
        traffic.add(&ledger.destination);
        let none = || Self::least(ledger.mesh.clone(), ledger.destination.clone());
        Self::of(guards, &ledger.mesh, &ledger.destination, &traffic).unwrap_or_else(none)
    }

    /// A destination that no guard covers any more, whose ledger is still there.
    pub fn least(mesh: impl Into<String>, destination: ServiceKey) -> Self {
        let day = SignedDuration::from_hours(24);
        Self { mesh: mesh.into(), destination, keep: day, settle: SignedDuration::ZERO }
    }
}
