//! The last 15 minutes, second by second.

use std::collections::VecDeque;

use super::columns;

/// Seconds that are kept: with some 40 numbers each, 160 KiB.
pub(crate) const SECONDS: usize = 15 * 60;

/// One second.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// When it ended, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// A number for each column; NaN where there is none.
    pub(crate) values: Box<[f32]>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Frame>);

impl History {
    pub(super) fn push(&mut self, frame: Frame) {
        if self.0.len() >= SECONDS {
            self.0.pop_front();
        }
        self.0.push_back(frame);
    }

    /// The newest `seconds`, oldest first.
    pub(crate) fn last(&self, seconds: usize) -> impl Iterator<Item = &Frame> {
        self.0.iter().skip(self.0.len().saturating_sub(seconds))
    }

    /// The newest.
    #[cfg(test)]
    pub(crate) fn newest(&self) -> Option<&Frame> {
        self.0.back()
    }

    /// The mean of a column over the newest `seconds`; 0 of nothing.
    pub(super) fn mean(&self, id: &str, seconds: usize) -> f32 {
        let Some(place) = columns::place(id) else { return 0.0 };
        let values = self.last(seconds).filter_map(|frame| frame.values.get(place)).filter(|value| value.is_finite());
        let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
        if count == 0 { 0.0 } else { sum / count as f32 }
    }
}
