//! What can go wrong with a call of an upstream server, and what is known of the call then.

use std::io;
use std::time::Duration;

use troupe_mesh::failure::{Failure, Outcome, Stage};

use super::cause::Cause;
use super::lie::Lie;
use super::server::Server;

/// When a client that found every connection in use may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why an exchange ended without a reply's head.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection could be made.
    Connect(io::Error),
    /// Every connection there may be was in use for too long.
    Full,
    /// The connection did not take a single byte.
    Unsent(io::Error),
    /// The connection ended before a byte of the reply came.
    Closed(Option<io::Error>),
    /// The server answered with what is no answer.
    Lie(Lie),
    /// The server did not take the request in.
    WriteTimeout,
    /// The server did not answer.
    ReplyTimeout,
}

impl From<Lie> for Fault {
    fn from(lie: Lie) -> Self {
        Self::Lie(lie)
    }
}

impl Fault {
    /// Whether the call may be sent once more on a connection of its own: the one that was kept had ended meanwhile.
    pub(super) fn is_stale(&self, idempotent: bool) -> bool {
        match self {
            Self::Unsent(_) => true,
            Self::Closed(_) => idempotent,
            _ => false,
        }
    }

    /// What it is counted as here; that of a lie is counted with the lie.
    fn cause(&self) -> Option<Cause> {
        match self {
            Self::Connect(error) => Some(Cause::of_connect(error)),
            Self::Full => Some(Cause::Full),
            Self::Unsent(error) | Self::Closed(Some(error)) => Some(Cause::of_broken(error)),
            Self::Closed(None) => Some(Cause::Closed),
            Self::Lie(_) => None,
            Self::WriteTimeout => Some(Cause::WriteTimeout),
            Self::ReplyTimeout => Some(Cause::ReplyTimeout),
        }
    }

    /// The failure as callers know it; counted here, once.
    pub(super) fn into_failure(self, server: &Server) -> Failure {
        let name = &server.name;
        let of = |outcome, reason| Failure::new(outcome, Stage::Upstream, reason);
        if let Some(cause) = self.cause() {
            server.meters.failed(cause);
        }
        match self {
            Self::Connect(error) => of(Outcome::Unreachable, "the upstream server cannot be reached")
                .not_started()
                .with_detail(format!("{name}: connect: {error}")),
            Self::Full => Failure::overloaded(Stage::Upstream, "every upstream connection is in use", RETRY_AFTER)
                .with_detail(format!("{name}: {} connections, the most", server.cap())),
            Self::Unsent(error) => of(Outcome::Unreachable, "the upstream server cannot be reached")
                .not_started()
                .with_detail(format!("{name}: write: {error}")),
            Self::Closed(error) => of(Outcome::Broken, "the upstream server closed the connection without an answer")
                .with_detail(match error {
                    Some(error) => format!("{name}: {error}"),
                    None => format!("{name}: the connection ended"),
                }),
            Self::Lie(lie) => {
                server.meters.lied(lie);
                of(Outcome::Broken, "the upstream server's answer is malformed")
                    .answered()
                    .with_detail(format!("{name}: {}", lie.as_str()))
            }
            Self::WriteTimeout => of(Outcome::Deadline, "the upstream server did not take the request in time")
                .with_detail(name.to_string()),
            Self::ReplyTimeout => {
                of(Outcome::Deadline, "the upstream server did not answer in time").with_detail(name.to_string())
            }
        }
    }
}
