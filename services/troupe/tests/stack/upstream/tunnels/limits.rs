//! What bounds tunnels: silence, connections, and what is written about them.

use std::time::Instant;

use super::*;

#[test]
fn a_silent_tunnel_ends_and_one_that_speaks_does_not() {
    let server = mirror();
    in_both(&[&server], "timeouts = { tunnel = \"1s\" }", |stack| {
        let (mut silent, mut speaking) = (open(stack), open(stack));
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(300));
            speaking.send(b"still here").unwrap();
            assert_eq!(read(&mut speaking, 10), b"still here");
        }
        assert!(silent.closed());
        await_tunnels(stack, 1.0);
        let idle = "troupe_balancer_upstream_tunnels_ended_total{pool=\"upstream:app\",cause=\"idle\"}";
        assert_eq!(figure(stack, "balancer", idle), 1.0);
        drop(speaking);
        await_tunnels(stack, 0.0);
    });
}

/// A client that has ended its side keeps nothing open for long: what is left of the tunnel lives by the bodies' own limit.
#[test]
fn half_a_tunnel_ends_sooner() {
    let server = raw(|exchange| {
        exchange.await_close();
        thread::sleep(BOUND);
    });
    in_both(&[&server], "timeouts = { idle = \"500ms\" }", |stack| {
        let mut client = open(stack);
        thread::sleep(Duration::from_secs(1));
        await_tunnels(stack, 1.0);
        client.handle().unwrap().shutdown(Shutdown::Write).unwrap();
        assert!(client.closed());
        await_tunnels(stack, 0.0);
    });
}

#[test]
fn a_tunnel_holds_a_connection_and_its_place_until_it_ends() {
    let server = mirror();
    let more = "max_connections = 2\nqueue = { wait = \"500ms\" }";
    in_both(&[&server], more, |stack| {
        let before = server.accepted();
        let (one, mut two) = (open(stack), open(stack));
        let mut client = stack.connect();
        for fields in [&HANDSHAKE[..], &[]] {
            let reply = client.request("GET", "/", fields, b"").unwrap();
            assert_eq!((reply.status, reply.header("retry-after")), (503, "1"), "{fields:?}");
        }
        drop(one);
        await_tunnels(stack, 1.0);
        for _ in 0..3 {
            assert_eq!(client.request("GET", "/", &[], b"").unwrap().text(), "plain");
        }
        two.send(b"there").unwrap();
        assert_eq!(read(&mut two, 5), b"there");
        assert_eq!(server.accepted() - before, 3, "what was a tunnel carries no request");
        drop(two);
        await_tunnels(stack, 0.0);
    });
}

/// What waits for a server that takes nothing is bounded, and not for long.
#[test]
fn a_server_that_takes_nothing_ends_the_tunnel() {
    let server = raw(|_| thread::sleep(BOUND));
    in_both(&[&server], "timeouts = { write = \"300ms\" }", |stack| {
        let mut client = open(stack);
        let piece = vec![b'x'; MIB];
        wait::until("the tunnel to end", BOUND, || client.send(&piece).is_err().then_some(()));
        await_tunnels(stack, 0.0);
        let stalled = "troupe_balancer_upstream_tunnels_ended_total{pool=\"upstream:app\",cause=\"stalled\"}";
        assert_eq!(figure(stack, "balancer", stalled), 1.0);
    });
}

/// The handshake's own time is the request's, not the tunnel's.
#[test]
fn a_server_that_does_not_answer_a_handshake_is_a_504() {
    let server = Upstream::start(|exchange| {
        exchange.await_close();
        Ok(Then::Close)
    });
    in_both(&[&server], "timeouts = { first_byte = \"300ms\" }", |stack| {
        let begun = Instant::now();
        assert_eq!(stack.connect().request("GET", "/", &HANDSHAKE, b"").unwrap().status, 504);
        assert!(begun.elapsed() < BOUND);
    });
}

#[test]
fn a_tunnel_is_one_line_of_the_access_log_when_it_ends() {
    let server = mirror();
    let config = config(&[&server], "").replace("access_log = false", "access_log = true");
    let stack = Stack::one_process(support::binary(), &support::functions(), &config);
    let mut client = stack.connect();
    let named = handshake("/log").replace("Host:", "X-Request-Id: the-tunnel\r\nHost:");
    client.send(named.as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().header("x-request-id"), "the-tunnel");
    client.send(b"12345").unwrap();
    read(&mut client, 5);
    thread::sleep(Duration::from_millis(500));
    let lines = |stack: &Stack| -> Vec<serde_json::Value> {
        let log = stack.logs();
        let lines = log.lines().filter(|line| line.contains("\"request_id\":\"the-tunnel\""));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    assert!(lines(&stack).is_empty(), "it is open");
    let status = stack.instances[0].admin("/api/status").unwrap().json();
    let gateway = &status["gateway"];
    assert_eq!((gateway["tunnels"].as_u64(), gateway["in_flight"].as_u64()), (Some(1), Some(0)), "{status}");
    client.handle().unwrap().shutdown(Shutdown::Write).unwrap();
    assert!(client.closed());
    let line = wait::until("its line", BOUND, || lines(&stack).pop());
    assert_eq!(
        (line["status"].as_u64(), line["bytes"].as_u64(), line["complete"].as_bool()),
        (Some(101), Some(5), Some(true))
    );
    assert!(line["duration_us"].as_u64().unwrap() > 400_000, "{line}");
    assert_eq!((line["route"].as_str(), line["target"].as_str()), (Some("/{rest*}"), Some("/log")));
}
