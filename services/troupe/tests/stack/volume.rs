//! Much at once: large bodies in flat memory, many connections without a failure.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use troupe_testkit::http::Connection;
use troupe_testkit::processes;
use troupe_testkit::stack::Stack;

use crate::support::in_both;

const MIB: u64 = 1 << 20;
/// How much a service's memory may grow while a body passes that is many times as large: windows, and what the allocator
/// keeps.
pub(crate) const FLAT: u64 = 64 * MIB;
const PIECE: usize = 1 << 18;
const CONNECTIONS: usize = 5_000;

const CONFIG: &str = "gateway.access_log = false\ngateway.max_body = \"2GiB\"\n\
                      [php.default]\nspool_quota = \"2GiB\"\ntimeout = \"60s\"\n";

/// The most that each instance's memory grows while `run` runs, in bytes.
pub(crate) fn growth(stack: &Stack, run: impl FnOnce()) -> Vec<u64> {
    let pids: Vec<u32> = stack.instances.iter().map(troupe_testkit::stack::Instance::pid).collect();
    let before: Vec<u64> = pids.iter().map(|pid| processes::resident(*pid)).collect();
    let over = Arc::new(AtomicBool::new(false));
    let most = {
        let (over, mut most) = (Arc::clone(&over), before.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for (most, pid) in most.iter_mut().zip(&pids) {
                    *most = processes::resident(*pid).max(*most);
                }
                thread::sleep(Duration::from_millis(10));
            }
            most
        })
    };
    run();
    over.store(true, Ordering::Relaxed);
    let most = most.join().unwrap();
    most.iter().zip(before).map(|(most, before)| most - before).collect()
}

fn upload(connection: &mut Connection, bytes: u64) -> io::Result<()> {
    let piece = vec![b'u'; PIECE];
    connection.send(format!("POST /api/swallow HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())?;
    for _ in 0..bytes / PIECE as u64 {
        connection.send(&piece)?;
    }
    let response = connection.response(false)?;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["length"], bytes);
    Ok(())
}

fn download(connection: &mut Connection, bytes: u64) -> io::Result<()> {
    let pieces = bytes / PIECE as u64;
    connection.send(format!("GET /api/stream?pieces={pieces}&bytes={PIECE} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    assert_eq!(connection.head()?.status, 200);
    let mut got = 0;
    while let Some(piece) = connection.chunk()? {
        got += piece.len() as u64;
    }
    assert_eq!(got, bytes);
    Ok(())
}

fn flat(bytes: u64) {
    in_both(CONFIG, |stack| {
        // What the first bodies make a service allocate it keeps.
        let mut connection = stack.connect();
        upload(&mut connection, 4 * MIB).unwrap();
        download(&mut connection, 4 * MIB).unwrap();
        for (what, pass) in [("upload", upload as fn(&mut Connection, u64) -> io::Result<()>), ("download", download)] {
            let grown = growth(stack, || pass(&mut connection, bytes).unwrap());
            assert!(grown.iter().all(|grown| *grown < FLAT), "an {what} of {bytes}: {grown:?}");
        }
    });
}

#[test]
fn large_bodies_leave_memory_flat() {
    flat(256 * MIB);
}

#[test]
#[ignore = "takes a minute; `cargo nextest run --run-ignored all` runs it"]
fn a_gibibyte_leaves_memory_flat() {
    flat(1024 * MIB);
}

#[test]
fn five_thousand_connections_are_served() {
    in_both("gateway.access_log = false\n", |stack| {
        let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| stack.connect()).collect();
        for connection in &mut connections {
            connection.send(b"GET /api/hello HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        }
        let mut failed: Vec<String> = Vec::new();
        for connection in &mut connections {
            match connection.response(false) {
                Ok(response) if response.status == 200 => {}
                other => failed.push(format!("{other:?}")),
            }
        }
        assert!(failed.is_empty(), "{} of {CONNECTIONS} failed: {:?}", failed.len(), failed.first());
    });
}

/// Clients that ask for much and read nothing: what is on its way to them is bounded, and others are served.
#[test]
fn clients_that_do_not_read_hold_little() {
    in_both(CONFIG, |stack| {
        let mut other = stack.connect();
        download(&mut other, 4 * MIB).unwrap();
        let mut connections = Vec::new();
        let grown = growth(stack, || {
            for _ in 0..4 {
                let mut connection = stack.connect();
                connection.send(b"GET /api/stream?pieces=256&bytes=262144 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                connections.push(connection);
            }
            thread::sleep(Duration::from_secs(1));
            for _ in 0..20 {
                assert_eq!(other.request("GET", "/api/hello", &[], b"").unwrap().status, 200);
            }
        });
        assert!(grown.iter().all(|grown| *grown < FLAT), "{grown:?}");
        // Slow is not wrong: what was not read yet is still there.
        for mut connection in connections {
            assert_eq!(connection.response(false).unwrap().body.len() as u64, 64 * MIB);
        }
    });
}

/// Out of descriptors, a gateway serves the connections it has, and new ones again when there is room.
#[test]
fn a_gateway_without_descriptors_serves_whom_it_has() {
    in_both("gateway.access_log = false\n", |stack| {
        let mut kept = stack.connect();
        assert_eq!(kept.request("GET", "/api/hello", &[], b"").unwrap().status, 200);
        let pid = stack.instance("gateway").pid();
        let limit = processes::descriptors(pid) + 20;
        let usual = processes::limit_descriptors(pid, limit as u64);
        let crowd: Vec<_> = (0..200).map(|_| stack.connect()).collect();
        thread::sleep(Duration::from_millis(300));
        for _ in 0..20 {
            assert_eq!(kept.request("GET", "/api/hello", &[], b"").unwrap().status, 200);
        }
        drop(crowd);
        stack.await_serving(Duration::from_secs(20));
        processes::limit_descriptors(pid, usual);
        stack.await_serving(Duration::from_secs(20));
        assert!(!stack.logs().contains("panicked"), "{}", stack.logs());
    });
}
