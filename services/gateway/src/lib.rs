//! The HTTP front: takes requests in, decides by its routes who answers them, and streams the answers out.
//!
//! ```text
//! socket ─▶ server::guard ─▶ actix ─▶ server::service ─▶ front ─▶ Port<Invoke>
//!             strict gate     framing     bodies             routes, problems
//! ```
//!
//! Nothing in it must be remembered between requests, so that any number of gateways may stand side by side.

pub mod cache;
pub mod config;
pub mod error;
pub mod explain;
pub mod gateway;
pub mod router;

pub use gateway::{Drained, Gateway, Insight, Options, Routes, Running, Tuner};
pub use metrics::{ByClass, GatewayFigures, SlowRequest, Span, StageTime, describe};
pub use server::PortFactory;

mod access_log;
mod answer;
mod dashboard;
mod front;
mod landing;
mod metrics;
mod path;
mod problem;
mod request;
mod server;
