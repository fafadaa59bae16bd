//! Hits that the gate answers itself: the stored head as it was written once, and the stored body, in one write.
//!
//! What a hit costs is all that stands around it: a parser, a dispatcher, a map of fields. An answer that is at hand as a
//! whole, while nothing else is under way on its connection, needs none of them. Everything else goes the long way: parts,
//! answers to conditions, the last answer of a connection, and whatever comes behind another request.

use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWrite as _;

use super::GuardedStream;
use crate::cache::{CacheResult, write_hit};
use crate::front::{Hit, Plan};
use crate::metrics::{Noted, Stages, Ticket};
use crate::request::{Incoming, Method, Request};
use crate::server::guard::Facts;

/// A body up to this size is copied behind its head, and both are sent from one buffer; beyond it the kernel gathers.
const COPIED: usize = 4 * 1024;

/// What is left of an answer whose client takes it slowly. The next request is not looked at before it is gone.
pub(super) struct Unsent {
    head: Bytes,
    body: Bytes,
    answered: Answered,
}

/// An answer, for the counts.
struct Answered {
    ticket: Ticket,
    status: u16,
    sent: u64,
}

impl GuardedStream {
    /// What is to be done with a request that nothing stands in front of; `None`: that is decided later. Planning that
    /// panics is left to the handler, which answers for it.
    pub(super) fn plan(&self, request: &Request, facts: &Facts) -> Option<Plan> {
        let front = &self.thread.front;
        let simple = matches!(request.method, Method::Get)
            && facts.version_11
            && !facts.close
            && !facts.expect
            && !request.websocket;
        let last = self.conn.taken() + 1 >= self.thread.limits().max_requests;
        if !simple || last || !front.is_caching() || front.is_development() || front.is_draining() {
            return None;
        }
        catch_unwind(AssertUnwindSafe(|| front.plan(request))).ok()
    }

    /// Whether nothing is under way on the connection, and nothing of an earlier answer is left in actix's buffer.
    pub(super) fn is_clear(&self) -> bool {
        self.flushed
            && !self.conn.is_unflushed()
            && self.unsent.is_none()
            && self.conn.is_idle()
            && self.conn.fault().is_none()
    }

    /// Answers with what is stored. What the client does not take at once is left in `unsent`.
    pub(super) fn answer(&mut self, incoming: &Incoming, hit: &Hit, id: &[u8], context: &mut Context<'_>) {
        let mut ticket = self.thread.metrics.begin(incoming);
        ticket.set_route(hit.route, &hit.label);
        ticket.set_cache(CacheResult::Hit);
        ticket.called(Noted::Cache(Stages::hit(hit.looked)));
        self.conn.begin_answered();
        let mut out = self.thread.scratch.borrow_mut();
        out.clear();
        write_hit(&hit.entry, id, hit.now, hit.cdn_ttl, &mut out);
        let mut body = hit.entry.body().clone();
        let answered = Answered { ticket, status: hit.entry.status(), sent: body.len() as u64 };
        if body.len() <= COPIED {
            out.extend_from_slice(&body);
            body = Bytes::new();
        }
        let written = match write_both(&mut self.inner, context, &out, &body) {
            Poll::Ready(Ok(written)) => written,
            // A connection that is broken says so again when the rest is sent.
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        if written == out.len() + body.len() {
            drop(out);
            self.conn.finish(answered.end());
            return;
        }
        let head = Bytes::copy_from_slice(out.get(written..).unwrap_or_default());
        let body = body.slice(written.saturating_sub(out.len())..);
        drop(out);
        self.unsent = Some(Unsent { head, body, answered });
    }

    /// Sends what is left of an answer.
    pub(super) fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unsent) = &mut self.unsent {
            if unsent.head.is_empty() && unsent.body.is_empty() {
                if let Some(unsent) = self.unsent.take() {
                    self.conn.finish(unsent.answered.end());
                }
                self.write_due = None;
                break;
            }
            match write_both(&mut self.inner, context, &unsent.head, &unsent.body) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.broke(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(written)) => {
                    let from_head = written.min(unsent.head.len());
                    unsent.head = unsent.head.slice(from_head..);
                    unsent.body = unsent.body.slice(written - from_head..);
                    self.write_due = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broke(error))),
                Poll::Pending => return self.poll_write_clock(context).map(Err),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Answered {
    /// The answer is with the kernel.
    fn end(self) -> Instant {
        let now = Instant::now();
        self.ticket.end(self.status, (0, self.sent), true, now);
        now
    }
}

fn write_both(
    socket: &mut tokio::net::TcpStream,
    context: &mut Context<'_>,
    head: &[u8],
    body: &[u8],
) -> Poll<io::Result<usize>> {
    let socket = Pin::new(socket);
    match body {
        [] => socket.poll_write(context, head),
        body => socket.poll_write_vectored(context, &[IoSlice::new(head), IoSlice::new(body)]),
    }
}
