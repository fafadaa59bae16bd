//! What is refused before it is a request.

use std::io::Read;
use std::time::{Duration, Instant};

use troupe_gateway::config::GatewayConfig;
use troupe_node::units;

use crate::support::*;

#[test]
fn malformed_requests_get_one_problem_and_no_connection() {
    let running = serve(config(), &functions(), echo);
    for (sent, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        ("\x16\x03\x01\x02", 400),
    ] {
        let mut client = Client::connect(&running);
        let response = client.send(sent).response(false);
        assert_eq!(response.status, status, "{sent:?}");
        assert_eq!(response.problem()["status"], status);
        assert!(client.is_closed(), "{sent:?}");
    }
}

#[test]
fn answers_before_a_malformed_request_still_go_out() {
    let running = serve(config(), &functions(), |envelope| async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        echo(envelope).await
    });
    let mut client = Client::connect(&running);
    client.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\nGET /\x01 HTTP/1.1\r\nHost: a\r\n\r\nGET /three HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.response(false).text().starts_with("GET /one "));
    assert!(client.response(false).text().starts_with("GET /two "));
    assert_eq!(client.response(false).status, 400);
    assert!(client.is_closed());
}

#[test]
fn heads_are_limited() {
    let running = serve(GatewayConfig { max_head: units::Size::from_kib(4), ..config() }, &functions(), echo);
    for head in [
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(5000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}: b\r\n\r\n", "x".repeat(70_000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}: b\r\n\r\n", "x".repeat(200)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(100)),
        "x".repeat(200_000),
    ] {
        let mut client = Client::connect(&running);
        let response = client.send(&head).response(false);
        assert_eq!(response.status, 431, "{} bytes", head.len());
    }
    let fits = format!("GET /a HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(3900));
    assert_eq!(Client::connect(&running).send(fits).response(false).status, 200);
}

#[test]
fn a_head_may_come_byte_by_byte_and_many_at_once() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    for byte in "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".bytes() {
        client.send([byte]);
    }
    assert!(client.response(false).text().ends_with("body full 5 hello"));
    let count = 200;
    let requests: String =
        (0..count).map(|index| format!("POST /{index} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")).collect();
    client.send(requests);
    for index in 0..count {
        let response = client.response(false);
        assert!(
            response.text().starts_with(&format!("POST /{index} ")) && response.text().ends_with("full 3 abc"),
            "{index}"
        );
    }
}

#[test]
fn an_upgrade_is_passed_over() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let response = client.response(false);
    assert!(response.status == 200 && !response.text().contains("upgrade"), "{}", response.text());
    assert_eq!(client.get("/a").status, 200);
}

#[test]
fn slow_heads_and_idle_connections_end() {
    let quick = units::Duration::from_millis(300);
    let running = serve(GatewayConfig { head_timeout: quick, keep_alive: quick, ..config() }, &functions(), echo);
    let mut slow = Client::connect(&running);
    slow.send("GET /a HTTP/1.1\r\nHo");
    assert_eq!(slow.response(false).status, 408);
    assert!(slow.is_closed());
    let mut silent = Client::connect(&running);
    assert!(silent.is_closed());
    let mut idle = Client::connect(&running);
    assert_eq!(idle.get("/a").status, 200);
    assert!(idle.is_closed());
    let mut second = Client::connect(&running);
    assert_eq!(second.get("/a").status, 200);
    second.send("GET /a HTTP/1.1\r\nHo");
    assert_eq!(second.response(false).status, 408);
}

#[test]
fn a_head_that_drips_is_as_late_as_one_that_stops() {
    let quick = units::Duration::from_millis(300);
    let running = serve(GatewayConfig { head_timeout: quick, ..config() }, &functions(), echo);
    let mut client = Client::connect(&running);
    client.0.set_read_timeout(Some(Duration::from_millis(20))).expect("sets a timeout");
    client.send("GET /");
    let start = Instant::now();
    while client.0.peek(&mut [0]).is_err() {
        assert!(start.elapsed() < PATIENCE, "the head may go on for ever");
        client.send("a");
    }
    client.0.set_read_timeout(Some(PATIENCE)).expect("sets a timeout");
    assert_eq!(client.response(false).status, 408);
}

#[test]
fn connections_end_after_their_share_of_requests() {
    let running = serve(GatewayConfig { max_requests_per_connection: 2, ..config() }, &functions(), echo);
    let mut client = Client::connect(&running);
    client
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response(false).field("connection"), None);
    assert_eq!(client.response(false).field("connection"), Some("close"));
    let mut rest = Vec::new();
    let _ = client.0.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn http_10_is_spoken() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    assert_eq!(client.send("GET /a HTTP/1.0\r\n\r\n").response(false).status, 200);
    assert!(client.is_closed());
    let mut client = Client::connect(&running);
    for _ in 0..2 {
        let response = client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").response(false);
        assert_eq!(response.field("connection"), Some("keep-alive"));
    }
}
