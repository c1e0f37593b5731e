//! What the webhook knows when it answers: one consistent snapshot, replaced as a whole.

use arc_swap::{ArcSwap, Guard};
use sluice_rules::guard::{Approval, ShiftGuard};
use sluice_rules::health::Known;
use sluice_rules::validate::Kuma;
use std::sync::Arc;

/// What the webhook knows when it answers.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The guards.
    pub guards: Vec<ShiftGuard>,
    /// The approvals that are in force.
    pub approvals: Vec<Approval>,
    /// The objects that policies refer to.
    pub known: Arc<Known>,
    /// The control plane.
    pub kuma: Arc<Kuma>,
    /// Is there a cluster behind it? Without one, guards come from files and history stays in memory.
    pub in_cluster: bool,
}

/// The current [`World`], read without a lock.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<ArcSwap<World>>);

impl Shared {
    /// The current world.
    pub fn load(&self) -> Guard<Arc<World>> {
        self.0.load()
    }

    /// Replaces the world.
    pub fn store(&self, world: World) {
        self.0.store(Arc::new(world));
    }

    /// Replaces the world by a changed copy; concurrent changes are all kept.
    pub fn update(&self, change: impl Fn(&mut World)) {
        self.0.rcu(|world| {
            let mut world = World::clone(world);
            change(&mut world);
            world
        });
    }
}
