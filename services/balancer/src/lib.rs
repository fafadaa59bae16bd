//! The balancer: which worker takes a call, when one waits, when it is tried again.
//!
//! A worker is a pool of a php-pool instance, or an HTTP server upstream. Control is with actors (a supervisor over one actor per worker); calls
//! pass none of them: they read what the supervisor publishes and count themselves in and out with atomics.
//!
//! | module | subject |
//! |---|---|
//! | `wiring` | [`Balancer`]: starting it, and its face on each thread |
//! | `relay`, `hold`, `upload`, `thread` | the data path: one call from pick to reply |
//! | `pick`, `slot`, [`score`] | the choice of a worker, its numbers, the arithmetic |
//! | `pool`, `queue` | places at workers, and the calls that wait for one |
//! | `retry`, `lessons` | what is tried again; what a call's end says of its worker |
//! | `supervisor`, `lifecycle`, `ranking` | who is there, in which state, in which order |
//! | `survey` | whom a call would go to, for people |
//! | [`upstream`] | HTTP servers as workers |
//!
//! Outside `upstream` nothing here knows HTTP, except for the status of a reply: heads and bodies pass through as they came.

#[doc(hidden)]
pub mod bench;
pub mod config;
pub mod instances;
mod wiring;

mod hold;
mod relay;
mod thread;
mod upload;

mod pick;
pub mod score;
mod slot;

mod pool;
mod queue;

mod lessons;
mod retry;
mod sketch;

mod directory;
mod lifecycle;
mod ranking;
mod supervisor;
mod tuning;
mod worker;

pub mod upstream;

mod clock;
mod meters;
mod survey;

#[cfg(test)]
mod simulation;

pub use directory::TooManyPools;
pub use meters::describe;
pub use ranking::{PoolSnapshot, Snapshot, WorkerSnapshot};
pub use slot::State;
pub use survey::Surveyor;
pub use wiring::Balancer;
