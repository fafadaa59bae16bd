//! Membership through real Redis servers: who is seen, and what is seen while Redis is in trouble.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed unwrap is a failed test; the tests drive other processes"
)]

mod hostile;
mod outages;
mod registering;
mod support;
mod topologies;
