//! Uploads: a body that is on its way needs no process of PHP, only the php-pool's disk. So such a call takes no place at a worker
//! before its body is through; from then on it counts like any other, beyond the cap if need be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use troupe_contracts::invoke::{Invoke, UPSTREAM};
use troupe_mesh::body::Body;

use crate::clock;
use crate::pool::Pool;
use crate::worker::Worker;

/// Bodies on their way to one worker at once; calls beyond take a place like others. As many as a php-pool gathers.
pub(crate) const MAX_UPLOADS: u32 = 512;

const ON_ITS_WAY: u8 = 0;
const COUNTED: u8 = 1;
const OVER: u8 = 2;

/// Whether the call's body is still to come, and is gathered before anything is done with it. A server elsewhere is sent it
/// as it comes, over a connection of its own.
pub(crate) fn is_one(call: &Invoke) -> bool {
    matches!(call.body, Body::Stream(_)) && !call.flags.streaming && !call.pool.starts_with(UPSTREAM)
}

/// A call at a worker that is counted in when its body is through.
pub(crate) struct Upload {
    pool: Arc<Pool>,
    worker: Arc<Worker>,
    shard: usize,
    state: AtomicU8,
    /// When it was sent, or was counted in.
    since_us: AtomicU64,
}

impl Upload {
    /// Of a call with this body for `worker`, among whose uploads it is.
    pub(crate) fn begin(pool: &Arc<Pool>, worker: &Arc<Worker>, shard: usize, body: &mut Body) -> Arc<Self> {
        worker.slot.upload_begins();
        let upload = Arc::new(Self {
            pool: Arc::clone(pool),
            worker: Arc::clone(worker),
            shard,
            state: AtomicU8::new(ON_ITS_WAY),
            since_us: AtomicU64::new(clock::now()),
        });
        if let Body::Stream(reader) = body {
            let told = Arc::clone(&upload);
            reader.on_end(Box::new(move || told.arrived()));
        }
        upload
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    pub(crate) fn since_us(&self) -> u64 {
        self.since_us.load(Ordering::Relaxed)
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.state.load(Ordering::SeqCst) == COUNTED
    }

    /// Its body is through: it is counted in, unless it is over.
    pub(crate) fn arrived(&self) {
        if self.state.load(Ordering::SeqCst) != ON_ITS_WAY {
            return;
        }
        let now_us = clock::now();
        // Before the state says so: whoever reads it may count the call out at once.
        self.worker.slot.enter(now_us);
        self.since_us.store(now_us, Ordering::Relaxed);
        if self.leave(COUNTED) {
            self.worker.slot.upload_ends();
        } else {
            self.pool.release(&self.worker, self.shard, true);
        }
    }

    /// The call is over. Whether it was counted in, so that its place is to be given back.
    pub(crate) fn end(&self) -> bool {
        let uncounted = self.leave(OVER);
        if uncounted {
            self.worker.slot.upload_ends();
        }
        !uncounted
    }

    fn leave(&self, next: u8) -> bool {
        self.state.compare_exchange(ON_ITS_WAY, next, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;
    use troupe_contracts::report::Load;
    use troupe_mesh::body::channel;
    use troupe_node::config::QueueConfig;

    use super::*;
    use crate::instances::InstanceId;
    use crate::tuning::Tuning;

    fn at_a_full_worker() -> (Arc<Pool>, Arc<Worker>) {
        let tuning = Arc::new(Tuning::new(&crate::config::BalancerConfig::default()));
        let pool = Arc::new(Pool::new("p", &QueueConfig::default(), tuning, 1, Arc::new(Notify::new())));
        let load = Load { slots: 1, ..Load::default() };
        let worker = Arc::new(Worker::new(1, InstanceId::local(), Arc::from("w"), load));
        assert!(worker.slot.admit(0) && !worker.slot.admit(0));
        (pool, worker)
    }

    /// As many as like are on their way; one that is through counts, and its place is given back once.
    #[test]
    fn an_upload_counts_from_its_last_byte_on() {
        let (pool, worker) = at_a_full_worker();
        let (writer, reader) = channel(None);
        let mut body = Body::Stream(reader);
        let upload = Upload::begin(&pool, &worker, 0, &mut body);
        assert_eq!((worker.slot.in_flight(), upload.is_counted()), (1, false));
        writer.finish();
        drop(body);
        assert_eq!((worker.slot.in_flight(), upload.is_counted()), (2, true));
        assert!(upload.end());
        pool.release(&worker, 0, true);
        assert_eq!(worker.slot.in_flight(), 1);
    }

    #[test]
    fn an_upload_that_is_over_before_counts_no_more() {
        let (pool, worker) = at_a_full_worker();
        let (_writer, reader) = channel(None);
        let mut body = Body::Stream(reader);
        let upload = Upload::begin(&pool, &worker, 0, &mut body);
        assert!(!upload.end());
        drop(body);
        assert_eq!((worker.slot.in_flight(), upload.is_counted()), (1, false));
    }

    #[test]
    fn a_worker_takes_a_bounded_number_of_uploads() {
        let (pool, worker) = at_a_full_worker();
        let all: Vec<_> = (0..MAX_UPLOADS)
            .map(|_| {
                assert!(worker.slot.upload_cost(1.0, 0, false) < f32::INFINITY);
                Upload::begin(&pool, &worker, 0, &mut Body::Empty)
            })
            .collect();
        assert_eq!(worker.slot.upload_cost(1.0, 0, false), f32::INFINITY);
        assert!(all.iter().all(|upload| !upload.end()));
        assert!(worker.slot.upload_cost(1.0, 0, false) < f32::INFINITY);
    }
}
