//! One file per command of `sluice-webhook`.

pub mod cel;
pub mod crds;
mod mesh;
pub mod replay;
pub mod serve;
