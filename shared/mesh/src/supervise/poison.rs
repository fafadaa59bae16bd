//! Which messages made an actor panic.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

/// Panics of the same message after which it is refused.
const PANICS: u32 = 2;

/// Messages remembered; the oldest is forgotten first. Each costs its sender a restart of the actor to get in here.
const REMEMBERED: usize = 64;

/// After this long a message may try again: the state or the code it tripped over may have changed.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// What makes two messages the same: the contract they belong to and a hash of what they are about, both the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The contract's id.
    pub contract: u16,
    /// A hash of what is the same whenever it comes: who sends it, or what it says.
    pub hash: u64,
}

impl Mark {
    /// The mark of the messages of `contract` that are the same if `what` is.
    pub fn of(contract: u16, what: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self { contract, hash: hasher.finish() }
    }
}

/// The memory of one supervisor.
#[derive(Debug, Default)]
pub(super) struct Poison {
    seen: VecDeque<(Mark, u32, Instant)>,
}

impl Poison {
    /// The message with this mark made the actor panic.
    pub(super) fn panicked(&mut self, mark: Mark, now: Instant) {
        let before = self.count(mark, now);
        self.seen.retain(|(seen, _, _)| *seen != mark);
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back((mark, before + 1, now));
    }

    /// Whether it is refused.
    pub(super) fn refuses(&self, mark: Mark, now: Instant) -> bool {
        self.count(mark, now) >= PANICS
    }

    fn count(&self, mark: Mark, now: Instant) -> u32 {
        self.seen
            .iter()
            .find(|(seen, _, at)| *seen == mark && now.duration_since(*at) < REMEMBERED_FOR)
            .map_or(0, |(_, count, _)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(hash: u64) -> Mark {
        Mark { contract: 1, hash }
    }

    #[test]
    fn twice_is_refused_until_it_is_forgotten() {
        let mut poison = Poison::default();
        let now = Instant::now();
        poison.panicked(mark(1), now);
        assert!(!poison.refuses(mark(1), now));
        poison.panicked(mark(1), now);
        assert!(poison.refuses(mark(1), now));
        assert!(!poison.refuses(mark(2), now) && !poison.refuses(Mark { contract: 2, hash: 1 }, now));
        assert!(!poison.refuses(mark(1), now + REMEMBERED_FOR));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut poison = Poison::default();
        let now = Instant::now();
        poison.panicked(mark(0), now);
        poison.panicked(mark(0), now);
        for hash in 1..=REMEMBERED as u64 {
            poison.panicked(mark(hash), now);
        }
        assert_eq!(poison.seen.len(), REMEMBERED);
        assert!(!poison.refuses(mark(0), now));
    }
}
