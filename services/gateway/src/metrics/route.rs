//! One thread's counts of one route.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use super::totals::Totals;
use crate::cache::CacheResult;
use crate::request::Method;

/// Classes of statuses: 1xx to 5xx, and requests whose client left or whose answer broke off.
pub(super) const CLASSES: [&str; 6] = ["aborted", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Steps of duration: exact to 8 µs, from there four for each doubling, up to 19 hours. A step is at most a quarter of
/// its value wide, which is finer than the buckets that are scraped.
pub(super) const STEPS: usize = 136;

/// Counts since the last flush.
pub(super) struct RouteCounts {
    label: String,
    requests: [[u32; CLASSES.len()]; Method::ALL.len()],
    durations: Box<[u32; STEPS]>,
    /// Requests and bytes, by what the cache did.
    cached: [(u32, u64); CacheResult::ALL.len()],
    cache_counters: Vec<(usize, Counter, Counter)>,
    changed: bool,
    counters: Vec<(usize, usize, Counter)>,
    histogram: Option<Histogram>,
}

impl RouteCounts {
    pub(super) fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            requests: [[0; CLASSES.len()]; Method::ALL.len()],
            durations: Box::new([0; STEPS]),
            cached: [(0, 0); CacheResult::ALL.len()],
            cache_counters: Vec::new(),
            changed: false,
            counters: Vec::new(),
            histogram: None,
        }
    }

    /// The route's label.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn add(&mut self, method: Method, status: u16, complete: bool, took: Duration) {
        self.changed = true;
        let class = if complete { usize::from(status / 100).min(5) } else { 0 };
        if let Some(count) = self.requests.get_mut(method as usize).and_then(|classes| classes.get_mut(class)) {
            *count += 1;
        }
        if let Some(count) = self.durations.get_mut(step(took)) {
            *count += 1;
        }
    }

    pub(super) fn add_cached(&mut self, result: CacheResult, sent: u64) {
        if let Some((requests, bytes)) = self.cached.get_mut(result as usize) {
            *requests += 1;
            *bytes += sent;
        }
    }

    pub(super) fn flush(&mut self, totals: &Totals) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        self.flush_cached();
        for (method, classes) in self.requests.iter_mut().enumerate() {
            for (class, count) in classes.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
                let known = self.counters.iter().find(|(one, other, _)| (*one, *other) == (method, class));
                let counter = match known {
                    Some((_, _, counter)) => counter.clone(),
                    None => {
                        let labels = (Method::ALL.get(method), CLASSES.get(class));
                        let (Some(name), Some(status)) = labels else { continue };
                        let made = counter!("troupe_gateway_requests_total", "route" => self.label.clone(), "method" => name.label(), "status" => *status);
                        self.counters.push((method, class, made.clone()));
                        made
                    }
                };
                totals.count(class, *count);
                counter.increment(u64::from(std::mem::take(count)));
            }
        }
        let label = &self.label;
        let histogram = self
            .histogram
            .get_or_insert_with(|| histogram!("troupe_gateway_request_duration_seconds", "route" => label.clone()));
        for (step, count) in self.durations.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            totals.took(step, *count);
            histogram.record_many(middle(step).as_secs_f64(), std::mem::take(count) as usize);
        }
    }

    fn flush_cached(&mut self) {
        for (index, (requests, bytes)) in self.cached.iter_mut().enumerate().filter(|(_, counts)| counts.0 > 0) {
            let known = self.cache_counters.iter().position(|(other, ..)| *other == index);
            let place = known.unwrap_or_else(|| {
                let result = CacheResult::ALL.get(index).map_or("", |result| result.as_str());
                let tier = CacheResult::ALL.get(index).map_or("", |result| result.tier());
                let label = || self.label.clone();
                self.cache_counters.push((
                    index,
                    counter!("troupe_gateway_cache_requests_total", "route" => label(), "tier" => tier, "result" => result),
                    counter!("troupe_gateway_cache_sent_bytes_total", "route" => label(), "tier" => tier, "result" => result),
                ));
                self.cache_counters.len() - 1
            });
            if let Some((_, counter, sent)) = self.cache_counters.get(place) {
                counter.increment(u64::from(std::mem::take(requests)));
                sent.increment(std::mem::take(bytes));
            }
        }
    }
}

/// The step a duration falls into.
fn step(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < 8 {
        return micros as usize;
    }
    let doublings = micros.ilog2() as usize;
    let quarter = (micros >> (doublings - 2)) as usize & 3;
    (8 + (doublings - 3) * 4 + quarter).min(STEPS - 1)
}

/// The middle of a step.
pub(super) fn middle(step: usize) -> Duration {
    if step < 8 {
        return Duration::from_micros(step as u64);
    }
    let doublings = (step - 8) / 4 + 3;
    let quarter = ((step - 8) % 4) as u64;
    let width = 1u64 << (doublings - 2);
    Duration::from_micros((4 + quarter) * width + width / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_close_to_what_falls_into_it() {
        let mut micros = 1;
        while micros < 10_000_000_000u64 {
            let middle = middle(step(Duration::from_micros(micros))).as_micros() as f64;
            let off = (middle - micros as f64).abs() / micros as f64;
            assert!(off <= 0.125, "{micros} is told as {middle}");
            micros += micros / 3 + 1;
        }
        assert!(step(Duration::MAX) < STEPS);
    }
}
