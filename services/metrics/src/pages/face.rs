//! The dashboard as gateways ask for it: a call like any other, whose answer may be a stream.
//!
//! A gateway passes the request on as it came; who may see the page is decided here, where all gateways' wrong credentials
//! count together.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use troupe_contracts::invoke::{Invoke, Reply, Times};
use troupe_contracts::report::Load;
use troupe_mesh::body::{self, Body};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Stage};
use troupe_mesh::port::{CallFuture, Service};
use troupe_node::admin::{Access, Caller, Denied, GUARD_HEADER};
use troupe_wire::head::{RequestHead, ResponseHead, ResponseHeadBuilder};

use super::{Answer, Asked, Events, Shown, Whole, assets, events};

/// Pieces of a stream's first event, which is long, are no larger.
const PIECE: usize = 32 * 1024;

/// Answers gateways, on one thread.
pub(crate) struct Face {
    shown: Shown,
    access: Access,
    development: bool,
}

impl Face {
    /// `access` is the admin listener's. Without a token the dashboard is shown in `development` alone: what stands in front
    /// of a gateway makes everybody look as if they came from this machine.
    pub(crate) fn new(shown: Shown, access: Access, development: bool) -> Self {
        Self { shown, access, development }
    }

    fn judge(&self, head: &RequestHead, asked: Asked<'_>) -> Result<(), Denied> {
        if !asked.post && assets::is_one(asked.path) {
            return Ok(());
        }
        if !self.access.has_token() && !self.development {
            return Err(Denied {
                status: 403,
                why: "the dashboard is shown by a gateway only where admin.token_file is set".to_owned(),
                retry_after: None,
                challenges: &[],
            });
        }
        self.access.judge(&Caller {
            peer: head.remote_addr().parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            authorization: head.field("authorization"),
            host: head.authority(),
            reads: !asked.post,
            guarded: head.field(&GUARD_HEADER.to_ascii_lowercase()).is_some(),
        })
    }
}

impl Service<Invoke> for Face {
    fn call(&self, envelope: Envelope<Invoke>) -> CallFuture<Invoke> {
        let request = envelope.call.head;
        let (post, head) = match request.method() {
            "GET" => (false, false),
            "HEAD" => (false, true),
            "POST" => (true, false),
            _ => {
                let failure = Failure::refused(Stage::Metrics, 405, "the dashboard takes GET, HEAD and POST");
                return Box::pin(std::future::ready(Err(failure)));
            }
        };
        let denied = self.judge(&request, Asked { post, head, path: request.path(), query: request.query() }).err();
        let shown = self.shown.clone();
        Box::pin(async move {
            if let Some(denied) = denied {
                return Ok(refusal(&denied));
            }
            Ok(match shown.answer(Asked { post, head, path: request.path(), query: request.query() }).await {
                Answer::Whole(whole) => reply(whole.status, &fields(&whole), Body::full(whole.body)),
                Answer::Events(events) => {
                    let body = events.map_or(Body::Empty, stream);
                    reply(200, &events::FIELDS.map(|(name, value)| (name.as_str().to_owned(), value)), body)
                }
            })
        })
    }
}

fn fields(whole: &Whole) -> Vec<(String, &'static str)> {
    whole.fields().into_iter().map(|(name, value)| (name.as_str().to_owned(), value)).collect()
}

fn refusal(denied: &Denied) -> Reply {
    let whole = Whole::problem(denied.status, &denied.why);
    let mut fields: Vec<(String, String)> =
        fields(&whole).into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    fields.extend(denied.challenges.iter().map(|challenge| ("www-authenticate".to_owned(), (*challenge).to_owned())));
    fields.extend(denied.retry_after.map(|seconds| ("retry-after".to_owned(), seconds.to_string())));
    reply(denied.status, &fields, Body::full(whole.body))
}

fn reply(status: u16, fields: &[(String, impl AsRef<str>)], body: Body) -> Reply {
    let mut head = ResponseHeadBuilder::default();
    head.start();
    for (name, value) in fields {
        // All of them are short, and of this crate's own making.
        let _ = head.field(name.as_bytes(), value.as_ref().as_bytes());
    }
    let head: ResponseHead = head.finish(status);
    Reply { head, load: Load::default(), times: Times::default(), body }
}

/// The events as a body, written by a task of this thread until the reader leaves.
fn stream(mut events: Events) -> Body {
    let (mut writer, reader) = body::channel(None);
    actix_rt::spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = writer.closed() => return,
            };
            let Some(mut event) = event else { return writer.finish() };
            while !event.is_empty() {
                let piece: Bytes = event.split_to(event.len().min(PIECE));
                if writer.write(piece).await.is_err() {
                    return;
                }
            }
        }
    });
    Body::Stream(reader)
}
