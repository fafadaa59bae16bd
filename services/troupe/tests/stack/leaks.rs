//! What a thousand unlucky requests leave behind: nothing.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use troupe_testkit::http::{self, Connection};
use troupe_testkit::stack::Stack;
use troupe_testkit::{processes, wait};

use crate::support::{binary, functions, in_both};

/// Ten times what it takes until all is quiet again.
const QUIET: Duration = Duration::from_secs(20);
/// Descriptors that may differ between two quiet moments: a connection that is being closed, an admin request.
const SLACK: usize = 6;
const UNLUCKY: usize = 1_000;
const CLIENTS: usize = 20;

const CONFIG: &str = "gateway.access_log = false\n[php.default.processes]\nmin = 8\nmax = 8\n";

/// Open descriptors of each instance.
fn descriptors(stack: &Stack) -> Vec<usize> {
    stack.instances.iter().map(|instance| processes::descriptors(instance.pid())).collect()
}

/// Waits until no instance has more descriptors than it had.
fn descriptors_are_back(stack: &Stack, before: &[usize]) {
    wait::until(&format!("descriptors to be {before:?} again, not {:?}", descriptors(stack)), QUIET, || {
        let now = descriptors(stack);
        now.iter().zip(before).all(|(now, before)| *now <= before + SLACK).then_some(())
    });
}

/// As many calls at once as there are processes are with as many processes at once: no slot is lost.
fn every_slot_serves(stack: &Stack) {
    let address = stack.address;
    wait::until("all slots to serve at once", QUIET, || {
        let begun = Instant::now();
        let call = |_| thread::spawn(move || http::get(address, "/api/sleep?ms=500").unwrap().json()["pid"].as_u64());
        let calls: Vec<_> = (0..8).map(call).collect();
        let pids: HashSet<_> = calls.into_iter().filter_map(|call| call.join().unwrap()).collect();
        // Two calls one behind the other would take twice as long.
        (pids.len() == 8 && begun.elapsed() < Duration::from_millis(990)).then_some(())
    });
}

/// The sum of the samples of a gauge or counter over all instances.
fn sum(stack: &Stack, name: &str) -> f64 {
    let texts = stack.instances.iter().map(|instance| instance.admin("/metrics").unwrap().text());
    let of = |text: String| -> f64 {
        let samples =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    texts.map(of).sum()
}

#[test]
fn clients_that_leave_leave_nothing() {
    in_both(CONFIG, |stack| {
        every_slot_serves(stack);
        let before = descriptors(stack);
        let address = stack.address;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                thread::spawn(move || {
                    for round in 0..UNLUCKY / CLIENTS {
                        let mut connection = Connection::open(address).unwrap();
                        let target = ["/api/sleep?ms=20", "/api/stream?pieces=1000&bytes=1000&ms=1"][client % 2];
                        connection.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
                        match round % 3 {
                            0 => {}
                            1 => thread::sleep(Duration::from_millis(5)),
                            _ => drop(connection.head()),
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        every_slot_serves(stack);
        for gauge in
            ["troupe_gateway_requests_in_flight", "troupe_balancer_worker_in_flight", "troupe_balancer_queue_depth"]
        {
            wait::until(&format!("{gauge} to be 0"), QUIET, || (sum(stack, gauge) == 0.0).then_some(()));
        }
        descriptors_are_back(stack, &before);
    });
}

#[test]
fn a_thousand_deaths_leave_no_zombie_and_no_descriptor() {
    let mut stack = Stack::one_process(binary(), &functions(), CONFIG);
    let address = stack.address;
    every_slot_serves(&stack);
    let before = descriptors(&stack);
    let bystander = thread::spawn(move || {
        let mut connection = Connection::open(address).unwrap();
        let statuses = (0..200).map(|_| {
            thread::sleep(Duration::from_millis(10));
            connection.request("GET", "/api/hello", &[], b"").unwrap().status
        });
        statuses.filter(|status| *status != 200).collect::<Vec<_>>()
    });
    let victims: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                for _ in 0..UNLUCKY / 4 {
                    // Not to be repeated, so that each kills one process.
                    let response = connection.request("POST", "/api/killed", &[], b"").unwrap();
                    assert_eq!(response.status, 502, "{}", response.text());
                }
            })
        })
        .collect();
    for victim in victims {
        victim.join().unwrap();
    }
    assert_eq!(bystander.join().unwrap(), Vec::<u16>::new(), "other calls are served");
    let pool = stack.instance("php-pool").pid();
    wait::until("a full pool without zombies", QUIET, || {
        let children = processes::descendants(pool);
        (children.len() >= 9 && children.iter().all(|pid| processes::alive(*pid))).then_some(())
    });
    every_slot_serves(&stack);
    descriptors_are_back(&stack, &before);
}
