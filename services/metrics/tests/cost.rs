//! What the metrics service costs with fifty instances that report and ten dashboards that are open.
//!
//! The figures of docs/performance.md are what this prints in a release build on an idle machine; what it asserts is ten times
//! as much.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test waits on threads of its own, says what it measured, and a failed unwrap is a failed test"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use metrics::{Counter, Histogram, counter, gauge, histogram};
use troupe_contracts::snapshot::{Pool, Slow, Snapshot, Source, Worker};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{Contract, Envelope};
use troupe_mesh::deadline::Deadline;
use troupe_metrics::MetricsService;
use troupe_metrics::reporter::{About, Tables, Teller};
use troupe_node::admin::{AdminOptions, AdminServer, AdminState, Api, Identity, Readiness};
use troupe_node::metrics::Metrics;
use troupe_node::threads::{Watchdog, WatchdogOptions};

const INSTANCES: u8 = 50;
const VIEWERS: usize = 10;
const ROUTES: usize = 20;
/// Workers of each balancer; every fifth instance is one.
const WORKERS: usize = 50;
const MEASURED: Duration = Duration::from_secs(10);

/// An instance that counts as a busy one does.
struct Simulated {
    metrics: Metrics,
    teller: Teller,
    about: About,
    counters: Vec<Counter>,
    durations: Vec<Histogram>,
}

impl Simulated {
    fn new(number: u8) -> Self {
        let metrics = Metrics::detached();
        let (counters, durations) = metrics::with_local_recorder(metrics.registry(), || {
            let routes = (0..ROUTES).map(|route| format!("/api/route-{route}"));
            let counters = routes.clone().flat_map(|route| {
                ["2xx", "3xx", "4xx", "5xx"].map(|status| {
                    counter!("troupe_gateway_requests_total", "route" => route.clone(), "method" => "GET", "status" => status)
                })
            });
            let durations = routes.map(|route| histogram!("troupe_gateway_request_duration_seconds", "route" => route));
            for place in 0..150 {
                gauge!("troupe_actor_inbox_depth", "actor" => place.to_string()).set(f64::from(place));
            }
            (counters.collect(), durations.collect())
        });
        let balancer = number.is_multiple_of(5);
        let service = if balancer { "balancer" } else { "gateway" };
        let worker = |place: usize| Worker {
            pool: "default".into(),
            worker: format!("php-pool@host-{place}:1"),
            instance: format!("{place:032}"),
            state: "ready".into(),
            reason: "ready".into(),
            score: 100.0 + place as f32,
            ..Worker::default()
        };
        let slow = |place: usize| Slow {
            took_us: 1_000 * place as u64,
            path: "/api/route".into(),
            request_id: "f".repeat(32),
            stages: vec![("php".into(), 900), ("queue".into(), 100)],
            ..Slow::default()
        };
        let about = About {
            source: Source {
                uid: [number; 16],
                instance: format!("{service}@host-{number}:1"),
                services: vec![service.into()],
                uptime_ms: 60_000,
                ..Source::default()
            },
            tables: if balancer {
                Tables { pools: vec![Pool::default()], workers: (0..WORKERS).map(worker).collect() }
            } else {
                Tables::default()
            },
            slow: (!balancer).then(|| (0..20).rev().map(slow).collect()),
            ..About::default()
        };
        Self { metrics, teller: Teller::default(), about, counters, durations }
    }

    /// A second of it, as it goes over a link.
    fn second(&mut self) -> Vec<BytesMut> {
        for (place, counter) in self.counters.iter().enumerate() {
            counter.increment(place as u64 + 1);
        }
        for (place, durations) in self.durations.iter().enumerate() {
            durations.record(0.001 * place as f64);
        }
        self.about.source.uptime_ms += 1_000;
        let moment = self.about.source.uptime_ms;
        for (place, worker) in self.about.tables.workers.iter_mut().enumerate() {
            busy(
                worker,
                moment
                    .wrapping_mul(31)
                    .wrapping_add(place as u64)
                    .wrapping_mul(u64::from(self.about.source.uid[0]) + 1),
            );
        }
        let parts = self.teller.read(&self.metrics, &self.about);
        let encoded = |part: Snapshot| {
            let mut head = BytesMut::new();
            part.encode_head(&mut head);
            head
        };
        parts.into_iter().map(encoded).collect()
    }
}

/// What a worker with a lot to do says in a second: another score, latency, number of calls and of busy processes than the second
/// before, and so another place in the order.
fn busy(worker: &mut Worker, moment: u64) {
    let mixed = moment.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let share = |shift: u32| f32::from((mixed >> shift) as u8) / 255.0;
    worker.latency_us = 1_000.0 + 400.0 * share(8);
    worker.in_flight = 4 + (8.0 * share(16)) as u32;
    worker.foreign = (8.0 * share(24)) as u32;
    worker.cap = 32;
    worker.gain = 1.0;
    worker.load.slots = 16;
    worker.load.processes = 16;
    worker.load.busy = 8 + (8.0 * share(32)) as u32;
    worker.load.memory_permille = 300;
    worker.score = 1e6 / (worker.latency_us * (worker.in_flight + 1) as f32);
}

/// Processor time of the threads whose name begins so, in seconds.
fn cpu(names: &[&str]) -> f64 {
    let mut ticks = 0u64;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if names.iter().any(|name| read("comm").starts_with(name)) {
            let schedstat = read("schedstat");
            ticks += schedstat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    ticks as f64 / 1e9
}

fn state(metrics: &Metrics) -> AdminState {
    let identity = || Identity { service: "test".into(), instance: "x/1".into(), version: "0", commit: "unknown" };
    AdminState {
        readiness: Readiness::new(),
        watchdog: Watchdog::start(WatchdogOptions::default()).unwrap(),
        metrics: metrics.clone(),
        api: Api::new(identity()),
    }
}

fn viewer(address: SocketAddr, seen: Arc<AtomicU64>, read: Arc<AtomicU64>, over: Arc<AtomicBool>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while !over.load(Ordering::Relaxed) && lines.read_line(&mut line).is_ok_and(|read| read > 0) {
        seen.fetch_add(u64::from(line.starts_with("event: second")), Ordering::Relaxed);
        read.fetch_add(line.len() as u64, Ordering::Relaxed);
        line.clear();
    }
}

fn scraped(address: SocketAddr, page: &str) -> (Duration, usize) {
    let from = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    let ask = format!("GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    assert!(text.starts_with(b"HTTP/1.1 200"));
    (from.elapsed(), text.len())
}

#[test]
fn fifty_instances_and_ten_dashboards_cost_a_part_of_a_core() {
    let metrics = Metrics::detached();
    let service = actix_rt::System::new().block_on(MetricsService::start(&metrics)).unwrap();
    let options = AdminOptions::new("127.0.0.1:0".parse().unwrap());
    let admin = AdminServer::start(&options, state(&metrics), service.pages()).unwrap();
    let (address, faces) = (admin.address(), service.faces());
    let over = Arc::new(AtomicBool::new(false));

    let (sent, told) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let largest = Arc::new(AtomicU64::new(0));
    let reporting = {
        let (over, sent, told, largest) =
            (Arc::clone(&over), Arc::clone(&sent), Arc::clone(&told), Arc::clone(&largest));
        thread::Builder::new().name("instances".into()).spawn(move || {
            actix_rt::System::new().block_on(async move {
                let face = faces();
                let mut instances: Vec<Simulated> = (0..INSTANCES).map(Simulated::new).collect();
                while !over.load(Ordering::Relaxed) {
                    for instance in &mut instances {
                        let mut bytes = 0;
                        for head in instance.second() {
                            bytes += head.len() as u64;
                            let part = Snapshot::decode(head.freeze(), Body::Empty).unwrap();
                            let call = Envelope::new(part, Deadline::after(Duration::from_secs(5)));
                            assert!(!face.call(call).await.unwrap().anew);
                        }
                        largest.fetch_max(bytes, Ordering::Relaxed);
                        sent.fetch_add(bytes, Ordering::Relaxed);
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        })
    };
    let (seen, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let viewers: Vec<_> = (0..VIEWERS)
        .map(|_| {
            let (seen, read, over) = (Arc::clone(&seen), Arc::clone(&read), Arc::clone(&over));
            thread::Builder::new().name("viewer".into()).spawn(move || viewer(address, seen, read, over)).unwrap()
        })
        .collect();

    // The first seconds tell names and whole pages.
    thread::sleep(Duration::from_secs(3));
    let names = ["collector", "admin", "actix-rt"];
    let (before, from) = (cpu(&names), Instant::now());
    let (bytes, snapshots, events) =
        (sent.load(Ordering::Relaxed), told.load(Ordering::Relaxed), seen.load(Ordering::Relaxed));
    let before_read = read.load(Ordering::Relaxed);
    thread::sleep(MEASURED);
    let share = (cpu(&names) - before) / from.elapsed().as_secs_f64();
    let snapshots = told.load(Ordering::Relaxed) - snapshots;
    let size = (sent.load(Ordering::Relaxed) - bytes) / snapshots.max(1);
    let events = seen.load(Ordering::Relaxed) - events;
    let event_size = (read.load(Ordering::Relaxed) - before_read) / events.max(1);
    let (merged, merged_size) = scraped(address, "/metrics/cluster");
    let (page, page_size) = scraped(address, "/dashboard");
    over.store(true, Ordering::Relaxed);

    println!("processor: {:.1} % of a core; events: {events}; snapshots: {snapshots}", share * 100.0);
    println!("event: {event_size} bytes each second to a dashboard");
    println!("snapshot: {size} bytes each second, the first of an instance {} bytes", largest.load(Ordering::Relaxed));
    println!("/metrics/cluster: {merged:?}, {merged_size} bytes; /dashboard: {page:?}, {page_size} bytes");
    assert!(events >= VIEWERS as u64, "the dashboards are told nothing: {events}");
    assert!(snapshots >= u64::from(INSTANCES), "{snapshots}");
    // Ten times the goals: 5 % of a core, 100 ms, and some 5 KiB.
    assert!(share < 0.5, "{share}");
    assert!(merged < Duration::from_secs(1) && page < Duration::from_secs(1), "{merged:?} {page:?}");
    assert!(size < 50 * 1024, "{size}");
    reporting.unwrap().join().unwrap();
    admin.stop();
    viewers.into_iter().for_each(|viewer| viewer.join().unwrap());
}
