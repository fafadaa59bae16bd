//! How a command fails: what it says and the exit code it ends with.

use std::fmt;

use troupe_node::config::Problems;

/// Why a command failed, as its exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It failed while running.
    Failed = 1,
    /// The command line is used wrongly.
    Usage = 2,
    /// A dependency or peer is not available.
    Unavailable = 69,
    /// What is in the way may go away: a port is taken.
    TryAgain = 75,
    /// The configuration is wrong.
    Configuration = 78,
}

/// The exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed
   2  wrong usage of the command line
  69  a dependency or a peer is unavailable
  75  try again: a port is busy; calls are still with a drained worker
  78  the configuration is wrong";

/// A failed command.
#[derive(Clone, Debug)]
pub(crate) struct CommandError {
    /// How the process ends.
    pub(crate) code: Code,
    /// What is said on stderr; may have several lines, or none when all has been said.
    pub(crate) message: String,
}

impl CommandError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failure of the command itself.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CommandError {}

impl From<Problems> for CommandError {
    fn from(problems: Problems) -> Self {
        Self::new(Code::Configuration, problems.render(crate::output::colored_stderr()))
    }
}
