use super::*;

fn receive(reception: &Reception, target: &str, fields: &str) -> Incoming {
    let raw = RawHead {
        method: b"GET",
        target: target.as_bytes(),
        version: Version::Http11,
        authority: b"a.example",
        fields: fields.as_bytes(),
        body: BodyFrame::None,
        nominates: fields.to_ascii_lowercase().contains("connection:"),
    };
    let ends = Ends::new("10.0.0.9:1234".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
    reception.receive(&raw, &ends)
}

fn reception(trusted: Vec<IpNet>) -> Reception {
    Reception::new(trusted, Sampling::default())
}

fn request(target: &str, fields: &str, trusted: &[&str]) -> Request {
    let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
    match receive(&reception(trusted), target, fields) {
        Incoming::Request(request) => request,
        Incoming::Refused(refused) => panic!("{refused:?}"),
    }
}

fn names(request: &Request) -> Vec<&str> {
    request.head.fields().map(|(name, _)| name).collect()
}

#[test]
fn fields_keep_their_order_and_lose_what_is_for_this_hop() {
    let request = request(
        "/a?b=c",
        "Accept: */*\r\nHost: a.example\r\nConnection: close, X-Drop\r\nX-Drop: 1\r\nTE: trailers\r\nProxy: x\r\nCookie: a=b\r\n\
         Content_Type: x\r\nX-Real-IP: 1.1.1.1\r\nUpgrade: websocket\r\nX-Keep:  v \r\n",
        &[],
    );
    assert_eq!(names(&request), ["accept", "cookie", "x-keep", "x-request-id"]);
    assert_eq!(request.head.field("x-keep"), Some(&b"v"[..]));
    assert_eq!((request.head.target(), request.head.authority()), ("/a?b=c", "a.example"));
    assert_eq!(request.id.len(), 32);
}

#[test]
fn ids_are_kept_when_sane_and_made_otherwise() {
    assert_eq!(request("/", "X-Request-Id: abc-1\r\n", &[]).id, "abc-1");
    let long = format!("X-Request-Id: {}\r\n", "a".repeat(129));
    for fields in ["X-Request-Id: a b\r\n", "X-Request-Id: <x>\r\n", "X-Request-Id: \r\n", &long] {
        let made = request("/", fields, &[]);
        assert_eq!(made.id.len(), 32, "{fields}");
        assert_eq!(names(&made), ["x-request-id"]);
    }
    assert_ne!(request("/", "", &[]).id, request("/", "", &[]).id);
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_clients_trace_goes_on_and_another_begins_without_a_sound_one() {
    let fields = format!("tracestate: a=1,b=2\r\nTraceparent: {PARENT}\r\nTraceState: c=3\r\n");
    let continued = request("/", &fields, &[]);
    let (parent, inward) = (TraceContext::parse_traceparent(PARENT.as_bytes()).unwrap(), continued.trace.context());
    assert_eq!((inward.trace_id, inward.flags), (parent.trace_id, 1));
    assert_ne!(inward.span_id, parent.span_id);
    // The context travels beside the head; what vendors add, in it and in its order.
    assert_eq!(names(&continued), ["tracestate", "tracestate", "x-request-id"]);
    let states: Vec<_> = continued.head.fields().filter(|(name, _)| *name == "tracestate").map(|(_, it)| it).collect();
    assert_eq!(states, [&b"a=1,b=2"[..], &b"c=3"[..]]);
    let malformed = format!("traceparent: {}\r\ntracestate: a=1\r\n", PARENT.to_uppercase());
    let twice = format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\ntracestate: a=1\r\n");
    for fields in ["", "tracestate: a=1\r\n", &malformed, &twice] {
        let begun = request("/", fields, &[]);
        assert_ne!(begun.trace.context().trace_id, parent.trace_id, "{fields}");
        assert_eq!(names(&begun), ["x-request-id"], "{fields}");
    }
    assert_ne!(request("/", "", &[]).trace.id_text(), request("/", "", &[]).trace.id_text());
}

#[test]
fn only_trusted_proxies_are_believed() {
    let fields = "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: real.example\r\n";
    let stranger = request("/", fields, &[]);
    assert_eq!((stranger.head.remote_addr(), stranger.head.scheme()), ("10.0.0.9", Scheme::Http));
    assert_eq!(names(&stranger), ["x-request-id"]);
    let proxied = request("/", fields, &["10.0.0.0/8"]);
    assert_eq!((proxied.head.remote_addr(), proxied.head.scheme()), ("192.0.2.7", Scheme::Https));
    assert_eq!(proxied.head.authority(), "real.example");
    let nominated = request("/", &format!("Connection: X-Forwarded-For\r\n{fields}"), &["10.0.0.0/8"]);
    assert_eq!(nominated.head.remote_addr(), "192.0.2.7");
    let nonsense = request("/", "X-Forwarded-For: nonsense\r\n", &["10.0.0.0/8"]);
    assert_eq!(nonsense.head.remote_addr(), "10.0.0.9");
}

#[test]
fn targets_come_out_in_origin_form_and_normal() {
    assert_eq!(request("http://a.example/%61?x=%2f", "", &[]).head.target(), "/a?x=%2f");
    assert_eq!(request("http://a.example", "", &[]).head.target(), "/");
    assert_eq!(request("http://a.example?x=/%2f", "", &[]).head.target(), "/?x=/%2f");
    assert!(matches!(
        receive(&reception(vec![]), "/a%2fb", ""),
        Incoming::Refused(Refused { status: 400, close: false, .. })
    ));
}

#[test]
fn html_is_for_those_who_ask_for_it_first() {
    assert!(prefers_html(b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
    assert!(!prefers_html(b"application/json, text/html"));
    assert!(!prefers_html(b"*/*"));
}

#[test]
fn a_handshake_is_one_in_every_respect() {
    let asks = |fields: &str| request("/", fields, &[]).websocket;
    assert!(asks("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    assert!(asks("Upgrade: h2c, WebSocket\r\nConnection: keep-alive, UPGRADE\r\n"));
    for fields in [
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "Connection: close\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket2\r\n",
    ] {
        assert!(!asks(fields), "{fields}");
    }
    let fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let good = RawHead {
        method: b"GET",
        target: b"/",
        version: Version::Http11,
        authority: b"a.example",
        fields,
        body: BodyFrame::None,
        nominates: true,
    };
    let ends = Ends::new("10.0.0.9:1234".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
    let asks = |raw: RawHead<'_>| match reception(vec![]).receive(&raw, &ends) {
        Incoming::Request(request) => {
            assert!(!names(&request).contains(&"upgrade"));
            request.websocket
        }
        Incoming::Refused(refused) => panic!("{refused:?}"),
    };
    assert!(asks(good));
    assert!(!asks(RawHead { method: b"POST", ..good }));
    assert!(!asks(RawHead { method: b"HEAD", ..good }));
    assert!(!asks(RawHead { version: Version::Http10, ..good }));
    assert!(!asks(RawHead { body: BodyFrame::Length(1), ..good }));
    assert!(!asks(RawHead { body: BodyFrame::Chunked, ..good }));
}
