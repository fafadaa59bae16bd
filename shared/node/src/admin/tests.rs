//! The admin listener over real sockets.

mod clients;

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
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{extra}Connection: close\r\n\r\n").expect("written");
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
        api: Api::new(Identity {
            service: "test".to_owned(),
            instance: "here/1".to_owned(),
            version: "0.0.0",
            commit: "unknown",
        }),
    }
}

fn any() -> AdminOptions {
    AdminOptions::new("127.0.0.1:0".parse().expect("an address"))
}

fn start(options: &AdminOptions, state: &AdminState) -> AdminServer {
    AdminServer::start(options, state.clone(), |_| {}).expect("starts")
}

fn wait_until(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
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
    // The password of basic auth: "anybody:s3cret" and "anybody:wrong".
    assert_eq!(with("Authorization: Basic YW55Ym9keTpzM2NyZXQ=\r\n"), 200);
    assert_eq!(with("Authorization: Basic YW55Ym9keTp3cm9uZw==\r\n"), 401);
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

fn with_token() -> (tempfile::TempDir, AdminOptions) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "s3cret\n").expect("written");
    let options = AdminOptions { token_file: Some(path), ..any() };
    (dir, options)
}

#[test]
fn status_has_the_sections_and_problems_that_services_add() {
    let state = state();
    state.api.section("balancer", || serde_json::json!({ "workers": 2 }));
    state.api.problems(|problems| problems.push("the pool default is down".to_owned()));
    let _unmet = state.readiness.condition("balancer", "no link to a balancer is up");
    let server = start(&any(), &state);
    let answer = ask(server.address(), "/api/status");
    assert_eq!(answer.status, 200);
    let body = answer.text.split("\r\n\r\n").nth(1).expect("a body");
    let status: serde_json::Value = serde_json::from_str(body).expect("json");
    assert_eq!((&status["service"], &status["balancer"]["workers"]), (&"test".into(), &2.into()));
    assert_eq!(status["readiness"]["ready"], false);
    let problems: Vec<_> =
        status["problems"].as_array().expect("a list").iter().filter_map(|one| one.as_str()).collect();
    assert_eq!(problems, ["not ready: no link to a balancer is up", "the pool default is down"]);
    assert!(status["process"]["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
}

#[test]
fn changes_are_posts_with_a_guard_and_answer_what_the_endpoint_says() {
    let state = state();
    state.api.post("workers/drain", |ask| {
        let answer = ask.need("worker").map(|worker| serde_json::json!({ "drained": worker }));
        async move {
            answer.and_then(|value| {
                if value["drained"] == "gone" { Err(Refusal::new(404, "no such worker")) } else { Ok(value) }
            })
        }
    });
    let server = start(&any(), &state);
    let post = |path: &str, extra: &str| {
        ask_with(server.address(), "POST", path, &format!("Content-Length: 0\r\n{extra}")).status
    };
    assert_eq!(post("/api/workers/drain?worker=a", ""), 403);
    assert_eq!(post("/api/workers/drain?worker=a", "X-Troupe-Request: 1\r\n"), 200);
    drop(server);

    let (_dir, options) = with_token();
    let server = start(&options, &state);
    let post =
        |path: &str, extra: &str| ask_with(server.address(), "POST", path, &format!("Content-Length: 0\r\n{extra}"));
    let bearer = "Authorization: Bearer s3cret\r\n";
    let basic = "Authorization: Basic YW55Ym9keTpzM2NyZXQ=\r\n";
    assert_eq!(post("/api/workers/drain?worker=a", "").status, 401);
    assert_eq!(post("/api/workers/drain?worker=a", basic).status, 403, "a browser adds this by itself");
    assert_eq!(post("/api/workers/drain?worker=a", &format!("{basic}X-Troupe-Request: 1\r\n")).status, 200);
    let answer = post("/api/workers/drain?worker=a", bearer);
    assert!(answer.status == 200 && answer.text.ends_with(r#"{"drained":"a"}"#), "{}", answer.text);
    assert_eq!(post("/api/workers/drain", bearer).status, 400);
    assert_eq!(post("/api/workers/drain?worker=gone", bearer).status, 404);
    let early = post("/api/nothing", bearer);
    assert!(early.status == 503 && early.text.contains("is still starting"), "{}", early.text);
    state.readiness.started();
    assert_eq!(post("/api/nothing", bearer).status, 404);
    assert_eq!(ask_with(server.address(), "GET", "/api/workers/drain?worker=a", bearer).status, 405);
    assert_eq!(post("/api/status", bearer).status, 405);
}

#[test]
fn without_a_token_a_page_that_calls_itself_otherwise_is_refused() {
    let state = state();
    let server = start(&any(), &state);
    let by = |host: &str| {
        let mut stream = TcpStream::connect(server.address()).expect("connects");
        write!(stream, "GET /api/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        text.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).expect("a status")
    };
    for host in ["127.0.0.1", "127.0.0.1:9090", "localhost:9090", "[::1]:9090"] {
        assert_eq!(by(host), 200, "{host}");
    }
    assert_eq!(by("evil.example:9090"), 403);
}

#[test]
fn whoever_guesses_waits_even_with_the_right_token() {
    let state = state();
    let (_dir, options) = with_token();
    let server = start(&options, &state);
    let with = |token: &str| {
        ask_with(server.address(), "GET", "/api/status", &format!("Authorization: Bearer {token}\r\n")).status
    };
    // No credentials are no guess: a probe that does not know of the token locks nobody out.
    for _ in 0..20 {
        assert_eq!(ask(server.address(), "/api/status").status, 401);
    }
    assert_eq!(with("s3cret"), 200);
    for _ in 0..10 {
        assert_eq!(with("wrong"), 401);
    }
    assert_eq!(with("wrong"), 429);
    assert_eq!(with("s3cret"), 429);
    assert_eq!(ask(server.address(), "/readyz").status, 503, "probes are not asked");
}
