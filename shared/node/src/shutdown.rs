//! Ordered shutdown: unready first, then the delay, then each stage in turn, then the last steps.
//!
//! SIGTERM or SIGINT starts it. Readiness goes off at once, the process keeps serving for the delay so that load
//! balancers notice, then the registered stages run in the order in which they were registered, all within one timeout.
//! A second signal ends everything at once.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use troupe_node::shutdown::{DrainOptions, Shutdown};
//! # async fn example() -> std::io::Result<()> {
//! let mut shutdown = Shutdown::new(DrainOptions::default());
//! shutdown.trigger().on_signals()?;
//! shutdown.on_begin(|| { /* readiness off */ });
//! shutdown.stage("gateway: finish requests", |_deadline| async { /* … */ true });
//! shutdown.last("stop threads", |_deadline| async { true });
//! let outcome = shutdown.run().await;
//! # let _ = outcome.exit_code();
//! # Ok(())
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::NodeConfig;

/// How long each last step may take once the drain's own time is up. They only close and flush.
const LAST_STEP: Duration = Duration::from_secs(1);

/// How a process drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainOptions {
    /// How long to keep serving after readiness went off (`node.drain_delay`).
    pub delay: Duration,
    /// How long all stages together may take after the delay (`node.drain_timeout`).
    pub timeout: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self { delay: Duration::ZERO, timeout: Duration::from_secs(25) }
    }
}

impl From<&NodeConfig> for DrainOptions {
    fn from(config: &NodeConfig) -> Self {
        Self { delay: config.drain_delay.into(), timeout: config.drain_timeout.into() }
    }
}

/// What the shutdown came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Every stage ended in time and said that nothing was lost.
    pub drained: bool,
    /// A second signal cut the drain short.
    pub forced: bool,
    /// The stages that did not end in time, were skipped, or reported a loss.
    pub unfinished: Vec<String>,
}

impl Outcome {
    /// The process's exit code: 0 when drained, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.drained)
    }
}

type StageFuture = Pin<Box<dyn Future<Output = bool>>>;

struct Stage {
    name: String,
    run: Box<dyn FnOnce(Instant) -> StageFuture>,
}

/// Starts a shutdown; a second call while one is under way ends it at once. Clones share it, and it may cross threads.
#[derive(Debug, Clone)]
pub struct Trigger {
    asked: watch::Sender<u32>,
}

impl Trigger {
    /// Asks for the shutdown, or, the second time, for its immediate end.
    pub fn fire(&self, reason: &str) {
        let mut count = 0;
        self.asked.send_modify(|asked| {
            *asked = asked.saturating_add(1);
            count = *asked;
        });
        match count {
            1 => tracing::info!(reason, "shutting down; once more to stop at once"),
            2 => tracing::warn!(reason, "stopping at once; what is in flight is lost"),
            _ => {}
        }
    }

    /// Fires on SIGTERM and SIGINT from now on. Needs a tokio event loop, on which it keeps listening.
    ///
    /// # Errors
    ///
    /// When a signal handler cannot be installed.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let trigger = self.clone();
        actix_rt::spawn(async move {
            loop {
                let reason = tokio::select! {
                    Some(()) = term.recv() => "SIGTERM",
                    Some(()) = int.recv() => "SIGINT",
                    else => return,
                };
                trigger.fire(reason);
            }
        });
        Ok(())
    }

    /// Resolves once a shutdown has been asked for.
    pub async fn fired(&self) {
        self.reached(1).await;
    }

    /// Whether a shutdown has been asked for.
    pub fn has_fired(&self) -> bool {
        *self.asked.borrow() > 0
    }

    async fn reached(&self, count: u32) {
        // The sender is `self`: it cannot be gone.
        let _ = self.asked.subscribe().wait_for(|asked| *asked >= count).await;
    }
}

/// The process's one way out. Lives on the thread that waits for the end.
pub struct Shutdown {
    options: DrainOptions,
    trigger: Trigger,
    begin: Vec<Box<dyn FnOnce()>>,
    stages: Vec<Stage>,
    last: Vec<Stage>,
}

impl std::fmt::Debug for Shutdown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |stages: &[Stage]| -> Vec<String> { stages.iter().map(|stage| stage.name.clone()).collect() };
        formatter
            .debug_struct("Shutdown")
            .field("options", &self.options)
            .field("stages", &names(&self.stages))
            .field("last", &names(&self.last))
            .finish_non_exhaustive()
    }
}

impl Shutdown {
    /// A shutdown without stages.
    pub fn new(options: DrainOptions) -> Self {
        Self {
            options,
            trigger: Trigger { asked: watch::channel(0).0 },
            begin: Vec::new(),
            stages: Vec::new(),
            last: Vec::new(),
        }
    }

    /// The handle that starts it.
    pub fn trigger(&self) -> Trigger {
        self.trigger.clone()
    }

    /// Runs at once when the shutdown begins, before the delay: readiness off, deregister.
    pub fn on_begin(&mut self, run: impl FnOnce() + 'static) {
        self.begin.push(Box::new(run));
    }

    /// Adds a stage of the drain. It is given the moment at which the drain's time is up, and gives back whether it
    /// finished without a loss. It is dropped at that moment, and skipped after it.
    pub fn stage<F>(&mut self, name: &str, run: impl FnOnce(Instant) -> F + 'static)
    where
        F: Future<Output = bool> + 'static,
    {
        self.stages.push(stage(name, run));
    }

    /// Adds a last step: it runs after all stages, even when their time is up (then for a second at most), but not after
    /// a second signal.
    pub fn last<F>(&mut self, name: &str, run: impl FnOnce(Instant) -> F + 'static)
    where
        F: Future<Output = bool> + 'static,
    {
        self.last.push(stage(name, run));
    }

    /// Waits for the trigger, then shuts down.
    pub async fn run(self) -> Outcome {
        self.trigger.fired().await;
        let trigger = self.trigger.clone();
        for begin in self.begin {
            begin();
        }
        let mut pending: Vec<String> = Vec::new();
        let mut done = Outcome { drained: true, forced: false, unfinished: Vec::new() };
        let drain = drain(self.options, self.stages, self.last, &mut pending, &mut done);
        let forced = tokio::select! {
            biased;
            () = trigger.reached(2) => true,
            () = drain => false,
        };
        if forced {
            done.forced = true;
            done.unfinished.append(&mut pending);
        }
        done.drained = !done.forced && done.unfinished.is_empty();
        if done.drained {
            tracing::info!("drained");
        } else {
            tracing::warn!(
                unfinished = done.unfinished.join(", "),
                forced = done.forced,
                "stopped before everything in flight was finished"
            );
        }
        done
    }
}

fn stage<F>(name: &str, run: impl FnOnce(Instant) -> F + 'static) -> Stage
where
    F: Future<Output = bool> + 'static,
{
    Stage { name: name.to_owned(), run: Box::new(move |deadline| Box::pin(run(deadline))) }
}

/// Runs the stages. `pending` always names what has not ended, for the case that this future is dropped.
async fn drain(
    options: DrainOptions,
    stages: Vec<Stage>,
    last: Vec<Stage>,
    pending: &mut Vec<String>,
    done: &mut Outcome,
) {
    pending.extend(stages.iter().chain(&last).map(|stage| stage.name.clone()));
    tokio::time::sleep(options.delay).await;
    let deadline = Instant::now() + options.timeout;
    for stage in stages {
        finish(stage, deadline, pending, done).await;
    }
    for stage in last {
        let deadline = deadline.max(Instant::now() + LAST_STEP);
        finish(stage, deadline, pending, done).await;
    }
}

async fn finish(stage: Stage, deadline: Instant, pending: &mut Vec<String>, done: &mut Outcome) {
    let began = Instant::now();
    let finished = if began < deadline {
        // A task of its own: a stage that panics is a stage that failed, not the end of the shutdown.
        let mut task = actix_rt::spawn((stage.run)(deadline));
        let finished = timeout_at(deadline, &mut task).await;
        task.abort();
        matches!(finished, Ok(Ok(true)))
    } else {
        false
    };
    if finished {
        tracing::debug!(
            stage = stage.name,
            ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "shutdown stage done"
        );
    } else {
        done.unfinished.push(stage.name);
    }
    if !pending.is_empty() {
        pending.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    type Seen = Rc<RefCell<Vec<&'static str>>>;

    fn noting(seen: &Seen, name: &'static str) -> impl FnOnce(Instant) -> std::future::Ready<bool> + use<> {
        let seen = seen.clone();
        move |_| {
            seen.borrow_mut().push(name);
            std::future::ready(true)
        }
    }

    fn options(delay_ms: u64, timeout_ms: u64) -> DrainOptions {
        DrainOptions { delay: Duration::from_millis(delay_ms), timeout: Duration::from_millis(timeout_ms) }
    }

    #[actix_rt::test]
    async fn stages_run_in_order_after_readiness_went_off() {
        let seen = Seen::default();
        let mut shutdown = Shutdown::new(options(10, 20_000));
        let trigger = shutdown.trigger();
        let begin = seen.clone();
        shutdown.last("threads", noting(&seen, "last"));
        shutdown.stage("one", noting(&seen, "one"));
        shutdown.stage("two", noting(&seen, "two"));
        shutdown.on_begin(move || begin.borrow_mut().push("begin"));
        assert!(!trigger.has_fired());
        trigger.fire("test");
        let outcome = shutdown.run().await;
        assert_eq!(*seen.borrow(), ["begin", "one", "two", "last"]);
        assert!(outcome.drained && !outcome.forced);
        assert_eq!(outcome.exit_code(), 0);
    }

    #[actix_rt::test]
    async fn a_stage_that_hangs_is_cut_off_and_the_last_steps_still_run() {
        let seen = Seen::default();
        let mut shutdown = Shutdown::new(options(0, 30));
        let trigger = shutdown.trigger();
        shutdown.stage("hangs", |_| std::future::pending());
        shutdown.stage("skipped", noting(&seen, "skipped"));
        shutdown.last("threads", noting(&seen, "last"));
        trigger.fire("test");
        let outcome = shutdown.run().await;
        assert_eq!(*seen.borrow(), ["last"]);
        assert_eq!(outcome.unfinished, ["hangs", "skipped"]);
        assert_eq!(outcome.exit_code(), 1);
    }

    #[actix_rt::test]
    async fn a_second_signal_ends_it_at_once() {
        let seen = Seen::default();
        let mut shutdown = Shutdown::new(options(0, 3_600_000));
        let trigger = shutdown.trigger();
        let second = trigger.clone();
        shutdown.stage("hangs", move |_| async move {
            second.fire("again");
            std::future::pending::<bool>().await
        });
        shutdown.last("threads", noting(&seen, "last"));
        trigger.fire("test");
        let outcome = shutdown.run().await;
        assert!(outcome.forced && !outcome.drained);
        assert_eq!(outcome.unfinished, ["hangs", "threads"]);
        assert!(seen.borrow().is_empty());
    }

    #[actix_rt::test]
    async fn a_loss_is_not_a_drain() {
        let mut shutdown = Shutdown::new(options(0, 20_000));
        shutdown.stage("loses", |_| async { false });
        shutdown.trigger().fire("test");
        let outcome = shutdown.run().await;
        assert_eq!(outcome.unfinished, ["loses"]);
        assert_eq!(outcome.exit_code(), 1);
    }

    #[actix_rt::test]
    async fn a_stage_that_panics_does_not_stop_the_others() {
        let seen = Seen::default();
        let mut shutdown = Shutdown::new(options(0, 20_000));
        shutdown.stage("panics", |_| async { panic!("on purpose") });
        shutdown.stage("two", noting(&seen, "two"));
        shutdown.trigger().fire("test");
        let outcome = shutdown.run().await;
        assert_eq!(outcome.unfinished, ["panics"]);
        assert_eq!(*seen.borrow(), ["two"]);
    }

    #[actix_rt::test]
    async fn a_real_signal_starts_it() {
        let shutdown = Shutdown::new(options(0, 20_000));
        shutdown.trigger().on_signals().expect("handlers");
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).expect("to itself");
        let outcome = tokio::time::timeout(Duration::from_secs(20), shutdown.run()).await.expect("the signal arrives");
        assert!(outcome.drained);
    }
}
