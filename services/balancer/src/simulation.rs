//! Whole pools in virtual time: the real slots, pick, queue and lifecycle, against servers that are numbers.
//!
//! One event after the other on one thread, all chance from one seed: a scenario that fails fails again.

mod faults;
mod load;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use troupe_contracts::report::Load;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_node::config::QueueConfig;

use crate::clock::virtual_time;
use crate::config::BalancerConfig;
use crate::instances::InstanceId;
use crate::lifecycle::{Lifecycle, Seen, Surroundings};
use crate::pool::{Permit, Pool};
use crate::queue::Place;
use crate::score;
use crate::slot::State;
use crate::tuning::Tuning;
use crate::worker::Worker;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
const TICK: u64 = 500 * MS;
/// Time a caller gives a call.
const BUDGET: u64 = 5 * SECOND;

/// What a server makes of a call.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Status(u16, u64),
    Fails(Outcome, u64),
    Never,
}

/// A server: decides by time and chance.
type Behaviour = Box<dyn Fn(u64, &mut fastrand::Rng) -> Answer>;

struct Server {
    behave: Behaviour,
    slots: u32,
    /// From when on it answers no reports, and until when.
    silent: (u64, u64),
    /// When it is there.
    appears: u64,
}

/// A server that always works, in `latency_us` give or take a fifth.
fn healthy(latency_us: u64) -> Behaviour {
    Box::new(move |_, rng| Answer::Status(200, steady(latency_us, rng)))
}

fn steady(latency_us: u64, rng: &mut fastrand::Rng) -> u64 {
    (latency_us as f64 * (0.8 + 0.4 * rng.f64())) as u64
}

fn server(slots: u32, behave: Behaviour) -> Server {
    Server { behave, slots, silent: (u64::MAX, u64::MAX), appears: 0 }
}

/// One finished call.
#[derive(Debug, Clone, Copy)]
struct Record {
    /// When it arrived, and when its server got it.
    arrived: u64,
    started: u64,
    took: u64,
    server: usize,
    ok: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Done { call: usize },
    Tick,
}

struct Call {
    balancer: usize,
    server: usize,
    arrived: u64,
    started: u64,
    answer: Answer,
}

struct Sim {
    pools: Vec<Arc<Pool>>,
    servers: Vec<Server>,
    /// By balancer, then by server.
    workers: Vec<Vec<Arc<Worker>>>,
    lives: Vec<Vec<Option<Lifecycle>>>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    calls: Vec<Call>,
    waiting: Vec<(Pin<Box<Place>>, usize, u64)>,
    rng: fastrand::Rng,
    rate: f64,
    now: u64,
    sequence: u64,
    turn: usize,
    /// Calls inside each server, over all balancers; the most each has seen.
    inside: Vec<u32>,
    most: Vec<u32>,
    /// Ratio of the fullest server to the mean, at each tick.
    skews: Vec<f64>,
    caps: Vec<Vec<u32>>,
    records: Vec<Record>,
    refused: u64,
}

impl Sim {
    fn new(seed: u64, balancers: usize, servers: Vec<Server>, rate: f64) -> Self {
        // The pick draws from the thread's generator.
        fastrand::seed(seed);
        virtual_time::set(0);
        let queue = QueueConfig { max: 1_000, wait: troupe_node::units::Duration::from_secs(5) };
        let pool = || {
            let tuning = Arc::new(Tuning::new(&BalancerConfig::default()));
            Pool::new("simulated", &queue, tuning, 1, Arc::new(Notify::new()))
        };
        let pools: Vec<_> = (0..balancers).map(|_| Arc::new(pool())).collect();
        let worker = |(id, server): (usize, &Server)| {
            let load = Load { slots: server.slots, ..Load::default() };
            Arc::new(Worker::new(id as u64, InstanceId::new(format!("{id}")), Arc::from(format!("{id}")), load))
        };
        let workers: Vec<Vec<_>> = pools.iter().map(|_| servers.iter().enumerate().map(worker).collect()).collect();
        let count = servers.len();
        let mut sim = Self {
            lives: pools.iter().map(|_| (0..count).map(|_| None).collect()).collect(),
            pools,
            workers,
            events: BinaryHeap::new(),
            calls: Vec::new(),
            waiting: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            rate,
            now: 0,
            sequence: 0,
            turn: 0,
            inside: vec![0; count],
            most: vec![0; count],
            skews: Vec::new(),
            caps: vec![Vec::new(); count],
            records: Vec::new(),
            refused: 0,
            servers,
        };
        sim.tick();
        sim.schedule(0, Event::Arrival);
        sim.schedule(TICK, Event::Tick);
        sim
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// Runs for so much longer.
    fn run(&mut self, time: u64) {
        let end = self.now + time;
        while let Some(Reverse((at, ..))) = self.events.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else { return };
            self.now = at;
            virtual_time::set(at);
            match event {
                Event::Arrival => self.arrive(),
                Event::Done { call } => self.done(call),
                Event::Tick => {
                    self.tick();
                    self.schedule(at + TICK, Event::Tick);
                }
            }
            self.serve_the_granted();
        }
        self.now = end;
    }

    fn arrive(&mut self) {
        let gap = -(1.0 - self.rng.f64()).ln() / self.rate * SECOND as f64;
        self.schedule(self.now + gap as u64, Event::Arrival);
        let balancer = self.rng.usize(..self.pools.len());
        let pool = &self.pools[balancer];
        self.turn += 1;
        let picked = match pool.queue.waiting() {
            0 => pool.table().pick(pool.median_us(), self.now, self.turn, None),
            _ => None,
        };
        match picked {
            Some(index) => {
                let worker = Arc::clone(&pool.table().workers[index]);
                self.begin(balancer, &worker, self.now);
            }
            None => match pool.queue.join(0, self.now, &pool.meters) {
                Ok(place) => {
                    let pool = Arc::clone(pool);
                    self.waiting.push((Box::pin(place), balancer, self.now));
                    pool.offer(0);
                }
                Err(_) => self.refused += 1,
            },
        }
    }

    fn begin(&mut self, balancer: usize, worker: &Arc<Worker>, arrived: u64) {
        let server = worker.id as usize;
        assert!(worker.slot.in_flight() <= worker.slot.full(), "the cap was exceeded");
        self.inside[server] += 1;
        self.most[server] = self.most[server].max(self.inside[server]);
        let answer = (self.servers[server].behave)(self.now, &mut self.rng);
        let after = match answer {
            Answer::Status(_, took) | Answer::Fails(_, took) => took.min(BUDGET),
            Answer::Never => BUDGET,
        };
        self.calls.push(Call { balancer, server, arrived, started: self.now, answer });
        self.schedule(self.now + after, Event::Done { call: self.calls.len() - 1 });
    }

    fn done(&mut self, call: usize) {
        let Call { balancer, server, arrived, started, answer } = self.calls[call];
        let (pool, worker) = (&self.pools[balancer], &self.workers[balancer][server]);
        self.inside[server] -= 1;
        let rtt = (self.now - started) as f32;
        let load = Load { slots: self.servers[server].slots, in_flight: self.inside[server] + 1, ..Load::default() };
        let mut ok = false;
        match answer {
            Answer::Status(status, took) if took <= BUDGET => {
                ok = status < 500;
                pool.learn_reply(worker, status, &load, rtt, self.now, call);
            }
            Answer::Fails(outcome, _) => {
                // Only what a function throws comes from PHP itself.
                let stage = if outcome == Outcome::Internal { Stage::Php } else { Stage::PhpPool };
                let failure = Failure::new(outcome, stage, "simulated");
                // Who is full has started nothing.
                let failure = if outcome == Outcome::Overloaded { failure.not_started() } else { failure };
                pool.learn_failure(worker, &failure, rtt, self.now);
            }
            Answer::Status(..) | Answer::Never => pool.learn_abandoned(worker, rtt, true, self.now),
        }
        pool.release(worker, 0, true);
        self.records.push(Record { arrived, started, took: self.now - arrived, server, ok });
        // What the data path did to the slot reaches the supervisor at once.
        if worker.slot.state() != State::Ready {
            self.look(balancer, server, Seen::Nothing);
            self.publish(balancer);
        }
    }

    fn serve_the_granted(&mut self) {
        let mut index = 0;
        while index < self.waiting.len() {
            match self.waiting[index].0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(permit) => {
                    let (_, balancer, arrived) = self.waiting.remove(index);
                    let worker = Arc::clone(permit.worker());
                    Permit::forget(permit);
                    self.begin(balancer, &worker, arrived);
                }
                Poll::Pending => index += 1,
            }
        }
    }

    fn tick(&mut self) {
        for balancer in 0..self.pools.len() {
            for server in 0..self.servers.len() {
                let Server { silent, appears, slots, .. } = self.servers[server];
                if self.now < appears {
                    continue;
                }
                if self.lives[balancer][server].is_none() {
                    self.lives[balancer][server] = Some(Lifecycle::new(false, self.now));
                }
                let load = Load { slots, in_flight: self.inside[server], ..Load::default() };
                // A report that was asked for at the last tick and has not come by now.
                let unanswered = self.now >= silent.0.saturating_add(TICK) && self.now < silent.1;
                self.look(balancer, server, if unanswered { Seen::Silent } else { Seen::Load(&load) });
                self.caps[server].push(self.workers[balancer][server].slot.cap());
            }
            self.publish(balancer);
            let pool = &self.pools[balancer];
            let mut latencies = self.workers[balancer]
                .iter()
                .filter(|worker| worker.slot.state() == State::Ready)
                .map(|worker| worker.slot.estimate().latency_us)
                .collect();
            pool.set_median_us(score::median(&mut latencies));
            pool.set_p95_us(pool.sketch.p95_us());
        }
        let mean = f64::from(self.inside.iter().sum::<u32>()) / self.inside.len() as f64;
        if mean > 0.0 {
            self.skews.push(f64::from(self.inside.iter().copied().max().unwrap_or(0)) / mean);
        }
    }

    fn look(&mut self, balancer: usize, server: usize, seen: Seen<'_>) {
        let workers = &self.workers[balancer];
        let lives = &self.lives[balancer];
        let served_by_others = workers
            .iter()
            .zip(lives)
            .any(|(other, life)| life.is_some() && other.id != server as u64 && other.slot.state() == State::Ready);
        let around = Surroundings { served_by_others, window_us: 10 * SECOND };
        if let Some(life) = &mut self.lives[balancer][server] {
            life.look(&self.pools[balancer], &self.workers[balancer][server], seen, around, self.now);
        }
    }

    fn publish(&self, balancer: usize) {
        let lives = &self.lives[balancer];
        let listed: Vec<_> = self.workers[balancer]
            .iter()
            .zip(lives)
            .filter(|(_, life)| life.is_some())
            .map(|(worker, _)| Arc::clone(worker))
            .collect();
        let published: Vec<u64> = self.pools[balancer].table().workers.iter().map(|worker| worker.id).collect();
        let ready = listed.iter().filter(|worker| worker.slot.state() == State::Ready).count();
        if published.len() != listed.len() || self.pools[balancer].table().ready != ready {
            self.pools[balancer].publish(&listed);
        }
    }

    // === results ===

    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.started >= from && record.started < to)
    }

    /// The part of the calls begun in this time that `server` got.
    fn share(&self, server: usize, from: u64, to: u64) -> f64 {
        let all = self.between(from, to).count().max(1);
        self.between(from, to).filter(|record| record.server == server).count() as f64 / all as f64
    }

    fn error_rate(&self, from: u64, to: u64) -> f64 {
        let all = self.between(from, to).count().max(1);
        self.between(from, to).filter(|record| !record.ok).count() as f64 / all as f64
    }

    fn percentile(&self, percent: usize, from: u64, to: u64) -> u64 {
        let mut took: Vec<u64> = self.between(from, to).map(|record| record.took).collect();
        took.sort_unstable();
        took[(took.len() * percent / 100).min(took.len() - 1)]
    }

    /// Nothing is counted that is not there.
    fn check_invariants(&self) {
        for workers in &self.workers {
            let counted: u32 = workers.iter().map(|worker| worker.slot.in_flight()).sum();
            assert!(counted <= self.inside.iter().sum(), "{counted} counted, {:?} inside", self.inside);
        }
        for (server, most) in self.most.iter().enumerate() {
            assert!(self.pools.len() > 1 || *most <= self.servers[server].slots, "server {server} had {most} calls");
        }
        let waiting: u32 = self.pools.iter().map(|pool| pool.queue.waiting()).sum();
        assert_eq!(waiting as usize, self.waiting.len());
    }
}
