//! The pool's actor: what it knows, and what it does about each note. This half is about the code and its zygote.

mod left;
mod processes;
mod renew;
mod stillborn;
mod stop;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext as _, Context, Handler};

use super::cores::Cores;
use super::hatch::Watch;
use super::launch::Launch;
use super::start::{Numbers, Plan};
use super::zygote::{Event, LoadError, Loaded, Zygote, exit_status};
use super::{Done, Note, RenewError, Renewal};
use crate::functions::Functions;
use crate::pool::{Condition, Pool};
use crate::process::{Fate, ProcessInfo};
use crate::rundir::RunDir;
use renew::{Next, Retired, Roll};
use stillborn::Stillborn;
use stop::Stopping;

/// How often the actor looks at memory, idle processes and processes that should be gone.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two looks at memory: reading it costs the kernel a walk over the process's pages.
const MEMORY_TICKS: u32 = 4;
/// Ticks between two looks at whether the pool's processes print anything: a minute.
const PRINTS_TICKS: u32 = 240;
/// A process that was told to end, or whose pipe is closed, may take this long before it is killed.
const END_GRACE: Duration = Duration::from_secs(2);
/// The first pause before broken code is loaded again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A zygote that lived this long before it died is started again without a pause.
const STEADY: Duration = Duration::from_secs(10);

/// The actor of one pool.
pub(crate) struct PoolActor {
    pool: Arc<Pool>,
    launch: Launch,
    boot_timeout: Duration,
    idle_timeout: Duration,
    memory_hard: u64,
    tag: String,
    /// The run directory, the zygote and the functions of the code that is loaded, or being loaded.
    run: Option<RunDir>,
    zygote: Option<Zygote>,
    generation: u64,
    numbers: Rc<Numbers>,
    booted_at: Instant,
    failed_boots: u32,
    boot_error: Option<String>,
    /// Who waits for the code to be loaded, and what they asked for.
    boot_waiters: Vec<(Renewal, Done)>,
    /// Counts renewals: a process of an earlier one is to be replaced.
    epoch: u32,
    next: Option<Next>,
    retired: Vec<Retired>,
    roll: Option<Roll>,
    processes: HashMap<u32, Record>,
    cores: Cores,
    stillborn: Stillborn,
    not_before: Option<Instant>,
    ticks: u32,
    /// No call is expected any more.
    given_up: bool,
    stopping: Option<Stopping>,
}

/// A process, as the actor has it.
struct Record {
    info: Arc<ProcessInfo>,
    generation: u64,
    up: bool,
    /// It will soon have taken all its calls, and does not count as one that is there.
    retiring: bool,
    /// When it was started.
    since: Instant,
    /// Since when it is to be gone.
    ending: Option<Instant>,
    /// It has ended, or was killed for running on too long.
    over: bool,
    watch: Watch,
}

impl Record {
    /// It takes new calls, or will.
    fn serves(&self) -> bool {
        self.ending.is_none() && self.info.fate() == Fate::Serving
    }

    /// Its stream was left, and it goes on until its next write.
    fn runs_on(&self) -> bool {
        self.ending.is_some() && !self.over && self.info.fate() == Fate::StreamGone
    }

    fn is_old(&self, epoch: u32) -> bool {
        self.serves() && self.info.epoch != epoch
    }

    fn is_new(&self, epoch: u32) -> bool {
        self.serves() && self.info.epoch == epoch
    }
}

impl PoolActor {
    pub(crate) fn new(plan: &Plan, numbers: Rc<Numbers>) -> Self {
        let config = &plan.config;
        Self {
            pool: Arc::clone(&plan.pool),
            launch: plan.launch.clone(),
            boot_timeout: config.boot_timeout.get(),
            idle_timeout: config.idle_timeout.get(),
            memory_hard: config.memory_hard.of(config.memory_limit.bytes()),
            tag: plan.tag.clone(),
            run: None,
            zygote: None,
            generation: 0,
            numbers,
            booted_at: Instant::now(),
            failed_boots: 0,
            boot_error: None,
            boot_waiters: Vec::new(),
            epoch: 0,
            next: None,
            retired: Vec::new(),
            roll: None,
            processes: HashMap::new(),
            cores: Cores::default(),
            stillborn: Stillborn::default(),
            not_before: None,
            ticks: 0,
            given_up: false,
            stopping: None,
        }
    }

    /// Loads the code anew: a run directory, and a zygote or the first process.
    fn boot(&mut self, context: &mut Context<Self>) {
        if self.stopping.is_some() {
            return;
        }
        self.generation = self.numbers.next_generation();
        self.booted_at = Instant::now();
        self.boot_error = None;
        self.set_condition(Condition::Booting);
        if let Err(error) = self.try_boot(context) {
            self.boot_failed(context, &format!("cannot start php: {error}"));
        }
    }

    fn try_boot(&mut self, context: &mut Context<Self>) -> std::io::Result<()> {
        // What is still starting from there would miss its files, and say so in place of what is wrong with the code.
        for record in self.processes.values_mut().filter(|record| !record.up && record.ending.is_none()) {
            record.ending = Some(Instant::now());
            record.info.kill(Fate::Replaced);
        }
        if let Some(zygote) = self.zygote.take() {
            zygote.kill();
        }
        self.run = None;
        let run = self.make_run(self.generation)?;
        let run = self.run.insert(run);
        if !self.launch.forks {
            self.start_process();
            return Ok(());
        }
        let zygote = Zygote::start(&self.launch, run, self.generation, &self.pool)?;
        self.zygote = Some(zygote);
        let generation = self.generation;
        context.run_later(self.boot_timeout, move |actor, _| {
            if actor.generation == generation && *actor.pool.condition.borrow() == Condition::Booting {
                actor.boot_error = Some(format!("it was not loaded within {:?}", actor.boot_timeout));
                if let Some(zygote) = &actor.zygote {
                    zygote.kill();
                }
            }
        });
        Ok(())
    }

    fn make_run(&self, generation: u64) -> std::io::Result<RunDir> {
        let tag = format!("{}-{generation}", self.tag);
        let run = RunDir::create(&self.launch.pool, &tag, self.launch.owner)?;
        run.write_runtime()?;
        run.write("boot.json", &self.launch.boot_json(&run))?;
        Ok(run)
    }

    /// The functions that could not be loaded, by name, with the reason.
    fn broken(loaded: &Loaded) -> impl Iterator<Item = (String, String)> {
        let reason = |error: &LoadError| format!("{}:{}: {}", error.file, error.line, error.message);
        loaded.errors.iter().map(move |error| (error.function.clone(), reason(error)))
    }

    /// What was loaded, as calls look for it.
    fn functions(&self, loaded: &Loaded) -> Functions {
        let found = loaded.functions.iter().map(|function| (function.name.clone(), function.index));
        Functions::new(found, &self.pool.functions.load(), &self.pool.series).with_broken(Self::broken(loaded))
    }

    fn loaded(&mut self, loaded: &Loaded) {
        for error in &loaded.errors {
            tracing::error!(pool = %self.pool.name, function = %error.function, file = %error.file, line = error.line, error = %error.message, "a function cannot be loaded");
        }
        let functions = self.functions(loaded);
        tracing::info!(
            pool = %self.pool.name,
            php = %loaded.php,
            functions = loaded.functions.len(),
            failed = loaded.errors.len(),
            took = ?self.booted_at.elapsed(),
            "code loaded"
        );
        self.pool.functions.store(Arc::new(functions));
        self.set_condition(Condition::Up);
        self.answer_boot_waiters(None);
    }

    /// The code could not be loaded: said once, tried again after a pause.
    fn boot_failed(&mut self, context: &mut Context<Self>, why: &str) {
        if self.booted_at.elapsed() >= STEADY {
            self.failed_boots = 0;
        }
        let pause = jittered((FIRST_PAUSE * 2_u32.saturating_pow(self.failed_boots)).min(LONGEST_PAUSE));
        self.failed_boots = (self.failed_boots + 1).min(16);
        tracing::error!(pool = %self.pool.name, error = why, retry_in = ?pause, "the pool's code cannot be loaded");
        self.set_condition(Condition::Down(why.into()));
        self.answer_boot_waiters(Some(why));
        self.boot_after(context, pause);
    }

    fn boot_after(&mut self, context: &mut Context<Self>, pause: Duration) {
        let generation = self.generation;
        context.notify_later(Note::Boot { generation }, pause);
    }

    fn set_condition(&self, condition: Condition) {
        self.pool.condition.send_replace(condition);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Ready(loaded) => {
                if let Some(zygote) = &mut self.zygote {
                    zygote.opened();
                }
                self.loaded(&loaded);
                self.balance();
            }
            Event::Fatal { message, file, line } => {
                self.boot_error = Some(if file.is_empty() { message } else { format!("{message} in {file}:{line}") });
            }
            Event::Forked { .. } | Event::Exited { .. } => self.process_event(event),
        }
    }

    /// What a zygote says that is not the current one's.
    fn event_of_other(&mut self, generation: u64, event: Event) {
        if self.next.as_ref().is_some_and(|next| next.generation == generation) {
            self.next_event(event);
        } else if self.retired.iter().any(|retired| retired.generation == generation) {
            self.process_event(event);
        }
    }

    fn process_event(&mut self, event: Event) {
        match event {
            Event::Ready(_) | Event::Fatal { .. } => {}
            Event::Forked { id, pid } => self.forked(id, pid),
            Event::Exited { id, code, signal, message } => {
                let status = match (message, signal, code) {
                    (Some(message), _, _) => message,
                    (None, Some(signal), _) => format!("signal {signal}"),
                    (None, None, Some(code)) => exit_status(code),
                    (None, None, None) => "unknown".to_owned(),
                };
                self.exited(id, status);
            }
        }
    }

    fn zygote_exited(&mut self, context: &mut Context<Self>, status: &str, tail: &str) {
        self.zygote = None;
        if let Some(stopping) = self.stopping.take() {
            self.bury_all();
            self.kill_zygotes();
            self.run = None;
            let _ = stopping.done.send(());
            return;
        }
        let was_up = *self.pool.condition.borrow() == Condition::Up;
        self.end_roll(Some(RenewError::Down(format!("the zygote ended: {status}"))));
        self.bury_all();
        self.pool.metrics.zygote_restarts.increment(1);
        if was_up && self.booted_at.elapsed() >= STEADY {
            tracing::error!(pool = %self.pool.name, status, tail, "the zygote died: all processes are replaced");
            self.failed_boots = 0;
            return self.boot(context);
        }
        let why = match self.boot_error.take() {
            Some(error) => error,
            None if tail.is_empty() => format!("the zygote ended: {status}"),
            None => format!("the zygote ended: {status}: {tail}"),
        };
        self.boot_failed(context, &why);
    }

    /// Ends every process: without its zygote nobody would tell of its end.
    fn bury_all(&mut self) {
        while let Some(process) = self.pool.lanes.remove_any() {
            process.info.doom(Fate::Stopped);
        }
        for (_, record) in self.processes.drain() {
            record.info.kill(Fate::Stopped);
            record.watch.ready.abort();
        }
        self.end_retired();
        self.count();
    }

    /// As [`PoolActor::bury_all`], for a generation that had been given up.
    fn bury_retired(&mut self, generation: u64) {
        self.retired.retain(|retired| retired.generation != generation);
        self.processes.retain(|_, record| {
            if record.generation == generation {
                record.info.kill(Fate::Stopped);
                record.watch.ready.abort();
            }
            record.generation != generation
        });
        self.count();
    }

    /// The zygotes of whatever generation.
    fn zygotes(&mut self) -> impl Iterator<Item = &mut Zygote> {
        let others = self.retired.iter_mut().map(|retired| &mut retired.zygote);
        self.zygote.iter_mut().chain(self.next.iter_mut().map(|next| &mut next.zygote)).chain(others)
    }

    /// Ends the zygotes at once.
    fn kill_zygotes(&mut self) {
        for zygote in self.zygotes() {
            zygote.kill();
        }
    }

    fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        let now = Instant::now();
        let timeout = self.pool.limits.timeout;
        for record in self.processes.values_mut() {
            // One that was given up in the middle of a call or a stream ends it first, however long that takes: its time is seen to
            // where its replies are read.
            if !matches!(record.info.fate(), Fate::Serving | Fate::Replaced) {
                // Whoever marked it has said so, unless the note was lost.
                record.ending.get_or_insert(now);
            }
            let Some(since) = record.ending else { continue };
            // A stream's reader went away: the function may go on until its next write.
            let grace = if record.info.fate() == Fate::StreamGone { timeout.max(END_GRACE) } else { END_GRACE };
            if now.duration_since(since) > grace {
                record.info.kill(Fate::Died);
            }
        }
        self.end_left();
        self.end_crash_loop(now);
        self.end_idle(now);
        if self.ticks.is_multiple_of(MEMORY_TICKS) {
            self.watch_memory();
            self.watch_usage();
        }
        if self.ticks.is_multiple_of(PRINTS_TICKS) {
            self.pool.prints.look();
        }
        self.balance();
        // After a no it would anyway, a moment later; unless the actor has failed since.
        self.pool.hear_again();
        if self.pool.lanes.waiting() > 0 {
            self.grow();
        }
        self.roll_on();
        self.count();
    }
}

impl Actor for PoolActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.boot(context);
        context.run_interval(TICK, |actor, _| actor.tick());
    }
}

impl Handler<Note> for PoolActor {
    type Result = ();

    fn handle(&mut self, note: Note, context: &mut Self::Context) {
        match note {
            Note::Grow => self.asked(context),
            Note::Retiring { id } => self.retiring(id),
            Note::Gone { id, fate } => self.gone(id, fate),
            Note::Event { generation, event } if generation == self.generation => self.event(event),
            Note::ZygoteExited { generation, status, tail } if generation == self.generation => {
                self.zygote_exited(context, &status, &tail);
            }
            Note::Event { generation, event } => self.event_of_other(generation, event),
            Note::ZygoteExited { generation, status, tail } => match &self.next {
                Some(next) if next.generation == generation => self.next_exited(&status, &tail),
                _ => self.bury_retired(generation),
            },
            Note::Ready { .. } => self.ready(note),
            Note::NotReady { id, why } => self.not_ready(id, &why),
            Note::Exited { id, status } => self.exited(id, status),
            Note::Buried { id, status } => self.buried(context, id, &status),
            Note::Boot { generation } if generation == self.generation => self.boot(context),
            Note::Boot { .. } => {}
            Note::Renew { what, done } => self.renew(context, what, done),
            Note::GiveUp => {
                self.given_up = true;
                self.end_idle(Instant::now());
            }
            Note::Stop { done } => self.stop(context, done),
        }
    }
}

impl Drop for PoolActor {
    fn drop(&mut self) {
        self.bury_all();
        self.kill_zygotes();
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.4 * fastrand::f64())
}
