#![doc = include_str!("../README.md")]

pub mod canary;
pub mod decision;
pub mod diagnostic;
pub mod document;
pub mod evidence;
pub mod field;
pub mod guard;
pub mod health;
pub mod plan;
pub mod policy;
pub mod proposal;
pub mod schema;
pub mod shadow;
pub mod split;
pub mod validate;
pub mod words;
