//! The supervisor's loop: one life of the actor after another.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context};
use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::given_up::Identity;
use super::inbox::{Feeder, Inbox, Parcel};
use super::meters::Meters;
use super::restarts::Restarts;
use super::{Escalation, Policy, Spec, State, WhenStuck};

/// How long an actor may take to stop once its inbox is closed and empty; then it is dropped.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// How often an actor is looked at per `stuck_after`: a stall is seen at most a quarter late.
const LOOKS: u32 = 4;

/// How a life of the actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its inbox is closed and empty.
    Finished,
    /// It stopped by itself.
    Stopped,
    /// It, or its factory, panicked.
    Panicked,
    /// It was stuck and its spec says to restart it.
    Stuck,
}

impl End {
    fn reason(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Stopped => "stop",
            Self::Panicked => "panic",
            Self::Stuck => "stuck",
        }
    }
}

pub(super) async fn supervise<A, F>(
    spec: Spec,
    mut factory: F,
    waiting: mpsc::Receiver<Parcel<A>>,
    state: watch::Sender<State>,
    mut stop: watch::Receiver<bool>,
    meters: Meters,
    identity: Identity,
) where
    A: Actor<Context = Context<A>>,
    F: FnMut() -> A + 'static,
{
    let inbox = Inbox::new(waiting, meters.clone());
    let mut restarts = Restarts::new(spec.intensity, spec.backoff);
    let end = loop {
        let born = Instant::now();
        let end = live(&spec, &mut factory, &inbox, &mut stop, &meters).await;
        let again = match (end, spec.policy) {
            (End::Finished, _) | (_, Policy::Never) | (End::Stopped, Policy::Transient) => false,
            (_, Policy::Permanent | Policy::Transient) => true,
        };
        if !again {
            tracing::debug!(actor = spec.name, subject = spec.subject, reason = end.reason(), "actor ended");
            break State::Ended;
        }
        let now = Instant::now();
        let Some(pause) = restarts.next(now, now.duration_since(born)) else {
            escalate(&spec, end, &meters, &identity);
            break State::Escalated;
        };
        match end {
            End::Panicked => meters.restarts_panic.increment(1),
            End::Stuck => meters.restarts_stuck.increment(1),
            End::Stopped | End::Finished => meters.restarts_stop.increment(1),
        }
        tracing::warn!(
            actor = spec.name,
            subject = spec.subject,
            reason = end.reason(),
            waiting = inbox.waiting(),
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "actor failed; it is made anew"
        );
        state.send_replace(State::Restarting);
        tokio::time::sleep(pause).await;
        state.send_replace(State::Running);
    };
    inbox.refuse_all();
    state.send_replace(end);
}

fn escalate(spec: &Spec, end: End, meters: &Meters, identity: &Identity) {
    meters.escalations.increment(1);
    tracing::error!(
        actor = spec.name,
        subject = spec.subject,
        reason = end.reason(),
        restarts = spec.intensity.restarts,
        within_ms = u64::try_from(spec.intensity.within.as_millis()).unwrap_or(u64::MAX),
        "actor failed too often and is given up"
    );
    let escalation = Escalation { name: spec.name, subject: spec.subject.clone(), reason: end.reason() };
    identity.is_given_up(&escalation);
    if let Some(told) = &spec.on_escalate {
        // What the callback does wrong must not keep the senders from their answer.
        let _ = catch_unwind(AssertUnwindSafe(|| told(&escalation)));
    }
}

/// One life of the actor, from its factory to its end.
async fn live<A, F>(
    spec: &Spec,
    factory: &mut F,
    inbox: &Rc<Inbox<A>>,
    stop: &mut watch::Receiver<bool>,
    meters: &Meters,
) -> End
where
    A: Actor<Context = Context<A>>,
    F: FnMut() -> A + 'static,
{
    let Ok(actor) = catch_unwind(AssertUnwindSafe(factory)) else {
        return End::Panicked;
    };
    let alive = Rc::new(Cell::new(true));
    let mut context = Context::new();
    context.spawn(Feeder { inbox: Rc::clone(inbox), alive: Rc::clone(&alive) });
    let mut actor = context.into_future(actor);

    let mut look = tokio::time::interval((spec.stuck_after / LOOKS).max(Duration::from_millis(1)));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = Progress::new(inbox.taken());
    let mut closing = false;
    let mut finished: Option<Instant> = None;
    let end = loop {
        tokio::select! {
            biased;
            ended = AssertUnwindSafe(&mut actor).catch_unwind() => break match ended {
                Ok(()) if inbox.finished() => End::Finished,
                Ok(()) => End::Stopped,
                Err(_) => End::Panicked,
            },
            // An error means that no handle is left; the inbox sees that by itself.
            asked = stop.wait_for(|stop| *stop), if !closing => {
                closing = true;
                if asked.is_ok() {
                    inbox.close();
                }
            }
            _ = look.tick() => {
                if inbox.finished() && finished.get_or_insert_with(Instant::now).elapsed() >= STOP_WAIT {
                    break End::Finished;
                }
                if progress.stuck(inbox.taken(), inbox.waiting(), spec.stuck_after) {
                    meters.stalls.increment(1);
                    tracing::warn!(
                        actor = spec.name,
                        subject = spec.subject,
                        waiting = inbox.waiting(),
                        idle_ms = u64::try_from(progress.idle().as_millis()).unwrap_or(u64::MAX),
                        "actor takes no message although some wait"
                    );
                    if spec.when_stuck == WhenStuck::Restart {
                        break End::Stuck;
                    }
                }
            }
        }
    };
    alive.set(false);
    if end == End::Panicked {
        inbox.panicked();
    } else {
        inbox.replaced();
    }
    // actix runs the actor's `stopping` and `stopped` in here; after a panic they may well panic again.
    if catch_unwind(AssertUnwindSafe(|| drop(actor))).is_err() {
        tracing::warn!(actor = spec.name, subject = spec.subject, "actor panicked while it was dropped");
    }
    end
}

/// Whether the actor gets on with its inbox.
struct Progress {
    taken: u64,
    since: Instant,
    /// Whether this stall was told already.
    told: bool,
}

impl Progress {
    fn new(taken: u64) -> Self {
        Self { taken, since: Instant::now(), told: false }
    }

    fn idle(&self) -> Duration {
        self.since.elapsed()
    }

    /// True once per stall.
    fn stuck(&mut self, taken: u64, waiting: usize, after: Duration) -> bool {
        if taken != self.taken || waiting == 0 {
            *self = Self::new(taken);
            return false;
        }
        if self.told || self.idle() < after {
            return false;
        }
        self.told = true;
        true
    }
}
