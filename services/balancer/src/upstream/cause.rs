//! What goes wrong with upstream servers, in the words of the one counter that tells it.

use std::io;

use troupe_mesh::cause::IoCause;

/// Why a connection or a call failed at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nobody listens there.
    Refused,
    /// There is no way there.
    Unreachable,
    /// It did not accept the connection within `timeouts.connect`.
    ConnectTimeout,
    /// It took nothing of the request for `timeouts.write`.
    WriteTimeout,
    /// The head of its reply did not come within `timeouts.first_byte`, or before the request was overdue.
    ReplyTimeout,
    /// Its reply's body paused for `timeouts.idle`.
    BodyTimeout,
    /// It reset the connection.
    Reset,
    /// It ended the connection without an answer.
    Closed,
    /// Its answer is none.
    Protocol,
    /// All connections to it that there may be were in use for too long.
    Full,
    /// This side's: out of descriptors, for one.
    Other,
}

impl Cause {
    /// All of them, in the order of the counters.
    pub(super) const ALL: [Self; 11] = [
        Self::Refused,
        Self::Unreachable,
        Self::ConnectTimeout,
        Self::WriteTimeout,
        Self::ReplyTimeout,
        Self::BodyTimeout,
        Self::Reset,
        Self::Closed,
        Self::Protocol,
        Self::Full,
        Self::Other,
    ];

    /// Why there is no connection.
    pub(super) fn of_connect(error: &io::Error) -> Self {
        match IoCause::from(error) {
            IoCause::Refused => Self::Refused,
            IoCause::Timeout => Self::ConnectTimeout,
            IoCause::Unreachable => Self::Unreachable,
            IoCause::Reset => Self::Reset,
            IoCause::Other => Self::Other,
        }
    }

    /// Why a connection that stood broke.
    pub(super) fn of_broken(error: &io::Error) -> Self {
        match IoCause::from(error) {
            // The kernel's own, of bytes that nobody confirmed: the way there is gone.
            IoCause::Timeout | IoCause::Unreachable => Self::Unreachable,
            IoCause::Reset => Self::Reset,
            IoCause::Refused | IoCause::Other => Self::Other,
        }
    }

    /// The name in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::ReplyTimeout => "reply_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Full => "full",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_place_and_its_name() {
        let mut names: Vec<&str> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        assert!(Cause::ALL.iter().enumerate().all(|(place, cause)| *cause as usize == place));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Cause::ALL.len());
    }

    #[test]
    fn a_timeout_is_the_connections_only_before_it_stands() {
        let error = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!((Cause::of_connect(&error), Cause::of_broken(&error)), (Cause::ConnectTimeout, Cause::Unreachable));
    }
}
