//! The processes of a pool: how many there are, and what their ends mean.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{AsyncContext as _, Context};
use rustix::process::{Pid, Signal};

use super::{PoolActor, Record, jittered};
use crate::config::Isolation;
use crate::control::capture;
use crate::control::hatch::Nest;
use crate::control::zygote::{describe, exit_status};
use crate::control::{Note, OUTPUT_GRACE, RenewError, memory, usage};
use crate::pool::Condition;
use crate::process::{Fate, Process, ProcessInfo, Work};

/// For how long nobody is heard who asks for more processes, once there were enough: as long as a call waits before it asks.
const NOT_HEARD: Duration = crate::acquire::GROW_AFTER;

impl PoolActor {
    /// Starts processes until there are as many as there must be.
    pub(super) fn balance(&mut self) {
        while self.alive() < self.least() && self.start_process() {}
    }

    /// Processes that are always there.
    fn least(&self) -> usize {
        if self.given_up { 0 } else { self.pool.limits.min }
    }

    /// Ends a process that has been idle for long enough, if there are more than there must be; all, when no call is expected, or
    /// none is to be there before its call, as the one that showed that the code can be loaded.
    pub(super) fn end_idle(&self, now: Instant) {
        if self.given_up || !self.pool.limits.starts_ahead() {
            while let Some(process) = self.pool.lanes.remove_any() {
                self.pool.discard(process, Fate::Idle);
            }
        } else if self.alive() > self.least()
            && let Some(since) = now.checked_sub(self.idle_timeout)
            && let Some(process) = self.pool.lanes.remove_idle(since)
        {
            self.pool.discard(process, Fate::Idle);
        }
    }

    /// Calls have asked for more processes.
    ///
    /// Where there are enough, because they compute, nobody is heard for [`NOT_HEARD`]: under load every call asks, and each time the actor
    /// woke up to say no.
    pub(super) fn asked(&mut self, context: &mut Context<Self>) {
        self.pool.hear_again();
        if self.grow() {
            self.pool.hear_nobody();
            context.run_later(NOT_HEARD, |actor, _| actor.pool.hear_again());
        }
    }

    /// Starts one more for each call that waits, or one as a spare. Says whether there are enough, though more
    /// would be allowed.
    pub(super) fn grow(&mut self) -> bool {
        let most = self.most();
        let starting = self.processes.values().filter(|record| !record.up && record.ending.is_none()).count();
        let ahead = !self.given_up && self.pool.limits.starts_ahead();
        let spare = usize::from(ahead && self.pool.lanes.idle() == 0);
        let wanted = self.pool.lanes.waiting().max(spare);
        for _ in starting..wanted {
            if !self.start_process_below(most) {
                break;
            }
        }
        most < self.pool.limits.max && self.alive() >= most
    }

    /// How many processes there may be now. Fast calls that wait are a reason for more only while the processes are not busy with
    /// computing: those that there are, with calls in their pipes, keep every core busy, and more would only take turns.
    fn most(&mut self) -> usize {
        let (max, enough) = (self.pool.limits.max, self.pool.enough_for_fast());
        if max <= enough || !self.pool.pace.may_be_fast() {
            return max;
        }
        let up = self.processes.values().filter(|record| record.up && record.serves());
        let idle = self.pool.lanes.idle_ids();
        match self.cores.computing(Instant::now(), up.map(|record| &*record.info), &idle) {
            true => enough,
            false => max,
        }
    }

    /// A process will soon have taken all its calls. Under load its successor is started now: forking, and the first touch of
    /// memory that is shared no more, take longer than what is left to it.
    pub(super) fn retiring(&mut self, id: u32) {
        let Some(record) = self.processes.get_mut(&id) else { return };
        if self.pool.lanes.idle() == 0 && !record.retiring && record.ending.is_none() {
            record.retiring = true;
            self.start_process();
        }
    }

    /// The processes that stay, for now.
    pub(super) fn alive(&self) -> usize {
        self.processes.values().filter(|record| record.serves() && !record.retiring).count()
    }

    /// Starts a process, unless there are enough or it is too early; says whether it did.
    pub(super) fn start_process(&mut self) -> bool {
        self.start_process_below(self.pool.limits.max)
    }

    /// As [`PoolActor::start_process`], for one that is to take the place of another: one above the most is allowed.
    pub(super) fn start_process_beside(&mut self) -> bool {
        self.start_process_below(self.pool.limits.max + 1)
    }

    fn start_process_below(&mut self, most: usize) -> bool {
        let ready = *self.pool.condition.borrow() == Condition::Up || !self.launch.forks;
        if self.stopping.is_some() || !ready || self.alive() >= most {
            return false;
        }
        if self.not_before.is_some_and(|not_before| Instant::now() < not_before) {
            return false;
        }
        let id = self.numbers.next_process();
        match self.try_start(id) {
            Ok(started) => started,
            Err(error) => {
                tracing::error!(pool = %self.pool.name, process = id, %error, "cannot start a process");
                self.not_before = Some(Instant::now() + Duration::from_secs(1));
                false
            }
        }
    }

    fn try_start(&mut self, id: u32) -> std::io::Result<bool> {
        let Some(run) = &self.run else { return Ok(false) };
        let mut nest = Nest::build(run, id)?;
        let info = Arc::new(ProcessInfo::new(id, self.epoch));
        if self.launch.forks {
            if !self.zygote.as_mut().is_some_and(|zygote| zygote.command(&format!("fork {id}"))) {
                return Ok(false);
            }
        } else {
            let child = nest.exec(&self.launch, run, id)?;
            info.set_pid(child.id().map_or(0, |pid| pid as i32));
            let (pool, ended, group) = (Arc::clone(&self.pool), Arc::clone(&info), info.pid());
            actix_rt::spawn(async move {
                let status = describe(usage::wait(&pool, child).await);
                // What it has started and left behind goes with it, as a zygote sees to it for its own. Whoever stops the pool
                // asks first, and kills then.
                if let Some(group) = Pid::from_raw(group).filter(|_| ended.fate() != Fate::Stopped) {
                    let _ = rustix::process::kill_process_group(group, Signal::KILL);
                }
                pool.tell(Note::Exited { id, status });
            });
        }
        let watch = nest.watch(&self.pool, &info, self.boot_timeout)?;
        let (generation, since) = (self.generation, Instant::now());
        let record = Record { info, generation, up: false, retiring: false, since, ending: None, over: false, watch };
        self.processes.insert(id, record);
        self.count();
        Ok(true)
    }

    /// A process, or its zygote, says which process id it has. Of one that was not forked it is known.
    pub(super) fn forked(&self, id: u32, pid: i32) {
        let Some(record) = self.processes.get(&id).filter(|record| self.launch.forks && record.info.pid() != pid)
        else {
            return;
        };
        let retired = self.retired.iter().find(|retired| retired.generation == record.generation);
        match retired.map(|retired| &retired.zygote).or(self.zygote.as_ref()) {
            Some(zygote) if zygote.has_forked(pid) => record.info.set_pid(pid),
            // It may have ended by now, which is told next.
            _ => {
                tracing::debug!(pool = %self.pool.name, process = id, pid, "no process of the zygote's has this number")
            }
        }
    }

    pub(super) fn ready(&mut self, note: Note) {
        let Note::Ready { id, pid, loaded, input, output } = note else { return };
        self.forked(id, pid);
        let Some(record) = self.processes.get_mut(&id) else { return };
        if !record.serves() {
            // What it has loaded is not what is asked for any more. Without its pipes it ends.
            record.ending.get_or_insert_with(Instant::now);
            return;
        }
        let epoch = record.info.epoch;
        if let Some(loaded) = &loaded
            && *self.pool.condition.borrow() != Condition::Up
        {
            self.failed_boots = 0;
            self.loaded(loaded);
        }
        let welcome = epoch != self.epoch || self.is_welcome(loaded.as_ref());
        // What this process found is what it goes by, and it may be other code than the pool has been told of.
        let functions = match &loaded {
            Some(loaded) => Arc::new(self.functions(loaded).of_one_process()),
            None => self.pool.functions.load_full(),
        };
        let Some(record) = self.processes.get_mut(&id) else { return };
        record.up = true;
        if !welcome {
            // What it has loaded is broken: it never takes a call.
            record.ending.get_or_insert_with(Instant::now);
            record.info.kill(Fate::Replaced);
            return;
        }
        let calls = calls(self.pool.limits.max_requests, self.pool.limits.isolation);
        let process = Process::new(Arc::clone(&record.info), functions, calls, input, output);
        self.count();
        // Spread over the threads; whoever needs one takes it anyway.
        self.pool.lanes.put(id as usize, Box::new(process));
        self.came_up(epoch);
        self.roll_on();
    }

    pub(super) fn not_ready(&mut self, id: u32, why: &str) {
        tracing::warn!(pool = %self.pool.name, process = id, why, "a process did not come up");
        if let Some(record) = self.processes.get_mut(&id) {
            record.ending = Some(Instant::now());
            record.info.kill(Fate::Died);
            if record.info.pid() == 0
                && record.generation == self.generation
                && let Some(zygote) = &self.zygote
            {
                tracing::error!(pool = %self.pool.name, "the zygote does not fork: it is replaced");
                zygote.kill();
            }
        }
        self.count();
        self.balance();
    }

    /// The data path has no use for a process any more.
    pub(super) fn gone(&mut self, id: u32, fate: Fate) {
        if let Some(record) = self.processes.get_mut(&id) {
            record.info.doom(fate);
            record.ending.get_or_insert_with(Instant::now);
            let generation = record.generation;
            let retired = self.retired.iter_mut().find(|retired| retired.generation == generation);
            if let Some(zygote) = retired.map(|retired| &mut retired.zygote).or(self.zygote.as_mut()) {
                // It would find out by itself, later.
                let _ = zygote.command("reap");
            }
        }
        self.end_left();
        self.count();
        self.balance();
        if self.pool.lanes.idle() == 0 {
            self.grow();
        }
    }

    /// A process has ended; its last output may still be on its way.
    pub(super) fn exited(&mut self, id: u32, status: String) {
        let Some(record) = self.processes.get_mut(&id) else { return };
        record.ending.get_or_insert_with(Instant::now);
        record.over = true;
        record.watch.ready.abort();
        let errors = record.watch.errors.take();
        drop(self.pool.lanes.remove(id));
        // Whether it had said so before it went may still be on its way from the data path: `buried` decides.
        let unproven = record.info.epoch == self.epoch && self.roll.as_ref().is_some_and(|roll| roll.unproven);
        if unproven {
            record.info.doom(Fate::Replaced);
        } else if record.info.work().is_none() && record.info.fate().is_failure() {
            if let Some(pause) = self.stillborn.another(Instant::now()) {
                self.not_before = Some(Instant::now() + jittered(pause));
                if !self.launch.forks {
                    // There each process loads the code by itself, and it has come to be broken.
                    self.pool.condition.send_replace(Condition::Down("the processes end before they are ready".into()));
                }
            }
        } else if self.stillborn.ended_by(record.since) {
            self.no_crash_loop();
        }
        let pool = Arc::clone(&self.pool);
        actix_rt::spawn(async move {
            if let Some(errors) = errors {
                let _ = tokio::time::timeout(OUTPUT_GRACE, errors).await;
            }
            pool.tell(Note::Buried { id, status });
        });
        self.count();
        if !self.launch.forks && self.failing_exec() {
            return;
        }
        self.balance();
    }

    /// Without a zygote, the code cannot be loaded when the first process ends before it is ready.
    fn failing_exec(&self) -> bool {
        *self.pool.condition.borrow() != Condition::Up && self.alive() == 0
    }

    pub(super) fn buried(&mut self, context: &mut Context<Self>, id: u32, status: &str) {
        let Some(record) = self.processes.remove(&id) else { return };
        let stillborn = record.info.work().is_none() && record.info.fate().is_failure();
        let fate = record.info.doom(if status == exit_status(0) { Fate::Recycled } else { Fate::Died });
        self.pool.metrics.ended(fate);
        let (pool, pid, tail) = (&self.pool.name, record.info.pid(), record.info.tail());
        if stillborn {
            self.tell_of_crash_loop(status, &tail);
        }
        if !fate.is_failure() {
            tracing::debug!(pool, process = id, pid, status, reason = fate.as_str(), "a process ended");
        } else {
            let restarts = self.pool.restarts.fetch_add(1, Ordering::Relaxed) + 1;
            let work = record.info.last_work();
            let (request_id, trace_id) = capture::ids(work.as_ref());
            tracing::warn!(
                pool,
                process = id,
                pid,
                status,
                reason = fate.as_str(),
                last_request = work.as_ref().map(|Work { head, .. }| format!("{} {}", head.method(), head.target())),
                request_id,
                trace_id,
                stderr = tail,
                restarts,
                "a process died"
            );
        }
        if self.stopping.is_some() {
            return self.stopped_if_empty();
        }
        self.end_retired();
        if record.info.epoch == self.epoch && self.roll.as_ref().is_some_and(|roll| roll.unproven) {
            let why = if tail.is_empty() { format!("php ended: {status}") } else { tail };
            self.end_roll(Some(RenewError::Broken(why)));
            return;
        }
        if !self.launch.forks && self.failing_exec() {
            let why =
                if tail.is_empty() { format!("php ended: {status}") } else { format!("php ended: {status}: {tail}") };
            return self.boot_failed(context, &why);
        }
        self.balance();
    }

    pub(super) fn watch_memory(&self) {
        let mut fullest = 0;
        let runs = |record: &&Record| record.up && (record.ending.is_none() || record.runs_on());
        for record in self.processes.values().filter(runs) {
            let Some(bytes) = memory::of(record.info.pid(), self.memory_hard) else { continue };
            fullest = fullest.max(bytes);
            if bytes > self.memory_hard {
                let (process, limit) = (record.info.id, self.memory_hard);
                tracing::warn!(pool = %self.pool.name, process, bytes, limit, "a process takes more than memory_hard: it is killed");
                record.info.kill(Fate::Memory);
            }
        }
        let permille = u128::from(fullest) * 1_000 / u128::from(self.memory_hard.max(1));
        self.pool.memory_permille.store(u32::try_from(permille).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Has what the processes use looked at, beside this thread: of hundreds it takes a while.
    pub(super) fn watch_usage(&self) {
        let pids = self.processes.values().map(|record| record.info.pid()).filter(|pid| *pid > 0).collect();
        let pool = Arc::clone(&self.pool);
        tokio::task::spawn_blocking(move || usage::look(&pool, pids));
    }

    /// Publishes how many processes there are.
    pub(super) fn count(&self) {
        // Looked at once: the data path may give one up between two looks.
        let (mut up, mut starting) = (0_usize, 0_usize);
        for record in self.processes.values().filter(|record| record.serves()) {
            if record.up {
                up += 1;
            } else {
                starting += 1;
            }
        }
        let idle = self.pool.lanes.idle().min(up);
        self.pool.processes.store(up as u32, Ordering::Relaxed);
        if self.pool.is_silent() {
            return;
        }
        self.pool.metrics.idle.set(idle as f64);
        self.pool.metrics.busy.set((up - idle) as f64);
        self.pool.metrics.starting.set(starting as f64);
    }
}

/// Calls a process may take. With a tenth of jitter, so that processes started together are not replaced together.
fn calls(max_requests: u32, isolation: Isolation) -> u32 {
    if isolation != Isolation::Shared {
        return 1;
    }
    let jitter = max_requests / 10;
    max_requests - jitter + fastrand::u32(0..=jitter.saturating_mul(2))
}
