//! The messages between the services: types, versions and their codecs; no I/O.
//!
//! | contract | caller → callee | what for |
//! |---|---|---|
//! | [`invoke::Invoke`] | gateway → balancer → php-pool | one HTTP request |
//! | [`report::Report`] | balancer → php-pool | which pools an instance has, and how loaded they are |
//! | [`operate::Operate`] | balancer → php-pool | an operator's order: restart, reload |
//! | [`snapshot::Snapshot`] | every service → metrics | what an instance counts and uses |

pub mod invoke;
pub mod operate;
pub mod report;
pub mod snapshot;

mod envelope;
