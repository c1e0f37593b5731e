//! The admission webhook: one handler around `sluice_rules`, and what keeps it alive.

pub mod admission;
pub mod cel;
pub mod cluster;
pub mod command;
pub mod crds;
pub mod guards;
pub mod ledger;
pub mod report;
pub mod review;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod world;
