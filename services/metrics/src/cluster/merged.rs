//! Every series of the cluster, summed over instances.
//!
//! Counters and histograms only ever rise here: an instance adds what it has counted since its last reading, its
//! successor under another uid starts at zero, and what an instance that is gone has counted stays. Gauges are summed when
//! they are asked for, over the instances that are heard of, where a sum means something.

use std::collections::HashMap;

use metrics::{Key, Label};
use troupe_contracts::snapshot::{Named, SeriesKind};
use troupe_node::metrics::{Reading, Text};

use super::columns::{self, Feed};
use super::distribution::Distribution;
use super::instance::Instance;

/// Series of the merged view. Labels are closed sets, so instances of one configuration have the same.
const MAX_SERIES: usize = 20_000;
/// Labels a series may have.
const MAX_LABELS: usize = 8;
/// Longest name or value that is taken from a peer.
const MAX_TEXT: usize = 256;
/// Buckets that are taken from a peer.
const MAX_BOUNDS: usize = 64;

/// Makes one value of two instances'.
type Join = fn(f64, f64) -> f64;

/// Gauges whose sum means nothing, and what is shown instead. Of flags it is the value that tells of trouble: one instance
/// that is cut off does not hide behind those that are not.
const NOT_SUMMED: [(&str, Join); 17] = [
    ("troupe_build_info", f64::max),
    ("troupe_balancer_all_out", f64::max),
    ("troupe_balancer_worker_score", f64::max),
    ("troupe_balancer_worker_latency_seconds", f64::max),
    // Every balancer counts the same workers, every caller the same instances.
    ("troupe_balancer_workers_ready", f64::max),
    ("troupe_discovery_instances", f64::max),
    ("troupe_discovery_redis_up", f64::min),
    ("troupe_discovery_stale_seconds", f64::max),
    ("troupe_gateway_cache_live", f64::min),
    ("troupe_cache_redis_up", f64::min),
    ("troupe_cache_redis_full", f64::max),
    ("troupe_node_config_reload_ok", f64::min),
    ("troupe_node_stall_seconds", f64::max),
    ("troupe_node_loop_lag_seconds", f64::max),
    // Every metrics service counts the same.
    ("troupe_metrics_instances", f64::max),
    ("troupe_metrics_series", f64::max),
    ("troupe_metrics_merge_seconds", f64::max),
];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Merged {
    numbers: HashMap<Key, usize>,
    series: Vec<Series>,
    /// Places whose series are over.
    free: Vec<usize>,
    refused: u64,
}

/// A series of the cluster.
#[derive(Debug)]
pub(super) struct Series {
    key: Key,
    pub(super) total: Total,
    /// Which columns of the history it feeds.
    pub(super) feeds: Vec<Feed>,
}

/// What instances have counted together.
#[derive(Debug)]
pub(super) enum Total {
    Counter(u64),
    Gauge,
    Histogram(Distribution),
}

impl Merged {
    /// The number of the series that an instance names; `None` when it is not one, or there is no room.
    pub(super) fn number(&mut self, named: &Named) -> Option<usize> {
        let key = key(named)?;
        if let Some(number) = self.numbers.get(&key) {
            // A name that is of another kind elsewhere (another version's) is left out.
            let same = self.series.get(*number).is_some_and(|series| series.total.is(named.kind));
            return same.then_some(*number);
        }
        if self.free.is_empty() && self.series.len() >= MAX_SERIES {
            self.refused += 1;
            return None;
        }
        let total = match named.kind {
            SeriesKind::Counter => Total::Counter(0),
            SeriesKind::Gauge => Total::Gauge,
            SeriesKind::Histogram => Total::Histogram(Distribution::default()),
        };
        let series = Series { key: key.clone(), total, feeds: columns::feeds_of(&key) };
        let number = match self.free.pop() {
            Some(number) => {
                *self.series.get_mut(number)? = series;
                number
            }
            None => {
                self.series.push(series);
                self.series.len() - 1
            }
        };
        self.numbers.insert(key, number);
        Some(number)
    }

    /// Gives up gauges that no instance has any more: `mark` marks those that are in use. What was counted stays.
    pub(super) fn sweep(&mut self, mark: impl FnOnce(&mut [bool])) {
        let mut used = vec![false; self.series.len()];
        mark(&mut used);
        let Self { numbers, series, free, .. } = self;
        numbers.retain(|_, number| {
            let gauge = series.get(*number).is_some_and(|series| matches!(series.total, Total::Gauge));
            let over = gauge && used.get(*number) == Some(&false);
            if over {
                free.push(*number);
            }
            !over
        });
    }

    pub(super) fn get(&self, number: usize) -> Option<&Series> {
        self.series.get(number)
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Series> {
        self.series.get_mut(number)
    }

    pub(super) fn len(&self) -> usize {
        self.series.len() - self.free.len()
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Appends all series, families together; gauges over `live` instances.
    pub(super) fn render(&self, live: &[&Instance], text: &mut Text) {
        let mut gauges: Vec<Option<f64>> = vec![None; self.series.len()];
        for instance in live {
            for (number, value) in instance.gauges() {
                let Some(gauge) = gauges.get_mut(number) else { continue };
                *gauge = Some(gauge.map_or(value, |known| self.joined(number, known, value)));
            }
        }
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        order.sort_by(|one, other| self.key_of(*one).cmp(&self.key_of(*other)));
        for (number, series) in order.into_iter().filter_map(|number| Some((number, self.series.get(number)?))) {
            let reading = match &series.total {
                Total::Counter(count) => Reading::Counter(*count),
                Total::Gauge => match gauges.get(number).copied().flatten() {
                    Some(value) => Reading::Gauge(value),
                    // Whoever had it is gone.
                    None => continue,
                },
                Total::Histogram(distribution) => Reading::Histogram {
                    bounds: distribution.bounds().to_vec(),
                    counts: distribution.counts().iter().map(|count| *count as u64).collect(),
                    sum: distribution.sum(),
                },
            };
            text.series(&series.key, &reading);
        }
    }

    /// What two instances' values of a gauge come to.
    fn joined(&self, number: usize, one: f64, other: f64) -> f64 {
        let name = self.series.get(number).map(|series| series.key.name());
        match NOT_SUMMED.iter().find(|(known, _)| Some(*known) == name) {
            Some((_, join)) => join(one, other),
            None => one + other,
        }
    }

    fn key_of(&self, number: usize) -> Option<&Key> {
        self.series.get(number).map(|series| &series.key)
    }
}

impl Series {
    /// Its name and labels.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl Total {
    fn is(&self, kind: SeriesKind) -> bool {
        matches!(
            (self, kind),
            (Self::Counter(_), SeriesKind::Counter)
                | (Self::Gauge, SeriesKind::Gauge)
                | (Self::Histogram(_), SeriesKind::Histogram)
        )
    }
}

/// The key of what a peer names; `None` of what is no name of ours.
fn key(named: &Named) -> Option<Key> {
    let plain = |text: &str| {
        !text.is_empty() && text.len() <= MAX_TEXT && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let rising = named.bounds.windows(2).all(|pair| matches!(pair, [low, high] if low < high));
    let fits = plain(&named.name)
        && named.labels.len() <= MAX_LABELS
        && named.labels.iter().all(|(name, value)| plain(name) && value.len() <= MAX_TEXT)
        && named.bounds.len() <= MAX_BOUNDS
        && rising
        && named.bounds.iter().all(|bound| bound.is_finite());
    if !fits {
        return None;
    }
    let mut labels: Vec<Label> =
        named.labels.iter().map(|(name, value)| Label::new(name.clone(), value.clone())).collect();
    labels.sort();
    labels.dedup_by(|one, other| one.key() == other.key());
    Some(Key::from_parts(named.name.clone(), labels))
}
