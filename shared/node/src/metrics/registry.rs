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
}

/// One series. It is never given up, and its number is its place in the registry.
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

    /// What is known of each name.
    pub fn descriptions(&self) -> BTreeMap<String, Description> {
        self.known.lock().descriptions.clone()
    }

    fn describe(&self, kind: Kind, name: &KeyName, unit: Option<Unit>, meaning: SharedString) {
        let description = Description { kind, unit, meaning: meaning.into_owned() };
        self.known.lock().descriptions.entry(name.as_str().to_owned()).or_insert(description);
    }

    /// The series of this key, made when it is new; `None` when there are too many.
    fn series(&self, kind: Kind, key: &Key) -> Option<Arc<Series>> {
        let mut known = self.known.lock();
        let known = &mut *known;
        let named = (kind, key.clone());
        if let Some(series) = known.numbers.get(&named).and_then(|number| known.series.get(*number)) {
            return Some(Arc::clone(series));
        }
        if known.series.len() >= MAX_SERIES {
            self.refuse(known);
            return None;
        }
        Some(known.add(named))
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
    fn add(&mut self, (kind, key): (Kind, Key)) -> Arc<Series> {
        let cell = match kind {
            Kind::Counter => Cell::Counter(Arc::new(AtomicU64::new(0))),
            Kind::Gauge => Cell::Gauge(Arc::new(AtomicU64::new(0f64.to_bits()))),
            Kind::Histogram => Cell::Histogram(Arc::new(Buckets::named(key.name()))),
        };
        let series = Arc::new(Series { key: key.clone(), cell });
        self.numbers.insert((kind, key), self.series.len());
        self.series.push(Arc::clone(&series));
        series
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
        match self.series(Kind::Counter, key).as_deref() {
            Some(Series { cell: Cell::Counter(count), .. }) => Counter::from_arc(Arc::clone(count)),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.series(Kind::Gauge, key).as_deref() {
            Some(Series { cell: Cell::Gauge(value), .. }) => Gauge::from_arc(Arc::clone(value)),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.series(Kind::Histogram, key).as_deref() {
            Some(Series { cell: Cell::Histogram(buckets), .. }) => Histogram::from_arc(Arc::clone(buckets)),
            _ => Histogram::noop(),
        }
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
