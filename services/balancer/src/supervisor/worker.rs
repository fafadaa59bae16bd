//! The actor of one worker: a shell around its lifecycle that logs what changes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use troupe_contracts::report::Load;
use troupe_mesh::supervise::{self, Handle, Spec};

use crate::clock;
use crate::lifecycle::{Lifecycle, Seen, Surroundings, Transition};
use crate::pool::Pool;
use crate::slot::State;
use crate::worker::Worker;

/// Looks that may wait. They are told twice a second and each makes the one before it worthless.
const INBOX: usize = 8;

/// The actor.
pub(super) struct WorkerActor {
    pool: Arc<Pool>,
    worker: Arc<Worker>,
    /// Outlives the actor, so that a restart does not forget an ejection.
    life: Rc<RefCell<Lifecycle>>,
}

/// Something was seen of the worker.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Look {
    pub(super) seen: Sight,
    pub(super) around: Surroundings,
}

/// An operator takes the worker out, or gives it back.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Hold {
    pub(super) held: bool,
    pub(super) around: Surroundings,
}

/// As [`Seen`], owned.
pub(super) enum Sight {
    Load(Load),
    Silent,
    Nothing,
}

pub(super) fn start(pool: &Arc<Pool>, worker: &Arc<Worker>, joins: bool, held: bool) -> Handle<WorkerActor> {
    let (pool, worker) = (Arc::clone(pool), Arc::clone(worker));
    let mut life = Lifecycle::new(joins, clock::now());
    life.hold(held);
    let life = Rc::new(RefCell::new(life));
    let subject = format!("{}/{}", pool.name, worker.name);
    supervise::start(Spec { subject, inbox: INBOX, ..Spec::new("balancer-worker") }, move || WorkerActor {
        pool: Arc::clone(&pool),
        worker: Arc::clone(&worker),
        life: Rc::clone(&life),
    })
}

impl Actor for WorkerActor {
    type Context = Context<Self>;
}

impl Handler<Look> for WorkerActor {
    type Result = ();

    fn handle(&mut self, look: Look, _: &mut Context<Self>) {
        let seen = match &look.seen {
            Sight::Load(load) => Seen::Load(load),
            Sight::Silent => Seen::Silent,
            Sight::Nothing => Seen::Nothing,
        };
        let mut life = self.life.borrow_mut();
        if let Some(transition) = life.look(&self.pool, &self.worker, seen, look.around, clock::now()) {
            self.log(transition);
            self.pool.wake.notify_one();
        }
    }
}

impl Handler<Hold> for WorkerActor {
    type Result = ();

    fn handle(&mut self, hold: Hold, _: &mut Context<Self>) {
        // What it last said of itself: whether it can take calls again is not to wait for its next report.
        let load = *self.worker.load.lock();
        let mut life = self.life.borrow_mut();
        life.hold(hold.held);
        let seen = if hold.held { Seen::Nothing } else { Seen::Load(&load) };
        if let Some(transition) = life.look(&self.pool, &self.worker, seen, hold.around, clock::now()) {
            self.log(transition);
        }
        self.pool.wake.notify_one();
    }
}

impl WorkerActor {
    fn log(&self, transition: Transition) {
        let Transition { from, to, reason, for_us } = transition;
        let (pool, worker) = (&self.pool.name, &self.worker.name);
        let (from, out_for) = (from.as_str(), for_us.map(|us| format!("{:.1?}", Duration::from_micros(us))));
        match to {
            State::Ejected => tracing::warn!(%pool, %worker, from, reason, out_for, "worker is out"),
            _ => tracing::info!(%pool, %worker, from, to = to.as_str(), reason, "worker changed"),
        }
    }
}
