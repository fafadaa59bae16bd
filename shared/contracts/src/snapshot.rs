//! What an instance tells the metrics service each second: what it counted, what it uses, and which workers it sees.
//!
//! A reading goes out in one or several snapshots that share a tick, each small enough for one head. A series is named
//! once and then told by its number, and only when it has changed; so a series that rests costs nothing. A number that is named
//! again in the same epoch has gone to another series; a gauge that is not a number is over. A receiver that
//! does not know the sender (because it was started after it, or has forgotten it) asks for everything anew.

use serde::{Deserialize, Serialize};

use crate::bodiless::bodiless;
use crate::report::Load;

mod order;
mod slow;

pub use order::{Act, Order, Outcome};
pub use slow::Slow;

/// Room that a sender leaves for one snapshot's parts, below the 64 KiB of a head.
pub const MAX_SNAPSHOT: usize = 48 * 1024;

/// A part of one reading of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Who tells.
    pub source: Source,
    /// Number of the reading, from 1 on; parts of one reading share it.
    pub tick: u64,
    /// Numbering of the series: names told under another epoch are void.
    pub epoch: u32,
    /// Whether the epoch begins with this part: every series is named anew.
    pub fresh: bool,
    /// Whether this is the reading's last part.
    pub last: bool,
    /// The instance stops, and this is the last that is heard of it.
    pub leaving: bool,
    /// What the process uses.
    pub process: Process,
    /// Series that have not been told yet in this epoch, and numbers that have gone to others.
    pub named: Vec<Named>,
    /// Counters that have changed.
    pub counters: Vec<(u32, u64)>,
    /// Gauges that have changed; NaN of those that are over.
    pub gauges: Vec<(u32, f64)>,
    /// Histograms that have changed.
    pub histograms: Vec<HistogramValue>,
    /// All workers of this instance's balancer, best score first, over all parts of the reading.
    pub workers: Vec<Worker>,
    /// All pools of this instance's balancer; in the last part.
    pub pools: Vec<Pool>,
    /// What keeps the instance from being ready, or is otherwise wrong with it; in the last part.
    pub complaints: Vec<Complaint>,
    /// Whether a list of slow requests begins with this part: it replaces what was told of them.
    pub slow_anew: bool,
    /// The slowest requests of this instance's gateway, the slowest first, over this part and those behind it.
    pub slow: Vec<Slow>,
    /// What came of orders; in the last part.
    pub outcomes: Vec<Outcome>,
}

/// An instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// This start of its process.
    pub uid: [u8; 16],
    /// Its own name for itself.
    pub instance: String,
    /// The services it runs.
    pub services: Vec<String>,
    /// Its version.
    pub version: String,
    /// For how long it has run, in milliseconds: relative, since clocks differ.
    pub uptime_ms: u64,
}

/// What a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Processor time since the start, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// The limit on them.
    pub max_descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// Something that is wrong with an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// Whether clients notice it; else they may, one day.
    pub urgent: bool,
    /// What it is, and what to do, in words.
    pub text: String,
}

/// What kind of series it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeriesKind {
    /// Only rises while its process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values by bucket.
    Histogram,
}

/// The name of a series, under the number by which it is told from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Its number.
    pub id: u32,
    /// Its kind.
    pub kind: SeriesKind,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Upper bounds of a histogram's buckets, rising.
    pub bounds: Vec<f64>,
}

/// What a histogram holds since the start of its process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramValue {
    /// The series' number.
    pub id: u32,
    /// The sum of all values.
    pub sum: f64,
    /// Values in each bucket by itself; one more than bounds, for what exceeds them all.
    pub counts: Vec<u64>,
}

/// A pool as a balancer sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub pool: String,
    /// Calls that wait for a worker.
    pub waiting: u32,
    /// Calls that may wait.
    pub queue_max: u32,
    /// Every worker is out, and the least bad one is used.
    pub all_out: bool,
}

/// A worker as a balancer sees it, with all that makes up its score.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub worker: String,
    /// The instance behind it, as this balancer tells workers of one name apart.
    pub instance: String,
    /// Whether it takes calls: `ready`, `ejected`, `draining`.
    pub state: String,
    /// Why it is in that state.
    pub reason: String,
    /// 1 / cost, cost in seconds; higher is better.
    pub score: f32,
    /// The peak-EWMA of outcome-adjusted latency in microseconds; 0 while unknown.
    pub latency_us: f32,
    /// This balancer's calls in flight there.
    pub in_flight: u32,
    /// Calls of other balancers, as far as known.
    pub foreign: u32,
    /// Calls it may have in flight now.
    pub cap: u32,
    /// Weight times slow start.
    pub gain: f32,
    /// The rate of application errors.
    pub error_rate: f32,
    /// Failures since the last success.
    pub failures: u32,
    /// What it last said of itself.
    pub load: Load,
}

/// The metrics service's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The sender is to begin a new epoch and to tell everything anew.
    pub anew: bool,
    /// What operators have the sender do.
    pub orders: Vec<Order>,
}

bodiless!(Snapshot => Taken, id: 17, version: 2, name: "snapshot");

impl Snapshot {
    /// Whether it holds nothing beside its head.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
            && self.counters.is_empty()
            && self.gauges.is_empty()
            && self.histograms.is_empty()
            && self.workers.is_empty()
            && self.slow.is_empty()
    }
}

impl Named {
    /// The most bytes that it takes on the wire.
    pub fn weight(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
        self.name.len() + labels + self.bounds.len() * 8 + 16
    }
}

impl HistogramValue {
    /// The most bytes that it takes on the wire.
    pub fn weight(&self) -> usize {
        self.counts.len() * 10 + 16
    }
}

impl Worker {
    /// The most bytes that it takes on the wire.
    pub fn weight(&self) -> usize {
        self.pool.len() + self.worker.len() + self.instance.len() + self.state.len() + self.reason.len() + 111
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use troupe_mesh::body::Body;
    use troupe_mesh::contract::Contract as _;

    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            source: Source { uid: [7; 16], instance: "gateway@1".into(), uptime_ms: 90_000, ..Source::default() },
            tick: 3,
            last: true,
            named: vec![Named {
                id: 1,
                kind: SeriesKind::Histogram,
                name: "troupe_x_seconds".into(),
                labels: vec![("pool".into(), "default".into())],
                bounds: vec![0.1, 1.0],
            }],
            counters: vec![(0, u64::MAX)],
            gauges: vec![(2, -1.5)],
            histograms: vec![HistogramValue { id: 1, sum: 0.25, counts: vec![u64::MAX, 0, 9] }],
            workers: vec![Worker { worker: "a".into(), score: 12.5, ..Worker::default() }],
            slow: vec![Slow { path: "/a".into(), stages: vec![("php".into(), 7)], ..Slow::default() }],
            outcomes: vec![Outcome { id: 9, done: true, said: "drained".into() }],
            ..Snapshot::default()
        }
    }

    fn encoded(snapshot: &Snapshot) -> BytesMut {
        let mut out = BytesMut::new();
        snapshot.encode_head(&mut out);
        out
    }

    #[test]
    fn a_snapshot_survives_the_wire() {
        let read = Snapshot::decode(encoded(&snapshot()).freeze(), Body::Empty).unwrap();
        assert_eq!(read, snapshot());
        let mut out = BytesMut::new();
        let order = Order { id: 9, act: Act::Drain, worker: "default/a".into() };
        let taken = Taken { anew: true, orders: vec![order] };
        Snapshot::encode_reply_head(&taken, &mut out);
        assert_eq!(Snapshot::decode_reply(out.freeze(), Body::Empty).unwrap(), taken);
    }

    #[test]
    fn parts_weigh_no_less_than_they_take() {
        let empty = encoded(&Snapshot::default()).len();
        let max = u32::MAX;
        let load = Load {
            slots: max,
            prefetch: max,
            in_flight: max,
            waiting: max,
            processes: max,
            busy: max,
            memory_permille: u16::MAX,
            restarts: max,
            draining: true,
        };
        let worker =
            Worker { in_flight: max, foreign: max, cap: max, failures: max, load, ..snapshot().workers.remove(0) };
        let weight = worker.weight();
        let taken = encoded(&Snapshot { workers: vec![worker], ..Snapshot::default() }).len() - empty;
        assert!(taken <= weight, "{taken} > {weight}");
        let named = Named { id: max, ..snapshot().named.remove(0) };
        let weight = named.weight();
        let taken = encoded(&Snapshot { named: vec![named], ..Snapshot::default() }).len() - empty;
        assert!(taken <= weight, "{taken} > {weight}");
        let histogram = HistogramValue { id: max, ..snapshot().histograms.remove(0) };
        let weight = histogram.weight();
        let taken = encoded(&Snapshot { histograms: vec![histogram], ..Snapshot::default() }).len() - empty;
        assert!(taken <= weight, "{taken} > {weight}");
        let slow = Slow {
            ago_ms: u64::MAX,
            took_us: u64::MAX,
            status: u16::MAX,
            stages: vec![("php".into(), max)],
            ..Slow::default()
        };
        let weight = slow.weight();
        let taken = encoded(&Snapshot { slow: vec![slow], ..Snapshot::default() }).len() - empty;
        assert!(taken <= weight, "{taken} > {weight}");
    }

    proptest! {
        #[test]
        fn a_damaged_head_is_refused_or_read_but_never_panics(at in 0usize..160, to in any::<u8>(), keep in 0usize..200) {
            let mut out = encoded(&snapshot());
            out.truncate(keep);
            if let Some(byte) = out.get_mut(at) { *byte = to; }
            let _ = Snapshot::decode(out.freeze(), Body::Empty);
        }
    }
}
