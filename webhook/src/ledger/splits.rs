//! The splits of one state of a policy, and what ledgers and approvals know them by.

use sluice_rules::guard;
use sluice_rules::split::{self, ServiceKey, Split};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// The splits of one state of a policy, and their digests as soon as somebody asks: a state is looked at in several
/// reviews, as what shall be and then as what is.
#[derive(Debug, Default)]
pub struct Splits {
    all: Vec<Split>,
    digest: OnceLock<String>,
    by_destination: OnceLock<BTreeMap<(Arc<str>, ServiceKey), String>>,
}

impl From<Vec<Split>> for Splits {
    fn from(all: Vec<Split>) -> Self {
        Self { all, ..Self::default() }
    }
}

impl Deref for Splits {
    type Target = [Split];

    fn deref(&self) -> &[Split] {
        &self.all
    }
}

impl Splits {
    /// [`split::digest`] of all.
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| split::digest(&self.all))
    }

    /// [`guard::Ledger::digest`]: of those of the ledger's destination.
    pub(super) fn digest_of(&self, ledger: &guard::Ledger) -> String {
        let digests = self.by_destination.get_or_init(|| {
            let mut destinations: BTreeMap<_, Vec<&Split>> = BTreeMap::new();
            for split in &self.all {
                destinations.entry((&split.mesh, &split.destination)).or_default().push(split);
            }
            // Most policies have one destination, and all of the splits are those of it.
            let digest = |splits: Vec<&Split>| match splits.len() == self.all.len() {
                true => self.digest().to_owned(),
                false => split::digest(splits),
            };
            let all = destinations.into_iter();
            all.map(|((mesh, destination), splits)| ((mesh.clone(), destination.clone()), digest(splits))).collect()
        });
        let subject = (ledger.mesh.as_str().into(), ledger.destination.clone());
        digests.get(&subject).cloned().unwrap_or_else(|| split::digest([]))
    }
}
