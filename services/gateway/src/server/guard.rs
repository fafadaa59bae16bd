//! The strict gate before the HTTP parser, without I/O.
//!
//! actix's parser is lenient in places where the HTTP specifications are not, and where two servers in a row may come
//! to disagree (request smuggling). So it never sees a client's head. The gate follows the boundaries of messages (head,
//! body by length or by chunks, next head), refuses what is not beyond doubt, and hands the head inward as bytes; actix
//! is given a head of our own with nothing in it but the framing (see [`skeleton`]).

mod chunked;
mod head;
mod skeleton;

pub(super) use head::{Facts, absolute};
pub(super) use skeleton::{Skeleton, refusal};

use chunked::{ChunkScan, Step};
use head::{HeadScan, Part};

/// Why a connection is not read on. The request is answered, the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reject {
    RequestLine,
    Target,
    Version,
    Connect,
    BareLf,
    Field,
    Host,
    Length,
    TransferEncoding,
    Chunk,
    HeadTooLarge,
    NameTooLong,
    TooManyFields,
    HeadTimeout,
}

/// Follows one connection's bytes.
#[derive(Debug)]
pub(super) struct HeadGuard {
    state: State,
    max_head: u32,
}

#[derive(Debug)]
enum State {
    Head(HeadScan),
    Length(u64),
    Chunked(ChunkScan),
    Closed,
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// An empty line of that many bytes before a head. It is passed, and goes no further.
    Empty(usize),
    /// A complete head of that many bytes.
    Head(usize, Facts),
    /// That many bytes of a body or its framing.
    Body(usize),
    /// What is there does not end a line; it has to be shown again with more behind it.
    More,
    /// A head that is refused. Nothing of it goes further, and nothing behind it.
    RefuseHead(Reject),
    /// A body that is refused, while its request is being served.
    RefuseBody(Reject),
    /// Nothing is let through any more.
    Closed,
}

impl HeadGuard {
    pub(super) fn new(max_head: usize) -> Self {
        Self { state: State::Head(HeadScan::default()), max_head: u32::try_from(max_head).unwrap_or(u32::MAX) }
    }

    /// Judges `input`, which begins at the first byte not passed yet. Bytes that come back as passed must not be shown
    /// again; on [`Scan::More`] they all must.
    pub(super) fn scan(&mut self, input: &[u8]) -> Scan {
        match &mut self.state {
            State::Head(_) if input.is_empty() => Scan::More,
            State::Head(scan) => match scan.advance(input, self.max_head as usize) {
                Ok(Part::Head(len, facts)) => {
                    self.state = match facts.length {
                        _ if facts.chunked => State::Chunked(ChunkScan::Size),
                        Some(length) if length > 0 => State::Length(length),
                        _ => State::Head(HeadScan::default()),
                    };
                    Scan::Head(len, facts)
                }
                Ok(Part::Empty(len)) => Scan::Empty(len),
                Ok(Part::More) => Scan::More,
                Err(reject) => {
                    self.state = State::Closed;
                    Scan::RefuseHead(reject)
                }
            },
            State::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                if taken == 0 {
                    return Scan::More;
                }
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::Head(HeadScan::default());
                }
                Scan::Body(taken)
            }
            State::Chunked(scan) => match scan.advance(input) {
                Ok(Step::Pass(taken)) => Scan::Body(taken),
                Ok(Step::End(taken)) => {
                    self.state = State::Head(HeadScan::default());
                    Scan::Body(taken)
                }
                Ok(Step::More) => Scan::More,
                Err(reject) => {
                    self.state = State::Closed;
                    Scan::RefuseBody(reject)
                }
            },
            State::Closed => Scan::Closed,
        }
    }

    /// Lets nothing through any more.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Whether the next byte belongs to a head.
    pub(super) fn at_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}

impl Reject {
    /// The name in metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::Target => "target",
            Self::Version => "version",
            Self::Connect => "connect",
            Self::BareLf => "bare_lf",
            Self::Field => "field",
            Self::Host => "host",
            Self::Length => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::Chunk => "chunk",
            Self::HeadTooLarge => "head_too_large",
            Self::NameTooLong => "name_too_long",
            Self::TooManyFields => "too_many_fields",
            Self::HeadTimeout => "head_timeout",
        }
    }

    /// All of them, for metrics.
    pub(crate) const ALL: [Self; 14] = [
        Self::RequestLine,
        Self::Target,
        Self::Version,
        Self::Connect,
        Self::BareLf,
        Self::Field,
        Self::Host,
        Self::Length,
        Self::TransferEncoding,
        Self::Chunk,
        Self::HeadTooLarge,
        Self::NameTooLong,
        Self::TooManyFields,
        Self::HeadTimeout,
    ];
}

#[cfg(test)]
mod tests;
