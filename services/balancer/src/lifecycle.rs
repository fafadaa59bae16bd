//! A worker's life: ready, ejected, draining, gone; and how it comes back. A state machine that takes the time.

use std::sync::Arc;

use troupe_contracts::invoke::UPSTREAM;
use troupe_contracts::report::Load;

use crate::pool::Pool;
use crate::score;
use crate::slot::State;
use crate::worker::Worker;

/// The first ejection lasts this long, each further one twice as long as the one before.
const EJECTION_US: u64 = 1_000_000;
/// No ejection lasts longer: a worker that is repaired is noticed within a minute.
const LONGEST_EJECTION_US: u64 = 60_000_000;
/// A worker that stayed ready for this long has one ejection forgotten.
const FORGET_EJECTION_US: u64 = 60_000_000;
/// A worker that was out for less than this, and only for its silence, goes on as if nothing had been: a machine that is
/// busy for a moment must not cost ten seconds of slow start.
const MOMENT_US: u64 = 2_000_000;
/// A penalised worker that nobody calls may be tried again after this long.
const PAROLE_US: u64 = 10_000_000;

/// Why a worker that an operator drains takes no calls.
const HELD: &str = "an operator drains it";

/// Why a worker of this pool is out that did not answer.
fn silence(pool: &str) -> &'static str {
    // Nobody asks an upstream server for a report: it is knocked at.
    if pool.starts_with(UPSTREAM) { "it accepts no connection" } else { "its php-pool does not answer" }
}

/// Why a worker takes no calls that says so itself.
const LEAVING: &str = "its php-pool is about to stop, or is drained there";

/// What there is to know at a look.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen<'a> {
    /// The worker's instance answered a report.
    Load(&'a Load),
    /// It did not.
    Silent,
    /// Nothing new; the data path may have changed the slot.
    Nothing,
}

/// A change of state, for the log and for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) reason: &'static str,
    /// How long the worker stays out, where that is known, in microseconds.
    pub(crate) for_us: Option<u64>,
}

/// What the look at a worker takes into account beside the worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings {
    /// Whether other workers of the pool are ready: who returns then must not be flooded.
    pub(crate) served_by_others: bool,
    /// The slow-start window in microseconds; 0: none.
    pub(crate) window_us: u64,
}

/// One worker's life.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    state: State,
    silent: bool,
    ejections: u32,
    ejected_until_us: Option<u64>,
    /// When a slow start began.
    ramp_from_us: Option<u64>,
    ready_since_us: u64,
    out_since_us: u64,
    failing_since_us: Option<u64>,
    /// An operator has taken it out.
    held: bool,
}

impl Lifecycle {
    /// A worker that was just reported. `joins`: its pool is serving already, so it starts slowly.
    pub(crate) fn new(joins: bool, now_us: u64) -> Self {
        Self {
            state: State::Ready,
            silent: false,
            ejections: 0,
            ejected_until_us: None,
            ramp_from_us: joins.then_some(now_us),
            ready_since_us: now_us,
            out_since_us: 0,
            failing_since_us: None,
            held: false,
        }
    }

    /// Takes the worker out by an operator's word, or gives it back; the next look does it.
    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Looks at the worker, moves it on and sets its slot.
    pub(crate) fn look(
        &mut self,
        pool: &Arc<Pool>,
        worker: &Worker,
        seen: Seen<'_>,
        around: Surroundings,
        now_us: u64,
    ) -> Option<Transition> {
        match seen {
            Seen::Load(load) => {
                self.silent = false;
                pool.note_load(worker, load, now_us);
                *worker.load.lock() = *load;
            }
            Seen::Silent => self.silent = true,
            Seen::Nothing => {}
        }
        let transition = self.transit(pool, worker, seen, around, now_us);
        self.care(pool, worker, around, now_us);
        transition
    }

    fn transit(
        &mut self,
        pool: &Pool,
        worker: &Worker,
        seen: Seen<'_>,
        around: Surroundings,
        now_us: u64,
    ) -> Option<Transition> {
        let slot = &worker.slot;
        let from = self.state;
        let answered = match seen {
            Seen::Load(load) => Some(load),
            _ => None,
        };
        let mut for_us = None;
        let (to, reason) = match slot.state() {
            State::Down => (State::Down, "its instance is gone"),
            _ if self.held => (State::Draining, HELD),
            State::Ready if self.silent => (State::Ejected, silence(&pool.name)),
            State::Ready => (State::Ready, "ready"),
            State::Ejected | State::Draining if answered.is_some_and(|load| load.draining) => {
                (State::Draining, LEAVING)
            }
            State::Ejected if from == State::Ready => {
                for_us = Some(self.eject(now_us));
                (State::Ejected, "it failed too often in a row")
            }
            State::Ejected if answered.is_some() && self.ejected_until_us.is_none_or(|until| now_us >= until) => {
                (State::Ready, "it is tried again")
            }
            State::Draining if answered.is_some() => (State::Ready, "it takes calls again"),
            State::Draining => (State::Draining, LEAVING),
            State::Ejected => (State::Ejected, "it is out"),
        };
        if to == from {
            // Drained for one reason after another.
            if to == State::Draining {
                *worker.reason.lock() = reason;
            }
            return None;
        }
        match (from, to) {
            (State::Ready, _) => self.out_since_us = now_us,
            (State::Ejected, State::Ready) if self.away_for_a_moment(now_us) => {}
            (_, State::Ready) => self.come_back(worker, around, now_us),
            _ => {}
        }
        if to == State::Ready {
            self.ejected_until_us = None;
            self.ready_since_us = now_us;
        }
        self.state = to;
        slot.set_state(to);
        *worker.reason.lock() = reason;
        Some(Transition { from, to, reason, for_us })
    }

    /// Out for a while that grows with each time, spread so that workers ejected together do not return together.
    fn eject(&mut self, now_us: u64) -> u64 {
        let time = EJECTION_US.saturating_mul(1 << self.ejections.min(16)).min(LONGEST_EJECTION_US);
        let for_us = (time as f64 * (0.8 + 0.4 * fastrand::f64())) as u64;
        self.ejections += 1;
        self.ejected_until_us = Some(now_us + for_us);
        for_us
    }

    fn away_for_a_moment(&self, now_us: u64) -> bool {
        self.ejected_until_us.is_none() && now_us.saturating_sub(self.out_since_us) < MOMENT_US
    }

    fn come_back(&mut self, worker: &Worker, around: Surroundings, now_us: u64) {
        worker.slot.reset();
        self.failing_since_us = None;
        self.ramp_from_us = around.served_by_others.then_some(now_us);
    }

    /// What time alone changes: slow start, contention, fading, parole.
    fn care(&mut self, pool: &Arc<Pool>, worker: &Worker, around: Surroundings, now_us: u64) {
        let slot = &worker.slot;
        let pace = match self.ramp_from_us {
            Some(from) => score::slow_start(now_us.saturating_sub(from), around.window_us),
            None => 1.0,
        };
        if pace >= 1.0 {
            self.ramp_from_us = None;
        }
        slot.set_gain(pace * worker.weight());
        if !slot.contended(now_us) {
            slot.end_contention();
            let allowed = (slot.full() as f32 * pace).ceil() as u32;
            if allowed != slot.cap() {
                let raised = allowed > slot.cap();
                slot.set_cap(allowed);
                if raised {
                    pool.offer(0);
                }
            }
        }
        let median = pool.median_us();
        if slot.last_ok() {
            self.failing_since_us = None;
            if slot.in_flight() == 0 && median > 0.0 {
                slot.fade(median, now_us, pool.tuning.decay_ms() / score::IDLE_FADE);
            }
        } else if self.state == State::Ready {
            let since = *self.failing_since_us.get_or_insert(now_us);
            if now_us.saturating_sub(since) >= PAROLE_US {
                slot.parole();
            }
        }
        if self.state == State::Ready && now_us.saturating_sub(self.ready_since_us) >= FORGET_EJECTION_US {
            self.ready_since_us = now_us;
            self.ejections = self.ejections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {

    use tokio::sync::Notify;
    use troupe_node::config::QueueConfig;

    use super::*;
    use crate::config::BalancerConfig;
    use crate::instances::InstanceId;
    use crate::lessons::EJECT_AFTER;
    use crate::tuning::Tuning;

    const SECOND: u64 = 1_000_000;
    const AROUND: Surroundings = Surroundings { served_by_others: true, window_us: 10 * SECOND };
    const LOAD: Load = Load {
        slots: 20,
        prefetch: 0,
        in_flight: 0,
        waiting: 0,
        processes: 1,
        busy: 0,
        memory_permille: 0,
        restarts: 0,
        draining: false,
    };

    fn world() -> (Arc<Pool>, Arc<Worker>, Lifecycle) {
        let tuning = Arc::new(Tuning::new(&BalancerConfig::default()));
        let pool = Arc::new(Pool::new("p", &QueueConfig::default(), tuning, 1, Arc::new(Notify::new())));
        let worker = Arc::new(Worker::new(1, InstanceId::local(), Arc::from("w"), LOAD));
        pool.publish(&[Arc::clone(&worker)]);
        (pool, worker, Lifecycle::new(false, 0))
    }

    fn fail(pool: &Pool, worker: &Worker, times: u32, now_us: u64) {
        let broken = troupe_mesh::failure::Failure::new(
            troupe_mesh::failure::Outcome::Broken,
            troupe_mesh::failure::Stage::PhpPool,
            "gone",
        );
        for _ in 0..times {
            pool.learn_failure(worker, &broken, 1_000.0, now_us);
        }
    }

    #[test]
    fn the_nth_failure_ejects_exactly_then_and_again_after_the_return() {
        let (pool, worker, mut life) = world();
        let mut now = SECOND;
        let mut last = 0;
        for round in 0..3 {
            fail(&pool, &worker, EJECT_AFTER - 1, now);
            assert_eq!(life.look(&pool, &worker, Seen::Load(&LOAD), AROUND, now), None);
            assert_eq!(worker.slot.state(), State::Ready);
            fail(&pool, &worker, 1, now);
            assert_eq!(worker.slot.state(), State::Ejected);
            let out = life.look(&pool, &worker, Seen::Nothing, AROUND, now).unwrap();
            let for_us = out.for_us.unwrap();
            // Twice as long each time, give or take a fifth.
            let expected = SECOND << round;
            assert!((expected * 8 / 10..=expected * 12 / 10).contains(&for_us), "{for_us}");
            assert!(for_us > last);
            last = for_us;
            assert_eq!(life.look(&pool, &worker, Seen::Load(&LOAD), AROUND, now + for_us - 1), None);
            let back = life.look(&pool, &worker, Seen::Load(&LOAD), AROUND, now + for_us).unwrap();
            assert_eq!((back.from, back.to), (State::Ejected, State::Ready));
            assert_eq!((worker.slot.failures(), worker.slot.cap()), (0, 2));
            now += for_us + 20 * SECOND;
            life.look(&pool, &worker, Seen::Load(&LOAD), AROUND, now);
            assert_eq!(worker.slot.cap(), 20);
        }
    }

    #[test]
    fn silence_puts_out_and_a_moment_of_it_costs_nothing() {
        let (pool, worker, mut life) = world();
        assert_eq!(life.look(&pool, &worker, Seen::Silent, AROUND, SECOND).unwrap().to, State::Ejected);
        assert_eq!(life.look(&pool, &worker, Seen::Load(&LOAD), AROUND, 2 * SECOND).unwrap().to, State::Ready);
        assert_eq!((worker.slot.cap(), worker.slot.gain()), (20, 1.0));
        life.look(&pool, &worker, Seen::Silent, AROUND, 3 * SECOND);
        life.look(&pool, &worker, Seen::Load(&LOAD), AROUND, 9 * SECOND);
        assert_eq!((worker.slot.cap(), worker.slot.gain()), (2, 0.1));
    }

    #[test]
    fn functions_that_throw_put_no_worker_out_that_is_no_worse_than_the_others() {
        let (pool, worker, mut life) = world();
        let thrown = troupe_mesh::failure::Failure::new(
            troupe_mesh::failure::Outcome::Internal,
            troupe_mesh::failure::Stage::Php,
            "the function failed",
        );
        for _ in 0..100 {
            pool.learn_failure(&worker, &thrown, 1_000.0, 1);
        }
        assert_eq!(life.look(&pool, &worker, Seen::Nothing, AROUND, 2), None);
        assert_eq!((worker.slot.state(), worker.slot.failures()), (State::Ready, 0));
        assert!(worker.slot.error_rate() > 0.9, "it is seen all the same: {}", worker.slot.error_rate());
        assert!(worker.slot.estimate().latency_us < 2_000.0);
    }

    #[test]
    fn draining_ends_when_the_worker_says_so() {
        let (pool, worker, mut life) = world();
        let draining = Load { draining: true, ..LOAD };
        assert_eq!(life.look(&pool, &worker, Seen::Load(&draining), AROUND, 1).unwrap().to, State::Draining);
        assert_eq!(life.look(&pool, &worker, Seen::Nothing, AROUND, 2), None);
        assert_eq!(*worker.reason.lock(), LEAVING);
        assert_eq!(life.look(&pool, &worker, Seen::Load(&LOAD), AROUND, 3).unwrap().to, State::Ready);
    }

    #[test]
    fn what_an_operator_drains_stays_out_until_it_is_given_back() {
        let (pool, worker, mut life) = world();
        life.hold(true);
        assert_eq!(life.look(&pool, &worker, Seen::Nothing, AROUND, 1).unwrap().to, State::Draining);
        for seen in [Seen::Load(&LOAD), Seen::Silent, Seen::Nothing, Seen::Load(&LOAD)] {
            assert_eq!(life.look(&pool, &worker, seen, AROUND, 2), None);
        }
        assert_eq!((worker.slot.state(), *worker.reason.lock()), (State::Draining, HELD));
        life.hold(false);
        assert_eq!(life.look(&pool, &worker, Seen::Load(&LOAD), AROUND, 3).unwrap().to, State::Ready);
        // The last word is the operator's over an ejected worker, too.
        fail(&pool, &worker, EJECT_AFTER, 4);
        life.look(&pool, &worker, Seen::Nothing, AROUND, 4).unwrap();
        life.hold(true);
        assert_eq!(life.look(&pool, &worker, Seen::Nothing, AROUND, 5).unwrap().to, State::Draining);
    }
}
