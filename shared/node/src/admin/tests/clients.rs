//! What clients may do to the admin listener's connections.

use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::metrics::ProcessFigures;

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Growth that many answers of one client would go far beyond; they are held by tens of megabytes.
const FEW_BYTES: u64 = 32 * 1024 * 1024;

fn resident() -> u64 {
    ProcessFigures::read().expect("the kernel tells").resident_bytes
}

fn connect(server: &AdminServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

/// Reads until `text` has come.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut piece = [0; 4096];
        let len = stream.read(&mut piece).expect("more");
        assert_ne!(len, 0, "ended before {text:?}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..len]));
    }
    seen
}

#[test]
fn whoever_pipelines_and_never_reads_is_dropped_and_costs_nobody_anything() {
    let state = state();
    let server = start(&any(), &state);
    assert_eq!(ask(server.address(), "/livez").status, 200);
    let before = resident();
    let many = LIVEZ.repeat(1024);
    let greedy: Vec<_> = (0..4)
        .map(|_| {
            let (mut stream, many) = (connect(&server), many.clone());
            stream.set_write_timeout(Some(Duration::from_secs(60))).expect("set");
            std::thread::spawn(move || {
                loop {
                    match stream.write_all(&many) {
                        Ok(()) => {}
                        Err(error) => return error.kind(),
                    }
                }
            })
        })
        .collect();
    wait_until("that others are answered while they push", || {
        assert_eq!(ask(server.address(), "/livez").status, 200);
        let grown = resident().saturating_sub(before);
        assert!(grown < FEW_BYTES, "{grown} bytes are held for clients that do not read");
        greedy.iter().all(std::thread::JoinHandle::is_finished)
    });
    for greedy in greedy {
        let kind = greedy.join().expect("ends");
        assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_turn_on_a_connection_that_is_kept() {
    let state = state();
    let server = AdminServer::start(&any(), state, |app| {
        app.route("/{name}", web::get().to(|name: web::Path<String>| async move { format!("[{name}]") }));
    })
    .expect("starts");
    let mut stream = connect(&server);
    for round in ["a", "b"] {
        for number in 1..=3 {
            write!(stream, "GET /{round}{number} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
        }
        let text = read_until(&mut stream, &format!("[{round}3]"));
        let place = |number: u8| text.find(&format!("[{round}{number}]")).expect("answered");
        assert!(place(1) < place(2) && place(2) < place(3), "{text}");
    }
}

#[test]
fn a_body_is_read_and_forgotten_and_one_that_is_too_long_refused() {
    let state = state();
    let server = start(&any(), &state);
    let mut stream = connect(&server);
    let post = "POST /livez HTTP/1.1\r\nHost: localhost\r\n";
    for body in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        write!(stream, "{post}{body}").expect("written");
        assert!(read_until(&mut stream, "takes GET and HEAD").starts_with("HTTP/1.1 405 "));
    }
    write!(stream, "{post}Content-Length: 1000000\r\n\r\n").expect("written");
    stream.write_all(&[b'x'; 1_000_000]).expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("ended in order");
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

#[test]
fn a_body_that_is_held_back_is_asked_for_unless_it_is_too_long() {
    let state = state();
    let server = start(&any(), &state);
    let mut stream = connect(&server);
    let post = "POST /livez HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    for (framing, body) in [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")] {
        write!(stream, "{post}{framing}\r\n\r\n").expect("written");
        assert_eq!(read_until(&mut stream, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(body.as_bytes()).expect("written");
        assert!(read_until(&mut stream, "takes GET and HEAD").starts_with("HTTP/1.1 405 "));
    }
    // Whoever does not wait is not told to go on.
    let whole = format!("{post}Content-Length: 5\r\n\r\nhello");
    stream.write_all(whole.as_bytes()).expect("written");
    assert!(read_until(&mut stream, "takes GET and HEAD").starts_with("HTTP/1.1 405 "));
    write!(stream, "{post}Content-Length: 1000000\r\n\r\n").expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("ended in order");
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

#[test]
fn a_request_that_does_not_come_to_its_end_is_told_so_and_a_client_that_sends_none_is_told_nothing() {
    let state = state();
    let server = start(&any(), &state);
    let livez = String::from_utf8_lossy(LIVEZ);
    let post = "POST /livez HTTP/1.1\r\nHost: localhost\r\n";
    let after_an_answer = format!("{livez}GET /li");
    let cases = [
        ("", ""),
        ("\r\n", ""),
        (&*livez, "200"),
        ("GET /livez HTTP/1.1\r\nHo", "408"),
        (&format!("{post}Content-Length: 5\r\n\r\n"), "408"),
        (&format!("{post}Content-Length: 5\r\n\r\nhell"), "408"),
        (&format!("{post}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"), "100 408"),
        (&after_an_answer, "200 408"),
    ];
    let clients = cases.map(|(sent, expected)| {
        let mut stream = connect(&server);
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        stream.write_all(sent.as_bytes()).expect("written");
        (stream, sent, expected)
    });
    for (mut stream, sent, expected) in clients {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("ended in order");
        let statuses: Vec<&str> =
            text.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.split(' ').next()).collect();
        assert_eq!(statuses.join(" "), expected, "{sent:?}: {text}");
        assert_eq!(text.contains("connection: close"), expected.ends_with("408"), "{text}");
    }
}

#[test]
fn what_is_no_request_is_answered_and_ends_the_connection() {
    let state = state();
    let server = start(&any(), &state);
    let long = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(64 * 1024));
    for (head, status) in [("\0\r\n\r\n", "400"), (long.as_str(), "431")] {
        let mut stream = connect(&server);
        stream.write_all(head.as_bytes()).expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("ended in order");
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    }
}

#[test]
fn an_offer_of_another_protocol_is_answered_in_this_one() {
    let state = state();
    let server = start(&any(), &state);
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let mut stream = connect(&server);
    write!(stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\n{offer}\r\nPRI * HTTP/2.0\r\n\r\n").expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("ended in order");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with('}'), "{text}");
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
}

/// A body that comes when the test sends it.
struct Pieces(UnboundedReceiver<Bytes>);

impl MessageBody for Pieces {
    type Error = std::io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<std::io::Result<Bytes>>> {
        self.0.poll_recv(context).map(|piece| piece.map(Ok))
    }
}

#[test]
fn an_answer_that_lasts_is_sent_as_it_comes() {
    let state = state();
    let (pieces, taken) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let taken = Arc::new(parking_lot::Mutex::new(Some(taken)));
    let server = AdminServer::start(&any(), state, move |app| {
        let taken = Arc::clone(&taken);
        app.route(
            "/events",
            web::get().to(move || {
                let body = Pieces(taken.lock().take().expect("asked once"));
                async move { HttpResponse::Ok().body(body) }
            }),
        );
    })
    .expect("starts");
    let mut stream = connect(&server);
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    assert!(read_until(&mut stream, "\r\n\r\n").contains("200 OK"));
    for piece in ["one", "two"] {
        pieces.send(Bytes::from_static(piece.as_bytes())).expect("taken");
        read_until(&mut stream, piece);
    }
    drop(pieces);
    read_until(&mut stream, "0\r\n\r\n");
    stream.write_all(LIVEZ).expect("written");
    assert!(read_until(&mut stream, "live").contains("200 OK"), "the connection goes on");
}
