//! The metrics service: every instance tells it each second what it counted; it merges that and shows it.
//!
//! No service waits for it: a reporter sends one snapshot at a time, drops what it cannot get rid of, and sums up what was
//! missed in the next one.
//!
//! | module | subject |
//! |---|---|
//! | [`reporter`] | the other side, in every instance: what changed since the last reading, sent each second |
//! | `cluster` | the core, without sockets or clocks: instances, merged series, 15 minutes of history, problems |
//! | `collector` | the actor around the core |
//! | `wiring` | [`MetricsService`]: starting it, its port, its pages |
//! | `pages` | `/metrics/cluster` and the dashboard |

pub mod reporter;

mod cluster;
mod collector;
mod describe;
mod pages;
mod wiring;

pub use describe::describe;
pub use wiring::{MetricsService, StartError};
