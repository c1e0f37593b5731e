//! One file per command of `sluice-webhook`.

pub mod cel;
mod context;
pub mod crds;
pub mod replay;
pub mod serve;
