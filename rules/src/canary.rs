//! Evidence, verdict, next rung.

pub mod tick;
