//! See Cargo.toml.

pub mod config;
pub mod router;

mod path;
