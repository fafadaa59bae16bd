//! A worker's numbers, written by every thread that calls it and read by every pick.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use serde::Serialize;

use crate::score::{self, Estimate};
use crate::upload::MAX_UPLOADS;

/// One call in flight that still waits for the first byte of its reply.
const AWAITING: u64 = 1 << 32;
/// One call in flight.
const CALL: u64 = 1;
/// Fixed-point unit of the estimate of other balancers' calls.
const FOREIGN_UNIT: u32 = 256;
/// That estimate moves by one part in this many per reply: replies cross each other on the way.
const FOREIGN_SMOOTHING: i64 = 8;

/// Whether a worker takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It takes calls.
    Ready,
    /// It failed or fell silent: it is tried only when nothing else is left.
    Ejected,
    /// It said that it is about to stop.
    Draining,
    /// Its instance is gone.
    Down,
}

impl State {
    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Ejected => "ejected",
            State::Draining => "draining",
            State::Down => "down",
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            0 => State::Ready,
            1 => State::Ejected,
            2 => State::Draining,
            _ => State::Down,
        }
    }
}

/// The numbers. All of them fit two cache lines, which belong to no other worker.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Low half: calls in flight. High half: of these, those that wait for the first byte of their reply.
    calls: AtomicU64,
    /// A packed [`Estimate`].
    estimate: AtomicU64,
    /// When the worker last answered, or was first asked after having nothing to answer.
    progress_us: AtomicU64,
    /// Calls it may have in flight now.
    cap: AtomicU32,
    /// Calls it may have in flight when nothing holds it back.
    full: AtomicU32,
    /// Weight times slow start, as f32.
    gain: AtomicU32,
    /// Calls that other balancers have in flight there, in [`FOREIGN_UNIT`]s.
    foreign: AtomicU32,
    /// The last two samples, as f32, the newer one in the low half.
    previous: AtomicU64,
    /// The rate of application errors, as f32.
    error_rate: AtomicU32,
    /// Failures since the last success.
    failures: AtomicU32,
    /// Bodies on their way there, of calls that are not counted yet.
    uploads: AtomicU32,
    state: AtomicU8,
    last_ok: AtomicBool,
    /// It refused a call for being full although it had room by our count: others use it too.
    contended_until_us: AtomicU64,
}

impl Slot {
    pub(crate) fn new(cap: u32) -> Self {
        Self {
            calls: AtomicU64::new(0),
            estimate: AtomicU64::new(Estimate::UNKNOWN.pack()),
            progress_us: AtomicU64::new(0),
            cap: AtomicU32::new(cap),
            full: AtomicU32::new(cap),
            gain: AtomicU32::new(1f32.to_bits()),
            foreign: AtomicU32::new(0),
            previous: AtomicU64::new(0),
            error_rate: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            uploads: AtomicU32::new(0),
            state: AtomicU8::new(State::Ready as u8),
            last_ok: AtomicBool::new(true),
            contended_until_us: AtomicU64::new(0),
        }
    }

    // === calls in flight ===

    /// Counts a call in, unless the worker is at its cap.
    pub(crate) fn admit(&self, now_us: u64) -> bool {
        let mut calls = self.calls.load(Ordering::SeqCst);
        loop {
            if in_flight(calls) >= self.cap.load(Ordering::Relaxed) {
                return false;
            }
            let next = calls + CALL + AWAITING;
            match self.calls.compare_exchange_weak(calls, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(seen) => calls = seen,
            }
        }
        self.begun(calls, now_us);
        true
    }

    /// Counts a call in that is there already, whatever the cap.
    pub(crate) fn enter(&self, now_us: u64) {
        let before = self.calls.fetch_add(CALL + AWAITING, Ordering::SeqCst);
        self.begun(before, now_us);
    }

    /// A call was counted in beside `before`: it alone waits for a reply from now on, or one of several.
    fn begun(&self, before: u64, now_us: u64) {
        if before < AWAITING {
            self.progress_us.store(now_us, Ordering::Relaxed);
        }
    }

    /// Counts a call out; `awaiting`: it got no reply.
    pub(crate) fn leave(&self, awaiting: bool) {
        let before = self.calls.fetch_sub(if awaiting { CALL + AWAITING } else { CALL }, Ordering::SeqCst);
        debug_assert!(in_flight(before) > 0 && (!awaiting || before >= AWAITING), "a call left twice");
    }

    /// A call in flight has its first byte; the rest is streaming.
    pub(crate) fn first_byte(&self) {
        self.calls.fetch_sub(AWAITING, Ordering::SeqCst);
    }

    /// A call in flight gives its place to one that has still to be answered.
    pub(crate) fn succeed(&self, awaiting: bool, now_us: u64) {
        if !awaiting && self.calls.fetch_add(AWAITING, Ordering::SeqCst) < AWAITING {
            self.progress_us.store(now_us, Ordering::Relaxed);
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        in_flight(self.calls.load(Ordering::SeqCst))
    }

    /// A body is on its way there.
    pub(crate) fn upload_begins(&self) {
        self.uploads.fetch_add(1, Ordering::Relaxed);
    }

    /// It is through, or given up.
    pub(crate) fn upload_ends(&self) {
        self.uploads.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn cap(&self) -> u32 {
        self.cap.load(Ordering::Relaxed)
    }

    pub(crate) fn full(&self) -> u32 {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn set_full(&self, full: u32) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Sets the cap; whoever raises it offers the room to the queue.
    pub(crate) fn set_cap(&self, cap: u32) {
        self.cap.store(cap, Ordering::SeqCst);
    }

    // === the pick's view ===

    /// What one more call costs; infinite when the worker takes none. `ejected_too`: nothing better is left.
    pub(crate) fn cost(&self, median_us: f32, now_us: u64, ejected_too: bool) -> f32 {
        let calls = self.calls.load(Ordering::Relaxed);
        if !self.takes_calls(ejected_too) || in_flight(calls) >= self.cap() {
            return f32::INFINITY;
        }
        self.cost_of(calls, 0, median_us, now_us)
    }

    /// What one more upload costs, which needs no room; infinite when the worker takes none.
    pub(crate) fn upload_cost(&self, median_us: f32, now_us: u64, ejected_too: bool) -> f32 {
        let uploads = self.uploads.load(Ordering::Relaxed);
        if !self.takes_calls(ejected_too) || uploads >= MAX_UPLOADS {
            return f32::INFINITY;
        }
        self.cost_of(self.calls.load(Ordering::Relaxed), uploads, median_us, now_us)
    }

    fn takes_calls(&self, ejected_too: bool) -> bool {
        match self.state() {
            State::Ready => true,
            State::Ejected => ejected_too,
            State::Draining | State::Down => false,
        }
    }

    /// The cost whatever the state: for people.
    pub(crate) fn cost_for_people(&self, median_us: f32, now_us: u64) -> f32 {
        self.cost_of(self.calls.load(Ordering::Relaxed), 0, median_us, now_us)
    }

    /// With so many calls counted in and so many that will be.
    fn cost_of(&self, calls: u64, coming: u32, median_us: f32, now_us: u64) -> f32 {
        let stalled =
            if calls < AWAITING { 0.0 } else { now_us.saturating_sub(self.progress_us.load(Ordering::Relaxed)) as f32 };
        let compared = score::compared(self.estimate().latency_us, stalled, median_us);
        score::cost(compared, in_flight(calls) + coming + self.foreign(), self.gain())
    }

    pub(crate) fn estimate(&self) -> Estimate {
        Estimate::unpack(self.estimate.load(Ordering::Relaxed))
    }

    pub(crate) fn gain(&self) -> f32 {
        f32::from_bits(self.gain.load(Ordering::Relaxed))
    }

    pub(crate) fn set_gain(&self, gain: f32) {
        self.gain.store(gain.to_bits(), Ordering::Relaxed);
    }

    /// Calls of other balancers, as far as replies and reports tell.
    pub(crate) fn foreign(&self) -> u32 {
        self.foreign.load(Ordering::Relaxed) / FOREIGN_UNIT
    }

    /// The worker counts `reported` calls inside.
    pub(crate) fn correct(&self, reported: u32) {
        let seen = i64::from(reported.saturating_sub(self.in_flight())) * i64::from(FOREIGN_UNIT);
        let known = i64::from(self.foreign.load(Ordering::Relaxed));
        if seen != known {
            let step = (seen - known) / FOREIGN_SMOOTHING;
            let next = if step == 0 { seen } else { known + step };
            self.foreign.store(u32::try_from(next).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    // === lessons ===

    /// A reply after `rtt_us`, where 95 of 100 of the pool's take at most `usual_us`: application errors are told through `rate`, not here.
    pub(crate) fn learn_ok(&self, rtt_us: f32, usual_us: f32, now_us: u64, decay_ms: f32) {
        self.progress_us.store(now_us, Ordering::Relaxed);
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if !self.last_ok.load(Ordering::Relaxed) {
            self.last_ok.store(true, Ordering::Relaxed);
        }
        self.learn_latency(rtt_us, usual_us, now_us, decay_ms);
    }

    /// A reply came: the worker is alive, and nothing else is learnt.
    pub(crate) fn learn_alive(&self, now_us: u64) {
        self.progress_us.store(now_us, Ordering::Relaxed);
    }

    /// A call took at least this long: its caller left before the reply.
    pub(crate) fn learn_at_least(&self, elapsed_us: f32, now_us: u64, decay_ms: f32) {
        if elapsed_us > self.estimate().latency_us {
            // It is a bound: how far beyond the usual the call would have gone, nobody knows.
            self.learn_latency(elapsed_us, 0.0, now_us, decay_ms);
        }
    }

    fn learn_latency(&self, sample_us: f32, usual_us: f32, now_us: u64, decay_ms: f32) {
        let before = self.previous.load(Ordering::Relaxed);
        let least = f32::from_bits(before as u32).min(f32::from_bits((before >> 32) as u32));
        // Two threads may overwrite each other's sample; the next ones are as good.
        self.previous.store((before << 32) | u64::from(sample_us.to_bits()), Ordering::Relaxed);
        self.revise(|estimate| estimate.observe(sample_us, least, usual_us, millis(now_us), decay_ms));
    }

    /// A failure worth `sample_us`. Returns how many there were in a row.
    pub(crate) fn learn_failure(&self, sample_us: f32, now_us: u64) -> u32 {
        self.progress_us.store(now_us, Ordering::Relaxed);
        self.last_ok.store(false, Ordering::Relaxed);
        self.revise(|estimate| estimate.penalise(sample_us, millis(now_us)));
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// One more reply for the rate of application errors; returns the rate.
    pub(crate) fn learn_status(&self, failed: bool) -> f32 {
        let rate = self.error_rate();
        let next = score::error_rate(rate, failed);
        if next != rate {
            self.error_rate.store(next.to_bits(), Ordering::Relaxed);
        }
        next
    }

    pub(crate) fn error_rate(&self) -> f32 {
        f32::from_bits(self.error_rate.load(Ordering::Relaxed))
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn last_ok(&self) -> bool {
        self.last_ok.load(Ordering::Relaxed)
    }

    /// A failure long ago no longer keeps the estimate from fading; the failures in a row stay counted.
    pub(crate) fn parole(&self) {
        self.last_ok.store(true, Ordering::Relaxed);
    }

    /// Starts over with the pool's median: the worker comes back.
    pub(crate) fn reset(&self) {
        self.last_ok.store(true, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.estimate.store(Estimate::UNKNOWN.pack(), Ordering::Relaxed);
        self.previous.store(0, Ordering::Relaxed);
        self.error_rate.store(0, Ordering::Relaxed);
    }

    /// Moves the estimate toward `target_us` as time passes without replies.
    pub(crate) fn fade(&self, target_us: f32, now_us: u64, decay_ms: f32) {
        self.revise(|estimate| estimate.toward(target_us, millis(now_us), decay_ms));
    }

    fn revise(&self, change: impl Fn(Estimate) -> Estimate) {
        let mut word = self.estimate.load(Ordering::Relaxed);
        loop {
            let next = change(Estimate::unpack(word)).pack();
            if next == word {
                return;
            }
            match self.estimate.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    // === state ===

    pub(crate) fn state(&self) -> State {
        State::from_code(self.state.load(Ordering::Relaxed))
    }

    pub(crate) fn ejected(&self) -> bool {
        self.state() == State::Ejected
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    /// From ready to `state`; whether this call did it.
    pub(crate) fn leave_ready(&self, state: State) -> bool {
        self.state.compare_exchange(State::Ready as u8, state as u8, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// It is full although it should have room: takes no more than it has until `until_us`, or until it says otherwise.
    pub(crate) fn contend(&self, until_us: u64) {
        self.contended_until_us.store(until_us, Ordering::Relaxed);
        // The refused call is still counted.
        self.set_cap(self.in_flight().saturating_sub(1).min(self.full()));
    }

    pub(crate) fn contended(&self, now_us: u64) -> bool {
        let until = self.contended_until_us.load(Ordering::Relaxed);
        until != 0 && now_us < until
    }

    /// Whether a contention had been noted; it is forgotten.
    pub(crate) fn end_contention(&self) -> bool {
        self.contended_until_us.swap(0, Ordering::Relaxed) != 0
    }
}

fn in_flight(calls: u64) -> u32 {
    calls as u32
}

fn millis(now_us: u64) -> u32 {
    (now_us / 1_000) as u32
}
