//! Whole stacks, end to end: the same requests through every wiring, and what happens when parts of them die.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests wait for other processes on threads of their own, and a failed unwrap is a failed test"
)]

mod support;

mod answers;
mod caching;
mod commands;
mod dashboard;
mod drains;
mod endures;
mod fairness;
mod faults;
mod fpm;
mod kills;
mod leaks;
mod logs;
mod membership;
mod mesh;
mod metrics;
mod reload;
mod replies;
mod signals;
mod terminal;
mod threads;
mod tiers;
mod timings;
mod uploads;
mod upstream;
mod volume;
