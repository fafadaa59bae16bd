//! One connection to an upstream server.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::server::{Seat, Server};

/// Room for the next read while a head is expected: most replies fit.
const ROOM_FOR_HEAD: usize = 4 * 1024;
/// Room for the next read within a body.
const ROOM_FOR_BODY: usize = 32 * 1024;

/// A connection that a call has in use.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    born: Instant,
    /// Requests that went over it before this one.
    requests: u32,
    seat: Seat,
}

/// A connection on a shelf. It stays counted.
pub(super) struct Idle {
    stream: TcpStream,
    pub(super) born: Instant,
    pub(super) since: Instant,
    requests: u32,
    /// The thread whose event loop watches it.
    home: usize,
}

/// How far a write got before it failed.
#[derive(Debug)]
pub(super) struct WriteFault {
    /// Whether not one byte was taken.
    pub(super) unsent: bool,
    /// `None`: it took too long.
    pub(super) error: Option<io::Error>,
}

impl Idle {
    /// Whether nothing has come since it was put here: neither its end nor bytes that nobody asked for. As far as the event
    /// loop of its thread has heard, which costs no system call.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// As [`is_quiet`](Self::is_quiet), as far as the kernel has heard.
    pub(super) fn is_surely_quiet(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.is_quiet() && matches!(rustix::net::recv(&self.stream, &mut byte, flags), Err(Errno::AGAIN))
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, seat: Seat) -> Self {
        Self { stream, buffer: BytesMut::new(), born: Instant::now(), requests: 0, seat }
    }

    /// Takes a connection off its shelf for `thread`, whose event loop watches it from here on.
    pub(super) fn revive(idle: Idle, seat: Seat, thread: usize) -> io::Result<Self> {
        let Idle { stream, born, requests, home, .. } = idle;
        let stream = if home == thread { stream } else { TcpStream::from_std(stream.into_std()?)? };
        Ok(Self { stream, buffer: BytesMut::new(), born, requests, seat })
    }

    /// Whether it has carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.requests > 0
    }

    /// This side's port, by which tests tell connections apart.
    #[cfg(test)]
    pub(super) fn local_port(&self) -> u16 {
        self.stream.local_addr().map_or(0, |address| address.port())
    }

    pub(super) fn server(&self) -> &Server {
        self.seat.server()
    }

    /// A request was answered in full: keeps the connection for the next, unless it has served its time.
    pub(super) fn served(mut self, thread: usize) {
        self.requests += 1;
        let limits = self.server().settings().keep_alive;
        let young = self.requests < limits.requests && self.born.elapsed() < limits.age.get();
        if young && self.buffer.is_empty() && !self.server().is_leaving() {
            self.put_back(thread, thread);
        }
    }

    pub(super) fn put_back(self, home: usize, shelf: usize) {
        let Self { stream, born, requests, seat, .. } = self;
        seat.keep().put_idle(Idle { stream, born, since: Instant::now(), requests, home }, shelf);
    }

    /// The half that writes, and the half that reads.
    pub(super) fn split(&mut self) -> (WriteHalf<'_>, Reading<'_>) {
        let (half, writing) = self.stream.split();
        (writing, Reading { half, buffer: &mut self.buffer, server: self.seat.server() })
    }
}

/// The half of a connection that reads.
pub(super) struct Reading<'a> {
    half: ReadHalf<'a>,
    /// What was read and is not used yet.
    pub(super) buffer: &'a mut BytesMut,
    pub(super) server: &'a Server,
}

impl Reading<'_> {
    /// Reads on while a head is expected; 0 at the connection's end.
    pub(super) async fn head(&mut self) -> io::Result<usize> {
        self.read(ROOM_FOR_HEAD).await
    }

    /// Reads on within a body; 0 at the connection's end.
    pub(super) async fn body(&mut self) -> io::Result<usize> {
        self.read(ROOM_FOR_BODY).await
    }

    /// Waits for bytes, without holding room for them, then reads; 0 at the connection's end.
    pub(super) async fn when_there(&mut self) -> io::Result<usize> {
        loop {
            self.half.readable().await?;
            match self.at_hand() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => *self.buffer = BytesMut::new(),
                read => return read,
            }
        }
    }

    /// Reads what is there already.
    pub(super) fn at_hand(&mut self) -> io::Result<usize> {
        self.buffer.reserve(ROOM_FOR_BODY);
        self.half.try_read_buf(self.buffer)
    }

    /// Through `AsyncRead`, which remembers that a read which did not fill the buffer has left nothing behind: so the look
    /// whether a kept connection is quiet costs no system call.
    async fn read(&mut self, room: usize) -> io::Result<usize> {
        self.buffer.reserve(room);
        self.half.read_buf(self.buffer).await
    }
}

/// Writes all of `parts`, pausing for `pause` at most.
pub(super) async fn write(stream: &WriteHalf<'_>, parts: [&[u8]; 3], pause: Duration) -> Result<(), WriteFault> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut done = 0;
    while done < total {
        let mut skip = done;
        let slices = parts.map(|part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            IoSlice::new(part.get(skipped..).unwrap_or_default())
        });
        let fault = |error| WriteFault { unsent: done == 0, error };
        match stream.try_write_vectored(&slices) {
            Ok(0) => return Err(fault(Some(io::ErrorKind::WriteZero.into()))),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match tokio::time::timeout(pause, stream.writable()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(fault(Some(error))),
                    Err(_) => return Err(fault(None)),
                }
            }
            Err(error) => return Err(fault(Some(error))),
        }
    }
    Ok(())
}
