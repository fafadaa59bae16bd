//! What a gateway has answered since its start, and lately: for people who ask it. Threads add to it when they flush.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use super::faults::Fault;
use super::route::{CLASSES, STEPS, middle};
use super::volume::CAUSES;

/// Figures about the time that has just been are about at most this long.
const WINDOW: Duration = Duration::from_secs(10);
/// Readings nearer to the last one are not kept.
const APART: Duration = Duration::from_millis(900);

/// Counts over all threads and routes.
#[derive(Debug)]
pub(crate) struct Totals {
    classes: [AtomicU64; CLASSES.len()],
    steps: [AtomicU64; STEPS],
    causes: [AtomicU64; CAUSES.len()],
    faults: [AtomicU64; Fault::ALL.len()],
    in_flight: AtomicI64,
    history: Mutex<VecDeque<Reading>>,
}

#[derive(Debug, Clone)]
struct Reading {
    at: Instant,
    classes: [u64; CLASSES.len()],
    steps: [u64; STEPS],
}

/// A gateway's figures, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GatewayFigures {
    /// Client connections that are open.
    pub connections: usize,
    /// Of these, WebSocket tunnels.
    pub tunnels: usize,
    /// Requests that are being answered.
    pub in_flight: u64,
    /// Requests answered since the start.
    pub requests: u64,
    /// Of these, by class of status.
    pub by_class: ByClass,
    /// Requests that failed with a 5xx or a 429, by cause; what there was none of is left out.
    pub errors: BTreeMap<&'static str, u64>,
    /// Client connections that failed, likewise.
    pub connection_errors: BTreeMap<&'static str, u64>,
    /// What follows is about the last so many seconds.
    pub window_seconds: f64,
    /// Requests answered per second.
    pub per_second: f64,
    /// Of these answered with 5xx, per second.
    pub errors_per_second: f64,
    /// Half of the requests took less, in milliseconds.
    pub p50_ms: f64,
    /// 95 of 100 requests took less.
    pub p95_ms: f64,
    /// 99 of 100 requests took less.
    pub p99_ms: f64,
}

/// Requests by class of status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ByClass {
    /// 1xx and 2xx.
    pub success: u64,
    /// 3xx.
    pub redirect: u64,
    /// 4xx.
    pub client_error: u64,
    /// 5xx.
    pub server_error: u64,
    /// The client left, or the answer broke off.
    pub aborted: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            classes: [const { AtomicU64::new(0) }; CLASSES.len()],
            steps: [const { AtomicU64::new(0) }; STEPS],
            causes: [const { AtomicU64::new(0) }; CAUSES.len()],
            faults: [const { AtomicU64::new(0) }; Fault::ALL.len()],
            in_flight: AtomicI64::new(0),
            history: Mutex::default(),
        }
    }
}

impl Totals {
    pub(super) fn count(&self, class: usize, count: u32) {
        if let Some(total) = self.classes.get(class) {
            total.fetch_add(u64::from(count), Ordering::Relaxed);
        }
    }

    pub(super) fn took(&self, step: usize, count: u32) {
        if let Some(total) = self.steps.get(step) {
            total.fetch_add(u64::from(count), Ordering::Relaxed);
        }
    }

    /// Requests that failed for one of [`CAUSES`], by its place.
    pub(super) fn failed(&self, cause: usize, count: u64) {
        if let Some(total) = self.causes.get(cause) {
            total.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Connections that failed for one of [`Fault::ALL`], by its place.
    pub(super) fn broke(&self, fault: usize, count: u64) {
        if let Some(total) = self.faults.get(fault) {
            total.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn under_way(&self, begun: u64, ended: u64) {
        self.in_flight.fetch_add(begun.cast_signed().wrapping_sub(ended.cast_signed()), Ordering::Relaxed);
    }

    /// Notes the counts as they are, for the figures of the next seconds. To be called each second.
    pub(crate) fn note(&self, now: Instant) {
        let mut history = self.history.lock();
        if history.back().is_some_and(|last| now.saturating_duration_since(last.at) < APART) {
            return;
        }
        while history.front().is_some_and(|first| now.saturating_duration_since(first.at) > WINDOW) {
            history.pop_front();
        }
        history.push_back(self.read(now));
    }

    fn read(&self, at: Instant) -> Reading {
        Reading {
            at,
            classes: std::array::from_fn(|class| self.classes[class].load(Ordering::Relaxed)),
            steps: std::array::from_fn(|step| self.steps[step].load(Ordering::Relaxed)),
        }
    }

    /// The figures now.
    pub(crate) fn figures(&self, (connections, tunnels): (usize, usize), now: Instant) -> GatewayFigures {
        let last = self.read(now);
        let first = self.history.lock().front().cloned();
        let first = first.unwrap_or(Reading { at: now, classes: [0; CLASSES.len()], steps: [0; STEPS] });
        let window = now.saturating_duration_since(first.at).as_secs_f64();
        let lately: Vec<u64> = last.steps.iter().zip(&first.steps).map(|(new, old)| new.saturating_sub(*old)).collect();
        let rate = |count: u64| if window > 0.0 { count as f64 / window } else { 0.0 };
        let answered = |reading: &Reading| reading.classes.iter().sum::<u64>();
        let [aborted, informational, success, redirect, client_error, server_error] = last.classes;
        GatewayFigures {
            connections,
            tunnels,
            in_flight: u64::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(0),
            requests: answered(&last),
            by_class: ByClass { success: success + informational, redirect, client_error, server_error, aborted },
            errors: named(&CAUSES, &self.causes),
            connection_errors: named(&Fault::ALL.map(Fault::as_str), &self.faults),
            window_seconds: window,
            per_second: rate(answered(&last).saturating_sub(answered(&first))),
            errors_per_second: rate(last.classes[5].saturating_sub(first.classes[5])),
            p50_ms: percentile(&lately, 0.50),
            p95_ms: percentile(&lately, 0.95),
            p99_ms: percentile(&lately, 0.99),
        }
    }
}

/// Counts by their names, without those that are 0.
fn named(names: &[&'static str], counts: &[AtomicU64]) -> BTreeMap<&'static str, u64> {
    let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
    names.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
}

/// In milliseconds; 0 where nothing was counted.
fn percentile(steps: &[u64], share: f64) -> f64 {
    let all: u64 = steps.iter().sum();
    let wanted = (all as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (step, count) in steps.iter().enumerate() {
        seen += count;
        if seen >= wanted && all > 0 {
            return middle(step).as_secs_f64() * 1_000.0;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_about_the_last_seconds_and_totals_about_all() {
        let totals = Totals::default();
        let start = Instant::now();
        totals.count(2, 100);
        totals.took(40, 100);
        totals.note(start);
        totals.count(2, 90);
        totals.count(5, 10);
        totals.took(20, 98);
        totals.took(60, 2);
        totals.under_way(7, 4);
        totals.failed(3, 8);
        totals.failed(0, 2);
        totals.broke(Fault::WriteTimeout as usize, 1);
        totals.note(start + Duration::from_millis(10));
        let figures = totals.figures((3, 0), start + Duration::from_secs(2));
        assert_eq!((figures.connections, figures.in_flight, figures.requests), (3, 3, 200));
        assert_eq!((figures.per_second, figures.errors_per_second), (50.0, 5.0));
        assert_eq!(figures.by_class, ByClass { success: 190, server_error: 10, ..ByClass::default() });
        assert_eq!(figures.errors, BTreeMap::from([("application", 2), ("deadline", 8)]));
        assert_eq!(figures.connection_errors, BTreeMap::from([("write_timeout", 1)]));
        let ms = |step| middle(step).as_secs_f64() * 1_000.0;
        assert_eq!((figures.p50_ms, figures.p95_ms, figures.p99_ms), (ms(20), ms(20), ms(60)));
        totals.note(start + Duration::from_secs(15));
        totals.note(start + Duration::from_secs(16));
        let later = totals.figures((0, 0), start + Duration::from_secs(17));
        assert_eq!((later.per_second, later.p99_ms), (0.0, 0.0));
    }
}
