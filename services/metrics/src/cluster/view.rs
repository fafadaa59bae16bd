//! What people see of the moment: instances, pools, workers, links, problems.

use std::time::{Duration, Instant};

use troupe_contracts::snapshot::{Slow, Worker};

use super::SILENT_AFTER;
use super::history::History;
use super::instance::Instance;
use super::merged::Merged;
use super::names;
use super::problems::{self, Problem};

/// Workers that are listed, best score first, over all balancers: more is no table any more.
const MAX_WORKERS: usize = 200;
/// Instances that are listed.
const MAX_INSTANCES: usize = 100;
/// Links that are listed.
const MAX_LINKS: usize = 200;
/// Slow requests that are listed.
const MAX_SLOW: usize = 20;
/// What is older is no longer slow but past: as long as gateways keep them.
const SLOW_FOR: Duration = Duration::from_secs(15 * 60);

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) problems: Vec<Problem>,
    pub(crate) instances: Vec<InstanceRow>,
    pub(crate) pools: Vec<PoolRow>,
    pub(crate) workers: Vec<WorkerRow>,
    /// How many there are, listed or not.
    pub(crate) workers_total: usize,
    pub(crate) links: Vec<LinkRow>,
    /// The slowest requests of all gateways, the slowest first.
    pub(crate) slow: Vec<SlowRow>,
}

/// A request that took long.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlowRow {
    pub(crate) slow: Slow,
    /// Seconds since it ended, up to ten seconds ago.
    pub(crate) ago: u64,
    /// The gateway that answered it.
    pub(crate) gateway: String,
}

/// An instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct InstanceRow {
    pub(crate) instance: String,
    pub(crate) services: Vec<String>,
    pub(crate) version: String,
    /// `up` or `lost`.
    pub(crate) state: &'static str,
    /// Seconds since it was last heard of.
    pub(crate) silent: u64,
    /// Seconds since its start.
    pub(crate) uptime: u64,
    /// Cores in use, by its PHP processes too.
    pub(crate) cpu: f32,
    /// Of these, by PHP.
    pub(crate) php_cpu: f32,
    /// Bytes of memory, those of its PHP processes too.
    pub(crate) resident: u64,
    /// Of these, PHP's; 0 where there is none.
    pub(crate) php_resident: u64,
    pub(crate) descriptors: u64,
    pub(crate) max_descriptors: u64,
    pub(crate) threads: u64,
}

/// A pool as one balancer sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolRow {
    pub(crate) pool: String,
    pub(crate) waiting: u32,
    pub(crate) queue_max: u32,
    pub(crate) all_out: bool,
    pub(crate) workers: usize,
    /// Those of them that take no new calls by somebody's word.
    pub(crate) draining: usize,
}

/// A worker as one balancer sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerRow {
    pub(crate) balancer: String,
    pub(crate) pool: String,
    pub(crate) worker: String,
    /// What its balancer tells workers of one name apart by.
    pub(crate) instance: String,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) score: f32,
    /// Seconds.
    pub(crate) latency: f32,
    pub(crate) in_flight: u32,
    pub(crate) foreign: u32,
    pub(crate) cap: u32,
    pub(crate) gain: f32,
    pub(crate) error_rate: f32,
    pub(crate) failures: u32,
    pub(crate) slots: u32,
    pub(crate) busy: u32,
    pub(crate) processes: u32,
    /// Share of the fullest process's hard limit.
    pub(crate) memory: f32,
    pub(crate) restarts: u32,
}

/// The links of an instance to one service.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinkRow {
    pub(crate) instance: String,
    pub(crate) peer: String,
    pub(crate) links: f64,
    pub(crate) in_flight: f64,
}

pub(super) fn of<'a>(
    instances: impl Iterator<Item = &'a Instance> + Clone,
    merged: &Merged,
    history: &History,
    (now, aged): (Instant, Instant),
) -> View {
    let live = instances.clone().filter(|instance| !instance.lost(now));
    let mut view = View::default();
    for instance in live.clone() {
        let balancer = &instance.source().instance;
        for pool in &instance.pools {
            let workers = instance.workers.iter().filter(|worker| worker.pool == pool.pool);
            let draining = workers.clone().filter(|worker| worker.state == "draining").count();
            view.pools.push(PoolRow {
                pool: pool.pool.clone(),
                waiting: pool.waiting,
                queue_max: pool.queue_max,
                all_out: pool.all_out,
                workers: workers.count(),
                draining,
            });
        }
        view.workers.extend(instance.workers.iter().map(|worker| worker_row(balancer, worker)));
        view.links.extend(links(instance, merged));
    }
    view.workers_total = view.workers.len();
    // Those that take calls first, then by score: the order in which they are picked.
    view.workers.sort_by(|one, other| {
        (other.state == "ready").cmp(&(one.state == "ready")).then(other.score.total_cmp(&one.score))
    });
    view.links.truncate(MAX_LINKS);
    view.slow = slow(instances.clone(), now, aged);
    let standing = names::standing(instances, now);
    view.instances = standing.iter().map(|instance| instance_row(instance, merged, now)).collect();
    view.instances.sort_by(|one, other| (&one.services, &one.instance).cmp(&(&other.services, &other.instance)));
    view.problems = problems::find(&standing, &view, history, now);
    view.workers.truncate(MAX_WORKERS);
    view.instances.truncate(MAX_INSTANCES);
    view
}

/// What a gateway told counts after its end, too: it may have ended for what made it slow.
fn slow<'a>(instances: impl Iterator<Item = &'a Instance>, now: Instant, aged: Instant) -> Vec<SlowRow> {
    let mut all: Vec<(&Instance, &Slow, Instant)> = Vec::new();
    for instance in instances {
        all.extend(instance.slow.iter().map(|(slow, ended)| (instance, slow, *ended)));
    }
    all.retain(|(_, _, ended)| now.saturating_duration_since(*ended) < SLOW_FOR);
    all.sort_by_key(|(_, slow, _)| std::cmp::Reverse(slow.took_us));
    all.truncate(MAX_SLOW);
    let row = |(instance, slow, ended): (&Instance, &Slow, Instant)| SlowRow {
        slow: slow.clone(),
        ago: aged.saturating_duration_since(ended).as_secs(),
        gateway: instance.source().instance.clone(),
    };
    all.into_iter().map(row).collect()
}

fn instance_row(instance: &Instance, merged: &Merged, now: Instant) -> InstanceRow {
    let (source, process, php) = (instance.source(), instance.process(), instance.php(merged));
    let php_cpu = if instance.silence(now) < SILENT_AFTER { php.cpu } else { 0.0 };
    InstanceRow {
        instance: source.instance.clone(),
        services: source.services.clone(),
        version: source.version.clone(),
        state: if instance.lost(now) { "lost" } else { "up" },
        silent: instance.silence(now).as_secs(),
        uptime: source.uptime_ms / 1_000,
        cpu: instance.cpu(now) + php_cpu,
        php_cpu,
        resident: process.resident_bytes.saturating_add(php.resident as u64),
        php_resident: php.resident as u64,
        descriptors: process.descriptors,
        max_descriptors: process.max_descriptors,
        threads: process.threads,
    }
}

fn worker_row(balancer: &str, worker: &Worker) -> WorkerRow {
    let load = &worker.load;
    WorkerRow {
        balancer: balancer.to_owned(),
        pool: worker.pool.clone(),
        worker: worker.worker.clone(),
        instance: worker.instance.clone(),
        state: worker.state.clone(),
        reason: worker.reason.clone(),
        score: finite(worker.score),
        latency: finite(worker.latency_us) / 1e6,
        in_flight: worker.in_flight,
        foreign: worker.foreign,
        cap: worker.cap,
        gain: finite(worker.gain),
        error_rate: finite(worker.error_rate),
        failures: worker.failures,
        slots: load.slots,
        busy: load.busy,
        processes: load.processes,
        memory: f32::from(load.memory_permille) / 1_000.0,
        restarts: load.restarts,
    }
}

/// A peer may send what is no number.
fn finite(value: f32) -> f32 {
    if value.is_finite() { value } else { 0.0 }
}

fn links(instance: &Instance, merged: &Merged) -> Vec<LinkRow> {
    let mut rows: Vec<LinkRow> = Vec::new();
    for (number, value) in instance.gauges() {
        let Some(key) = merged.get(number).map(super::merged::Series::key) else { continue };
        let calls = match key.name() {
            "troupe_mesh_links" => false,
            "troupe_mesh_calls_in_flight" => true,
            _ => continue,
        };
        let Some(peer) = key.labels().find(|label| label.key() == "peer").map(|label| label.value()) else { continue };
        let place = rows.iter().position(|row| row.peer == peer).unwrap_or_else(|| {
            let instance = instance.source().instance.clone();
            rows.push(LinkRow { instance, peer: peer.to_owned(), links: 0.0, in_flight: 0.0 });
            rows.len() - 1
        });
        if let Some(row) = rows.get_mut(place) {
            *(if calls { &mut row.in_flight } else { &mut row.links }) = value;
        }
    }
    rows.sort_by(|one, other| one.peer.cmp(&other.peer));
    rows
}
