//! Reservations and confirmed shifts: judged and reserved in one step, so that racing changes cannot exceed a cap.
//!
//! [`sluice_rules::guard::Ledger`] says what a reservation is and when it ends. This module keeps the ledgers, in this
//! process ([`Memory`]) or as `ShiftLedger` objects that all replicas share ([`Cluster`]).

mod case;
mod cluster;
mod memory;
mod splits;

pub use cluster::{Before, Cluster, Counts, LEASE, Seen};
pub use memory::Memory;
pub use splits::Splits;

use crate::world::World;
use jiff::Timestamp;
use sluice_rules::guard::{Request, Verdict};
use std::sync::Arc;
use std::time::Instant;

/// A change that asks to be admitted.
#[derive(Debug)]
pub struct Asked {
    /// Who changes what.
    pub request: Request,
    /// The object's uid; empty when the review has none.
    pub uid: String,
    /// The resource version of the object as it is before the change; none when it is created.
    pub version: Option<String>,
    /// The splits before the change, as the review shows them.
    pub before: Arc<Splits>,
    /// The splits after the change; none when the object is deleted.
    pub after: Arc<Splits>,
    /// A dry run is judged and reserves nothing.
    pub dry_run: bool,
    /// What time it is by our clock. Where replicas share a ledger the API server's clock counts.
    pub now: Timestamp,
    /// When the answer must be there.
    pub deadline: Instant,
}

/// Why a change could not be judged and reserved.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// Other changes of the same subject came first, again and again.
    #[error("other changes of `{0}` are being admitted at this moment: apply again")]
    Contended(String),
    /// The ledger cannot be reached.
    #[error("the ledger of `{subject}` cannot be reached: {source}")]
    Unreachable {
        /// Whose ledger.
        subject: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no time left.
    #[error("the time for an answer is over")]
    Late,
}

/// Where history is kept.
#[derive(Debug)]
pub enum Ledger {
    /// In this process: a restart forgets it, replicas do not share it.
    Memory(Memory),
    /// In the cluster, shared by all replicas.
    Cluster(Cluster),
}

impl Ledger {
    /// Judges a change and, when it may happen, reserves its shift.
    ///
    /// A denial is no error. A way back to the stable split is allowed even when it cannot be recorded; a note of the
    /// verdict says so.
    ///
    /// # Errors
    ///
    /// Neither allowed nor denied: the change must not happen now, and the error says why.
    pub async fn admit(&self, asked: &Asked, world: &World) -> Result<Verdict, Unavailable> {
        match self {
            Self::Memory(memory) => memory.admit(asked, world),
            Self::Cluster(cluster) => cluster.admit(asked, world).await,
        }
    }
}

#[cfg(test)]
mod tests;
