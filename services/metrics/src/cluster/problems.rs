//! What is wrong, in plain words: what it is, and what to do or where to look.

use std::time::Instant;

use super::history::History;
use super::instance::Instance;
use super::view::View;

/// Problems that are listed, the worst first.
const MAX_PROBLEMS: usize = 30;
/// Seconds over which rates are judged.
const OVER: usize = 10;
/// Share of requests that fail, from which on it is a problem.
const FAILING: f32 = 0.05;
/// Requests a second below which a share says nothing.
const ENOUGH: f32 = 0.5;
/// Crashes of PHP processes a second that are a loop and no accident.
const CRASHING: f32 = 0.5;
/// Share of descriptors in use, from which on they are about to run out.
const DESCRIPTORS: f64 = 0.8;
/// Share of a queue that is taken, from which on it is about to be full.
const QUEUE: f32 = 0.5;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Clients notice.
    Error,
    /// They may soon.
    Warning,
}

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) level: Level,
    pub(crate) text: String,
}

pub(super) fn find(instances: &[&Instance], view: &View, history: &History, now: Instant) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut say = |level, text: String| found.push(Problem { level, text });
    for instance in instances {
        of_instance(instance, now, &mut say);
    }
    of_pools(view, &mut say);
    of_rates(history, &mut say);
    found.sort_by_key(|problem| problem.level);
    found.truncate(MAX_PROBLEMS);
    found
}

fn of_instance(instance: &Instance, now: Instant, say: &mut impl FnMut(Level, String)) {
    let name = &instance.source().instance;
    if instance.lost(now) {
        let silent = instance.silence(now).as_secs();
        say(
            Level::Error,
            format!(
                "{name} has not been heard of for {silent} s: its process is gone, or cannot reach the metrics service"
            ),
        );
        return;
    }
    for complaint in &instance.complaints {
        let level = if complaint.urgent { Level::Error } else { Level::Warning };
        say(level, format!("{name}: {}", complaint.text));
    }
    let process = instance.process();
    if process.descriptors as f64 > process.max_descriptors as f64 * DESCRIPTORS {
        let (open, most) = (process.descriptors, process.max_descriptors);
        say(Level::Warning, format!("{name} has {open} of {most} descriptors open: raise its limit (ulimit -n)"));
    }
}

fn of_pools(view: &View, say: &mut impl FnMut(Level, String)) {
    for pool in &view.pools {
        let name = &pool.pool;
        if pool.workers == 0 {
            say(Level::Error, format!("the pool {name} has no worker: its calls wait, and fail when they have waited"));
        } else if pool.draining == pool.workers {
            say(
                Level::Error,
                format!("every worker of the pool {name} is drained: its calls wait, and fail when they have waited"),
            );
        } else if pool.all_out {
            say(
                Level::Error,
                format!("every worker of the pool {name} is out; calls go to the least bad one (see why below)"),
            );
        }
        if pool.waiting as f32 > pool.queue_max as f32 * QUEUE {
            let (waiting, most) = (pool.waiting, pool.queue_max);
            say(
                Level::Warning,
                format!(
                    "{waiting} of at most {most} calls wait for the pool {name}: it needs more processes or workers"
                ),
            );
        }
    }
    for worker in view.workers.iter().filter(|worker| worker.state == "ejected") {
        say(Level::Warning, format!("{} takes no calls of the pool {}: {}", worker.worker, worker.pool, worker.reason));
    }
}

fn of_rates(history: &History, say: &mut impl FnMut(Level, String)) {
    let mean = |id| history.mean(id, OVER);
    let (requests, failed) = (mean("requests"), mean("requests.5xx"));
    if requests >= ENOUGH && failed >= requests * FAILING {
        let share = 100.0 * failed / requests;
        let causes = ["application", "deadline", "overloaded", "broken", "unreachable", "other"];
        let rate = |cause: &&str| history.mean(&format!("errors.{cause}"), OVER);
        let most = causes.iter().max_by(|one, other| rate(one).total_cmp(&rate(other)));
        let most = most.map_or("other", |cause| *cause);
        let text = format!(
            "{share:.0} % of requests fail with a 5xx, most by cause {most}: see errors by cause, and the logs"
        );
        say(Level::Error, text);
    }
    let vain = mean("cache.l2.away") + mean("cache.l2.unasked");
    if vain > 0.0 {
        let text = format!(
            "the second tier of the cache does not answer gateways ({vain:.1} questions a second in vain): they fetch what they \
             have not in memory; see the cache service and its Redis"
        );
        say(Level::Warning, text);
    }
    let crashes = mean("php.crashes");
    if crashes >= CRASHING {
        say(
            Level::Error,
            format!(
                "PHP processes crash, or are killed for their memory, {crashes:.1} times a second: the log of php-pool says which and \
                 with what status"
            ),
        );
    }
    let timeouts = mean("php.timeouts");
    if timeouts >= CRASHING {
        let text = format!(
            "calls run into their pool's timeout {timeouts:.1} times a second, and their PHP processes are killed: see \
             php.NAME.timeout, and the slow requests"
        );
        say(Level::Error, text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::PoolRow;
    use super::*;

    #[test]
    fn a_pool_that_nobody_serves_is_an_error_whatever_the_reason() {
        let told = |workers: usize, draining: usize, all_out: bool| {
            let pool = PoolRow { pool: "p".into(), workers, draining, all_out, queue_max: 10, ..PoolRow::default() };
            let mut said = Vec::new();
            of_pools(&View { pools: vec![pool], ..View::default() }, &mut |level, text| said.push((level, text)));
            said
        };
        for (workers, draining, all_out, words) in [
            (0, 0, false, "has no worker"),
            (2, 2, false, "is drained"),
            (2, 1, true, "is out"),
            (2, 0, true, "is out"),
        ] {
            let said = told(workers, draining, all_out);
            assert!(said.len() == 1 && said[0].0 == Level::Error && said[0].1.contains(words), "{words}: {said:?}");
        }
        assert_eq!((told(2, 1, false), told(2, 0, false)), (Vec::new(), Vec::new()));
    }
}
