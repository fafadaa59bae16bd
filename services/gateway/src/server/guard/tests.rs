use proptest::prelude::*;

use super::*;

const MAX_HEAD: usize = 1024;

/// What a run of bytes comes to, told so that two runs can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Verdict {
    heads: Vec<(Vec<u8>, Facts)>,
    body: Vec<u8>,
    refused: Option<Reject>,
    left: usize,
}

/// Feeds `input` in pieces that end at `cuts`.
fn feed(input: &[u8], cuts: &[usize]) -> Verdict {
    let mut guard = HeadGuard::new(MAX_HEAD);
    let mut verdict = Verdict::default();
    let (mut shown, mut passed) = (0, 0);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| (*cut).min(input.len())).collect();
    ends.push(input.len());
    ends.sort_unstable();
    for end in ends {
        shown = shown.max(end);
        loop {
            match guard.scan(&input[passed..shown]) {
                Scan::Head(len, facts) => {
                    verdict.heads.push((input[passed..passed + len].to_vec(), facts));
                    passed += len;
                }
                Scan::Body(len) => {
                    verdict.body.extend_from_slice(&input[passed..passed + len]);
                    passed += len;
                }
                Scan::Empty(len) => passed += len,
                Scan::More => break,
                Scan::RefuseHead(reject) | Scan::RefuseBody(reject) => {
                    verdict.refused = Some(reject);
                    return verdict;
                }
                Scan::Closed => return verdict,
            }
        }
    }
    verdict.left = input.len() - passed;
    verdict
}

fn refused(input: &str) -> Option<Reject> {
    let whole = feed(input.as_bytes(), &[]);
    let bytes: Vec<usize> = (0..input.len()).collect();
    assert_eq!(whole, feed(input.as_bytes(), &bytes), "{input:?} depends on how it is cut");
    whole.refused
}

fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn what_smugglers_send_is_refused() {
    use Reject::*;
    let long_name = format!("{}: x\r\n", "a".repeat(129));
    let many = "a: b\r\n".repeat(96);
    let large = format!("a: {}\r\n", "x".repeat(MAX_HEAD));
    let cases: Vec<(String, Reject)> = vec![
        // CL.TE, TE.CL and both twice.
        (get("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"), TransferEncoding),
        (get("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"), TransferEncoding),
        (get("Content-Length: 6\r\nContent-Length: 6\r\n"), Length),
        (get("Content-Length: 6\r\nContent-Length: 7\r\n"), Length),
        (get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), TransferEncoding),
        // Lengths that parse here and not there.
        (get("Content-Length: +6\r\n"), Length),
        (get("Content-Length: -1\r\n"), Length),
        (get("Content-Length: 005\r\n"), Length),
        (get("Content-Length: 0, 0\r\n"), Length),
        (get("Content-Length: 5 6\r\n"), Length),
        (get("Content-Length: 0x5\r\n"), Length),
        (get("Content-Length:\r\n"), Length),
        (get("Content-Length: 18446744073709551616\r\n"), Length),
        (get("Content-Length: 9223372036854775808\r\n"), Length),
        // Obfuscated transfer codings.
        (get("Transfer-Encoding: xchunked\r\n"), TransferEncoding),
        (get("Transfer-Encoding: chunked, identity\r\n"), TransferEncoding),
        (get("Transfer-Encoding: gzip, chunked\r\n"), TransferEncoding),
        (get("Transfer-Encoding: identity\r\n"), TransferEncoding),
        (get("Transfer-Encoding: \"chunked\"\r\n"), TransferEncoding),
        (get("Transfer-Encoding:\r\n"), TransferEncoding),
        (get("Transfer-Encoding:\u{b}chunked\r\n"), Field),
        (get("Transfer-Encoding : chunked\r\n"), Field),
        (get("Transfer-Encoding\t: chunked\r\n"), Field),
        (get(" Transfer-Encoding: chunked\r\n"), Field),
        (get("X: a\r\n Transfer-Encoding: chunked\r\n"), Field),
        (get("X: a\rTransfer-Encoding: chunked\r\n"), Field),
        (get("Transfer\u{0}Encoding: chunked\r\n"), Field),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(), TransferEncoding),
        // Lines that end in another way, bytes that may not stand there.
        (get("X: a\nY: b\r\n"), BareLf),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".into(), BareLf),
        (get("X: a\u{0}b\r\n"), Field),
        (get(": a\r\n"), Field),
        (get("X\r\n"), Field),
        (get("X Y: a\r\n"), Field),
        (get("X(y): a\r\n"), Field),
        // Hosts.
        ("GET / HTTP/1.1\r\n\r\n".into(), Host),
        (get("Host: b\r\n"), Host),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), Host),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), Host),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".into(), Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), Host),
        // Request lines.
        ("GET /\r\nHost: a\r\n\r\n".into(), RequestLine),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n".into(), RequestLine),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), Version),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(), Version),
        ("GET / http/1.1\r\nHost: a\r\n\r\n".into(), RequestLine),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n".into(), RequestLine),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), RequestLine),
        ("GET /\t HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
        ("GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), Host),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), Target),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".into(), Connect),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), RequestLine),
        ("\u{16}\u{3}\u{1}".into(), RequestLine),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), Version),
        // Bytes that are no request behind one that is.
        (format!("{}\u{0}", get("")), RequestLine),
        (format!("{}x", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab{"), RequestLine),
        // Limits.
        (get(&long_name), NameTooLong),
        (get(&many), TooManyFields),
        (get(&large), HeadTooLarge),
        ("A".repeat(MAX_HEAD + 1), HeadTooLarge),
    ];
    for (input, expected) in cases {
        assert_eq!(refused(&input), Some(expected), "{input:?}");
    }
}

#[test]
fn chunked_bodies_have_one_form() {
    let post = |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let trailers = format!("0\r\n{}\r\n", format!("a: {}\r\n", "x".repeat(1000)).repeat(9));
    let long = format!("5;a={}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\r\nhello\r\n0\r\n\r\n",
        "5 ;a\r\nhello\r\n0\r\n\r\n",
        "\r\n",
        ";a\r\n",
        "1_0\r\n",
        "10000000000000000\r\n",
        "fffffffffffffffff\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\n\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\n X: a\r\n\r\n",
        &trailers,
        &long,
    ] {
        assert_eq!(refused(&post(body)), Some(Reject::Chunk), "{body:?}");
    }
    for body in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a;b=c\r\nhello\r\n00\r\nX: y\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\n",
    ] {
        let input = format!("{}{}", post(body), get(""));
        assert_eq!(refused(&input), None, "{body:?}");
        let verdict = feed(input.as_bytes(), &[]);
        assert_eq!((verdict.heads.len(), verdict.left), (2, 0), "{body:?}");
        assert_eq!(verdict.body, body.as_bytes());
    }
}

#[test]
fn a_name_longer_than_actix_survives_is_refused_in_time() {
    let mut guard = HeadGuard::new(60 * 1024);
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{}: b\r\n\r\n", "x".repeat(70_000));
    assert_eq!(guard.scan(input.as_bytes()), Scan::RefuseHead(Reject::HeadTooLarge));
    assert_eq!(guard.scan(b"GET"), Scan::Closed);
}

#[test]
fn the_table_of_token_characters_is_the_wires() {
    for byte in 0..=255u8 {
        let line = [byte, b':', b'a'];
        assert_eq!(head::split_field(&line).is_ok(), troupe_wire::head::is_token(byte), "{byte}");
    }
}

#[test]
fn heads_say_what_they_say() {
    let input = "\r\nPUT /a?b HTTP/1.1\r\nHOST:  a.example:80 \r\nConnection: close, X-A\r\nContent-Length: 10\r\nExpect: 100-Continue\r\n\r\n";
    let verdict = feed(input.as_bytes(), &[]);
    let (head, facts) = &verdict.heads[0];
    let part = |from: u32, to: u32| std::str::from_utf8(&head[from as usize..to as usize]).unwrap();
    assert_eq!(part(0, facts.method_end), "PUT");
    assert_eq!(part(facts.method_end + 1, facts.target_end), "/a?b");
    assert_eq!(part(facts.host.0, facts.host.1), "a.example:80");
    assert_eq!((facts.length, facts.close, facts.nominates, facts.expect), (Some(10), true, true, true));
    let skeleton = Skeleton::new(b"PUT", facts, true);
    assert_eq!(
        std::str::from_utf8(skeleton.as_bytes()).unwrap(),
        "GET / HTTP/1.1\r\nHost:a\r\nConnection:close\r\nContent-Length:10\r\nExpect:100-continue\r\n\r\n"
    );
}

prop_compose! {
    fn line()(kind in 0usize..14, text in "[ -~]{0,12}") -> String {
        match kind {
            0 => "Content-Length: 3\r\n".into(),
            1 => "Transfer-Encoding: chunked\r\n".into(),
            2 => "Connection: close\r\n".into(),
            3 => "Connection: keep-alive\r\n".into(),
            4 => format!("X: {text}\r\n"),
            5 => "Expect: 100-continue\r\n".into(),
            6 => format!("{text}\r\n"),
            7 => "X: a\n".into(),
            8 => "\r\n".into(),
            _ => "Accept: */*\r\n".into(),
        }
    }
}

prop_compose! {
    fn request()(
        method in "(GET|HEAD|POST|A|XY)",
        version in "1\\.[01]",
        lines in proptest::collection::vec(line(), 0..6),
        body in "(|abc|3\r\nabc\r\n0\r\n\r\n|0\r\n\r\n)",
    ) -> String {
        format!("{method} / HTTP/{version}\r\nHost: a\r\n{}\r\n{body}", lines.concat())
    }
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_the_cuts(
        requests in proptest::collection::vec(request(), 1..4),
        cuts in proptest::collection::vec(0usize..400, 0..12),
    ) {
        let input = requests.concat();
        prop_assert_eq!(feed(input.as_bytes(), &[]), feed(input.as_bytes(), &cuts));
    }

    #[test]
    fn any_bytes_are_survived(input in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec(0usize..300, 0..6)) {
        prop_assert_eq!(feed(&input, &[]), feed(&input, &cuts));
    }

    #[test]
    fn a_skeleton_is_never_longer_than_its_head(input in request()) {
        for (head, facts) in feed(input.as_bytes(), &[]).heads {
            let method = &head[..facts.method_end as usize];
            for expect in [true, false] {
                let skeleton = Skeleton::new(method, &facts, expect);
                prop_assert!(skeleton.as_bytes().len() <= head.len());
                // What stands for the head is a head to the gate as well, with the same framing.
                let again = feed(skeleton.as_bytes(), &[]);
                prop_assert_eq!(again.refused, None);
                prop_assert_eq!(again.heads[0].1.chunked, facts.chunked);
                prop_assert_eq!(again.heads[0].1.length.unwrap_or(0), facts.length.unwrap_or(0));
            }
        }
    }
}
