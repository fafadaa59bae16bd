//! What the supervisor knows: instances, their workers, and who was published as what.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use troupe_contracts::invoke::UPSTREAM;
use troupe_contracts::report::{InstanceReport, PoolReport};
use troupe_mesh::supervise::Handle;

use super::reporter::Reporter;
use super::series::SeriesPlaces;
use super::worker::{self, Hold, Look, Sight, WorkerActor};
use crate::clock;
use crate::directory::{Directory, MAX_POOLS};
use crate::instances::{Instance, InstanceId};
use crate::lifecycle::Surroundings;
use crate::meters::WorkerMeters;
use crate::pool::Pool;
use crate::ranking;
use crate::score;
use crate::slot::State;
use crate::tuning::Tuning;
use crate::worker::Worker;

/// While calls wait and a worker is shared with other balancers, its room is asked for this often.
const CONTENDED_INTERVAL: Duration = Duration::from_millis(25);
/// A pool whose oldest ready worker is younger than this is starting, not serving: whoever joins now starts at once.
const STARTING_US: u64 = 5_000_000;
/// Workers that operators may have drained at once, those of instances that are gone included.
const MAX_HELD: usize = 1_024;
/// The latency sketch forgets half after this many rankings.
const FADE_EVERY: u64 = 20;

/// See the module.
pub(crate) struct Roster {
    directory: Arc<Directory>,
    instances: BTreeMap<InstanceId, Enlisted>,
    next_id: u64,
    rankings: u64,
    series: SeriesPlaces,
    all_out: HashSet<Arc<str>>,
    /// Workers that an operator drains, by instance and pool: an instance whose link was away comes back as drained as it was.
    held: HashSet<(InstanceId, String)>,
}

struct Enlisted {
    name: Arc<str>,
    weight: u32,
    reporter: Reporter,
    members: HashMap<String, Member>,
}

/// A worker and its actor.
struct Member {
    pool: Arc<Pool>,
    worker: Arc<Worker>,
    actor: Handle<WorkerActor>,
    joined_us: u64,
    published: State,
    meters: Option<WorkerMeters>,
}

impl Roster {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            instances: BTreeMap::new(),
            next_id: 0,
            rankings: 0,
            series: SeriesPlaces::default(),
            all_out: HashSet::new(),
            held: HashSet::new(),
        }
    }

    pub(super) fn tuning(&self) -> Arc<Tuning> {
        Arc::clone(&self.directory.tuning)
    }

    // === instances ===

    pub(super) fn knows(&self, id: &InstanceId) -> bool {
        self.instances.contains_key(id)
    }

    pub(super) fn enlist(&mut self, instance: &Instance, reporter: Reporter) {
        let enlisted =
            Enlisted { name: Arc::clone(&instance.name), weight: instance.weight, reporter, members: HashMap::new() };
        self.instances.insert(instance.id.clone(), enlisted);
        tracing::info!(instance = %instance.id, name = %instance.name, "instance found");
    }

    /// Takes the weight that an instance is listed with now.
    pub(super) fn reweigh(&mut self, instance: &Instance) {
        let Some(enlisted) = self.instances.get_mut(&instance.id).filter(|known| known.weight != instance.weight)
        else {
            return;
        };
        enlisted.weight = instance.weight;
        tracing::info!(instance = %instance.id, weight = instance.weight, "instance has another weight");
        for member in self.instances.get(&instance.id).into_iter().flat_map(|enlisted| enlisted.members.values()) {
            member.worker.weigh(instance.weight);
            self.look(member, Sight::Nothing);
        }
    }

    /// The configuration has changed: asks every instance at once, and as often as it says now.
    pub(super) fn retuned(&self) {
        for enlisted in self.instances.values() {
            enlisted.reporter.hurry();
        }
    }

    /// Ends the workers of instances that are no longer listed.
    pub(super) fn leave_out_all_but(&mut self, listed: &[Instance]) {
        let kept: HashSet<&InstanceId> = listed.iter().map(|instance| &instance.id).collect();
        let gone: Vec<InstanceId> = self.instances.keys().filter(|id| !kept.contains(id)).cloned().collect();
        for id in gone {
            if let Some(enlisted) = self.instances.remove(&id) {
                tracing::info!(instance = %id, name = %enlisted.name, "instance is gone");
                for member in enlisted.members.into_values() {
                    self.part_with(member, "its instance is gone");
                }
            }
        }
    }

    fn part_with(&mut self, member: Member, reason: &'static str) {
        member.worker.slot.set_state(State::Down);
        if let Some(meters) = &member.meters {
            self.series.give_back(&member.pool, &member.worker, meters);
        }
        tracing::info!(pool = %member.pool.name, worker = %member.worker.name, reason, "worker is gone");
        self.publish(&member.pool);
    }

    // === reports ===

    /// Takes an instance's answer; returns when to ask again.
    pub(super) fn reported(&mut self, id: &InstanceId, report: Option<&InstanceReport>, now_us: u64) -> Duration {
        let interval = self.directory.tuning.report_interval();
        match report {
            None => self.silent(id),
            Some(report) => {
                for pool in report.pools.iter().take(MAX_POOLS) {
                    self.reported_pool(id, pool, now_us);
                }
                self.end_unreported(id, report);
            }
        }
        if self.contended(id, now_us) { CONTENDED_INTERVAL.min(interval) } else { interval }
    }

    fn silent(&self, id: &InstanceId) {
        for member in self.instances.get(id).into_iter().flat_map(|enlisted| enlisted.members.values()) {
            self.look(member, Sight::Silent);
        }
    }

    fn reported_pool(&mut self, id: &InstanceId, report: &PoolReport, now_us: u64) {
        let Some(enlisted) = self.instances.get(id) else { return };
        if let Some(member) = enlisted.members.get(&report.pool) {
            self.look(member, Sight::Load(report.load));
            return;
        }
        if !id.is_upstream() && report.pool.starts_with(UPSTREAM) {
            tracing::warn!(instance = %id, pool = report.pool, "a pool has the name of an upstream, it is ignored");
            return;
        }
        let Some(pool) = self.directory.get_or_add(&report.pool) else {
            tracing::warn!(instance = %id, pool = report.pool, most = MAX_POOLS, "too many pools, one is ignored");
            return;
        };
        let joins = self.serving(&pool, now_us);
        self.next_id += 1;
        let made = Worker::new(self.next_id, id.clone(), Arc::clone(&enlisted.name), report.load);
        made.weigh(enlisted.weight);
        let worker = Arc::new(made);
        let held = self.held.contains(&(id.clone(), report.pool.clone()));
        let actor = worker::start(&pool, &worker, joins, held);
        let meters = self.series.take(&pool, &worker);
        // Its actor looks later, and until then it would be given what waits.
        if held || report.load.draining {
            worker.slot.leave_ready(State::Draining);
        }
        let published = worker.slot.state();
        let member = Member { pool, worker, actor, joined_us: now_us, published, meters };
        tracing::info!(pool = %member.pool.name, worker = %member.worker.name, slots = report.load.slots, joins, "worker found");
        let pool = Arc::clone(&member.pool);
        self.look(&member, Sight::Load(report.load));
        if joins && self.directory.tuning.slow_start_us() > 0 {
            member.worker.slot.set_cap(1.min(member.worker.slot.full()));
        }
        if let Some(enlisted) = self.instances.get_mut(id) {
            enlisted.members.insert(report.pool.clone(), member);
        }
        self.publish(&pool);
    }

    /// An instance that no longer reports a pool has ended it.
    fn end_unreported(&mut self, id: &InstanceId, report: &InstanceReport) {
        let Some(enlisted) = self.instances.get_mut(id) else { return };
        let reported: HashSet<&str> = report.pools.iter().map(|pool| pool.pool.as_str()).collect();
        let gone: Vec<String> =
            enlisted.members.keys().filter(|name| !reported.contains(name.as_str())).cloned().collect();
        let gone: Vec<Member> = gone.iter().filter_map(|name| enlisted.members.remove(name)).collect();
        for member in gone {
            self.part_with(member, "its instance no longer has the pool");
        }
    }

    fn contended(&self, id: &InstanceId, now_us: u64) -> bool {
        self.instances.get(id).is_some_and(|enlisted| enlisted.contended(now_us))
    }

    /// Tells a worker's actor. An inbox that is full holds newer looks than it can use already.
    fn look(&self, member: &Member, seen: Sight) {
        let around = self.around(member);
        if let Err(error) = member.actor.try_send(Look { seen, around }) {
            tracing::debug!(worker = %member.worker.name, %error, "look dropped");
        }
    }

    fn around(&self, member: &Member) -> Surroundings {
        let served_by_others = self
            .members(&member.pool)
            .any(|other| other.worker.id != member.worker.id && other.worker.slot.state() == State::Ready);
        Surroundings { served_by_others, window_us: self.directory.tuning.slow_start_us() }
    }

    /// Takes a worker out by an operator's word, or gives it back. `false`: there is none, or too many are out.
    pub(super) fn hold(&mut self, id: &InstanceId, pool: &str, held: bool) -> bool {
        let key = (id.clone(), pool.to_owned());
        let Some(member) = self.instances.get(id).and_then(|enlisted| enlisted.members.get(pool)) else { return false };
        let hold = Hold { held, around: self.around(member) };
        if held && self.held.len() >= MAX_HELD {
            // Instances that are gone for good come back under another number.
            let instances = &self.instances;
            self.held.retain(|(id, _)| instances.contains_key(id));
        }
        let full = self.held.len() >= MAX_HELD && !self.held.contains(&key);
        if (held && full) || member.actor.try_send(hold).is_err() {
            return false;
        }
        if held {
            self.held.insert(key)
        } else {
            self.held.remove(&key)
        };
        true
    }

    /// The data path has changed something: tells the actors concerned, and publishes what is true now.
    pub(super) fn woken(&mut self) {
        let now_us = clock::now();
        let mut changed: HashMap<Arc<str>, Arc<Pool>> = HashMap::new();
        // Read once: what changes from here on wakes this again.
        let members = || self.instances.values().flat_map(|enlisted| enlisted.members.values());
        let states: Vec<State> = members().map(|member| member.worker.slot.state()).collect();
        for (member, state) in members().zip(&states) {
            if *state != member.published {
                self.look(member, Sight::Nothing);
                changed.insert(Arc::clone(&member.pool.name), Arc::clone(&member.pool));
            }
        }
        let mut states = states.into_iter();
        for enlisted in self.instances.values_mut() {
            for (member, state) in enlisted.members.values_mut().zip(&mut states) {
                member.published = state;
            }
            if enlisted.contended(now_us) {
                enlisted.reporter.hurry();
            }
        }
        for pool in changed.values() {
            self.publish(pool);
            self.tell_when_all_are_out(pool);
        }
    }

    // === publishing ===

    fn publish(&self, pool: &Arc<Pool>) {
        let workers: Vec<Arc<Worker>> = self.members(pool).map(|member| Arc::clone(&member.worker)).collect();
        pool.publish(&workers);
        pool.set_order(ranking::rank(workers.iter(), pool.median_us(), clock::now()));
    }

    /// A pool whose every worker is out goes on with the least bad one. That must not pass unnoticed.
    fn tell_when_all_are_out(&mut self, pool: &Arc<Pool>) {
        let table = pool.table();
        let all_out = table.ready == 0 && !table.workers.is_empty();
        pool.meters.all_out.set(if all_out { 1.0 } else { 0.0 });
        if all_out && self.all_out.insert(Arc::clone(&pool.name)) {
            let workers = table.workers.len();
            tracing::warn!(pool = %pool.name, workers, "every worker is out; calls go to the least bad one");
        } else if !all_out && self.all_out.remove(&pool.name) {
            tracing::info!(pool = %pool.name, ready = table.ready, "workers are back");
        }
    }

    /// Orders each pool's workers by score and publishes the order; renews medians and percentiles.
    pub(super) fn rank(&mut self, now_us: u64) {
        self.rankings += 1;
        self.give_series();
        for pool in self.directory.pools.load().values() {
            let members: Vec<&Member> = self.members(pool).collect();
            let ready = members.iter().filter(|member| member.worker.slot.state() == State::Ready);
            let mut latencies = ready.map(|member| member.worker.slot.estimate().latency_us).collect();
            pool.set_median_us(score::median(&mut latencies));
            pool.set_p95_us(pool.sketch.p95_us());
            if self.rankings.is_multiple_of(FADE_EVERY) {
                pool.sketch.fade();
            }
            let order = ranking::rank(members.iter().map(|member| &member.worker), pool.median_us(), now_us);
            for member in &members {
                if let Some(meters) = &member.meters {
                    let slot = &member.worker.slot;
                    meters.score.set(f64::from(ranking::score(slot, pool.median_us(), now_us)));
                    meters.in_flight.set(f64::from(slot.in_flight()));
                    meters.latency.set(f64::from(slot.estimate().latency_us) / 1e6);
                }
            }
            pool.set_order(order);
            // What a lost wake-up would leave waiting, if there were one, waits no longer than this.
            pool.offer(0);
        }
        self.directory.retire(|pool| self.members(pool).next().is_some());
    }

    /// Gives places of workers that have left to those that came when there was none.
    fn give_series(&mut self) {
        let Self { instances, series, .. } = self;
        for member in instances.values_mut().flat_map(|enlisted| enlisted.members.values_mut()) {
            if member.meters.is_none() {
                member.meters = series.take(&member.pool, &member.worker);
            }
        }
    }

    /// Whether the pool serves already, as against starting.
    fn serving(&self, pool: &Pool, now_us: u64) -> bool {
        self.members(pool).any(|member| {
            member.worker.slot.state() == State::Ready && now_us.saturating_sub(member.joined_us) >= STARTING_US
        })
    }

    fn members<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = &'a Member> {
        self.instances.values().filter_map(|enlisted| enlisted.members.get(&*pool.name))
    }
}

impl Enlisted {
    /// Whether calls wait that a worker of this instance may have room for, if only we knew.
    fn contended(&self, now_us: u64) -> bool {
        self.members.values().any(|member| member.pool.queue.waiting() > 0 && member.worker.slot.contended(now_us))
    }
}
