//! One instance: who it is, what it told last, and how fast that moves.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use troupe_contracts::snapshot::{Complaint, HistogramValue, Order, Pool, Process, Slow, Snapshot, Source, Worker};
use troupe_node::metrics::counted;

use super::columns::{self, COLUMNS, DURATIONS, Feed, Figure};
use super::distribution::Distribution;
use super::merged::{Merged, Total};
use super::{LOST_AFTER, SILENT_AFTER};

/// Series of one instance; an instance has no more of its own.
const MAX_SERIES: usize = 10_001;
/// Workers of one balancer's table.
const MAX_WORKERS: usize = 4_096;
/// Pools of one balancer's table.
const MAX_POOLS: usize = 256;
/// Slow requests of one gateway.
const MAX_SLOW: usize = 64;
/// Orders that wait for an instance's next snapshot, and outcomes that one tells.
pub(super) const MAX_ORDERS: usize = 32;
/// An instance that has run no longer than this when it is first heard of counted all it tells just now.
const YOUNG: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub(super) struct Instance {
    source: Source,
    heard: Instant,
    /// Whether people want to know where it is.
    missed: bool,
    process: Process,
    epoch: u32,
    /// By the instance's number, the number in the merged view.
    numbers: Vec<Option<usize>>,
    counters: HashMap<usize, u64>,
    gauges: HashMap<usize, f64>,
    /// Everything is being told anew.
    anew: bool,
    histograms: HashMap<usize, (Vec<u64>, f64, Vec<f64>)>,
    /// Upper bounds of histograms, by the instance's number.
    bounds: HashMap<u32, Vec<f64>>,
    /// Whether a whole reading has been taken: what is new from then on has been counted since.
    settled: bool,
    reading: Reading,
    rates: Vec<f32>,
    durations: Distribution,
    cpu: f32,
    pub(super) workers: Vec<Worker>,
    pub(super) pools: Vec<Pool>,
    pub(super) complaints: Vec<Complaint>,
    /// Slow requests with when they ended, the slowest first.
    pub(super) slow: Vec<(Slow, Instant)>,
    /// Orders that wait for its next snapshot.
    pub(super) orders: Vec<Order>,
}

/// What the PHP processes of an instance use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Php {
    /// Cores.
    pub(super) cpu: f32,
    /// Bytes.
    pub(super) resident: f32,
}

/// A reading whose last part has not come yet.
#[derive(Debug, Default)]
struct Reading {
    increments: Vec<f32>,
    durations: Distribution,
    workers: Vec<Worker>,
    pools: Vec<Pool>,
    complaints: Vec<Complaint>,
    slow: Option<Vec<Slow>>,
}

impl Instance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            source: Source::default(),
            heard: now,
            missed: true,
            process: Process::default(),
            epoch: 0,
            numbers: Vec::new(),
            counters: HashMap::new(),
            gauges: HashMap::new(),
            anew: false,
            histograms: HashMap::new(),
            bounds: HashMap::new(),
            settled: false,
            reading: Reading::default(),
            rates: vec![0.0; COLUMNS.len()],
            durations: Distribution::default(),
            cpu: 0.0,
            workers: Vec::new(),
            pools: Vec::new(),
            complaints: Vec::new(),
            slow: Vec::new(),
            orders: Vec::new(),
        }
    }

    /// Takes a part of a reading; false when the instance has to tell everything anew.
    pub(super) fn take(&mut self, mut snapshot: Snapshot, merged: &mut Merged, now: Instant) -> bool {
        self.heard = now;
        self.missed = true;
        if snapshot.fresh {
            self.epoch = snapshot.epoch;
            self.numbers.clear();
            self.anew = true;
            self.bounds.clear();
            self.reading = Reading::default();
        } else if snapshot.epoch != self.epoch {
            return false;
        }
        self.reading.increments.resize(COLUMNS.len(), 0.0);
        let young = Duration::from_millis(snapshot.source.uptime_ms) <= YOUNG;
        let recent = self.settled || young;
        for named in snapshot.named {
            let Ok(id) = usize::try_from(named.id) else { continue };
            if id >= MAX_SERIES {
                continue;
            }
            if self.numbers.len() <= id {
                self.numbers.resize(id + 1, None);
            }
            let number = merged.number(&named);
            let before = self.numbers.get_mut(id).and_then(|place| std::mem::replace(place, number));
            // Its place has gone to another series; the one before may have got another place already.
            if let Some(before) = before.filter(|before| !self.numbers.contains(&Some(*before))) {
                self.gauges.remove(&before);
            }
            if number.is_some() && !named.bounds.is_empty() {
                self.bounds.insert(named.id, named.bounds);
            }
        }
        for (id, count) in snapshot.counters {
            if let Some(number) = self.number(id) {
                self.count(number, count, recent, merged);
            }
        }
        for (id, value) in snapshot.gauges {
            match self.number(id) {
                // What it was about is gone.
                Some(number) if value.is_nan() => drop(self.gauges.remove(&number)),
                Some(number) => drop(self.gauges.insert(number, value)),
                None => {}
            }
        }
        for value in snapshot.histograms {
            if let Some(number) = self.number(value.id) {
                self.spread(number, value, recent, merged);
            }
        }
        let Reading { workers, pools, complaints, .. } = &mut self.reading;
        workers.extend(snapshot.workers);
        workers.truncate(MAX_WORKERS);
        pools.extend(snapshot.pools);
        pools.truncate(MAX_POOLS);
        complaints.extend(snapshot.complaints);
        complaints.truncate(MAX_POOLS);
        if snapshot.slow_anew {
            self.reading.slow = Some(Vec::new());
        }
        if let Some(slow) = &mut self.reading.slow {
            slow.append(&mut snapshot.slow);
            slow.truncate(MAX_SLOW);
        }
        if snapshot.last {
            self.complete(snapshot.source, snapshot.process, now);
        } else if !self.settled {
            self.source = snapshot.source;
        }
        true
    }

    fn number(&self, id: u32) -> Option<usize> {
        self.numbers.get(usize::try_from(id).ok()?).copied().flatten()
    }

    fn count(&mut self, number: usize, count: u64, recent: bool, merged: &mut Merged) {
        let before = self.counters.insert(number, count);
        let more = count.checked_sub(before.unwrap_or(0)).unwrap_or(count);
        let Some(series) = merged.get_mut(number) else { return };
        if let Total::Counter(total) = &mut series.total {
            *total = total.saturating_add(more);
        }
        if recent {
            for feed in &series.feeds {
                if let (Feed::Rate(column), more) = (feed, counted(series.key().name(), more) as f32)
                    && let Some(increment) = self.reading.increments.get_mut(*column)
                {
                    *increment += more;
                }
            }
        }
    }

    fn spread(&mut self, number: usize, value: HistogramValue, recent: bool, merged: &mut Merged) {
        let Some(bounds) = self.bounds.get(&value.id) else { return };
        let HistogramValue { counts, sum, .. } = value;
        let (before, sum_before) = match self.histograms.get(&number) {
            Some((before, sum, known)) if known == bounds => (before.as_slice(), *sum),
            _ => (&[][..], 0.0),
        };
        let reset = counts.iter().zip(before).any(|(now, before)| now < before);
        let more: Vec<f64> = counts
            .iter()
            .enumerate()
            .map(|(place, now)| match before.get(place) {
                Some(before) if !reset => (now - before) as f64,
                _ => *now as f64,
            })
            .collect();
        let more = Distribution::new(bounds, &more, if reset { sum } else { sum - sum_before });
        self.histograms.insert(number, (counts, sum, bounds.clone()));
        let Some(series) = merged.get_mut(number) else { return };
        if let Total::Histogram(total) = &mut series.total {
            total.merge(&more);
        }
        if recent && series.key().name() == DURATIONS {
            self.reading.durations.merge(&more);
        }
    }

    /// The reading is complete: works out how fast things move, by the instance's own clock.
    fn complete(&mut self, source: Source, process: Process, now: Instant) {
        let reading = std::mem::take(&mut self.reading);
        if std::mem::take(&mut self.anew) {
            let named: HashSet<usize> = self.numbers.iter().copied().flatten().collect();
            self.gauges.retain(|number, _| named.contains(number));
        }
        let passed_ms = match self.settled {
            true => source.uptime_ms.saturating_sub(self.source.uptime_ms),
            false => source.uptime_ms.min(YOUNG.as_millis() as u64),
        };
        let seconds = (passed_ms as f32 / 1_000.0).max(0.05);
        self.rates = reading.increments.iter().map(|increment| increment / seconds).collect();
        self.rates.resize(COLUMNS.len(), 0.0);
        self.durations = reading.durations;
        if self.settled {
            self.cpu = (process.cpu_seconds - self.process.cpu_seconds).max(0.0) as f32 / seconds;
        }
        (self.source, self.process, self.settled) = (source, process, true);
        (self.workers, self.pools, self.complaints) = (reading.workers, reading.pools, reading.complaints);
        if let Some(slow) = reading.slow {
            let ended = |slow: &Slow| now.checked_sub(Duration::from_millis(slow.ago_ms)).unwrap_or(now);
            self.slow = slow.into_iter().map(|slow| (ended(&slow), slow)).map(|(at, slow)| (slow, at)).collect();
        }
    }

    /// Adds what it does now to the columns of a second.
    pub(super) fn add_to(&self, values: &mut [f32], merged: &Merged) {
        for (value, rate) in values.iter_mut().zip(&self.rates) {
            *value += rate;
        }
        for (number, gauge) in &self.gauges {
            for feed in merged.get(*number).map(|series| series.feeds.as_slice()).unwrap_or_default() {
                if let Feed::Sum(column) = feed
                    && let Some(value) = values.get_mut(*column)
                {
                    *value += *gauge as f32;
                }
            }
        }
        let php = self.php(merged);
        for (value, column) in values.iter_mut().zip(&COLUMNS) {
            *value += match column.figure() {
                Some(Figure::Cpu) => self.cpu + php.cpu,
                Some(Figure::Resident) => self.process.resident_bytes as f32 + php.resident,
                Some(Figure::Descriptors) => self.process.descriptors as f32,
                Some(Figure::Instances) => 1.0,
                None => 0.0,
            };
        }
    }

    /// Forgets all but what it has counted: should it come back, only what is new is added.
    pub(super) fn forget(&mut self) {
        (self.workers, self.pools, self.complaints) = (Vec::new(), Vec::new(), Vec::new());
        (self.slow, self.orders) = (Vec::new(), Vec::new());
        self.gauges.clear();
    }

    /// It is shown no more unless it comes back. All is kept for that: it would tell only what has changed.
    pub(super) fn miss_no_more(&mut self) {
        self.missed = false;
    }

    pub(super) fn is_missed(&self) -> bool {
        self.missed
    }

    /// Marks the series that it has a name for, by number in the merged view.
    pub(super) fn mark(&self, used: &mut [bool]) {
        for number in self.numbers.iter().copied().flatten().chain(self.gauges.keys().copied()) {
            if let Some(used) = used.get_mut(number) {
                *used = true;
            }
        }
    }

    /// How requests' durations lay in its last reading.
    pub(super) fn durations(&self) -> &Distribution {
        &self.durations
    }

    /// Its gauges, by number in the merged view.
    pub(super) fn gauges(&self) -> impl Iterator<Item = (usize, f64)> {
        self.gauges.iter().map(|(number, value)| (*number, *value))
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// What its PHP processes use.
    pub(super) fn php(&self, merged: &Merged) -> Php {
        let cpu = columns::place("php.cpu").and_then(|place| self.rates.get(place)).copied().unwrap_or(0.0);
        let resident = columns::place("php.resident").map(Feed::Sum);
        let feeds = |number| merged.get(number).map(|series| series.feeds.as_slice()).unwrap_or_default();
        let gauges =
            self.gauges.iter().filter(|(number, _)| feeds(**number).iter().any(|feed| Some(*feed) == resident));
        Php { cpu, resident: gauges.map(|(_, bytes)| *bytes as f32).sum() }
    }

    /// Cores in use, PHP's not counted.
    pub(super) fn cpu(&self, now: Instant) -> f32 {
        if self.silence(now) < SILENT_AFTER { self.cpu } else { 0.0 }
    }

    /// Its services in one word.
    pub(super) fn services(&self) -> String {
        self.source.services.join(",")
    }

    /// When its process was started; `None` where that is before the clock begins.
    pub(super) fn started(&self) -> Option<Instant> {
        self.heard.checked_sub(Duration::from_millis(self.source.uptime_ms))
    }

    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    pub(super) fn lost(&self, now: Instant) -> bool {
        self.silence(now) >= LOST_AFTER
    }

    /// What its process uses, by family.
    pub(super) fn figures(&self) -> [(&'static str, f64); 5] {
        let Process { cpu_seconds, resident_bytes, descriptors, max_descriptors, threads } = self.process;
        [
            ("troupe_node_cpu_seconds_total", cpu_seconds),
            ("troupe_node_max_descriptors", max_descriptors as f64),
            ("troupe_node_open_descriptors", descriptors as f64),
            ("troupe_node_resident_bytes", resident_bytes as f64),
            ("troupe_node_threads", threads as f64),
        ]
    }
}
