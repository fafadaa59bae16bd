//! Redis as services use it: one server, the master that Sentinels name, or a cluster.
//!
//! Redis is an accelerator, not a crutch: [`Redis::open`] connects to nothing, every wait has a bound, and whoever asks gets
//! an answer or an [`Error`] within it. Connections are made when they are needed and thrown away after any failure, so
//! that the next command finds the server that is there by then. Logging and trying again are the caller's.

mod client;
mod connection;
mod error;
mod route;
mod settings;
mod subscription;

pub use client::Redis;
pub use connection::Connection;
pub use error::Error;
pub use redis;
pub use settings::{Login, Node, Place, Server, ServerError, Settings, Topology};
pub use subscription::Subscription;
