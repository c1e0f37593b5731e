//! What somebody might hand to Sluice instead: a clear error with its place and remedy, a documented exit code, and nothing
//! half-written.

#![allow(clippy::unwrap_used, reason = "a panic in a test's helper is the failure itself")]

#[path = "bad_input/config.rs"]
mod config;
#[path = "bad_input/judge.rs"]
mod judge;
#[path = "bad_input/names.rs"]
mod names;
#[path = "bad_input/recording.rs"]
mod recording;
#[path = "bad_input/repository.rs"]
mod repository;
#[path = "bad_input/stops.rs"]
mod stops;
#[path = "bad_input/verify.rs"]
mod verify;
#[path = "bad_input/world.rs"]
mod world;
