//! Whole stacks in a test: real processes, real sockets, real signals. For development only.
//!
//! A [`stack::Stack`] starts the real binary, as one process or as one per service, in a directory of its own and on ports
//! of its own, and takes everything down again when it is dropped. [`http`] is a small blocking client that shows a
//! response as it came over the wire, [`upstream`] is a server that does as the test says, [`websocket`] speaks WebSocket
//! from both ends, [`load`] keeps many clients busy while something is done to the stack, [`redis`] starts real servers,
//! clusters and Sentinels, [`instructions`] counts what an example takes, and [`tools`] says what is missing on this machine.

#![allow(clippy::disallowed_methods, reason = "tests wait for other processes on threads of their own")]

pub mod http;
pub mod instructions;
pub mod load;
pub mod ports;
pub mod processes;
pub mod redis;
pub mod stack;
pub mod tools;
pub mod upstream;
pub mod wait;
pub mod websocket;
