//! What clients see when parts of the stack die, hang or are replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use troupe_testkit::http::{self, Connection};
use troupe_testkit::stack::Stack;
use troupe_testkit::{processes, wait};

use crate::support::{binary, functions, in_both};

/// Ten times what healing takes.
const HEAL: Duration = Duration::from_secs(10);

#[test]
fn a_process_that_dies_costs_its_own_request_only() {
    in_both("", |stack| {
        let address = stack.address;
        let bystander = thread::spawn(move || http::get(address, "/api/sleep?ms=500").unwrap().status);
        let response = stack.get("/api/killed");
        assert_eq!(response.status, 502, "{}", response.text());
        assert!(!response.header("x-request-id").is_empty());
        assert_eq!(bystander.join().unwrap(), 200);
        for _ in 0..20 {
            assert_eq!(stack.get("/api/hello").status, 200);
        }
        wait::until("the death to be logged", HEAL, || stack.logs().contains("signal").then_some(()));
    });
}

#[test]
fn a_function_that_hangs_is_killed_and_answered_504() {
    in_both("[php.default]\ntimeout = \"500ms\"\n[php.default.processes]\nmin = 2\nmax = 2\n", |stack| {
        let response = stack.get("/api/sleep?ms=60000");
        assert_eq!(response.status, 504, "{}", response.text());
        assert!(response.text().contains("php"), "the stage is named: {}", response.text());
        assert_eq!(stack.get("/api/hello").status, 200);
    });
}

/// The request's own time is the only short one: the gateway's, which has to leave it to those behind to say who spent it.
#[test]
fn a_504_names_the_stage_that_spent_the_time_of_the_request() {
    let config = "gateway.request_timeout = \"500ms\"\n[php.default]\ntimeout = \"60s\"\nqueue = { max = 100, wait = \"60s\" }\n\
                  [php.default.processes]\nmin = 1\nmax = 1\n";
    in_both(config, |stack| {
        let stage = |answer: http::Response| {
            assert_eq!(answer.status, 504, "{}", answer.text());
            answer.json()["stage"].as_str().unwrap_or_default().to_owned()
        };
        // One after another, on a clock that looks at each connection four times a second: chance would not do it ten times.
        for _ in 0..10 {
            assert_eq!(stage(stack.get("/api/sleep?ms=60000")), "php");
            stack.await_serving(HEAL);
        }
        let address = stack.address;
        let clients: Vec<_> =
            (0..8).map(|_| thread::spawn(move || http::get(address, "/api/sleep?ms=60000").unwrap())).collect();
        let stages: Vec<_> = clients.into_iter().map(|client| stage(client.join().unwrap())).collect();
        assert!(stages.iter().any(|stage| stage == "php"), "one ran: {stages:?}");
        assert!(stages.iter().any(|stage| stage == "queue"), "others waited in the balancer: {stages:?}");
        assert!(stages.iter().all(|stage| ["php", "php-pool", "queue"].contains(&stage.as_str())), "{stages:?}");
    });
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    in_both("[php.default.processes]\nmin = 1\nmax = 1\n", |stack| {
        for _ in 0..20 {
            let mut connection = stack.connect();
            connection.send(b"GET /api/sleep?ms=50 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            drop(connection);
        }
        assert_eq!(stack.get("/api/hello").status, 200);
    });
}

#[test]
fn overload_is_said_at_once() {
    let config = "[php.default]\nqueue = { max = 4, wait = \"10s\" }\n[php.default.processes]\nmin = 1\nmax = 1\n";
    in_both(config, |stack| {
        let address = stack.address;
        let clients: Vec<_> = (0..30)
            .map(|_| {
                thread::spawn(move || {
                    let start = Instant::now();
                    (http::get(address, "/api/sleep?ms=300").unwrap(), start.elapsed())
                })
            })
            .collect();
        let answers: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(answer, _)| answer.status == 200);
        assert!(served.len() >= 5, "{} served", served.len());
        assert!(!refused.is_empty());
        for (answer, _) in refused {
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(!answer.header("retry-after").is_empty());
        }
    });
}

#[test]
fn a_killed_php_pool_leaves_no_process_behind() {
    in_both("[php.default.processes]\nmin = 4\nmax = 4\n", |stack| {
        let service = stack.instance("php-pool");
        let children = wait::until("the zygote and four processes", HEAL, || {
            let children = processes::descendants(service.pid());
            (children.len() >= 5).then_some(children)
        });
        service.signal(Signal::KILL);
        wait::until("every PHP process to be gone", HEAL, || {
            children.iter().all(|pid| !processes::alive(*pid)).then_some(())
        });
    });
}

#[test]
fn a_killed_zygote_is_replaced() {
    in_both("", |stack| {
        let pool = stack.instance("php-pool").pid();
        let zygote =
            processes::descendants(pool).into_iter().find(|pid| processes::command_line(*pid).contains("zygote.php"));
        processes::signal(zygote.expect("a zygote"), Signal::KILL);
        wait::until("the pool to answer again", HEAL, || (stack.get("/api/hello").status == 200).then_some(()));
    });
}

#[test]
fn services_come_back_after_kill_9() {
    let mut stack = Stack::apart(binary(), &functions(), "");
    for service in ["balancer", "php-pool"] {
        let instance = stack.instance(service);
        instance.signal(Signal::KILL);
        instance.wait();
        let away = stack.get("/api/hello");
        assert_eq!(away.status, 503, "while the {service} is away: {}", away.text());
        assert!(!away.header("retry-after").is_empty());
        stack.restart(service);
        wait::until("an answer", HEAL, || (stack.get("/api/hello").status == 200).then_some(()));
    }
}

#[test]
fn a_call_in_flight_ends_in_502_when_its_service_is_killed() {
    for service in ["balancer", "php-pool"] {
        let mut stack = Stack::apart(binary(), &functions(), "");
        let address = stack.address;
        let client = thread::spawn(move || http::get(address, "/api/sleep?ms=8000").unwrap());
        thread::sleep(Duration::from_millis(500));
        stack.instance(service).signal(Signal::KILL);
        let answer = client.join().unwrap();
        assert_eq!(answer.status, 502, "{service}: {}", answer.text());
    }
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    in_both("", |stack| {
        let address = stack.address;
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let client = {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // A refused connection is what a stopped listener gives; a request that was taken is answered.
                    let Ok(mut connection) = Connection::open(address) else { break };
                    match connection.request("GET", "/api/sleep?ms=100", &[], b"") {
                        Ok(response) => assert_eq!(response.status, 200, "{}", response.text()),
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        wait::until("a few answers", HEAL, || (served.load(Ordering::Relaxed) >= 3).then_some(()));
        let gateway = stack.instance("gateway");
        gateway.signal(Signal::TERM);
        let status = gateway.wait();
        stop.store(true, Ordering::Relaxed);
        client.join().unwrap();
        assert_eq!(status.code(), Some(0), "{}", stack.logs());
    });
}
