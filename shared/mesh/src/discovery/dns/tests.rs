use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

use super::*;

#[derive(Debug, Default)]
struct Answers(Mutex<Option<Vec<&'static str>>>);

impl Answers {
    fn say(&self, answer: Option<Vec<&'static str>>) {
        *self.0.lock() = answer;
    }
}

impl Resolve for Answers {
    fn resolve(&self, _host: &str, port: u16) -> Resolved {
        let answer = match &*self.0.lock() {
            Some(ips) => Ok(ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect()),
            None => Err(io::Error::other("resolver down")),
        };
        Box::pin(async move { answer })
    }
}

/// Knows each name by one address, and says so when the name's time has passed.
#[derive(Debug)]
struct Slow {
    takes: fn(&str) -> Duration,
    asked: AtomicU64,
}

impl Slow {
    fn new(takes: fn(&str) -> Duration) -> Arc<Self> {
        Arc::new(Self { takes, asked: AtomicU64::new(0) })
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Slow {
    fn resolve(&self, host: &str, port: u16) -> Resolved {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let takes = (self.takes)(host);
        Box::pin(async move {
            sleep(takes).await;
            Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
        })
    }
}

/// Counts look-ups that failed.
#[derive(Default)]
struct Failures(Arc<AtomicU64>);

impl Failures {
    fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Recorder for Failures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            "troupe_discovery_failed_lookups_total" => Counter::from_arc(Arc::clone(&self.0)),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn addresses(watched: &mut watch::Receiver<Endpoints>) -> Vec<String> {
    watched.borrow_and_update().iter().map(|endpoint| endpoint.address.to_string()).collect()
}

async fn settle(watched: &mut watch::Receiver<Endpoints>) -> Vec<String> {
    watched.changed().await.expect("the source lives");
    addresses(watched)
}

#[tokio::test(start_paused = true)]
async fn all_addresses_of_a_name_are_published_and_followed() {
    let resolver = Arc::new(Answers::default());
    resolver.say(Some(vec!["10.0.0.2", "10.0.0.1"]));
    let dns =
        DnsDiscovery::start("balancer", ["balancer:7401", "unix:/b"], Take::All, resolver.clone()).expect("valid");
    let mut watched = dns.watch();
    assert_eq!(addresses(&mut watched), ["unix:/b"]);
    assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401", "10.0.0.2:7401", "unix:/b"]);
    let before = Instant::now();
    resolver.say(Some(vec!["10.0.0.3", "10.0.0.1"]));
    assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401", "10.0.0.3:7401", "unix:/b"]);
    assert!(before.elapsed() <= RESOLVE_EVERY);
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_the_last_set() {
    let resolver = Arc::new(Answers::default());
    resolver.say(Some(vec!["10.0.0.1"]));
    let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::All, resolver.clone()).expect("valid");
    let mut watched = dns.watch();
    assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401"]);
    for outage in [None, Some(vec![])] {
        resolver.say(outage);
        tokio::time::sleep(RESOLVE_EVERY * 10).await;
        assert!(!watched.has_changed().expect("the source lives"));
        assert_eq!(addresses(&mut watched), ["10.0.0.1:7401"]);
    }
    resolver.say(Some(vec!["10.0.0.9"]));
    assert_eq!(settle(&mut watched).await, ["10.0.0.9:7401"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_tried_often_at_first() {
    let resolver = Arc::new(Answers::default());
    let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::All, resolver.clone()).expect("valid");
    let mut watched = dns.watch();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = Instant::now();
    resolver.say(Some(vec!["10.0.0.1"]));
    assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401"]);
    assert!(before.elapsed() <= RESOLVE_FIRST_EVERY);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_one_instance_keeps_its_address() {
    let resolver = Arc::new(Answers::default());
    resolver.say(Some(vec!["10.0.0.2", "10.0.0.1"]));
    let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::One, resolver.clone()).expect("valid");
    let mut watched = dns.watch();
    assert_eq!(settle(&mut watched).await, ["10.0.0.2:7401"]);
    let ways = |watched: &mut watch::Receiver<Endpoints>| -> Vec<String> {
        let found = watched.borrow_and_update();
        found.iter().flat_map(Endpoint::ways).map(|way| way.name.to_string()).collect()
    };
    assert_eq!(ways(&mut watched), ["balancer:7401 (10.0.0.2)", "balancer:7401 (10.0.0.1)"]);
    resolver.say(Some(vec!["10.0.0.1", "10.0.0.2"]));
    sleep(RESOLVE_EVERY * 2).await;
    assert!(!watched.has_changed().expect("the source lives"));
    resolver.say(Some(vec!["10.0.0.3", "10.0.0.1"]));
    assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401"]);
    assert_eq!(ways(&mut watched), ["balancer:7401 (10.0.0.1)", "balancer:7401 (10.0.0.3)"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_name_with_a_flood_of_addresses_a_few_lead_to_one_instance() {
    let resolver = Arc::new(Answers::default());
    resolver.say(Some(["10.0.0.1"].into_iter().chain((0..1000).map(|_| "10.0.0.2")).collect()));
    let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::One, resolver.clone()).expect("valid");
    let mut watched = dns.watch();
    settle(&mut watched).await;
    assert_eq!(watched.borrow_and_update().iter().flat_map(Endpoint::ways).count(), 2, "each once");
    let all: Vec<String> = (1..=200).map(|last| format!("10.0.1.{last}")).collect();
    resolver.say(Some(all.into_iter().map(|ip| &*ip.leak()).collect()));
    settle(&mut watched).await;
    assert_eq!(watched.borrow().iter().flat_map(Endpoint::ways).count(), MAX_WAYS);
}

#[tokio::test(start_paused = true)]
async fn a_name_whose_first_server_is_dead_is_found_by_the_second_and_nothing_is_told() {
    let failures = Failures::default();
    let _recorder = metrics::set_default_local_recorder(&failures);
    let resolver = Slow::new(|_| Duration::from_secs(5));
    let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::All, resolver.clone()).expect("valid");
    let mut watched = dns.watch();
    let found = timeout(Duration::from_secs(60), settle(&mut watched)).await;
    assert_eq!(found.expect("an answer that takes 5 s is an answer"), ["10.0.0.1:7401"]);
    sleep(Duration::from_secs(60)).await;
    assert!(resolver.asked() > 1, "it is looked up again");
    assert_eq!(failures.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_is_late_is_told_and_waited_for_all_the_same() {
    let failures = Failures::default();
    let _recorder = metrics::set_default_local_recorder(&failures);
    let resolver = Slow::new(|_| LATE_AFTER * 10 + Duration::from_secs(1));
    let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::All, resolver.clone()).expect("valid");
    let mut watched = dns.watch();
    let found = timeout(LATE_AFTER * 20, settle(&mut watched)).await;
    assert_eq!(found.expect("its answer is taken whenever it comes"), ["10.0.0.1:7401"]);
    assert_eq!((resolver.asked(), failures.count()), (1, 10), "one look-up, told again and again");
}

#[tokio::test(start_paused = true)]
async fn names_do_not_wait_for_each_other() {
    let resolver = Slow::new(|host| if host == "slow" { RESOLVE_EVERY * 1000 } else { Duration::ZERO });
    let dns = DnsDiscovery::start("balancer", ["slow:1", "fast:2"], Take::All, resolver.clone()).expect("valid");
    let before = Instant::now();
    assert_eq!(settle(&mut dns.watch()).await, ["10.0.0.1:2"]);
    assert!(before.elapsed() < RESOLVE_FIRST_EVERY, "{:?}", before.elapsed());
    sleep(RESOLVE_EVERY * 10).await;
    assert!((8..=11).contains(&resolver.asked()), "one look-up of the slow, {} in all", resolver.asked());
}
