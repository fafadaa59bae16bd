//! What a callee serves: contracts by number, and the task that answers one call.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::task::AbortHandle;
use troupe_wire::handshake::ContractVersion;
use troupe_wire::stream_id::StreamId;
use troupe_wire::trace::TraceContext;

use super::Shared;
use super::streams::Answer;
use crate::body::Body;
use crate::contract::{Contract, Envelope};
use crate::deadline::Deadline;
use crate::failure::{Failure, Outcome, Stage};
use crate::port::{Port, panicked, panics};

/// The contracts that this thread serves to its links. It belongs to the thread that made it.
#[derive(Clone, Default)]
pub struct Services {
    list: Rc<Vec<Entry>>,
}

#[derive(Clone)]
struct Entry {
    contract: ContractVersion,
    name: &'static str,
    serve: Rc<dyn Serve>,
}

impl Services {
    /// Serves nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, and `contract` answered by `port`. A contract that is there already is replaced.
    #[must_use]
    pub fn with<C: Contract>(mut self, port: Port<C>) -> Self {
        let contract = ContractVersion { id: C::ID, version: C::VERSION };
        // There from the start, so that the first one is a rise.
        panics(C::NAME).increment(0);
        let list = Rc::make_mut(&mut self.list);
        list.retain(|entry| entry.contract.id != C::ID);
        list.push(Entry { contract, name: C::NAME, serve: Rc::new(Typed(port)) });
        self
    }

    /// Whose versions the handshake compares.
    pub(crate) fn contracts(&self) -> Vec<ContractVersion> {
        self.list.iter().map(|entry| entry.contract).collect()
    }

    /// Starts the task that answers a call; what is returned stops it.
    pub(super) fn start(&self, contract: u16, incoming: Incoming) -> Option<AbortHandle> {
        let entry = self.list.iter().find(|entry| entry.contract.id == contract)?;
        Some(entry.serve.start(incoming))
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.list.iter().map(|entry| entry.name)).finish()
    }
}

/// A call as it came off the link.
pub(super) struct Incoming {
    pub(super) shared: Rc<Shared>,
    pub(super) id: StreamId,
    pub(super) head: Bytes,
    pub(super) body: Body,
    pub(super) deadline: Deadline,
    pub(super) trace: Option<TraceContext>,
}

/// A contract without its type.
trait Serve {
    fn start(&self, incoming: Incoming) -> AbortHandle;
}

struct Typed<C: Contract>(Port<C>);

impl<C: Contract> Serve for Typed<C> {
    fn start(&self, incoming: Incoming) -> AbortHandle {
        let port = self.0.clone();
        let handler = actix_rt::spawn(async move {
            let Incoming { shared, id, head, body, deadline, trace } = incoming;
            let work = async move {
                let call = C::decode(head, body).map_err(|bad| {
                    Failure::new(Outcome::Incompatible, Stage::Link, "the request's head does not decode")
                        .not_started()
                        .with_detail(bad.to_string())
                })?;
                port.call(Envelope { call, deadline, trace }).await
            };
            let result = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(panicked::<C>()));
            shared.answer::<C>(id, result);
        });
        handler.abort_handle()
    }
}

impl Shared {
    /// Encodes and queues what a handler came to.
    fn answer<C: Contract>(&self, id: StreamId, result: Result<C::Reply, Failure>) {
        let mut core = self.core.borrow_mut();
        let answer = result.and_then(|reply| {
            let head = core.encode_head(|out| C::encode_reply_head(&reply, out));
            match head {
                Some(head) => Ok(Answer { head, body: C::reply_into_body(reply) }),
                None => Err(Failure::new(Outcome::Internal, Stage::Link, "the response head is too large")),
            }
        });
        core.answer(id, answer);
    }
}
