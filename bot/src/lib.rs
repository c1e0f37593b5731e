#![doc = include_str!("../README.md")]

pub mod command;
pub mod config;
pub mod demo;
pub mod forge;
pub mod metrics;
pub mod reconcile;
pub mod report;
pub mod repository;
