//! Requests with cookies or credentials among those without: neither is answered what is the other's, and none of them costs
//! the others their cache.

use std::time::Duration;

use troupe_gateway::Running;
use troupe_gateway::cache::config::{CacheDetails, RouteCache};
use troupe_mesh::body::Body;

use super::{Calls, FRESH, cached, on, status, together::together};
use crate::support::*;

/// A route whose answers are kept for a minute, though they do not say so; they tell whose they are.
fn by_route() -> (Running, Calls) {
    answering(CacheDetails { ttl: Some(troupe_node::units::Duration::from_secs(60)), ..CacheDetails::default() })
}

fn answering(details: CacheDetails) -> (Running, Calls) {
    cached(Some(RouteCache::Details(details)), |envelope, n| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let head = &envelope.call.head;
        let who = head.field("cookie").or(head.field("authorization")).unwrap_or(b"nobody");
        Ok(reply(200, &[], Body::full(format!("{n} {}", String::from_utf8_lossy(who)).into())))
    })
}

fn asked(client: &mut Client, field: &str) -> Response {
    client.send(format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{field}\r\n\r\n")).response(false)
}

/// What one visitor is answered must not keep the others from waiting for one fetch.
#[test]
fn one_visitors_cookie_does_not_make_the_others_fetch_each_for_itself() {
    for field in ["Cookie: me", "Authorization: me"] {
        let (running, calls) = by_route();
        assert_eq!(asked(&mut Client::connect(&running), field).text(), "1 me", "{field}");
        let answers = together(&running, 50, "/a");
        assert!(answers.iter().all(|answer| answer.text() == "2 nobody"), "{field}");
        assert_eq!(calls.count(), 2, "{field}");
    }
}

/// On a URL that nothing is known of, those with a cookie and those without ask at once.
#[test]
fn whoever_waits_gets_what_is_for_it() {
    let (running, calls) = by_route();
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&running)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let field = if index % 2 == 0 { "Accept: */*" } else { "Cookie: me" };
        client.send(format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{field}\r\n\r\n"));
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let answer = client.response(false).text();
        let whose = if index % 2 == 0 { " nobody" } else { " me" };
        assert!(answer.ends_with(whose), "client {index} is answered {answer}");
    }
    // One for all without a cookie, and one for each with one.
    assert_eq!(calls.count(), 11);
}

/// Cookies may be declared to say nothing; credentials always do.
#[test]
fn whoever_has_credentials_does_not_wait_for_what_a_cookie_brings() {
    let minute = Some(troupe_node::units::Duration::from_secs(60));
    let details = CacheDetails { ttl: minute, ignore_cookies: true, ..CacheDetails::default() };
    let (running, _) = answering(details);
    let mut clients = [Client::connect(&running), Client::connect(&running)];
    clients[0].send("GET /a HTTP/1.1\r\nHost: a.example\r\nCookie: me\r\n\r\n");
    pause(Duration::from_millis(50));
    clients[1].send("GET /a HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer\r\n\r\n");
    let answers = clients.map(|mut client| client.response(false).text());
    assert!(answers[0].ends_with(" me") && answers[1].ends_with(" Bearer"), "{answers:?}");
}

/// Those with cookies do not wait for each other either, once it is known that their answers are theirs.
#[test]
fn personal_requests_do_not_wait_for_each_other() {
    let (running, calls) = by_route();
    asked(&mut Client::connect(&running), "Cookie: me");
    let began = std::time::Instant::now();
    let mut clients: Vec<_> = (0..40).map(|_| Client::connect(&running)).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: a.example\r\nCookie: me\r\n\r\n");
    }
    for client in &mut clients {
        assert!(client.response(false).text().ends_with(" me"));
    }
    // One after the other it would take eight seconds.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(calls.count(), 41);
}

/// What is stored for all stays when one is answered something of its own.
#[test]
fn one_visitor_does_not_take_away_what_is_stored_for_all() {
    for field in ["Authorization: me", "Cookie: me", "Cache-Control: no-store", "Pragma: x\r\nCookie: me"] {
        let (running, _) = cached(on(), |envelope, n| async move {
            let head = &envelope.call.head;
            let own = head.field("cookie").or(head.field("authorization")).is_some();
            let control = if own { ("Cache-Control", "private") } else { FRESH };
            Ok(reply(200, &[control], Body::full(format!("{n}").into())))
        });
        let mut client = Client::connect(&running);
        assert_eq!(client.get("/a").text(), "1");
        // Asked of the origin, whatever is stored.
        assert_eq!(asked(&mut client, &format!("{field}\r\nCache-Control: no-cache")).text(), "2", "{field}");
        let after = client.get("/a");
        assert!(after.text() == "1" && status(&after).starts_with("troupe-l1; hit"), "{field}: {}", after.head);
    }
}

/// An answer that says it is for all is shared by those with cookies, too.
#[test]
fn an_answer_for_all_is_one_fetch_for_those_with_cookies() {
    let (running, calls) = cached(on(), |_, n| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(reply(200, &[FRESH], Body::full(format!("{n}").into())))
    });
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&running)).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: a.example\r\nCookie: me\r\n\r\n");
    }
    assert!(clients.iter_mut().all(|client| client.response(false).text() == "1"));
    assert_eq!(calls.count(), 1);
}

/// RFC 9111 §5.2.2.4, §5.2.2.7: fields that a response keeps from others are not stored; whoever asked gets them, of a response that
/// comes whole, that streams, and that was found to be still good. They were lost.
#[test]
fn what_is_kept_from_others_reaches_who_asked() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        let (number, control) = (n.to_string(), "max-age=60, no-cache=\"Set-Cookie\", private=\"x-own\"");
        let fields = [
            ("Cache-Control", control),
            ("ETag", "\"a\""),
            ("Set-Cookie", &number),
            ("X-Own", &number),
            ("X-All", "1"),
        ];
        Ok(match (&*envelope.call.function, envelope.call.head.field("if-none-match").is_some()) {
            (_, true) => reply(304, &fields, Body::Empty),
            ("stream", _) => {
                let (mut writer, reader) = troupe_mesh::body::channel(None);
                actix_rt::spawn(async move {
                    let _ = writer.write("body".into()).await;
                    writer.finish();
                });
                reply(200, &fields, Body::Stream(reader))
            }
            _ => reply(200, &fields, Body::full("body".into())),
        })
    });
    let mut client = Client::connect(&running);
    let mut ask = |target: &str, field: &str| {
        let answer = client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")).response(false);
        assert_eq!(answer.field("x-all"), Some("1"), "{target}: {}", answer.head);
        let own = ["set-cookie", "x-own"].map(|name| answer.field(name).map(str::to_owned));
        (answer.status, answer.text(), own)
    };
    let given = |n: &str| [Some(n.to_owned()), Some(n.to_owned())];
    for (target, first, second) in [("/whole", "1", "2"), ("/stream", "3", "4")] {
        assert_eq!(ask(target, "Accept: */*"), (200, "body".to_owned(), given(first)), "{target}");
        assert_eq!(ask(target, "Accept: */*"), (200, "body".to_owned(), [None, None]), "{target}: it is for one");
        assert_eq!(ask(target, "Cache-Control: no-cache"), (200, "body".to_owned(), given(second)), "{target}");
        assert_eq!(ask(target, "If-None-Match: \"a\""), (304, String::new(), [None, None]), "{target}");
    }
    assert_eq!(calls.count(), 4);
}
