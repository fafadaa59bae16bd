//! Whose turn it is with a busy process.
//!
//! A process works on one call at a time and may have more in its pipe already. Whoever has the [`Turn`] reads its replies: the
//! call's own future, without a task or a channel in between. When it ends, the turn passes to the first [`Seat`] behind it, if
//! one is taken, and else the process is free. When it takes too long, the calls behind it are taken back out of the pipe.
//!
//! A turn that is dropped before its call ended is not lost: the call runs on, and a task reads what it still says.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use crate::local::Local;
use crate::process::{Fate, Gone, Process, Work};
use crate::protocol::{FrameHeader, FromPhp};

/// Calls that may stand in the pipe of a busy process behind the running one. PHP then goes from one call to the next without
/// going to sleep in between; with one seat, falling asleep and waking up cost more than the calls that seats are for. With the
/// frame of a call that PHP is about to read, these are the sixteen packets that a pipe of the default size holds.
pub(crate) const SEATS: usize = 15;

/// What waking up an idle process costs about until it runs, most of it in the kernel. Less than this is waited gladly.
const WAKE_UP_MICROS: u32 = 50;

/// How long a call may run before those behind it are taken back out of the pipe: they were fast, and behind this one they
/// would not be. More than a fast call takes, and less than anybody notices.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long a process may take to drop a call whose time has passed: as long as one may be without a core.
const DROPPED_BY: Duration = Duration::from_millis(200);

/// A busy process of this thread.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) process: RefCell<Option<Box<Process>>>,
    /// The calls behind the running one, in the order of their frames in the pipe.
    seats: RefCell<VecDeque<Rc<Seat>>>,
    /// The running call's number, as in its frame.
    number: Cell<u64>,
    /// When the running call began.
    began: Cell<Option<Instant>>,
    /// When the running call will have taken longer than a call in a seat should wait.
    slow_at: Cell<Option<Instant>>,
    /// Where it stands in the thread's list of slots with a free seat.
    pub(crate) vacancy: Cell<Option<usize>>,
}

/// What happens while a call runs, besides its reply.
enum Moment {
    /// Its time has passed.
    Due,
    /// It has taken too long for those behind it.
    Slow,
    /// The time of one behind it has passed.
    Late(Rc<Seat>),
}

/// The place of a call in the pipe of a busy process, behind the running one.
#[derive(Debug)]
pub(crate) struct Seat {
    state: Cell<SeatState>,
    waker: RefCell<Option<Waker>>,
    /// Until when it has to be done: its caller's deadline, and once it is called no later than the pool's time for a call.
    due: Cell<Instant>,
    /// What the process works on when it is called.
    work: Work,
    /// The call's number, as in its frame.
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeatState {
    /// It waits.
    Queued,
    /// It is its turn.
    Called,
    /// The process is gone, or busy for too long, and has not begun with it.
    Redo,
    /// The process was killed, and may have begun with it.
    Broken,
    /// Its time passed while it waited.
    Late,
    /// Its caller is gone, its output is for nobody.
    Abandoned,
}

/// How the wait in a seat ended.
#[derive(Debug)]
pub(crate) enum Called {
    /// The process works on it now.
    Turn(Turn),
    /// It never started there and must go to another process.
    Redo,
    /// It may have started on a process that was killed.
    Broken,
    /// Its time passed; it never started and never will.
    Late,
}

/// A call that waits in a pipe.
#[derive(Debug)]
pub(crate) struct Seated {
    local: Rc<Local>,
    slot: Rc<Slot>,
    seat: Rc<Seat>,
}

impl Slot {
    /// Takes a seat behind the running call; its frame, with this number, stands in the pipe already.
    pub(crate) fn sit(self: &Rc<Self>, local: &Rc<Local>, number: u64, work: Work, due: Instant) -> Seated {
        let (state, waker) = (Cell::new(SeatState::Queued), RefCell::new(None));
        let seat = Rc::new(Seat { state, waker, due: Cell::new(due), work, number });
        self.seats.borrow_mut().push_back(Rc::clone(&seat));
        local.sat_down();
        if let Some(process) = self.process.borrow_mut().as_mut() {
            process.ring_by(self.slow_at.get().map_or(due, |slow_at| due.min(slow_at)));
        }
        Seated { local: Rc::clone(local), slot: Rc::clone(self), seat }
    }

    /// The call with this number begins to run: the patience of those behind it begins, too.
    pub(crate) fn begin(&self, number: u64, now: Instant) {
        self.number.set(number);
        self.began.set(Some(now));
        self.slow_at.set(Some(now + PATIENCE));
    }

    /// When the running call began.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began.get()
    }

    /// Whether one more call may stand in the pipe.
    pub(crate) fn has_seat(&self) -> bool {
        self.seats.borrow().len() < SEATS
    }

    /// Whether a call that sits down here is likely to begin sooner than on an idle process, which would have to wake up first.
    pub(crate) fn is_short_wait(&self) -> bool {
        let before = self.seats.borrow().len() as u32 + 1;
        self.process.borrow().as_ref().is_some_and(|process| before * process.usual_micros <= WAKE_UP_MICROS)
    }

    /// Whether the running call has taken too long for another one to wait behind it.
    pub(crate) fn is_slow(&self, now: Instant) -> bool {
        self.slow_at.get().is_none_or(|slow_at| slow_at <= now)
    }

    /// The first thing that time will bring while the running call goes on until `due`.
    fn next_moment(&self, due: Instant) -> (Instant, Moment) {
        let seats = self.seats.borrow();
        let mut next = (due, Moment::Due);
        for seat in seats.iter().filter(|seat| seat.state.get() == SeatState::Queued) {
            if seat.due.get() < next.0 {
                next = (seat.due.get(), Moment::Late(Rc::clone(seat)));
            }
        }
        match self.slow_at.get() {
            Some(slow_at) if slow_at < next.0 && !seats.is_empty() => (slow_at, Moment::Slow),
            _ => next,
        }
    }

    /// Takes the calls in the pipe back, as many as the process has not read: they never started.
    fn take_back(&self, local: &Local, process: &mut Process) {
        self.slow_at.set(None);
        if self.seats.borrow().is_empty() {
            // What stands in the pipe then is the running call's own: a body that streams.
            return;
        }
        let behind: Vec<u64> = self.seats.borrow().iter().map(|seat| seat.number).collect();
        let taken = process.take_back(&behind);
        // Not always the last ones: the process may have read one meanwhile, which stays the next in turn.
        let is_taken = |seat: &Rc<Seat>| taken.calls.contains(&seat.number);
        let (back, kept): (VecDeque<_>, VecDeque<_>) = self.seats.take().into_iter().partition(is_taken);
        local.stood_up(back.len());
        process.calls_left += back.len() as u32;
        if taken.is_torn {
            kept.iter()
                .filter(|seat| seat.state.get() == SeatState::Queued)
                .for_each(|seat| seat.set(SeatState::Broken));
        }
        self.seats.replace(kept);
        for seat in back.iter().filter(|seat| seat.state.get() == SeatState::Queued) {
            seat.set(SeatState::Redo);
        }
    }
}

impl Seat {
    fn set(&self, state: SeatState) {
        self.state.set(state);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Makes it its turn; the time it may take begins now.
    ///
    /// Its caller has nothing to do yet but to wait for the reply. So its waker is left with the process, and it is woken
    /// once, when there is something to read, instead of once to hear that and once more to read.
    fn call(&self, local: &Local, slot: &Slot, process: &mut Process, now: Instant) {
        let due = self.due.get().min(now + local.pool.limits.timeout);
        slot.begin(self.number, now);
        self.due.set(due);
        self.state.set(SeatState::Called);
        process.info.set_work(self.work.clone());
        if let Some(waker) = self.waker.take() {
            let context = &mut Context::from_waker(&waker);
            let (at, _) = slot.next_moment(due);
            if process.poll_frame(context).is_ready() || process.poll_due(at, context).is_ready() {
                waker.wake();
            }
        }
    }
}

impl Seated {
    /// Waits for the turn.
    pub(crate) async fn turn(self) -> Called {
        poll_fn(|context| match self.seat.state.get() {
            SeatState::Queued => {
                *self.seat.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
            SeatState::Called => {
                // Taken: the drop below must not find it called.
                self.seat.state.set(SeatState::Late);
                Poll::Ready(Called::Turn(Turn::new(&self.local, &self.slot, self.seat.due.get())))
            }
            SeatState::Redo => Poll::Ready(Called::Redo),
            SeatState::Broken => Poll::Ready(Called::Broken),
            SeatState::Late | SeatState::Abandoned => Poll::Ready(Called::Late),
        })
        .await
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        match self.seat.state.get() {
            SeatState::Queued => self.seat.state.set(SeatState::Abandoned),
            // It was called and never looked: the turn is taken and dropped, which leaves it to a task.
            SeatState::Called => drop(Turn::new(&self.local, &self.slot, self.seat.due.get())),
            SeatState::Redo | SeatState::Broken | SeatState::Late | SeatState::Abandoned => {}
        }
    }
}

/// What a process says while it works on a call.
#[derive(Debug)]
pub(crate) enum Word {
    /// A frame stands in the buffer.
    Frame(FrameHeader),
    /// It is gone, or not to be trusted any more.
    Gone(Gone),
    /// The call's time has passed.
    Due,
}

/// How far a frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of it is in the pipe.
    All,
    /// The process is gone.
    Gone,
    /// The call's time has passed.
    Due,
}

/// The right to talk to a busy process.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) local: Rc<Local>,
    slot: Rc<Slot>,
    due: Instant,
    over: bool,
    /// A part of a frame is in the pipe: nobody can write another one before the rest.
    half_written: bool,
    /// The rest of the call's body is still to come: the function may wait for it.
    body_open: bool,
}

impl Turn {
    /// The turn of the call that `slot`'s process works on, which has until `due`.
    pub(crate) fn new(local: &Rc<Local>, slot: &Rc<Slot>, due: Instant) -> Self {
        Self { local: Rc::clone(local), slot: Rc::clone(slot), due, over: false, half_written: false, body_open: false }
    }

    /// Writes a frame, or the rest of one.
    pub(crate) async fn write(&mut self, mut frame: Bytes) -> Written {
        poll_fn(|context| self.poll_write(&mut frame, context)).await
    }

    /// See [`Turn::write`].
    pub(crate) fn poll_write(&mut self, frame: &mut Bytes, context: &mut Context<'_>) -> Poll<Written> {
        let mut process = self.slot.process.borrow_mut();
        let Some(process) = process.as_mut() else {
            return Poll::Ready(Written::Gone);
        };
        while !frame.is_empty() {
            match process.poll_write(frame, context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Written::Gone),
                Poll::Ready(Ok(written)) => {
                    self.half_written = true;
                    frame.advance(written);
                }
                Poll::Pending if process.poll_due(self.due, context).is_ready() => return Poll::Ready(Written::Due),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.half_written = false;
        Poll::Ready(Written::All)
    }

    /// A part of the call's frame is in the pipe.
    pub(crate) fn half_written(&mut self) {
        self.half_written = true;
    }

    /// Whether the rest of the call's body is still to come.
    pub(crate) fn set_body_open(&mut self, open: bool) {
        self.body_open = open;
    }

    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// The same turn with another time.
    pub(crate) fn set_due(&mut self, due: Instant) {
        self.due = due;
    }

    pub(crate) fn slot(&self) -> &Rc<Slot> {
        &self.slot
    }

    /// The next thing the process says.
    pub(crate) async fn next(&mut self) -> Word {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// See [`Turn::next`].
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Word> {
        let mut process = self.slot.process.borrow_mut();
        let Some(process) = process.as_mut() else {
            return Poll::Ready(Word::Gone(Gone::Closed));
        };
        match process.poll_frame(context) {
            Poll::Ready(Ok(header)) => return Poll::Ready(Word::Frame(header)),
            Poll::Ready(Err(gone)) => return Poll::Ready(Word::Gone(gone)),
            Poll::Pending => {}
        }
        loop {
            let (at, moment) = self.slot.next_moment(self.due);
            if process.poll_due(at, context).is_pending() {
                return Poll::Pending;
            }
            match moment {
                Moment::Due => return Poll::Ready(Word::Due),
                Moment::Slow => {
                    self.local.withdraw_seat(&self.slot);
                    self.slot.take_back(&self.local, process);
                }
                // The frame carries its deadline, which has passed: the process will drop it unstarted.
                Moment::Late(seat) => seat.set(SeatState::Late),
            }
        }
    }

    /// Takes the calls behind back out of the pipe: this one will not be over soon.
    pub(crate) fn clear_behind(&self) {
        if self.slot.slow_at.get().is_some() {
            self.with(|process| self.slot.take_back(&self.local, process));
        }
    }

    /// Reads the head part of the frame in the buffer, then takes the frame out and gives the rest of it.
    pub(crate) fn take<T>(&self, header: &FrameHeader, head: impl FnOnce(&[u8]) -> T) -> Option<(T, Bytes)> {
        let mut process = self.slot.process.borrow_mut();
        let process = process.as_mut()?;
        let read = head(process.head(header));
        Some((read, process.take(header)))
    }

    /// Whether the process, which is gone, never read the call; it does not stand in its pipe any more.
    pub(crate) fn take_unread(&self) -> bool {
        self.with(|process| process.take_unread(self.slot.number.get())).unwrap_or(false)
    }

    /// Talks to the process.
    pub(crate) fn with<T>(&self, talk: impl FnOnce(&mut Process) -> T) -> Option<T> {
        self.slot.process.borrow_mut().as_mut().map(|process| talk(process))
    }

    /// The call has ended, `now`, and the process goes on: with the call behind this one, or as a free process.
    pub(crate) fn pass(mut self, now: Instant) {
        self.over = true;
        let next = self.slot.seats.borrow_mut().pop_front();
        self.local.stood_up(usize::from(next.is_some()));
        match next {
            Some(seat) if seat.state.get() == SeatState::Queued && seat.due.get() > now => {
                self.local.offer_seat(&self.slot);
                match self.slot.process.borrow_mut().as_mut() {
                    Some(process) => seat.call(&self.local, &self.slot, process, now),
                    None => seat.set(SeatState::Redo),
                }
            }
            // Nobody waits for what comes next, but it has to be read. One whose time has passed is dropped by the process unstarted, which
            // takes it as long as it takes to get a core.
            Some(seat) => {
                if seat.state.get() == SeatState::Queued {
                    seat.set(SeatState::Late);
                }
                self.local.drain(Turn::new(&self.local, &self.slot, seat.due.get().max(now + DROPPED_BY)));
            }
            None => self.local.free(&self.slot, now),
        }
    }

    /// Lets the process go where nobody can read any more what it says.
    pub(crate) fn leave(self) {
        self.discard(Fate::Stopped);
    }

    /// The process cannot go on, for this reason. A call behind this one never started there.
    pub(crate) fn discard(mut self, fate: Fate) {
        self.over = true;
        self.end_process(fate);
    }

    /// As [`Turn::discard`], and ends the process at once.
    pub(crate) fn kill(self, fate: Fate) {
        self.with(|process| process.info.kill(fate));
        self.discard(fate);
    }

    fn end_process(&self, fate: Fate) {
        self.local.withdraw_seat(&self.slot);
        let behind = self.slot.seats.take();
        self.local.stood_up(behind.len());
        for seat in behind {
            if seat.state.get() == SeatState::Queued {
                seat.set(SeatState::Redo);
            }
        }
        if let Some(process) = self.slot.process.take() {
            self.local.pool.discard(process, fate);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over && self.slot.process.borrow().is_some() {
            self.over = true;
            self.local.pool.metrics.cancelled.increment(1);
            // Nobody is left to send the rest, of a frame or of a body, and the process would wait for it.
            if self.half_written || self.body_open {
                self.with(|process| process.info.kill(Fate::Cancelled));
                self.end_process(Fate::Cancelled);
                return;
            }
            self.local.drain(Turn::new(&self.local, &self.slot, self.due));
        }
    }
}

/// Reads the rest of a call whose caller is gone. It keeps the process until the call ends or its time has passed.
pub(crate) async fn drain(mut turn: Turn) {
    let _counted = turn.local.count();
    let header = match turn.next().await {
        Word::Frame(header) => header,
        Word::Gone(Gone::Closed) => return turn.discard(Fate::Died),
        Word::Gone(Gone::BadFrame) => return turn.kill(Fate::Protocol),
        Word::Due => return turn.kill(Fate::TimedOut),
    };
    if matches!(header.kind, FromPhp::Head | FromPhp::Data | FromPhp::Done) {
        // Its next write finds no reader: it runs its `finally` blocks and ends.
        return turn.discard(Fate::StreamGone);
    }
    let _ = turn.take(&header, |_| ());
    if header.recycle { turn.discard(Fate::Recycled) } else { turn.pass(Instant::now()) }
}
