//! The actor: one round after the other, sooner when it is told to.

use std::rc::Rc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture, SpawnHandle};

use super::record::State;
use super::{Shared, hints, round};

/// How long after a hint a round begins, about: whoever publishes without end makes nobody poll without end, and not all
/// readers poll in the same moment.
const HINT_PAUSE: Duration = Duration::from_millis(50);

/// The actor.
pub(super) struct Member {
    shared: Rc<Shared>,
    /// Another was asked for meanwhile.
    again: bool,
    /// The end of the pause before the next round.
    timer: Option<SpawnHandle>,
    /// That pause is a short one already.
    soon: bool,
    /// What listens for hints.
    listener: Option<SpawnHandle>,
}

/// There is something new to do.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Refresh;

/// This process will stop.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Drain;

/// This process stops.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Leave;

impl Member {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        // A round of a former life ended with it.
        shared.busy.set(false);
        Self { shared, again: false, timer: None, soon: false, listener: None }
    }

    /// Begins a round, or has one follow the one that is under way.
    fn begin(&mut self, context: &mut Context<Self>) {
        if self.shared.busy.get() {
            self.again = true;
            return;
        }
        self.shared.busy.set(true);
        self.soon = false;
        if let Some(timer) = self.timer.take() {
            context.cancel_future(timer);
        }
        let shared = Rc::clone(&self.shared);
        let round = async move { round::run(&shared).await };
        context.spawn(round.into_actor(self).map(|done, member, context| member.ended(&done, context)));
    }

    fn ended(&mut self, done: &round::Done, context: &mut Context<Self>) {
        self.shared.busy.set(false);
        self.shared.idle.notify_waiters();
        if !done.failed && (self.listener.is_none() || done.recovered) {
            self.listen(context);
        }
        let again = std::mem::take(&mut self.again) && !done.failed;
        self.pause(if again { HINT_PAUSE } else { done.pause }, context);
        self.soon = again;
    }

    /// Begins a round soon.
    fn hinted(&mut self, context: &mut Context<Self>) {
        if self.shared.busy.get() {
            self.again = true;
        } else if !self.soon && !self.shared.health.borrow().is_failing() {
            self.pause(HINT_PAUSE, context);
            self.soon = true;
        }
    }

    fn pause(&mut self, pause: Duration, context: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            context.cancel_future(timer);
        }
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.timer = Some(context.run_later(jittered, |member, context| {
            member.timer = None;
            member.begin(context);
        }));
    }

    /// Listens for hints, anew after an outage: a connection that lived through it may be dead without knowing.
    fn listen(&mut self, context: &mut Context<Self>) {
        if let Some(listener) = self.listener.take() {
            context.cancel_future(listener);
        }
        if !self.shared.watched.borrow().is_empty() {
            let shared = Rc::clone(&self.shared);
            let listener = async move { hints::listen(&shared).await };
            self.listener = Some(context.spawn(listener.into_actor(self)));
        }
    }

    fn await_hint(&mut self, context: &mut Context<Self>) {
        let shared = Rc::clone(&self.shared);
        let hint = async move { shared.hinted.notified().await };
        context.spawn(hint.into_actor(self).map(|(), member, context| {
            member.hinted(context);
            member.await_hint(context);
        }));
    }
}

impl Actor for Member {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.begin(context);
        self.await_hint(context);
    }
}

impl Handler<Refresh> for Member {
    type Result = ();

    fn handle(&mut self, _: Refresh, context: &mut Context<Self>) {
        // What is new may have to be listened for.
        if let Some(listener) = self.listener.take() {
            context.cancel_future(listener);
        }
        self.begin(context);
    }
}

impl Handler<Drain> for Member {
    type Result = ();

    fn handle(&mut self, _: Drain, context: &mut Context<Self>) {
        for joined in self.shared.joined.borrow_mut().iter_mut().filter(|joined| joined.state == State::Up) {
            joined.state = State::Draining;
            joined.due = None;
        }
        self.begin(context);
    }
}

impl Handler<Leave> for Member {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Leave, _: &mut Context<Self>) -> ResponseFuture<()> {
        let shared = Rc::clone(&self.shared);
        Box::pin(async move {
            // A beat on its way must not come after the farewell.
            while shared.busy.get() {
                shared.idle.notified().await;
            }
            round::leave(&shared).await;
        })
    }
}
