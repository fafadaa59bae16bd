//! A call, ready to be written to a process: as often as it takes to find one that lives.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use troupe_contracts::invoke::Invoke;
use troupe_mesh::body::Body;
use troupe_wire::trace::TraceContext;

use crate::functions::Known;
use crate::pool::Pool;
use crate::process::Work;
use crate::protocol::{CALL_HEADER, CallHeader, DEVELOPMENT, FORM, PLAIN, STREAM, ToPhp};
use crate::spool::Form;
use crate::{serialize, server_vars};

/// A call and its body, once it is known how PHP gets that.
#[derive(Debug)]
pub(crate) struct Request {
    /// The call; its body has moved to `payload`.
    pub(crate) call: Invoke,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) payload: Payload,
    /// What is known of the function.
    pub(crate) known: Arc<Known>,
    /// Whether it was fast when the call came in.
    pub(crate) fast: bool,
    /// It had a process, or a seat behind another call, and lost it. It does not sit down again, and is not refused any more.
    pub(crate) unseated: bool,
    /// Its frame turned out to be longer than what a pipe passes on in one piece: it cannot sit behind another call.
    pub(crate) no_packet: Cell<bool>,
    /// Its body was gathered here, and it waits for a process however many do.
    pub(crate) uploaded: bool,
    /// When the call came in.
    pub(crate) arrived: Instant,
}

/// How PHP gets the body.
#[derive(Debug)]
pub(crate) enum Payload {
    /// In the frame of the call.
    Inline(Bytes),
    /// As files.
    Form(Form),
    /// In frames of its own, while the function runs.
    Stream(Body),
}

impl Request {
    /// What the process works on that has it.
    pub(crate) fn work(&self) -> Work {
        Work { head: self.call.head.clone(), trace: self.trace }
    }

    /// Whether the body follows in frames of its own.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.payload, Payload::Stream(_))
    }

    /// Writes the call's frame into `frame`, instead of what was there.
    pub(crate) fn encode(&self, frame: &mut Vec<u8>, pool: &Pool, function: u16, flags: u8, id: u64, due: Instant) {
        frame.clear();
        frame.resize(CALL_HEADER, 0);
        let mut flags = flags | if pool.limits.development { DEVELOPMENT } else { 0 };
        let body: &[u8] = match &self.payload {
            Payload::Inline(body) => {
                let len = Some(body.len() as u64);
                if server_vars::write_plain(frame, &self.call, self.trace.as_ref(), len) {
                    flags |= PLAIN;
                } else {
                    server_vars::write(frame, &self.call, self.trace.as_ref(), len);
                }
                body
            }
            Payload::Form(form) => {
                flags |= FORM;
                let mut rich = serialize::array(frame);
                rich.key(frame, b"s");
                server_vars::write(frame, &self.call, self.trace.as_ref(), Some(form.len()));
                form.write(frame, &mut rich);
                rich.end(frame);
                &[]
            }
            Payload::Stream(body) => {
                flags |= STREAM;
                server_vars::write(frame, &self.call, self.trace.as_ref(), body.len());
                &[]
            }
        };
        let meta_len = (frame.len() - CALL_HEADER) as u32;
        frame.extend_from_slice(body);
        let header = CallHeader {
            kind: ToPhp::Call,
            flags,
            function,
            meta_len,
            body_len: body.len() as u32,
            deadline_ns: pool.monotonic_ns(due),
            id,
        };
        if let Some(place) = frame.first_chunk_mut::<CALL_HEADER>() {
            *place = header.encode();
        }
    }
}
