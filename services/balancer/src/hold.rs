//! A call's hold on a worker, from the pick to the end of the reply's body.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use troupe_contracts::invoke::{Invoke, Reply};
use troupe_mesh::body::Body;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome};
use troupe_mesh::port::Port;

use crate::clock;
use crate::pool::Permit;
use crate::thread::{LocalPool, View};
use crate::upload::Upload;
use crate::worker::Worker;

/// One call counted in at one worker. However it ends, dropped included, the call is counted out once and its worker's
/// lesson is learnt.
pub(crate) struct Hold {
    local: Rc<LocalPool>,
    place: Place,
    since_us: u64,
    deadline: Deadline,
    held: bool,
}

/// Where the place is counted. All keep the worker alive; a view costs no atomic.
enum Place {
    Picked {
        view: Rc<View>,
        index: usize,
    },
    Handed {
        worker: Arc<Worker>,
        port: Port<Invoke>,
    },
    /// It is counted when the body is through.
    Upload {
        upload: Arc<Upload>,
        port: Port<Invoke>,
    },
}

impl Hold {
    /// A place that the pick has taken.
    pub(crate) fn picked(local: Rc<LocalPool>, view: Rc<View>, index: usize, now_us: u64, deadline: Deadline) -> Self {
        Self { local, place: Place::Picked { view, index }, since_us: now_us, deadline, held: true }
    }

    /// A place that came out of the queue.
    pub(crate) fn handed(local: Rc<LocalPool>, permit: Permit, now_us: u64, deadline: Deadline) -> Self {
        let port = local.port(&permit.worker().instance);
        let worker = Arc::clone(permit.worker());
        permit.forget();
        Self { local, place: Place::Handed { worker, port }, since_us: now_us, deadline, held: true }
    }

    /// Of a call whose body is on its way. `None`: no worker takes it.
    pub(crate) fn upload(local: Rc<LocalPool>, call: &mut Invoke, now_us: u64, deadline: Deadline) -> Option<Self> {
        let (view, _) = local.view();
        let index = view.table.pick_for_upload(local.pool.median_us(), now_us, local.next_turn())?;
        let worker = view.table.workers.get(index)?;
        let upload = Upload::begin(&local.pool, worker, local.shard, &mut call.body);
        let place = Place::Upload { upload, port: view.port(index).clone() };
        Some(Self { local, place, since_us: now_us, deadline, held: true })
    }

    pub(crate) fn port(&self) -> &Port<Invoke> {
        match &self.place {
            Place::Picked { view, index } => view.port(*index),
            Place::Handed { port, .. } | Place::Upload { port, .. } => port,
        }
    }

    /// How long ago the place was taken, in microseconds.
    pub(crate) fn age_us(&self, now_us: u64) -> u64 {
        let since_us = match &self.place {
            Place::Upload { upload, .. } => upload.since_us(),
            Place::Picked { .. } | Place::Handed { .. } => self.since_us,
        };
        now_us.saturating_sub(since_us)
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        match &self.place {
            Place::Picked { view, index } => &view.table.workers[*index],
            Place::Handed { worker, .. } => worker,
            Place::Upload { upload, .. } => upload.worker(),
        }
    }

    /// Whether the call counts at its worker, and its time is the worker's.
    fn is_counted(&self) -> bool {
        match &self.place {
            Place::Upload { upload, .. } => upload.is_counted(),
            Place::Picked { .. } | Place::Handed { .. } => true,
        }
    }

    /// The reply's head is here. The place is held until its body ends.
    pub(crate) fn reply(mut self, mut reply: Reply, now_us: u64) -> Reply {
        if let Place::Upload { upload, .. } = &self.place {
            // A reply before the end of the body ends the upload as well.
            upload.arrived();
        }
        let age_us = self.age_us(now_us);
        reply.times.worker_us = u32::try_from(age_us).unwrap_or(u32::MAX);
        let rtt = age_us as f32;
        let pool = &self.local.pool;
        let worker = self.worker();
        pool.learn_reply(worker, reply.head.status(), &reply.load, rtt, now_us, self.local.next_reply());
        pool.meters.answered(age_us);
        if let Body::Stream(reader) = &mut reply.body {
            worker.slot.first_byte();
            let permit = Permit::streaming(Arc::clone(pool), Arc::clone(worker), self.local.shard);
            self.held = false;
            reader.on_end(Box::new(move || drop(permit)));
        } else {
            self.release();
        }
        reply
    }

    /// The call failed before the first byte of a reply.
    pub(crate) fn fail(mut self, failure: &Failure, now_us: u64) {
        let learns = match failure.outcome {
            Outcome::Unreachable | Outcome::Broken | Outcome::Incompatible => true,
            // It was sent whether there was room or not: that there is none is no news.
            Outcome::Overloaded => !matches!(self.place, Place::Upload { .. }),
            _ => self.is_counted(),
        };
        if learns {
            let rtt = self.age_us(now_us) as f32;
            self.local.pool.learn_failure(self.worker(), failure, rtt, now_us);
        }
        self.release();
    }

    fn release(&mut self) {
        self.held = false;
        if let Place::Upload { upload, .. } = &self.place
            && !upload.end()
        {
            return;
        }
        self.local.pool.release(self.worker(), self.local.shard, true);
    }
}

/// The caller left before the reply.
impl Drop for Hold {
    fn drop(&mut self) {
        if self.held {
            let now_us = clock::now();
            let expired = Instant::now() >= self.deadline.instant();
            if self.is_counted() {
                let elapsed = self.age_us(now_us) as f32;
                self.local.pool.learn_abandoned(self.worker(), elapsed, expired, now_us);
            }
            self.local.pool.meters.failed(if expired { Outcome::Deadline } else { Outcome::Cancelled });
            self.release();
        }
    }
}
