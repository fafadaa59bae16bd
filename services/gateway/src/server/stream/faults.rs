//! Connections that fail are counted, each once, by what came first.

use std::io;

use super::GuardedStream;
use crate::metrics::Fault;

impl GuardedStream {
    /// The socket has failed. Between two requests a client may end its connection as it likes.
    pub(super) fn broke(&mut self, error: io::Error) -> io::Error {
        if !self.conn.is_idle() || self.tunnel.is_some() {
            self.fail(Fault::Reset);
        }
        error
    }

    pub(super) fn fail(&mut self, fault: Fault) {
        if !std::mem::replace(&mut self.failed, true) {
            self.thread.metrics.connection_failed(fault);
        }
    }
}
