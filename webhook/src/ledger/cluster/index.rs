//! Which ledgers know a policy, told without a look into all of them: the first list of routes asks once for each.

use super::{Inner, Slot, lock};
use sluice_rules::policy::Identity;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The ledgers by the policies that they know, or of which they hold reservations, as of a number of changes.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// [`Inner::changes`] when it was made.
    changes: Option<u64>,
    slots: BTreeMap<Identity, Vec<Arc<Slot>>>,
}

impl Inner {
    /// The ledgers that know a policy or hold a reservation of it, in the order of their names.
    pub(super) fn knowing(&self, policy: &Identity) -> Vec<Arc<Slot>> {
        let mut index = lock(&self.index);
        let changes = self.changes.load(Ordering::Acquire);
        if index.changes != Some(changes) {
            let slots: Vec<_> = lock(&self.slots).values().cloned().collect();
            *index = Index { changes: Some(changes), slots: BTreeMap::new() };
            for slot in slots {
                let Some(view) = slot.view() else { continue };
                let known = view.ledger.policies.iter().map(|known| &known.policy);
                for policy in known.chain(view.ledger.outstanding().map(|(entry, _)| &entry.record.policy)) {
                    let slots = index.slots.entry(policy.clone()).or_default();
                    if !slots.last().is_some_and(|last| Arc::ptr_eq(last, &slot)) {
                        slots.push(slot.clone());
                    }
                }
            }
        }
        index.slots.get(policy).cloned().unwrap_or_default()
    }
}
