//! Many who ask for the same at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use troupe_gateway::Running;
use troupe_mesh::body::{self, Body};

use super::{FRESH, cached, numbered, on, status};
use crate::support::*;

/// Sends a request and leaves it unread.
fn ask(running: &Running, fields: &str) -> Client {
    let mut client = Client::connect(running);
    client.send(format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"));
    client
}

/// Waits for the beginning of its answer, head and some of the first piece: as much as is there is looked at, and left.
fn await_beginning(client: &Client, least: usize) {
    let mut beginning = [0; 4096];
    while client.0.peek(&mut beginning).expect("the stream begins") < least {
        pause(Duration::from_millis(5));
    }
}

#[test]
fn requests_for_the_same_are_one_call() {
    let (running, calls) = cached(on(), |_, n| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(numbered(n, &[FRESH]))
    });
    let responses = together(&running, 50, "/a");
    assert!(responses.iter().all(|response| response.text() == "body 1"));
    assert_eq!(calls.count(), 1);
    assert!(responses.iter().filter(|response| status(response).contains("collapsed")).count() >= 40);
}

/// The rest of the stream comes when each of them has read its beginning, and no sooner.
#[test]
fn those_who_wait_read_the_stream_as_it_comes() {
    let all_began = Arc::new(AtomicBool::new(false));
    let go_on = Arc::clone(&all_began);
    let (running, calls) = cached(on(), move |_, _| {
        let go_on = Arc::clone(&go_on);
        async move {
            let (mut writer, reader) = body::channel(None);
            actix_rt::spawn(async move {
                for piece in 0..20 {
                    let _ = writer.write(Bytes::from(vec![b'a' + piece; 10_000])).await;
                    while !go_on.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                writer.finish();
            });
            Ok(reply(200, &[FRESH], Body::Stream(reader)))
        }
    });
    let mut clients: Vec<_> = (0..20).map(|_| ask(&running, "")).collect();
    for client in &clients {
        await_beginning(client, 1000);
    }
    all_began.store(true, Ordering::SeqCst);
    let expected: Vec<u8> = (0..20).flat_map(|piece| vec![b'a' + piece; 10_000]).collect();
    for client in &mut clients {
        assert!(client.response(false).body == expected);
    }
    assert_eq!(calls.count(), 1);
    let hit = Client::connect(&running).get("/a");
    assert!(hit.body == expected && status(&hit).starts_with("troupe-l1; hit"), "{}", hit.head);
}

/// A body may take longer to come than it is fresh: whoever comes then would not be given it from the store either.
#[test]
fn what_is_stale_before_its_body_is_through_is_for_those_who_asked_in_time() {
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let (running, calls) = cached(on(), move |_, n| {
        let end = Arc::clone(&end);
        async move {
            let (mut writer, reader) = body::channel(None);
            actix_rt::spawn(async move {
                let _ = writer.write(Bytes::from(format!("body {n}"))).await;
                while !end.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                writer.finish();
            });
            Ok(reply(200, &[("Cache-Control", "max-age=2")], Body::Stream(reader)))
        }
    });
    let begin = |fields: &str| {
        let client = ask(&running, fields);
        await_beginning(&client, 100);
        client
    };
    let in_time = [begin(""), begin("")];
    assert_eq!(calls.count(), 1);
    let anew = begin("Cache-Control: no-cache\r\n");
    assert_eq!(calls.count(), 2, "it asked for another");
    pause(Duration::from_millis(2_500));
    let late = [begin(""), begin("")];
    assert_eq!(calls.count(), 3, "one for all that came since");
    ended.store(true, Ordering::SeqCst);
    let texts = in_time.into_iter().chain([anew]).chain(late).map(|mut client| client.response(false).text());
    assert_eq!(texts.collect::<Vec<_>>(), ["body 1", "body 1", "body 2", "body 3", "body 3"]);
}

#[test]
fn a_stream_too_large_for_the_store_reaches_all_who_began_to_read_it() {
    let (running, calls) = cached(on(), |_, _| async move {
        let (mut writer, reader) = body::channel(None);
        actix_rt::spawn(async move {
            for piece in 0..300 {
                let _ = writer.write(Bytes::from(vec![b'a' + (piece % 26) as u8; 10_000])).await;
                if piece == 0 {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            writer.finish();
        });
        Ok(reply(200, &[FRESH], Body::Stream(reader)))
    });
    for response in together(&running, 8, "/a") {
        assert_eq!(response.body.len(), 3_000_000);
    }
    let before = calls.count();
    let again = Client::connect(&running).get("/a");
    assert!(again.body.len() == 3_000_000 && !status(&again).contains("hit"), "{}", again.head);
    assert_eq!(calls.count(), before + 1);
}

/// All of it went at the pace of the slowest, for as long as that took a byte a minute.
#[test]
fn one_who_does_not_read_is_left_behind_by_the_others() {
    const PIECE: usize = 64 << 10;
    // More than sockets hold.
    const PIECES: usize = 1024;
    let all_began = Arc::new(AtomicBool::new(false));
    let go_on = Arc::clone(&all_began);
    let (running, calls) = cached(on(), move |_, _| {
        let go_on = Arc::clone(&go_on);
        async move {
            let (mut writer, reader) = body::channel(None);
            actix_rt::spawn(async move {
                let _ = writer.write(Bytes::from_static(&[b'a'; 2000])).await;
                while !go_on.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let piece = bytes(PIECE);
                for _ in 0..PIECES {
                    if writer.write(piece.clone()).await.is_err() {
                        return;
                    }
                }
                writer.finish();
            });
            Ok(reply(200, &[FRESH], Body::Stream(reader)))
        }
    });
    let mut clients: Vec<_> = (0..4).map(|_| ask(&running, "")).collect();
    for client in &clients {
        await_beginning(client, 1000);
    }
    all_began.store(true, Ordering::SeqCst);
    let mut slow = clients.pop().expect("a client");
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| assert_eq!(client.response(false).body.len(), 2000 + PIECES * PIECE));
        }
    });
    assert_eq!(calls.count(), 1);
    let mut all = Vec::new();
    let _ = std::io::Read::read_to_end(&mut slow.0, &mut all);
    assert!(all.len() < PIECES * PIECE && !all.ends_with(b"\r\n0\r\n\r\n"), "it sees that it is incomplete");
    assert_eq!(Client::connect(&running).get("/a").body.len(), 2000 + PIECES * PIECE, "alone it gets all of it");
}

/// RFC 9111 §3.3: what is not complete is not stored as if it were.
#[test]
fn a_stream_that_breaks_is_not_stored() {
    let (running, calls) = cached(on(), |_, n| async move {
        let (mut writer, reader) = body::channel(None);
        actix_rt::spawn(async move {
            let _ = writer.write(Bytes::from_static(b"a part")).await;
            if n > 1 {
                writer.finish();
            }
        });
        Ok(reply(200, &[FRESH], Body::Stream(reader)))
    });
    let mut client = Client::connect(&running);
    client.send("GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let mut all = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.0, &mut all);
    assert!(!all.ends_with(b"\r\n0\r\n\r\n"), "the client sees that it is incomplete");
    assert_eq!(Client::connect(&running).get("/a").text(), "a part");
    assert_eq!(calls.count(), 2);
}

#[test]
fn what_cannot_be_shared_does_not_wait_for_each_other() {
    // One after the other it would take 10 s, which is longer than anybody here waits for a byte.
    let (running, calls) = cached(on(), |_, n| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(numbered(n, &[("Cache-Control", "no-store")]))
    });
    let began = std::time::Instant::now();
    assert_eq!(together(&running, 100, "/a").len(), 100);
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    assert_eq!(calls.count(), 100);
}

#[test]
fn when_whoever_fetches_leaves_another_takes_over() {
    let (running, calls) = cached(on(), |_, n| async move {
        tokio::time::sleep(if n == 1 { Duration::from_secs(600) } else { Duration::from_millis(1) }).await;
        Ok(numbered(n, &[FRESH]))
    });
    let mut leader = Client::connect(&running);
    leader.send("GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n");
    while calls.count() == 0 {
        pause(Duration::from_millis(5));
    }
    let mut waiter = Client::connect(&running);
    waiter.send("GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n");
    pause(Duration::from_millis(100));
    assert_eq!(calls.count(), 1);
    drop(leader);
    assert_eq!(waiter.response(false).text(), "body 2");
}

/// `count` clients that ask at once.
pub(super) fn together(running: &Running, count: usize, target: &str) -> Vec<Response> {
    let mut clients: Vec<_> = (0..count).map(|_| Client::connect(running)).collect();
    for client in &mut clients {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    }
    std::thread::scope(|scope| {
        let reading: Vec<_> = clients.iter_mut().map(|client| scope.spawn(|| client.response(false))).collect();
        reading.into_iter().map(|reader| reader.join().expect("reads")).collect()
    })
}
