//! Renewal: a pool's processes are replaced, and its code if that is asked for, while calls go on.

use tokio::sync::oneshot;

/// What is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The processes: new ones of the same code, one after another.
    Processes,
    /// The code, and with it the processes: a new generation is loaded and verified beside the old one, which goes on serving
    /// if the new one is broken.
    Code,
}

/// What came of it: new calls go to the new processes only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// Processes that were replaced.
    pub replaced: u32,
    /// Functions of the code that serves now.
    pub functions: usize,
}

/// Why a pool was not renewed. What served before goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// There is no pool of this name.
    #[error("there is no pool {0}")]
    NoPool(String),
    /// Another renewal of its code is under way.
    #[error("a reload of the pool is under way already; try again when it is done")]
    Busy,
    /// The pool is about to end.
    #[error("the pool is stopped")]
    Stopping,
    /// The new code cannot be loaded.
    #[error("the new code cannot be loaded, the old goes on serving: {0}")]
    Broken(String),
    /// There is no old code either.
    #[error("the code cannot be loaded: {0}")]
    Down(String),
    /// The pool's actor failed, or was stopped, before it had answered.
    #[error("what became of it is not known: the pool was stopped or its actor failed; see the log")]
    Lost,
    /// Not all processes could be replaced in time; the old ones that are left go on.
    #[error("not every process was replaced in time: {left} of the old are left and go on")]
    Late {
        /// How many are left.
        left: usize,
    },
}

/// Who waits for the end of a renewal.
pub(crate) type Done = oneshot::Sender<Result<Renewed, RenewError>>;
