//! One HTTP request on its way to a worker, and the response on its way back.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{BadHead, Contract};
use troupe_wire::head::{RequestHead, ResponseHead};

pub use troupe_mesh::times::Times;

use crate::envelope;
use crate::report::Load;

/// What the names of pools of upstream servers begin with: a pool of PHP cannot have a colon in its name.
pub const UPSTREAM: &str = "upstream:";

/// The pool that stands for the group of upstream servers with this name.
pub fn upstream_pool(name: &str) -> String {
    format!("{UPSTREAM}{name}")
}

/// A call of a pool: of a PHP function, or of an HTTP server upstream.
///
/// The balancer reads everything but `head` and `body`, which it passes on as they came.
#[derive(Debug)]
pub struct Invoke {
    /// The pool that is to answer.
    pub pool: ByteString,
    /// The route that matched, by its pattern: for metrics and logs.
    pub route: ByteString,
    /// The function's name within its pool: its path below the root, without `.php`; empty for an upstream server.
    pub function: ByteString,
    /// What may be done with the call.
    pub flags: InvokeFlags,
    /// Offset in the target's path at which `PATH_INFO` begins; the path's length when there is none.
    pub path_info: u16,
    /// How long the call has waited in queues so far: what a pool scales by.
    pub queued: Duration,
    /// The request's head.
    pub head: RequestHead,
    /// The request's body.
    pub body: Body,
}

impl Invoke {
    /// The same call with another head, and without its body.
    pub fn with_head(&self, head: RequestHead) -> Self {
        let Self { pool, route, function, flags, path_info, queued, .. } = self;
        Self {
            pool: pool.clone(),
            route: route.clone(),
            function: function.clone(),
            flags: *flags,
            path_info: *path_info,
            queued: *queued,
            head,
            body: Body::Empty,
        }
    }

    /// The same call again, for a second try, as long as its [whole body](Body::is_whole) is at hand: reference counts, no
    /// bytes.
    pub fn spare(&self) -> Self {
        Self { body: self.body.spare(), ..self.with_head(self.head.clone()) }
    }
}

/// What may be done with a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokeFlags {
    /// The method is idempotent (RFC 9110 §9.2.2): the call may be repeated when no reply byte was seen.
    pub idempotent: bool,
    /// The body is handed to the function as it arrives instead of being spooled first.
    pub streaming: bool,
    /// The client asked with HEAD, which the head says as GET: nobody will see the reply's body.
    pub head_only: bool,
    /// The client asks to go on with WebSocket (RFC 6455 §4). The body is what it sends after a reply of 101, whose own body
    /// is what the server sends: until that reply nothing of the body may be read, and behind any other there is none.
    pub tunnel: bool,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    /// The response's head.
    pub head: ResponseHead,
    /// How loaded the worker's pool was when it answered.
    pub load: Load,
    /// Where the call's time went.
    pub times: Times,
    /// The response's body.
    pub body: Body,
}

#[derive(Serialize, Deserialize)]
struct CallMeta<'a> {
    pool: &'a str,
    route: &'a str,
    function: &'a str,
    flags: InvokeFlags,
    path_info: u16,
    queued_us: u32,
}

impl Contract for Invoke {
    type Reply = Reply;

    const ID: u16 = 1;
    const VERSION: u16 = 4;
    const NAME: &'static str = "invoke";

    fn encode_head(&self, out: &mut BytesMut) {
        let meta = CallMeta {
            pool: &self.pool,
            route: &self.route,
            function: &self.function,
            flags: self.flags,
            path_info: self.path_info,
            queued_us: u32::try_from(self.queued.as_micros()).unwrap_or(u32::MAX),
        };
        envelope::put(&meta, self.head.as_bytes(), out);
    }

    fn into_body(self) -> Body {
        self.body
    }

    fn decode(head: Bytes, body: Body) -> Result<Self, BadHead> {
        let (meta, raw) = envelope::split(&head).ok_or(bad("cut short"))?;
        let read: CallMeta<'_> = envelope::read(meta).ok_or(bad("not an invoke"))?;
        let part = |text: &str| {
            ByteString::try_from(head.slice_ref(text.as_bytes())).map_err(|_| bad("a name that is not UTF-8"))
        };
        Ok(Self {
            pool: part(read.pool)?,
            route: part(read.route)?,
            function: part(read.function)?,
            flags: read.flags,
            path_info: read.path_info,
            queued: Duration::from_micros(u64::from(read.queued_us)),
            head: RequestHead::decode(raw).map_err(|malformed| bad(malformed.0))?,
            body,
        })
    }

    fn encode_reply_head(reply: &Reply, out: &mut BytesMut) {
        envelope::put(&(reply.load, reply.times), reply.head.as_bytes(), out);
    }

    fn reply_into_body(reply: Reply) -> Body {
        reply.body
    }

    fn decode_reply(head: Bytes, body: Body) -> Result<Reply, BadHead> {
        let (meta, raw) = envelope::split(&head).ok_or(bad("cut short"))?;
        let (load, times) = envelope::read(meta).ok_or(bad("not a reply to an invoke"))?;
        let head = ResponseHead::decode(raw).map_err(|malformed| bad(malformed.0))?;
        Ok(Reply { head, load, times, body })
    }
}

fn bad(why: &'static str) -> BadHead {
    BadHead { contract: Invoke::NAME, why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use troupe_wire::head::{RequestHeadBuilder, RequestParts, ResponseHeadBuilder, Scheme, Version};

    use super::*;

    fn invoke() -> Invoke {
        let mut builder = RequestHeadBuilder::default();
        builder.field("accept", b"*/*").unwrap();
        let parts = RequestParts {
            version: Version::Http11,
            scheme: Scheme::Http,
            method: "GET",
            target: "/api/hello?name=x",
            authority: "example.test",
            remote_addr: "192.0.2.1",
            remote_port: "1",
            local_addr: "192.0.2.2",
            local_port: "80",
        };
        Invoke {
            pool: "default".into(),
            route: "/api/{function*}".into(),
            function: "hello".into(),
            flags: InvokeFlags { idempotent: true, streaming: false, head_only: true, tunnel: true },
            path_info: 10,
            queued: Duration::from_micros(77),
            head: builder.finish(&parts).unwrap(),
            body: Body::Empty,
        }
    }

    #[test]
    fn a_call_survives_the_wire() {
        let call = invoke();
        let mut out = BytesMut::new();
        call.encode_head(&mut out);
        let read = Invoke::decode(out.freeze(), Body::Empty).unwrap();
        assert_eq!((&*read.pool, &*read.route, &*read.function), ("default", "/api/{function*}", "hello"));
        assert_eq!((read.flags, read.path_info, read.queued), (call.flags, call.path_info, call.queued));
        assert_eq!(read.head.as_bytes(), call.head.as_bytes());
    }

    #[test]
    fn a_reply_survives_the_wire() {
        let load = Load { slots: 16, prefetch: 4, in_flight: 3, restarts: 9, draining: true, ..Load::default() };
        let mut builder = ResponseHeadBuilder::default();
        builder.field(b"Content-Type", b"text/plain").unwrap();
        let times =
            Times { balancer_us: 900, queue_us: 1, worker_us: 800, pool_us: 700, pool_wait_us: 2, run_us: u32::MAX };
        let reply = Reply { head: builder.finish(201), load, times, body: Body::Empty };
        let mut out = BytesMut::new();
        Invoke::encode_reply_head(&reply, &mut out);
        let read = Invoke::decode_reply(out.freeze(), Body::Empty).unwrap();
        assert_eq!((read.head.status(), read.load, read.times), (201, load, times));
    }

    proptest! {
        #[test]
        fn a_damaged_head_is_refused_or_read_but_never_panics(at in 0usize..120, to in any::<u8>(), keep in 0usize..200) {
            let mut out = BytesMut::new();
            invoke().encode_head(&mut out);
            out.truncate(keep);
            if let Some(byte) = out.get_mut(at) { *byte = to; }
            let _ = Invoke::decode(out.clone().freeze(), Body::Empty);
            let _ = Invoke::decode_reply(out.freeze(), Body::Empty);
        }
    }
}
