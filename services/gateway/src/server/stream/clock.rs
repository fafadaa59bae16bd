//! The connection's clock: heads that do not go on, silence between requests, a client that takes nothing.
//!
//! All waits of a connection share one timer, which fires at least every [`Timeouts::tick`] and then sees what is due;
//! that way a request costs no timer operation at all.
//!
//! [`Timeouts::tick`]: crate::server::thread::Timeouts::tick

use std::future::Future as _;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use super::GuardedStream;
use crate::metrics::Fault;
use crate::server::guard::Reject;

impl GuardedStream {
    /// Looks at the clock before a wait. Ready when an idle connection has been kept long enough.
    pub(super) fn poll_clock(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let timeouts = self.thread.timeouts();
        if let Some(timer) = &self.timer
            && !timer.is_elapsed()
        {
            return Poll::Pending;
        }
        let now = Instant::now();
        let mut next = now + timeouts.tick();
        if self.timer.is_some() {
            if let Some(due) = self.conn.due() {
                if due <= now {
                    self.conn.set_overdue();
                    context.waker().wake_by_ref();
                } else {
                    next = next.min(due);
                }
            }
            if let Some(since) = self.head_since {
                let due = since + timeouts.head;
                if due <= now && !self.guard.is_closed() {
                    self.head_since = None;
                    self.held = Vec::new();
                    self.refuse(Reject::HeadTimeout);
                    context.waker().wake_by_ref();
                } else {
                    next = next.min(due);
                }
            } else if self.conn.is_idle() {
                let limit = if self.conn.heads() == 0 { timeouts.head } else { timeouts.keep_alive };
                let due = self.conn.idle_since() + limit;
                if due <= now {
                    return Poll::Ready(());
                }
                next = next.min(due);
            }
            if let Some(due) = self.write_due {
                next = next.min(due);
            }
        }
        let next = tokio::time::Instant::from_std(next);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(next),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(next))),
        }
        // Polled once it keeps the task's waker, which is the same for the connection's whole life.
        match &mut self.timer {
            Some(timer) => match timer.as_mut().poll(context) {
                Poll::Ready(()) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            },
            None => Poll::Pending,
        }
    }

    /// Looks at the clock before a wait for the client to take bytes. Ready when it has not taken any for too long.
    pub(super) fn poll_write_clock(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let now = Instant::now();
        let due = *self.write_due.get_or_insert(now + self.thread.timeouts().stream_idle);
        if due <= now {
            self.conn.set_reset();
            self.fail(Fault::WriteTimeout);
            return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client takes no more bytes"));
        }
        let _ = self.poll_clock(context);
        Poll::Pending
    }
}
