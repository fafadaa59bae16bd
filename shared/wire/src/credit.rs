//! Who may send how many body bytes: windows of one stream and of the whole link, as plain bookkeeping.
//!
//! Every body byte, whichever frame it rides in, is charged to its stream and to its link. A stream's credit comes back
//! when the *application* has taken the bytes, so a slow reader stops its sender. The link's credit bounds what may be
//! on its way; whether it comes back on arrival or only on consumption is the receiver's choice ([`LinkReceive`]), which
//! is how a process keeps what all its links hold together within one budget without letting one slow reader stop the
//! other streams of its link.

use std::time::Duration;

use crate::frame::ProtocolError;
use crate::stream_id::StreamId;

/// Window that each stream starts with: 100 Mbit/s at a round trip of 20 ms.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// Widest window of a stream that drains as fast as it is filled.
pub const STREAM_WINDOW_MAX: u32 = 4 * 1024 * 1024;

/// Window of a link: all its streams' bytes on their way.
pub const LINK_WINDOW: u32 = 8 * 1024 * 1024;

/// Share of the link's window that is kept for the first pieces of calls and replies: streams that wait for credit never
/// delay a call that ends in one frame.
pub const LINK_RESERVE: u32 = 2 * 1024 * 1024;

/// Most credit a window can hold, as in HTTP/2: a peer that grants more is broken.
const MAX_CREDIT: u32 = i32::MAX as u32;

/// The sending side of a window: what may still be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendCredit {
    available: u32,
}

impl SendCredit {
    /// A window as the peer announced it.
    pub const fn new(window: u32) -> Self {
        let available = if window < MAX_CREDIT { window } else { MAX_CREDIT };
        Self { available }
    }

    /// Bytes that may be sent now.
    pub const fn available(&self) -> u32 {
        self.available
    }

    /// Bytes that may be sent now while `reserve` stays untouched.
    pub const fn beyond(&self, reserve: u32) -> u32 {
        self.available.saturating_sub(reserve)
    }

    /// Takes `bytes` out of the window; the caller has asked how many there are.
    pub fn spend(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.available);
        self.available = self.available.saturating_sub(bytes);
    }

    /// Adds what the peer granted.
    ///
    /// # Errors
    /// [`ProtocolError::CreditOverflow`] when no honest peer could have granted that much.
    pub fn grant(&mut self, stream: StreamId, bytes: u32) -> Result<(), ProtocolError> {
        match self.available.checked_add(bytes).filter(|sum| *sum <= MAX_CREDIT) {
            Some(sum) => {
                self.available = sum;
                Ok(())
            }
            None => Err(ProtocolError::CreditOverflow { stream }),
        }
    }
}

/// The receiving side of a stream's window.
///
/// Credit is granted when half the window has been consumed. A half that is consumed within a round trip of the grant
/// before it shows that the window was the limit, so it doubles, if its owner has the memory to spare.
#[derive(Clone, Copy, Debug)]
pub struct StreamReceive {
    /// The window's size.
    window: u32,
    /// What the peer may still send.
    credit: u32,
    /// Consumed and not granted again yet.
    consumed: u32,
    /// When the last grant left, on the owner's clock; `None` before the first.
    granted_at: Option<Duration>,
}

impl StreamReceive {
    /// The window that the handshake announced.
    pub const fn new(window: u32) -> Self {
        Self { window, credit: window, consumed: 0, granted_at: None }
    }

    /// Accounts for body bytes that came.
    ///
    /// # Errors
    /// [`ProtocolError::CreditExceeded`] when the peer had no credit for them.
    pub fn received(&mut self, stream: StreamId, bytes: u32) -> Result<(), ProtocolError> {
        receive(&mut self.credit, stream, bytes)
    }

    /// Accounts for body bytes that the application took.
    pub fn consumed(&mut self, bytes: u32) {
        self.consumed = self.consumed.saturating_add(bytes);
    }

    /// How much the window may grow by, if it is what limits the sender: half of it was consumed within one round trip
    /// (`rtt`) of the last grant, which is twice as long as it takes when nothing else limits. `now` is any clock that never goes back. The owner that has the memory to spare
    /// confirms with [`StreamReceive::widen`].
    pub fn wants_growth(&self, now: Duration, rtt: Duration) -> Option<u32> {
        if self.consumed < self.window / 2 || self.window >= STREAM_WINDOW_MAX {
            return None;
        }
        let since = now.saturating_sub(self.granted_at?);
        (since <= rtt).then(|| self.window.min(STREAM_WINDOW_MAX - self.window))
    }

    /// Widens the window by `bytes`; the next grant carries them.
    pub fn widen(&mut self, bytes: u32) {
        self.window = self.window.saturating_add(bytes);
        self.consumed = self.consumed.saturating_add(bytes);
    }

    /// The credit to send now, if half of the window waits to be granted.
    pub fn take_grant(&mut self, now: Duration) -> Option<u32> {
        if self.consumed < self.window / 2 || self.consumed == 0 {
            return None;
        }
        let grant = std::mem::take(&mut self.consumed);
        self.credit = self.credit.saturating_add(grant);
        self.granted_at = Some(now);
        Some(grant)
    }

    /// The window's size.
    pub const fn window(&self) -> u32 {
        self.window
    }
}

/// The receiving side of a link's window.
///
/// While the process has memory to spare, credit comes back on arrival, so that the bytes that some slow reader leaves
/// lying do not stop the other streams of the link (its own stream window stops that one). Without memory to spare it
/// comes back on consumption only, but for the reserve, which always does: what lies may be more than a window, and would
/// stop even what nobody has to keep.
#[derive(Clone, Copy, Debug)]
pub struct LinkReceive {
    window: u32,
    credit: u32,
    /// Arrived, not consumed.
    held: u64,
}

impl LinkReceive {
    /// The window that the handshake announced.
    pub const fn new(window: u32) -> Self {
        Self { window, credit: window, held: 0 }
    }

    /// Accounts for body bytes that came.
    ///
    /// # Errors
    /// [`ProtocolError::CreditExceeded`] when the peer had no credit for them.
    pub fn received(&mut self, bytes: u32) -> Result<(), ProtocolError> {
        receive(&mut self.credit, StreamId::LINK, bytes)?;
        self.held += u64::from(bytes);
        Ok(())
    }

    /// Accounts for body bytes that the application took or nobody wants any more.
    pub fn consumed(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.held);
        self.held = self.held.saturating_sub(bytes);
    }

    /// Bytes that arrived and were not consumed yet.
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// The credit to send now, if half of what the peer may have waits to be granted. `spare` says whether the process
    /// has memory for a whole window beside what is held already.
    pub fn take_grant(&mut self, spare: bool) -> Option<u32> {
        let held = if spare { 0 } else { u32::try_from(self.held).unwrap_or(u32::MAX) };
        let ceiling = self.window.saturating_sub(held).max(LINK_RESERVE.min(self.window));
        let grant = ceiling.saturating_sub(self.credit);
        if grant < ceiling / 2 || grant == 0 {
            return None;
        }
        self.credit += grant;
        Some(grant)
    }
}

fn receive(credit: &mut u32, stream: StreamId, bytes: u32) -> Result<(), ProtocolError> {
    match credit.checked_sub(bytes) {
        Some(rest) => {
            *credit = rest;
            Ok(())
        }
        None => Err(ProtocolError::CreditExceeded { stream, excess: bytes - *credit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_id::Generation;
    use proptest::prelude::*;

    fn stream() -> StreamId {
        StreamId::new(0, Generation::FIRST).expect("index in range")
    }

    /// Two ends of one stream, with what is on its way in between.
    struct Pair {
        sender: SendCredit,
        receiver: StreamReceive,
        in_buffer: u32,
        now: Duration,
    }

    impl Pair {
        fn step(&mut self, send: u32, consume: u32) {
            let send = send.min(self.sender.available());
            self.sender.spend(send);
            self.receiver.received(stream(), send).expect("an honest sender never exceeds its credit");
            self.in_buffer += send;
            let consume = consume.min(self.in_buffer);
            self.in_buffer -= consume;
            self.receiver.consumed(consume);
            self.now += Duration::from_micros(10);
            if let Some(growth) = self.receiver.wants_growth(self.now, Duration::from_micros(500)) {
                self.receiver.widen(growth);
            }
            if let Some(grant) = self.receiver.take_grant(self.now) {
                self.sender.grant(stream(), grant).expect("an honest receiver never overflows");
            }
            assert!(self.in_buffer + self.sender.available() <= self.receiver.window());
            assert!(self.receiver.window() <= STREAM_WINDOW_MAX);
        }
    }

    proptest! {
        #[test]
        fn an_honest_pair_stays_within_its_window_and_never_stalls(
            steps in prop::collection::vec((0u32..1 << 20, 0u32..1 << 20), 1..300),
        ) {
            let mut pair = Pair {
                sender: SendCredit::new(STREAM_WINDOW),
                receiver: StreamReceive::new(STREAM_WINDOW),
                in_buffer: 0,
                now: Duration::ZERO,
            };
            for (send, consume) in steps {
                pair.step(send, consume);
            }
            pair.step(0, u32::MAX);
            prop_assert!(pair.sender.available() > 0, "all is consumed, so there is credit");
        }

        #[test]
        fn a_link_never_stalls_once_all_is_consumed(
            steps in prop::collection::vec((0u32..1 << 20, 0u32..1 << 20, any::<bool>()), 1..300),
        ) {
            let mut sender = SendCredit::new(LINK_WINDOW);
            let mut receiver = LinkReceive::new(LINK_WINDOW);
            let grant = |receiver: &mut LinkReceive, sender: &mut SendCredit, spare| {
                if let Some(grant) = receiver.take_grant(spare) {
                    sender.grant(StreamId::LINK, grant).expect("an honest receiver never overflows");
                }
                assert!(sender.available() <= LINK_WINDOW);
            };
            for (send, consume, spare) in steps {
                let send = send.min(sender.available());
                sender.spend(send);
                receiver.received(send).expect("within credit");
                receiver.consumed(u64::from(consume).min(receiver.held()));
                grant(&mut receiver, &mut sender, spare);
            }
            receiver.consumed(receiver.held());
            grant(&mut receiver, &mut sender, false);
            prop_assert!(sender.available() > LINK_WINDOW / 2);
        }
    }

    #[test]
    fn without_spare_memory_only_the_reserve_comes_back_before_bytes_are_taken() {
        let mut receiver = LinkReceive::new(LINK_WINDOW);
        receiver.received(LINK_WINDOW).expect("within credit");
        assert_eq!(receiver.take_grant(false), Some(LINK_RESERVE));
        assert_eq!(receiver.take_grant(false), None);
        assert!(receiver.received(LINK_RESERVE + 1).is_err());
        assert_eq!(receiver.take_grant(true), Some(LINK_WINDOW - LINK_RESERVE));
    }

    #[test]
    fn what_is_not_kept_passes_whatever_a_link_holds() {
        let mut receiver = LinkReceive::new(LINK_WINDOW);
        for _ in 0..10 {
            receiver.received(LINK_WINDOW).expect("within credit");
            receiver.take_grant(true);
        }
        for _ in 0..100 {
            receiver.received(LINK_RESERVE / 2).expect("the reserve is there");
            receiver.consumed(u64::from(LINK_RESERVE / 2));
            receiver.take_grant(false);
        }
    }

    #[test]
    fn a_peer_that_sends_or_grants_too_much_is_caught() {
        let mut receiver = StreamReceive::new(10);
        assert_eq!(receiver.received(stream(), 10), Ok(()));
        let excess = ProtocolError::CreditExceeded { stream: stream(), excess: 1 };
        assert_eq!(receiver.received(stream(), 1), Err(excess));
        let mut sender = SendCredit::new(u32::MAX);
        let overflow = ProtocolError::CreditOverflow { stream: stream() };
        assert_eq!(sender.grant(stream(), u32::MAX), Err(overflow));
    }

    #[test]
    fn a_window_grows_only_while_it_is_the_limit() {
        let rtt = Duration::from_millis(1);
        let mut receiver = StreamReceive::new(STREAM_WINDOW);
        let mut now = Duration::ZERO;
        let mut drain = |receiver: &mut StreamReceive, pause: Duration| {
            let half = receiver.window() / 2;
            receiver.received(stream(), half).expect("within credit");
            receiver.consumed(half);
            now += pause;
            if let Some(growth) = receiver.wants_growth(now, rtt) {
                receiver.widen(growth);
            }
            receiver.take_grant(now).expect("half was consumed")
        };
        drain(&mut receiver, Duration::ZERO);
        drain(&mut receiver, Duration::from_millis(100));
        assert_eq!(receiver.window(), STREAM_WINDOW, "a slow drain");
        for _ in 0..20 {
            drain(&mut receiver, Duration::from_millis(1));
        }
        assert_eq!(receiver.window(), STREAM_WINDOW_MAX, "a fast drain");
    }
}
