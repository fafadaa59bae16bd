//! Methods, routes, heads, ids, problems.

use troupe_gateway::config::RouteConfig;
use troupe_mesh::body::Body;
use troupe_mesh::failure::{Failure, Stage};

use crate::support::*;

#[test]
fn a_request_reaches_the_service_and_its_answer_the_client() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    for _ in 0..3 {
        let response = client.get("/hello?name=x");
        assert_eq!(response.status, 200, "{}", response.head);
        assert!(response.text().starts_with("GET /hello?name=x hello a.example\n"), "{}", response.text());
        assert_eq!(response.field("content-type"), Some("text/plain"));
        assert_eq!(response.field("x-request-id").map(str::len), Some(32));
        assert_eq!(response.field("server"), None);
        assert!(response.field("date").is_some());
    }
}

#[test]
fn ids_and_traces_go_through() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    client.send(format!("GET /a HTTP/1.1\r\nHost: a\r\nX-Request-Id: my-id.1\r\ntraceparent: {trace}\r\n\r\n"));
    let response = client.response(false);
    assert_eq!(response.field("x-request-id"), Some("my-id.1"));
    let text = response.text();
    assert!(text.contains("x-request-id: my-id.1\n"), "{text}");
    // The trace goes on, and what is behind the gateway has the gateway's span as its parent.
    let (span, trace) = ("00f067aa0ba902b7", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-");
    assert!(text.contains(trace) && !text.contains(span), "{text}");
    // Without one, each request begins one.
    let begun =
        [(); 2].map(|()| client.get("/a").text().split_once("traceparent: ").map(|(_, it)| it[..55].to_owned()));
    assert!(begun[0].is_some() && begun[0] != begun[1], "{begun:?}");
    // A problem carries it too.
    let problem = client.send("GET /a//b HTTP/1.1\r\nHost: a\r\n\r\n").response(false);
    assert_eq!(problem.status, 400);
    assert_eq!(problem.problem()["request_id"].as_str(), problem.field("x-request-id"));
    assert_eq!(client.get("/still-alive").status, 200);
}

#[test]
fn head_runs_as_get_and_sends_no_body() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    let get = client.send("GET /a HTTP/1.1\r\nHost: a\r\nX-Request-Id: x\r\n\r\n").response(false);
    let head = client.send("HEAD /a HTTP/1.1\r\nHost: a\r\nX-Request-Id: x\r\n\r\n").response(true);
    assert_eq!((head.status, head.field("content-length")), (200, get.field("content-length")));
    assert!(get.text().starts_with("GET /a"));
    assert_eq!(client.get("/b").status, 200);
}

#[test]
fn methods_that_a_route_does_not_take() {
    let route = RouteConfig {
        path: "/a".into(),
        function: Some("f".into()),
        methods: vec!["GET".into(), "POST".into()],
        ..RouteConfig::default()
    };
    let running = serve(config(), &[route], echo);
    let mut client = Client::connect(&running);
    let refused = client.send("DELETE /a HTTP/1.1\r\nHost: a\r\n\r\n").response(false);
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD, OPTIONS, POST")));
    let options = client.send("OPTIONS /a HTTP/1.1\r\nHost: a\r\n\r\n").response(false);
    assert_eq!((options.status, options.field("allow")), (204, Some("GET, HEAD, OPTIONS, POST")));
    assert_eq!(options.field("content-length"), None);
    assert_eq!(client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").response(false).status, 204);
    assert_eq!(client.get("/b").status, 404);
    assert_eq!(client.get("/a").status, 200);
}

/// RFC 9110 §7.6.2: whoever may not forward a request answers it. A function is no further hop.
#[test]
fn what_may_not_be_forwarded_reaches_no_upstream() {
    let upstream = RouteConfig { path: "/up/{rest*}".into(), upstream: Some("app".into()), ..RouteConfig::default() };
    let running = serve(config(), &[upstream, any_function()], echo);
    let mut client = Client::connect(&running);
    let mut ask = |method: &str, path: &str, hops: &str| {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nMax-Forwards: {hops}\r\n\r\n")).response(false)
    };
    let options = ask("OPTIONS", "/up/a", "0");
    assert_eq!((options.status, options.field("allow").is_some()), (204, true), "{}", options.head);
    let trace = ask("TRACE", "/up/a", "00");
    assert_eq!((trace.status, trace.field("allow").is_some()), (405, true), "{}", trace.head);
    for (method, path, hops) in [
        ("OPTIONS", "/up/a", "1"),
        ("TRACE", "/up/a", "10"),
        ("GET", "/up/a", "0"),
        ("OPTIONS", "/f", "0"),
        ("TRACE", "/up/a", ""),
    ] {
        let reached = ask(method, path, hops);
        assert_eq!(reached.status, 200, "{method} {path} {hops}: {}", reached.head);
        assert!(reached.text().starts_with(&format!("{method} {path} ")), "{}", reached.text());
    }
}

#[test]
fn the_gateway_has_pages_of_its_own() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    let landing = client.get("/");
    assert_eq!((landing.status, landing.field("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(landing.text().contains("href="));
    assert_eq!(client.get("/health").status, 200);
    let claimed = RouteConfig { path: "/{rest*}".into(), function: Some("f".into()), ..RouteConfig::default() };
    let tuner = running.tuner();
    tuner.take(tuner.prepare(&[claimed]).expect("they fit together"), &config());
    assert!(client.get("/").text().starts_with("GET / f"));
    let problems = tuner.prepare(&[RouteConfig { path: "x".into(), ..RouteConfig::default() }]).expect_err("no path");
    assert_eq!(problems.len(), 1);
    assert!(client.get("/").text().starts_with("GET / f"));
}

#[test]
fn failures_become_problems_for_programs_and_pages_for_people() {
    let running = serve(config(), &functions(), |envelope| async move {
        Err(match &*envelope.call.function {
            "late" => Failure::deadline(Stage::Queue),
            "full" => Failure::overloaded(Stage::Queue, "the queue is full", std::time::Duration::from_millis(1500)),
            "absent" => Failure::refused(Stage::PhpPool, 404, "no such function <b>"),
            _ => Failure::new(troupe_mesh::failure::Outcome::Broken, Stage::Php, "the process died")
                .with_detail("secret"),
        })
    });
    let mut client = Client::connect(&running);
    let late = client.get("/late");
    assert_eq!((late.status, late.problem()["stage"].as_str()), (504, Some("queue")));
    let full = client.get("/full");
    assert_eq!((full.status, full.field("retry-after")), (503, Some("2")));
    assert_eq!(client.get("/absent").status, 404);
    let broken = client.get("/x");
    assert_eq!(broken.status, 502);
    assert!(!broken.text().contains("secret"));
    client.send("GET /absent HTTP/1.1\r\nHost: a\r\nAccept: text/html,*/*\r\n\r\n");
    let page = client.response(false);
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("&lt;b&gt;") && page.text().contains("404"));
}

#[test]
fn a_panic_of_the_service_is_one_answer() {
    let running = serve(config(), &functions(), |envelope| async move {
        assert_ne!(&*envelope.call.function, "boom", "a panic that this test wants");
        Ok(reply(200, &[], Body::Empty))
    });
    let mut client = Client::connect(&running);
    let response = client.get("/boom");
    assert_eq!((response.status, response.problem()["status"].as_u64()), (500, Some(500)));
    assert!(client.is_closed());
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/fine").status, 200);
}

#[test]
fn what_a_service_sets_goes_out_and_framing_does_not() {
    let running = serve(config(), &functions(), |envelope| async move {
        Ok(match &*envelope.call.function {
            "none" => reply(204, &[("Content-Length", "5"), ("X-A", "1")], Body::full("12345".into())),
            "odd" => reply(150, &[], Body::Empty),
            "server" => reply(
                200,
                &[
                    ("Set-Cookie", "a=1"),
                    ("set-cookie", "b=2"),
                    ("Connection", "close"),
                    ("Transfer-Encoding", "gzip"),
                    ("Content-Length", "99"),
                    ("X-Request-Id", "forged"),
                    ("Server", "mine"),
                ],
                Body::full("ok".into()),
            ),
            _ => reply(304, &[("ETag", "\"x\"")], Body::Empty),
        })
    });
    let mut client = Client::connect(&running);
    let response = client.get("/server");
    assert_eq!((response.field("content-length"), response.text().as_str()), (Some("2"), "ok"));
    assert_eq!(response.head.matches("set-cookie").count(), 2, "{}", response.head);
    assert_eq!(
        (response.field("connection"), response.field("transfer-encoding"), response.field("server")),
        (None, None, Some("mine"))
    );
    assert!(!response.head.contains("forged"));
    let none = client.get("/none");
    assert_eq!((none.status, none.field("content-length"), none.field("x-a")), (204, None, Some("1")));
    assert_eq!(client.get("/unchanged").field("etag"), Some("\"x\""));
    assert_eq!(client.get("/odd").status, 502);
    assert_eq!(client.get("/server").status, 200);
}
