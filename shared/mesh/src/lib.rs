//! The mesh: how services call each other without knowing where the other is.
//!
//! A service holds a [`port::Port`] per contract. Behind it stands a function call, an actor's mailbox, a link to another
//! process, or a pool of links; the service's wiring chooses, the service cannot tell. Calls are delivered at most once
//! and always carry a deadline. The control plane (who is there, who restarts whom) lives in actix actors; a call
//! crosses none of them.

pub mod body;
pub mod cause;
pub mod config;
pub mod contract;
pub mod deadline;
pub mod discovery;
pub mod failure;
pub mod link;
pub mod listener;
pub mod loopback;
pub mod pool;
pub mod port;
pub mod supervise;
pub mod times;
pub mod wiring;

mod describe;
mod rate_limit;

pub use describe::describe;
