//! The pool's actor: what it knows, and what it does about each note.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext as _, Context, Handler};
use tokio::sync::oneshot;

use super::hatch::{Nest, Watch};
use super::launch::Launch;
use super::zygote::{Event, Loaded, Zygote, exit_status};
use super::{Note, OUTPUT_GRACE, memory};
use crate::config::{Isolation, PhpPoolConfig};
use crate::functions::Functions;
use crate::pool::{Condition, Pool};
use crate::process::{Fate, Process, ProcessInfo};
use crate::rundir::RunDir;

/// How often the actor looks at memory, idle processes and processes that should be gone.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two looks at memory: reading it costs the kernel a walk over the process's pages.
const MEMORY_TICKS: u32 = 4;
/// A process that was told to end, or whose pipe is closed, may take this long before it is killed.
const END_GRACE: Duration = Duration::from_secs(2);
/// The first pause before broken code is loaded again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A zygote that lived this long before it died is started again without a pause.
const STEADY: Duration = Duration::from_secs(10);
/// Processes in a row that ended before their first call, after which new ones are started after a pause only.
const STILLBORN: u32 = 3;

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
    booted_at: Instant,
    failed_boots: u32,
    boot_error: Option<String>,
    processes: HashMap<u32, Record>,
    next_id: u32,
    stillborn: u32,
    not_before: Option<Instant>,
    ticks: u32,
    stopping: Option<oneshot::Sender<()>>,
}

/// A process, as the actor has it.
struct Record {
    info: Arc<ProcessInfo>,
    up: bool,
    /// Since when it is to be gone.
    ending: Option<Instant>,
    watch: Watch,
}

impl PoolActor {
    pub(crate) fn new(pool: Arc<Pool>, launch: Launch, config: &PhpPoolConfig, tag: String) -> Self {
        Self {
            pool,
            launch,
            boot_timeout: config.boot_timeout.get(),
            idle_timeout: config.idle_timeout.get(),
            memory_hard: config.memory_hard.of(config.memory_limit.bytes()),
            tag,
            run: None,
            zygote: None,
            generation: 0,
            booted_at: Instant::now(),
            failed_boots: 0,
            boot_error: None,
            processes: HashMap::new(),
            next_id: 0,
            stillborn: 0,
            not_before: None,
            ticks: 0,
            stopping: None,
        }
    }

    /// Loads the code anew: a run directory, and a zygote or the first process.
    fn boot(&mut self, context: &mut Context<Self>) {
        if self.stopping.is_some() {
            return;
        }
        self.generation += 1;
        self.booted_at = Instant::now();
        self.boot_error = None;
        self.set_condition(Condition::Booting);
        if let Err(error) = self.try_boot(context) {
            self.boot_failed(context, &format!("cannot start php: {error}"));
        }
    }

    fn try_boot(&mut self, context: &mut Context<Self>) -> std::io::Result<()> {
        self.run = None;
        let tag = format!("{}-{}", self.tag, self.generation);
        let run = RunDir::create(&self.launch.pool, &tag, self.launch.owner)?;
        run.write_runtime()?;
        run.write("boot.json", &self.launch.boot_json(&run))?;
        let run = self.run.insert(run);
        if !self.launch.forks {
            self.start_process(context);
            return Ok(());
        }
        let zygote = Zygote::start(&self.launch, run, self.generation, actix::AsyncContext::address(context))?;
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

    fn loaded(&mut self, loaded: &Loaded) {
        for error in &loaded.errors {
            tracing::error!(pool = %self.pool.name, file = %error.file, line = error.line, error = %error.message, "a function cannot be loaded");
        }
        let found = loaded.functions.iter().map(|function| (function.name.clone(), function.index));
        let functions = Functions::new(found, &self.pool.functions.load());
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
        self.boot_after(context, pause);
    }

    fn boot_after(&mut self, context: &mut Context<Self>, pause: Duration) {
        let generation = self.generation;
        context.notify_later(Note::Boot { generation }, pause);
    }

    fn set_condition(&self, condition: Condition) {
        self.pool.condition.send_replace(condition);
    }

    fn event(&mut self, context: &mut Context<Self>, event: Event) {
        match event {
            Event::Ready(loaded) => {
                if let Some(zygote) = &mut self.zygote {
                    zygote.opened();
                }
                self.loaded(&loaded);
                self.balance(context);
            }
            Event::Fatal { message, file, line } => {
                self.boot_error = Some(if file.is_empty() { message } else { format!("{message} in {file}:{line}") });
            }
            Event::Forked { id, pid } => {
                if let Some(record) = self.processes.get(&id) {
                    record.info.set_pid(pid);
                }
            }
            Event::Exited { id, code, signal, message } => {
                let status = match (message, signal, code) {
                    (Some(message), _, _) => message,
                    (None, Some(signal), _) => format!("signal {signal}"),
                    (None, None, Some(code)) => exit_status(code),
                    (None, None, None) => "unknown".to_owned(),
                };
                self.exited(context, id, status);
            }
        }
    }

    fn zygote_exited(&mut self, context: &mut Context<Self>, status: &str, tail: &str) {
        self.zygote = None;
        if let Some(done) = self.stopping.take() {
            self.bury_all();
            self.run = None;
            let _ = done.send(());
            return;
        }
        let was_up = *self.pool.condition.borrow() == Condition::Up;
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
        self.count();
    }

    /// Starts processes until there are as many as there must be.
    fn balance(&mut self, context: &mut Context<Self>) {
        while self.alive() < self.pool.limits.min && self.start_process(context) {}
    }

    /// Starts one more for the calls that wait, or as a spare.
    fn grow(&mut self, context: &mut Context<Self>) {
        self.pool.grow_seen();
        let starting = self.processes.values().filter(|record| !record.up && record.ending.is_none()).count();
        let wanted = self.pool.lanes.waiting().max(usize::from(self.pool.lanes.idle() == 0));
        for _ in starting..wanted {
            if !self.start_process(context) {
                break;
            }
        }
    }

    fn alive(&self) -> usize {
        self.processes.values().filter(|record| record.ending.is_none()).count()
    }

    /// Starts a process, unless there are enough or it is too early; says whether it did.
    fn start_process(&mut self, context: &mut Context<Self>) -> bool {
        let ready = *self.pool.condition.borrow() == Condition::Up || !self.launch.forks;
        if self.stopping.is_some() || !ready || self.alive() >= self.pool.limits.max {
            return false;
        }
        if self.not_before.is_some_and(|not_before| Instant::now() < not_before) {
            return false;
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        match self.try_start(context, id) {
            Ok(started) => started,
            Err(error) => {
                tracing::error!(pool = %self.pool.name, process = id, %error, "cannot start a process");
                self.not_before = Some(Instant::now() + Duration::from_secs(1));
                false
            }
        }
    }

    fn try_start(&mut self, context: &mut Context<Self>, id: u32) -> std::io::Result<bool> {
        let Some(run) = &self.run else { return Ok(false) };
        let nest = Nest::build(run, id)?;
        let info = Arc::new(ProcessInfo::new(id));
        let actor = actix::AsyncContext::address(context);
        if self.launch.forks {
            if !self.zygote.as_mut().is_some_and(|zygote| zygote.command(&format!("fork {id}"))) {
                return Ok(false);
            }
        } else {
            let mut child = nest.exec(&self.launch, run, id)?;
            info.set_pid(child.id().map_or(0, |pid| pid as i32));
            let actor = actor.clone();
            actix_rt::spawn(async move {
                let status = super::zygote::describe(child.wait().await);
                actor.do_send(Note::Exited { id, status });
            });
        }
        let watch = nest.watch(&self.pool.name, &info, self.boot_timeout, actor)?;
        self.processes.insert(id, Record { info, up: false, ending: None, watch });
        self.count();
        Ok(true)
    }

    fn ready(&mut self, note: Note) {
        let Note::Ready { id, pid, loaded, input, output } = note else { return };
        if let Some(loaded) = loaded
            && *self.pool.condition.borrow() != Condition::Up
        {
            self.failed_boots = 0;
            self.loaded(&loaded);
        }
        let Some(record) = self.processes.get_mut(&id) else { return };
        record.info.set_pid(pid);
        record.up = true;
        let calls = calls(self.pool.limits.max_requests, self.pool.limits.isolation);
        let functions = self.pool.functions.load_full();
        let process = Process::new(Arc::clone(&record.info), functions, calls, input, output);
        self.count();
        // Spread over the threads; whoever needs one takes it anyway.
        self.pool.lanes.put(id as usize, Box::new(process));
    }

    fn not_ready(&mut self, context: &mut Context<Self>, id: u32, why: &str) {
        tracing::warn!(pool = %self.pool.name, process = id, why, "a process did not come up");
        if let Some(record) = self.processes.get_mut(&id) {
            record.ending = Some(Instant::now());
            record.info.kill(Fate::Died);
        }
        self.count();
        self.balance(context);
    }

    /// The data path has no use for a process any more.
    fn gone(&mut self, context: &mut Context<Self>, id: u32, fate: Fate) {
        if let Some(record) = self.processes.get_mut(&id) {
            record.info.doom(fate);
            record.ending.get_or_insert_with(Instant::now);
            if let Some(zygote) = &mut self.zygote {
                // It would find out by itself, later.
                let _ = zygote.command("reap");
            }
        }
        self.count();
        self.balance(context);
        if self.pool.lanes.idle() == 0 {
            self.grow(context);
        }
    }

    /// A process has ended; its last output may still be on its way.
    fn exited(&mut self, context: &mut Context<Self>, id: u32, status: String) {
        let Some(record) = self.processes.get_mut(&id) else { return };
        record.ending.get_or_insert_with(Instant::now);
        record.watch.ready.abort();
        drop(self.pool.lanes.remove(id));
        // Whether it had said so before it went may still be on its way from the data path: `buried` decides.
        if record.info.request().is_none() && record.info.fate() == Fate::Serving {
            self.stillborn += 1;
            if self.stillborn >= STILLBORN {
                let pause = (FIRST_PAUSE * 2_u32.saturating_pow(self.stillborn - STILLBORN)).min(LONGEST_PAUSE);
                self.not_before = Some(Instant::now() + jittered(pause));
                if !self.launch.forks {
                    // There each process loads the code by itself, and it has come to be broken.
                    self.pool.condition.send_replace(Condition::Down("the processes end before they are ready".into()));
                }
            }
        } else {
            self.stillborn = 0;
        }
        let errors = record.watch.errors.take();
        let actor = actix::AsyncContext::address(context);
        actix_rt::spawn(async move {
            if let Some(errors) = errors {
                let _ = tokio::time::timeout(OUTPUT_GRACE, errors).await;
            }
            actor.do_send(Note::Buried { id, status });
        });
        self.count();
        if !self.launch.forks && self.failing_exec() {
            return;
        }
        self.balance(context);
    }

    /// Without a zygote, the code cannot be loaded when the first process ends before it is ready.
    fn failing_exec(&self) -> bool {
        *self.pool.condition.borrow() != Condition::Up && self.alive() == 0
    }

    fn buried(&mut self, context: &mut Context<Self>, id: u32, status: &str) {
        let Some(record) = self.processes.remove(&id) else { return };
        let fate = record.info.doom(if status == exit_status(0) { Fate::Recycled } else { Fate::Died });
        self.pool.metrics.ended(fate);
        let (pool, pid, tail) = (&self.pool.name, record.info.pid(), record.info.tail());
        if !fate.is_failure() {
            tracing::debug!(pool, process = id, pid, status, reason = fate.as_str(), "a process ended");
        } else {
            let restarts = self.pool.restarts.fetch_add(1, Ordering::Relaxed) + 1;
            let request = record.info.request();
            let request_id = request.as_ref().and_then(|head| head.field("x-request-id"));
            tracing::warn!(
                pool,
                process = id,
                pid,
                status,
                reason = fate.as_str(),
                last_request = request.as_ref().map(|head| format!("{} {}", head.method(), head.target())),
                request = request_id.and_then(|id| std::str::from_utf8(id).ok()),
                stderr = tail,
                restarts,
                "a process died"
            );
        }
        if self.stopping.is_some() {
            return self.stopped_if_empty();
        }
        if !self.launch.forks && self.failing_exec() {
            let why =
                if tail.is_empty() { format!("php ended: {status}") } else { format!("php ended: {status}: {tail}") };
            return self.boot_failed(context, &why);
        }
        self.balance(context);
    }

    fn stopped_if_empty(&mut self) {
        if self.zygote.is_none() && self.processes.is_empty() {
            self.run = None;
            if let Some(done) = self.stopping.take() {
                let _ = done.send(());
            }
        }
    }

    fn stop(&mut self, done: oneshot::Sender<()>) {
        self.stopping = Some(done);
        self.set_condition(Condition::Down("the pool is stopped".into()));
        while let Some(process) = self.pool.lanes.remove_any() {
            process.info.doom(Fate::Stopped);
        }
        for record in self.processes.values() {
            record.info.kill(Fate::Stopped);
        }
        // Its end ends the wait.
        if let Some(zygote) = &self.zygote {
            zygote.kill();
        }
        self.stopped_if_empty();
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        self.ticks = self.ticks.wrapping_add(1);
        let now = Instant::now();
        let timeout = self.pool.limits.timeout;
        for record in self.processes.values() {
            let Some(since) = record.ending else { continue };
            // A stream's reader went away: the function may go on until its next write.
            let grace = if record.info.fate() == Fate::StreamGone { timeout.max(END_GRACE) } else { END_GRACE };
            if now.duration_since(since) > grace {
                record.info.kill(Fate::Died);
            }
        }
        if self.alive() > self.pool.limits.min
            && let Some(since) = now.checked_sub(self.idle_timeout)
            && let Some(process) = self.pool.lanes.remove_idle(since)
        {
            self.pool.discard(process, Fate::Idle);
        }
        if self.ticks.is_multiple_of(MEMORY_TICKS) {
            self.watch_memory();
        }
        self.balance(context);
        if self.pool.lanes.waiting() > 0 {
            self.grow(context);
        }
        self.count();
    }

    fn watch_memory(&self) {
        let mut fullest = 0;
        for record in self.processes.values().filter(|record| record.up && record.ending.is_none()) {
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

    /// Publishes how many processes there are.
    fn count(&self) {
        let up = self.processes.values().filter(|record| record.up && record.ending.is_none()).count();
        let idle = self.pool.lanes.idle().min(up);
        self.pool.processes.store(up as u32, Ordering::Relaxed);
        self.pool.metrics.idle.set(idle as f64);
        self.pool.metrics.busy.set((up - idle) as f64);
        self.pool.metrics.starting.set((self.alive() - up) as f64);
    }
}

impl Actor for PoolActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.boot(context);
        context.run_interval(TICK, Self::tick);
    }
}

impl Handler<Note> for PoolActor {
    type Result = ();

    fn handle(&mut self, note: Note, context: &mut Self::Context) {
        match note {
            Note::Grow => self.grow(context),
            Note::Gone { id, fate } => self.gone(context, id, fate),
            Note::Event { generation, event } if generation == self.generation => self.event(context, event),
            Note::ZygoteExited { generation, status, tail } if generation == self.generation => {
                self.zygote_exited(context, &status, &tail);
            }
            Note::Event { .. } | Note::ZygoteExited { .. } => {}
            Note::Ready { .. } => self.ready(note),
            Note::NotReady { id, why } => self.not_ready(context, id, &why),
            Note::Exited { id, status } => self.exited(context, id, status),
            Note::Buried { id, status } => self.buried(context, id, &status),
            Note::Boot { generation } if generation == self.generation => self.boot(context),
            Note::Boot { .. } => {}
            Note::Stop { done } => self.stop(done),
        }
    }
}

impl Drop for PoolActor {
    fn drop(&mut self) {
        self.bury_all();
        if let Some(zygote) = &self.zygote {
            zygote.kill();
        }
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

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.4 * fastrand::f64())
}
