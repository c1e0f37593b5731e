//! One file per command of `sluice-webhook`.

pub mod cel;
pub mod crds;
pub mod replay;
pub mod serve;
