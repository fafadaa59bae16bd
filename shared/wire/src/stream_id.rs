//! The id of one call on one link: a table index and the generation of that table entry.
//!
//! The index makes the lookup an array access on both sides; the generation tells a late frame of a finished call
//! from one of the call that took its place.

use std::fmt;

/// Bits of the index.
const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

/// Most calls that one link can have in flight: what the index can tell apart.
pub const MAX_STREAMS: u32 = 1 << INDEX_BITS;

/// One call on one link. Zero is the link itself and never a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

impl StreamId {
    /// The link itself, in WINDOW, PING, PONG and GOAWAY.
    pub const LINK: Self = Self(0);

    /// The id of table entry `index` in its `generation`. `None` when the index does not fit.
    pub fn new(index: u32, generation: Generation) -> Option<Self> {
        (index < MAX_STREAMS).then_some(Self(u32::from(generation.0) << INDEX_BITS | index))
    }

    /// The id as it travels.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The id as it came. Any value is an id; the link's tables decide whether it names a call.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The table index.
    pub const fn index(self) -> u32 {
        self.0 & INDEX_MASK
    }

    /// Whether this names the link instead of a call.
    pub const fn is_link(self) -> bool {
        self.0 == 0
    }

    /// Whether this id could have been made by [`StreamId::new`]: its generation is not zero.
    pub const fn is_call(self) -> bool {
        self.0 >> INDEX_BITS != 0
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.index(), self.0 >> INDEX_BITS)
    }
}

/// How often a table entry has been used; wraps after 4,095 and is never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u16);

impl Generation {
    /// The first use of an entry.
    pub const FIRST: Self = Self(1);

    /// The generation after this one.
    pub const fn next(self) -> Self {
        let next = (self.0 + 1) & ((1 << (32 - INDEX_BITS)) - 1);
        Self(if next == 0 { 1 } else { next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_wrap_without_ever_making_the_link_id() {
        let mut generation = Generation::FIRST;
        for _ in 0..10_000 {
            let id = StreamId::new(0, generation).expect("index 0 fits");
            assert!(id.is_call() && !id.is_link());
            assert_eq!(id.index(), 0);
            generation = generation.next();
        }
    }

    #[test]
    fn an_index_beyond_the_table_is_refused() {
        assert!(StreamId::new(MAX_STREAMS, Generation::FIRST).is_none());
        let last = StreamId::new(MAX_STREAMS - 1, Generation::FIRST).expect("fits");
        assert_eq!(StreamId::from_raw(last.raw()).index(), MAX_STREAMS - 1);
    }
}
