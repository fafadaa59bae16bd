//! A pool: its workers, its queue, and how a place at a worker passes from one call to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;
use troupe_node::config::QueueConfig;

use crate::clock;
use crate::meters::PoolMeters;
use crate::pick::Table;
use crate::queue::Queue;
use crate::ranking::Order;
use crate::retry::Budget;
use crate::sketch::Sketch;
use crate::slot::State;
use crate::tuning::{Tuning, micros};
use crate::worker::Worker;

/// A named set of workers, seen by all threads.
pub(crate) struct Pool {
    pub(crate) name: Arc<str>,
    pub(crate) tuning: Arc<Tuning>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) budget: Budget,
    pub(crate) meters: Arc<PoolMeters>,
    /// Latencies of replies, for the 95th percentile.
    pub(crate) sketch: Sketch,
    /// Tells the supervisor that the data path has changed a worker's state, or learnt that it is contended.
    pub(crate) wake: Arc<Notify>,
    /// Rings when a table is published, for calls that wait for news of the workers.
    pub(crate) published: Notify,
    table: ArcSwap<Table>,
    order: ArcSwap<Order>,
    /// The table's generation, so that a thread need not touch the table to know that it is unchanged.
    generation: CachePadded<AtomicU64>,
    median_us: AtomicU32,
    p95_us: AtomicU32,
    turn: AtomicUsize,
    wait_us: AtomicU64,
}

impl Pool {
    pub(crate) fn new(name: &str, queue: &QueueConfig, tuning: Arc<Tuning>, shards: usize, wake: Arc<Notify>) -> Self {
        Self {
            name: Arc::from(name),
            tuning,
            queue: Arc::new(Queue::new(queue.max, shards)),
            budget: Budget::new(),
            meters: Arc::new(PoolMeters::new(name)),
            sketch: Sketch::default(),
            wake,
            published: Notify::new(),
            table: ArcSwap::from_pointee(Table::empty()),
            order: ArcSwap::default(),
            generation: CachePadded::new(AtomicU64::new(0)),
            median_us: AtomicU32::new(0),
            p95_us: AtomicU32::new(0),
            turn: AtomicUsize::new(0),
            wait_us: AtomicU64::new(micros(queue.wait.get())),
        }
    }

    /// Takes new bounds of its queue. Calls that wait already wait as they were told to.
    pub(crate) fn bound(&self, queue: &QueueConfig) {
        self.wait_us.store(micros(queue.wait.get()), Ordering::Relaxed);
        self.queue.set_max(queue.max);
    }

    /// How long a call may wait in the queue.
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_micros(self.wait_us.load(Ordering::Relaxed))
    }

    // === the table ===

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Publishes who may be called: the ready ones and, as a last resort, the ejected ones. Room goes to the queue.
    pub(crate) fn publish(self: &Arc<Self>, workers: &[Arc<Worker>]) {
        let of = |state: State| workers.iter().filter(move |worker| worker.slot.state() == state).cloned();
        let mut listed: Vec<Arc<Worker>> = of(State::Ready).collect();
        let ready = listed.len();
        listed.extend(of(State::Ejected));
        let generation = self.generation() + 1;
        self.table.store(Arc::new(Table { generation, workers: listed.into(), ready }));
        self.generation.store(generation, Ordering::Release);
        self.meters.ready.set(ready as f64);
        self.published.notify_waiters();
        self.offer(0);
    }

    /// The workers as last ordered by score.
    pub(crate) fn order(&self) -> Arc<Order> {
        self.order.load_full()
    }

    pub(crate) fn set_order(&self, order: Order) {
        self.order.store(Arc::new(order));
    }

    /// Calls with workers that may be called; those of workers that have left meanwhile are not seen here.
    pub(crate) fn in_flight(&self) -> u32 {
        self.order.load().0.iter().map(|worker| worker.slot.in_flight()).sum()
    }

    pub(crate) fn median_us(&self) -> f32 {
        f32::from_bits(self.median_us.load(Ordering::Relaxed))
    }

    pub(crate) fn set_median_us(&self, median: f32) {
        self.median_us.store(median.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn p95_us(&self) -> f32 {
        f32::from_bits(self.p95_us.load(Ordering::Relaxed))
    }

    pub(crate) fn set_p95_us(&self, p95: f32) {
        self.p95_us.store(p95.to_bits(), Ordering::Relaxed);
    }

    // === places ===

    /// Counts a call out of a worker, or hands its place to one that waits. `awaiting`: the call got no reply.
    ///
    /// Either the place is given up before the queue is looked at, or the call that joins the queue sees the free place:
    /// both sides write before they read, so no call waits beside a free worker.
    pub(crate) fn release(self: &Arc<Self>, worker: &Arc<Worker>, shard: usize, mut awaiting: bool) {
        while self.queue.waiting() > 0 && self.passes_on(worker) {
            let Some(waiter) = self.queue.pop(shard) else { break };
            worker.slot.succeed(awaiting, clock::now());
            awaiting = true;
            let permit = Permit::new(Arc::clone(self), Arc::clone(worker), shard);
            match waiter.give(permit, &self.queue, &self.meters) {
                Ok(()) => return,
                Err(permit) => permit.forget(),
            }
        }
        worker.slot.leave(awaiting);
        if self.queue.waiting() > 0 {
            self.offer(shard);
        }
    }

    /// Hands free places to calls that wait, until one of the two runs out.
    pub(crate) fn offer(self: &Arc<Self>, shard: usize) {
        while self.queue.waiting() > 0 {
            // The pick's loads are relaxed: they must not be older than what made this call look.
            fence(Ordering::SeqCst);
            let table = self.table();
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let Some(index) = table.pick(self.median_us(), clock::now(), turn, None) else { return };
            let worker = &table.workers[index];
            let handed = self.queue.pop(shard).is_some_and(|waiter| {
                let permit = Permit::new(Arc::clone(self), Arc::clone(worker), shard);
                match waiter.give(permit, &self.queue, &self.meters) {
                    Ok(()) => true,
                    Err(permit) => {
                        permit.forget();
                        false
                    }
                }
            });
            if handed {
                continue;
            }
            worker.slot.leave(true);
            // Whoever joined while the place was held here may have found none: it is this loop's to serve.
            if !self.queue.has_head() {
                return;
            }
        }
    }

    /// Calls wait from now on. Where a worker is shared with other balancers and may have room by now, which none of our own
    /// calls' ends tells, its instance is asked.
    pub(crate) fn ask_for_room(&self) {
        let now_us = clock::now();
        if self.table().workers.iter().any(|worker| worker.slot.contended(now_us)) {
            self.wake.notify_one();
        }
    }

    /// Whether a place at this worker may go straight to the next call.
    fn passes_on(&self, worker: &Worker) -> bool {
        worker.slot.state() == State::Ready && worker.slot.in_flight() <= worker.slot.cap()
    }
}

/// A place at a worker, owned by a call: counted once, given back once, on any thread.
#[must_use = "dropping a permit gives the place back"]
pub(crate) struct Permit {
    pool: Arc<Pool>,
    worker: Arc<Worker>,
    shard: usize,
    awaiting: bool,
    held: bool,
}

impl Permit {
    /// For a call that is counted in already and waits for its reply.
    pub(crate) fn new(pool: Arc<Pool>, worker: Arc<Worker>, shard: usize) -> Self {
        Self { pool, worker, shard, awaiting: true, held: true }
    }

    /// For a call whose reply is streaming: its wait for the first byte is over.
    pub(crate) fn streaming(pool: Arc<Pool>, worker: Arc<Worker>, shard: usize) -> Self {
        Self { pool, worker, shard, awaiting: false, held: true }
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// The place stays counted: somebody else gives it back.
    pub(crate) fn forget(mut self) {
        self.held = false;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held {
            self.pool.release(&self.worker, self.shard, self.awaiting);
        }
    }
}
