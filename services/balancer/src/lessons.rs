//! What a call's end teaches about its worker.

use std::sync::Arc;

use troupe_contracts::report::Load;
use troupe_mesh::failure::{Failure, Outcome, Stage};

use crate::pool::Pool;
use crate::score;
use crate::slot::State;
use crate::worker::{Worker, capacity};

/// Failures in a row after which a worker is ejected, exactly.
pub(crate) const EJECT_AFTER: u32 = 5;
/// For how long a worker that was full by its own count is believed to be shared with other balancers, since it last
/// was. Until then its own word on its room counts, not ours.
const CONTENTION_US: u64 = 2_000_000;
/// Workers whose application errors make up the pool's rate; a sample is enough, and keeps an error O(1).
const RATE_SAMPLE: usize = 64;
/// A call that timed out taught something only if it had this many times the median to answer.
const FAIR_CHANCE: f32 = 2.0;

impl Pool {
    /// A reply with this status came after `rtt_us`. The call is still counted in.
    pub(crate) fn learn_reply(
        self: &Arc<Self>,
        worker: &Worker,
        status: u16,
        load: &Load,
        rtt_us: f32,
        now_us: u64,
        turn: usize,
    ) {
        self.note_load(worker, load, now_us);
        if status >= 500 {
            self.learn_error(worker, rtt_us, now_us);
            return;
        }
        let slot = &worker.slot;
        slot.learn_status(false);
        slot.learn_ok(rtt_us, self.p95_us(), now_us, self.tuning.decay_ms());
        self.sketch.add(rtt_us, turn);
        if self.median_us() == 0.0 {
            self.set_median_us(rtt_us.max(score::FLOOR_US));
        }
    }

    /// The application failed after `rtt_us`: held against its worker only as far as others do better.
    fn learn_error(&self, worker: &Worker, rtt_us: f32, now_us: u64) {
        let slot = &worker.slot;
        let rate = slot.learn_status(true);
        let excess = score::excess(rate, self.error_rate_beside(worker));
        if excess > 0.0 {
            let sample = rtt_us + excess * score::penalty(self.p95_us());
            self.count_failure(worker, slot.learn_failure(sample, now_us));
        } else {
            // An error is no evidence of speed.
            slot.learn_alive(now_us);
        }
    }

    /// The call failed after `rtt_us`. The call is still counted in.
    pub(crate) fn learn_failure(&self, worker: &Worker, failure: &Failure, rtt_us: f32, now_us: u64) {
        match failure.outcome {
            Outcome::Overloaded if failure.lacks_place() => {
                worker.slot.learn_alive(now_us);
                worker.slot.contend(now_us + CONTENTION_US);
                self.wake.notify_one();
            }
            Outcome::Overloaded | Outcome::Refused => worker.slot.learn_alive(now_us),
            Outcome::Cancelled => {}
            Outcome::Deadline => self.learn_timeout(worker, rtt_us, now_us),
            // The function threw: no more the worker's fault than a 500 that the function answers itself.
            Outcome::Internal if failure.stage == Stage::Php => self.learn_error(worker, rtt_us, now_us),
            Outcome::Unreachable | Outcome::Incompatible | Outcome::Broken | Outcome::Internal => {
                let sample = rtt_us.max(score::penalty(self.p95_us()));
                self.count_failure(worker, worker.slot.learn_failure(sample, now_us));
            }
        }
    }

    /// The caller left after `elapsed_us`, before a reply; `expired`: because the call's time was spent.
    pub(crate) fn learn_abandoned(&self, worker: &Worker, elapsed_us: f32, expired: bool, now_us: u64) {
        if expired {
            self.learn_timeout(worker, elapsed_us, now_us);
        } else {
            worker.slot.learn_at_least(elapsed_us, now_us, self.tuning.decay_ms());
        }
    }

    fn learn_timeout(&self, worker: &Worker, rtt_us: f32, now_us: u64) {
        if rtt_us < FAIR_CHANCE * self.median_us() {
            worker.slot.learn_at_least(rtt_us, now_us, self.tuning.decay_ms());
            return;
        }
        let sample = rtt_us.max(score::penalty(self.p95_us()));
        self.count_failure(worker, worker.slot.learn_failure(sample, now_us));
    }

    fn count_failure(&self, worker: &Worker, in_a_row: u32) {
        if in_a_row >= EJECT_AFTER && worker.slot.leave_ready(State::Ejected) {
            self.meters.ejections.increment(1);
            self.wake.notify_one();
        }
    }

    /// What a worker says of itself, on a reply or in a report.
    pub(crate) fn note_load(self: &Arc<Self>, worker: &Worker, load: &Load, now_us: u64) {
        let slot = &worker.slot;
        // A pool has a slot at least: 0 is a reply that says nothing of its load.
        if load.slots == 0 {
            return;
        }
        let (said, known) = (capacity(load), slot.full());
        if said != known {
            slot.set_full(said);
            // A lower cap is a slow start or a contention, which end by themselves.
            if slot.cap() == known || slot.cap() > said {
                slot.set_cap(said);
                self.offer(0);
            }
        }
        slot.correct(load.in_flight);
        if slot.contended(now_us) {
            slot.set_cap(said.min(slot.in_flight().saturating_add(said.saturating_sub(load.in_flight))));
            self.offer(0);
        }
        if load.draining && slot.leave_ready(State::Draining) {
            self.wake.notify_one();
        }
    }

    /// The rate of application errors of the other workers; of this one when it is alone.
    fn error_rate_beside(&self, worker: &Worker) -> f32 {
        let table = self.table();
        let others = || table.workers.iter().filter(|other| other.id != worker.id).take(RATE_SAMPLE);
        match others().count() {
            0 => worker.slot.error_rate(),
            count => others().map(|other| other.slot.error_rate()).sum::<f32>() / count as f32,
        }
    }
}
