//! The control plane of a pool: an actor that keeps the zygote and the right number of processes alive.
//!
//! It never touches a call. The data path takes idle processes and gives them back by itself, and tells the actor when it
//! found one dead or wants one more.

mod actor;
mod capture;
mod cores;
#[cfg(test)]
pub(crate) mod failing;
mod hatch;
mod launch;
mod memory;
mod renewal;
mod start;
mod usage;
mod zygote;

use std::os::fd::OwnedFd;
use std::time::Duration;

use actix::Message;
use tokio::sync::oneshot;

pub(crate) use actor::PoolActor;
pub(crate) use launch::{Launch, upload_limits};
pub(crate) use renewal::Done;
pub use renewal::{RenewError, Renewal, Renewed};
pub(crate) use start::{Plan, start};
pub(crate) use usage::Usage;

use crate::process::Fate;
use zygote::{Event, Loaded};

/// How long the last output of a program that ended is waited for: a program it started may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// What the actor is told.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Note {
    /// A call found no process.
    Grow,
    /// A process is about to have taken all its calls.
    Retiring { id: u32 },
    /// The data path has done with a process.
    Gone { id: u32, fate: Fate },
    /// A zygote said something.
    Event { generation: u64, event: Event },
    /// A zygote is gone.
    ZygoteExited { generation: u64, status: String, tail: String },
    /// A process takes calls.
    Ready { id: u32, pid: i32, loaded: Option<Loaded>, input: OwnedFd, output: OwnedFd },
    /// A process did not come up.
    NotReady { id: u32, why: String },
    /// A process that no zygote forked is gone.
    Exited { id: u32, status: String },
    /// A process is gone and its last output is read.
    Buried { id: u32, status: String },
    /// The code is to be loaded, after a pause.
    Boot { generation: u64 },
    /// Processes, and the code if that is asked for, are to be replaced.
    Renew { what: Renewal, done: Done },
    /// Another pool has taken this one's place, or none has: it keeps no process for calls that will not come.
    GiveUp,
    /// Everything is to end.
    Stop { done: oneshot::Sender<()> },
}
