//! The end of a pool: its processes and what they have started are asked to end, and killed when they do not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{AsyncContext as _, Context};
use tokio::sync::oneshot;

use super::PoolActor;
use crate::pool::Condition;
use crate::process::{Fate, ProcessInfo};

/// How long processes may take to end once they are asked to. Calls are over by then: it is for what functions have left
/// running, and for those that clean up on a signal.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often it is looked whether they have: nearly all of them end at once.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A stop that has begun.
pub(super) struct Stopping {
    /// Told when nothing is left.
    pub(super) done: oneshot::Sender<()>,
    /// The processes that there were: their groups may outlive them.
    groups: Vec<Arc<ProcessInfo>>,
    until: Instant,
}

impl PoolActor {
    pub(super) fn stop(&mut self, context: &mut Context<Self>, done: oneshot::Sender<()>) {
        self.set_condition(Condition::Down("the pool is stopped".into()));
        while let Some(process) = self.pool.lanes.remove_any() {
            process.info.doom(Fate::Stopped);
        }
        // Before any of them ends: a zygote kills what its processes leave behind, unless it is told not to.
        for zygote in self.zygotes() {
            zygote.command("leave");
        }
        let groups: Vec<_> = self.processes.values().map(|record| Arc::clone(&record.info)).collect();
        for group in &groups {
            group.ask_to_end(Fate::Stopped);
        }
        self.stopping = Some(Stopping { done, groups, until: Instant::now() + FAREWELL });
        self.see_off(context);
    }

    /// Ends what is left once nothing is waited for any more.
    fn see_off(&mut self, context: &mut Context<Self>) {
        let Some(stopping) = &self.stopping else { return };
        if Instant::now() < stopping.until && stopping.groups.iter().any(|group| group.has_group()) {
            context.run_later(LOOK_EVERY, Self::see_off);
            return;
        }
        for group in &stopping.groups {
            group.kill(Fate::Stopped);
        }
        // Their end ends the wait.
        self.kill_zygotes();
        self.stopped_if_empty();
    }

    pub(super) fn stopped_if_empty(&mut self) {
        if self.zygote.is_none() && self.processes.is_empty() {
            self.run = None;
            if let Some(stopping) = self.stopping.take() {
                let _ = stopping.done.send(());
            }
        }
    }
}
