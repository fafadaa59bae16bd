//! PHP processes: spawn, feed, watch, recycle; uploads; hard caps.
//!
//! [`PhpPools`] owns the pools of a process, [`PhpPool`] is a thread's way to them. A call goes from the calling thread
//! straight into the pipe of an idle PHP process and the reply is read by the call's own future: no mailbox, no other thread
//! and no task in between. Everything that lives longer than a call is the business of one actor per pool.
//!
//! Reading order: [`pools`] and `call`, then `turn` and `lanes` (who talks to which process), then `control`.

pub mod config;
pub mod error;
pub mod owner;
pub mod pools;

pub use control::{RenewError, Renewal, Renewed};
pub use metrics::describe;
pub use pool::CrashLoop;
pub use pools::{Options, PhpPool, PhpPools, PoolStatus};

mod acquire;
mod alarm;
mod call;
mod control;
mod feed;
mod functions;
mod lanes;
mod local;
mod metrics;
mod multipart;
mod pool;
mod printed;
mod process;
mod protocol;
mod reply;
mod request;
mod rundir;
mod serialize;
mod server_vars;
mod spool;
mod stream;
mod turn;
