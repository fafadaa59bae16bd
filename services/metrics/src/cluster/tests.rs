//! The core, told by hand and by the reporter's own teller.

mod instances;

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use proptest::prelude::*;
use troupe_contracts::snapshot::{Process, Slow, Source, Worker};
use troupe_node::metrics::{Metrics, OVER};

use super::problems::Level;
use super::*;
use crate::pages::span::Span;
use crate::reporter::{About, Tables, Teller};

/// An instance with a registry of its own.
struct Told {
    metrics: Metrics,
    teller: Teller,
    about: About,
}

impl Told {
    fn new(uid: u8, name: &str, uptime_ms: u64) -> Self {
        let services = vec![name.to_owned()];
        let instance = format!("{name}@{uid}");
        let source = Source { uid: [uid; 16], instance, services, uptime_ms, ..Source::default() };
        Self { metrics: Metrics::detached(), teller: Teller::default(), about: About { source, ..About::default() } }
    }

    fn count(&self, requests: u64) {
        metrics::with_local_recorder(self.metrics.registry(), || {
            counter!("troupe_gateway_requests_total", "status" => "2xx").increment(requests);
        });
    }

    fn takes(&self, seconds: f64) {
        metrics::with_local_recorder(self.metrics.registry(), || {
            histogram!("troupe_gateway_request_duration_seconds", "route" => "/").record(seconds);
        });
    }

    fn connections(&self, open: f64) {
        metrics::with_local_recorder(self.metrics.registry(), || gauge!("troupe_gateway_connections").set(open));
    }

    /// Tells a reading, and everything anew when asked to.
    fn tell(&mut self, cluster: &mut Cluster, now: Instant) {
        self.about.source.uptime_ms += 1_000;
        for _ in 0..2 {
            let parts = self.teller.read(&self.metrics, &self.about);
            if !parts.into_iter().any(|part| cluster.take(part, now).anew) {
                return;
            }
            self.teller.begin_anew();
        }
        panic!("told anew and asked again");
    }
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn rendered(cluster: &Cluster, now: Instant) -> String {
    cluster.render(BTreeMap::new(), now)
}

fn newest(cluster: &Cluster, id: &str) -> f32 {
    cluster.history().newest().unwrap().values[columns::place(id).unwrap()]
}

const TOTAL: &str = "troupe_gateway_requests_total{status=\"2xx\"}";

#[test]
fn counters_of_all_instances_are_summed_and_survive_their_restarts() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let (mut one, mut other) = (Told::new(1, "gateway", 60_000), Told::new(2, "gateway", 60_000));
    one.count(100);
    other.count(7);
    one.tell(&mut cluster, now);
    other.tell(&mut cluster, now);
    assert_eq!(value(&rendered(&cluster, now), TOTAL), Some(107.0));
    cluster.tick(now, 0);
    assert_eq!(newest(&cluster, "requests"), 0.0, "what was counted before it was known is no rate");

    one.count(50);
    one.tell(&mut cluster, now);
    cluster.tick(now, 1_000);
    assert_eq!(newest(&cluster, "requests"), 50.0);
    assert_eq!(newest(&cluster, "requests.2xx"), 50.0);

    // The first is replaced: another uid, which starts from zero.
    let mut reborn = Told::new(3, "gateway", 0);
    reborn.count(5);
    reborn.tell(&mut cluster, now);
    assert_eq!(value(&rendered(&cluster, now), TOTAL), Some(162.0));
    cluster.tick(now, 2_000);
    assert_eq!(newest(&cluster, "requests"), 55.0, "a young instance has just counted all it tells");
}

#[test]
fn gauges_of_which_a_sum_says_nothing_are_not_summed() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let gauges = [
        ("troupe_gateway_connections", 3.0),
        // Flags: the one that tells of trouble.
        ("troupe_balancer_all_out", 1.0),
        ("troupe_cache_redis_full", 1.0),
        ("troupe_cache_redis_up", 0.0),
        ("troupe_discovery_redis_up", 0.0),
        ("troupe_gateway_cache_live", 0.0),
        ("troupe_node_config_reload_ok", 0.0),
        // What several see of the same.
        ("troupe_balancer_workers_ready", 1.0),
        ("troupe_discovery_instances", 1.0),
        ("troupe_metrics_instances", 1.0),
        ("troupe_metrics_series", 1.0),
    ];
    for (uid, value) in [(1, 1.0), (2, 0.0), (3, 1.0), (4, 1.0)] {
        let mut one = Told::new(uid, "gateway", 60_000);
        metrics::with_local_recorder(one.metrics.registry(), || {
            gauges.iter().for_each(|(name, _)| gauge!(*name).set(value));
        });
        one.tell(&mut cluster, now);
    }
    let text = rendered(&cluster, now);
    for (name, shown) in gauges {
        assert_eq!(value(&text, name), Some(shown), "{name}");
    }
}

/// Names are cut where they are told, and stay apart.
#[test]
fn routes_that_begin_alike_are_counted_apart() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut instances = [Told::new(1, "gateway", 60_000), Told::new(2, "gateway", 60_000)];
    let routes = ["a", "b"].map(|end| format!("/{}é/{end}", "x".repeat(300)));
    for _ in 0..3 {
        for one in &mut instances {
            metrics::with_local_recorder(one.metrics.registry(), || {
                for (route, requests) in routes.iter().zip([1, 100]) {
                    counter!("troupe_gateway_requests_total", "route" => route.clone()).increment(requests);
                    histogram!("troupe_gateway_request_duration_seconds", "route" => route.clone())
                        .record_many(0.1, requests as usize);
                }
            });
            one.tell(&mut cluster, now);
        }
    }
    let text = rendered(&cluster, now);
    let counts = |name: &str| -> Vec<f64> {
        let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{route=\"/xxx")));
        let mut counts: Vec<f64> = series.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
        counts.sort_by(f64::total_cmp);
        counts
    };
    assert_eq!(counts("troupe_gateway_requests_total"), [6.0, 600.0]);
    assert_eq!(counts("troupe_gateway_request_duration_seconds_count"), [6.0, 600.0]);
}

#[test]
fn what_php_uses_is_told_with_its_instance_and_by_itself() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut pools = Told::new(1, "php-pool", 60_000);
    let use_more = |pools: &Told, pool: &'static str, micros, bytes| {
        metrics::with_local_recorder(pools.metrics.registry(), || {
            counter!("troupe_php_cpu_seconds_total", "pool" => pool).increment(micros);
            gauge!("troupe_php_resident_bytes", "pool" => pool).set(bytes);
        });
    };
    use_more(&pools, "a", 9_000_000, 1_000.0);
    pools.about.process = Process { cpu_seconds: 5.0, resident_bytes: 500, ..Process::default() };
    pools.tell(&mut cluster, now);
    use_more(&pools, "a", 750_000, 2_000.0);
    use_more(&pools, "b", 500_000, 4_000.0);
    pools.about.process.cpu_seconds += 0.25;
    pools.tell(&mut cluster, now);
    cluster.tick(now, 0);
    assert_eq!((newest(&cluster, "cpu"), newest(&cluster, "php.cpu")), (1.5, 1.25));
    assert_eq!((newest(&cluster, "resident"), newest(&cluster, "php.resident")), (6_500.0, 6_000.0));
    let row = &cluster.view(now).instances[0];
    assert_eq!((row.cpu, row.php_cpu, row.resident, row.php_resident), (1.5, 1.25, 6_500, 6_000));
    let page = rendered(&cluster, now);
    assert_eq!(value(&page, "troupe_php_cpu_seconds_total{pool=\"a\"}"), Some(9.75));
    assert_eq!(value(&page, "troupe_php_resident_bytes{pool=\"b\"}"), Some(4_000.0));
}

#[test]
fn the_slowest_requests_of_all_gateways_are_told_once_and_grow_old() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let slow = |path: &str, took_us| Slow { took_us, path: path.into(), ..Slow::default() };
    let (mut one, mut other) = (Told::new(1, "gateway", 60_000), Told::new(2, "gateway", 60_000));
    one.about.slow = Some(vec![slow("/a", 900), slow("/c", 100)]);
    other.about.slow = Some(vec![Slow { ago_ms: 30_000, ..slow("/b", 500) }]);
    one.tell(&mut cluster, now);
    other.tell(&mut cluster, now);
    let seen = |cluster: &Cluster, now| -> Vec<(String, u64)> {
        cluster.view(now).slow.into_iter().map(|row| (row.slow.path, row.ago)).collect()
    };
    let all = [("/a".to_owned(), 0), ("/b".to_owned(), 30), ("/c".to_owned(), 0)];
    assert_eq!(seen(&cluster, now), all);
    let again = one.teller.read(&one.metrics, &one.about).remove(0);
    assert!(!again.slow_anew && again.slow.is_empty(), "what has not changed is not told again");
    one.about.slow = Some(vec![slow("/a", 900)]);
    one.tell(&mut cluster, now);
    assert_eq!(seen(&cluster, now + Duration::from_secs(60)), [("/a".to_owned(), 60), ("/b".to_owned(), 90)]);
    assert_eq!(seen(&cluster, now + Duration::from_secs(14 * 60 + 45)), [("/a".to_owned(), 885)]);
}

#[test]
fn a_collector_that_was_started_later_is_told_everything() {
    let now = Instant::now();
    let mut one = Told::new(1, "gateway", 60_000);
    one.count(100);
    one.tell(&mut Cluster::new(), now);
    one.tell(&mut Cluster::new(), now);
    let mut third = Cluster::new();
    one.tell(&mut third, now);
    assert_eq!(value(&rendered(&third, now), TOTAL), Some(100.0));
}

#[test]
fn quantiles_are_of_the_last_seconds_of_all() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let (mut one, mut other) = (Told::new(1, "gateway", 60_000), Told::new(2, "gateway", 60_000));
    one.tell(&mut cluster, now);
    other.tell(&mut cluster, now);
    cluster.tick(now, 0);
    assert!(newest(&cluster, "latency.p50").is_nan());
    for _ in 0..90 {
        one.takes(0.004);
    }
    for _ in 0..10 {
        other.takes(0.9);
    }
    one.tell(&mut cluster, now);
    other.tell(&mut cluster, now);
    cluster.tick(now, 1_000);
    let (p50, p99) = (newest(&cluster, "latency.p50"), newest(&cluster, "latency.p99"));
    assert!(p50 > 0.0025 && p50 <= 0.005, "{p50}");
    assert!(p99 > 0.5 && p99 <= 1.0, "{p99}");
    let text = rendered(&cluster, now);
    let bucket = "troupe_gateway_request_duration_seconds_bucket{route=\"/\",le=\"0.005\"}";
    assert_eq!(value(&text, bucket), Some(90.0));
    assert_eq!(value(&text, "troupe_gateway_request_duration_seconds_count{route=\"/\"}"), Some(100.0));
}

#[test]
fn workers_stand_in_order_of_score_with_those_that_take_calls_first() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut balancer = Told::new(1, "balancer", 60_000);
    let worker = |name: &str, state: &str, score| Worker {
        pool: "default".into(),
        worker: name.into(),
        state: state.into(),
        reason: "it was silent".into(),
        score,
        ..Worker::default()
    };
    let workers = vec![worker("a", "ready", 3.0), worker("b", "ejected", 90.0), worker("c", "ready", f32::NAN)];
    balancer.about.tables = Tables { pools: vec![], workers };
    balancer.tell(&mut cluster, now);
    let view = cluster.view(now);
    let order: Vec<&str> = view.workers.iter().map(|worker| &*worker.worker).collect();
    assert_eq!(order, ["a", "c", "b"]);
    assert!(view.problems.iter().any(|problem| problem.text.contains("it was silent")), "{:?}", view.problems);
}

/// Workers whose names are never used twice, as containers' are, in an instance that lives for long.
#[test]
fn series_of_what_is_gone_make_room_for_what_comes() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut one = Told::new(1, "balancer", 60_000);
    let series = |name: String| gauge!("troupe_balancer_worker_score", "worker" => name);
    let mut present = Vec::new();
    for round in 0..1_000 {
        metrics::with_local_recorder(one.metrics.registry(), || {
            for gauge in std::mem::take(&mut present) {
                let gauge: metrics::Gauge = gauge;
                gauge.set(OVER);
            }
            for worker in 0..30 {
                let gauge = series(format!("{round}-{worker}"));
                gauge.set(1.0);
                present.push(gauge);
            }
        });
        one.tell(&mut cluster, now);
        cluster.tick(now, 0);
    }
    one.tell(&mut cluster, now);
    let page = rendered(&cluster, now);
    let scores: Vec<&str> = page.lines().filter(|line| line.starts_with("troupe_balancer_worker_score{")).collect();
    assert!(scores.len() == 30 && scores.iter().all(|line| line.contains("\"999-")), "{scores:?}");
    assert_eq!(cluster.refused(), (0, 0), "30,000 names have been there");
    assert!(cluster.series() < 30 * 12 + 50, "{}", cluster.series());
}

/// What has lost its place while nobody heard of it is not shown when everything is told anew.
#[test]
fn a_gauge_that_went_unheard_is_gone_when_all_is_told_anew() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut one = Told::new(1, "balancer", 60_000);
    let gauge = |one: &Told, worker: &'static str| {
        metrics::with_local_recorder(one.metrics.registry(), || gauge!("troupe_depth", "worker" => worker))
    };
    let first = gauge(&one, "a");
    first.set(1.0);
    one.tell(&mut cluster, now);
    assert_eq!(value(&rendered(&cluster, now), "troupe_depth{worker=\"a\"}"), Some(1.0));
    first.set(OVER);
    drop(first);
    gauge(&one, "b").set(2.0);
    // Lost on the way.
    one.teller.read(&one.metrics, &one.about);
    one.teller.begin_anew();
    one.tell(&mut cluster, now);
    let page = rendered(&cluster, now);
    assert_eq!(value(&page, "troupe_depth{worker=\"a\"}"), None, "{page}");
    assert_eq!(value(&page, "troupe_depth{worker=\"b\"}"), Some(2.0), "{page}");
}

/// What ended a process that should have gone on, and what ends one in order.
#[test]
fn each_abnormal_end_of_a_php_process_is_a_problem_and_no_other_is() {
    let now = Instant::now();
    for (reason, said) in [
        ("died", Some("crash")),
        ("memory", Some("crash")),
        ("protocol", Some("crash")),
        ("timeout", Some("timeout")),
        ("recycled", None),
        ("replaced", None),
        ("idle", None),
        ("stopped", None),
        ("cancelled", None),
        ("stream-gone", None),
    ] {
        let mut cluster = Cluster::new();
        let mut one = Told::new(1, "php-pool", 60_000);
        one.tell(&mut cluster, now);
        metrics::with_local_recorder(one.metrics.registry(), || {
            counter!("troupe_php_restarts_total", "pool" => "default", "reason" => reason).increment(3);
        });
        one.tell(&mut cluster, now);
        cluster.tick(now, 0);
        let problems: Vec<String> = cluster.view(now).problems.into_iter().map(|problem| problem.text).collect();
        match said {
            Some(word) => assert!(problems.len() == 1 && problems[0].contains(word), "{reason}: {problems:?}"),
            None => assert_eq!(problems, Vec::<String>::new(), "{reason}"),
        }
        assert_eq!(newest(&cluster, "php.restarts"), 3.0);
    }
}

#[test]
fn a_second_tier_that_does_not_answer_is_told() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut one = Told::new(1, "gateway", 60_000);
    let asked = |one: &Told, result: &'static str| {
        metrics::with_local_recorder(one.metrics.registry(), || {
            counter!("troupe_gateway_cache_l2_lookups_total", "result" => result).increment(20);
        });
    };
    let told =
        |cluster: &Cluster| cluster.view(now).problems.iter().any(|problem| problem.text.contains("second tier"));
    one.tell(&mut cluster, now);
    asked(&one, "hit");
    one.tell(&mut cluster, now);
    cluster.tick(now, 0);
    assert_eq!((newest(&cluster, "cache.l2.hit"), told(&cluster)), (20.0, false));
    asked(&one, "away");
    one.tell(&mut cluster, now);
    cluster.tick(now, 1_000);
    assert!(told(&cluster));
}

#[test]
fn the_history_is_bounded() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    for second in 0..2_000 {
        cluster.tick(now, second * 1_000);
    }
    assert_eq!(cluster.history().last(usize::MAX).count(), history::SECONDS);
    assert_eq!(cluster.history().last(1).next().map(|frame| frame.at_ms), Some(1_999_000));
}

#[test]
fn a_flood_of_instances_and_series_is_bounded() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    for number in 0..MAX_INSTANCES as u32 + 20 {
        let mut uid = [0; 16];
        uid[..4].copy_from_slice(&number.to_le_bytes());
        let source = Source { uid, ..Source::default() };
        let snapshot = Snapshot { source, fresh: true, last: true, ..Snapshot::default() };
        cluster.take(snapshot, now);
    }
    assert_eq!((cluster.counts(now).0, cluster.refused().0), (MAX_INSTANCES, 20));
    let mut one = Told::new(255, "gateway", 1);
    one.tell(&mut cluster, now + LOST_AFTER);
    assert_eq!(cluster.counts(now + LOST_AFTER).0, 1, "a lost one has made room");
}

proptest! {
    /// Whatever peers make up, nothing panics and nothing grows.
    #[test]
    fn nonsense_is_survived(
        ids in proptest::collection::vec((any::<u32>(), any::<u64>()), 0..20),
        names in proptest::collection::vec((0u32..40, "[a-z\\n\"]{0,8}", proptest::collection::vec(any::<f64>(), 0..5)), 0..20),
        counts in proptest::collection::vec(any::<u64>(), 0..9),
        epochs in proptest::collection::vec((any::<bool>(), 0u32..3), 1..6),
    ) {
        use troupe_contracts::snapshot::{HistogramValue, Named, SeriesKind};
        let (mut cluster, now) = (Cluster::new(), Instant::now());
        for (fresh, epoch) in epochs {
            let named = names.iter().map(|(id, name, bounds)| Named {
                id: *id,
                kind: if bounds.is_empty() { SeriesKind::Counter } else { SeriesKind::Histogram },
                name: name.clone(),
                labels: vec![(name.clone(), name.clone())],
                bounds: bounds.clone(),
            });
            let histograms = names.iter().map(|(id, ..)| HistogramValue { id: *id, sum: f64::NAN, counts: counts.clone() });
            let small = ids.iter().map(|(id, count)| (id % 40, *count));
            let snapshot = Snapshot {
                fresh, epoch, last: fresh,
                named: named.collect(),
                counters: ids.iter().copied().chain(small).collect(),
                gauges: ids.iter().map(|(id, value)| (id % 40, *value as f64)).collect(),
                histograms: histograms.collect(),
                ..Snapshot::default()
            };
            cluster.take(snapshot, now);
            cluster.tick(now + Duration::from_secs(1), 0);
        }
        prop_assert!(cluster.series() <= 20);
        let view = cluster.view(now);
        prop_assert!(view.workers.is_empty());
        let _ = rendered(&cluster, now);
    }
}

#[test]
fn a_dashboard_may_look_back_as_far_as_is_kept() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    for second in 0..1_000 {
        cluster.tick(now, second * 1_000);
    }
    for (span, first) in [(Span::FiveMinutes, 700), (Span::FifteenMinutes, 100)] {
        let frames: Vec<Frame> = cluster.history().last(span.seconds()).cloned().collect();
        assert_eq!((frames.len(), frames[0].at_ms), (1_000 - first as usize, first * 1_000), "{span:?}");
        let page = crate::pages::html::page(&cluster.view(now), &frames, span);
        assert!(page.contains(span.words()) && page.matches("aria-current").count() == 1, "{page}");
    }
}

/// How long ago something was is told anew every ten seconds, so that what else is told with it need not be told again.
#[test]
fn ages_stand_still_for_ten_seconds() {
    let (mut cluster, start) = (Cluster::new(), Instant::now());
    let mut one = Told::new(1, "gateway", 60_000);
    one.about.slow = Some(vec![Slow { took_us: 9, ago_ms: 20_000, ..Slow::default() }]);
    let mut ages = Vec::new();
    for second in 0..40 {
        let now = start + Duration::from_secs(second);
        one.tell(&mut cluster, now);
        cluster.tick(now, 0);
        ages.push(cluster.view(now).slow[0].ago);
    }
    ages.dedup();
    assert!(ages.len() <= 5 && ages.windows(2).all(|pair| pair[0] < pair[1]), "{ages:?}");
}
