//! How a call gets a process when none is idle: a seat behind a fast call, or a place in the queue.

use std::rc::Rc;
use std::time::{Duration, Instant};

use troupe_mesh::failure::{Failure, Outcome, Stage};

use crate::call::{RETRY_AFTER, down, write_rest};
use crate::lanes::{Hand, Ticket, WaitsFor};
use crate::local::{Begun, Local};
use crate::pool::Condition;
use crate::process::Process;
use crate::request::Request;
use crate::spool::MAX_GATHERING;
use crate::turn::{Called, Seated, Turn};

/// A call that has waited for so long, and each time it has waited as long again, asks for more processes however fast
/// its function may be: those that there are may be held by streams, by its very first calls, or by what they all wait for.
pub(crate) const GROW_AFTER: Duration = Duration::from_millis(20);

/// A process that is idle, for a call that may take it and would not be sooner behind a running one.
pub(crate) fn idle(local: &Local, request: &Request) -> Option<Box<Process>> {
    let lanes = &local.pool.lanes;
    if sits(request) && local.has_short_wait() && lanes.may_sit(local.thread) {
        return None;
    }
    if sits(request) && local.has_seat() { lanes.take_settled(local.thread) } else { lanes.take(local.thread) }
}

/// Asks for a spare when the last idle process was taken by a call that may take long.
pub(crate) fn keep_spare(local: &Local, request: &Request) {
    if !request.fast && local.pool.lanes.idle() == 0 && local.pool.limits.starts_ahead() {
        local.pool.ask_for_more(request.known.pace.may_be_fast());
    }
}

/// Writes a fast call behind a running one of this thread, if it may.
///
/// Calls that wait already are not passed by: see [`crate::lanes::Lanes::may_sit`].
pub(crate) fn seat(local: &Rc<Local>, request: &Request, deadline: Instant) -> Option<Seated> {
    if !sits(request) || !local.pool.lanes.may_sit(local.thread) {
        return None;
    }
    sit(local, request, deadline)
}

/// Whether a call may wait behind a running one.
fn sits(request: &Request) -> bool {
    request.fast && !request.unseated && !request.no_packet.get() && !request.streams()
}

fn sit(local: &Rc<Local>, request: &Request, deadline: Instant) -> Option<Seated> {
    let seated = local.prefetch(request, deadline)?;
    local.pool.metrics.prefetched.increment(1);
    Some(seated)
}

/// Waits for the turn of a call that stands in a pipe. `None`: it never started there; try again.
///
/// # Errors
/// When the time has passed; the call did not start.
pub(crate) async fn seated(seated: Seated) -> Result<Option<Turn>, Failure> {
    match seated.turn().await {
        Called::Turn(turn) => Ok(Some(turn)),
        Called::Redo => Ok(None),
        Called::Broken => Err(Failure::new(
            Outcome::Broken,
            Stage::Php,
            "the php process was ended, and may have begun with the call",
        )),
        Called::Late => Err(Failure::deadline(Stage::PhpPool).not_started()),
    }
}

/// Waits in the queue for a process, or for a seat behind a running call, and starts the call there. `None`: the process
/// died before the call started; try again.
///
/// # Errors
/// When the pool is full or down, or the time has passed; the call did not start.
pub(crate) async fn queued(local: &Rc<Local>, request: &Request, deadline: Instant) -> Result<Option<Turn>, Failure> {
    local.pool.ask_for_more(request.known.pace.may_be_fast());
    let since = Instant::now();
    let process = loop {
        match wait(local, request, deadline).await? {
            Hand::Process(process) => break process,
            Hand::Seat => {
                // A call that came in the meantime may have it already.
                if let Some(found) = sit(local, request, deadline) {
                    local.pool.metrics.queue.record(since.elapsed().as_secs_f64());
                    return seated(found).await;
                }
            }
        }
    };
    local.pool.metrics.queue.record(since.elapsed().as_secs_f64());
    match local.begin(process, request, deadline) {
        Begun::Running(turn) => Ok(Some(turn)),
        Begun::Writing(turn, rest) => write_rest(turn, rest).await,
        Begun::Dead => Ok(None),
        Begun::Missing(failure) => Err(failure),
    }
}

/// Refuses what is beyond the pool's slots: the queue is the balancer's, where a call may still go elsewhere.
pub(crate) fn admit(local: &Local) -> Result<(), Failure> {
    let (lanes, most) = (&local.pool.lanes, local.pool.most_calls());
    if lanes.in_flight() > most || lanes.waiting() >= most as usize {
        return Err(Failure::overloaded(Stage::PhpPool, "every php process is busy", RETRY_AFTER));
    }
    Ok(())
}

/// Refuses a call whose body has been gathered only where as many of them wait as are gathered at once: nobody else has it.
fn admit_uploaded(local: &Local) -> Result<(), Failure> {
    match local.pool.lanes.waiting() < local.pool.most_calls() as usize + MAX_GATHERING {
        true => Ok(()),
        false => Err(Failure::overloaded(Stage::PhpPool, "too many uploads wait for a php process", RETRY_AFTER)),
    }
}

/// Waits in the queue.
async fn wait(local: &Rc<Local>, request: &Request, due: Instant) -> Result<Hand, Failure> {
    let pool = &local.pool;
    match (request.unseated, request.uploaded) {
        (true, _) => {}
        (false, true) => admit_uploaded(local)?,
        (false, false) => admit(local)?,
    }
    let waits_for = match (sits(request), local.has_seated()) {
        (false, _) => WaitsFor::Process,
        (true, false) => WaitsFor::ProcessOrSeat,
        (true, true) => WaitsFor::Seat,
    };
    let mut place = Place { local, ticket: pool.lanes.enqueue(local.thread, waits_for), done: false };
    // One may have become idle between the first look and the ticket.
    if let Some(process) = pool.lanes.take(local.thread) {
        if let Some(second) = place.leave() {
            local.put_back(second, Instant::now());
        }
        return Ok(Hand::Process(process));
    }
    let mut condition = pool.condition.subscribe();
    let mut until = due.min(Instant::now() + GROW_AFTER);
    loop {
        let now = condition.borrow_and_update().clone();
        if let Condition::Down(reason) = now {
            return match place.leave() {
                Some(process) => Ok(Hand::Process(process)),
                None => Err(down(reason)),
            };
        }
        tokio::select! {
            biased;
            hand = &mut place.ticket.hand => {
                place.done = true;
                return hand.map_err(|_| Failure::deadline(Stage::PhpPool).not_started());
            }
            () = tokio::time::sleep_until(until.into()) => {
                if until < due {
                    pool.ask_for_more(false);
                    until = due.min(until + GROW_AFTER);
                    continue;
                }
                return match place.leave() {
                    Some(process) => Ok(Hand::Process(process)),
                    None => Err(Failure::deadline(Stage::PhpPool).not_started()),
                };
            }
            changed = condition.changed() => {
                if changed.is_err() {
                    return Err(down("the pool is stopped".into()));
                }
            }
        }
    }
}

/// A place in the queue, given back when the caller goes.
struct Place<'a> {
    local: &'a Rc<Local>,
    ticket: Ticket,
    done: bool,
}

impl Place<'_> {
    fn leave(&mut self) -> Option<Box<Process>> {
        self.done = true;
        self.local.pool.lanes.leave(self.local.thread, &mut self.ticket)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.done
            && let Some(process) = self.leave()
        {
            self.local.put_back(process, Instant::now());
        }
    }
}
