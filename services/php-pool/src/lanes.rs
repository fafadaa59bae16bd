//! Idle processes and the calls that wait for one, thread by thread.
//!
//! A lane belongs to a thread, which takes its own idle processes first, the one used last before the others: its memory is
//! warm. Only when it has none it looks into the other lanes. A process that becomes free goes to a waiting call before it
//! goes idle, and a call becomes a waiting one before it looks for an idle process a last time; since both sides look after
//! they have written, no process idles while a call waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::process::{Process, ProcessInfo};

/// How much longer than the oldest call of its own thread another thread's must have waited to get a process first. A
/// hand-over to another thread costs some microseconds, starving it would cost the call.
const PATIENCE: Duration = Duration::from_millis(1);

/// The same for a call that may sit down behind a running one of its own thread: it gets a seat there as calls end, and needs no
/// process of another thread. While a call is overdue nobody else may sit down, so with [`PATIENCE`] a single call too many on one
/// thread had the other threads' processes run out of calls, fall asleep and move to and fro.
const SEAT_PATIENCE: Duration = Duration::from_millis(20);

/// How long another thread's process must have been idle before a call that could sit down takes it. Moving a process
/// costs four system calls, and one that has just become idle is about to be used by its own thread: under load, one call
/// in five moved a process without this.
const SETTLED: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Box<[CachePadded<Lane>]>,
    /// Entries in all `waiters`; written under the lock of the lane concerned.
    waiting: CachePadded<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Lane {
    #[expect(clippy::vec_box, reason = "a process moves through slots and channels; its box stays where it is")]
    idle: Mutex<Vec<Box<Process>>>,
    idle_len: AtomicUsize,
    waiters: Mutex<Waiters>,
    in_flight: AtomicU32,
}

#[derive(Debug, Default)]
struct Waiters {
    queue: VecDeque<Waiter>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    since: Instant,
    waits_for: WaitsFor,
    hand: oneshot::Sender<Hand>,
}

/// What a waiting call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// A free process.
    Process,
    /// A free process, or a seat, but no call of its thread sits anywhere, so that none would leave a seat.
    ProcessOrSeat,
    /// A seat that others of its thread sit in, or a free process.
    Seat,
}

impl WaitsFor {
    fn patience(self) -> Duration {
        if self == Self::Seat { SEAT_PATIENCE } else { PATIENCE }
    }
}

/// What a waiting call is given.
#[derive(Debug)]
pub(crate) enum Hand {
    /// A free process.
    Process(Box<Process>),
    /// The news that a seat behind a running call of its thread is free.
    Seat,
}

/// A place in the queue of a lane.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    pub(crate) hand: oneshot::Receiver<Hand>,
}

impl Lanes {
    pub(crate) fn new(threads: usize) -> Self {
        let lanes = (0..threads.max(1)).map(|_| CachePadded::default()).collect();
        Self { lanes, waiting: CachePadded::default() }
    }

    fn lane(&self, thread: usize) -> &Lane {
        &self.lanes[thread % self.lanes.len()]
    }

    /// An idle process: one of `thread`'s own, or another's.
    pub(crate) fn take(&self, thread: usize) -> Option<Box<Process>> {
        (0..self.lanes.len()).find_map(|step| self.lane(thread + step).pop())
    }

    /// As [`Lanes::take`], for a call that may sit behind a running one instead: of another thread only a process that has
    /// been idle for [`SETTLED`].
    pub(crate) fn take_settled(&self, thread: usize) -> Option<Box<Process>> {
        self.lane(thread).pop().or_else(|| {
            let before = Instant::now().checked_sub(SETTLED)?;
            (1..self.lanes.len()).find_map(|step| self.lane(thread + step).pop_oldest(before))
        })
    }

    /// Gives a free process to a waiting call, or lays it idle in `thread`'s lane.
    pub(crate) fn put(&self, thread: usize, mut process: Box<Process>) {
        loop {
            if self.waiting() > 0 {
                match self.hand_over(thread, process) {
                    Ok(()) => return,
                    Err(back) => process = back,
                }
            }
            let lane = self.lane(thread);
            lane.push(process);
            if self.waiting() == 0 {
                return;
            }
            match lane.pop() {
                Some(back) => process = back,
                None => return,
            }
        }
    }

    fn hand_over(&self, thread: usize, mut process: Box<Process>) -> Result<(), Box<Process>> {
        loop {
            let oldest = (0..self.lanes.len())
                .filter_map(|step| {
                    let at = (thread + step) % self.lanes.len();
                    let since = self.lane(at).waiters.lock().queue.front()?.since;
                    Some((if step == 0 { since.checked_sub(PATIENCE).unwrap_or(since) } else { since }, at))
                })
                .min();
            let Some((_, at)) = oldest else { return Err(process) };
            let waiter = {
                let mut waiters = self.lane(at).waiters.lock();
                let waiter = waiters.queue.pop_front();
                if waiter.is_some() {
                    self.waiting.fetch_sub(1, Ordering::SeqCst);
                }
                waiter
            };
            // Somebody else was faster: look again.
            let Some(waiter) = waiter else { continue };
            match waiter.hand.send(Hand::Process(process)) {
                Err(Hand::Process(back)) => process = back,
                // Given.
                Ok(()) | Err(Hand::Seat) => return Ok(()),
            }
        }
    }

    /// Takes a place in the queue. Whoever does must [`Lanes::take`] once more before it waits.
    pub(crate) fn enqueue(&self, thread: usize, waits_for: WaitsFor) -> Ticket {
        let (hand, given) = oneshot::channel();
        let mut waiters = self.lane(thread).waiters.lock();
        let number = waiters.next;
        waiters.next += 1;
        waiters.queue.push_back(Waiter { number, since: Instant::now(), waits_for, hand });
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Ticket { number, hand: given }
    }

    /// Gives a place back. A process that was handed over in the meantime is returned.
    pub(crate) fn leave(&self, thread: usize, ticket: &mut Ticket) -> Option<Box<Process>> {
        {
            let mut waiters = self.lane(thread).waiters.lock();
            if let Some(at) = waiters.queue.iter().position(|waiter| waiter.number == ticket.number) {
                waiters.queue.remove(at);
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                return None;
            }
        }
        ticket.hand.close();
        match ticket.hand.try_recv() {
            Ok(Hand::Process(process)) => Some(process),
            Ok(Hand::Seat) | Err(_) => None,
        }
    }

    /// Whether a new call of `thread` may sit down behind a running one: not past calls that wait for the same seats, and
    /// not while a call of another thread has waited too long for a process, which as long as somebody sits down behind
    /// its running call never gets free.
    pub(crate) fn may_sit(&self, thread: usize) -> bool {
        self.waiting() == 0 || self.may_sit_at(thread, Instant::now())
    }

    fn may_sit_at(&self, thread: usize, now: Instant) -> bool {
        self.lane(thread).waiters.lock().queue.is_empty() && !self.others_overdue(thread, now)
    }

    /// Tells the first waiting call of `thread` that a seat is free, if it is one that sits.
    pub(crate) fn call_to_seat(&self, thread: usize) {
        if self.waiting() == 0 || self.others_overdue(thread, Instant::now()) {
            return;
        }
        let mut waiters = self.lane(thread).waiters.lock();
        while waiters.queue.front().is_some_and(|waiter| waiter.waits_for != WaitsFor::Process) {
            let Some(waiter) = waiters.queue.pop_front() else { return };
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            if waiter.hand.send(Hand::Seat).is_ok() {
                return;
            }
        }
    }

    /// Whether a call of a thread other than `thread` has waited for longer than it should.
    fn others_overdue(&self, thread: usize, now: Instant) -> bool {
        (1..self.lanes.len()).any(|step| {
            let waiters = self.lane(thread + step).waiters.lock();
            waiters
                .queue
                .front()
                .is_some_and(|waiter| now.saturating_duration_since(waiter.since) > waiter.waits_for.patience())
        })
    }

    /// Calls that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Processes that are idle.
    pub(crate) fn idle(&self) -> usize {
        self.lanes.iter().map(|lane| lane.idle_len.load(Ordering::Relaxed)).sum()
    }

    /// The numbers of the processes that are idle.
    pub(crate) fn idle_ids(&self) -> Vec<u32> {
        self.lanes
            .iter()
            .flat_map(|lane| lane.idle.lock().iter().map(|process| process.info.id).collect::<Vec<_>>())
            .collect()
    }

    /// Takes the idle process `id` out.
    pub(crate) fn remove(&self, id: u32) -> Option<Box<Process>> {
        self.remove_where(|process| process.info.id == id)
    }

    /// Takes one idle process out that has been idle since before `since`.
    pub(crate) fn remove_idle(&self, since: Instant) -> Option<Box<Process>> {
        self.remove_where(|process| process.idle_since < since)
    }

    /// Takes one idle process out, whichever.
    pub(crate) fn remove_any(&self) -> Option<Box<Process>> {
        self.remove_where(|_| true)
    }

    /// Takes one idle process out that is as `wanted`.
    pub(crate) fn remove_if(&self, wanted: impl Fn(&ProcessInfo) -> bool) -> Option<Box<Process>> {
        self.remove_where(|process| wanted(&process.info))
    }

    fn remove_where(&self, wanted: impl Fn(&Process) -> bool) -> Option<Box<Process>> {
        self.lanes.iter().find_map(|lane| {
            let mut idle = lane.idle.lock();
            let at = idle.iter().position(|process| wanted(process))?;
            let process = idle.remove(at);
            lane.idle_len.store(idle.len(), Ordering::SeqCst);
            Some(process)
        })
    }

    /// Counts a call of `thread` in or out.
    pub(crate) fn count(&self, thread: usize, enters: bool) {
        let in_flight = &self.lane(thread).in_flight;
        if enters {
            in_flight.fetch_add(1, Ordering::Relaxed);
        } else {
            in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Calls inside the pool.
    pub(crate) fn in_flight(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.in_flight.load(Ordering::Relaxed)).fold(0, u32::wrapping_add)
    }
}

impl Lane {
    fn push(&self, process: Box<Process>) {
        let mut idle = self.idle.lock();
        idle.push(process);
        self.idle_len.store(idle.len(), Ordering::SeqCst);
    }

    /// The process that has been idle for the longest, if that is since before `before`.
    fn pop_oldest(&self, before: Instant) -> Option<Box<Process>> {
        if self.idle_len.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut idle = self.idle.lock();
        if idle.first()?.idle_since > before {
            return None;
        }
        let process = idle.remove(0);
        self.idle_len.store(idle.len(), Ordering::SeqCst);
        Some(process)
    }

    fn pop(&self) -> Option<Box<Process>> {
        if self.idle_len.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut idle = self.idle.lock();
        let process = idle.pop();
        self.idle_len.store(idle.len(), Ordering::SeqCst);
        process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a call of thread 1 may sit down when one of thread 0 has waited for `waited`.
    fn may_sit_beside(waits_for: WaitsFor, waited: Duration) -> bool {
        let lanes = Lanes::new(2);
        let before = Instant::now();
        let _ticket = lanes.enqueue(0, waits_for);
        assert!(!lanes.may_sit(0), "it would pass by a call of its own thread");
        lanes.may_sit_at(1, before + waited)
    }

    #[test]
    fn a_call_that_needs_a_process_is_not_kept_waiting_by_calls_that_sit_down_elsewhere() {
        for needs_one in [WaitsFor::Process, WaitsFor::ProcessOrSeat] {
            assert!(may_sit_beside(needs_one, Duration::ZERO));
            assert!(!may_sit_beside(needs_one, Duration::from_secs(1)));
        }
    }

    #[test]
    fn a_call_that_will_get_a_seat_of_its_own_thread_does_not_empty_the_pipes_of_another() {
        assert!(may_sit_beside(WaitsFor::Seat, SEAT_PATIENCE / 2));
        assert!(!may_sit_beside(WaitsFor::Seat, Duration::from_secs(1)), "but it does not wait for ever");
    }
}
