//! SIGTERM under load: nothing is lost while another instance exists, and what one process has begun it finishes.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use troupe_testkit::http;
use troupe_testkit::load::{Load, Plan};
use troupe_testkit::stack::{self, Stack};

use crate::support::{binary, functions};

/// Requests between two steps.
const SOME: usize = 150;
/// A failing test shows what the stack logged; a line for each request would hide it.
const QUIET: &str = "gateway.access_log = false\n";

/// What is sent with a request that may not be repeated: longer than what goes along with its head from service to service.
const BODY: &[u8] = &[b'x'; 100_000];

/// Ends both instances of `service` by SIGTERM, one after the other, each started again before the next; under load of requests
/// that may be repeated, and of such that may not and have a body. Every request must be answered with 200, at its first
/// attempt, and every drain must end with 0.
fn roll(service: &'static str, config: &str) {
    for (method, target, body) in
        [("GET", "/api/weighs?ms=30", &b""[..]), ("POST", "/api/weighs?ms=30&bytes=100000", BODY)]
    {
        let mut stack = stack::Plan::apart().two(service).start(binary(), &functions(), config);
        stack.instance_at(service, 1).await_ready();
        let addresses = stack.addresses.clone();
        let pause = Duration::from_millis(10);
        let load = Load::start(&Plan { addresses, clients: 16, method, body, target, pause });
        load.run(SOME);
        for index in 0..2 {
            let instance = stack.instance_at(service, index);
            instance.signal(Signal::TERM);
            let status = instance.wait();
            assert_eq!(status.code(), Some(0), "{service} {index}: {}", instance.log());
            load.run(SOME);
            instance.restart();
            instance.await_ready();
            load.run(SOME);
        }
        let (records, _) = load.stop();
        let failed: Vec<_> = records.iter().filter(|record| !record.served()).collect();
        assert!(failed.is_empty(), "{service}: {} of {} failed: {failed:?}", failed.len(), records.len());
    }
}

#[test]
fn a_rolling_restart_of_the_balancers_fails_no_request() {
    roll("balancer", QUIET);
}

#[test]
fn a_rolling_restart_of_the_php_pools_fails_no_request() {
    roll("php-pool", QUIET);
}

/// A listener that closes resets what the kernel has accepted for it; the delay is for whoever chooses a gateway to go
/// elsewhere before that, which the clients of the load do when a response says that the connection closes. All of them hear
/// that before the connection closes, so nothing is ever sent twice.
#[test]
fn a_rolling_restart_of_the_gateways_fails_no_request() {
    roll("gateway", &format!("node.drain_delay = \"1s\"\n{QUIET}"));
}

#[test]
fn sigterm_answers_a_hundred_slow_calls_first() {
    let mut stack =
        Stack::one_process(binary(), &functions(), &format!("{QUIET}[php.default.processes]\nmin = 20\nmax = 20\n"));
    let address = stack.address;
    let clients: Vec<_> = (0..100)
        .map(|_| thread::spawn(move || http::get(address, "/api/sleep?ms=400").map(|answer| answer.status)))
        .collect();
    // The calls take two seconds in all: by now each is running or waits.
    thread::sleep(Duration::from_millis(700));
    let instance = stack.instance("all");
    instance.signal(Signal::TERM);
    let status = instance.wait();
    let log = instance.log();
    let answers: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(answers.iter().all(|answer| matches!(answer, Ok(200))), "{answers:?}\n{log}");
    assert_eq!(status.code(), Some(0), "{log}");
}
