//! The recorder: every series of the process, by number in the order in which they were registered.
//!
//! A handle is a reference to the series' own atomics; the lock is for registering and for listing, never for counting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

use super::buckets::Buckets;
use super::describe::{Description, Kind};

/// Series that one process may have. Label sets are closed, so that this is never met; should one not be, the process
/// keeps its memory and says so (`troupe_node_series_refused_total`).
pub const MAX_SERIES: usize = 10_000;

/// What a gauge is set to whose subject is gone for good: it is shown no more, and once nobody holds its handle its place goes to the
/// next new gauge. So series by name can come and go for as long as a process lives.
pub const OVER: f64 = f64::NAN;

/// The name of what counts series beyond [`MAX_SERIES`].
pub(super) const REFUSED: &str = "troupe_node_series_refused_total";

/// Every series of the process.
#[derive(Debug, Default)]
pub struct Registry {
    known: Mutex<Known>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<(Kind, Key), usize>,
    series: Vec<Arc<Series>>,
    descriptions: BTreeMap<String, Description>,
    /// How often a place has gone to another series.
    handed_on: u64,
}

/// One series. Its number is its place in the registry, which it keeps unless it is a gauge that is [`OVER`].
#[derive(Debug)]
pub struct Series {
    key: Key,
    cell: Cell,
}

#[derive(Debug)]
enum Cell {
    Counter(Arc<AtomicU64>),
    /// As f64.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

/// What a series says at one moment.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// What was counted since the start; [`counted`] tells what it means.
    Counter(u64),
    /// What is.
    Gauge(f64),
    /// Values by bucket; `counts` has one more than `bounds`, for what exceeds them all.
    Histogram {
        /// The upper bounds, rising.
        bounds: Vec<f64>,
        /// How many values each bucket holds by itself.
        counts: Vec<u64>,
        /// The sum of all values.
        sum: f64,
    },
}

/// What a counter of this name says. Counters are whole numbers; those of time (`*_seconds_total`) count microseconds, so that
/// parts of a second are told.
pub fn counted(name: &str, count: u64) -> f64 {
    if name.ends_with("_seconds_total") { count as f64 / 1e6 } else { count as f64 }
}

impl Series {
    /// Its name and labels.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What kind of series it is.
    pub fn kind(&self) -> Kind {
        match self.cell {
            Cell::Counter(_) => Kind::Counter,
            Cell::Gauge(_) => Kind::Gauge,
            Cell::Histogram(_) => Kind::Histogram,
        }
    }

    /// What it says now. The parts of a histogram are read one after the other, while others count on.
    pub fn read(&self) -> Reading {
        match &self.cell {
            Cell::Counter(count) => Reading::Counter(count.load(Ordering::Relaxed)),
            Cell::Gauge(value) => Reading::Gauge(f64::from_bits(value.load(Ordering::Relaxed))),
            Cell::Histogram(buckets) => {
                Reading::Histogram { bounds: buckets.bounds().to_vec(), counts: buckets.counts(), sum: buckets.sum() }
            }
        }
    }
}

impl Registry {
    /// The series from number `first` on; a reader asks for those that it does not know yet.
    pub fn series_from(&self, first: usize) -> Vec<Arc<Series>> {
        self.known.lock().series.get(first..).unwrap_or_default().to_vec()
    }

    /// How often a place has gone to another series. Who remembers series by their numbers looks at them all again when this has
    /// changed since before they were read.
    pub fn handed_on(&self) -> u64 {
        self.known.lock().handed_on
    }

    /// What is known of each name.
    pub fn descriptions(&self) -> BTreeMap<String, Description> {
        self.known.lock().descriptions.clone()
    }

    fn describe(&self, kind: Kind, name: &KeyName, unit: Option<Unit>, meaning: SharedString) {
        let description = Description { kind, unit, meaning: meaning.into_owned() };
        self.known.lock().descriptions.entry(name.as_str().to_owned()).or_insert(description);
    }

    /// A handle of the series of this key, which is made when it is new; `None` when there are too many. The handle is made under
    /// the lock: what somebody holds is not handed on.
    fn handle<H>(&self, kind: Kind, key: &Key, handle: impl FnOnce(&Cell) -> Option<H>) -> Option<H> {
        let mut known = self.known.lock();
        let known = &mut *known;
        let named = (kind, key.clone());
        if let Some(series) = known.numbers.get(&named).and_then(|number| known.series.get(*number)) {
            return handle(&series.cell);
        }
        if kind == Kind::Gauge
            && let Some(number) = known.series.iter().position(|series| series.is_over())
        {
            return handle(&known.hand_on(number, named)?.cell);
        }
        if known.series.len() >= MAX_SERIES {
            self.refuse(known);
            return None;
        }
        handle(&known.add(named).cell)
    }

    fn refuse(&self, known: &mut Known) {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        // The last place is kept for this one.
        let named = (Kind::Counter, Key::from_static_name(REFUSED));
        let series = match known.numbers.get(&named).and_then(|number| known.series.get(*number)) {
            Some(series) => Arc::clone(series),
            None => known.add(named),
        };
        if let Cell::Counter(count) = &series.cell {
            count.store(refused, Ordering::Relaxed);
        }
    }
}

impl Known {
    /// Makes a series in the place of one that is over.
    fn hand_on(&mut self, number: usize, (kind, key): (Kind, Key)) -> Option<Arc<Series>> {
        let series = Arc::new(Series::new(kind, key.clone()));
        let before = std::mem::replace(self.series.get_mut(number)?, Arc::clone(&series));
        self.numbers.remove(&(kind, before.key.clone()));
        self.numbers.insert((kind, key), number);
        self.handed_on += 1;
        Some(series)
    }

    fn add(&mut self, (kind, key): (Kind, Key)) -> Arc<Series> {
        let series = Arc::new(Series::new(kind, key.clone()));
        self.numbers.insert((kind, key), self.series.len());
        self.series.push(Arc::clone(&series));
        series
    }
}

impl Series {
    fn new(kind: Kind, key: Key) -> Self {
        let cell = match kind {
            Kind::Counter => Cell::Counter(Arc::new(AtomicU64::new(0))),
            Kind::Gauge => Cell::Gauge(Arc::new(AtomicU64::new(0f64.to_bits()))),
            Kind::Histogram => Cell::Histogram(Arc::new(Buckets::named(key.name()))),
        };
        Self { key, cell }
    }

    /// Whether it is a gauge that is [`OVER`], and nobody holds a handle of it.
    fn is_over(&self) -> bool {
        match &self.cell {
            Cell::Gauge(value) => {
                f64::from_bits(value.load(Ordering::Relaxed)).is_nan() && Arc::strong_count(value) == 1
            }
            Cell::Counter(_) | Cell::Histogram(_) => false,
        }
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(Kind::Counter, &name, unit, meaning);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(Kind::Gauge, &name, unit, meaning);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(Kind::Histogram, &name, unit, meaning);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let handle = self.handle(Kind::Counter, key, |cell| match cell {
            Cell::Counter(count) => Some(Counter::from_arc(Arc::clone(count))),
            Cell::Gauge(_) | Cell::Histogram(_) => None,
        });
        handle.unwrap_or_else(Counter::noop)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let handle = self.handle(Kind::Gauge, key, |cell| match cell {
            Cell::Gauge(value) => Some(Gauge::from_arc(Arc::clone(value))),
            Cell::Counter(_) | Cell::Histogram(_) => None,
        });
        handle.unwrap_or_else(Gauge::noop)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let handle = self.handle(Kind::Histogram, key, |cell| match cell {
            Cell::Histogram(buckets) => Some(Histogram::from_arc(Arc::clone(buckets))),
            Cell::Counter(_) | Cell::Gauge(_) => None,
        });
        handle.unwrap_or_else(Histogram::noop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_series_however_often_it_is_registered() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            metrics::counter!("troupe_a_total", "pool" => "x").increment(2);
            metrics::counter!("troupe_a_total", "pool" => "x").increment(3);
            metrics::counter!("troupe_a_total", "pool" => "y").increment(1);
            metrics::gauge!("troupe_b").set(1.5);
            metrics::gauge!("troupe_b").decrement(1.0);
            metrics::histogram!("troupe_c_seconds").record(0.2);
        });
        let series = registry.series_from(0);
        let readings: Vec<Reading> = series.iter().map(|series| series.read()).collect();
        assert_eq!(readings[..3], [Reading::Counter(5), Reading::Counter(1), Reading::Gauge(0.5)]);
        assert!(matches!(&readings[3], Reading::Histogram { counts, .. } if counts.iter().sum::<u64>() == 1));
        assert_eq!(registry.series_from(3).len(), 1);
        assert!(registry.series_from(9).is_empty());
    }

    #[test]
    fn the_place_of_a_gauge_that_is_over_goes_to_the_next_when_nobody_holds_it() {
        let registry = Registry::default();
        let gauge = |name: usize| {
            metrics::with_local_recorder(&registry, || metrics::gauge!("troupe_a", "worker" => name.to_string()))
        };
        let names = || registry.series_from(0).iter().map(|series| series.key().to_string()).collect::<Vec<_>>();
        let (first, second) = (gauge(1), gauge(2));
        first.set(OVER);
        second.set(OVER);
        let held = second;
        drop(first);
        let third = gauge(3);
        third.set(3.0);
        assert_eq!((names().len(), registry.handed_on()), (2, 1), "{:?}", names());
        assert!(names()[0].contains('3') && names()[1].contains('2'), "{:?}", names());
        assert_eq!(registry.series_from(0)[0].read(), Reading::Gauge(3.0));
        // It is held, and may be told of again.
        let fourth = gauge(4);
        held.set(1.0);
        assert_eq!(registry.series_from(0)[1].read(), Reading::Gauge(1.0));
        drop((held, fourth));
        // What comes again before its place is gone has its series.
        gauge(2).set(OVER);
        gauge(2).set(7.0);
        assert_eq!(registry.series_from(0)[1].read(), Reading::Gauge(7.0));
        for name in 10..50_000 {
            gauge(name).set(OVER);
        }
        assert_eq!(names().len(), 4, "it goes on for ever");
        // What somebody counts is kept, whatever it says.
        metrics::with_local_recorder(&registry, || metrics::counter!("troupe_b_total").increment(1));
        assert_eq!(names().len(), 5);
    }

    #[test]
    fn series_without_end_are_refused_and_counted() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            for number in 0..MAX_SERIES + 50 {
                metrics::counter!("troupe_a_total", "number" => number.to_string()).increment(1);
            }
        });
        let series = registry.series_from(0);
        assert_eq!(series.len(), MAX_SERIES + 1);
        let refused = series.iter().find(|series| series.key().name() == REFUSED).map(|series| series.read());
        assert_eq!(refused, Some(Reading::Counter(50)));
    }
}
