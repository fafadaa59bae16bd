//! WebSocket through the stack: tunnels of bytes, from the handshake to either side's end.

mod ends;
mod handshakes;
mod limits;

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use troupe_testkit::http::Connection;
use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::{Exchange, Then, Upstream};
use troupe_testkit::wait;
use troupe_testkit::websocket::{self, HANDSHAKE, Message};

use super::{config, in_both};
use crate::support;
use crate::volume::{FLAT, growth};

/// Ten times what anything here takes.
const BOUND: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// Sends every message back; answers what is no handshake.
fn echo() -> Upstream {
    Upstream::start(|exchange| match exchange.request.field("upgrade") {
        "websocket" => websocket::echo(exchange).map(|()| Then::Close),
        _ => exchange.answer(200, "plain"),
    })
}

/// Switches, and then does with the bytes as it is told.
fn raw(with: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |exchange| {
        if exchange.request.field("upgrade") != "websocket" {
            return exchange.answer(200, "plain");
        }
        exchange.send(SWITCHED)?;
        with(exchange);
        Ok(Then::Close)
    })
}

/// Sends back whatever comes, to its end.
fn mirror() -> Upstream {
    raw(|exchange| {
        while let Ok(piece) = exchange.piece() {
            if piece.is_empty() || exchange.send(piece).is_err() {
                return;
            }
        }
    })
}

/// The bytes of a handshake.
fn handshake(target: &str) -> String {
    let fields: String = HANDSHAKE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\nHost: troupe.test\r\n{fields}\r\n")
}

/// A tunnel without WebSocket's frames.
fn open(stack: &Stack) -> Connection {
    let mut client = stack.connect();
    client.send(handshake("/").as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().status, 101);
    client
}

/// Reads so many bytes.
fn read(client: &mut Connection, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        let piece = client.piece().unwrap();
        assert!(!piece.is_empty(), "the end after {} of {bytes} bytes", all.len());
        all.extend(piece);
    }
    all
}

/// A figure of the first instance of `service`; 0 when it is not there.
fn figure(stack: &mut Stack, service: &str, name: &str) -> f64 {
    let page = stack.instance(service).admin("/metrics").map(|page| page.text()).unwrap_or_default();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until so many tunnels are open, as gateway and balancer see it.
fn await_tunnels(stack: &mut Stack, count: f64) {
    for (service, name) in
        [("gateway", "troupe_gateway_tunnels"), ("balancer", "troupe_balancer_upstream_tunnels{pool=\"upstream:app\"}")]
    {
        wait::until(&format!("{count} tunnels at the {service}"), BOUND, || {
            (figure(stack, service, name) == count).then_some(())
        });
    }
}

fn in_all(servers: &[&Upstream], more: &str, check: impl Fn(&mut Stack)) {
    support::in_all_with(&config(servers, more), check);
}

#[test]
fn messages_go_both_ways_in_every_wiring() {
    let server = echo();
    in_all(&[&server], "", |stack| {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let fields = [
            ("sec-websocket-protocol", "chat"),
            ("x-request-id", "kept-42"),
            ("cookie", "a=b"),
            ("traceparent", trace),
        ];
        let (mut client, response) = websocket::connect(stack.address, "/chat?room=1", &fields).unwrap();
        assert_eq!(response.headers().get("x-request-id").unwrap(), "kept-42");
        assert_eq!(response.headers().get("upgrade").unwrap(), "websocket");
        let request = server.requests().pop().unwrap();
        assert_eq!((request.method(), request.target()), ("GET", "/chat?room=1"));
        for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket"), ("x-request-id", "kept-42")] {
            assert_eq!(request.fields(name), [value], "{name}");
        }
        assert_eq!((request.field("cookie"), request.field("sec-websocket-protocol")), ("a=b", "chat"));
        assert_eq!(request.field("sec-websocket-version"), "13");
        let parent = request.field("traceparent");
        assert!(parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && parent != trace, "{parent}");
        for index in 0..300 {
            let message = Message::text(format!("{index}:").repeat(index));
            client.send(message.clone()).unwrap();
            assert_eq!(client.read().unwrap(), message);
        }
        let large: Vec<u8> = (0..MIB).map(|index| (index % 251) as u8).collect();
        client.send(Message::binary(large.clone())).unwrap();
        assert_eq!(client.read().unwrap(), Message::binary(large));
        await_tunnels(stack, 1.0);
        client.send(Message::Ping("still there?".into())).unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong("still there?".into()));
        client.close(None).unwrap();
        while client.read().is_ok() {}
        await_tunnels(stack, 0.0);
        let counted = "troupe_gateway_requests_total{route=\"/{rest*}\",method=\"GET\",status=\"1xx\"}";
        assert_eq!(figure(stack, "gateway", counted), 1.0);
        assert_eq!(figure(stack, "gateway", "troupe_gateway_tunnels_opened_total"), 1.0);
        for name in ["troupe_gateway_tunnel_received_bytes_total", "troupe_gateway_tunnel_sent_bytes_total"] {
            assert!(figure(stack, "gateway", name) > MIB as f64, "{name}");
        }
    });
}

#[test]
fn a_tunnel_stands_beside_ordinary_requests_and_other_tunnels() {
    let server = echo();
    in_both(&[&server], "", |stack| {
        let mut tunnels: Vec<_> = (0..20).map(|_| websocket::connect(stack.address, "/", &[]).unwrap().0).collect();
        let mut client = stack.connect();
        for round in 0..20 {
            assert_eq!(client.request("GET", "/", &[], b"").unwrap().text(), "plain");
            assert_eq!(client.request("GET", "/api/hello", &[], b"").unwrap().status, 200);
            for (index, tunnel) in tunnels.iter_mut().enumerate() {
                let message = Message::text(format!("{round} {index}"));
                tunnel.send(message.clone()).unwrap();
                assert_eq!(tunnel.read().unwrap(), message);
            }
        }
        await_tunnels(stack, 20.0);
        let in_flight = "troupe_gateway_requests_in_flight";
        wait::until("no request to be in flight", BOUND, || (figure(stack, "gateway", in_flight) == 0.0).then_some(()));
    });
}

/// Both sides send as fast as they can, and the client reads nothing at first: what is under way is bounded, and nothing is lost.
#[test]
fn a_slow_reader_slows_the_other_side_down_and_costs_no_memory() {
    const BYTES: usize = 192 * MIB;
    const UPWARD: usize = 64 * MIB;
    let written = Arc::new(AtomicU64::new(0));
    let server = {
        let written = Arc::clone(&written);
        raw(move |exchange| {
            let (mut handle, written) = (exchange.handle().unwrap(), Arc::clone(&written));
            let writing = thread::spawn(move || {
                let piece: Vec<u8> = (0..65_536).map(|index| (index % 251) as u8).collect();
                for _ in 0..BYTES / piece.len() {
                    handle.write_all(&piece).unwrap();
                    written.fetch_add(piece.len() as u64, Ordering::SeqCst);
                }
            });
            let mut read = 0;
            while read < UPWARD {
                read += exchange.piece().unwrap().len();
            }
            writing.join().unwrap();
        })
    };
    in_both(&[&server], "", |stack| {
        written.store(0, Ordering::SeqCst);
        let mut client = open(stack);
        let grown = growth(stack, || {
            let mut handle = client.handle().unwrap();
            let writing = thread::spawn(move || handle.write_all(&vec![b'u'; UPWARD]).unwrap());
            writing.join().unwrap();
            // Long enough for the server to write all of it, if nothing held it back.
            thread::sleep(Duration::from_secs(1));
            let ahead = written.load(Ordering::SeqCst);
            assert!(ahead < BYTES as u64 / 2, "{ahead} bytes were taken for a client that read nothing");
            let mut read = 0;
            while read < BYTES {
                let piece = client.piece().unwrap();
                assert!(!piece.is_empty(), "the end after {read} bytes");
                let right = piece.iter().zip(read..).all(|(byte, at)| usize::from(*byte) == at % 65_536 % 251);
                assert!(right, "wrong bytes at {read}");
                read += piece.len();
            }
        });
        assert!(grown.iter().all(|grown| *grown < FLAT), "{grown:?}");
        assert!(client.closed());
    });
}
