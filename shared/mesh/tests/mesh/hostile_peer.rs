//! Peers that lie, freeze, flood or vanish: they end their own link and nothing else.

use std::io::Write;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Contract;
use troupe_mesh::discovery::Address;
use troupe_mesh::failure::{Failure, Outcome, Started};
use troupe_mesh::link::{Link, LinkEnd, Services, dial};
use troupe_mesh::listener::MeshListener;
use troupe_mesh::port::{Port, Service};
use troupe_wire::decoder::FrameDecoder;
use troupe_wire::frame::{Flags, Frame, Header, Kind};
use troupe_wire::handshake::{ContractVersion, Handshake, Hello, Keys, NONCE_LEN, Role, Uid};
use troupe_wire::payload::{Opening, Prefix};
use troupe_wire::stream_id::{Generation, StreamId};

use crate::contract::{Ask, LONG, Teller, What, ask, read, until};
use crate::wiring::{ParseAny, callee, caller, calls, keys};

/// A peer made of a bare socket.
struct Raw {
    socket: TcpStream,
    input: BytesMut,
    decoder: FrameDecoder,
}

impl Raw {
    async fn shake(mut socket: TcpStream, role: Role) -> Self {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut hello = Hello::new(Uid([9; 16]), "raw", "raw", [9; NONCE_LEN]);
        hello.contracts = calls().to_vec();
        let mut handshake = Handshake::new(role, hello, keys(1), &mut output);
        loop {
            let session = handshake.advance(&mut input, &mut output).unwrap();
            socket.write_all_buf(&mut output).await.unwrap();
            if session.is_some() {
                return Self { socket, input, decoder: FrameDecoder::new() };
            }
            assert!(socket.read_buf(&mut input).await.unwrap() > 0, "closed in the handshake");
        }
    }

    async fn dial(listener: &MeshListener) -> Self {
        let Address::Tcp(address) = listener.address() else {
            panic!("not TCP");
        };
        Self::shake(TcpStream::connect(address).await.unwrap(), Role::Caller).await
    }

    /// The next frame that is no PING, PONG or WINDOW; `None` when the other side has closed.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            while let Some(frame) = self.decoder.decode(&mut self.input).unwrap() {
                if !matches!(frame.header.kind, Kind::Ping | Kind::Pong | Kind::Window) {
                    return Some(frame);
                }
            }
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    async fn request(&mut self, index: u32, head: &[u8], body: &[u8], flags: Flags) {
        let mut out = BytesMut::new();
        let header = Header::new(Kind::Req, stream(index)).with_contract(Ask::ID).with_aux(100_000).with_flags(flags);
        assert!(Opening::put_prefix(&mut out, header, &Prefix { head, trace: None, length: None }, body.len()));
        out.put_slice(body);
        self.send(&out).await;
    }
}

fn stream(index: u32) -> StreamId {
    StreamId::new(index, Generation::FIRST).unwrap()
}

/// A link to a raw callee, and that callee.
async fn link_to_raw() -> (Link, Raw) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let raw = actix_rt::spawn(async move { Raw::shake(listener.accept().await.unwrap().0, Role::Callee).await });
    let link = dial(&address, &caller(keys(1))).await.unwrap();
    (link, raw.await.unwrap())
}

/// A listener of ours, and the teller behind it.
fn served(keys: Keys) -> (MeshListener, Rc<Teller>) {
    let teller = Rc::new(Teller::default());
    let service: Rc<dyn Service<Ask>> = Rc::clone(&teller) as Rc<dyn Service<Ask>>;
    let listener = MeshListener::bind(&"127.0.0.1:0".parse_any()).unwrap();
    listener.acceptor().serve(callee(Services::new().with(Port::inline(service)), keys));
    (listener, teller)
}

async fn call(link: &Link, what: What) -> Result<u64, Failure> {
    Service::<Ask>::call(link, ask(what, Body::Empty)).await.map(|said| said.number)
}

#[actix_rt::test]
async fn a_frozen_peer_is_dead_within_four_seconds() {
    let (link, mut raw) = link_to_raw().await;
    let since = Instant::now();
    let pending = {
        let link = link.clone();
        actix_rt::spawn(async move { call(&link, What::Hang).await })
    };
    assert_eq!(raw.next().await.unwrap().header.kind, Kind::Req);
    let failure = pending.await.unwrap().unwrap_err();
    let after = since.elapsed();
    assert_eq!((failure.outcome, failure.started), (Outcome::Broken, Started::Maybe));
    assert!((Duration::from_secs(3)..Duration::from_millis(4500)).contains(&after), "{after:?}");
    assert!(matches!(link.end(), Some(LinkEnd::Silent(_))));
}

#[actix_rt::test]
async fn a_peer_killed_in_mid_call_ends_it_at_once() {
    let (link, mut raw) = link_to_raw().await;
    let pending = {
        let link = link.clone();
        actix_rt::spawn(async move { call(&link, What::Hang).await })
    };
    raw.next().await.unwrap();
    drop(raw);
    let since = Instant::now();
    let failure = pending.await.unwrap().unwrap_err();
    assert_eq!((failure.outcome, failure.started), (Outcome::Broken, Started::Maybe));
    assert!(since.elapsed() < Duration::from_secs(2));
    let failure = call(&link, What::Echo).await.unwrap_err();
    assert_eq!((failure.outcome, failure.started), (Outcome::Unreachable, Started::No));
}

#[actix_rt::test]
async fn a_huge_length_prefix_ends_the_link_before_memory_is_reserved() {
    let (link, mut raw) = link_to_raw().await;
    let mut header = Header::new(Kind::Res, stream(0)).encode(0);
    header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    raw.send(&header).await;
    let _ = link.states().wait_for(|state| *state == troupe_mesh::link::LinkState::Down).await;
    assert!(matches!(link.end(), Some(LinkEnd::Protocol(_))), "{:?}", link.end());
}

#[actix_rt::test]
async fn a_head_that_does_not_decode_ends_its_call_only() {
    let (listener, _teller) = served(keys(1));
    let mut raw = Raw::dial(&listener).await;
    raw.request(0, &[0xff; 40], b"", Flags::END).await;
    let frame = raw.next().await.unwrap();
    assert_eq!((frame.header.kind, frame.header.stream), (Kind::Err, stream(0)));
    let head = postcard::to_stdvec(&What::Echo).unwrap();
    raw.request(1, &head, b"still here", Flags::END).await;
    let frame = raw.next().await.unwrap();
    assert_eq!((frame.header.kind, frame.header.stream), (Kind::Res, stream(1)));
    assert_eq!(Opening::parse(frame).unwrap().body, Bytes::from_static(b"still here"));
}

#[actix_rt::test]
async fn an_id_in_use_or_beyond_the_limit_ends_the_link() {
    let (listener, teller) = served(keys(1));
    let head = postcard::to_stdvec(&What::Hang).unwrap();
    for second in [0, 1 << 19] {
        let mut raw = Raw::dial(&listener).await;
        raw.request(0, &head, b"", Flags::END).await;
        raw.request(second, &head, b"", Flags::END).await;
        assert!(raw.next().await.is_none());
        until("its handlers are stopped", || teller.running.get() == 0).await;
    }
}

#[actix_rt::test]
async fn a_peer_that_ignores_its_credit_loses_its_link_and_nobody_elses() {
    let (listener, teller) = served(keys(1));
    let other = dial(listener.address(), &caller(keys(1))).await.unwrap();
    let mut raw = Raw::dial(&listener).await;
    raw.request(0, &postcard::to_stdvec(&What::Sleep(60_000)).unwrap(), b"", Flags::NONE).await;
    let piece = Header::new(Kind::Data, stream(0)).encode(32 * 1024);
    let payload = vec![0; 32 * 1024];
    for _ in 0..1000 {
        if raw.socket.write_all(&piece).await.is_err() || raw.socket.write_all(&payload).await.is_err() {
            break;
        }
    }
    until("its handler is stopped", || teller.running.get() == 0).await;
    let reply = Service::<Ask>::call(&other, ask(What::Echo, Body::full(Bytes::from_static(b"x")))).await.unwrap();
    assert_eq!(read(reply.body).await.unwrap(), b"x");
}

#[actix_rt::test]
async fn a_peer_that_pings_and_never_reads_is_cut_off() {
    let (listener, _teller) = served(keys(1));
    let mut raw = Raw::dial(&listener).await;
    until("the link is up", || listener.links() == 1).await;
    let mut pings = BytesMut::new();
    for _ in 0..1000 {
        troupe_wire::payload::put_ping(&mut pings, Kind::Ping, 1, 1);
    }
    let flood = async { while raw.socket.write_all(&pings).await.is_ok() {} };
    tokio::time::timeout(LONG, flood).await.expect("it is cut off");
    until("the link is gone", || listener.links() == 0).await;
}

#[actix_rt::test]
async fn random_frames_end_at_most_their_link() {
    let (listener, _teller) = served(keys(1));
    let other = dial(listener.address(), &caller(keys(1))).await.unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..200 {
        let mut raw = Raw::dial(&listener).await;
        let mut bytes = BytesMut::new();
        for _ in 0..40 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let [kind, flags, index, length, aux, ..] = random.to_be_bytes();
            let mut header = Header::new(Kind::Data, stream(u32::from(index % 3))).with_aux(u32::from(aux));
            header = header.with_contract(Ask::ID).with_flags(Flags::from_raw(flags));
            let mut encoded = header.encode(usize::from(length % 64));
            encoded[4] = kind % 11;
            bytes.put_slice(&encoded);
            bytes.put_bytes(0, usize::from(length % 64));
        }
        let _ = raw.socket.write_all(&bytes).await;
    }
    assert_eq!(call(&other, What::Echo).await.unwrap(), 0);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let log = self.0.lock().unwrap();
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains("no link")).map(str::to_owned).collect()
    }
}

/// What this thread logs at warn and above while the guard lives.
fn logged() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

#[actix_rt::test]
async fn another_key_is_refused_with_one_line() {
    let (log, _guard) = logged();
    let (listener, _teller) = served(keys(1));
    let refused = dial(listener.address(), &caller(keys(2))).await.unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("refused by the peer (key)"), "{refused}");
    until("the line", || !log.lines().is_empty()).await;
    let lines = log.lines();
    assert!(lines.len() == 1 && lines[0].contains("mesh.key_file"), "{lines:?}");
}

#[actix_rt::test]
async fn another_protocol_is_refused_with_one_line() {
    let (log, _guard) = logged();
    let (listener, _teller) = served(keys(1));
    let Address::Tcp(address) = listener.address() else { panic!("not TCP") };
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"troupe"));
    until("the line", || !log.lines().is_empty()).await;
    assert!(log.lines().len() == 1 && log.lines()[0].contains("another protocol"), "{:?}", log.lines());
}

#[actix_rt::test]
async fn another_version_is_refused_with_one_line() {
    let (log, _guard) = logged();
    let (listener, _teller) = served(keys(1));
    let Address::Tcp(address) = listener.address() else { panic!("not TCP") };
    let mut socket = TcpStream::connect(address).await.unwrap();
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut hello = Hello::new(Uid([9; 16]), "raw", "raw", [9; NONCE_LEN]);
    (hello.protocol_min, hello.protocol_max) = (7, 9);
    let mut handshake = Handshake::new(Role::Caller, hello, keys(1), &mut output);
    socket.write_all_buf(&mut output).await.unwrap();
    let refused = loop {
        socket.read_buf(&mut input).await.unwrap();
        if let Err(refused) = handshake.advance(&mut input, &mut output) {
            break refused;
        }
    };
    assert!(refused.to_string().contains("refused by the peer (version)"), "{refused}");
    until("the line", || !log.lines().is_empty()).await;
    assert!(log.lines().len() == 1 && log.lines()[0].contains("upgrade"), "{:?}", log.lines());
}

#[actix_rt::test]
async fn a_silent_connection_is_closed_after_two_seconds() {
    let (listener, _teller) = served(keys(1));
    let Address::Tcp(address) = listener.address() else { panic!("not TCP") };
    let mut socket = TcpStream::connect(address).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(20), socket.read_u8()).await.expect("closed in time");
    assert!(read.is_err());
}

#[actix_rt::test]
async fn another_version_of_a_contract_disables_that_contract_only() {
    let (listener, _teller) = served(keys(1));
    let mut setup = caller(keys(1));
    setup.calls = Rc::new([ContractVersion { id: Ask::ID, version: Ask::VERSION + 1 }]);
    let link = dial(listener.address(), &setup).await.unwrap();
    let failure = call(&link, What::Echo).await.unwrap_err();
    assert_eq!((failure.outcome, failure.started), (Outcome::Incompatible, Started::No));
    assert_eq!(link.session().disabled.len(), 1);
}
