//! The inbox outside of the actor, and the future inside of it that takes one message at a time.
//!
//! The feeder runs as a future of the actor's own context and calls the handler directly. It stops after a number of
//! messages so that the actor's timers get their turn, and while the actor waits (`ctx.wait`, `AtomicResponse`).

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{self, Poll};

use actix::dev::{MessageResponse, OneshotSender};
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::poison::{Mark, Poison};
use super::{Meters, SendError};

/// Messages handled before the actor's timers and the thread's other tasks get their turn.
const MESSAGES_PER_TURN: usize = 32;

/// A message on its way to `A`.
pub(super) type Parcel<A> = Box<dyn Deliver<A> + Send>;

/// What the inbox does with a message, whatever its type.
pub(super) trait Deliver<A: Actor> {
    /// Has the actor handle it.
    fn deliver(self: Box<Self>, actor: &mut A, context: &mut A::Context);
    /// Answers it with an error.
    fn refuse(self: Box<Self>, why: SendError);
    /// Whether nobody waits for the reply any more.
    fn withdrawn(&self) -> bool;
    /// What makes it the same as another.
    fn mark(&self) -> Option<Mark>;
}

/// What became of a message without a reply; written before its reply channel is dropped.
#[derive(Debug, Default)]
pub(super) struct Fate(AtomicU8);

impl Fate {
    const PANICKED: u8 = 1;
    const POISON: u8 = 2;
    const DOWN: u8 = 3;

    /// Read once the reply channel is closed.
    pub(super) fn error(&self) -> SendError {
        match self.0.load(Ordering::Acquire) {
            Self::PANICKED => SendError::Panicked,
            Self::POISON => SendError::Poison,
            Self::DOWN => SendError::Down,
            _ => SendError::Lost,
        }
    }
}

/// A message with its way back.
pub(super) struct Delivery<M: Message> {
    message: M,
    /// `None` from the start: nobody waits.
    reply: Option<OneshotSender<M::Result>>,
    mark: Option<Mark>,
    fate: Arc<Fate>,
}

impl<M: Message> Delivery<M> {
    pub(super) fn new(
        message: M,
        reply: Option<OneshotSender<M::Result>>,
        mark: Option<Mark>,
        fate: Arc<Fate>,
    ) -> Self {
        Self { message, reply, mark, fate }
    }
}

/// Writes the fate if the handler unwinds; declared after the reply channel, so it is dropped before it.
struct OnPanic<'fate>(&'fate Fate);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.store(Fate::PANICKED, Ordering::Release);
        }
    }
}

impl<A, M> Deliver<A> for Delivery<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
{
    fn deliver(self: Box<Self>, actor: &mut A, context: &mut A::Context) {
        let Self { message, reply, fate, .. } = *self;
        let on_panic = OnPanic(&fate);
        let response = actor.handle(message, context);
        drop(on_panic);
        response.handle(context, reply);
    }

    fn refuse(self: Box<Self>, why: SendError) {
        let fate = match why {
            SendError::Poison => Fate::POISON,
            _ => Fate::DOWN,
        };
        self.fate.0.store(fate, Ordering::Release);
    }

    fn withdrawn(&self) -> bool {
        self.reply.as_ref().is_some_and(OneshotSender::is_closed)
    }

    fn mark(&self) -> Option<Mark> {
        self.mark
    }
}

/// The messages that wait, and what is known of the one being handled. Outlives the actors it feeds.
pub(super) struct Inbox<A> {
    waiting: RefCell<mpsc::Receiver<Parcel<A>>>,
    /// Messages taken so far: what stuck detection watches.
    taken: Cell<u64>,
    handling: Cell<Handling>,
    finished: Cell<bool>,
    poison: RefCell<Poison>,
    meters: Meters,
}

/// Whether a panic now is the fault of a message, and of which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handling {
    Nothing,
    Message(Option<Mark>),
}

impl<A: Actor<Context = Context<A>>> Inbox<A> {
    pub(super) fn new(waiting: mpsc::Receiver<Parcel<A>>, meters: Meters) -> Rc<Self> {
        Rc::new(Self {
            waiting: RefCell::new(waiting),
            taken: Cell::new(0),
            handling: Cell::new(Handling::Nothing),
            finished: Cell::new(false),
            poison: RefCell::default(),
            meters,
        })
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.get()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether it is closed and every message was taken.
    pub(super) fn finished(&self) -> bool {
        self.finished.get()
    }

    /// Takes no more messages; those inside are still handed out.
    pub(super) fn close(&self) {
        self.waiting.borrow_mut().close();
    }

    /// The actor panicked: blames the message it was handling, if any.
    pub(super) fn panicked(&self) {
        if let Handling::Message(mark) = self.handling.replace(Handling::Nothing) {
            self.meters.failed.increment(1);
            if let Some(mark) = mark {
                self.poison.borrow_mut().panicked(mark, Instant::now());
            }
        }
    }

    /// Forgets what was being handled: the actor is replaced through no fault of a message.
    pub(super) fn replaced(&self) {
        self.handling.set(Handling::Nothing);
    }

    /// Closes it and answers everything inside.
    pub(super) fn refuse_all(&self) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.close();
        while let Ok(parcel) = waiting.try_recv() {
            self.meters.depth.decrement(1.0);
            parcel.refuse(SendError::Down);
        }
    }

    fn poll_next(&self, task: &mut task::Context<'_>) -> Poll<Option<Parcel<A>>> {
        let next = self.waiting.borrow_mut().poll_recv(task);
        if let Poll::Ready(Some(_)) = next {
            self.meters.depth.decrement(1.0);
            self.taken.set(self.taken.get().wrapping_add(1));
        }
        next
    }
}

/// Feeds one actor from the inbox as long as `alive` says so.
pub(super) struct Feeder<A> {
    pub(super) inbox: Rc<Inbox<A>>,
    /// Cleared before the actor is dropped: actix polls a dropped actor once more, and it must take nothing then.
    pub(super) alive: Rc<Cell<bool>>,
}

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Feeder<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, context: &mut A::Context, task: &mut task::Context<'_>) -> Poll<()> {
        let inbox = &self.inbox;
        // Polled at all means that the actor does not wait any more for what the last message asked it to.
        inbox.replaced();
        for _ in 0..MESSAGES_PER_TURN {
            if !self.alive.get() || context.waiting() {
                return Poll::Pending;
            }
            let parcel = match inbox.poll_next(task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(parcel)) => parcel,
                Poll::Ready(None) => {
                    inbox.finished.set(true);
                    context.stop();
                    return Poll::Ready(());
                }
            };
            if parcel.withdrawn() {
                continue;
            }
            let mark = parcel.mark();
            if mark.is_some_and(|mark| inbox.poison.borrow().refuses(mark, Instant::now())) {
                inbox.meters.poison.increment(1);
                parcel.refuse(SendError::Poison);
                continue;
            }
            inbox.handling.set(Handling::Message(mark));
            parcel.deliver(actor, context);
            // While the actor waits, what it waits for still belongs to this message.
            if !context.waiting() {
                inbox.replaced();
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}
