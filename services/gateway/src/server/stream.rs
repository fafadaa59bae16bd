//! The stream that actix reads and writes: the client's socket behind the gate, with the connection's clock.
//!
//! A head goes to actix only when it is complete and was found good, so partial heads wait here. In the usual case a
//! read brings whole heads; they are judged and replaced in the buffer they were read into, and nothing is copied.

mod clock;
mod faults;
mod quick;
mod tunnel;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use troupe_wire::head::Version;

use super::conn::{Conn, Handshake};
use super::guard::{Facts, HeadGuard, Reject, Scan, Skeleton, absolute, refusal};
use super::thread::Thread;
use crate::front::Plan;
use crate::metrics::Fault;
use crate::request::{BodyFrame, Incoming, RawHead};
use quick::Unsent;
use tunnel::Tunnel;

pub(super) use tunnel::Opened;

/// Bytes read at once while a head is incomplete.
const HELD_READ: usize = 4 * 1024;
/// Bytes that are thrown away before the task lets others run.
const DISCARD_ROUNDS: usize = 8;

/// A client's connection behind the gate.
pub(super) struct GuardedStream {
    inner: TcpStream,
    thread: Rc<Thread>,
    conn: Rc<Conn>,
    guard: HeadGuard,
    /// Bytes that cannot be judged yet: the beginning of a head, or what came behind the last one that fits the queue.
    held: Vec<u8>,
    /// `held` was not shown to the gate since it grew.
    unseen: bool,
    /// The next head waits for the end of the answer under way.
    stalled: bool,
    /// Bytes that are judged and did not fit the buffer they came in.
    ready: Vec<u8>,
    delivered: usize,
    /// Nothing that was handed to actix is left unanswered or unwritten.
    flushed: bool,
    /// An answer of the gate's own that the client has not taken yet.
    unsent: Option<Unsent>,
    /// What the connection has become.
    tunnel: Option<Box<Tunnel>>,
    head_since: Option<Instant>,
    write_due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    lingering: bool,
    /// It has failed, which is counted once.
    failed: bool,
    registered: Option<usize>,
}

impl GuardedStream {
    pub(super) fn new(inner: TcpStream, thread: Rc<Thread>, conn: Rc<Conn>) -> Self {
        let guard = HeadGuard::new(thread.limits().max_head);
        thread.metrics.connection_opened();
        Self {
            inner,
            thread,
            conn,
            guard,
            held: Vec::new(),
            unseen: false,
            stalled: false,
            ready: Vec::new(),
            delivered: 0,
            flushed: true,
            unsent: None,
            tunnel: None,
            head_since: None,
            write_due: None,
            timer: None,
            lingering: false,
            failed: false,
            registered: None,
        }
    }

    pub(super) fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// Judges bytes in place. Returns how many are to be delivered, from the start, and where those begin that have to
    /// wait.
    fn sift(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> (usize, usize) {
        let (mut read, mut written) = (0, 0);
        loop {
            let waits = || self.conn.is_full() || self.unsent.is_some() || self.conn.handshake() != Handshake::None;
            if self.guard.at_head() && waits() {
                self.unseen = read < bytes.len();
                return (written, read);
            }
            let rest = bytes.get(read..).unwrap_or_default();
            match self.guard.scan(rest) {
                Scan::Body(len) => {
                    if read != written {
                        bytes.copy_within(read..read + len, written);
                    }
                    read += len;
                    written += len;
                }
                Scan::Empty(len) => read += len,
                Scan::Head(len, facts) => {
                    if self.conn.heads() >= self.thread.limits().max_requests {
                        self.guard.close();
                        return (written, bytes.len());
                    }
                    let first = written == 0 && self.ready.is_empty();
                    let skeleton = self.receive(rest.get(..len).unwrap_or_default(), &facts, first, context);
                    read += len;
                    let Some(skeleton) = skeleton else { continue };
                    let skeleton = skeleton.as_bytes();
                    match bytes.get_mut(written..(written + skeleton.len()).min(read)) {
                        Some(place) if place.len() == skeleton.len() => {
                            place.copy_from_slice(skeleton);
                            written += skeleton.len();
                        }
                        // Impossible by construction of the skeleton; if it happened, closing is the safe answer.
                        _ => {
                            debug_assert!(false, "a skeleton is longer than its head");
                            self.guard.close();
                            return (written, bytes.len());
                        }
                    }
                }
                Scan::More => return (written, read),
                Scan::RefuseHead(reject) => {
                    self.refuse(reject);
                    return (written, bytes.len());
                }
                Scan::RefuseBody(reject) => {
                    self.thread.metrics.rejected(reject);
                    self.conn.set_fault(reject);
                    context.waker().wake_by_ref();
                    return (written, bytes.len());
                }
                Scan::Closed => return (written, bytes.len()),
            }
        }
    }

    /// Hands a head inward and returns what actix sees of it; `None` when it is answered already, which only the `first`
    /// of what was read may be.
    fn receive(&mut self, head: &[u8], facts: &Facts, first: bool, context: &mut Context<'_>) -> Option<Skeleton> {
        let part = |from: u32, to: u32| head.get(from as usize..to as usize).unwrap_or_default();
        let method = part(0, facts.method_end);
        let target = part(facts.method_end + 1, facts.target_end);
        let host = part(facts.host.0, facts.host.1);
        let body = match facts.length {
            _ if facts.chunked => BodyFrame::Chunked,
            Some(length) if length > 0 => BodyFrame::Length(length),
            _ => BodyFrame::None,
        };
        let raw = RawHead {
            method,
            target,
            version: if facts.version_11 { Version::Http11 } else { Version::Http10 },
            authority: if host.is_empty() { absolute(target).unwrap_or_default() } else { host },
            fields: head.get(facts.fields_at as usize..).unwrap_or_default(),
            body,
            nominates: facts.nominates,
        };
        let incoming = self.thread.front.reception().receive(&raw, &self.conn.ends);
        if first
            && body == BodyFrame::None
            && self.is_clear()
            && let Incoming::Request(request) = &incoming
            && let Some(plan) = self.plan(request, facts)
        {
            if let Plan::Hit(hit) = &plan
                && hit.plain
            {
                self.answer(&incoming, hit, &request.id, context);
                return None;
            }
            self.conn.set_plan(Box::new(plan));
        }
        let fits = !matches!(body, BodyFrame::Length(length) if length > self.thread.limits().max_body);
        let expect = fits && matches!(incoming, Incoming::Request(_));
        if matches!(&incoming, Incoming::Request(request) if request.websocket) {
            self.conn.set_handshake(Handshake::Asked);
        }
        self.conn.push(Box::new(incoming));
        self.flushed = false;
        Some(Skeleton::new(method, facts, expect))
    }

    /// Refuses a head, and the connection closes behind the answer. Only while no other is under way: actix would frame that
    /// one by the head that stands for this.
    fn refuse(&mut self, reject: Reject) {
        debug_assert!(self.conn.is_idle(), "a head is refused while an answer is under way");
        self.thread.metrics.rejected(reject);
        self.guard.close();
        let (status, why) = self.thread.front.rejection(reject);
        let refused = self.thread.front.reception().refuse(status, why, true, &self.conn.ends);
        self.conn.push(Box::new(Incoming::Refused(refused)));
        self.flushed = false;
        self.ready.extend_from_slice(refusal());
    }

    fn hold(&mut self, tail: &[u8]) {
        self.held.extend_from_slice(tail);
        // What the gate has not seen waits behind an answer and is not late: it may be there as a whole.
        let begun = !self.held.is_empty() && self.guard.at_head() && !self.unseen;
        if !self.held.is_empty() {
            self.conn.note_early();
        }
        self.head_since = begun.then(|| self.head_since.unwrap_or_else(Instant::now));
    }

    fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = self.ready.get(self.delivered..).unwrap_or_default();
        let len = rest.len().min(buf.remaining());
        if len == 0 {
            return false;
        }
        buf.put_slice(rest.get(..len).unwrap_or_default());
        self.delivered += len;
        if self.delivered == self.ready.len() {
            self.ready = Vec::new();
            self.delivered = 0;
        }
        true
    }

    /// Shows the gate what is held.
    fn sift_held(&mut self, context: &mut Context<'_>) {
        self.unseen = false;
        let mut held = std::mem::take(&mut self.held);
        let heads = self.conn.heads();
        let (written, read) = self.sift(&mut held, context);
        if self.conn.heads() != heads {
            // What is left is the beginning of another one, which has its own time.
            self.head_since = None;
        }
        self.hold(held.get(read..).unwrap_or_default());
        // A refusal's own head may stand in `ready` already; what was judged before it comes first.
        held.truncate(written);
        held.extend_from_slice(&self.ready);
        self.ready = held;
    }

    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; HELD_READ];
        for _ in 0..DISCARD_ROUNDS {
            let mut buf = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn register(&mut self, waker: &Waker) {
        if self.registered.is_none() {
            self.registered = Some(self.thread.wakers.borrow_mut().insert(waker.clone()));
        }
    }
}

impl AsyncRead for GuardedStream {
    /// A read of nothing means to actix that the client is gone, so this returns only with bytes or at the end.
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.register(context.waker());
        loop {
            ready!(this.poll_unsent(context))?;
            if this.deliver(buf) {
                return Poll::Ready(Ok(()));
            }
            if let Some(outcome) = this.poll_handshake(context) {
                return outcome;
            }
            if this.conn.is_over() {
                // The last answer is on its way; the rest is for `poll_shutdown`.
                this.guard.close();
                return Poll::Ready(Ok(()));
            }
            if this.guard.is_closed() {
                // What the client still sends is nobody's; that it left must not cut off the answers on their way.
                match this.poll_discard(context) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    // No answer is on its way that would end the connection.
                    _ if this.conn.is_idle() && this.flushed && this.unsent.is_none() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) | Poll::Pending => {
                        let _ = this.poll_clock(context);
                        return Poll::Pending;
                    }
                }
            }
            if this.unseen {
                if this.conn.is_full() {
                    this.stalled = true;
                    let _ = this.poll_clock(context);
                    return Poll::Pending;
                }
                this.sift_held(context);
                continue;
            }
            if this.held.is_empty() {
                let before = buf.filled().len();
                let read = Pin::new(&mut this.inner).poll_read(context, buf);
                if read.map_err(|error| this.broke(error))?.is_pending() {
                    if this.thread.front.is_stopping() && this.conn.is_idle() {
                        return Poll::Ready(Ok(()));
                    }
                    return match this.poll_clock(context) {
                        Poll::Ready(()) => Poll::Ready(Ok(())),
                        Poll::Pending if this.ready.is_empty() => Poll::Pending,
                        Poll::Pending => continue,
                    };
                }
                let filled = buf.filled_mut().get_mut(before..).unwrap_or_default();
                if filled.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let (written, read) = this.sift(filled, context);
                if read < filled.len() {
                    this.hold(filled.get(read..).unwrap_or_default());
                }
                buf.set_filled(before + written);
                if written > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut scratch = [0; HELD_READ];
                let mut part = ReadBuf::new(&mut scratch);
                let read = Pin::new(&mut this.inner).poll_read(context, &mut part);
                if read.map_err(|error| this.broke(error))?.is_pending() {
                    let _ = this.poll_clock(context);
                    if this.ready.is_empty() {
                        return Poll::Pending;
                    }
                    continue;
                }
                if part.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(part.filled());
                this.sift_held(context);
            }
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_write(context, bytes) {
            Poll::Ready(outcome) => {
                this.write_due = None;
                if outcome.is_err() {
                    this.fail(Fault::Reset);
                }
                Poll::Ready(outcome)
            }
            Poll::Pending => this.poll_write_clock(context).map(Err),
        }
    }

    /// actix calls this when it has written all it has.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.conn.is_idle() {
            this.conn.set_flushed();
            // Whatever ended the answer, actix reads on only when it is woken.
            if std::mem::take(&mut this.stalled) {
                context.waker().wake_by_ref();
            }
        }
        this.flushed |= this.conn.is_idle() || this.conn.is_at_handshake();
        if this.conn.is_breaking() {
            this.conn.set_breaking(false);
            context.waker().wake_by_ref();
        }
        Pin::new(&mut this.inner).poll_flush(context)
    }

    /// Ends the sending side; where the client was still sending, waits a moment for it to read the answer, because
    /// closing a socket with unread bytes destroys what is on its way to the client.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.lingering {
            ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
            this.forget_early();
            if !this.guard.is_closed() || this.conn.reset() {
                return Poll::Ready(Ok(()));
            }
            this.lingering = true;
            let mut timer = Box::pin(tokio::time::sleep(this.thread.timeouts().disconnect));
            let _ = timer.as_mut().poll(context);
            this.timer = Some(timer);
        }
        if this.timer.as_ref().is_none_or(|timer| timer.is_elapsed()) {
            return Poll::Ready(Ok(()));
        }
        match this.poll_discard(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for GuardedStream {
    fn drop(&mut self) {
        if let Some(key) = self.registered {
            self.thread.wakers.borrow_mut().try_remove(key);
        }
        self.thread.metrics.connection_closed();
        if self.conn.reset() {
            // The response had no end of its own but the connection's: a plain close would pass for it.
            let _ = socket2::SockRef::from(&self.inner).set_linger(Some(Duration::ZERO));
        }
    }
}
