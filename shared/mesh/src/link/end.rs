//! Why a link ended.

use std::time::Duration;

use troupe_wire::frame::ProtocolError;

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// It was drained, or nobody needed it any more; nothing was in flight.
    #[error("it is no longer needed")]
    Finished,
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer said nothing, not even PONG.
    #[error("the peer has been silent for {0:?}")]
    Silent(Duration),
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(std::io::ErrorKind),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The peer makes this side queue more control frames than it reads.
    #[error("the peer floods the link with frames that need answers")]
    Flooded,
    /// The thread of the link stops.
    #[error("the thread stops")]
    Stopped,
}

impl LinkEnd {
    /// The name in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Closed => "closed",
            Self::Silent(_) => "silent",
            Self::Io(_) => "io",
            Self::Protocol(_) => "protocol",
            Self::Flooded => "flooded",
            Self::Stopped => "stopped",
        }
    }
}

impl From<std::io::Error> for LinkEnd {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.kind())
    }
}
