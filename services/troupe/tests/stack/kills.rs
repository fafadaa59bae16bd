//! Kill -9, and a service that freezes, under load: what was in flight, what comes meanwhile, and when all is well again.
//!
//! What holds: a call that was written to the dead ends in 502, at once where its sockets tell and within four seconds
//! where nothing does; a call that was not waits for `connect_wait` and is then told 503 with `Retry-After`; once the
//! listener is back, so is the service. Bounds are ten times what is expected.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use troupe_testkit::load::{Load, Plan, Record};
use troupe_testkit::stack::{self, Stack};
use troupe_testkit::wait;

use crate::support::{binary, functions};

/// Ten times what healing takes.
const HEAL: Duration = Duration::from_secs(10);
/// What the stacks of these tests are told: shorter than the default, so that the tests are.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
const CONFIG: &str = "mesh.connect_wait = \"1s\"\ngateway.access_log = false\n";
/// How long after a death callers may not have heard of it: ten times what a loaded machine needs for a readable socket.
const NEWS: Duration = Duration::from_millis(500);
/// Clients of the load.
const CLIENTS: usize = 16;

fn plan(stack: &Stack, method: &'static str) -> Plan {
    Plan {
        addresses: stack.addresses.clone(),
        clients: CLIENTS,
        method,
        body: b"",
        target: "/api/sleep?ms=30",
        pause: Duration::from_millis(10),
    }
}

/// Those of `records` that were begun after `from` and before `to`.
fn begun(records: &[Record], from: Instant, to: Instant) -> impl Iterator<Item = &Record> {
    records.iter().filter(move |record| record.begun > from && record.begun < to)
}

#[test]
fn the_only_balancer_or_php_pool_dies_under_load_and_comes_back() {
    for service in ["balancer", "php-pool"] {
        let mut stack = Stack::apart(binary(), &functions(), CONFIG);
        let load = Load::start(&plan(&stack, "GET"));
        load.run(200);
        let killed = Instant::now();
        stack.instance(service).kill();
        let died = Instant::now();
        thread::sleep(CONNECT_WAIT + 2 * NEWS);
        stack.restart(service);
        let back = Instant::now();
        stack.await_serving(HEAL);
        let well = Instant::now();
        load.run(200);
        let (records, stood_still) = load.stop();

        let news = NEWS + stood_still;
        let hit = records.iter().filter(|record| record.begun < killed && record.status == 502);
        assert!(hit.count() > 0, "{service}: calls in flight end in 502: {records:?}");
        for record in &records {
            match record.status {
                200 => {}
                502 => {
                    assert!(record.begun < died + news, "{service}: {record:?} after its death was known");
                    assert!(record.ended < died + 2 * news, "{service}: {record:?} was not told at once");
                }
                503 => {
                    assert!(!record.retry_after.is_empty(), "{service}: {record:?}");
                    assert!(record.took() < CONNECT_WAIT * 3 + stood_still, "{service}: {record:?} waited too long");
                }
                _ => panic!("{service}: {record:?}"),
            }
        }
        let waited = begun(&records, died + NEWS, back).filter(|record| record.status == 503);
        let patience = waited.map(Record::took).min().expect("calls meanwhile are told 503");
        assert!(patience >= CONNECT_WAIT.mul_f64(0.9), "{service}: told 503 after {patience:?} already");
        assert!(begun(&records, well, Instant::now()).all(|record| record.status == 200), "{service}: {records:?}");
    }
}

#[test]
fn a_balancer_that_freezes_is_dead_within_four_seconds() {
    let mut stack = Stack::apart(binary(), &functions(), CONFIG);
    let load = Load::start(&plan(&stack, "GET"));
    load.run(200);
    let frozen = Instant::now();
    stack.instance("balancer").signal(Signal::STOP);
    // Nothing tells, except that it says nothing.
    let gateway = stack.instance("gateway");
    wait::until("the gateway to miss it", 2 * HEAL, || gateway.log().contains("has been silent").then_some(()));
    thread::sleep(2 * CONNECT_WAIT);
    stack.instance("balancer").signal(Signal::CONT);
    let back = Instant::now();
    stack.await_serving(HEAL);
    let well = Instant::now();
    load.run(200);
    let (records, stood_still) = load.stop();

    let dead = frozen + Duration::from_secs(5) + stood_still;
    let in_flight = records.iter().filter(|record| record.begun <= frozen && record.ended > frozen);
    for record in in_flight {
        assert!(record.status == 200 || record.status == 502 && record.ended < dead, "{record:?}");
    }
    for record in begun(&records, dead, back) {
        assert!(matches!(record.status, 200 | 503), "{record:?}");
    }
    let told: Vec<_> = begun(&records, frozen, back).filter(|record| record.status == 503).collect();
    assert!(!told.is_empty(), "calls meanwhile are told 503: {records:?}");
    assert!(told.iter().all(|record| !record.retry_after.is_empty()), "{told:?}");
    assert!(begun(&records, well, Instant::now()).all(|record| record.status == 200), "{records:?}");
}

#[test]
fn where_a_second_balancer_lives_only_what_the_first_had_fails() {
    let mut stack = stack::Plan::apart().two("balancer").start(binary(), &functions(), CONFIG);
    stack.instance_at("balancer", 1).await_ready();
    let load = Load::start(&plan(&stack, "GET"));
    load.run(200);
    stack.instance("balancer").kill();
    let died = Instant::now();
    load.run(500);
    only_the_written_fail(load.stop(), died);
}

#[test]
fn where_a_second_balancer_lives_one_that_freezes_costs_what_it_had_and_the_other_one_serves() {
    for method in ["GET", "POST"] {
        let mut stack = stack::Plan::apart().two("balancer").start(binary(), &functions(), CONFIG);
        stack.instance_at("balancer", 1).await_ready();
        let load = Load::start(&plan(&stack, method));
        load.run(200);
        let frozen = Instant::now();
        stack.instance("balancer").signal(Signal::STOP);
        let gateway = stack.instance("gateway");
        wait::until("the gateway to miss it", 2 * HEAL, || gateway.log().contains("has been silent").then_some(()));
        let missed = Instant::now();
        load.run(500);
        stack.instance("balancer").signal(Signal::CONT);
        load.run(500);
        let (records, stood_still) = load.stop();

        // Nothing but silence tells, and that is listened to for four seconds.
        let dead = frozen + Duration::from_secs(5) + stood_still;
        let failed = failed(&records);
        for record in &failed {
            assert!(matches!(record.status, 502 | 504) && !record.resent, "{method}: {record:?}");
            assert!(record.begun < dead && record.ended < dead + NEWS, "{method}: {record:?}");
        }
        // A client waits for each call that it has given the frozen one, so there are not many.
        assert!(!failed.is_empty() && failed.len() <= 2 * CLIENTS, "{method}: {failed:?}");
        let meanwhile = begun(&records, frozen, missed).filter(|record| record.status == 200).count();
        assert!(meanwhile > 100, "{method}: the other one served {meanwhile} meanwhile");
    }
}

#[test]
fn where_a_second_php_pool_lives_no_call_fails_that_may_be_repeated() {
    for method in ["GET", "POST"] {
        let mut stack = stack::Plan::apart().two("php-pool").start(binary(), &functions(), CONFIG);
        let load = Load::start(&plan(&stack, method));
        load.run(500);
        stack.instance("php-pool").kill();
        let died = Instant::now();
        load.run(500);
        let results = load.stop();
        match method {
            "GET" => assert!(failed(&results.0).is_empty(), "{:?}", failed(&results.0)),
            _ => only_the_written_fail(results, died),
        }
    }
}

#[test]
fn where_a_second_php_pool_lives_a_frozen_one_fails_no_call_that_may_be_repeated() {
    let mut stack = stack::Plan::apart().two("php-pool").start(binary(), &functions(), CONFIG);
    let load = Load::start(&plan(&stack, "GET"));
    load.run(500);
    stack.instance("php-pool").signal(Signal::STOP);
    // Its links end once they have been silent for too long; what was in flight on them is repeated.
    let balancer = stack.instance("balancer");
    wait::until("the balancer to miss it", 2 * HEAL, || balancer.log().contains("has been silent").then_some(()));
    load.run(200);
    stack.instance("php-pool").signal(Signal::CONT);
    load.run(200);
    let (records, _) = load.stop();
    assert!(failed(&records).is_empty(), "{:?}", failed(&records));
}

#[test]
fn a_gateway_that_dies_takes_its_waiting_calls_with_it() {
    let config = format!("{CONFIG}[php.default.processes]\nmin = 2\nmax = 2\n");
    let mut stack = Stack::apart(binary(), &functions(), &config);
    let connections: Vec<_> = (0..100)
        .map(|_| {
            let mut connection = stack.connect();
            connection.send(b"GET /api/sleep?ms=400 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            connection
        })
        .collect();
    thread::sleep(NEWS);
    stack.instance("gateway").kill();
    stack.restart("gateway");
    let begun = Instant::now();
    stack.await_serving(HEAL);
    // All of them would have taken twenty seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "served after {:?}", begun.elapsed());
    drop(connections);
}

/// Every failure is a 502 of a call that may have been written to the dead before its death was known.
fn only_the_written_fail((records, stood_still): (Vec<Record>, Duration), died: Instant) {
    let failed = failed(&records);
    let news = NEWS + stood_still;
    for record in &failed {
        assert_eq!(record.status, 502, "{record:?}");
        assert!(record.begun < died + news && record.ended < died + 2 * news, "{record:?}");
    }
    assert!(failed.len() <= 2 * CLIENTS, "more than was in flight: {failed:?}");
}

fn failed(records: &[Record]) -> Vec<&Record> {
    records.iter().filter(|record| !record.served()).collect()
}
