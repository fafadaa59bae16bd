//! Processes that run on for nobody: the reader of their stream went away, which their function finds out when it writes next.

use super::{PoolActor, Record};
use crate::process::Fate;

impl PoolActor {
    /// Ends those that were left first where more run on than there may be streams. Each has a successor already, so that nobody
    /// waits for a function that sleeps; without a bound, clients that come and go would have any number of them started.
    pub(super) fn end_left(&mut self) {
        let mut left: Vec<&mut Record> = self.processes.values_mut().filter(|record| record.runs_on()).collect();
        let surplus = left.len().saturating_sub(self.pool.limits.max_streams);
        left.sort_unstable_by_key(|record| record.ending);
        for record in left.into_iter().take(surplus) {
            let process = record.info.id;
            tracing::warn!(
                pool = %self.pool.name,
                process,
                "ended a function whose stream was left: more of them run on than max_streams allows"
            );
            record.over = true;
            record.info.kill(Fate::StreamGone);
        }
    }
}
