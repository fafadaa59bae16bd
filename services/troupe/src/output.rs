//! stdout carries data, stderr what is said to people.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::CommandError;

/// Whoever reads stdout, after something was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Reads,
    /// It has what it wanted (`| head`), which is no failure; what goes on by itself ends.
    Gone,
}

/// Writes data to stdout. A reader that has gone away is no failure.
pub(crate) fn data(text: &str) -> Result<(), CommandError> {
    piece(text).map(drop)
}

/// Writes a value to stdout as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), CommandError> {
    json_piece(value).map(drop)
}

/// Writes some of the data of a command that goes on.
pub(crate) fn piece(text: &str) -> Result<Reader, CommandError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(CommandError::failed(format!("cannot write to stdout: {error}"))),
    }
}

/// The same of a value, as JSON.
pub(crate) fn json_piece(value: &impl Serialize) -> Result<Reader, CommandError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CommandError::failed(format!("cannot write the answer as JSON: {error}")))?;
    piece(&format!("{text}\n"))
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
