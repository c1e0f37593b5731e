//! The admission webhook: one handler around `sluice_rules`, and what keeps it alive.

pub mod admission;
pub mod cluster;
pub mod command;
pub mod crds;
pub mod ledger;
pub mod world;
