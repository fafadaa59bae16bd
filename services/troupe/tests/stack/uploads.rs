//! Uploads that take their time, beside everybody else.

use std::time::{Duration, Instant};

use troupe_testkit::http::Connection;

use crate::support::in_both;

/// More than there are places at the worker, with what sits behind running calls.
const SLOW: usize = 12;
const SIZE: usize = 200_000;
/// As much of a body as makes the gateway call before it has all of it.
const BEGINNING: usize = 80_000;

fn begun(mut connection: Connection) -> Connection {
    let head =
        format!("POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: {SIZE}\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    connection.send(&[b'u'; BEGINNING]).unwrap();
    connection
}

/// The whole body has reached the function.
fn ends(upload: &mut Connection) {
    let answer = upload.response(false).unwrap();
    assert_eq!((answer.status, answer.json()["length"].as_u64()), (200, Some(SIZE as u64)), "{}", answer.text());
}

/// A body on its way needs no process. Whoever sends one slowly keeps nobody else from being answered.
#[test]
fn slow_uploads_take_nobodys_place() {
    in_both("gateway.access_log = false\n[php.default.processes]\nmin = 2\nmax = 2\n", |stack| {
        // What is known to be fast may sit behind a running call.
        for _ in 0..20 {
            assert_eq!(stack.get("/api/hello").status, 200);
        }
        let mut uploads: Vec<_> = (0..SLOW).map(|_| begun(stack.connect())).collect();
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        for _ in 0..20 {
            let answer = stack.get("/api/hello");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        // Those that came before take seconds, and the queue gives up after five.
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        for upload in &mut uploads {
            upload.send(&[b'u'; SIZE - BEGINNING]).unwrap();
        }
        uploads.iter_mut().for_each(ends);
        assert_eq!(stack.get("/api/hello").status, 200);
    });
}

/// More of them than processes, all there at once: each waits for its turn, and so does everybody else.
#[test]
fn uploads_that_are_there_at_once_wait_for_their_turn() {
    in_both("gateway.access_log = false\n[php.default.processes]\nmin = 1\nmax = 1\n", |stack| {
        let mut uploads: Vec<_> = (0..SLOW).map(|_| begun(stack.connect())).collect();
        for upload in &mut uploads {
            upload.send(&[b'u'; SIZE - BEGINNING]).unwrap();
        }
        for _ in 0..20 {
            assert_eq!(stack.get("/api/hello").status, 200);
        }
        uploads.iter_mut().for_each(ends);
    });
}

/// Clients that leave in the middle leave nothing counted behind.
#[test]
fn uploads_that_are_given_up_leave_no_place_taken() {
    in_both("gateway.access_log = false\n[php.default.processes]\nmin = 1\nmax = 1\n", |stack| {
        for _ in 0..3 {
            let uploads: Vec<_> = (0..SLOW).map(|_| begun(stack.connect())).collect();
            std::thread::sleep(Duration::from_millis(200));
            drop(uploads);
        }
        for _ in 0..20 {
            assert_eq!(stack.get("/api/hello").status, 200);
        }
        let service = if stack.instances.len() == 1 { "all" } else { "balancer" };
        let balancer = stack.instance(service);
        troupe_testkit::wait::until("nothing in flight", Duration::from_secs(30), || {
            let metrics = balancer.admin("/metrics")?.text();
            let line = metrics.lines().find(|line| line.starts_with("troupe_balancer_worker_in_flight"))?;
            line.ends_with(" 0").then_some(())
        });
    });
}
