//! What an upstream server may not say.

/// Why a reply is not believed. Before its head has gone on, the client gets 502; after, its connection is cut, so that it
/// cannot take a part for the whole. Either way the server's connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lie {
    /// The status line is none of HTTP/1.0 or 1.1 (RFC 9112 §4).
    StatusLine,
    /// A line does not end with CRLF.
    BareLf,
    /// A field line is malformed (RFC 9112 §5).
    Field,
    /// A field line is folded (RFC 9112 §5.2).
    Folded,
    /// The head is larger than [`super::head::MAX_HEAD`], or has more fields than a head holds.
    HeadTooLarge,
    /// `Content-Length` is repeated, malformed, or stands where there is no body (RFC 9112 §6.2).
    Length,
    /// `Transfer-Encoding` is not exactly `chunked`, or comes from an HTTP/1.0 server (RFC 9112 §6.1).
    TransferEncoding,
    /// `Content-Length` stands beside `Transfer-Encoding`: two servers could disagree (RFC 9112 §6.3).
    Ambiguous,
    /// The chunked framing is malformed (RFC 9112 §7.1).
    Chunk,
    /// The connection ended before the reply did.
    Truncated,
    /// Bytes came behind the end of the reply.
    Surplus,
    /// The protocol was switched although nobody asked for it, or to another one (RFC 9110 §15.2.2).
    Switched,
    /// More interim replies than anybody needs.
    Interim,
}

impl Lie {
    /// All of them, for metrics.
    pub const ALL: [Self; 13] = [
        Self::StatusLine,
        Self::BareLf,
        Self::Field,
        Self::Folded,
        Self::HeadTooLarge,
        Self::Length,
        Self::TransferEncoding,
        Self::Ambiguous,
        Self::Chunk,
        Self::Truncated,
        Self::Surplus,
        Self::Switched,
        Self::Interim,
    ];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StatusLine => "status_line",
            Self::BareLf => "bare_lf",
            Self::Field => "field",
            Self::Folded => "folded",
            Self::HeadTooLarge => "head_too_large",
            Self::Length => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::Ambiguous => "ambiguous",
            Self::Chunk => "chunk",
            Self::Truncated => "truncated",
            Self::Surplus => "surplus",
            Self::Switched => "switched",
            Self::Interim => "interim",
        }
    }
}
