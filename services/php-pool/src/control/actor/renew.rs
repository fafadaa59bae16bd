//! Renewal of a pool: a new generation of the code, and one process after another.
//!
//! A process is started before one is given up, so that there are never fewer than before. Who is given up takes no new
//! call: an idle one ends at once, a busy one when its calls are done.

use std::time::{Duration, Instant};

use actix::{AsyncContext as _, Context};

use super::PoolActor;
use crate::control::renewal::{Done, RenewError, Renewal, Renewed};
use crate::control::zygote::{Event, Loaded, Zygote};
use crate::functions::Functions;
use crate::pool::Condition;
use crate::process::{Fate, ProcessInfo};
use crate::rundir::RunDir;

/// How long all processes of a pool may take to be replaced: a thousand forks take a few seconds.
const LONGEST_ROLL: Duration = Duration::from_secs(60);
/// Functions that are named when they cannot be loaded.
const NAMED: usize = 5;

/// A generation of the code that is being loaded beside the one that serves.
pub(super) struct Next {
    pub(super) generation: u64,
    pub(super) zygote: Zygote,
    run: RunDir,
    error: Option<String>,
    done: Done,
}

/// A generation that is given up and still has processes.
pub(super) struct Retired {
    pub(super) generation: u64,
    pub(super) zygote: Zygote,
    /// Its processes' FIFOs are in there.
    _run: RunDir,
}

/// The replacement of all processes of an epoch before the current one.
pub(super) struct Roll {
    until: Instant,
    replaced: u32,
    /// Processes that came up and for which none has been given up yet.
    fresh: u32,
    waiting: Vec<Done>,
    /// Without a zygote, the first new process shows whether the code can be loaded.
    pub(super) unproven: bool,
}

impl PoolActor {
    pub(super) fn renew(&mut self, context: &mut Context<Self>, what: Renewal, done: Done) {
        let condition = self.pool.condition.borrow().clone();
        if self.stopping.is_some() {
            return refuse(done, RenewError::Stopping);
        }
        match (condition, what) {
            (_, Renewal::Code) if self.is_reloading() => refuse(done, RenewError::Busy),
            (Condition::Booting, Renewal::Processes) => self.boot_waiters.push((what, done)),
            // A boot that is under way may have read what has changed since.
            (Condition::Booting | Condition::Down(_), _) => {
                self.boot_waiters.push((what, done));
                self.boot(context);
            }
            (Condition::Up, Renewal::Processes) => self.begin_roll(Some(done), false),
            (Condition::Up, Renewal::Code) => match self.launch.forks {
                true => self.load_next(context, done),
                false => self.begin_roll(Some(done), true),
            },
        }
    }

    /// Whether code is being loaded because somebody asked for it.
    fn is_reloading(&self) -> bool {
        self.next.is_some()
            || self.roll.as_ref().is_some_and(|roll| roll.unproven)
            || self.boot_waiters.iter().any(|(what, _)| *what == Renewal::Code)
    }

    // === the next generation ===

    fn load_next(&mut self, context: &mut Context<Self>, done: Done) {
        let generation = self.numbers.next_generation();
        match self.start_next(context, generation) {
            Ok((run, zygote)) => self.next = Some(Next { generation, zygote, run, error: None, done }),
            Err(error) => refuse(done, RenewError::Broken(format!("cannot start php: {error}"))),
        }
    }

    fn start_next(&self, context: &mut Context<Self>, generation: u64) -> std::io::Result<(RunDir, Zygote)> {
        let run = self.make_run(generation)?;
        let zygote = Zygote::start(&self.launch, &run, generation, &self.pool)?;
        context.run_later(self.boot_timeout, move |actor, _| {
            if let Some(next) = actor.next.as_mut().filter(|next| next.generation == generation) {
                next.error = Some(format!("it was not loaded within {:?}", actor.boot_timeout));
                next.zygote.kill();
            }
        });
        Ok((run, zygote))
    }

    pub(super) fn next_event(&mut self, event: Event) {
        match event {
            Event::Ready(loaded) => {
                if let Some(next) = self.next.take() {
                    self.adopt(next, &loaded);
                }
            }
            Event::Fatal { message, file, line } => {
                if let Some(next) = &mut self.next {
                    next.error = Some(if file.is_empty() { message } else { format!("{message} in {file}:{line}") });
                }
            }
            Event::Forked { .. } | Event::Exited { .. } => {}
        }
    }

    pub(super) fn next_exited(&mut self, status: &str, tail: &str) {
        let Some(next) = self.next.take() else { return };
        let why = match next.error {
            Some(error) => error,
            None if tail.is_empty() => format!("the zygote ended: {status}"),
            None => format!("the zygote ended: {status}: {tail}"),
        };
        tracing::error!(pool = %self.pool.name, error = %why, "the new code cannot be loaded; the old goes on serving");
        refuse(next.done, RenewError::Broken(why));
    }

    /// Takes a new generation if nothing that works now is broken in it.
    fn adopt(&mut self, mut next: Next, loaded: &Loaded) {
        next.zygote.opened();
        if let Err(why) = self.verify(loaded) {
            tracing::error!(pool = %self.pool.name, error = %why, "the new code is broken; the old goes on serving");
            next.zygote.kill();
            return refuse(next.done, RenewError::Broken(why));
        }
        let old = (self.generation, self.zygote.replace(next.zygote), self.run.replace(next.run));
        if let (generation, Some(zygote), Some(run)) = old {
            self.retired.push(Retired { generation, zygote, _run: run });
        }
        self.generation = next.generation;
        self.booted_at = Instant::now();
        self.loaded(loaded);
        self.begin_roll(Some(next.done), false);
        self.end_retired();
    }

    /// What works now has to work in the new code, too. What does not may go on not to.
    fn verify(&self, loaded: &Loaded) -> Result<(), String> {
        let now: std::sync::Arc<Functions> = self.pool.functions.load_full();
        let broken: Vec<String> =
            Self::broken(loaded).filter(|(name, _)| now.get(name).is_some()).map(|(_, why)| why).take(NAMED).collect();
        match loaded.functions.is_empty() && !now.names().is_empty() {
            // What is broken says more.
            _ if !broken.is_empty() => Err(broken.join("; ")),
            true => Err("there is no function in it".to_owned()),
            false => Ok(()),
        }
    }

    /// Ends the zygotes of generations that have no processes left.
    pub(super) fn end_retired(&mut self) {
        let processes = &self.processes;
        self.retired.retain(|retired| {
            let lives = processes.values().any(|record| record.generation == retired.generation);
            if !lives {
                retired.zygote.kill();
            }
            lives
        });
    }

    // === the roll ===

    fn begin_roll(&mut self, done: Option<Done>, unproven: bool) {
        self.epoch = self.epoch.wrapping_add(1);
        let until = Instant::now() + LONGEST_ROLL + self.boot_timeout;
        let roll =
            self.roll.get_or_insert_with(|| Roll { until, replaced: 0, fresh: 0, waiting: Vec::new(), unproven });
        roll.until = until;
        roll.unproven |= unproven;
        roll.waiting.extend(done);
        self.roll_on();
    }

    /// Gives up as many old processes as new ones have come up, and starts the next.
    pub(super) fn roll_on(&mut self) {
        let epoch = self.epoch;
        while let Some(roll) = self.roll.as_mut().filter(|roll| roll.fresh > 0) {
            let Some(old) = self.processes.values().find(|record| record.is_old(epoch)).map(|record| record.info.id)
            else {
                break;
            };
            roll.fresh -= 1;
            roll.replaced += 1;
            self.give_up(old);
        }
        let Some(roll) = &self.roll else { return };
        let left = self.processes.values().filter(|record| record.is_old(epoch)).count();
        let coming = self.processes.values().any(|record| record.is_new(epoch) && !record.up);
        if left == 0 && !roll.unproven {
            return self.end_roll(None);
        }
        if Instant::now() >= roll.until {
            return self.end_roll(Some(RenewError::Late { left }));
        }
        if !coming {
            self.start_process_beside();
        }
    }

    /// An idle process is given up rather than the busy one that was found.
    fn give_up(&self, found: u32) {
        let stale = |info: &ProcessInfo| info.epoch != self.epoch;
        match self.pool.lanes.remove_if(stale) {
            Some(process) => self.pool.discard(process, Fate::Replaced),
            None => {
                if let Some(record) = self.processes.get(&found) {
                    record.info.doom(Fate::Replaced);
                }
            }
        }
    }

    pub(super) fn end_roll(&mut self, error: Option<RenewError>) {
        let Some(roll) = self.roll.take() else { return };
        if error.is_none() {
            // One that was given up while it was busy may just have become idle.
            let epoch = self.epoch;
            while let Some(process) = self.pool.lanes.remove_if(|info| info.epoch != epoch) {
                self.pool.discard(process, Fate::Replaced);
            }
        }
        let renewed = Renewed { replaced: roll.replaced, functions: self.pool.functions.load().names().len() };
        match &error {
            None => tracing::info!(pool = %self.pool.name, replaced = roll.replaced, "every process is replaced"),
            Some(error) => tracing::error!(pool = %self.pool.name, %error, "the processes were not replaced"),
        }
        for done in roll.waiting {
            let _ = done.send(error.clone().map_or(Ok(renewed), Err));
        }
    }

    /// A process of the current epoch takes calls. Without a zygote, whether it may: what it has loaded is new code.
    pub(super) fn is_welcome(&mut self, loaded: Option<&Loaded>) -> bool {
        let Some(roll) = &mut self.roll else { return true };
        if !std::mem::take(&mut roll.unproven) {
            return true;
        }
        let Some(loaded) = loaded else { return true };
        match self.verify(loaded) {
            Ok(()) => {
                self.loaded(loaded);
                true
            }
            Err(why) => {
                self.end_roll(Some(RenewError::Broken(why)));
                false
            }
        }
    }

    pub(super) fn came_up(&mut self, epoch: u32) {
        if let Some(roll) = &mut self.roll
            && epoch == self.epoch
        {
            roll.fresh += 1;
        }
    }

    /// Whoever waits for the code to be loaded hears that it is, or is not.
    pub(super) fn answer_boot_waiters(&mut self, error: Option<&str>) {
        let renewed = Renewed { replaced: 0, functions: self.pool.functions.load().names().len() };
        for (_, done) in self.boot_waiters.drain(..) {
            let _ = done.send(error.map_or(Ok(renewed), |why| Err(RenewError::Down(why.to_owned()))));
        }
    }
}

fn refuse(done: Done, error: RenewError) {
    // Who asked may be gone.
    let _ = done.send(Err(error));
}
