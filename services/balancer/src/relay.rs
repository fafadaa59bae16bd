//! The data path: from a call to a worker's reply.
//!
//! The common case (a worker with room, a reply) takes no lock, no message and one allocation, the future itself. What
//! is rare, waiting and retrying, is boxed apart so that the common future stays small. The request's and the reply's
//! heads and bodies pass through untouched.

use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use troupe_contracts::invoke::{Invoke, Reply, Times};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome, Stage, Started};
use troupe_mesh::port::{CallFuture, Service};
use troupe_mesh::times::micros;

use crate::clock;
use crate::hold::Hold;
use crate::retry::{self, MAX_TRIES, Verdict};
use crate::thread::{LocalPool, ThreadPools};
use crate::upload;

/// What a client that finds the pool full is told: places free up as calls end, there is no better guess.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Pause before a worker whose link is away is tried again, when there is no other and no news: about as long as a link
/// that broke takes to come back.
const LINK_PAUSE: Duration = Duration::from_millis(50);

/// The balancer on one thread.
pub(crate) struct Relay {
    pools: Rc<ThreadPools>,
}

impl Relay {
    pub(crate) fn new(pools: ThreadPools) -> Self {
        Self { pools: Rc::new(pools) }
    }
}

impl Service<Invoke> for Relay {
    fn call(&self, envelope: Envelope<Invoke>) -> CallFuture<Invoke> {
        let Some(local) = self.pools.get(&envelope.call.pool) else {
            return Box::pin(std::future::ready(Err(unknown(&envelope.call.pool))));
        };
        Box::pin(relay(Rc::clone(&self.pools), local, envelope))
    }
}

async fn relay(pools: Rc<ThreadPools>, local: Rc<LocalPool>, mut envelope: Envelope<Invoke>) -> Result<Reply, Failure> {
    local.earn();
    let deadline = envelope.deadline;
    let arrived_us = clock::now();
    let upload = upload::is_one(&envelope.call)
        .then(|| Hold::upload(Rc::clone(&local), &mut envelope.call, arrived_us, deadline))
        .flatten();
    let hold = match upload.or_else(|| take(&pools, &local, arrived_us, None, deadline)) {
        Some(hold) => hold,
        None => {
            let queued = Box::pin(queue(Rc::clone(&local), arrived_us, deadline, local.pool.wait())).await;
            let (hold, waited) = queued.map_err(|failure| ended(failure, envelope.call.queued, arrived_us))?;
            envelope.call.queued += waited;
            hold
        }
    };
    let spare = spare(&envelope);
    let spent = Spent { arrived_us, queued: envelope.call.queued };
    let result = hold.port().call(envelope).await;
    let now_us = clock::now();
    match result {
        Ok(reply) => Ok(hold.reply(spent.on(reply, now_us), now_us)),
        Err(failure) => {
            let failed = Failed::new(&hold, failure, spent.queued, now_us);
            hold.fail(&failed.failure, now_us);
            let verdict = retry::judge(&failed.failure, spare.call.flags.idempotent);
            let result = if verdict == Verdict::Final || !spare.call.body.is_whole() {
                Err(count(&local, failed.failure))
            } else {
                Box::pin(again(pools, local, spare, failed, arrived_us)).await
            };
            result.map_err(|failure| ended(failure, Duration::ZERO, arrived_us))
        }
    }
}

/// Whether a worker said more than that it is full: it knows better than the queue why the call waited in vain.
fn is_excuse(failure: &Failure) -> bool {
    failure.outcome == Outcome::Overloaded && failure.stage == Stage::PhpPool && failure.detail.is_some()
}

/// The failure of a call that was here since `arrived_us`, and had waited for `queued` before what the failure tells of.
fn ended(mut failure: Failure, queued: Duration, arrived_us: u64) -> Failure {
    let times = &mut failure.times;
    times.balancer_us = since_us(arrived_us, clock::now());
    times.queue_us = times.queue_us.saturating_add(micros(queued));
    failure
}

fn since_us(then_us: u64, now_us: u64) -> u32 {
    u32::try_from(now_us.saturating_sub(then_us)).unwrap_or(u32::MAX)
}

/// What a call has spent here besides the time with its worker.
struct Spent {
    arrived_us: u64,
    queued: Duration,
}

impl Spent {
    /// Writes it on the reply.
    fn on(self, mut reply: Reply, now_us: u64) -> Reply {
        if cfg!(feature = "untimed") {
            return reply;
        }
        reply.times.balancer_us = since_us(self.arrived_us, now_us);
        reply.times.queue_us = micros(self.queued);
        reply
    }
}

/// A try that came to nothing.
struct Failed {
    worker: u64,
    took_us: u64,
    failure: Failure,
}

impl Failed {
    /// Of the worker that `hold` is of, after a wait of `queued` in all.
    fn new(hold: &Hold, mut failure: Failure, queued: Duration, now_us: u64) -> Self {
        let took_us = hold.age_us(now_us);
        failure.times.worker_us = u32::try_from(took_us).unwrap_or(u32::MAX);
        failure.times.queue_us = micros(queued);
        // A place that falls free in the last moment is of no use: on the way to it the time ends, but it was spent here.
        let in_vain = failure.outcome == Outcome::Deadline && failure.started == Started::No;
        if in_vain && failure.times.queue_us > failure.times.worker_us {
            failure.stage = Stage::Queue;
        }
        Self { worker: hold.worker().id, took_us, failure }
    }
}

/// Tries a call again for as long as that is safe, in time and within the budget.
///
/// A call that may have run once is tried once more and at once: when no worker is left for that, its caller hears of the
/// first failure, which says that it may have run.
async fn again(
    pools: Rc<ThreadPools>,
    local: Rc<LocalPool>,
    mut envelope: Envelope<Invoke>,
    mut failed: Failed,
    arrived_us: u64,
) -> Result<Reply, Failure> {
    let pool = Rc::clone(&local);
    let meters = &pool.pool.meters;
    let deadline = envelope.deadline;
    let mut wait_left = pool.pool.wait().saturating_sub(envelope.call.queued);
    let mut tries = 1;
    let mut may_have_run = None;
    let mut unsent = Unsent::default();
    loop {
        let Failed { worker: failed_at, took_us, failure } = failed;
        let verdict = retry::judge(&failure, envelope.call.flags.idempotent);
        let reason = match verdict {
            Verdict::Final => return Err(count(&local, may_have_run.unwrap_or(failure))),
            Verdict::Requeue => &meters.retries_requeued,
            Verdict::RetryNotStarted => &meters.retries_not_started,
            Verdict::RetryIdempotent if may_have_run.is_some() => return Err(count(&local, failure)),
            Verdict::RetryIdempotent => {
                may_have_run = Some(failure.clone());
                &meters.retries_idempotent
            }
        };
        if deadline.expired() {
            return Err(count(&local, may_have_run.unwrap_or(failure)));
        }
        if verdict == Verdict::RetryNotStarted && Unsent::is(&failure) {
            // Nothing was sent, so this is no try; but it takes as long as waiting for a link may, and no longer.
            if !unsent.goes_on(&local, failed_at, took_us).await {
                return Err(count(&local, may_have_run.unwrap_or(failure)));
            }
        } else if verdict != Verdict::Requeue {
            tries += 1;
            if tries > MAX_TRIES {
                return Err(count(&local, may_have_run.unwrap_or(failure)));
            }
            if !pool.pool.budget.spend() {
                meters.retries_over_budget.increment(1);
                return Err(count(&local, may_have_run.unwrap_or(failure)));
            }
        }
        reason.increment(1);
        let now_us = clock::now();
        // Another worker if one has room, else the same again, else whichever is free first. A worker whose link was lost
        // is most likely gone: what may have run with it does not wait for it to come back.
        let lost = may_have_run.is_some() && failure.stage == Stage::Link;
        let taken = take(&pools, &local, now_us, Some(failed_at), deadline)
            .or_else(|| if lost { None } else { take(&pools, &local, now_us, None, deadline) });
        let alone = || pool.pool.table().workers.iter().all(|worker| lost && worker.id == failed_at);
        let hold = match (taken, may_have_run.take()) {
            (Some(hold), earlier) => {
                may_have_run = earlier;
                hold
            }
            (None, Some(earlier)) if alone() => return Err(count(&local, earlier)),
            (None, earlier) => {
                match queue(Rc::clone(&local), arrived_us, deadline, unsent.wait(&local, wait_left)).await {
                    Ok((hold, waited)) => {
                        wait_left = wait_left.saturating_sub(waited);
                        envelope.call.queued += waited;
                        may_have_run = earlier;
                        hold
                    }
                    // Counted by the queue.
                    Err(late) => {
                        let queued = envelope.call.queued;
                        return Err(earlier.unwrap_or_else(|| {
                            let late = ended(late, queued, arrived_us);
                            if is_excuse(&failure) { Failure { times: late.times, ..failure } } else { late }
                        }));
                    }
                }
            }
        };
        let spare = spare(&envelope);
        let spent = Spent { arrived_us, queued: envelope.call.queued };
        let result = hold.port().call(envelope).await;
        let now_us = clock::now();
        let failure = match result {
            Ok(reply) => return Ok(hold.reply(spent.on(reply, now_us), now_us)),
            Err(failure) => failure,
        };
        failed = Failed::new(&hold, failure, spent.queued, now_us);
        hold.fail(&failed.failure, now_us);
        if !spare.call.body.is_whole() {
            return Err(count(&local, may_have_run.unwrap_or(failed.failure)));
        }
        envelope = spare;
    }
}

/// What a call goes through that no link took: its worker has gone, and the table does not say so yet, or says of no
/// other.
#[derive(Default)]
struct Unsent {
    times: u32,
    lost: Duration,
}

impl Unsent {
    fn is(failure: &Failure) -> bool {
        failure.outcome == Outcome::Unreachable && failure.stage == Stage::Link
    }

    /// Goes on at once where there is another worker to try, else with the next news of the workers. `false`: it has
    /// waited long enough.
    async fn goes_on(&mut self, local: &LocalPool, failed: u64, took_us: u64) -> bool {
        self.times += 1;
        self.lost += Duration::from_micros(took_us);
        let Some(left) = local.absent_wait.checked_sub(self.lost).filter(|left| !left.is_zero()) else {
            return false;
        };
        let mut published = pin!(local.pool.published.notified());
        published.as_mut().enable();
        let others = local.pool.table().workers.iter().any(|worker| worker.id != failed);
        let gone = local.pool.table().workers.is_empty();
        if gone || (others && self.times == 1) {
            return true;
        }
        let begun = Instant::now();
        // The link may come back without news.
        let _ = tokio::time::timeout(left.min(LINK_PAUSE), published).await;
        self.lost += begun.elapsed();
        true
    }

    /// How long the call may still wait for a place.
    fn wait(&self, local: &LocalPool, wait: Duration) -> Duration {
        match local.pool.table().workers.is_empty() {
            true => wait.min(local.absent_wait.saturating_sub(self.lost)),
            false => wait,
        }
    }
}

/// A place at a worker with room, unless others wait for one already.
fn take(
    pools: &ThreadPools,
    local: &Rc<LocalPool>,
    now_us: u64,
    except: Option<u64>,
    deadline: Deadline,
) -> Option<Hold> {
    if local.pool.queue.waiting() > 0 {
        return None;
    }
    let (view, renewed) = local.view();
    if renewed {
        pools.forget_the_gone();
    }
    let index = view.table.pick(local.pool.median_us(), now_us, local.next_turn(), except)?;
    Some(Hold::picked(Rc::clone(local), view, index, now_us, deadline))
}

/// Waits for a place, at most `wait` and within the deadline, in the order of arrival. Returns it and how long that took.
/// While there is no worker at all, which a queue cannot make up for, it does not wait longer than for a link.
async fn queue(
    local: Rc<LocalPool>,
    arrived_us: u64,
    deadline: Deadline,
    wait: Duration,
) -> Result<(Hold, Duration), Failure> {
    let pool = &local.pool;
    let wait = if pool.table().workers.is_empty() { wait.min(local.absent_wait) } else { wait };
    let joined = Instant::now();
    let remaining = deadline.instant().saturating_duration_since(joined);
    if remaining.is_zero() {
        return Err(count(&local, Failure::deadline(Stage::Queue).not_started()));
    }
    let place = pool.queue.join(local.shard, arrived_us, &pool.meters).map_err(|_| {
        let full = Failure::overloaded(Stage::Queue, "too many requests are waiting", RETRY_AFTER);
        count(&local, full.with_detail(format!("pool {}: {} calls wait, the most", pool.name, pool.queue.max())))
    })?;
    pool.offer(local.shard);
    if place.is_first() {
        pool.ask_for_room();
    }
    // Whatever happens from here on is counted: a call that leaves does so by dropping this.
    let left = Left { local: &local, counted: false };
    let granted = tokio::time::timeout(wait.min(remaining), place).await;
    let waited = joined.elapsed();
    let times = Times { queue_us: micros(waited), ..Times::default() };
    left.counted();
    pool.meters.queue_wait.record(waited.as_secs_f64());
    match granted {
        // Expired calls are not started; their place passes on.
        Ok(permit) if deadline.expired() => {
            drop(permit);
            Err(count(&local, Failure::deadline(Stage::Queue).not_started().after(times)))
        }
        Ok(permit) => Ok((Hold::handed(Rc::clone(&local), permit, clock::now(), deadline), waited)),
        Err(_) => {
            pool.meters.queue_timeouts.increment(1);
            Err(count(&local, timed_out(&local, remaining <= wait, waited).after(times)))
        }
    }
}

/// Counts a call whose caller left it while it waited.
struct Left<'a> {
    local: &'a LocalPool,
    counted: bool,
}

impl Left<'_> {
    fn counted(mut self) {
        self.counted = true;
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.local.pool.meters.failed(Outcome::Cancelled);
        }
    }
}

fn timed_out(local: &LocalPool, by_deadline: bool, waited: Duration) -> Failure {
    if by_deadline {
        return Failure::deadline(Stage::Queue).not_started();
    }
    let name = &local.pool.name;
    if local.pool.table().workers.is_empty() {
        let detail = format!("pool {name}: no worker appeared within {waited:?}");
        return Failure {
            retry_after: Some(RETRY_AFTER),
            ..Failure::new(Outcome::Unreachable, Stage::Balancer, "no worker is available")
        }
        .not_started()
        .with_detail(detail);
    }
    Failure::overloaded(Stage::Queue, "no worker was free in time", RETRY_AFTER)
        .with_detail(format!("pool {name}: waited {waited:?} for a worker"))
}

fn unknown(pool: &ByteString) -> Failure {
    Failure {
        retry_after: Some(RETRY_AFTER),
        ..Failure::new(Outcome::Unreachable, Stage::Balancer, "no worker is available")
    }
    .not_started()
    .with_detail(format!("no pool is named {pool}: neither the configuration nor an instance knows it"))
}

fn count(local: &LocalPool, failure: Failure) -> Failure {
    local.pool.meters.failed(failure.outcome);
    failure
}

/// The call once more, for as long as its whole body is at hand.
fn spare(envelope: &Envelope<Invoke>) -> Envelope<Invoke> {
    Envelope { call: envelope.call.spare(), deadline: envelope.deadline, trace: envelope.trace }
}
