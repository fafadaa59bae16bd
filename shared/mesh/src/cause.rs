//! Why a connection failed, in few words: what counters of connection errors are told apart by, whoever dialled.

use std::io;

/// What an error of a socket means to whoever watches. A closed set, so that it can be a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoCause {
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// There is no way there.
    Unreachable,
    /// The other side ended it without a word.
    Reset,
    /// What this side ran out of, and everything else; the log has the words.
    Other,
}

impl IoCause {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::Other => "other",
        }
    }
}

impl From<&io::Error> for IoCause {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            // Of a Unix socket, whose path is there only while somebody listens.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => Self::Unreachable,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::WriteZero
            | io::ErrorKind::UnexpectedEof => Self::Reset,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_have_their_cause() {
        for (errno, cause) in [
            (rustix::io::Errno::CONNREFUSED, IoCause::Refused),
            (rustix::io::Errno::NOENT, IoCause::Refused),
            (rustix::io::Errno::TIMEDOUT, IoCause::Timeout),
            (rustix::io::Errno::HOSTUNREACH, IoCause::Unreachable),
            (rustix::io::Errno::CONNRESET, IoCause::Reset),
            (rustix::io::Errno::PIPE, IoCause::Reset),
            (rustix::io::Errno::MFILE, IoCause::Other),
        ] {
            assert_eq!(IoCause::from(&io::Error::from(errno)), cause, "{errno}");
        }
    }
}
