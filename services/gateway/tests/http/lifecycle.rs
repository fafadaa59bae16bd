//! Disconnects, deadlines, drains, crowds.

use std::io::Read;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use troupe_gateway::config::{GatewayConfig, Listen};
use troupe_gateway::error::BindError;
use troupe_gateway::{Gateway, Options};
use troupe_mesh::body::Body;
use troupe_node::units;

use crate::support::*;

/// Counts a call in and, when it ends in whatever way, out.
struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        pause(Duration::from_millis(5));
    }
}

#[test]
fn a_client_that_leaves_cancels_its_call() {
    let inside = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&inside);
    let running = serve(config(), &functions(), move |envelope| {
        count.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(Arc::clone(&count));
        async move {
            let _inside = inside;
            let _envelope = envelope;
            std::future::pending().await
        }
    });
    for (request, how) in [
        ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", Shutdown::Both),
        ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", Shutdown::Write),
        ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc", Shutdown::Write),
    ] {
        let mut client = Client::connect(&running);
        client.send(request);
        eventually("the call starts", || inside.load(Ordering::SeqCst) == 1);
        client.0.shutdown(how).unwrap();
        eventually("the call is cancelled", || inside.load(Ordering::SeqCst) == 0);
    }
    eventually("the connections are gone", || running.connections() == 0);
}

#[test]
fn a_call_that_is_overdue_is_answered_by_the_gateway() {
    let config = GatewayConfig { request_timeout: units::Duration::from_millis(300), ..config() };
    let running = serve(config, &functions(), |_| std::future::pending());
    let mut client = Client::connect(&running);
    let response = client.get("/a");
    assert_eq!((response.status, response.problem()["stage"].as_str()), (504, Some("gateway")));
    assert_eq!(client.get("/b").status, 504);
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let running = serve(config(), &functions(), |envelope| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(envelope);
        Ok(reply(200, &[], Body::full("done".into())))
    });
    let mut idle = Client::connect(&running);
    assert_eq!(idle.get("/a").status, 200);
    let mut busy = Client::connect(&running);
    busy.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let address = running.addresses()[0];
    pause(Duration::from_millis(50));
    let draining = std::thread::spawn(move || block_on(running.drain(PATIENCE)));
    assert!(idle.is_closed());
    let response = busy.response(false);
    assert_eq!((response.status, response.field("connection"), response.text().as_str()), (200, Some("close"), "done"));
    assert!(busy.is_closed());
    assert_eq!(draining.join().unwrap().cut_off, 0);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn health_says_that_it_drains_while_it_still_serves() {
    let running = serve(config(), &functions(), echo);
    assert_eq!(Client::connect(&running).get("/health").status, 200);
    running.unready();
    let mut client = Client::connect(&running);
    client.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response(false).status, 503);
    let mut client = Client::connect(&running);
    let response = client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").response(false);
    assert_eq!((response.status, response.field("connection")), (200, Some("close")));
}

#[test]
fn a_drain_ends_when_its_time_is_up() {
    let running = serve(config(), &functions(), |_| std::future::pending());
    let mut client = Client::connect(&running);
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the connection is there", || running.connections() == 1);
    let drained = block_on(running.drain(Duration::from_millis(200)));
    assert_eq!(drained.cut_off, 1);
    assert!(client.is_closed());
}

#[test]
fn an_address_in_use_says_so() {
    let running = serve(config(), &functions(), echo);
    let address = running.addresses()[0];
    let config = GatewayConfig { listen: vec![Listen { address }], ..config() };
    let ports = Arc::new(|_| unreachable!("no thread starts"));
    let error = Gateway::bind(config, &functions(), Options { threads: 1, ..Options::default() }, ports).unwrap_err();
    assert!(matches!(error, BindError::Busy(busy) if busy == address), "{error}");
}

#[test]
fn five_thousand_connections_are_served() {
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, {
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current = limit.maximum;
        limit
    });
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = usize::try_from(limit.saturating_sub(200) / 2).unwrap_or(5000).min(5000);
    let running = serve(config(), &functions(), echo);
    let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(&running)).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response(false).status, 200);
    }
    assert_eq!(running.connections(), count);
    drop(clients);
    eventually("all connections are gone", || running.connections() == 0);
}

#[test]
fn pipelined_requests_are_served_in_order_while_the_first_takes_long() {
    let running = serve(config(), &functions(), |envelope| async move {
        if &*envelope.call.function == "0" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        echo(envelope).await
    });
    let mut client = Client::connect(&running);
    client.send((0..50).map(|index| format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n")).collect::<String>());
    for index in 0..50 {
        assert!(client.response(false).text().starts_with(&format!("GET /{index} ")));
    }
    client.0.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

/// An answer was framed by the last head that had been read: a HEAD behind a GET took the GET's body away, and the other way round.
#[test]
fn pipelined_requests_are_framed_each_by_its_own_head() {
    let running = serve(config(), &functions(), |envelope| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        echo(envelope).await
    });
    let mut client = Client::connect(&running);
    let head = |method: &str, target: &str, more: &str| format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    client.send(
        head("GET", "/1", "")
            + &head("HEAD", "/2", "")
            + &head("GET", "/3", "")
            + &head("POST", "/4", "Content-Length: 1\r\n")
            + "x",
    );
    assert!(client.response(false).text().starts_with("GET /1 "));
    assert_eq!(client.response(true).status, 200);
    assert!(client.response(false).text().starts_with("GET /3 "));
    assert!(client.response(false).text().starts_with("POST /4 "));
    client.send(head("GET", "/5", "") + &head("GET", "/6", "Connection: close\r\n"));
    let first = client.response(false);
    assert_eq!(first.field("connection"), None, "{}", first.head);
    assert!(first.text().starts_with("GET /5 "));
    let last = client.response(false);
    assert!(last.field("connection") == Some("close") && last.text().starts_with("GET /6 "), "{}", last.head);
}

/// It was left open for as long as the client liked, where the answer to the request was out already.
#[test]
fn a_connection_whose_body_breaks_behind_its_answer_is_closed() {
    let running = serve(config(), &functions(), |_| async {
        // It does not read the body.
        Ok(reply(413, &[], Body::Empty))
    });
    let mut client = Client::connect(&running);
    client.send(
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
            + &format!("8000\r\n{}\r\n", "x".repeat(0x8000)).repeat(2),
    );
    assert_eq!(client.response(false).status, 413);
    client.send("zz\r\n");
    eventually("the connection is gone", || running.connections() == 0);
}

fn block_on<F: std::future::Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
