//! The splits of one state of a policy, and what ledgers and approvals know them by.

use sluice_rules::guard;
use sluice_rules::split::{self, ServiceKey, Split};
use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::OnceLock;

/// The splits of one state of a policy, and their digests as soon as somebody asks: a state is looked at in several
/// reviews, as what shall be and then as what is.
#[derive(Debug, Default)]
pub struct Splits {
    /// Those of one destination stand together, in their order.
    all: Vec<Split>,
    digest: OnceLock<String>,
    /// By where each destination begins.
    by_destination: OnceLock<BTreeMap<usize, String>>,
}

impl From<Vec<Split>> for Splits {
    fn from(mut all: Vec<Split>) -> Self {
        if !all.is_sorted_by_key(subject) {
            all.sort_by(|a, b| subject(a).cmp(&subject(b)));
        }
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

    /// The splits alone.
    pub fn into_inner(self) -> Vec<Split> {
        self.all
    }

    /// Those of a ledger's destination.
    pub(super) fn of(&self, ledger: &guard::Ledger) -> &[Split] {
        &self.all[self.range(ledger)]
    }

    /// [`guard::Ledger::digest`]: of those of the ledger's destination.
    pub(super) fn digest_of(&self, ledger: &guard::Ledger) -> String {
        let range = self.range(ledger);
        // Most policies have one destination.
        if range.len() == self.all.len() {
            return self.digest().to_owned();
        }
        let digests = self.by_destination.get_or_init(|| {
            let mut begin = 0;
            let groups = self.all.chunk_by(|a, b| subject(a) == subject(b));
            let digest = |group: &[Split]| {
                let place = begin;
                begin += group.len();
                (place, split::digest(group))
            };
            groups.map(digest).collect()
        });
        let digest = digests.get(&range.start).filter(|_| !range.is_empty());
        digest.cloned().unwrap_or_else(|| split::digest([]))
    }

    fn range(&self, ledger: &guard::Ledger) -> Range<usize> {
        let wanted = (ledger.mesh.as_str(), &ledger.destination);
        let start = self.all.partition_point(|split| subject(split) < wanted);
        start..self.all.partition_point(|split| subject(split) <= wanted)
    }
}

fn subject(split: &Split) -> (&str, &ServiceKey) {
    (&split.mesh, &split.destination)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluice_rules::policy::Policy;

    #[test]
    fn gives_each_destination_its_own() {
        let to = |name: &str, weight: u32| {
            json!({"targetRef": {"kind": "MeshService", "name": name}, "rules": [
                {"default": {"backendRefs": [{"kind": "MeshService", "name": "v1", "port": 80, "weight": weight}]}}]})
        };
        let spec = json!({"to": [to("b", 1), to("a", 2), to("c", 3), to("a", 4)]});
        let policy = json!({"type": "MeshHTTPRoute", "name": "x", "mesh": "m", "spec": spec});
        let all = split::splits(&Policy::read(&policy).unwrap()).0;
        let splits = Splits::from(all.clone());
        for (name, weights) in [("a", vec![2, 4]), ("b", vec![1]), ("c", vec![3]), ("d", vec![]), ("", vec![])] {
            let ledger = guard::Ledger::new("m", name.into());
            assert!(splits.of(&ledger).iter().map(|split| split.backends[0].weight).eq(weights), "{name}");
            assert_eq!(splits.digest_of(&ledger), ledger.digest(&all), "{name}");
        }
        let one = Splits::from(all[..1].to_vec());
        assert_eq!(one.digest_of(&guard::Ledger::new("m", "b".into())), one.digest());
        assert_eq!(one.digest_of(&guard::Ledger::new("n", "b".into())), split::digest([]));
        assert_eq!(Splits::default().digest_of(&guard::Ledger::new("n", "b".into())), split::digest([]));
    }
}
