//! The admin listener over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::*;
use crate::threads::{Pinning, WatchdogOptions, spawn_data_threads};

struct Answer {
    status: u16,
    text: String,
}

fn ask_with(address: SocketAddr, method: &str, path: &str, extra: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: admin\r\n{extra}Connection: close\r\n\r\n").expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, text }
}

fn ask(address: SocketAddr, path: &str) -> Answer {
    ask_with(address, "GET", path, "")
}

fn state() -> AdminState {
    AdminState {
        readiness: Readiness::new(),
        watchdog: Watchdog::start(WatchdogOptions {
            every: Duration::from_millis(5),
            expect_within: Duration::from_millis(50),
        })
        .expect("a thread"),
        metrics: Metrics::detached(),
    }
}

fn any() -> AdminOptions {
    AdminOptions::new("127.0.0.1:0".parse().expect("an address"))
}

fn start(options: &AdminOptions, state: &AdminState) -> AdminServer {
    AdminServer::start(options, state.clone(), |_| {}).expect("starts")
}

fn wait_until(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !seen() {
        assert!(Instant::now() < deadline, "never seen: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn readyz_follows_start_conditions_and_drain() {
    let state = state();
    let server = start(&any(), &state);
    let ready = || ask(server.address(), "/readyz");
    assert_eq!(ready().status, 503);
    state.readiness.started();
    assert_eq!(ready().status, 200);
    let workers = state.readiness.condition("balancer.workers", "no worker yet");
    let answer = ready();
    assert_eq!(answer.status, 503);
    assert!(answer.text.contains(r#""reason":"no worker yet""#), "{}", answer.text);
    workers.met();
    assert_eq!(ready().status, 200);
    state.readiness.drain();
    let answer = ready();
    assert_eq!(answer.status, 503);
    assert!(answer.text.contains(r#""draining":true"#), "{}", answer.text);
    server.stop();
}

#[test]
fn livez_fails_while_a_data_thread_is_stuck() {
    let state = state();
    let options = AdminOptions { live_within: Duration::from_millis(50), ..any() };
    let server = start(&options, &state);
    let threads = spawn_data_threads("live", 1, &Pinning::Off, |_| async {}).expect("starts");
    let _watched = threads.watch(&state.watchdog);
    wait_until("alive", || ask(server.address(), "/livez").status == 200);

    let (release, blocked) = std::sync::mpsc::channel::<()>();
    threads.arbiters().next().expect("one").spawn_fn(move || {
        let _ = blocked.recv();
    });
    wait_until("the stall", || {
        let answer = ask(server.address(), "/livez");
        answer.status == 503 && answer.text.contains("live-0")
    });
    release.send(()).expect("still blocked");
    wait_until("alive again", || ask(server.address(), "/livez").status == 200);
}

#[test]
fn unknown_pages_and_methods_are_told_apart() {
    let state = state();
    let server = start(&any(), &state);
    let answer = ask(server.address(), "/");
    assert_eq!(answer.status, 404);
    assert!(answer.text.contains("application/problem+json"), "{}", answer.text);
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = ask_with(server.address(), "POST", path, "Content-Length: 0\r\n");
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.text.to_lowercase().contains("allow: get, head"), "{}", answer.text);
        assert_ne!(ask_with(server.address(), "HEAD", path, "").status, 405, "{path}");
    }
}

#[test]
fn metrics_ask_for_the_token_when_there_is_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "s3cret\n").expect("written");
    let state = state();
    let options = AdminOptions { token_file: Some(path), ..any() };
    let server = start(&options, &state);
    let with = |line: &str| ask_with(server.address(), "GET", "/metrics", line).status;
    assert_eq!(with(""), 401);
    assert_eq!(with("Authorization: Bearer wrong\r\n"), 401);
    assert_eq!(with("Authorization: Basic s3cret\r\n"), 401);
    assert_eq!(with("Authorization: bearer s3cret\r\n"), 200);
    // Probes carry no secrets.
    assert_eq!(ask(server.address(), "/livez").status, 200);
}

#[test]
fn a_busy_port_and_a_bad_token_file_are_told() {
    let state = state();
    let server = start(&any(), &state);
    let error =
        AdminServer::start(&AdminOptions::new(server.address()), state.clone(), |_| {}).expect_err("the port is taken");
    assert!(error.port_busy(), "{error}");
    assert!(error.to_string().contains("admin.listen"), "{error}");

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("empty");
    std::fs::write(&path, "\n").expect("written");
    for path in [path, dir.path().join("missing")] {
        let options = AdminOptions { token_file: Some(path), ..any() };
        let error = AdminServer::start(&options, state.clone(), |_| {}).expect_err("no token");
        assert!(!error.port_busy() && error.to_string().contains("token file"), "{error}");
    }
}

#[test]
fn services_add_pages_of_their_own() {
    let state = state();
    let server = AdminServer::start(&any(), state, |app| {
        app.route("/workers", web::get().to(|| async { "two" }));
    })
    .expect("starts");
    let answer = ask(server.address(), "/workers");
    assert_eq!(answer.status, 200);
    assert!(answer.text.ends_with("two"));
}
