//! A pool's queue: calls wait here while every worker is at its cap.
//!
//! One bound for the process, one shard per thread. A freed place goes to the longest-waiting call of the thread that
//! freed it, so that most hand-overs stay on their thread, unless another thread's has waited [`LOCALITY_US`] longer.
//! A call that a worker sent back stands where it stood, by when it arrived: it has waited longer than those behind it, and
//! would otherwise wait for the whole line again. A waiter leaves exactly once: with a place, or by giving up; a place that
//! arrives while its waiter gives up passes on to the next, because it is handed over under the waiter's own lock.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::meters::PoolMeters;
use crate::pool::Permit;

/// How much longer a call of another thread must have waited to be served first: a thousand times the cost of a
/// hand-over between threads, and less than anyone notices.
const LOCALITY_US: u64 = 1_000;
/// The head of a shard in which nothing waits.
const NOBODY: u64 = u64::MAX;

/// The waiting calls of one pool.
pub(crate) struct Queue {
    max: AtomicU32,
    waiting: CachePadded<AtomicU32>,
    shards: Box<[CachePadded<Shard>]>,
}

struct Shard {
    /// When the first in the shard arrived; [`NOBODY`] when it is empty. Written under the lock.
    head_since_us: AtomicU64,
    line: Mutex<Line>,
}

/// First come, first served.
#[derive(Default)]
struct Line {
    next_ticket: u64,
    waiters: BTreeMap<Ticket, Arc<Waiter>>,
}

/// When a call arrived, and its number among those of the same microsecond.
type Ticket = (u64, u64);

/// A call that waits.
pub(crate) struct Waiter {
    since_us: u64,
    grant: Mutex<Grant>,
}

enum Grant {
    Waiting(Option<Waker>),
    Given(Permit),
    Left,
}

/// The queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Queue {
    pub(crate) fn new(max: u32, shards: usize) -> Self {
        let shard =
            || CachePadded::new(Shard { head_since_us: AtomicU64::new(NOBODY), line: Mutex::new(Line::default()) });
        Self {
            max: AtomicU32::new(max),
            waiting: CachePadded::new(AtomicU32::new(0)),
            shards: (0..shards.max(1)).map(|_| shard()).collect(),
        }
    }

    pub(crate) fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Sets the most; more that wait already go on waiting.
    pub(crate) fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Calls that wait now.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Whether a waiter stands in any shard: it can be taken.
    pub(crate) fn has_head(&self) -> bool {
        self.shards.iter().any(|shard| shard.head_since_us.load(Ordering::SeqCst) != NOBODY)
    }

    /// Takes a place in the line of `shard`, for a call that arrived at `since_us`.
    ///
    /// # Errors
    /// When `max` calls wait already.
    pub(crate) fn join(self: &Arc<Self>, shard: usize, since_us: u64, meters: &Arc<PoolMeters>) -> Result<Place, Full> {
        let max = self.max();
        let before = self
            .waiting
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| (waiting < max).then_some(waiting + 1))
            .map_err(|_| Full)?;
        meters.queue_depth.increment(1.0);
        let shard = shard % self.shards.len();
        let waiter = Arc::new(Waiter { since_us, grant: Mutex::new(Grant::Waiting(None)) });
        let mut line = self.shards[shard].line.lock();
        let ticket = (since_us, line.next_ticket);
        line.next_ticket += 1;
        line.waiters.insert(ticket, Arc::clone(&waiter));
        self.shards[shard].publish_head(&line);
        drop(line);
        Ok(Place { queue: Arc::clone(self), meters: Arc::clone(meters), shard, ticket, waiter, first: before == 0 })
    }

    /// Takes out the waiter that is next for a place freed by the thread of `shard`.
    pub(crate) fn pop(&self, shard: usize) -> Option<Arc<Waiter>> {
        let own = shard % self.shards.len();
        // A shard may have been emptied by another thread between the look and the lock: look again, once per shard.
        for _ in 0..=self.shards.len() {
            let chosen = self.next_shard(own)?;
            let shard = &self.shards[chosen];
            let mut line = shard.line.lock();
            let first = line.waiters.pop_first();
            shard.publish_head(&line);
            if let Some((_, waiter)) = first {
                return Some(waiter);
            }
        }
        None
    }

    fn next_shard(&self, own: usize) -> Option<usize> {
        let head = |index: usize| self.shards[index].head_since_us.load(Ordering::SeqCst);
        let mut oldest = (head(own), own);
        let own_since = oldest.0;
        for index in 0..self.shards.len() {
            let since = head(index);
            if since < oldest.0 {
                oldest = (since, index);
            }
        }
        match oldest.0 {
            NOBODY => None,
            since if own_since != NOBODY && own_since <= since.saturating_add(LOCALITY_US) => Some(own),
            _ => Some(oldest.1),
        }
    }

    fn count_out(&self, meters: &PoolMeters) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        meters.queue_depth.decrement(1.0);
    }
}

impl Shard {
    fn publish_head(&self, line: &Line) {
        let since = line.waiters.first_key_value().map_or(NOBODY, |(_, waiter)| waiter.since_us);
        self.head_since_us.store(since, Ordering::SeqCst);
    }
}

impl Waiter {
    /// Hands a place over. The place comes back when the waiter has given up.
    pub(crate) fn give(&self, permit: Permit, queue: &Queue, meters: &PoolMeters) -> Result<(), Permit> {
        let mut grant = self.grant.lock();
        let Grant::Waiting(waker) = &mut *grant else { return Err(permit) };
        let waker = waker.take();
        *grant = Grant::Given(permit);
        queue.count_out(meters);
        drop(grant);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

/// A place in the line. Dropped, it leaves the line, and what it may have been given meanwhile passes on.
#[must_use = "dropping a place leaves the queue"]
pub(crate) struct Place {
    queue: Arc<Queue>,
    meters: Arc<PoolMeters>,
    shard: usize,
    ticket: Ticket,
    waiter: Arc<Waiter>,
    first: bool,
}

impl Place {
    /// Whether nobody waited before.
    pub(crate) fn is_first(&self) -> bool {
        self.first
    }
}

/// Resolves with the place at a worker.
impl Future for Place {
    type Output = Permit;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let mut grant = self.waiter.grant.lock();
        match std::mem::replace(&mut *grant, Grant::Left) {
            Grant::Given(permit) => Poll::Ready(permit),
            Grant::Waiting(_) => {
                *grant = Grant::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
            // Polled after it was ready: nothing will come.
            Grant::Left => Poll::Pending,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let grant = std::mem::replace(&mut *self.waiter.grant.lock(), Grant::Left);
        match grant {
            Grant::Waiting(_) => {
                self.queue.count_out(&self.meters);
                let shard = &self.queue.shards[self.shard];
                let mut line = shard.line.lock();
                line.waiters.remove(&self.ticket);
                shard.publish_head(&line);
            }
            // Dropped outside the lock: its drop hands the place to the next waiter.
            Grant::Given(permit) => drop(permit),
            Grant::Left => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_sent_back_stands_before_those_that_came_after_it() {
        let (queue, meters) = (Arc::new(Queue::new(10, 1)), Arc::new(PoolMeters::new("sent-back")));
        let places: Vec<Place> = [20, 30, 10, 20].map(|since_us| queue.join(0, since_us, &meters).unwrap()).into();
        let mut order = Vec::new();
        while let Some(waiter) = queue.pop(0) {
            order.push(places.iter().position(|place| Arc::ptr_eq(&place.waiter, &waiter)).unwrap());
        }
        assert_eq!(order, [2, 0, 3, 1]);
        assert_eq!(queue.waiting(), 4, "each counts until it has a place or has left");
        drop(places);
        assert_eq!(queue.waiting(), 0);
    }
}
