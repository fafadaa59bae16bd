//! A request body on its way to a running function, piece by piece.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use troupe_mesh::body::Body;

use crate::protocol::{CALL_HEADER, CallHeader, LAST_PIECE, ToPhp};
use crate::turn::{Turn, Written};

/// Longest piece of a body in one frame: what a pipe takes at once.
const PIECE: usize = 64 * 1024;

/// The body of a call whose route streams it.
#[derive(Debug)]
pub(crate) struct Feed {
    body: Body,
    piece: Bytes,
    frame: Bytes,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The last frame is being written.
    Last,
    Done,
    /// The client went away: the function waits for bytes that never come.
    Broken,
}

impl Feed {
    /// What moves `body` to the call that has the turn.
    pub(crate) fn new(body: Body, turn: &mut Turn) -> Self {
        turn.set_body_open(true);
        Self { body, piece: Bytes::new(), frame: Bytes::new(), state: State::Open }
    }

    /// Whether PHP was sent all of it.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Moves what can be moved now. Each piece that arrives gives the function its time anew.
    pub(crate) fn poll(mut self: std::pin::Pin<&mut Self>, turn: &mut Turn, context: &mut Context<'_>) {
        let this = &mut *self;
        let timeout = turn.local.pool.limits.timeout;
        while matches!(this.state, State::Open | State::Last) {
            if !this.frame.is_empty() {
                match turn.poll_write(&mut this.frame, context) {
                    Poll::Ready(Written::All) => turn.set_due(turn.due().max(Instant::now() + timeout)),
                    // The reply side finds out why.
                    Poll::Ready(Written::Gone | Written::Due) => this.state = State::Broken,
                    Poll::Pending => return,
                }
                if this.state == State::Last {
                    this.state = State::Done;
                    turn.set_body_open(false);
                }
                continue;
            }
            if this.piece.is_empty() {
                match this.body.poll_next(context) {
                    Poll::Ready(Some(Ok(piece))) => this.piece = piece,
                    Poll::Ready(Some(Err(_))) => {
                        this.state = State::Broken;
                        turn.with(|process| process.info.kill(crate::process::Fate::Cancelled));
                    }
                    Poll::Ready(None) => {
                        this.frame = frame(&[], LAST_PIECE);
                        this.state = State::Last;
                    }
                    Poll::Pending => return,
                }
                continue;
            }
            let piece = this.piece.split_to(this.piece.len().min(PIECE));
            this.frame = frame(&piece, 0);
        }
    }
}

fn frame(piece: &[u8], flags: u8) -> Bytes {
    let body_len = piece.len() as u32;
    let header = CallHeader { kind: ToPhp::Body, flags, body_len, ..CallHeader::STOP };
    let mut frame = BytesMut::with_capacity(CALL_HEADER + piece.len());
    frame.put_slice(&header.encode());
    frame.put_slice(piece);
    frame.freeze()
}
