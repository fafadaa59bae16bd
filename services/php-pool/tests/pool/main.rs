//! Pools of real PHP processes, from outside: calls and replies, and everything that can happen to a process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod code;
mod deaths;
mod logs;
mod reloads;
mod renewals;
mod scaling;
mod seats;
mod support;
