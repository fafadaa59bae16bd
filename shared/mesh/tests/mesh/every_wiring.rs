//! What a service may rely on, whatever stands behind its port.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use troupe_mesh::body::{Body, channel};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Outcome, Stage, Started};
use troupe_wire::trace::TraceContext;

use crate::contract::{Ask, What, ask, read, until};
use crate::wiring::{Wired, Wiring, in_wirings};

in_wirings!([inline: Inline, mailbox: Mailbox, loopback: Loopback, tcp: Tcp, unix: Unix] [
    bodies_of_every_size_come_back,
    a_stream_comes_back_while_it_is_written,
    a_known_length_is_told,
    deadline_and_trace_travel,
    a_failure_travels_whole,
    a_dropped_call_stops_its_handler,
    thousands_of_calls_at_once,
    a_slow_reader_stops_its_writer_and_nothing_else,
    a_reader_that_leaves_stops_the_writer,
    a_body_that_breaks_off_is_not_taken_for_whole,
    a_request_body_that_breaks_off_is_not_taken_for_whole,
    a_panicking_handler_fails_its_call_only,
    a_service_that_panics_at_once_fails_its_call_only,
]);

// What lies between two services keeps the deadlines. Inline nothing does: caller and callee keep them themselves.
in_wirings!([between_mailbox: Mailbox, between_loopback: Loopback, between_tcp: Tcp, between_unix: Unix] [
    an_expired_call_is_never_started,
    a_callee_that_forgets_the_deadline_is_cut_off,
]);

async fn bodies_of_every_size_come_back(wired: Wired) {
    for size in [0, 1, 4096, 4097, 32 * 1024, 32 * 1024 + 1, 300_000, 3_000_000] {
        let sent: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        let reply = wired.port.call(ask(What::Echo, Body::full(Bytes::from(sent.clone())))).await.unwrap();
        assert_eq!(reply.number, size as u64);
        assert!(read(reply.body).await.unwrap() == sent, "{size}");
        let reply = wired.port.call(ask(What::Count, Body::full(Bytes::from(sent)))).await.unwrap();
        assert_eq!(reply.number, size as u64);
    }
}

async fn a_stream_comes_back_while_it_is_written(wired: Wired) {
    let (mut writer, reader) = channel(None);
    let mut reply = wired.port.call(ask(What::Echo, Body::Stream(reader))).await.unwrap();
    for round in 0..100u32 {
        let piece = Bytes::from(round.to_string());
        writer.write(piece.clone()).await.unwrap();
        assert_eq!(reply.body.next().await, Some(Ok(piece)));
    }
    writer.finish();
    assert_eq!(reply.body.next().await, None);
}

async fn a_known_length_is_told(wired: Wired) {
    let reply = wired.port.call(ask(What::Produce { pieces: 100, size: 10_000 }, Body::Empty)).await.unwrap();
    assert_eq!(reply.body.len(), Some(1_000_000));
    assert_eq!(read(reply.body).await.unwrap().len(), 1_000_000);
}

async fn deadline_and_trace_travel(wired: Wired) {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let call = Ask { what: What::Context, body: Body::Empty };
    let trace = TraceContext::parse_traceparent(traceparent.as_bytes());
    let deadline = Deadline::after(Duration::from_secs(30));
    let reply = wired.port.call(Envelope { call, deadline, trace }).await.unwrap();
    assert!((1..=30_000).contains(&reply.number), "{}", reply.number);
    assert_eq!(reply.trace.as_deref(), Some(traceparent));
}

async fn a_failure_travels_whole(wired: Wired) {
    let failure = wired.port.call(ask(What::Fail, Body::Empty)).await.unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Refused, Stage::Balancer));
    assert_eq!((failure.started, failure.status), (Started::No, Some(418)));
    assert_eq!((&*failure.reason, failure.detail.as_deref()), ("a teapot", Some("short and stout")));
    assert_eq!(failure.retry_after, Some(Duration::from_millis(1500)));
}

async fn a_dropped_call_stops_its_handler(wired: Wired) {
    let port = wired.port.clone();
    let call = actix_rt::spawn(async move { port.call(ask(What::Hang, Body::Empty)).await.map(drop) });
    let running = &wired.teller.running;
    until("the handler begins", || running.get() == 1).await;
    call.abort();
    until("the handler ends", || running.get() == 0).await;
}

async fn thousands_of_calls_at_once(wired: Wired) {
    let calls = (0..5_000u32).map(|index| {
        let call = wired.port.call(ask(What::Echo, Body::full(Bytes::from(index.to_string()))));
        async move { (index, call.await) }
    });
    for (index, reply) in join_all(calls).await {
        assert_eq!(read(reply.unwrap().body).await.unwrap(), index.to_string().into_bytes());
    }
}

async fn a_slow_reader_stops_its_writer_and_nothing_else(wired: Wired) {
    const PIECES: u32 = 2_000;
    const SIZE: u32 = 32 * 1024;
    let mut slow = wired.port.call(ask(What::Produce { pieces: PIECES, size: SIZE }, Body::Empty)).await.unwrap();
    let first = slow.body.next().await.unwrap().unwrap().len() as u64;
    let produced = &wired.teller.produced;
    let mut before = u64::MAX;
    while before != produced.get() {
        before = produced.get();
        actix_rt::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(before < 6 * 1024 * 1024, "a window, and what lies on the way: {before}");
    for _ in 0..100 {
        let reply = wired.port.call(ask(What::Echo, Body::full(Bytes::from_static(b"quick")))).await.unwrap();
        assert_eq!(read(reply.body).await.unwrap(), b"quick");
    }
    let large = wired.port.call(ask(What::Produce { pieces: 500, size: SIZE }, Body::Empty)).await.unwrap();
    assert_eq!(read(large.body).await.unwrap().len(), 500 * SIZE as usize);
    let rest = read(slow.body).await.unwrap().len() as u64;
    assert_eq!(first + rest, u64::from(PIECES) * u64::from(SIZE));
}

async fn a_reader_that_leaves_stops_the_writer(wired: Wired) {
    let reply = wired.port.call(ask(What::Produce { pieces: u32::MAX, size: 1000 }, Body::Empty)).await.unwrap();
    let produced = &wired.teller.produced;
    until("some is written", || produced.get() > 0).await;
    drop(reply);
    let mut before = u64::MAX;
    while before != produced.get() {
        before = produced.get();
        actix_rt::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(before < 6 * 1024 * 1024);
}

async fn a_body_that_breaks_off_is_not_taken_for_whole(wired: Wired) {
    let reply = wired.port.call(ask(What::BreakOff, Body::Empty)).await.unwrap();
    assert!(read(reply.body).await.is_err());
}

async fn a_request_body_that_breaks_off_is_not_taken_for_whole(wired: Wired) {
    let (mut writer, reader) = channel(None);
    let call = wired.port.call(ask(What::Count, Body::Stream(reader)));
    let call = actix_rt::spawn(async move { call.await.map(|said| said.number) });
    writer.write(Bytes::from_static(b"part")).await.unwrap();
    let running = &wired.teller.running;
    until("the handler begins", || running.get() == 1).await;
    drop(writer);
    assert!(call.await.unwrap().is_err(), "a part was counted as the whole");
    until("the handler ends", || running.get() == 0).await;
}

async fn a_panicking_handler_fails_its_call_only(wired: Wired) {
    fails_its_call_only(&wired, What::Panic).await;
}

async fn a_service_that_panics_at_once_fails_its_call_only(wired: Wired) {
    fails_its_call_only(&wired, What::PanicAtOnce).await;
}

/// Inline, a panic is one of the caller's, who catches it where its own call begins: here its task.
async fn fails_its_call_only(wired: &Wired, what: What) {
    for _ in 0..3 {
        let (port, what) = (wired.port.clone(), what.clone());
        let answer = actix_rt::spawn(async move { port.call(ask(what, Body::Empty)).await.map(drop) }).await;
        match wired.wiring {
            Wiring::Inline => assert!(answer.unwrap_err().is_panic()),
            Wiring::Mailbox | Wiring::Loopback | Wiring::Tcp | Wiring::Unix => {
                assert_eq!(answer.unwrap().unwrap_err().outcome, Outcome::Internal);
            }
        }
        assert!(wired.port.call(ask(What::Echo, Body::Empty)).await.is_ok());
    }
}

async fn an_expired_call_is_never_started(wired: Wired) {
    let expired = Envelope::new(Ask { what: What::Echo, body: Body::Empty }, Deadline::after(Duration::ZERO));
    let failure = wired.port.call(expired).await.unwrap_err();
    assert_eq!((failure.outcome, failure.started), (Outcome::Deadline, Started::No));
    assert_eq!(wired.teller.begun.get(), 0);
}

async fn a_callee_that_forgets_the_deadline_is_cut_off(wired: Wired) {
    // The wirings that dial take a moment for it.
    wired.port.call(ask(What::Echo, Body::Empty)).await.unwrap();
    let since = Instant::now();
    let forgotten =
        Envelope::new(Ask { what: What::Hang, body: Body::Empty }, Deadline::after(Duration::from_millis(300)));
    let failure = wired.port.call(forgotten).await.unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Deadline, Stage::Link));
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&since.elapsed()));
    let running = &wired.teller.running;
    until("the handler is stopped", || running.get() == 0).await;
}
