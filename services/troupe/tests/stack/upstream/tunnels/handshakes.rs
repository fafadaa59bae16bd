//! Handshakes that are refused, malformed, early, or none.

use super::*;

/// Refuses by target: the status is the path.
fn refuser() -> Upstream {
    Upstream::start(|exchange| match exchange.request.target() {
        "/426" => {
            exchange.send(
                "HTTP/1.1 426 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 8\r\nContent-Length: 3\r\n\r\n426",
            )?;
            Ok(Then::Keep)
        }
        "/plain" => exchange.answer(200, "plain"),
        target => {
            let status = target[1..].to_owned();
            exchange.answer(status.parse().unwrap(), &status)
        }
    })
}

#[test]
fn a_refusal_is_an_ordinary_answer_and_the_connection_goes_on() {
    let server = refuser();
    in_all(&[&server], "", |stack| {
        let before = server.accepted();
        let mut client = stack.connect();
        for status in [200, 400, 401, 403, 404, 426, 500] {
            let reply = client.request("GET", &format!("/{status}"), &HANDSHAKE, b"").unwrap();
            assert_eq!((reply.status, reply.text()), (status, status.to_string()));
            let upgrade = if status == 426 { "websocket" } else { "" };
            assert_eq!((reply.header("upgrade"), reply.header("connection").is_empty()), (upgrade, upgrade.is_empty()));
            assert_eq!(client.request("GET", "/plain", &[], b"").unwrap().text(), "plain");
        }
        assert_eq!(server.accepted() - before, 1, "the server's connection goes on, too");
        await_tunnels(stack, 0.0);
    });
}

#[test]
fn a_101_that_is_no_websocket_or_was_not_asked_for_is_a_502() {
    let server = Upstream::start(|exchange| {
        exchange.send(match exchange.request.target() {
            "/bare" => "HTTP/1.1 101 x\r\n\r\n",
            "/no-connection" => "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n",
            "/other" => "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            "/two" => "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n",
            "/old" => "HTTP/1.0 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "/length" => "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nok",
            "/late" => "HTTP/1.1 103 x\r\nLink: </a>\r\n\r\nHTTP/1.1 101 x\r\nconnection: UPGRADE\r\nupgrade: WebSocket\r\n\r\n",
            _ => SWITCHED,
        })?;
        Ok(Then::Close)
    });
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        for target in ["/bare", "/no-connection", "/other", "/two", "/old", "/length"] {
            let reply = client.request("GET", target, &HANDSHAKE, b"").unwrap();
            assert_eq!((reply.status, reply.json()["stage"].as_str()), (502, Some("upstream")), "{target}");
            // It is not the fifth failure in a row.
            let (mut tunnel, _) = (stack.connect(), ());
            tunnel.send(handshake("/late").as_bytes()).unwrap();
            assert_eq!(tunnel.head().unwrap().status, 101, "behind {target}");
        }
        let unasked = [("Connection", "close"), ("X-Asked", "for nothing")];
        assert_eq!(stack.connect().request("GET", "/unasked", &unasked, b"").unwrap().status, 502);
    });
}

/// What is not RFC 6455's handshake, or asks for something else, is an ordinary request.
#[test]
fn what_asks_for_no_tunnel_goes_on_as_http() {
    let server = echo();
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        for fields in [
            &[("Connection", "Upgrade"), ("Upgrade", "h2c")][..],
            &[("Connection", "keep-alive"), ("Upgrade", "websocket")],
            &[("Upgrade", "websocket")],
        ] {
            assert_eq!(client.request("GET", "/", fields, b"").unwrap().text(), "plain", "{fields:?}");
            assert_eq!(server.requests().pop().unwrap().fields("upgrade"), [""; 0]);
        }
        assert_eq!(client.request("POST", "/", &HANDSHAKE, b"body").unwrap().text(), "plain");
        client.send(handshake("/").replace("1.1", "1.0").as_bytes()).unwrap();
        assert_eq!(client.response(false).unwrap().text(), "plain");
        // PHP has no tunnels.
        let mut client = stack.connect();
        assert_eq!(client.request("GET", "/api/hello", &HANDSHAKE, b"").unwrap().status, 200);
        assert_eq!(client.request("GET", "/api/hello", &[], b"").unwrap().status, 200);
    });
}

#[test]
fn bytes_behind_a_handshake_wait_for_the_101_and_then_arrive() {
    let server = Upstream::start(|exchange| {
        // What came too early would be in the way of this.
        thread::sleep(Duration::from_millis(300));
        let early = exchange.at_hand();
        exchange.send(SWITCHED)?;
        exchange.send(format!("{early} early;"))?;
        while let Ok(piece) = exchange.piece() {
            if piece.is_empty() || exchange.send(piece).is_err() {
                break;
            }
        }
        Ok(Then::Close)
    });
    in_all(&[&server], "", |stack| {
        let mut client = stack.connect();
        // Behind another request, and with what looks like one more behind the handshake.
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let all = format!("GET /api/hello HTTP/1.1\r\nHost: a\r\n\r\n{}{smuggled}", handshake("/early"));
        client.send(all.as_bytes()).unwrap();
        assert_eq!(client.response(false).unwrap().status, 200);
        assert_eq!(client.head().unwrap().status, 101);
        let expected = format!("0 early;{smuggled}");
        assert_eq!(String::from_utf8(read(&mut client, expected.len())).unwrap(), expected);
        client.send(b"more").unwrap();
        assert_eq!(read(&mut client, 4), b"more");
        assert!(server.requests().iter().all(|request| request.target() == "/early"));
    });
}

#[test]
fn bytes_behind_a_handshake_that_is_refused_are_not_read_as_a_request() {
    let server = refuser();
    in_all(&[&server], "", |stack| {
        let before = server.requests().len();
        for target in ["/403", "/api/hello"] {
            let mut client = stack.connect();
            client.send(format!("{}{}", handshake(target), handshake("/403")).as_bytes()).unwrap();
            let reply = client.response(false).unwrap();
            assert_eq!((reply.status == 403, reply.header("connection")), (target == "/403", "close"), "{target}");
            assert!(client.closed(), "{target}");
        }
        assert_eq!(server.requests().len() - before, 1);
    });
}

#[test]
fn a_cached_route_neither_stores_nor_shares_a_handshake() {
    let server = Upstream::start(|exchange| match exchange.request.field("upgrade") {
        "websocket" if exchange.request.target() == "/refused" => {
            exchange.send("HTTP/1.1 403 x\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nno")?;
            Ok(Then::Keep)
        }
        "websocket" => websocket::echo(exchange).map(|()| Then::Close),
        _ => {
            exchange.send("HTTP/1.1 200 x\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok")?;
            Ok(Then::Keep)
        }
    });
    let config = config(&[&server], "").replace("upstream = \"app\"\n", "upstream = \"app\"\ncache = true\n");
    let stack = Stack::one_process(support::binary(), &support::functions(), &config);
    assert_eq!(stack.get("/").text(), "ok");
    assert!(stack.get("/").header("cache-status").contains("hit"));
    for _ in 0..2 {
        let (mut client, response) = websocket::connect(stack.address, "/", &[]).unwrap();
        assert!(response.headers().get("cache-status").is_none());
        client.send(Message::text("a")).unwrap();
        assert_eq!(client.read().unwrap(), Message::text("a"));
        let reply = stack.connect().request("GET", "/refused", &HANDSHAKE, b"").unwrap();
        assert_eq!((reply.status, reply.header("cache-status")), (403, "troupe-l1; fwd=bypass"));
    }
    assert!(stack.get("/").header("cache-status").contains("hit"));
    assert_eq!(stack.get("/refused").text(), "ok");
    assert_eq!(server.requests().len(), 6);
}
