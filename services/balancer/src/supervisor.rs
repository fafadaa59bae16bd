//! The supervisor: an actor over one actor per worker.
//!
//! It learns which instances there are, asks each for its load, makes and ends workers, keeps them ordered by score and
//! publishes the order. No call passes through here: the data path reads what is published, and wakes the supervisor
//! when it has ejected a worker or found one shared with another balancer.

mod reporter;
mod roster;
mod series;
mod worker;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use tokio::sync::Notify;
use tokio::time::Interval;
use troupe_contracts::report::{InstanceReport, Report};
use troupe_mesh::contract::Contract;
use troupe_mesh::port::Port;
use troupe_mesh::supervise::{self, Handle, Mark, SendError, Spec};

use crate::clock;
use crate::directory::Directory;
use crate::instances::{Instance, InstanceId, Instances};
use crate::tuning::Tuning;
use roster::Roster;

/// The least time between two looks that the data path asks for: a storm of ejections is seen in a few looks.
const LEAST_BETWEEN_WAKES: Duration = Duration::from_millis(5);
/// Messages the supervisor's inbox holds: a report of each of the most instances there may be.
const INBOX: usize = 2_048;

/// Makes the supervisor's port to an instance.
pub(crate) type ReportPorts = Rc<dyn Fn(&InstanceId) -> Port<Report>>;

/// Starts the supervisor on this thread's arbiter.
pub(crate) fn start(directory: Arc<Directory>, instances: Instances, ports: ReportPorts) -> Handle<Supervisor> {
    let wake = Arc::clone(&directory.wake);
    let tuning = Arc::clone(&directory.tuning);
    // Outlives the actor: calls in flight are counted in the workers, which a restart must not forget.
    let roster = Rc::new(RefCell::new(Roster::new(directory)));
    let own = Rc::new(RefCell::new(None::<Handle<Supervisor>>));
    let handle = {
        let own = Rc::downgrade(&own);
        supervise::start(Spec { inbox: INBOX, ..Spec::new("balancer") }, move || Supervisor {
            roster: Rc::clone(&roster),
            ports: Rc::clone(&ports),
            own: own.upgrade().and_then(|own| own.borrow().clone()),
        })
    };
    *own.borrow_mut() = Some(handle.clone());
    actix_rt::spawn(feed(handle.clone(), instances, wake, tuning, own));
    handle
}

/// Tells the supervisor of the source's changes, of the data path's, and of time, until it ends.
async fn feed(
    supervisor: Handle<Supervisor>,
    mut instances: Instances,
    wake: Arc<Notify>,
    tuning: Arc<Tuning>,
    own: Rc<RefCell<Option<Handle<Supervisor>>>>,
) {
    let mut tick = ticking(tuning.report_interval());
    let mut source_open = true;
    let listed = instances.borrow_and_update().clone();
    let mut sent = tell(&supervisor, listed).await;
    while !matches!(sent, Err(SendError::Down)) {
        sent = tokio::select! {
            changed = instances.changed(), if source_open => {
                source_open = changed.is_ok();
                let listed = instances.borrow_and_update().clone();
                tell(&supervisor, listed).await
            }
            () = wake.notified() => {
                let sent = supervisor.send(Woken).await;
                tokio::time::sleep(LEAST_BETWEEN_WAKES).await;
                sent
            }
            _ = tick.tick() => supervisor.send(Tick).await,
            _ = supervisor.ended() => break,
        };
        if tick.period() != tuning.report_interval() {
            tick = ticking(tuning.report_interval());
        }
    }
    own.borrow_mut().take();
}

/// Tells the supervisor who is there. A list that it panics over is told once more, and then refused: what was known before
/// stays until the next one.
async fn tell(supervisor: &Handle<Supervisor>, listed: Arc<[Instance]>) -> Result<(), SendError> {
    let mark = Mark::of(Report::ID, &listed);
    loop {
        match supervisor.send_marked(mark, Listed(Arc::clone(&listed))).await {
            // The third time, at the latest, it is refused.
            Err(SendError::Panicked) => {}
            Err(SendError::Poison) => {
                tracing::error!(
                    instances = listed.len(),
                    "the list of instances cannot be taken; the one before it stays"
                );
                return Err(SendError::Poison);
            }
            told => return told,
        }
    }
}

fn ticking(period: Duration) -> Interval {
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick
}

/// The actor.
pub(crate) struct Supervisor {
    roster: Rc<RefCell<Roster>>,
    ports: ReportPorts,
    own: Option<Handle<Supervisor>>,
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

/// The instances there are now.
#[derive(Message)]
#[rtype(result = "()")]
struct Listed(Arc<[Instance]>);

/// An instance answered a report, or did not. The reply: when to ask again.
#[derive(Message)]
#[rtype(result = "Duration")]
struct Reported {
    instance: InstanceId,
    report: Option<InstanceReport>,
}

/// An operator takes a worker out, or gives it back. The reply: whether there is such a worker.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Held {
    pub(crate) instance: InstanceId,
    pub(crate) pool: String,
    pub(crate) held: bool,
}

/// The configuration has changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Retuned;

/// The data path has changed something.
#[derive(Message)]
#[rtype(result = "()")]
struct Woken;

/// Time has passed.
#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

impl Handler<Listed> for Supervisor {
    type Result = ();

    fn handle(&mut self, listed: Listed, _: &mut Context<Self>) {
        let mut roster = self.roster.borrow_mut();
        roster.leave_out_all_but(&listed.0);
        for instance in listed.0.iter() {
            roster.reweigh(instance);
            if let Some(own) = &self.own
                && !roster.knows(&instance.id)
            {
                let reporter = reporter::start(instance.id.clone(), (self.ports)(&instance.id), own.clone(), &roster);
                roster.enlist(instance, reporter);
            }
        }
    }
}

impl Handler<Reported> for Supervisor {
    type Result = actix::MessageResult<Reported>;

    fn handle(&mut self, reported: Reported, _: &mut Context<Self>) -> Self::Result {
        let mut roster = self.roster.borrow_mut();
        actix::MessageResult(roster.reported(&reported.instance, reported.report.as_ref(), clock::now()))
    }
}

impl Handler<Held> for Supervisor {
    type Result = bool;

    fn handle(&mut self, told: Held, _: &mut Context<Self>) -> bool {
        self.roster.borrow_mut().hold(&told.instance, &told.pool, told.held)
    }
}

impl Handler<Retuned> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Retuned, _: &mut Context<Self>) {
        let mut roster = self.roster.borrow_mut();
        roster.retuned();
        roster.rank(clock::now());
    }
}

impl Handler<Woken> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Woken, _: &mut Context<Self>) {
        self.roster.borrow_mut().woken();
    }
}

impl Handler<Tick> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Tick, _: &mut Context<Self>) {
        self.roster.borrow_mut().rank(clock::now());
    }
}
