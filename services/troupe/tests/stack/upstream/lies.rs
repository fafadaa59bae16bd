//! Replies that are not believed: 502 before the head has gone on, a cut connection after.

use std::thread;
use std::time::Duration;

use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::{Then, Upstream};

use super::{in_both, metric, one_process};

/// By target: what the server says, and why it is refused.
const LIES: [(&str, &str, &str); 24] = [
    ("/no-http", "ICY 200 OK\r\n\r\n", "status_line"),
    ("/version", "HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n", "status_line"),
    ("/bare-lf", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "bare_lf"),
    ("/bare-lf-later", "HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 0\r\n\r\n", "bare_lf"),
    ("/folded", "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n", "folded"),
    ("/no-colon", "HTTP/1.1 200 OK\r\nnothing\r\nContent-Length: 0\r\n\r\n", "field"),
    ("/space", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", "field"),
    ("/nul", "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n", "field"),
    ("/cl-twice", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "content_length"),
    ("/cl-list", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "content_length"),
    ("/cl-signed", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "content_length"),
    ("/cl-204", "HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok", "content_length"),
    ("/cl-te", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "ambiguous"),
    ("/te-gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "transfer_encoding"),
    ("/te-1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "transfer_encoding"),
    ("/chunk-size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", "chunk"),
    ("/chunk-end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokok0\r\n\r\n", "chunk"),
    ("/chunk-lf", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", "bare_lf"),
    ("/surplus", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", "surplus"),
    ("/surplus-chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore", "surplus"),
    ("/surplus-204", "HTTP/1.1 204 No\r\n\r\nok", "surplus"),
    ("/switched", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "switched"),
    ("/short-head", "HTTP/1.1 200 OK\r\nContent-Le", "truncated"),
    ("/interim", "HTTP/1.1 100 Continue\r\n\r\n", "truncated"),
];

fn liar() -> Upstream {
    Upstream::start(|exchange| {
        match LIES.iter().find(|(target, ..)| *target == exchange.request.target()) {
            Some((_, said, _)) => exchange.send(said)?,
            None => return exchange.answer(200, "honest"),
        }
        Ok(Then::Close)
    })
}

fn malformed(stack: &mut Stack, reason: &str) -> f64 {
    metric(stack, &format!("troupe_balancer_upstream_malformed_total{{pool=\"upstream:app\",reason=\"{reason}\"}}"))
}

#[test]
fn a_malformed_reply_is_a_502_and_is_not_asked_for_again() {
    let server = liar();
    in_both(&[&server], "", |stack| {
        for (target, _, reason) in LIES {
            let (before, asked) = (malformed(stack, reason), server.requests().len());
            let reply = stack.get(target);
            assert_eq!((reply.status, reply.json()["stage"].as_str()), (502, Some("upstream")), "{target}");
            assert_eq!(server.requests().len(), asked + 1, "{target}: bytes of a reply were seen");
            assert_eq!(malformed(stack, reason), before + 1.0, "{target}");
            // It was not the fifth in a row.
            assert_eq!(stack.get("/").text(), "honest");
        }
    });
}

#[test]
fn a_head_without_end_is_a_502() {
    let server = Upstream::start(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nX: ")?;
        loop {
            exchange.send([b'a'; 4096])?;
        }
    });
    let stack = one_process(&[&server], "");
    assert_eq!(stack.get("/").status, 502);
}

#[test]
fn a_reply_that_goes_wrong_behind_its_head_is_cut_and_its_connection_not_used_again() {
    let server = Upstream::start(|exchange| {
        let (framing, first, second): (_, &[u8], &[u8]) = match exchange.request.target() {
            "/short" => ("Content-Length: 100000", b"begun", b""),
            "/chunks-broken" => ("Transfer-Encoding: chunked", b"5\r\nbegun\r\n", b"zz\r\n"),
            "/chunks-short" => ("Transfer-Encoding: chunked", b"5\r\nbegun\r\n", b""),
            "/chunks-surplus" => ("Transfer-Encoding: chunked", b"5\r\nbegun\r\n", b"0\r\n\r\nmore"),
            "/surplus" => ("Content-Length: 100001", b"begun", &[b'x'; 100_000]),
            _ => return exchange.answer(200, "honest"),
        };
        exchange.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))?;
        exchange.send(first)?;
        // Long enough for the head to have gone on.
        thread::sleep(Duration::from_millis(300));
        exchange.send(second)?;
        Ok(Then::Close)
    });
    in_both(&[&server], "", |stack| {
        for target in ["/short", "/chunks-broken", "/chunks-short", "/chunks-surplus", "/surplus"] {
            let mut client = stack.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
            let head = client.head().unwrap();
            assert_eq!(head.status, 200, "{target}");
            let whole = match head.header("content-length").parse() {
                Ok(length) => client.skip(length).is_ok(),
                Err(_) => std::iter::from_fn(|| client.chunk().transpose()).all(|chunk| chunk.is_ok()),
            };
            // What came too much behind a complete body is not passed on, and costs the server its connection alone.
            assert!(!whole || target == "/surplus", "{target}: a part must not look like the whole");
            assert_eq!(stack.get("/").text(), "honest");
        }
    });
}

#[test]
fn interim_replies_are_not_taken_for_the_final_one() {
    let server = Upstream::start(|exchange| {
        exchange.read_body()?;
        exchange.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
        thread::sleep(Duration::from_millis(50));
        exchange.send("HTTP/1.1 102 Processing\r\n\r\n")?;
        exchange.answer(201, "final")
    });
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        for _ in 0..2 {
            let reply = client.request("POST", "/", &[], b"x").unwrap();
            assert_eq!((reply.status, reply.text().as_str(), reply.header("link")), (201, "final", ""));
        }
        assert_eq!(metric(stack, "troupe_balancer_upstream_interim_total{pool=\"upstream:app\"}"), 6.0);
    });
    let endless = Upstream::start(|exchange| {
        loop {
            exchange.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
    });
    assert_eq!(one_process(&[&endless], "").get("/").status, 502);
}

#[test]
fn bytes_nobody_asked_for_end_a_kept_connection_and_are_no_answer() {
    let server = Upstream::start(|exchange| {
        exchange.answer(200, "right")?;
        thread::sleep(Duration::from_millis(50));
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")?;
        Ok(Then::Keep)
    });
    let stack = one_process(&[&server], "");
    let mut client = stack.connect();
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/", &[], b"").unwrap().text(), "right");
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(server.accepted(), 3);
}
