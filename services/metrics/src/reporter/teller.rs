//! What to tell: the series that changed since they were last told, cut into parts that fit a head.

use std::sync::Arc;

use troupe_contracts::snapshot::{
    Complaint, HistogramValue, MAX_SNAPSHOT, Named, Outcome, Process, SeriesKind, Slow, Snapshot, Source,
};
use troupe_node::metrics::{Kind, Metrics, ProcessFigures, Reading, Registry, Series};

use super::Tables;

/// Longest name or label value that is told; they come from the configuration, and are short.
const MAX_TEXT: usize = 200;
/// Longest sentence for people that is told: the longest of our own with what it names, and a cause from PHP or the kernel.
const MAX_SENTENCE: usize = 600;
/// Complaints that are told: more is a flood.
const MAX_COMPLAINTS: usize = 16;
/// Pools that are told; the balancer knows no more.
const MAX_POOLS: usize = 256;
/// Slow requests that are told, the slowest: what a dashboard shows of all gateways together.
pub const MAX_SLOW: usize = 20;

/// What is told beside the series.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Who tells.
    pub source: Source,
    /// What the process uses.
    pub process: Process,
    /// The balancer's tables.
    pub tables: Tables,
    /// The slowest requests, the slowest first, where there is a gateway.
    pub slow: Option<Vec<Slow>>,
    /// What is wrong.
    pub complaints: Vec<Complaint>,
    /// What came of orders.
    pub outcomes: Vec<Outcome>,
    /// The instance stops.
    pub leaving: bool,
}

/// Remembers what a metrics service has been told.
#[derive(Debug, Default)]
pub struct Teller {
    series: Vec<Arc<Series>>,
    /// How often places of series had gone to others when they were read.
    handed_on: u64,
    /// By number, what was told last; as long as what has been named.
    told: Vec<Told>,
    /// The slow requests that were told last.
    slow: Vec<Slow>,
    tick: u64,
    epoch: u32,
}

/// Enough of a value to see whether it has changed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    /// Not even its name.
    Nothing,
    Named,
    Bits(u64),
}

impl Teller {
    /// The receiver knows nothing, or it is not known what it knows: everything is told anew, under a new epoch.
    pub fn begin_anew(&mut self) {
        self.told.clear();
        self.slow.clear();
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Sees which series there are. One whose place has gone to another is named anew.
    fn look(&mut self, registry: &Registry) {
        // Asked before they are read: what changes meanwhile is seen next time.
        let handed_on = registry.handed_on();
        if handed_on == self.handed_on {
            self.series.extend(registry.series_from(self.series.len()));
            return;
        }
        self.handed_on = handed_on;
        let before = std::mem::replace(&mut self.series, registry.series_from(0));
        for ((before, now), told) in before.iter().zip(&self.series).zip(&mut self.told) {
            if !Arc::ptr_eq(before, now) {
                *told = Told::Nothing;
            }
        }
    }

    /// Reads what there is to tell now, in parts that are to be sent in order.
    pub fn read(&mut self, metrics: &Metrics, about: &About) -> Vec<Snapshot> {
        self.tick += 1;
        self.look(metrics.registry());
        let mut parts = Parts::new(self.tick, self.epoch, self.told.is_empty(), about);
        for (number, series) in self.series.iter().enumerate() {
            let Ok(id) = u32::try_from(number) else { break };
            if self.told.len() <= number {
                self.told.push(Told::Nothing);
            }
            if let Some(told @ Told::Nothing) = self.told.get_mut(number) {
                let named = named(id, series);
                parts.add(named.weight(), |part| part.named.push(named));
                *told = Told::Named;
            }
            let reading = series.read();
            let now = Told::Bits(bits(&reading));
            match self.told.get_mut(number) {
                Some(told) if *told != now => *told = now,
                _ => continue,
            }
            match reading {
                Reading::Counter(count) => parts.add(16, |part| part.counters.push((id, count))),
                Reading::Gauge(value) => parts.add(16, |part| part.gauges.push((id, value))),
                Reading::Histogram { counts, sum, .. } => {
                    let value = HistogramValue { id, sum, counts };
                    parts.add(value.weight(), |part| part.histograms.push(value));
                }
            }
        }
        for worker in &about.tables.workers {
            parts.add(worker.weight(), |part| part.workers.push(worker.clone()));
        }
        let slow = about.slow.as_deref().unwrap_or_default();
        let slow = slow.get(..MAX_SLOW).unwrap_or(slow);
        // They change rarely, and are long: told again when one is new.
        if slow.len() != self.slow.len() || slow.iter().zip(&self.slow).any(|(now, told)| !now.is(told)) {
            self.slow = slow.to_vec();
            parts.part.slow_anew = true;
            for request in slow {
                parts.add(request.weight(), |part| part.slow.push(request.clone()));
            }
        }
        parts.finish(about)
    }
}

/// What the kernel says of this process; zeros where it says nothing.
pub(super) fn process() -> Process {
    let figures = ProcessFigures::read().unwrap_or_default();
    Process {
        cpu_seconds: figures.cpu_seconds,
        resident_bytes: figures.resident_bytes,
        descriptors: figures.descriptors,
        max_descriptors: figures.max_descriptors,
        threads: figures.threads,
    }
}

/// A histogram changes with its count: no two different ones of a series have the same.
fn bits(reading: &Reading) -> u64 {
    match reading {
        Reading::Counter(count) => *count,
        Reading::Gauge(value) => value.to_bits(),
        Reading::Histogram { counts, .. } => counts.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count)),
    }
}

fn named(id: u32, series: &Series) -> Named {
    let key = series.key();
    let labels = key.labels().map(|label| (cut(label.key()), cut(label.value()))).collect();
    let kind = match series.kind() {
        Kind::Counter => SeriesKind::Counter,
        Kind::Gauge => SeriesKind::Gauge,
        Kind::Histogram => SeriesKind::Histogram,
    };
    let bounds = match series.read() {
        Reading::Histogram { bounds, .. } => bounds,
        Reading::Counter(_) | Reading::Gauge(_) => Vec::new(),
    };
    Named { id, kind, name: cut(key.name()), labels, bounds }
}

/// A text, or its beginning and what tells it from others that begin alike: two series of one name would each take the
/// other's count for its own.
fn cut(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = format!("…{:016x}", fingerprint(text));
    start(text, MAX_TEXT.saturating_sub(end.len())).to_owned() + &end
}

/// FNV-1a: the same in every process, whatever it was built with, so that what instances tell is summed under one name.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A sentence, or what there is room for and a sign that it went on: half a number is another number.
fn shortened(text: &str) -> String {
    if text.len() <= MAX_SENTENCE { text.to_owned() } else { format!("{}…", start(text, MAX_SENTENCE)) }
}

/// The first `most` bytes, or a little less: characters stay whole.
fn start(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// The parts of a reading under way.
struct Parts {
    done: Vec<Snapshot>,
    part: Snapshot,
    weight: usize,
}

impl Parts {
    fn new(tick: u64, epoch: u32, fresh: bool, about: &About) -> Self {
        let source = about.source.clone();
        let part = Snapshot { source, tick, epoch, fresh, process: about.process, ..Snapshot::default() };
        Self { done: Vec::new(), part, weight: 0 }
    }

    fn add(&mut self, weight: usize, put: impl FnOnce(&mut Snapshot)) {
        if self.weight + weight > MAX_SNAPSHOT && !self.part.is_empty() {
            let Snapshot { source, tick, epoch, process, .. } = &self.part;
            let (source, tick, epoch, process) = (source.clone(), *tick, *epoch, *process);
            let next = Snapshot { source, tick, epoch, process, ..Snapshot::default() };
            self.done.push(std::mem::replace(&mut self.part, next));
            self.weight = 0;
        }
        self.weight += weight;
        put(&mut self.part);
    }

    fn finish(mut self, about: &About) -> Vec<Snapshot> {
        for pool in about.tables.pools.iter().take(MAX_POOLS) {
            self.add(pool.pool.len() + 24, |part| part.pools.push(pool.clone()));
        }
        for complaint in about.complaints.iter().take(MAX_COMPLAINTS) {
            let complaint = Complaint { text: shortened(&complaint.text), ..complaint.clone() };
            self.add(complaint.text.len() + 5, |part| part.complaints.push(complaint));
        }
        for outcome in &about.outcomes {
            let outcome = Outcome { said: shortened(&outcome.said), ..outcome.clone() };
            self.add(outcome.said.len() + 16, |part| part.outcomes.push(outcome));
        }
        self.part.last = true;
        self.part.leaving = about.leaving;
        self.done.push(self.part);
        self.done
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use metrics::{counter, gauge, histogram};
    use troupe_contracts::snapshot::Worker;
    use troupe_mesh::contract::Contract;
    use troupe_node::metrics::OVER;

    use super::super::*;
    use super::*;

    fn with<T>(metrics: &Metrics, run: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(metrics.registry(), run)
    }

    #[test]
    fn a_series_is_named_once_and_told_when_it_changes() {
        let metrics = Metrics::detached();
        let mut teller = Teller::default();
        let (requests, depth) = with(&metrics, || {
            let requests = counter!("troupe_requests_total", "route" => "/");
            requests.increment(3);
            histogram!("troupe_request_seconds").record(0.2);
            (requests, gauge!("troupe_depth"))
        });
        let first = teller.read(&metrics, &About::default()).remove(0);
        assert!(first.fresh && first.last);
        assert_eq!((first.named.len(), &first.counters[..], &first.gauges[..]), (3, &[(0, 3)][..], &[(2, 0.0)][..]));
        assert_eq!(first.histograms[0].counts.iter().sum::<u64>(), 1);

        let rest = teller.read(&metrics, &About::default()).remove(0);
        assert!(rest.is_empty() && rest.last && !rest.fresh, "{rest:?}");

        requests.increment(1);
        depth.set(2.0);
        with(&metrics, || counter!("troupe_new_total")).increment(5);
        let third = teller.read(&metrics, &About::default()).remove(0);
        assert_eq!(
            third.named.iter().map(|named| (named.id, &*named.name)).collect::<Vec<_>>(),
            [(3, "troupe_new_total")]
        );
        assert_eq!((&third.counters[..], &third.gauges[..]), (&[(0, 4), (3, 5)][..], &[(2, 2.0)][..]));

        teller.begin_anew();
        let anew = teller.read(&metrics, &About::default()).remove(0);
        assert!(anew.fresh && anew.epoch != third.epoch);
        assert_eq!((anew.named.len(), anew.counters.len()), (4, 2));
    }

    #[test]
    fn a_place_that_has_gone_to_another_series_is_named_anew() {
        let metrics = Metrics::detached();
        let mut teller = Teller::default();
        let depth = |worker: &'static str| with(&metrics, || gauge!("troupe_depth", "worker" => worker));
        let first = depth("a");
        first.set(1.0);
        depth("b").set(2.0);
        teller.read(&metrics, &About::default());
        first.set(OVER);
        drop(first);
        depth("c").set(1.0);
        let told = teller.read(&metrics, &About::default()).remove(0);
        assert_eq!((told.named.len(), told.named[0].id, &*told.named[0].labels[0].1), (1, 0, "c"));
        // Told although the number that stood there last is the same.
        assert_eq!(told.gauges, [(0, 1.0)]);
        assert!(teller.read(&metrics, &About::default()).remove(0).is_empty());
    }

    #[test]
    fn a_large_reading_goes_out_in_parts_that_fit_a_head() {
        let metrics = Metrics::detached();
        with(&metrics, || {
            for number in 0..3_000 {
                histogram!("troupe_a_seconds", "route" => format!("/{number}/{}", "x".repeat(500))).record(0.1);
            }
        });
        let worker = Worker { worker: "w".repeat(40), ..Worker::default() };
        let tables = Tables { pools: vec![Pool::default(); 3], workers: vec![worker; 2_000] };
        let about = About {
            tables,
            complaints: vec![Complaint { urgent: true, text: "x".repeat(900) }; 40],
            ..About::default()
        };
        let parts = Teller::default().read(&metrics, &about);
        assert!(parts.len() > 10);
        for (number, part) in parts.iter().enumerate() {
            let mut head = BytesMut::new();
            part.encode_head(&mut head);
            assert!(head.len() < 60 * 1024, "{}", head.len());
            assert_eq!((part.fresh, part.last), (number == 0, number + 1 == parts.len()));
        }
        let told = parts.iter().flat_map(|part| &part.complaints);
        assert!(told.into_iter().all(|said| said.text.len() < 900 && said.text.ends_with("x…")), "it is seen to go on");
        assert_eq!(parts.iter().map(|part| part.histograms.len()).sum::<usize>(), 3_000);
        assert_eq!(parts.iter().map(|part| part.workers.len()).sum::<usize>(), 2_000);
        assert_eq!(parts.iter().map(|part| part.complaints.len()).sum::<usize>(), MAX_COMPLAINTS);
    }
}
