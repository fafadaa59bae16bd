//! Readers that stand still while memory is short are given up, so that those who read go on.
//!
//! A reader that stops costs a window of its stream, and enough of them all the memory that links have for bodies. Then
//! no credit comes back for bytes that lie, and long bodies of other readers wait for it.

use std::cmp::Reverse;

use troupe_wire::frame::{Header, Kind};
use troupe_wire::stream_id::StreamId;

use super::core::{Core, RETRY_AFTER};
use super::streams::{CallState, Serve, Side};
use crate::failure::{Failure, Outcome, Stage};

impl Core {
    /// Breaks off bodies whose readers have taken nothing for longer than memory allows, until there is plenty again.
    /// How many those were.
    pub(super) fn give_up_standing(&mut self) -> u64 {
        let Some(patience) = self.held.memory().patience() else {
            return 0;
        };
        // While the socket takes nothing nobody looks at them, and readers that go on would seem to stand.
        self.take_signals();
        let now = self.ticks;
        let mut standing: Vec<_> = self
            .intakes
            .iter()
            .map(|(key, entry)| (entry.outstanding, now.wrapping_sub(entry.moved), key))
            .filter(|(outstanding, stood, _)| *outstanding > 0 && *stood >= patience)
            .collect();
        // The largest first, so that the fewest are hit, and of those the longest.
        standing.sort_unstable_by_key(|(outstanding, stood, _)| Reverse((*outstanding, *stood)));
        let mut given_up = 0;
        for (_, _, key) in standing {
            if self.held.memory().is_plenty() {
                break;
            }
            self.give_up(key);
            given_up += 1;
        }
        if given_up > 0 {
            self.metrics.given_up.increment(given_up);
            self.grant_link();
        }
        given_up
    }

    fn give_up(&mut self, key: usize) {
        let Some(entry) = self.intakes.try_remove(key) else {
            return;
        };
        entry.recall.recall();
        self.held.release(entry.outstanding);
        self.receive_link.consumed(entry.outstanding);
        self.end_given_up(entry.stream, key);
    }

    /// Ends the call whose body was given up. A service that works on it is stopped, as it waits for what will not come;
    /// where its reply is under way, it goes on without the rest.
    fn end_given_up(&mut self, id: StreamId, key: usize) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let arriving = stream.inbound.take_if(|inbound| inbound.intake == key).is_some();
        match &mut stream.side {
            Side::Call(call) if arriving => {
                stream.outbound = None;
                // Who has not looked at the reply yet still does, and the call is over then.
                if matches!(call.state, CallState::Taken) {
                    self.streams.remove(id);
                }
                self.put_control(Header::new(Kind::Cancel, id));
            }
            Side::Serve(Serve::Running(handler)) => {
                if let Some(handler) = handler.take() {
                    handler.abort();
                }
                let reason = "the request's body was not taken, and there is no memory to keep it";
                let mut failure = Failure::new(Outcome::Overloaded, Stage::Link, reason);
                failure.retry_after = Some(RETRY_AFTER);
                self.answer(id, Err(failure));
            }
            Side::Call(_) | Side::Serve(_) => {}
        }
    }
}
