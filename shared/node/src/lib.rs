//! See Cargo.toml.

pub mod config;
pub mod units;

pub mod limits;
pub mod telemetry;
pub mod threads;
