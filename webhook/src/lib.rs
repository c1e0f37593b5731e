//! The admission webhook: one handler around `sluice_rules`, and what keeps it alive.

pub mod admission;
pub mod cel;
pub mod command;
pub mod ledger;
pub mod review;
pub mod world;
