//! The mesh as services see it: one suite over every wiring, then what only links can do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod contract;
mod every_wiring;
mod hostile_peer;
mod link_life;
mod pools;
mod standstill;
mod wiring;
