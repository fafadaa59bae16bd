//! Data threads: OS threads named by their service, each with a current-thread runtime on which actix actors start.
//!
//! A data thread owns its links, its mailboxes and whatever it has in use, so nothing here moves work between threads.
//! A thread runs its `init` future to the end, then serves what that spawned until it is told to stop. Each thread is an
//! actix `System` of its own: stopping one never reaches another.
//!
//! What is not here: draining. By the time a thread is stopped the services have finished what was in flight
//! (see [`crate::shutdown`]).

mod cores;
mod watchdog;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

pub use cores::{PinError, Pinning, allowed_cores, count, pin_current, usable_cores};
pub use watchdog::{Registration, Stalled, Watchdog, WatchdogOptions};

/// Blocking calls (name look-ups, files) that one data thread may have in flight; tokio queues the rest.
///
/// tokio's default of 512 per runtime would let one thread's slow disk hold 512 stacks.
const BLOCKING_THREADS_PER_DATA_THREAD: usize = 32;

/// Turns of the event loop between the stop and the end of a thread, for tasks that [`stop_requested`] has woken.
const TURNS_AFTER_STOP: usize = 64;

/// More data threads than this is a mistake in the configuration, not a machine.
pub const MAX_DATA_THREADS: usize = 1024;

thread_local! {
    static STOP: RefCell<Option<watch::Receiver<bool>>> = const { RefCell::new(None) };
}

/// Starts `count` data threads named `{service}-0`, `{service}-1` and so on.
///
/// `init` runs once on each thread, with the thread's index; what it returns is handed back by [`DataThreads::ready`].
/// Tasks and actors it spawns live on that thread until the stop.
///
/// # Errors
///
/// When `count` is 0 or above [`MAX_DATA_THREADS`], when the pinning names a core this process may not use, or when the
/// kernel refuses a thread or its event loop. Threads already started are told to stop.
pub fn spawn_data_threads<I, F, T>(
    service: &str,
    count: usize,
    pinning: &Pinning,
    init: I,
) -> io::Result<DataThreads<T>>
where
    I: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    if count == 0 || count > MAX_DATA_THREADS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{service} cannot run on {count} threads: set node.threads to 1 to {MAX_DATA_THREADS}"),
        ));
    }
    let plan = pinning.plan(count).map_err(io::Error::other)?;
    let (stop, stopped) = watch::channel(false);
    let (end, ending) = watch::channel(false);
    let mut threads = DataThreads { stop, end, threads: Vec::with_capacity(count), ready: Vec::with_capacity(count) };
    for (index, core) in plan.into_iter().enumerate() {
        let name = format!("{service}-{index}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_PER_DATA_THREAD)
            .thread_name(format!("{service}-block"))
            .build()?;
        let arbiter = Arc::new(Mutex::new(None));
        let (ready_tx, ready) = oneshot::channel();
        let (ended_tx, ended) = oneshot::channel::<()>();
        let init = init.clone();
        let stopped = stopped.clone();
        let ending = ending.clone();
        let slot = arbiter.clone();
        let (up_tx, up) = std::sync::mpsc::sync_channel::<()>(1);
        let join = std::thread::Builder::new().name(name.clone()).spawn(move || {
            // Dropped when this closure ends or unwinds: the join then has nothing left to wait for.
            let _ended = ended_tx;
            cores::pin_current(core);
            let system = actix_rt::System::with_tokio_rt(|| runtime);
            *slot.lock() = Arbiter::try_current();
            let _ = up_tx.send(());
            drop(up_tx);
            STOP.set(Some(stopped));
            system.block_on(async move {
                tokio::select! {
                    biased;
                    outcome = init(index) => {
                        // The caller may not care for the outcome.
                        let _ = ready_tx.send(outcome);
                        wait_for_stop(ending).await;
                    }
                    // An init that hangs must not make the stop hang.
                    () = wait_for_stop(ending.clone()) => {}
                }
                for _ in 0..TURNS_AFTER_STOP {
                    tokio::task::yield_now().await;
                }
            });
        })?;
        // The thread has its event loop now (or is dying, which `ready` reports): it can be watched from here on.
        let _ = up.recv();
        let arbiter = arbiter.lock().take();
        threads.ready.push((name.clone(), ready));
        threads.threads.push(DataThread { name, arbiter, ended, join });
    }
    Ok(threads)
}

/// Resolves when this data thread is told to stop; never, on any other thread.
///
/// For loops that a thread's `init` spawned and that want to end tidily rather than be dropped.
pub async fn stop_requested() {
    match STOP.with_borrow(Clone::clone) {
        Some(stopped) => wait_for_stop(stopped).await,
        None => std::future::pending().await,
    }
}

async fn wait_for_stop(mut stopped: watch::Receiver<bool>) {
    // An error means that the handle is gone, which is a stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// The threads of one service. Dropping it tells them to stop without waiting for them.
#[derive(Debug)]
#[must_use = "the threads stop when this is dropped"]
pub struct DataThreads<T> {
    /// Told first, to the tasks.
    stop: watch::Sender<bool>,
    /// Told when every task that waits for the stop has been woken, to the threads: the tasks run before the end.
    end: watch::Sender<bool>,
    threads: Vec<DataThread>,
    ready: Vec<(String, oneshot::Receiver<T>)>,
}

#[derive(Debug)]
struct DataThread {
    name: String,
    arbiter: Option<ArbiterHandle>,
    ended: oneshot::Receiver<()>,
    join: JoinHandle<()>,
}

/// A data thread that panicked or ended before its `init` was through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("thread {name} ended while it was starting; the panic before this line says why")]
pub struct ThreadFailed {
    /// The thread's name.
    pub name: String,
}

/// What became of the threads after [`DataThreads::stop_and_join`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Threads that ended by a panic.
    pub panicked: Vec<String>,
    /// Threads that did not end in time; they are left behind, and the process's exit ends them.
    pub stuck: Vec<String>,
}

impl<T> DataThreads<T> {
    /// Number of threads.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether there is no thread (there always is one).
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// The threads' names, in order of their index.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.threads.iter().map(|thread| thread.name.as_str())
    }

    /// Handles that spawn `Send` futures on the threads, in order of their index.
    pub fn arbiters(&self) -> impl Iterator<Item = &ArbiterHandle> {
        self.threads.iter().filter_map(|thread| thread.arbiter.as_ref())
    }

    /// Has the watchdog ping these threads until the returned registrations are dropped.
    pub fn watch(&self, watchdog: &Watchdog) -> Vec<Registration> {
        self.threads
            .iter()
            .filter_map(|thread| Some((thread.name.as_str(), thread.arbiter.clone()?)))
            .map(|(name, arbiter)| watchdog.register(name, arbiter))
            .collect()
    }

    /// Waits until every thread's `init` is through and returns what each gave, in order; a second call returns nothing.
    pub async fn ready(&mut self) -> Vec<Result<T, ThreadFailed>> {
        let mut outcomes = Vec::with_capacity(self.ready.len());
        for (name, ready) in self.ready.drain(..) {
            outcomes.push(ready.await.map_err(|_| ThreadFailed { name }));
        }
        outcomes
    }

    /// As [`ready`](Self::ready), for a caller without an event loop. Panics on an event loop's thread, as tokio does.
    pub fn ready_blocking(&mut self) -> Vec<Result<T, ThreadFailed>> {
        let mut outcomes = Vec::with_capacity(self.ready.len());
        for (name, ready) in self.ready.drain(..) {
            outcomes.push(ready.blocking_recv().map_err(|_| ThreadFailed { name }));
        }
        outcomes
    }

    /// Tells the threads to stop: each drops its tasks and ends.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.end.send_replace(true);
    }

    /// Stops the threads and joins those that end within `within`.
    pub async fn stop_and_join(mut self, within: Duration) -> Joined {
        self.stop();
        let deadline = tokio::time::Instant::now() + within;
        let mut joined = Joined::default();
        for thread in std::mem::take(&mut self.threads) {
            if tokio::time::timeout_at(deadline, thread.ended).await.is_err() {
                joined.stuck.push(thread.name);
                continue;
            }
            // The closure is through; what is left of the thread is its exit.
            if thread.join.join().is_err() {
                joined.panicked.push(thread.name);
            }
        }
        joined
    }
}

impl<T> Drop for DataThreads<T> {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_thread_runs_its_init_under_its_name_and_is_joined() {
        let mut threads = spawn_data_threads("unit", 2, &Pinning::Off, |index| async move {
            (index, std::thread::current().name().map(str::to_owned))
        })
        .expect("starts");
        assert_eq!(threads.names().collect::<Vec<_>>(), ["unit-0", "unit-1"]);
        let outcomes = threads.ready_blocking();
        assert_eq!(outcomes, vec![Ok((0, Some("unit-0".to_owned()))), Ok((1, Some("unit-1".to_owned()))),]);
        let joined = actix_rt::System::new().block_on(threads.stop_and_join(Duration::from_secs(20)));
        assert_eq!(joined, Joined::default());
    }

    #[test]
    fn spawned_work_runs_after_init_and_hears_the_stop() {
        let heard = Arc::new(AtomicUsize::new(0));
        let heard_by = heard.clone();
        let mut threads = spawn_data_threads("stop", 2, &Pinning::Off, move |_| {
            let heard = heard_by.clone();
            async move {
                actix_rt::spawn(async move {
                    stop_requested().await;
                    heard.fetch_add(1, Ordering::SeqCst);
                });
                // The task has to be waiting by the time the stop comes, and current-thread order sees to that.
                tokio::task::yield_now().await;
            }
        })
        .expect("starts");
        assert!(threads.ready_blocking().iter().all(Result::is_ok));
        let joined = actix_rt::System::new().block_on(threads.stop_and_join(Duration::from_secs(20)));
        assert_eq!(joined, Joined::default());
        assert_eq!(heard.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_panic_in_init_is_reported_and_leaves_the_others() {
        let mut threads = spawn_data_threads("panic", 2, &Pinning::Off, |index| async move {
            assert!(index != 1, "a panic on purpose");
            index
        })
        .expect("starts");
        let outcomes = threads.ready_blocking();
        assert_eq!(outcomes[0], Ok(0));
        assert_eq!(outcomes[1], Err(ThreadFailed { name: "panic-1".to_owned() }));
        let joined = actix_rt::System::new().block_on(threads.stop_and_join(Duration::from_secs(20)));
        assert_eq!(joined.panicked, ["panic-1"]);
        assert!(joined.stuck.is_empty());
    }

    #[test]
    fn a_thread_that_does_not_end_is_left_behind() {
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let mut threads = spawn_data_threads("stuck", 1, &Pinning::Off, |_| async {}).expect("starts");
        assert!(threads.ready_blocking()[0].is_ok());
        let (entered, is_in) = std::sync::mpsc::channel::<()>();
        threads.arbiters().next().expect("one").spawn_fn(move || {
            let _ = entered.send(());
            let _ = blocked.recv();
        });
        is_in.recv().expect("the thread runs it");
        let joined = actix_rt::System::new().block_on(threads.stop_and_join(Duration::from_millis(50)));
        assert_eq!(joined.stuck, ["stuck-0"]);
        drop(release);
    }

    #[test]
    fn actors_start_on_a_data_thread_and_none_is_too_few() {
        assert!(spawn_data_threads("none", 0, &Pinning::Off, |_| async {}).is_err());
        // What an actor needs of its thread: a system, an arbiter and a place for local tasks.
        let mut threads = spawn_data_threads("actor", 1, &Pinning::Auto, |_| async {
            let local = actix_rt::spawn(async { 7 }).await.ok();
            (local, actix_rt::System::is_registered(), Arbiter::try_current().is_some())
        })
        .expect("starts");
        assert_eq!(threads.ready_blocking(), vec![Ok((Some(7), true, true))]);
    }
}
