//! The slowest requests of the last quarter of an hour, with where their time went.
//!
//! A thread keeps the few slowest of a moment and adds them, when it flushes, to the process's minute; what is faster than
//! the minute's slowest costs a request one comparison.

mod noted;
mod spans;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use troupe_contracts::invoke::Times;
use troupe_mesh::failure::{Failure, Stage};
use troupe_mesh::times::micros;
use troupe_wire::head::RequestHead;

use crate::cache::Spent;
use crate::request::Trace;
pub(crate) use noted::Noted;
pub use spans::Span;
use spans::Spans;

/// Requests kept of each minute.
const PER_MINUTE: usize = 32;
/// Minutes kept.
const MINUTES: usize = 15;
/// A longer path is cut, in characters as the others: what is kept of a request must not be as large as its head.
const LONGEST_PATH: usize = 256;
/// A longer host is cut; there is none: 253 characters of a name (RFC 1035 §2.3.4), a dot, and a port.
const LONGEST_HOST: usize = 260;
/// A longer method is cut; those that IANA knows have up to 17 letters.
const LONGEST_METHOD: usize = 32;

/// Stages there may be.
pub(super) const STAGES: usize = 12;

/// Where the time of a request went, as far as replies told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stages {
    /// What the services behind the gateway said.
    times: Times,
    /// From the call to its reply's head, in microseconds; 0: there was no call.
    call_us: u32,
    /// From the request's complete head to the first of these, in microseconds: its body was read.
    before_us: u32,
    cache: Tiers,
    /// The stage that failed.
    failed: Option<Stage>,
}

/// Microseconds that the cache took of a request, see [`Spent`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tiers {
    l1_us: u32,
    flight_us: u32,
    l2_us: u32,
    lease_us: u32,
}

/// One stage of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StageTime {
    /// Its name.
    pub stage: &'static str,
    /// Microseconds.
    pub us: u32,
}

/// A request that took long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlowRequest {
    /// When its head was complete, in microseconds since 1970 by the clock of this machine.
    pub start_unix_us: u64,
    /// How long ago it ended.
    pub seconds_ago: u64,
    /// From its complete head to the last byte handed to the connection, in microseconds.
    pub took_us: u64,
    /// Its method, cut where it is very long.
    pub method: String,
    /// The host it named, cut where it is very long.
    pub host: String,
    /// Its path, cut where it is very long; without the query, which may hold secrets.
    pub path: String,
    /// The route that answered.
    pub route: String,
    /// The status.
    pub status: u16,
    /// Its id.
    pub request_id: String,
    /// Its trace's.
    pub trace_id: String,
    /// The stage that failed, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<&'static str>,
    /// Where its time went, in the order in which it passes, each stage without those behind it; together all of it. Stages without
    /// time are left out.
    pub stages: Vec<StageTime>,
    #[serde(skip)]
    ended: Instant,
    #[serde(skip)]
    source: (Stages, Trace),
}

impl Stages {
    /// Of a call that ended after `call`.
    fn of(times: Times, failed: Option<Stage>, call: Duration) -> Self {
        Self { times, call_us: micros(call), before_us: 0, failed, cache: Tiers::default() }
    }

    /// The same, begun so long after the request's head was complete.
    fn begun(self, before: Duration) -> Self {
        Self { before_us: micros(before), ..self }
    }

    /// Of an answer that was found in the store after `looked`.
    pub(crate) fn hit(looked: Duration) -> Self {
        Self { cache: Tiers { l1_us: micros(looked), ..Tiers::default() }, ..Self::default() }
    }

    /// Of an answer that was not in the store.
    pub(crate) fn fetched(spent: &Spent, failure: Option<&Failure>) -> Self {
        if cfg!(feature = "untimed") {
            return Self::default();
        }
        let Spent { l1, flight, l2, lease, call, times } = *spent;
        let cache = Tiers { l1_us: micros(l1), flight_us: micros(flight), l2_us: micros(l2), lease_us: micros(lease) };
        Self { cache, ..Self::of(times, failure.map(|failure| failure.stage), call) }
    }

    /// The stages of a request that took `took` in all. What a stage does not account for is on the way to the next.
    pub(crate) fn list(&self, took: Duration) -> [StageTime; STAGES] {
        let Times { balancer_us, queue_us, worker_us, pool_us, pool_wait_us, run_us } = self.times;
        let Tiers { l1_us, flight_us, l2_us, lease_us } = self.cache;
        let behind = [l1_us, flight_us, l2_us, lease_us].into_iter().fold(self.call_us, u32::saturating_add);
        let stage = |stage, us| StageTime { stage, us };
        [
            stage("gateway", micros(took).saturating_sub(behind)),
            stage("cache-l1", l1_us),
            stage("cache-wait", flight_us),
            stage("cache-l2", l2_us),
            stage("cache-lease", lease_us),
            stage("link", self.call_us.saturating_sub(balancer_us)),
            stage("balancer", balancer_us.saturating_sub(queue_us).saturating_sub(worker_us)),
            stage("queue", queue_us),
            stage(self.worker(), worker_us.saturating_sub(pool_us)),
            stage("php-pool", pool_wait_us),
            stage("php-pipe", pool_us.saturating_sub(pool_wait_us).saturating_sub(run_us)),
            stage("php", run_us),
        ]
    }

    /// What the time with a worker is called that php-pool does not account for. An HTTP server says nothing of its time: all of
    /// it is its own. Nor does a php-pool that is gone.
    fn worker(&self) -> &'static str {
        let upstream = self.times.pool_us == 0 && self.failed.is_none_or(|failed| failed == Stage::Upstream);
        if upstream { "upstream" } else { "worker-link" }
    }
}

/// What a request was, until it is known whether it was slow.
pub(crate) struct Seen<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) trace: &'a Trace,
    pub(crate) method: &'a str,
    pub(crate) route: &'a str,
    pub(crate) status: u16,
    pub(crate) took: Duration,
    pub(crate) ended: Instant,
    pub(crate) stages: Stages,
}

impl SlowRequest {
    fn of(seen: &Seen<'_>) -> Self {
        let head = seen.head;
        let field = |name| head.field(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
        let beginning = |text: &str, most| text.chars().take(most).collect::<String>();
        Self {
            start_unix_us: 0,
            seconds_ago: 0,
            took_us: seen.took.as_micros() as u64,
            method: beginning(seen.method, LONGEST_METHOD),
            host: beginning(head.authority(), LONGEST_HOST),
            path: beginning(head.path(), LONGEST_PATH),
            route: seen.route.to_owned(),
            status: seen.status,
            request_id: field("x-request-id").to_owned(),
            trace_id: seen.trace.id_text(),
            failed: seen.stages.failed.map(Stage::as_str),
            stages: seen.stages.list(seen.took).into_iter().filter(|stage| stage.us > 0).collect(),
            ended: seen.ended,
            source: (seen.stages, *seen.trace),
        }
    }

    /// Its stages as spans, the whole request first.
    pub fn spans(&self) -> Vec<Span> {
        let (stages, trace) = &self.source;
        Spans::of(stages, Duration::from_micros(self.took_us), trace)
    }
}

/// One thread's slowest requests since it last flushed.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    kept: Vec<SlowRequest>,
    /// The fastest of them, in microseconds, once there is no more room.
    floor_us: u64,
}

impl Spool {
    /// Keeps the request if it is one of the slowest.
    pub(crate) fn offer(&mut self, seen: &Seen<'_>) {
        let took_us = seen.took.as_micros() as u64;
        if took_us > self.floor_us {
            keep(&mut self.kept, took_us, || SlowRequest::of(seen));
            self.floor_us = floor(&self.kept);
        }
    }
}

/// The process's.
#[derive(Debug)]
pub(crate) struct Slowest {
    /// What is not slower than this is not kept, in microseconds.
    floor_us: AtomicU64,
    start: Instant,
    minutes: Mutex<VecDeque<Minute>>,
}

#[derive(Debug)]
struct Minute {
    number: u64,
    kept: Vec<SlowRequest>,
}

impl Default for Slowest {
    fn default() -> Self {
        Self { floor_us: AtomicU64::new(0), start: Instant::now(), minutes: Mutex::default() }
    }
}

impl Slowest {
    /// Whether a request that took so long may be one of the slowest.
    pub(crate) fn may_be(&self, took: Duration) -> bool {
        took.as_micros() as u64 > self.floor_us.load(Ordering::Relaxed)
    }

    /// Takes what a thread has kept.
    pub(crate) fn take(&self, spool: &mut Spool, now: Instant) {
        let number = self.number(now);
        let mut minutes = self.minutes.lock();
        if minutes.back().is_none_or(|last| last.number < number) {
            if spool.kept.is_empty() && self.floor_us.load(Ordering::Relaxed) == 0 {
                return;
            }
            minutes.push_back(Minute { number, kept: Vec::new() });
            while minutes.len() > MINUTES {
                minutes.pop_front();
            }
        }
        let Some(minute) = minutes.back_mut() else { return };
        spool.floor_us = 0;
        for slow in spool.kept.drain(..) {
            keep(&mut minute.kept, slow.took_us, || slow);
        }
        self.floor_us.store(floor(&minute.kept), Ordering::Relaxed);
    }

    /// The slowest of the last quarter of an hour, the slowest first.
    pub(crate) fn list(&self, most: usize, now: Instant) -> Vec<SlowRequest> {
        let oldest = self.number(now).saturating_sub(MINUTES as u64 - 1);
        let minutes = self.minutes.lock();
        let recent = minutes.iter().filter(|minute| minute.number >= oldest);
        let mut all: Vec<SlowRequest> = recent.flat_map(|minute| minute.kept.iter().cloned()).collect();
        drop(minutes);
        all.sort_by_key(|slow| std::cmp::Reverse(slow.took_us));
        all.truncate(most);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for slow in &mut all {
            let ago = now.saturating_duration_since(slow.ended);
            slow.seconds_ago = ago.as_secs();
            let start = unix.checked_sub(ago + Duration::from_micros(slow.took_us)).unwrap_or_default();
            slow.start_unix_us = u64::try_from(start.as_micros()).unwrap_or(u64::MAX);
        }
        all
    }

    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / 60
    }
}

/// Adds a request to the slowest, in place of the fastest of them where there is no room.
fn keep(kept: &mut Vec<SlowRequest>, took_us: u64, make: impl FnOnce() -> SlowRequest) {
    if kept.len() < PER_MINUTE {
        return kept.push(make());
    }
    if let Some(fastest) = kept.iter_mut().min_by_key(|slow| slow.took_us)
        && fastest.took_us < took_us
    {
        *fastest = make();
    }
}

/// What took no longer than this is not kept, in microseconds: 0 while there is room.
fn floor(kept: &[SlowRequest]) -> u64 {
    let full = kept.len() >= PER_MINUTE;
    kept.iter().map(|slow| slow.took_us).min().filter(|_| full).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use troupe_wire::head::{RequestHeadBuilder, RequestParts, Scheme, Version};

    use super::*;
    use crate::request::Sampling;

    fn head(path: &str) -> RequestHead {
        head_for("example.test", path)
    }

    fn head_for(host: &str, path: &str) -> RequestHead {
        let mut builder = RequestHeadBuilder::default();
        builder.field("x-request-id", b"r1").unwrap();
        let parts = RequestParts {
            version: Version::Http11,
            scheme: Scheme::Http,
            method: "GET",
            target: path,
            authority: host,
            remote_addr: "192.0.2.1",
            remote_port: "1",
            local_addr: "192.0.2.2",
            local_port: "80",
        };
        builder.finish(&parts).unwrap()
    }

    fn seen<'a>(head: &'a RequestHead, trace: &'a Trace, took: Duration, ended: Instant) -> Seen<'a> {
        Seen { head, trace, method: "GET", route: "/x", status: 200, took, ended, stages: Stages::default() }
    }

    #[test]
    fn stages_add_up_to_the_whole_and_need_no_more_than_was_told() {
        let times =
            Times { balancer_us: 900, queue_us: 300, worker_us: 590, pool_us: 500, pool_wait_us: 100, run_us: 350 };
        let stages = Stages::of(times, None, Duration::from_micros(1_000));
        let list = stages.list(Duration::from_micros(1_200));
        let us: Vec<u32> = list.iter().map(|stage| stage.us).collect();
        assert_eq!(us, [200, 0, 0, 0, 0, 100, 10, 300, 90, 100, 50, 350]);
        assert_eq!(us.iter().sum::<u32>(), 1_200);
        let ms = Duration::from_millis;
        let spent = Spent { l1: ms(1), flight: ms(2), l2: ms(3), lease: ms(4), call: ms(5), times };
        let fetched = Stages::fetched(&spent, None).list(ms(20));
        let us: Vec<u32> = fetched.iter().map(|stage| stage.us).collect();
        assert_eq!(us, [5_000, 1_000, 2_000, 3_000, 4_000, 4_100, 10, 300, 90, 100, 50, 350]);
        assert_eq!(us.iter().sum::<u32>(), 20_000);
        // A failure tells as much as a reply.
        let failure = Failure::deadline(Stage::Php).after(times);
        let failed = Stages::of(failure.times, Some(failure.stage), Duration::from_micros(1_000));
        assert_eq!((failed.list(Duration::from_micros(1_200)), failed.failed), (list, Some(Stage::Php)));
        // Of a worker that was lost nobody tells; the time is on the way to it, unless it is an HTTP server's.
        let lost = Times { balancer_us: 900, queue_us: 300, worker_us: 590, ..Times::default() };
        for (stage, expected) in [(Stage::Link, "worker-link"), (Stage::Upstream, "upstream")] {
            let list = Stages::of(lost, Some(stage), ms(1)).list(ms(2));
            let us: Vec<_> = list.iter().filter(|stage| stage.us > 0).map(|stage| (stage.stage, stage.us)).collect();
            let expected = [("gateway", 1_000), ("link", 100), ("balancer", 10), ("queue", 300), (expected, 590)];
            assert_eq!(us, expected);
        }
        let none = Stages::default().list(Duration::from_micros(77));
        assert_eq!((none[0].us, none.iter().skip(1).map(|stage| stage.us).sum::<u32>()), (77, 0));
    }

    #[test]
    fn what_a_client_may_make_long_is_cut() {
        let long = "é".repeat(10_000);
        let (head, trace) = (head_for(&long, &format!("/{long}")), Trace::new(None, 7, Sampling::default()));
        let seen = Seen { method: &long, ..seen(&head, &trace, Duration::from_secs(1), Instant::now()) };
        let SlowRequest { method, host, path, .. } = SlowRequest::of(&seen);
        let lengths = [&method, &host, &path].map(|text| text.chars().count());
        assert_eq!(lengths, [LONGEST_METHOD, LONGEST_HOST, LONGEST_PATH]);
        assert!(long.starts_with(&method) && long.starts_with(&host));
    }

    #[test]
    fn a_thread_that_has_enough_keeps_what_is_slower_than_the_fastest_of_them_until_they_are_taken() {
        let (slowest, head, trace) = (Slowest::default(), head("/x"), Trace::new(None, 7, Sampling::default()));
        let mut spool = Spool::default();
        let offer = |spool: &mut Spool, ms: u64| {
            let took = Duration::from_millis(ms);
            spool.offer(&seen(&head, &trace, took, slowest.start));
            let mut kept: Vec<u64> = spool.kept.iter().map(|slow| slow.took_us / 1_000).collect();
            kept.sort_unstable();
            kept
        };
        let first: Vec<u64> = (0..PER_MINUTE as u64).map(|ms| 100 + ms).collect();
        first.iter().for_each(|ms| drop(offer(&mut spool, *ms)));
        assert_eq!(offer(&mut spool, 100), first, "no slower than the fastest");
        assert_eq!(offer(&mut spool, 500), [&first[1..], &[500]].concat());
        assert_eq!(offer(&mut spool, 101), [&first[1..], &[500]].concat());
        slowest.take(&mut spool, slowest.start);
        assert_eq!(offer(&mut spool, 1), [1], "there is room again");
    }

    #[test]
    fn the_slowest_are_kept_and_their_number_is_bounded_over_hours() {
        let slowest = Slowest::default();
        let head = head(&format!("/{}?token=secret", "x".repeat(400)));
        let trace = Trace::new(None, 7, Sampling::default());
        let mut spool = Spool::default();
        for minute in 0..120_u64 {
            let now = slowest.start + Duration::from_secs(minute * 60);
            for n in 0..200_u64 {
                let took = Duration::from_millis(minute + n);
                if slowest.may_be(took) {
                    spool.offer(&seen(&head, &trace, took, now));
                }
                if n % 10 == 0 {
                    slowest.take(&mut spool, now);
                }
            }
            slowest.take(&mut spool, now);
            assert!(!slowest.may_be(Duration::from_millis(minute + 100)), "the minute is full of slower ones");
        }
        let now = slowest.start + Duration::from_secs(119 * 60 + 5);
        let all = slowest.list(usize::MAX, now);
        assert_eq!(all.len(), MINUTES * PER_MINUTE);
        assert!(all.is_sorted_by(|one, other| one.took_us >= other.took_us));
        let first = &all[0];
        assert_eq!((first.took_us, first.seconds_ago, first.request_id.as_str()), (318_000, 5, "r1"));
        assert_eq!(first.trace_id, trace.id_text());
        assert!(first.path.len() == LONGEST_PATH && !first.path.contains("secret"));
        assert_eq!(slowest.list(3, now).len(), 3);
        // A quarter of an hour later, all of it is forgotten.
        assert!(slowest.list(usize::MAX, now + Duration::from_secs(15 * 60)).is_empty());
    }
}
