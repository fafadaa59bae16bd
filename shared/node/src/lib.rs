//! See Cargo.toml.

pub mod config;
pub mod units;

pub mod admin;
pub mod html;
pub mod limits;
pub mod metrics;
pub mod notices;
pub mod shutdown;
pub mod telemetry;
pub mod threads;
