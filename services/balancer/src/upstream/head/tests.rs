use proptest::prelude::*;

use super::*;

fn answer(text: &str, head_only: bool) -> Result<Head, Lie> {
    let len = HeadScan::default().advance(text.as_bytes())?.expect("a complete head");
    assert_eq!(len, text.len());
    read(text.as_bytes(), head_only, &mut ResponseHeadBuilder::default())
}

fn get(fields: &str) -> Result<Head, Lie> {
    answer(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), false)
}

fn fields(head: &Head) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    head.head.fields().map(|(name, value)| (name.to_owned(), text(value))).collect()
}

#[test]
fn a_plain_reply_is_read() {
    let head = get("Content-Type: text/plain\r\nContent-Length:  5 \r\nX-Empty:\r\n").unwrap();
    assert_eq!((head.head.status(), head.framing, head.keep_alive), (200, Framing::Length(5), true));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [pair("Content-Type", "text/plain"), pair("Content-Length", "5"), pair("X-Empty", "")];
    assert_eq!(fields(&head), expected);
}

#[test]
fn framing_follows_the_method_the_status_and_the_version() {
    let framing = |text: &str, head_only| answer(text, head_only).map(|head| (head.framing, head.keep_alive));
    assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", false), Ok((Framing::Close, false)));
    assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", true), Ok((Framing::Empty, true)));
    assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true), Ok((Framing::Empty, true)));
    assert_eq!(framing("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n", false), Ok((Framing::Chunked, true)));
    assert_eq!(framing("HTTP/1.1 304 \r\nContent-Length: 9\r\n\r\n", false), Ok((Framing::Empty, true)));
    assert_eq!(framing("HTTP/1.1 204 No\r\n\r\n", false), Ok((Framing::Empty, true)));
    assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false), Ok((Framing::Empty, true)));
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\n", false),
        Ok((Framing::Length(1), false))
    );
    assert_eq!(framing("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false), Ok((Framing::Length(1), false)));
    assert_eq!(
        framing("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\n", false),
        Ok((Framing::Length(1), true))
    );
}

#[test]
fn a_switch_names_websocket_alone_and_as_for_this_connection() {
    let switches = |head: &str| answer(&format!("{head}\r\n\r\n"), false).map(|head| head.websocket);
    assert_eq!(switches("HTTP/1.1 101 x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade"), Ok(true));
    for head in [
        "HTTP/1.1 101 x",
        "HTTP/1.1 101 x\r\nUpgrade: websocket",
        "HTTP/1.1 101 x\r\nConnection: upgrade",
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket, h2c",
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket",
        "HTTP/1.0 101 x\r\nConnection: upgrade\r\nUpgrade: websocket",
    ] {
        assert_eq!(switches(head), Ok(false), "{head}");
    }
    let framed = "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(switches(&format!("{framed}Content-Length: 2")), Err(Lie::Length));
    assert_eq!(switches(&format!("{framed}Transfer-Encoding: chunked")), Err(Lie::TransferEncoding));
}

#[test]
fn what_is_for_this_hop_alone_stays_here() {
    let head = get(
        "Connection: X-Secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nTrailer: X\r\nUpgrade: h2c\r\n\
         Proxy-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n",
    )
    .unwrap();
    let cookies = ["a", "b"].map(|value| ("Set-Cookie".to_owned(), value.to_owned()));
    assert_eq!(fields(&head), cookies);
    // The length is not for a `Connection` field to take away.
    let head = get("Connection: content-length\r\nContent-Length: 3\r\n").unwrap();
    assert_eq!((fields(&head).len(), head.framing), (1, Framing::Length(3)));
}

#[test]
fn what_two_servers_could_read_differently_is_refused() {
    for (bad, lie) in [
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Lie::Length),
        ("Content-Length: 5, 5\r\n", Lie::Length),
        ("Content-Length: +5\r\n", Lie::Length),
        ("Content-Length: 05\r\n", Lie::Length),
        ("Content-Length: 0x5\r\n", Lie::Length),
        ("Content-Length: -1\r\n", Lie::Length),
        ("Content-Length:\r\n", Lie::Length),
        ("Content-Length: 99999999999999999999\r\n", Lie::Length),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Lie::Ambiguous),
        ("Transfer-Encoding: gzip, chunked\r\n", Lie::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Lie::TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", Lie::TransferEncoding),
        ("Transfer-Encoding : chunked\r\n", Lie::Field),
        ("X-A: 1\r\n folded\r\n", Lie::Folded),
        ("X-A: 1\r\n\tfolded\r\n", Lie::Folded),
        ("X-A: a\0b\r\n", Lie::Field),
        ("X-A: a\rb\r\n", Lie::Field),
        ("X A: 1\r\n", Lie::Field),
        (": 1\r\n", Lie::Field),
        ("no colon\r\n", Lie::Field),
    ] {
        assert_eq!(get(bad).map(|_| ()), Err(lie), "{bad:?}");
    }
    assert_eq!(
        answer("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false).map(|_| ()),
        Err(Lie::TransferEncoding)
    );
    assert_eq!(answer("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", false).map(|_| ()), Err(Lie::Length));
    assert_eq!(
        answer("HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", false).map(|_| ()),
        Err(Lie::TransferEncoding)
    );
}

#[test]
fn a_first_line_that_is_none_is_refused_at_once() {
    for bad in [
        "HTTP/2.0 200 OK\r\n",
        "HTTP/1.2 200 OK\r\n",
        "http/1.1 200 OK\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 099 OK\r\n",
        "HTTP/1.1 200OK\r\n",
        "ICY 200 OK\r\n",
        "\r\n",
        "HTTP/1.1 200 O\0K\r\n",
    ] {
        assert_eq!(HeadScan::default().advance(bad.as_bytes()), Err(Lie::StatusLine), "{bad:?}");
    }
    for bad in ["HTTP/1.1 200 OK\n", "HTTP/1.1 200 OK\r\nX: 1\n"] {
        assert_eq!(HeadScan::default().advance(bad.as_bytes()), Err(Lie::BareLf), "{bad:?}");
    }
}

#[test]
fn a_head_without_end_is_not_read_forever() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(MAX_HEAD));
    assert_eq!(HeadScan::default().advance(endless.as_bytes()), Err(Lie::HeadTooLarge));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(200));
    assert_eq!(answer(&many, false).map(|_| ()), Err(Lie::HeadTooLarge));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), head_only in any::<bool>()) {
        if let Ok(Some(len)) = HeadScan::default().advance(&bytes) {
            let _ = read(&bytes[..len], head_only, &mut ResponseHeadBuilder::default());
        }
    }

    #[test]
    fn a_changed_byte_never_panics(at in 0usize..120, to in any::<u8>()) {
        let mut bytes = b"HTTP/1.1 200 OK\r\nConnection: x\r\nX: 1\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\n".to_vec();
        if let Some(byte) = bytes.get_mut(at) { *byte = to; }
        if let Ok(Some(len)) = HeadScan::default().advance(&bytes) {
            let _ = read(&bytes[..len], false, &mut ResponseHeadBuilder::default());
        }
    }

    #[test]
    fn the_end_is_found_however_the_bytes_are_cut(
        cut in 1usize..60,
        values in proptest::collection::vec("[ -~]{0,30}", 0..8),
        behind in "[a-z\r\n]{0,10}",
    ) {
        let fields: String = values.iter().map(|value| format!("X-A: {value}\r\n")).collect();
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let all = format!("{head}{behind}");
        let mut scan = HeadScan::default();
        let mut found = None;
        for end in (0..all.len()).step_by(cut).chain([all.len()]) {
            found = scan.advance(&all.as_bytes()[..end]).unwrap();
            if found.is_some() { break; }
        }
        prop_assert_eq!(found, Some(head.len()));
        prop_assert_eq!(read(head.as_bytes(), false, &mut ResponseHeadBuilder::default()).unwrap().head.len(), values.len());
    }
}
