//! One file per command of `sluice`.

pub mod judge;
pub mod record;
