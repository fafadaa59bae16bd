//! Bodies that are on their way: streamed both ways, bounded, and cut off where they go wrong.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use troupe_testkit::http::Connection;
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::wait;

use super::{config, in_both, one_process};
use crate::volume::{FLAT, growth};

const MIB: u64 = 1 << 20;
const PIECE: usize = 1 << 18;

#[test]
fn pieces_of_a_reply_go_on_as_they_come() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let server = Upstream::start(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        gone.lock().unwrap().recv().unwrap();
        exchange.send("6\r\nsecond\r\n0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        for _ in 0..2 {
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(client.head().unwrap().status, 200);
            assert_eq!(client.chunk().unwrap().unwrap(), b"first", "before the second was sent");
            go.send(()).unwrap();
            assert_eq!(client.chunk().unwrap().unwrap(), b"second");
            assert_eq!(client.chunk().unwrap(), None);
        }
    });
    assert_eq!(server.accepted(), 2, "one connection for each stack");
}

#[test]
fn bodies_that_end_with_the_connection_and_replies_of_http_1_0_are_understood() {
    let server = Upstream::start(|exchange| {
        let version = if exchange.request.target().starts_with("/old") { "1.0" } else { "1.1" };
        if exchange.request.target() == "/old/keep" {
            exchange.send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")?;
            return Ok(Then::Keep);
        }
        exchange.send(format!("HTTP/{version} 200 OK\r\nContent-Type: text/plain\r\n\r\n"))?;
        exchange.send(vec![b'x'; 100_000])?;
        Ok(Then::Close)
    });
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        for target in ["/new", "/old"] {
            let reply = client.request("GET", target, &[], b"").unwrap();
            assert_eq!((reply.status, reply.body.len()), (200, 100_000), "{target}");
            assert_eq!(reply.header("transfer-encoding"), "chunked", "the client's connection goes on");
        }
        let before = server.accepted();
        for _ in 0..3 {
            assert_eq!(client.request("GET", "/old/keep", &[], b"").unwrap().text(), "ok");
        }
        assert_eq!(server.accepted() - before, 1);
    });
}

#[test]
fn uploads_are_streamed_with_the_framing_they_came_with() {
    let server = Upstream::start(|exchange| {
        exchange.read_body()?;
        let length = exchange.request.length.to_string();
        exchange.answer(200, &length)
    });
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        let body = vec![b'u'; 100_000];
        assert_eq!(client.request("POST", "/", &[], &body).unwrap().text(), "100000");
        let request = server.requests().pop().unwrap();
        assert_eq!((request.fields("content-length"), request.fields("transfer-encoding")), (vec!["100000"], vec![]));
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for _ in 0..10 {
            client.send(format!("{:x};x=y\r\n", body.len()).as_bytes()).unwrap();
            client.send(&body).unwrap();
            client.send(b"\r\n").unwrap();
        }
        client.send(b"0\r\nX-Trailer: 1\r\n\r\n").unwrap();
        assert_eq!(client.response(false).unwrap().text(), "1000000");
        let request = server.requests().pop().unwrap();
        assert_eq!((request.fields("content-length"), request.fields("transfer-encoding")), (vec![], vec!["chunked"]));
        assert_eq!(client.request("GET", "/", &[], b"").unwrap().status, 200);
    });
}

#[test]
fn an_answer_before_the_end_of_the_upload_is_passed_on() {
    let server = Upstream::start(|exchange| {
        exchange.answer(413, "too much")?;
        exchange.await_close();
        Ok(Then::Close)
    });
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").unwrap();
        client.send(&vec![b'u'; 100_000]).unwrap();
        let reply = client.response(false).unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (413, "too much"));
    });
}

#[test]
fn a_client_that_leaves_is_noticed_upstream() {
    let (left, leaves) = mpsc::channel::<&'static str>();
    let left = Mutex::new(left);
    let server = Upstream::start(move |exchange| {
        let target = exchange.request.target().to_owned();
        let what = match target.as_str() {
            "/streaming" => {
                exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
                "streaming"
            }
            "/waiting" => "waiting",
            _ if exchange.read_body().is_err() => "uploading",
            _ => "nothing",
        };
        exchange.await_close();
        left.lock().unwrap().send(what).unwrap();
        Ok(Then::Close)
    });
    in_both(&[&server], "", |stack| {
        for what in ["streaming", "waiting", "uploading"] {
            let mut client = stack.connect();
            let (method, length) =
                if what == "uploading" { ("POST", "Content-Length: 1000000\r\n") } else { ("GET", "") };
            client.send(format!("{method} /{what} HTTP/1.1\r\nHost: a\r\n{length}\r\n").as_bytes()).unwrap();
            match what {
                "streaming" => assert_eq!(client.head().unwrap().status, 200),
                "uploading" => client.send(&vec![b'u'; 100_000]).unwrap(),
                _ => {}
            }
            thread::sleep(Duration::from_millis(200));
            drop(client);
            assert_eq!(leaves.recv_timeout(Duration::from_secs(30)).unwrap(), what);
        }
    });
}

#[test]
fn a_slow_reader_holds_the_server_back() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let server = Upstream::start(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
        loop {
            exchange.send(vec![b'x'; PIECE])?;
            counted.fetch_add(PIECE as u64, Ordering::SeqCst);
        }
    });
    in_both(&[&server], "", |stack| {
        sent.store(0, Ordering::SeqCst);
        let mut client = TcpStream::connect(stack.address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        held_back(&sent);
        drop(client);
    });
}

/// Waits until no more bytes are `sent`, and asserts that what is under way then is bounded.
fn held_back(sent: &AtomicU64) {
    let mut before = u64::MAX;
    wait::until("a standstill", Duration::from_secs(60), || {
        thread::sleep(Duration::from_millis(500));
        let now = sent.load(Ordering::SeqCst);
        (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
    });
    assert!(before < FLAT, "{before} bytes lie in sockets and windows");
}

/// The same the other way: a server that reads slowly holds the client back, and nothing of the upload is lost.
#[test]
fn a_slow_server_holds_the_client_back() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let server = Upstream::start(move |exchange| {
        gone.lock().unwrap().recv().unwrap();
        exchange.read_body()?;
        let length = exchange.request.length.to_string();
        exchange.answer(200, &length)
    });
    let config = format!("gateway.max_body = \"2GiB\"\n{}", config(&[&server], ""));
    crate::support::in_both(&config, |stack| {
        let sent = Arc::new(AtomicU64::new(0));
        let mut client = stack.connect();
        let bytes = 256 * MIB;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n").as_bytes()).unwrap();
        let (mut handle, counted) = (client.handle().unwrap(), Arc::clone(&sent));
        let sending = thread::spawn(move || {
            let piece = vec![b'u'; PIECE];
            for _ in 0..bytes / PIECE as u64 {
                handle.write_all(&piece).unwrap();
                counted.fetch_add(PIECE as u64, Ordering::SeqCst);
            }
        });
        held_back(&sent);
        go.send(()).unwrap();
        assert_eq!(client.response(false).unwrap().text(), bytes.to_string());
        sending.join().unwrap();
    });
}

#[test]
fn pauses_are_bounded() {
    let server = Upstream::start(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegun")?;
        exchange.await_close();
        Ok(Then::Close)
    });
    let stack = one_process(&[&server], "timeouts = { idle = \"300ms\" }");
    let mut client = stack.connect();
    client.send(b"GET /stalls HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    client.skip(100_000).expect_err("it is cut off");
}

fn upload(client: &mut Connection, bytes: u64) -> io::Result<()> {
    client.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())?;
    let piece = vec![b'u'; PIECE];
    (0..bytes / PIECE as u64).try_for_each(|_| client.send(&piece))?;
    assert_eq!(client.response(false)?.text(), bytes.to_string());
    Ok(())
}

fn download(client: &mut Connection, bytes: u64) -> io::Result<()> {
    client.send(format!("GET /{bytes} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
    assert_eq!(client.head()?.header("content-length"), bytes.to_string());
    client.skip(bytes)
}

#[test]
fn large_bodies_leave_memory_flat() {
    let server = Upstream::start(|exchange| {
        exchange.read_body()?;
        if exchange.request.method() == "POST" {
            let length = exchange.request.length.to_string();
            return exchange.answer(200, &length);
        }
        let bytes: u64 = exchange.request.target().trim_start_matches('/').parse().unwrap_or(0);
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"))?;
        let piece = vec![b'd'; PIECE];
        (0..bytes / PIECE as u64).try_for_each(|_| exchange.send(&piece))?;
        Ok(Then::Keep)
    });
    let config = format!("gateway.max_body = \"2GiB\"\n{}", config(&[&server], ""));
    crate::support::in_both(&config, |stack| {
        let mut client = stack.connect();
        // What the first bodies make a service allocate it keeps.
        upload(&mut client, 4 * MIB).unwrap();
        download(&mut client, 4 * MIB).unwrap();
        let grown = growth(stack, || {
            upload(&mut client, 256 * MIB).unwrap();
            download(&mut client, 256 * MIB).unwrap();
        });
        assert!(grown.iter().all(|grown| *grown < FLAT), "{grown:?}");
    });
}
