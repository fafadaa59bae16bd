//! stdout carries data, stderr what is said to people.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::CommandError;

/// Writes data to stdout. A reader that has gone away (`| head`) is no failure.
pub(crate) fn data(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a value to stdout as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CommandError::failed(format!("cannot write the answer as JSON: {error}")))?;
    data(&format!("{text}\n"))
}

/// Writes to stderr, where nothing can be done about a failure.
pub(crate) fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    let _unheard = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Whether stderr takes colours: a terminal, and `NO_COLOR` is not set.
pub(crate) fn colored_stderr() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
