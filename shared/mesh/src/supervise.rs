//! Supervision of our own over actix actors.
//!
//! actix's mailbox is unbounded in practice (`do_send`, and `send` too), its supervisor does not catch panics and does not
//! make the actor anew, and a flood of messages starves timers. Here a supervisor owns a bounded inbox outside of the
//! actor, hands it one message at a time, catches its panics, makes a new one by its factory and goes on with the same
//! inbox. Nobody holds the actor's address, so actix's mailbox stays empty.
//!
//! - The message during which an actor panics is answered with [`SendError::Panicked`], counted, and not tried again;
//!   messages behind it wait for the new actor.
//! - A message that carries a [`Mark`] and panics twice is refused from then on ([`SendError::Poison`]).
//! - Too many restarts in too short a time end it: it is among those [`given_up`], the escalation callback is told, senders get
//!   [`SendError::Down`]. The process stays up so that it can drain; whoever runs it makes it unready.
//! - An actor that takes no message for a while although some wait is stuck: counted, logged and, if the spec says so,
//!   restarted.
//!
//! ```
//! use actix::{Actor, Context, Handler, Message};
//! use troupe_mesh::supervise::{self, Spec};
//!
//! struct Counter(u32);
//! impl Actor for Counter {
//!     type Context = Context<Self>;
//! }
//! #[derive(Message)]
//! #[rtype(result = "u32")]
//! struct Add(u32);
//! impl Handler<Add> for Counter {
//!     type Result = u32;
//!     fn handle(&mut self, add: Add, _: &mut Context<Self>) -> u32 {
//!         self.0 += add.0;
//!         self.0
//!     }
//! }
//!
//! actix_rt::System::new().block_on(async {
//!     let counter = supervise::start(Spec::new("counter"), || Counter(0));
//!     assert_eq!(counter.send(Add(2)).await, Ok(2));
//! });
//! ```

mod given_up;
mod inbox;
mod meters;
mod poison;
mod restarts;
mod run;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use self::given_up::Identity;
use self::inbox::{Delivery, Fate, Parcel};
use self::meters::Meters;
use crate::failure::Outcome;

pub use given_up::{GivenUp, given_up};
pub use poison::Mark;
pub use restarts::{Backoff, Intensity};

/// Messages an inbox holds unless the spec says otherwise: control planes send few, and a long queue only hides a stall.
pub const DEFAULT_INBOX: usize = 256;

/// How long [`Handle::send`] waits, for room and for the reply together.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// Without progress for this long, an actor with messages waiting is stuck.
pub const DEFAULT_STUCK_AFTER: Duration = Duration::from_secs(5);

/// When an actor is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// After a panic and after it stopped by itself.
    Permanent,
    /// After a panic only; an actor that stops by itself is done.
    Transient,
    /// Never.
    Never,
}

/// What the supervisor does with an actor that is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenStuck {
    /// Count it and log it: the actor may hold something that a restart would lose.
    Report,
    /// Also drop it and make a new one, as after a panic.
    Restart,
}

/// How an actor is supervised.
pub struct Spec {
    /// What kind of actor it is: a metric label, so one of a few. Lower case, as in `balancer`.
    pub name: &'static str,
    /// Which one of its kind, for logs.
    pub subject: String,
    /// When it is made anew.
    pub policy: Policy,
    /// How many restarts are too many.
    pub intensity: Intensity,
    /// Pauses before a restart.
    pub backoff: Backoff,
    /// Messages that may wait, 1 at least.
    pub inbox: usize,
    /// How long a sender waits for room and reply together.
    pub wait: Duration,
    /// How long without progress is stuck.
    pub stuck_after: Duration,
    /// What is done then.
    pub when_stuck: WhenStuck,
    /// Told when restarts are given up, on the supervisor's thread, where more is to be done than [`given_up`] brings about.
    pub on_escalate: Option<OnEscalate>,
}

/// What is told of an escalation; a panic in it is caught.
pub type OnEscalate = Rc<dyn Fn(&Escalation)>;

/// Restarts were given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation {
    /// The kind of actor.
    pub name: &'static str,
    /// Which one of its kind.
    pub subject: String,
    /// Why its last life ended: `panic`, `stop` or `stuck`.
    pub reason: &'static str,
}

impl fmt::Display for Escalation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject.as_str() {
            "" => write!(formatter, "the actor {} failed too often and is given up", self.name),
            subject => write!(formatter, "the actor {} of {subject} failed too often and is given up", self.name),
        }
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Spec")
            .field("name", &self.name)
            .field("subject", &self.subject)
            .field("policy", &self.policy)
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
    }
}

impl Spec {
    /// A permanent actor with the default bounds, and no one told of an escalation.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            subject: String::new(),
            policy: Policy::Permanent,
            intensity: Intensity::default(),
            backoff: Backoff::default(),
            inbox: DEFAULT_INBOX,
            wait: DEFAULT_WAIT,
            stuck_after: DEFAULT_STUCK_AFTER,
            when_stuck: WhenStuck::Report,
            on_escalate: None,
        }
    }
}

/// What a supervised actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It takes messages.
    Running,
    /// It failed and will be made anew; messages wait.
    Restarting,
    /// It failed too often and is given up.
    Escalated,
    /// It is done: stopped as its policy allows, asked to, or no one could send to it any more.
    Ended,
}

/// Why a message has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No room in the inbox; the message was not taken.
    #[error("the actor's inbox is full")]
    Full,
    /// No reply in time. Whether the message was handled is not known.
    #[error("the actor did not reply in time")]
    Timeout,
    /// The actor panicked while it handled this message.
    #[error("the actor panicked while it handled the message")]
    Panicked,
    /// The same message made the actor panic twice; it was not handled.
    #[error("the message is refused: it made the actor panic twice")]
    Poison,
    /// The actor was replaced while it worked on the reply, or dropped it.
    #[error("the reply was lost")]
    Lost,
    /// The actor is given up or done; the message was not handled.
    #[error("the actor is no longer there")]
    Down,
}

impl SendError {
    /// The outcome of a call that ends this way.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Full => Outcome::Overloaded,
            Self::Timeout => Outcome::Deadline,
            Self::Down => Outcome::Unreachable,
            Self::Panicked | Self::Poison | Self::Lost => Outcome::Internal,
        }
    }

    /// Whether the actor certainly never saw the message.
    pub fn not_started(self) -> bool {
        matches!(self, Self::Full | Self::Poison | Self::Down)
    }
}

/// Starts an actor under supervision on the calling thread's arbiter. `factory` makes it, now and after each failure.
///
/// The actor lives until it ends as its policy allows, [`Handle::stop`] is called, or the last handle is dropped; in the
/// latter two cases it handles what waits first.
///
/// Panics when the calling thread runs no actix event loop, as starting any actor does.
pub fn start<A, F>(spec: Spec, factory: F) -> Handle<A>
where
    A: Actor<Context = Context<A>>,
    F: FnMut() -> A + 'static,
{
    let (tx, rx) = mpsc::channel(spec.inbox.max(1));
    let (state_tx, state) = watch::channel(State::Running);
    let (stop, stop_rx) = watch::channel(false);
    let (meters, identity) = (Meters::new(spec.name), Identity::new());
    let shared = Shared { state, stop, wait: spec.wait, meters: meters.clone(), identity: identity.clone() };
    let handle = Handle { tx, shared: Arc::new(shared) };
    actix_rt::spawn(run::supervise(spec, factory, rx, state_tx, stop_rx, meters, identity));
    handle
}

/// The way to a supervised actor. Clones share it; it may cross threads.
pub struct Handle<A> {
    tx: mpsc::Sender<Parcel<A>>,
    shared: Arc<Shared>,
}

struct Shared {
    state: watch::Receiver<State>,
    stop: watch::Sender<bool>,
    wait: Duration,
    meters: Meters,
    identity: Identity,
}

impl<A> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self { tx: self.tx.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<A> fmt::Debug for Handle<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Handle").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl<A: Actor<Context = Context<A>>> Handle<A> {
    /// Sends a message and waits for its reply, within the spec's bound.
    ///
    /// Dropping the future withdraws a message that still waits; one that is being handled is handled to its end.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send<M>(&self, message: M) -> Result<M::Result, SendError>
    where
        A: Handler<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        self.deliver(None, message, self.shared.wait).await
    }

    /// As [`send`](Self::send), with a bound of its own.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send_within<M>(&self, message: M, wait: Duration) -> Result<M::Result, SendError>
    where
        A: Handler<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        self.deliver(None, message, wait).await
    }

    /// As [`send`](Self::send), for a message that comes from outside and comes again: when the same one has made the actor panic
    /// twice, it is refused for ten minutes, instead of costing the actor all its restarts.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send_marked<M>(&self, mark: Mark, message: M) -> Result<M::Result, SendError>
    where
        A: Handler<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        self.deliver(Some(mark), message, self.shared.wait).await
    }

    /// As [`send_marked`](Self::send_marked), with a bound of its own.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send_marked_within<M>(&self, mark: Mark, message: M, wait: Duration) -> Result<M::Result, SendError>
    where
        A: Handler<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        self.deliver(Some(mark), message, wait).await
    }

    /// Sends a message whose reply nobody waits for, or says at once why not.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] or [`SendError::Down`].
    pub fn try_send<M>(&self, message: M) -> Result<(), SendError>
    where
        A: Handler<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        let permit = match self.tx.try_reserve() {
            Ok(permit) => permit,
            Err(TrySendError::Full(())) => {
                self.shared.meters.full.increment(1);
                return Err(SendError::Full);
            }
            Err(TrySendError::Closed(())) => return Err(SendError::Down),
        };
        self.shared.meters.depth.increment(1.0);
        permit.send(Box::new(Delivery::new(message, None, None, Arc::default())));
        Ok(())
    }

    async fn deliver<M>(&self, mark: Option<Mark>, message: M, wait: Duration) -> Result<M::Result, SendError>
    where
        A: Handler<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        let deadline = Instant::now() + wait;
        let permit = match self.tx.try_reserve() {
            Ok(permit) => permit,
            Err(TrySendError::Closed(())) => return Err(SendError::Down),
            Err(TrySendError::Full(())) => {
                self.shared.meters.full.increment(1);
                let permit = timeout_at(deadline, self.tx.reserve()).await.map_err(|_| SendError::Full)?;
                permit.map_err(|_| SendError::Down)?
            }
        };
        let (reply, replied) = oneshot::channel();
        let fate = Arc::new(Fate::default());
        self.shared.meters.depth.increment(1.0);
        permit.send(Box::new(Delivery::new(message, Some(reply), mark, Arc::clone(&fate))));
        match timeout_at(deadline, replied).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(fate.error()),
            Err(_) => Err(SendError::Timeout),
        }
    }
}

impl<A> Handle<A> {
    /// What the actor is doing.
    pub fn state(&self) -> State {
        *self.shared.state.borrow()
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.tx.max_capacity() - self.tx.capacity()
    }

    /// Takes no more messages; the actor handles what waits and ends.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }

    /// Says that nothing depends on this actor any more, as another one does its work or nobody needs it: should it be given up,
    /// or have been, it is none of those [`given_up`].
    pub fn replaced(&self) {
        self.shared.identity.is_replaced();
    }

    /// Resolves when the actor is done or given up.
    pub async fn ended(&self) -> State {
        let mut state = self.shared.state.clone();
        let ended = state.wait_for(|state| matches!(state, State::Ended | State::Escalated)).await;
        // The supervisor itself gone (its thread ended) is an end as well.
        ended.map_or(State::Ended, |state| *state)
    }
}

#[cfg(test)]
mod tests;
