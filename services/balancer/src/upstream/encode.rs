//! A request as an upstream server sees it: one framing of our own, and what a proxy adds.

use std::borrow::Cow;

use troupe_wire::head::{RequestHead, Version};
use troupe_wire::trace::TraceContext;

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// There is none.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// There is none; what follows a reply of 101 is WebSocket.
    WebSocket,
}

/// Appends a request's head to `out`.
///
/// Nothing of the client's framing is passed on, nor what is for one hop alone (RFC 9110 §7.6.1). `host` stands in for
/// the `Host` that a client of HTTP/1.0 did not send.
pub fn head(
    (request, trace): (&RequestHead, Option<&TraceContext>),
    head_only: bool,
    sending: Sending,
    host: &str,
    out: &mut Vec<u8>,
) {
    let method = if head_only { "HEAD" } else { request.method() };
    let authority = if request.authority().is_empty() { host } else { request.authority() };
    for part in [method, " ", request.target(), " HTTP/1.1\r\nhost: ", authority, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let bounded = matches!(method, "OPTIONS" | "TRACE");
    for (name, value) in request.raw_fields() {
        match bounded && name == b"max-forwards" {
            _ if is_ours(name) => {}
            true => field(name, &one_less(value), out),
            false => field(name, value, out),
        }
    }
    if let Some(trace) = trace {
        field(b"traceparent", &trace.to_traceparent(), out);
    }
    field(b"x-forwarded-for", request.remote_addr().as_bytes(), out);
    field(b"x-forwarded-proto", request.scheme().as_str().as_bytes(), out);
    field(b"x-forwarded-host", authority.as_bytes(), out);
    let via: &[u8] = match request.version() {
        Version::Http10 => b"1.0 troupe",
        Version::Http11 => b"1.1 troupe",
        Version::Http2 => b"2 troupe",
    };
    field(b"via", via, out);
    match sending {
        // RFC 9110 §8.6: a method that gives its content a meaning says that there is none.
        Sending::Nothing if matches!(method, "POST" | "PUT" | "PATCH") => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        Sending::Nothing => {}
        Sending::Length(length) => field(b"content-length", length.to_string().as_bytes(), out),
        // The key and the version stand among the client's fields; that the server accepted them is for the client to check.
        Sending::WebSocket => out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n"),
        Sending::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// How many more hops a request may take behind this one (RFC 9110 §7.6.2), of how many it might here. Who may take none gets none, and
/// what is no number stays as it is. Other methods are not bounded.
fn one_less(value: &[u8]) -> Cow<'_, [u8]> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let hops: Option<u64> = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|value| value.parse().ok());
    hops.map_or(Cow::Borrowed(value), |hops| Cow::Owned(hops.saturating_sub(1).to_string().into_bytes()))
}

/// Fields that are written here, or that must not go further. Names in heads are in lower case.
fn is_ours(name: &[u8]) -> bool {
    matches!(
        name,
        b"host"
            | b"content-length"
            | b"transfer-encoding"
            | b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authorization"
            | b"te"
            | b"trailer"
            | b"upgrade"
            | b"expect"
            // Travels beside the head.
            | b"traceparent"
            | b"x-forwarded-for"
            | b"x-forwarded-proto"
            | b"x-forwarded-host"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use troupe_wire::head::{RequestHeadBuilder, RequestParts, Scheme};

    use super::*;

    fn request(method: &'static str, authority: &'static str, fields: &[(&str, &[u8])]) -> RequestHead {
        let mut builder = RequestHeadBuilder::default();
        for (name, value) in fields {
            builder.field(name, value).unwrap();
        }
        let parts = RequestParts {
            version: Version::Http11,
            scheme: Scheme::Https,
            method,
            target: "/a?b=c",
            authority,
            remote_addr: "192.0.2.1",
            remote_port: "1",
            local_addr: "192.0.2.2",
            local_port: "80",
        };
        builder.finish(&parts).unwrap()
    }

    fn encoded(request: &RequestHead, head_only: bool, sending: Sending) -> String {
        let mut out = Vec::new();
        head((request, None), head_only, sending, "upstream:80", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_parent_is_the_one_of_the_call_and_not_one_of_the_head() {
        let own = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::parse_traceparent(own.as_bytes()).unwrap();
        let request = request("GET", "a.example", &[("traceparent", b"another"), ("tracestate", b"a=1")]);
        let mut out = Vec::new();
        head((&request, Some(&trace)), false, Sending::Nothing, "upstream:80", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!("\r\ntraceparent: {own}\r\n")) && text.contains("\r\ntracestate: a=1\r\n"));
        assert!(!text.contains("another"), "{text}");
    }

    #[test]
    fn a_request_has_one_framing_and_says_whose_it_is() {
        let fields: [(&str, &[u8]); 6] = [
            ("accept", b"*/*"),
            ("content-length", b"7"),
            ("connection", b"close"),
            ("te", b"trailers"),
            ("x-forwarded-for", b"10.0.0.1"),
            ("via", b"1.1 edge"),
        ];
        assert_eq!(
            encoded(&request("POST", "app.example", &fields), false, Sending::Length(3)),
            "POST /a?b=c HTTP/1.1\r\nhost: app.example\r\naccept: */*\r\nvia: 1.1 edge\r\n\
             x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: app.example\r\n\
             via: 1.1 troupe\r\ncontent-length: 3\r\n\r\n"
        );
        let get = encoded(&request("GET", "", &[]), true, Sending::Nothing);
        assert!(get.starts_with("HEAD /a?b=c HTTP/1.1\r\nhost: upstream:80\r\n"), "{get}");
        assert!(!get.contains("content-length"), "{get}");
        assert!(encoded(&request("PUT", "a", &[]), false, Sending::Nothing).contains("content-length: 0\r\n"));
        let fields: [(&str, &[u8]); 3] =
            [("upgrade", b"h2c"), ("connection", b"close"), ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")];
        let handshake = encoded(&request("GET", "a", &fields), false, Sending::WebSocket);
        assert_eq!(handshake.matches("upgrade").count(), 1, "{handshake}");
        assert!(handshake.contains("\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "{handshake}");
        assert!(handshake.ends_with("\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"), "{handshake}");
        assert!(
            encoded(&request("PUT", "a", &[]), false, Sending::Chunked).ends_with("transfer-encoding: chunked\r\n\r\n")
        );
    }

    #[test]
    fn a_request_that_may_take_so_many_hops_may_take_one_less_behind_this_one() {
        let sent = |method, hops: &str| {
            let text = encoded(&request(method, "a", &[("max-forwards", hops.as_bytes())]), false, Sending::Nothing);
            text.lines().find_map(|line| line.strip_prefix("max-forwards: ")).map(str::to_owned)
        };
        for (hops, less) in [("10", "9"), ("1", "0"), ("0", "0"), ("007", "6"), ("", ""), ("+5", "+5"), ("x", "x")] {
            for (method, expected) in [("OPTIONS", less), ("TRACE", less), ("GET", hops)] {
                assert_eq!(sent(method, hops).as_deref(), Some(expected), "{method} {hops}");
            }
        }
        let endless = "9".repeat(40);
        assert_eq!(sent("TRACE", &endless), Some(endless));
    }

    proptest! {
        #[test]
        fn a_head_is_one_head_whatever_its_fields(
            fields in proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", "[ -~]{0,40}"), 0..20),
        ) {
            let fields: Vec<(&str, &[u8])> = fields.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
            let text = encoded(&request("GET", "a", &fields), false, Sending::Length(1));
            prop_assert_eq!(text.matches("\r\n\r\n").count(), 1);
            prop_assert_eq!(text.matches("\ncontent-length: ").count(), 1);
            prop_assert_eq!(text.matches("\ntransfer-encoding: ").count(), 0);
            prop_assert_eq!(text.matches("\nhost: ").count(), 1);
        }
    }
}
