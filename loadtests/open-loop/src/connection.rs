//! One keep-alive connection with at most one request on the way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use memchr::memmem;

/// The largest answer that is taken; the bodies of a comparison are small.
const MAX_ANSWER: usize = 64 * 1024;

/// The end of a body in chunks.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// What reading has brought.
pub(crate) enum Progress {
    /// Part of an answer, or nothing.
    Pending,
    /// The whole answer, and it is the expected one.
    Answered {
        /// When its request fell due.
        due: Instant,
        /// The server closes the connection behind it.
        closes: bool,
    },
    /// The server closed the connection while no request was on the way.
    ClosedIdle,
    /// The connection broke in an answer, or the answer is another than expected.
    Failed,
}

/// A non-blocking connection.
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
    due: Option<Instant>,
}

impl Connection {
    /// Connects, waiting for it: on loopback the kernel answers at once.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(1024), due: None })
    }

    /// The socket, for the epoll.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a request that fell due at `due`. A request is smaller than an empty socket buffer, so it never blocks.
    pub(crate) fn send(&mut self, request: &[u8], due: Instant) -> io::Result<()> {
        self.answer.clear();
        self.due = Some(due);
        self.stream.write_all(request)
    }

    /// Reads what is there, and says whether the answer is complete and carries `body`.
    pub(crate) fn receive(&mut self, body: &[u8]) -> Progress {
        let mut piece = [0; 4096];
        let mut closed = false;
        match self.stream.read(&mut piece) {
            Ok(0) => closed = true,
            Ok(length) => self.answer.extend_from_slice(&piece[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Progress::Pending;
            }
            Err(_) => closed = true,
        }
        let Some(due) = self.due else {
            // Bytes that nobody asked for are a failure, an end is not.
            return if closed { Progress::ClosedIdle } else { Progress::Failed };
        };
        match judge(&self.answer, body) {
            Verdict::Whole { closes } => {
                self.due = None;
                Progress::Answered { due, closes }
            }
            Verdict::Part if !closed && self.answer.len() < MAX_ANSWER => Progress::Pending,
            Verdict::Part | Verdict::Wrong => Progress::Failed,
        }
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Part,
    Whole { closes: bool },
    Wrong,
}

fn judge(answer: &[u8], body: &[u8]) -> Verdict {
    let Some(head_length) = memmem::find(answer, b"\r\n\r\n") else {
        return Verdict::Part;
    };
    let (head, rest) = answer.split_at(head_length);
    let received = rest.get(4..).unwrap_or_default();
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Verdict::Wrong;
    }
    let whole = match field(head, b"content-length") {
        Some(length) => {
            let expected = body.len().to_string();
            if length != expected.as_bytes() {
                return Verdict::Wrong;
            }
            received.len() >= body.len()
        }
        None => received.ends_with(LAST_CHUNK),
    };
    if !whole {
        return Verdict::Part;
    }
    if memmem::find(received, body).is_none() {
        return Verdict::Wrong;
    }
    let closes = field(head, b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Verdict::Whole { closes }
}

/// The value of the first field of that name (in lower case).
fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let (left, right) = line.split_at_checked(name.len())?;
        let value = right.strip_prefix(b":")?;
        left.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::{Verdict, judge};

    #[test]
    fn a_body_by_length() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(judge(answer, b"ok"), Verdict::Whole { closes: false });
        assert_eq!(judge(&answer[..answer.len() - 1], b"ok"), Verdict::Part);
        assert_eq!(judge(answer, b"ko"), Verdict::Wrong);
        assert_eq!(judge(answer, b"okay"), Verdict::Wrong);
    }

    #[test]
    fn a_body_in_chunks_on_a_connection_that_closes() {
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(judge(answer, b"ok"), Verdict::Whole { closes: true });
        assert_eq!(judge(&answer[..answer.len() - 5], b"ok"), Verdict::Part);
    }

    #[test]
    fn another_status_is_wrong() {
        assert_eq!(judge(b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"ok"), Verdict::Wrong);
    }
}
