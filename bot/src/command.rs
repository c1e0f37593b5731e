//! One file per command of `sluice`.

pub mod config;
pub mod judge;
pub mod record;
