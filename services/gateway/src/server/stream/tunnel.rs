//! WebSocket: a connection that becomes a tunnel of bytes.
//!
//! actix could hand the connection over, but only before it is known whether the server switches, and then it would not take
//! it back; a refused handshake is an ordinary answer, behind which the connection goes on. So actix sees a request without
//! an upgrade, and the gate reads nothing behind a handshake as a request until it is answered. When the answer is 101, the
//! gate writes it and passes bytes both ways; the handler rests until that is over.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use troupe_mesh::body::{Body, BodyWriter};

use super::GuardedStream;
use crate::metrics::{Fault, Passage};
use crate::server::conn::Handshake;

/// Bytes behind a handshake from which on nothing more is read until it is answered: with one read more, or with what came
/// along with the head, 32 KiB. Clients have to wait for the answer before they send anything (RFC 6455 §4.1), so it is little
/// for those that cannot wait.
const MAX_EARLY: usize = 16 * 1024;
/// Bytes read at once.
const READ: usize = 16 * 1024;
/// Tunnels may be silent for long, so the kernel looks whether the client is there: after two minutes it is given up.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// A tunnel that a server has agreed to.
pub(in crate::server) struct Opened {
    /// What tells the client.
    pub(in crate::server) head: Bytes,
    /// What the server sends.
    pub(in crate::server) downward: Body,
    /// Takes what the client sends.
    pub(in crate::server) upward: BodyWriter,
    pub(in crate::server) passage: Passage,
}

/// A tunnel.
pub(super) struct Tunnel {
    /// What the client has not taken yet: the head first.
    unsent: Bytes,
    /// How much of it is the head.
    head: usize,
    /// It has taken some since this was looked at last.
    moved: bool,
    downward: Body,
    /// Taken when the client has ended its side, or the server wants no more.
    upward: Option<BodyWriter>,
    /// What the client sent before it knew.
    early: Bytes,
    passage: Passage,
}

/// Why nothing more goes to the client at the moment.
enum Down {
    /// The server has sent all.
    Ended,
    /// What the server sends broke off.
    Broken,
    /// The client does not take it.
    Blocked,
    /// There is nothing.
    Waiting,
}

impl GuardedStream {
    /// What is read while there is a handshake or a tunnel; `None`: there is none.
    pub(super) fn poll_handshake(&mut self, context: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        match self.conn.handshake() {
            Handshake::None => return None,
            Handshake::Spoilt => {
                self.forget_early();
                return None;
            }
            Handshake::Asked | Handshake::Early => {}
            Handshake::Open => return Some(self.poll_tunnel(context)),
        }
        if self.flushed
            && let Some(opened) = self.conn.take_opened()
        {
            let [time, interval] = [KEEP_ALIVE.0, KEEP_ALIVE.1];
            let watch = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(KEEP_ALIVE.2);
            // Without it a client that vanished is noticed later.
            let _ = SockRef::from(&self.inner).set_tcp_keepalive(&watch);
            self.conn.set_handshake(Handshake::Open);
            self.unseen = false;
            self.tunnel = Some(Box::new(Tunnel::new(*opened, std::mem::take(&mut self.held))));
            return Some(self.poll_tunnel(context));
        }
        Some(self.poll_early(context))
    }

    /// Keeps what comes before the answer. Ready when the client is gone.
    fn poll_early(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < MAX_EARLY {
            let mut room = [MaybeUninit::uninit(); READ];
            let mut buf = ReadBuf::uninit(&mut room);
            let read = Pin::new(&mut self.inner).poll_read(context, &mut buf);
            if read.map_err(|error| self.broke(error))?.is_pending() {
                break;
            }
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(buf.filled());
            self.conn.note_early();
        }
        let _ = self.poll_clock(context);
        Poll::Pending
    }

    /// Drops what came behind a handshake that was refused, and all that still comes.
    pub(super) fn forget_early(&mut self) {
        if self.conn.handshake() == Handshake::Spoilt {
            self.conn.set_handshake(Handshake::None);
            self.held = Vec::new();
            self.unseen = false;
            self.guard.close();
        }
    }

    /// Passes bytes both ways. Ready, as at the connection's end, when the server has ended the tunnel.
    fn poll_tunnel(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tunnel) = &mut self.tunnel else { return Poll::Ready(Ok(())) };
        let down = tunnel.poll_down(&mut self.inner, context);
        if std::mem::take(&mut tunnel.moved) {
            self.write_due = None;
        }
        let down = match down {
            Ok(down) => down,
            Err(error) => return Poll::Ready(Err(self.broke(error))),
        };
        match down {
            Down::Ended => {
                tunnel.passage.complete();
                self.tunnel = None;
                // What the client still sends is nobody's, and must not cut off what is on its way to it.
                self.guard.close();
                return Poll::Ready(Ok(()));
            }
            Down::Broken => {
                self.tunnel = None;
                self.fail(Fault::ReplyBroken);
                self.conn.set_reset();
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the tunnel broke off")));
            }
            Down::Blocked | Down::Waiting => {}
        }
        if let Some(tunnel) = &mut self.tunnel
            && let Poll::Ready(Err(error)) = tunnel.poll_up(&mut self.inner, context)
        {
            let error = self.broke(error);
            self.tunnel = None;
            return Poll::Ready(Err(error));
        }
        if matches!(down, Down::Blocked) {
            let error = ready!(self.poll_write_clock(context));
            self.tunnel = None;
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    }
}

impl Tunnel {
    fn new(opened: Opened, early: Vec<u8>) -> Self {
        let Opened { head, downward, upward, passage } = opened;
        let (unsent, upward, early) = (head, Some(upward), early.into());
        Self { head: unsent.len(), unsent, moved: false, downward, upward, early, passage }
    }

    /// Passes on what the server sends.
    fn poll_down(&mut self, socket: &mut TcpStream, context: &mut Context<'_>) -> io::Result<Down> {
        loop {
            while !self.unsent.is_empty() {
                match Pin::new(&mut *socket).poll_write(context, &self.unsent) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(written)) => {
                        self.moved = true;
                        self.unsent.advance(written);
                        let of_head = written.min(self.head);
                        self.head -= of_head;
                        self.passage.sent(written - of_head);
                    }
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => return Ok(Down::Blocked),
                }
            }
            match self.downward.poll_next(context) {
                Poll::Ready(Some(Ok(piece))) => self.unsent = piece,
                Poll::Ready(Some(Err(_))) => return Ok(Down::Broken),
                Poll::Ready(None) => return Ok(Down::Ended),
                Poll::Pending => return Ok(Down::Waiting),
            }
        }
    }

    /// Passes on what the client sends. Ready when nothing more is to be read from it; a failure is its connection's.
    fn poll_up(&mut self, socket: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(writer) = &mut self.upward else { return Poll::Ready(Ok(())) };
            if ready!(writer.poll_ready(context)).is_err() {
                // The server's side is over; what it has sent last is still to come.
                self.upward = None;
                return Poll::Ready(Ok(()));
            }
            if !self.early.is_empty() {
                self.passage.received(self.early.len());
                let _ = writer.push(std::mem::take(&mut self.early));
                continue;
            }
            let mut room = [MaybeUninit::uninit(); READ];
            let mut buf = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut *socket).poll_read(context, &mut buf))?;
            if buf.filled().is_empty() {
                // Its side alone: the server may have more to say.
                if let Some(writer) = self.upward.take() {
                    writer.finish();
                }
                return Poll::Ready(Ok(()));
            }
            self.passage.received(buf.filled().len());
            let _ = writer.push(Bytes::copy_from_slice(buf.filled()));
        }
    }
}
