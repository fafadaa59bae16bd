//! What a server is sent, and how its connections are used.

use std::thread;
use std::time::Duration;

use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::wait;

use super::{in_both, one_process};

fn echo() -> Upstream {
    Upstream::start(|exchange| {
        exchange.read_body()?;
        let body = String::from_utf8_lossy(&exchange.request.body).into_owned();
        exchange.answer(200, &body)
    })
}

#[test]
fn a_request_arrives_with_one_framing_and_with_what_a_proxy_adds() {
    let server = echo();
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        let fields =
            [("Accept", "text/plain"), ("Connection", "X-Hop"), ("X-Hop", "1"), ("X-Forwarded-For", "10.9.8.7")];
        let reply = client.request("POST", "/a%20b?c=d", &fields, b"hello").unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        let request = server.requests().pop().unwrap();
        assert_eq!(
            (request.method(), request.target(), request.body.as_slice()),
            ("POST", "/a%20b?c=d", &b"hello"[..])
        );
        assert_eq!(request.fields("host"), ["troupe.test"]);
        assert_eq!(request.fields("content-length"), ["5"]);
        assert_eq!(request.fields("accept"), ["text/plain"]);
        assert_eq!(request.fields("x-forwarded-for"), ["127.0.0.1"], "a client's own word is not believed");
        assert_eq!(request.fields("x-forwarded-proto"), ["http"]);
        assert_eq!(request.fields("x-forwarded-host"), ["troupe.test"]);
        assert_eq!(request.fields("via"), ["1.1 troupe"]);
        assert_eq!(request.field("x-request-id"), reply.header("x-request-id"));
        for name in ["connection", "x-hop", "transfer-encoding", "te"] {
            assert_eq!(request.fields(name), [""; 0], "{name}");
        }
        // The functions are where they were.
        assert_eq!(stack.get("/api/hello").status, 200);
    });
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let server = echo();
    in_both(&[&server], "", |stack| {
        let before = server.accepted();
        let mut client = stack.connect();
        for _ in 0..20 {
            assert_eq!(client.request("GET", "/", &[], b"").unwrap().status, 200);
        }
        assert_eq!(server.accepted() - before, 1);
    });
}

#[test]
fn connections_end_after_their_requests_their_age_and_their_rest() {
    let server = echo();
    let stack = one_process(&[&server], "keep_alive = { requests = 5 }");
    let mut client = stack.connect();
    for _ in 0..20 {
        client.request("GET", "/", &[], b"").unwrap();
    }
    assert_eq!(server.accepted(), 4);
    for limit in ["age = \"1ms\"", "idle = \"1ms\""] {
        let server = echo();
        let stack = one_process(&[&server], &format!("keep_alive = {{ {limit} }}"));
        let mut client = stack.connect();
        for _ in 0..3 {
            client.request("GET", "/", &[], b"").unwrap();
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(server.accepted(), 3, "{limit}");
    }
}

#[test]
fn the_least_of_idle_connections_is_opened_before_anybody_asks() {
    let server = echo();
    let stack = one_process(&[&server], "keep_alive = { min_idle = 3, idle = \"1s\" }");
    wait::until("idle connections", Duration::from_secs(30), || (server.accepted() == 3).then_some(()));
    assert_eq!(stack.get("/").status, 200);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(server.accepted(), 3, "they are kept, and used");
}

#[test]
fn head_reaches_the_server_and_its_length_the_client() {
    let server = Upstream::start(|exchange| {
        let framing = match exchange.request.target() {
            "/length" => "Content-Length: 7\r\n",
            "/chunked" => "Transfer-Encoding: chunked\r\n",
            _ => "",
        };
        exchange.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n"))?;
        Ok(Then::Keep)
    });
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        let reply = client.request("HEAD", "/length", &[], b"").unwrap();
        assert_eq!((reply.status, reply.header("content-length")), (200, "7"));
        for target in ["/chunked", "/close"] {
            let reply = client.request("HEAD", target, &[], b"").unwrap();
            assert_eq!((reply.status, reply.header("content-length")), (200, ""), "{target}");
        }
        assert!(server.requests().iter().all(|request| request.method() == "HEAD"));
    });
}

#[test]
fn a_server_has_no_more_calls_at_once_than_it_may() {
    let server = Upstream::start(|exchange| {
        thread::sleep(Duration::from_millis(50));
        exchange.answer(200, "done")
    });
    let stack = one_process(&[&server], "max_connections = 3");
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = stack.connect();
            thread::spawn(move || client.request("GET", "/", &[], b"").unwrap().status)
        })
        .collect();
    let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(statuses, [200; 20]);
    assert_eq!(server.most_at_once(), 3);
    assert!(server.accepted() <= 3, "{}", server.accepted());
}

#[test]
fn weights_are_shares() {
    let answer = || {
        Upstream::start(|exchange| {
            thread::sleep(Duration::from_millis(10));
            exchange.answer(200, "")
        })
    };
    let (heavy, light) = (answer(), answer());
    let more = format!("servers = [{{ address = \"{}\", weight = 3 }}, \"{}\"]", heavy.address, light.address);
    let config = super::config(&[], "").replace("servers = []", &more);
    let stack =
        troupe_testkit::stack::Stack::one_process(crate::support::binary(), &crate::support::functions(), &config);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = stack.connect();
            thread::spawn(move || (0..50).for_each(|_| drop(client.request("GET", "/", &[], b"").unwrap())))
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let (heavy, light) = (heavy.requests().len(), light.requests().len());
    assert!(heavy > light * 3 / 2, "{heavy} and {light}");
}
