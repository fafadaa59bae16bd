use proptest::prelude::*;

use super::*;

/// Decodes `input`, which arrives `cut` bytes at a time; the body, and how it ended.
fn decode(framing: Framing, input: &[u8], cut: usize) -> (Vec<u8>, Result<bool, Lie>) {
    let mut decoder = BodyDecoder::new(framing);
    let mut buffer = BytesMut::new();
    let mut body = Vec::new();
    let mut rest = input;
    loop {
        match decoder.next(&mut buffer) {
            Ok(Step::Piece(piece)) => {
                assert!(!piece.is_empty());
                body.extend_from_slice(&piece);
            }
            Ok(Step::End) if rest.is_empty() => return (body, Ok(true)),
            Ok(Step::End | Step::More) if !rest.is_empty() => {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
            }
            Ok(_) => return (body, Ok(false)),
            Err(lie) => return (body, Err(lie)),
        }
    }
}

fn chunked(input: &str) -> (Vec<u8>, Result<bool, Lie>) {
    let whole = decode(Framing::Chunked, input.as_bytes(), usize::MAX);
    // How the bytes are cut changes nothing but how much of the body went on before a fault was found.
    assert_eq!(decode(Framing::Chunked, input.as_bytes(), 1).1, whole.1, "{input:?}");
    whole
}

#[test]
fn bodies_end_where_they_say() {
    assert_eq!(decode(Framing::Length(5), b"hello", 2), (b"hello".to_vec(), Ok(true)));
    assert_eq!(decode(Framing::Length(5), b"hell", 2), (b"hell".to_vec(), Ok(false)));
    assert_eq!(decode(Framing::Length(5), b"hello!", 6).1, Err(Lie::Surplus));
    assert_eq!(decode(Framing::Empty, b"", 1).1, Ok(true));
    assert_eq!(decode(Framing::Empty, b"x", 1).1, Err(Lie::Surplus));
    assert_eq!(decode(Framing::Close, b"hello", 2), (b"hello".to_vec(), Ok(false)));
    assert_eq!(BodyDecoder::new(Framing::Close).end(), Ok(()));
    assert_eq!(BodyDecoder::new(Framing::Length(1)).end(), Err(Lie::Truncated));
    assert_eq!(BodyDecoder::new(Framing::Chunked).end(), Err(Lie::Truncated));
}

#[test]
fn chunks_are_put_together_and_what_stands_around_them_is_dropped() {
    assert_eq!(chunked("5\r\nhello\r\n0\r\n\r\n"), (b"hello".to_vec(), Ok(true)));
    assert_eq!(chunked("a;x=1\r\nhello you.\r\n000\r\nX: y\r\n\r\n"), (b"hello you.".to_vec(), Ok(true)));
    assert_eq!(chunked("A\r\nhello you.\r\n"), (b"hello you.".to_vec(), Ok(false)));
}

#[test]
fn chunks_that_are_open_to_readings_are_refused() {
    for (bad, lie) in [
        ("5\nhello\r\n0\r\n\r\n", Lie::BareLf),
        ("5\r\nhello\n0\r\n\r\n", Lie::Chunk),
        ("5\r\nhelloX\r\n0\r\n\r\n", Lie::Chunk),
        ("+5\r\nhello\r\n", Lie::Chunk),
        ("0x5\r\nhello\r\n", Lie::Chunk),
        (" 5\r\nhello\r\n", Lie::Chunk),
        ("5 \r\nhello\r\n", Lie::Chunk),
        ("5;\r\nhello\r\n", Lie::Chunk),
        ("5;a\x00\r\nhello\r\n", Lie::Chunk),
        ("1_0\r\n", Lie::Chunk),
        ("\r\n", Lie::Chunk),
        ("ffffffffffffffff\r\n", Lie::Chunk),
        ("0\r\nno colon\r\n\r\n", Lie::Field),
        ("0\r\n\r\nmore", Lie::Surplus),
        ("0\r\nX: 1\n\r\n", Lie::BareLf),
    ] {
        assert_eq!(chunked(bad).1, Err(lie), "{bad:?}");
    }
    let long = format!("5;{}", "x".repeat(MAX_CHUNK_LINE));
    assert_eq!(chunked(&long).1, Err(Lie::Chunk));
    let trailers = format!("0\r\n{}", "X: 1\r\n".repeat(MAX_TRAILERS));
    assert_eq!(chunked(&trailers).1, Err(Lie::Chunk));
}

proptest! {
    #[test]
    fn chunks_survive_any_cut(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 0..10),
        cut in 1usize..100,
    ) {
        let mut wire = Vec::new();
        for piece in &pieces {
            wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            wire.extend_from_slice(piece);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        prop_assert_eq!(decode(Framing::Chunked, &wire, cut), (pieces.concat(), Ok(true)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
        let (body, _) = decode(Framing::Chunked, &bytes, cut);
        prop_assert!(body.len() <= bytes.len());
        let (body, _) = decode(Framing::Length(100), &bytes, cut);
        prop_assert!(body.len() <= 100);
    }
}
