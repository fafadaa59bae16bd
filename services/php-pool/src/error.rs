//! Why a pool cannot be started at all. What goes wrong later is retried, logged and answered with 503.

use std::io;
use std::path::PathBuf;

/// Why a pool does not take another configuration; all pools go on as they were.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It cannot work on this machine.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It was started and cannot serve as well as what serves now.
    #[error("pool {pool}: it was started as configured anew and cannot serve: {why}")]
    Broken {
        /// The pool.
        pool: String,
        /// Why.
        why: String,
    },
    /// Too many pools of earlier configurations still have calls.
    #[error("{parting} pools of earlier configurations still finish their calls; try again when they are done")]
    Busy {
        /// How many.
        parting: usize,
    },
    /// The pools are about to stop.
    #[error("the pools are about to stop")]
    Stopping,
}

/// A configuration that cannot work on this machine.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory of the functions cannot be entered.
    #[error("pool {pool}: cannot open the functions at {}: {error}; set php.{pool}.root", root.display())]
    Root {
        /// The pool.
        pool: String,
        /// The directory.
        root: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The PHP binary does not run.
    #[error("pool {pool}: cannot run {binary}: {why}; install php-cli or set php.{pool}.binary")]
    Php {
        /// The pool.
        pool: String,
        /// The binary.
        binary: String,
        /// Why.
        why: String,
    },
    /// The user is unknown.
    #[error("pool {pool}: there is no user {user}; set php.{pool}.user to a name of /etc/passwd or to uid:gid")]
    User {
        /// The pool.
        pool: String,
        /// The user.
        user: String,
    },
    /// The bounds of the number of processes contradict each other.
    #[error("pool {pool}: processes.min {min} is above processes.max {max}, or max is 0")]
    Processes {
        /// The pool.
        pool: String,
        /// Fewest processes.
        min: u16,
        /// Most processes.
        max: u16,
    },
    /// A directory or thread could not be made.
    #[error("pool {pool}: cannot {what}: {error}")]
    System {
        /// The pool, or all of them.
        pool: String,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}
