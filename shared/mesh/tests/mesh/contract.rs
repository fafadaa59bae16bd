//! The contract that the tests speak, and a service that does as it is asked.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use troupe_mesh::body::{Body, channel};
use troupe_mesh::contract::{BadHead, Contract, Envelope};
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Service};
use troupe_wire::trace::TraceContext;

/// Long enough for whatever a test does.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// What the service is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum What {
    /// Reply with the body as it came, whole or as a stream.
    Echo,
    /// Read the whole body and reply with its length.
    Count,
    /// Reply with a stream of this many pieces of this many bytes.
    Produce { pieces: u32, size: u32 },
    /// Reply with a stream that breaks off after one piece.
    BreakOff,
    /// Reply after this many milliseconds.
    Sleep(u64),
    /// Never reply.
    Hang,
    /// Fail in detail.
    Fail,
    /// Panic while the call runs.
    Panic,
    /// Panic before there is a call to wait for.
    PanicAtOnce,
    /// Reply with the milliseconds that the deadline leaves, and the trace.
    Context,
}

#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) what: What,
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) number: u64,
    pub(crate) trace: Option<String>,
    pub(crate) body: Body,
}

impl Contract for Ask {
    type Reply = Said;

    const ID: u16 = 900;
    const VERSION: u16 = 2;
    const NAME: &'static str = "ask";

    fn encode_head(&self, out: &mut BytesMut) {
        out.extend_from_slice(&postcard::to_stdvec(&self.what).unwrap());
    }

    fn into_body(self) -> Body {
        self.body
    }

    fn decode(head: Bytes, body: Body) -> Result<Self, BadHead> {
        let what = postcard::from_bytes(&head).map_err(|_| BadHead { contract: Self::NAME, why: "not an ask" })?;
        Ok(Self { what, body })
    }

    fn encode_reply_head(reply: &Said, out: &mut BytesMut) {
        out.extend_from_slice(&postcard::to_stdvec(&(reply.number, &reply.trace)).unwrap());
    }

    fn reply_into_body(reply: Said) -> Body {
        reply.body
    }

    fn decode_reply(head: Bytes, body: Body) -> Result<Said, BadHead> {
        let (number, trace) =
            postcard::from_bytes(&head).map_err(|_| BadHead { contract: Self::NAME, why: "not a said" })?;
        Ok(Said { number, trace, body })
    }
}

/// A call of `what` with `body` that has all the time it needs.
pub(crate) fn ask(what: What, body: Body) -> Envelope<Ask> {
    Envelope::new(Ask { what, body }, Deadline::after(LONG))
}

/// Does what it is asked, and counts what is under way.
#[derive(Default)]
pub(crate) struct Teller {
    /// Handlers that have begun and not ended.
    pub(crate) running: Rc<Cell<usize>>,
    /// Handlers that have begun.
    pub(crate) begun: Rc<Cell<usize>>,
    /// Bytes that streams of replies were able to write.
    pub(crate) produced: Rc<Cell<u64>>,
}

struct Running(Rc<Cell<usize>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Service<Ask> for Teller {
    fn call(&self, envelope: Envelope<Ask>) -> CallFuture<Ask> {
        assert!(!matches!(envelope.call.what, What::PanicAtOnce), "asked to, at once");
        self.begun.set(self.begun.get() + 1);
        self.running.set(self.running.get() + 1);
        let running = Running(Rc::clone(&self.running));
        let produced = Rc::clone(&self.produced);
        Box::pin(async move {
            let said = tell(envelope, produced).await;
            drop(running);
            said
        })
    }
}

async fn tell(envelope: Envelope<Ask>, produced: Rc<Cell<u64>>) -> Result<Said, Failure> {
    let Envelope { call: Ask { what, mut body }, deadline, trace } = envelope;
    let plain = |number, body| Ok(Said { number, trace: None, body });
    match what {
        What::Echo => plain(body.len().unwrap_or(u64::MAX), body),
        What::Count => {
            let mut length = 0;
            while let Some(piece) = body.next().await {
                let broken = |_| Failure::new(Outcome::Refused, Stage::Php, "the body broke off");
                length += piece.map_err(broken)?.len() as u64;
            }
            plain(length, Body::Empty)
        }
        What::Produce { pieces, size } => {
            let (mut writer, reader) = channel(Some(u64::from(pieces) * u64::from(size)));
            actix_rt::spawn(async move {
                let piece = Bytes::from(vec![b'p'; size as usize]);
                for _ in 0..pieces {
                    if writer.write(piece.clone()).await.is_err() {
                        return;
                    }
                    produced.set(produced.get() + u64::from(size));
                }
                writer.finish();
            });
            plain(u64::from(pieces), Body::Stream(reader))
        }
        What::BreakOff => {
            let (mut writer, reader) = channel(None);
            writer.write(Bytes::from_static(b"part")).await.unwrap();
            actix_rt::spawn(async move {
                actix_rt::time::sleep(Duration::from_millis(20)).await;
                drop(writer);
            });
            plain(0, Body::Stream(reader))
        }
        What::Sleep(millis) => {
            actix_rt::time::sleep(Duration::from_millis(millis)).await;
            plain(millis, body)
        }
        What::Hang => std::future::pending().await,
        What::Fail => {
            let mut failure = Failure::refused(Stage::Balancer, 418, "a teapot").with_detail("short and stout");
            failure.retry_after = Some(Duration::from_millis(1500));
            Err(failure)
        }
        What::Panic | What::PanicAtOnce => panic!("asked to"),
        What::Context => {
            let left = u64::try_from(deadline.remaining().as_millis()).unwrap();
            Ok(Said { number: left, trace: trace.as_ref().map(TraceContext::to_string), body: Body::Empty })
        }
    }
}

/// Reads a body to its end.
pub(crate) async fn read(mut body: Body) -> Result<Vec<u8>, troupe_mesh::body::BodyBroken> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

/// Waits for `condition`, ten seconds at most.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came: {what}");
}
