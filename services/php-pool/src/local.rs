//! A thread's share of a pool: its busy processes, its free seats, its buffers.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use troupe_mesh::failure::Failure;
use troupe_wire::head::ResponseHeadBuilder;

use crate::config::Isolation;
use crate::control::Note;
use crate::pool::Pool;
use crate::process::{Fate, Process};
use crate::protocol::{LAST, PACKET};
use crate::request::Request;
use crate::turn::{self, Seated, Slot, Turn};

/// Slots kept for the next call; more are given back to the allocator.
const KEPT_SLOTS: usize = 64;
/// A frame buffer that grew beyond this for a big body is given back.
const KEPT_FRAME: usize = 64 * 1024;

/// One pool on one thread.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) pool: Arc<Pool>,
    pub(crate) thread: usize,
    pub(crate) heads: RefCell<ResponseHeadBuilder>,
    vacant: RefCell<Vec<Rc<Slot>>>,
    slots: RefCell<Vec<Rc<Slot>>>,
    /// Calls in seats.
    seated: Cell<usize>,
    frame: RefCell<Vec<u8>>,
    dropped: mpsc::UnboundedSender<Turn>,
}

/// A call with a process.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Its frame is in the pipe.
    Running(Turn),
    /// A part of its frame is; the rest has to follow.
    Writing(Turn, Bytes),
    /// The process was dead; the call never started.
    Dead,
    /// The process has loaded the code by itself, and the function is not in it.
    Missing(Failure),
}

impl Local {
    /// The share of the thread with the index `thread`, which is the current one.
    pub(crate) fn new(pool: Arc<Pool>, thread: usize) -> Rc<Self> {
        // Unbounded, but each turn holds a busy process, and those are bounded. A drop cannot wait, and may happen where
        // nothing can be spawned.
        let (dropped, mut turns) = mpsc::unbounded_channel();
        actix_rt::spawn(async move {
            while let Some(turn) = turns.recv().await {
                actix_rt::spawn(turn::drain(turn));
            }
        });
        Rc::new(Self {
            pool,
            thread,
            heads: RefCell::default(),
            vacant: RefCell::default(),
            slots: RefCell::default(),
            seated: Cell::new(0),
            frame: RefCell::default(),
            dropped,
        })
    }

    /// Counts a call in, and out when the guard goes.
    pub(crate) fn count(self: &Rc<Self>) -> Counted {
        self.pool.lanes.count(self.thread, true);
        Counted(Rc::clone(self))
    }

    /// Leaves a call whose caller is gone to a task.
    pub(crate) fn drain(&self, turn: Turn) {
        // The thread's runtime is going with the receiver: dropped here, the turn would come here again.
        if let Err(mpsc::error::SendError(turn)) = self.dropped.send(turn) {
            turn.leave();
        }
    }

    /// Starts a call on a free process. The time it may take there begins now.
    pub(crate) fn begin(self: &Rc<Self>, mut process: Box<Process>, request: &Request, deadline: Instant) -> Begun {
        let now = Instant::now();
        let due = deadline.min(now + self.pool.limits.timeout);
        let Some(function) = process.functions.get(&request.call.function).map(|function| function.index) else {
            if process.functions.are_its_own {
                let missing = process.functions.missing(&request.call.function);
                self.put_back(process, now);
                return Begun::Missing(missing);
            }
            // Its generation is about to go.
            self.pool.discard(process, Fate::Stopped);
            return Begun::Dead;
        };
        if process.info.fate() != Fate::Serving {
            // Given up in the moment in which it became idle.
            self.pool.discard(process, Fate::Stopped);
            return Begun::Dead;
        }
        if let Err(error) = process.settle(self.thread) {
            tracing::warn!(pool = %self.pool.name, process = process.info.id, %error, "cannot take over a process");
            process.info.kill(Fate::Died);
            self.pool.discard(process, Fate::Died);
            return Begun::Dead;
        }
        let mut frame = self.frame.borrow_mut();
        let number = self.encode(&mut frame, &mut process, request, function, due);
        // First: what it prints in its first microsecond belongs to this request.
        process.info.set_work(request.work());
        let written = process.try_write(&frame);
        let begun = match written {
            Ok(written) if written == frame.len() => None,
            Ok(written) => Some(Bytes::copy_from_slice(frame.get(written..).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Bytes::copy_from_slice(&frame)),
            Err(_) => {
                self.pool.discard(process, Fate::Died);
                return Begun::Dead;
            }
        };
        // Of a longer frame, PHP may have read a part when those behind it are to be taken back.
        let is_packet = frame.len() <= PACKET;
        trim(&mut frame);
        let slot = self.slots.borrow_mut().pop().unwrap_or_default();
        *slot.process.borrow_mut() = Some(process);
        slot.begin(number, now);
        let turn = Turn::new(self, &slot, due);
        match begun {
            Some(rest) => Begun::Writing(turn, rest),
            None => {
                if request.fast && is_packet && !request.streams() {
                    self.offer_seat(&slot);
                }
                Begun::Running(turn)
            }
        }
    }

    /// Writes a call behind the running one of a process of this thread, filling one process's seats before the next one's: the
    /// fewer take part, the less often one falls asleep.
    pub(crate) fn prefetch(self: &Rc<Self>, request: &Request, due: Instant) -> Option<Seated> {
        let now = Instant::now();
        loop {
            let slot = self.vacant.borrow().last().map(Rc::clone)?;
            self.withdraw_seat(&slot);
            if slot.is_slow(now) {
                continue;
            }
            let written = {
                let mut place = slot.process.borrow_mut();
                let Some(process) = place.as_mut() else { continue };
                if process.info.fate() != Fate::Serving {
                    continue;
                }
                let Some(function) = process.functions.get(&request.call.function) else { continue };
                let index = function.index;
                let mut frame = self.frame.borrow_mut();
                let number = self.encode(&mut frame, process, request, index, due);
                request.no_packet.set(frame.len() > PACKET);
                let written = frame.len() <= PACKET && process.try_write(&frame).is_ok_and(|n| n == frame.len());
                trim(&mut frame);
                if !written {
                    process.calls_left += 1;
                }
                written.then_some(number)
            };
            let Some(number) = written else {
                if request.no_packet.get() {
                    // For one that fits.
                    self.offer_seat(&slot);
                }
                return None;
            };
            let seated = slot.sit(self, number, request.work(), due);
            self.offer_seat(&slot);
            return Some(seated);
        }
    }

    /// Writes the frame of a call that goes to `process`, and takes one of the calls that it has left. Gives the call's number.
    fn encode(
        &self,
        frame: &mut Vec<u8>,
        process: &mut Process,
        request: &Request,
        function: u16,
        due: Instant,
    ) -> u64 {
        let flags = self.spend(process) | self.pool.prints.flags();
        let number = process.next_call();
        process.info.printed.expect(number, flags, || request.work());
        request.encode(frame, &self.pool, function, flags, number, due);
        number
    }

    /// Takes one of the process's calls; the flag says when it is the last.
    fn spend(&self, process: &mut Process) -> u8 {
        process.calls_left = process.calls_left.saturating_sub(1);
        if process.calls_left == self.pool.limits.retires_at() {
            self.pool.tell(Note::Retiring { id: process.info.id });
        }
        if process.calls_left == 0 || self.pool.limits.isolation != Isolation::Shared { LAST } else { 0 }
    }

    /// Lets a call sit behind the running one.
    pub(crate) fn offer_seat(&self, slot: &Rc<Slot>) {
        let more = slot.process.borrow().as_ref().is_some_and(|process| process.calls_left > 0);
        let vacant = more && slot.has_seat() && slot.vacancy.get().is_none();
        if !vacant || self.pool.limits.isolation != Isolation::Shared {
            return;
        }
        {
            let mut vacant = self.vacant.borrow_mut();
            slot.vacancy.set(Some(vacant.len()));
            vacant.push(Rc::clone(slot));
        }
        self.pool.lanes.call_to_seat(self.thread);
    }

    /// Whether a call could sit behind a running one of this thread.
    pub(crate) fn has_seat(&self) -> bool {
        !self.vacant.borrow().is_empty()
    }

    /// A call has sat down.
    pub(crate) fn sat_down(&self) {
        self.seated.set(self.seated.get() + 1);
    }

    /// So many calls have left their seats.
    pub(crate) fn stood_up(&self, calls: usize) {
        self.seated.set(self.seated.get().saturating_sub(calls));
    }

    /// Whether calls of this thread stand in pipes: as they go on, seats get free.
    pub(crate) fn has_seated(&self) -> bool {
        self.seated.get() > 0
    }

    /// Whether sitting down behind a running call of this thread is better than waking up an idle process.
    pub(crate) fn has_short_wait(&self) -> bool {
        self.vacant.borrow().last().is_some_and(|slot| slot.is_short_wait())
    }

    /// No call may sit there any more.
    pub(crate) fn withdraw_seat(&self, slot: &Rc<Slot>) {
        let Some(at) = slot.vacancy.take() else { return };
        let mut vacant = self.vacant.borrow_mut();
        if at < vacant.len() {
            vacant.swap_remove(at);
        }
        if let Some(moved) = vacant.get(at) {
            moved.vacancy.set(Some(at));
        }
    }

    /// The process of `slot` is free: for a call that waits, or to idle.
    pub(crate) fn free(&self, slot: &Rc<Slot>, now: Instant) {
        self.withdraw_seat(slot);
        let process = slot.process.take();
        if self.slots.borrow().len() < KEPT_SLOTS {
            self.slots.borrow_mut().push(Rc::clone(slot));
        }
        if let Some(process) = process {
            self.put_back(process, now);
        }
    }

    /// As [`Local::free`], for a process that has no slot.
    pub(crate) fn put_back(&self, mut process: Box<Process>, now: Instant) {
        if !process.is_quiet() {
            process.info.kill(Fate::Protocol);
            return self.pool.discard(process, Fate::Protocol);
        }
        if process.calls_left == 0 || process.info.fate() != Fate::Serving {
            return self.pool.discard(process, Fate::Recycled);
        }
        process.idle_since = now;
        self.pool.lanes.put(self.thread, process);
    }
}

fn trim(frame: &mut Vec<u8>) {
    if frame.capacity() > KEPT_FRAME {
        *frame = Vec::new();
    }
}

/// A call inside the pool.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Local>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.pool.lanes.count(self.0.thread, false);
    }
}
