use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use troupe_mesh::body::Body;
use troupe_mesh::contract::Contract;
use troupe_wire::head::{RequestHead, RequestHeadBuilder, RequestParts, Scheme, Version};

use super::lease::{Ask, Lease};
use super::lookup::{Looked, Lookup, Stored, Want};
use super::purge::{Purge, Purged, Target};
use super::store::{About, Kept, Store};
use super::watch::{Invalidation, Messages, Position, Tell, Told, Watch, Watcher, Watching, put};
use super::{Born, Leased, Url};

fn url() -> Url {
    Url { https: true, host: "a.example".to_owned(), target: "/a?b".to_owned() }
}

fn head() -> RequestHead {
    let parts = RequestParts {
        version: Version::Http11,
        scheme: Scheme::Https,
        method: "GET",
        target: "/a?b",
        authority: "a.example",
        remote_addr: "192.0.2.1",
        remote_port: "1",
        local_addr: "192.0.2.2",
        local_port: "443",
    };
    RequestHeadBuilder::default().finish(&parts).unwrap()
}

fn encoded(call: &impl Contract) -> Bytes {
    let mut out = BytesMut::new();
    call.encode_head(&mut out);
    out.freeze()
}

fn replied<C: Contract>(reply: &C::Reply) -> Bytes {
    let mut out = BytesMut::new();
    C::encode_reply_head(reply, &mut out);
    out.freeze()
}

#[test]
fn a_look_up_and_its_reply_survive_the_wire() {
    let call = Lookup { url: url(), want: Want::Refresh, head: head(), source: [6; 16] };
    let read = Lookup::decode(encoded(&call), Body::Empty).unwrap();
    assert_eq!((read.url, read.want, read.source), (url(), Want::Refresh, [6; 16]));
    assert_eq!(read.head.as_bytes(), head().as_bytes());
    let born = Born { generation: 7, seq: 9 };
    let leased = Leased::Granted { name: [1; 16], token: 5 };
    let found = Stored { age_ms: 3, stale: true, record: Bytes::from_static(b"record"), body: Body::Empty };
    let reply = replied::<Lookup>(&Looked { found: Some(found), leased, born });
    let read = Lookup::decode_reply(reply, Body::full(Bytes::from_static(b"body"))).unwrap();
    let found = read.found.unwrap();
    assert_eq!((read.leased, read.born, found.age_ms, found.stale), (leased, born, 3, true));
    assert_eq!((&*found.record, found.body.len()), (&b"record"[..], Some(4)));
    let nothing = replied::<Lookup>(&Looked { found: None, leased: Leased::Apart, born });
    assert!(Lookup::decode_reply(nothing, Body::Empty).unwrap().found.is_none());
}

/// What an older service cannot read is a new version: the handshake compares it and names the contract, instead of look-ups that fail
/// for what they want.
#[test]
fn what_may_be_wanted_belongs_to_the_version() {
    let code = |want: Want| match want {
        Want::Answer => 0,
        Want::Refresh => 1,
        // Since version 2.
        Want::Stored => 2,
    };
    for want in [Want::Answer, Want::Refresh, Want::Stored] {
        assert_eq!(postcard::to_allocvec(&want).unwrap(), [code(want)]);
    }
    assert_eq!(Lookup::VERSION, 3);
    assert!(postcard::from_bytes::<Want>(&[3]).is_err(), "another one is another version");
}

#[test]
fn the_other_messages_survive_the_wire() {
    let about = About {
        url: url(),
        born: Born { generation: 1, seq: 2 },
        lease: [3; 16],
        token: 4,
        age_ms: 5,
        fresh_ms: 6,
        keep_ms: 7,
        len: 8,
        digest: 9,
        source: [10; 16],
    };
    let store = Store { about: about.clone(), record: Bytes::from_static(b"r"), body: Body::Empty };
    let read = Store::decode(encoded(&store), Body::Empty).unwrap();
    assert_eq!((read.about, &*read.record), (about, &b"r"[..]));
    assert_eq!(Store::decode_reply(replied::<Store>(&Kept::Fenced), Body::Empty), Ok(Kept::Fenced));
    let lease = Lease { name: [1; 16], ask: Ask::Give { token: 2, apart: true } };
    assert_eq!(Lease::decode(encoded(&lease), Body::Empty), Ok(lease));
    assert_eq!(Lease::decode_reply(replied::<Lease>(&Leased::Over), Body::Empty), Ok(Leased::Over));
    let purge = Purge { target: Target::Group("g".to_owned(), Some(url())), soft: true, source: Some([2; 16]) };
    assert_eq!(Purge::decode(encoded(&purge), Body::Empty), Ok(purge));
    let purged = Purged { urls: 1, responses: 2, confirmed: 3, lapsed: 4 };
    assert_eq!(Purge::decode_reply(replied::<Purge>(&purged), Body::Empty), Ok(purged));
    let at = Position { generation: 1, seq: 2, nonce: 3 };
    let watcher = Watcher { uid: [1; 16], name: "gateway@a:1".to_owned(), since: Some(at) };
    let watch = Watch { about: watcher.clone(), signals: Body::Empty };
    assert_eq!(Watch::decode(encoded(&watch), Body::Empty).unwrap().about, watcher);
    let reply = replied::<Watch>(&Watching { from: at, news: Body::Empty });
    assert_eq!(Watch::decode_reply(reply, Body::Empty).unwrap().from, at);
}

#[test]
fn messages_are_put_together_however_they_were_cut() {
    let at = Position { generation: 1, seq: 2, nonce: u64::MAX };
    let told = [
        Told::Beat(7),
        Told::Gone(Invalidation { at, target: Target::Url(url()), soft: false, source: None }),
        Told::Unsure,
        Told::Anew(at),
    ];
    let mut out = BytesMut::new();
    assert!(told.iter().all(|message| put(message, &mut out)));
    for size in [1, 2, 3, 7, out.len()] {
        let (mut messages, mut read) = (Messages::default(), Vec::new());
        for piece in out.chunks(size) {
            messages.add(piece);
            while let Some(message) = messages.take::<Told>().unwrap() {
                read.push(message);
            }
        }
        assert_eq!(read, told, "{size}");
    }
    let long = Told::Gone(Invalidation { at, target: Target::Host("x".repeat(70_000)), soft: false, source: None });
    let before = out.len();
    assert!(!put(&long, &mut out) && out.len() == before, "what is too long is not cut");
}

proptest! {
    #[test]
    fn damaged_heads_and_messages_are_refused_or_read_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = Lookup::decode(bytes.clone(), Body::Empty);
        let _ = Lookup::decode_reply(bytes.clone(), Body::Empty);
        let _ = Store::decode(bytes.clone(), Body::Empty);
        let _ = Purge::decode(bytes.clone(), Body::Empty);
        let _ = Watch::decode(bytes.clone(), Body::Empty);
        let mut messages = Messages::default();
        messages.add(&bytes);
        while let Ok(Some(_)) = messages.take::<Tell>() {}
    }
}
