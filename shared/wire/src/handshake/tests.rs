use proptest::prelude::*;

use super::*;

fn hello(service: &str, nonce: u8) -> Hello {
    let mut hello = Hello::new(Uid([nonce; 16]), service, "one", [nonce; NONCE_LEN]);
    hello.contracts = vec![ContractVersion { id: 1, version: 1 }, ContractVersion { id: 2, version: 3 }];
    hello
}

fn key(byte: u8) -> Key {
    Key::new(&[byte; MIN_KEY]).expect("long enough")
}

fn keys(byte: u8) -> Keys {
    Keys::new(key(byte), None)
}

type Outcome = Option<Result<Session, HandshakeError>>;

/// Lets two sides talk, in pieces of `chunk` bytes, until both are through or silent.
fn meet(caller: (Hello, Keys), callee: (Hello, Keys), chunk: usize) -> (Outcome, Outcome) {
    let (mut to_callee, mut to_caller) = (BytesMut::new(), BytesMut::new());
    let mut caller = Handshake::new(Role::Caller, caller.0, caller.1, &mut to_callee);
    let mut callee = Handshake::new(Role::Callee, callee.0, callee.1, &mut to_caller);
    let (mut caller_end, mut callee_end): (Outcome, Outcome) = (None, None);
    let (mut caller_in, mut callee_in) = (BytesMut::new(), BytesMut::new());
    while !to_callee.is_empty() || !to_caller.is_empty() {
        let piece = to_callee.split_to(chunk.min(to_callee.len()));
        callee_in.extend_from_slice(&piece);
        if callee_end.is_none() {
            callee_end = callee.advance(&mut callee_in, &mut to_caller).transpose();
        }
        let piece = to_caller.split_to(chunk.min(to_caller.len()));
        caller_in.extend_from_slice(&piece);
        if caller_end.is_none() {
            caller_end = caller.advance(&mut caller_in, &mut to_callee).transpose();
        }
    }
    (caller_end, callee_end)
}

fn refusal(outcome: Outcome) -> HandshakeError {
    outcome.expect("over").expect_err("refused")
}

proptest! {
    #[test]
    fn two_sides_with_the_same_key_meet_in_any_chunking(chunk in 1usize..2000) {
        let (caller, callee) = meet((hello("gateway", 1), keys(7)), (hello("balancer", 2), keys(7)), chunk);
        let caller = caller.expect("over").expect("accepted");
        let callee = callee.expect("over").expect("accepted");
        prop_assert_eq!(&caller.peer.service, "balancer");
        prop_assert_eq!(&callee.peer.service, "gateway");
        prop_assert_eq!(caller.protocol, PROTOCOL);
        prop_assert_eq!(caller.contracts, vec![1, 2]);
        prop_assert_eq!(callee.contracts, vec![1, 2]);
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, with_magic: bool, caller: bool) {
        let role = if caller { Role::Caller } else { Role::Callee };
        let mut output = BytesMut::new();
        let mut side = Handshake::new(role, hello("gateway", 1), keys(7), &mut output);
        let mut input = BytesMut::new();
        if with_magic {
            input.put_slice(&MAGIC);
        }
        input.put_slice(&bytes);
        prop_assert!(!matches!(side.advance(&mut input, &mut output), Ok(Some(_))));
        prop_assert!(output.len() <= 3 * (MAX_MESSAGE + 12));
    }

    #[test]
    fn a_changed_byte_never_meets(position: prop::sample::Index, flip in 1u8..) {
        let mut output = BytesMut::new();
        let mut caller = Handshake::new(Role::Caller, hello("gateway", 1), keys(7), &mut output);
        let mut callee = Handshake::new(Role::Callee, hello("balancer", 2), keys(7), &mut BytesMut::new());
        let position = position.index(output.len());
        output[position] ^= flip;
        let mut reply = BytesMut::new();
        let _ = callee.advance(&mut output, &mut reply);
        let mut proof = BytesMut::new();
        let _ = caller.advance(&mut reply, &mut proof);
        prop_assert!(!matches!(callee.advance(&mut proof, &mut reply), Ok(Some(_))));
    }
}

#[test]
fn another_key_is_refused_on_both_sides() {
    let (caller, callee) = meet((hello("gateway", 1), keys(7)), (hello("balancer", 2), keys(8)), 10_000);
    assert!(matches!(refusal(callee), HandshakeError::Refused(refusal) if refusal.code == RefusalCode::Key));
    assert!(matches!(refusal(caller), HandshakeError::RefusedByPeer(refusal) if refusal.code == RefusalCode::Key));
}

#[test]
fn no_key_does_not_meet_a_key() {
    let (caller, _) = meet((hello("gateway", 1), Keys::none()), (hello("balancer", 2), keys(8)), 10_000);
    assert_eq!(refusal(caller).code(), RefusalCode::Key);
    let (caller, callee) = meet((hello("gateway", 1), Keys::none()), (hello("balancer", 2), Keys::none()), 10_000);
    assert!(caller.expect("over").is_ok() && callee.expect("over").is_ok());
}

#[test]
fn keys_rotate_in_three_steps_without_a_gap() {
    let (old, new) = (|| key(1), || key(2));
    let steps =
        [Keys::new(old(), None), Keys::new(old(), Some(new())), Keys::new(new(), Some(old())), Keys::new(new(), None)];
    for pair in steps.windows(2) {
        for (caller, callee) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
            let (caller, callee) =
                meet((hello("a", 1), pair[caller].clone()), (hello("b", 2), pair[callee].clone()), 10_000);
            assert!(caller.expect("over").is_ok() && callee.expect("over").is_ok());
        }
    }
}

#[test]
fn another_protocol_is_refused_with_a_reason_it_can_log() {
    let mut reply = BytesMut::new();
    let mut callee = Handshake::new(Role::Callee, hello("balancer", 2), keys(7), &mut reply);
    let mut request = BytesMut::from("GET / HTTP/1.1\r\n\r\n");
    let refused = callee.advance(&mut request, &mut reply).expect_err("not a link");
    assert_eq!(refused.code(), RefusalCode::Magic);
    let mut caller = Handshake::new(Role::Caller, hello("gateway", 1), keys(7), &mut BytesMut::new());
    let told = caller.advance(&mut reply, &mut BytesMut::new()).expect_err("refused");
    assert!(matches!(told, HandshakeError::RefusedByPeer(refusal) if refusal.code == RefusalCode::Magic));
}

#[test]
fn a_refusal_by_a_stranger_writes_no_line_of_its_own() {
    let code = RefusalCode::Key;
    let reason = "no\n2026-11-27T00:00:00Z gateway ERROR made up \u{1b}[2J".to_owned();
    let refusal = encode(&Message::Refusal(Refusal { code, reason }));
    for role in [Role::Caller, Role::Callee] {
        let mut output = BytesMut::new();
        let mut side = Handshake::new(role, hello("balancer", 2), keys(7), &mut output);
        let mut input = BytesMut::from(&MAGIC[..]);
        put_message(&mut input, &refusal);
        let told = side.advance(&mut input, &mut output).expect_err("refused");
        let line = "refused by the peer (key): no?2026-11-27T00:00:00Z gateway ERROR made up ?[2J";
        assert_eq!(told.to_string(), line);
    }
}

/// The proofs are about the HELLOs as they came, or the two sides would not meet.
#[test]
fn names_of_a_peer_write_no_line_of_their_own() {
    let mut odd = hello("gate\nway", 1);
    (odd.instance, odd.build) = ("one\u{1b}[31m".to_owned(), "1\r2\u{9b}".to_owned());
    let (caller, callee) = meet((odd, keys(7)), (hello("balancer", 2), keys(7)), 10_000);
    assert!(caller.expect("over").is_ok());
    let peer = callee.expect("over").expect("accepted").peer;
    assert_eq!((&*peer.service, &*peer.instance, &*peer.build), ("gate?way", "one?[31m", "1?2?"));
}

#[test]
fn versions_without_overlap_are_refused_and_overlapping_ones_meet() {
    let mut newer = hello("balancer", 2);
    (newer.protocol_min, newer.protocol_max) = (PROTOCOL + 1, PROTOCOL + 2);
    let (caller, callee) = meet((hello("gateway", 1), keys(7)), (newer, keys(7)), 10_000);
    assert_eq!(refusal(callee).code(), RefusalCode::Version);
    assert_eq!(refusal(caller).code(), RefusalCode::Version);

    let mut newer = hello("balancer", 2);
    newer.protocol_max = PROTOCOL + 1;
    let (caller, _) = meet((hello("gateway", 1), keys(7)), (newer, keys(7)), 10_000);
    assert_eq!(caller.expect("over").expect("accepted").protocol, PROTOCOL);
}

#[test]
fn a_contract_of_another_version_disables_only_itself() {
    let mut newer = hello("balancer", 2);
    newer.contracts = vec![ContractVersion { id: 1, version: 1 }, ContractVersion { id: 2, version: 4 }];
    let (caller, callee) = meet((hello("gateway", 1), keys(7)), (newer, keys(7)), 10_000);
    let caller = caller.expect("over").expect("accepted");
    assert_eq!(caller.contracts, vec![1]);
    assert_eq!(caller.disabled, vec![DisabledContract { id: 2, local: 3, peer: 4 }]);
    assert_eq!(callee.expect("over").expect("accepted").contracts, vec![1]);
}

#[test]
fn the_longest_hello_fits_its_message() {
    let mut longest = hello(&"s".repeat(1000), 1);
    longest.instance = "ä".repeat(1000);
    longest.build = "b".repeat(1000);
    longest.contracts = vec![ContractVersion { id: u16::MAX, version: u16::MAX }; 1000];
    (longest.protocol_max, longest.threads) = (u16::MAX, u16::MAX);
    (longest.max_frame, longest.stream_window) = (u32::MAX, u32::MAX);
    (longest.link_window, longest.max_in_flight, longest.features) = (u32::MAX, u32::MAX, u32::MAX);
    let mut output = BytesMut::new();
    Handshake::new(Role::Caller, longest, keys(7), &mut output);
    assert!(output.len() <= MAX_MESSAGE + 12, "{}", output.len());
}

#[test]
fn a_huge_message_is_refused_before_it_is_read() {
    let mut output = BytesMut::new();
    let mut callee = Handshake::new(Role::Callee, hello("balancer", 2), keys(7), &mut output);
    let mut input = BytesMut::from(&MAGIC[..]);
    input.put_u32_le(u32::MAX);
    let refused = callee.advance(&mut input, &mut output).expect_err("too long");
    assert_eq!(refused.code(), RefusalCode::Malformed);
}

#[test]
fn what_follows_the_handshake_stays_in_the_input() {
    let mut to_callee = BytesMut::new();
    let mut to_caller = BytesMut::new();
    let mut caller = Handshake::new(Role::Caller, hello("gateway", 1), keys(7), &mut to_callee);
    let mut callee = Handshake::new(Role::Callee, hello("balancer", 2), keys(7), &mut to_caller);
    assert!(callee.advance(&mut to_callee, &mut to_caller).expect("going on").is_none());
    assert!(caller.advance(&mut to_caller, &mut to_callee).expect("going on").is_none());
    to_callee.put_slice(b"frames");
    assert!(callee.advance(&mut to_callee, &mut to_caller).expect("accepted").is_some());
    assert_eq!(&to_callee[..], b"frames");
}

#[test]
fn a_short_key_is_no_key() {
    assert_eq!(Key::new(&[1; MIN_KEY - 1]).expect_err("short").length, MIN_KEY - 1);
    assert_eq!(format!("{:?}", keys(7)), "Keys { first: Key(..), second: None }");
}

#[test]
fn a_uid_is_read_as_it_is_written_and_nothing_else_is_one() {
    for bytes in [[0; 16], [0xff; 16], *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"] {
        assert_eq!(Uid(bytes).to_string().parse(), Ok(Uid(bytes)));
    }
    for wrong in ["", "0", "upstream:app/127.0.0.1:80", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
        assert_eq!(wrong.parse::<Uid>(), Err(NoUid), "{wrong}");
    }
    assert_eq!(format!("+{}", "0".repeat(31)).parse::<Uid>(), Err(NoUid));
}
