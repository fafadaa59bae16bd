//! Whom the next call of a pool would go to, for people who want to know: told by the numbers of this moment, and nothing is
//! called.

use std::sync::{Arc, Weak};

use troupe_contracts::survey::{Candidate, MAX_CANDIDATES, Survey, Surveyed};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Service};

use crate::pick::SCAN_ALL;
use crate::ranking::{PoolSnapshot, WorkerSnapshot};
use crate::slot::State;
use crate::wiring::Balancer;

/// Answers [`Survey`] for a balancer, which it does not keep alive.
#[derive(Debug, Clone)]
pub struct Surveyor {
    balancer: Weak<Balancer>,
    name: String,
}

impl Surveyor {
    /// Of `balancer`, which others know by `name`.
    pub fn new(balancer: &Arc<Balancer>, name: &str) -> Self {
        Self { balancer: Arc::downgrade(balancer), name: name.to_owned() }
    }

    /// Whom the next call of `pool` would go to.
    ///
    /// # Errors
    /// When the balancer is gone.
    pub fn survey(&self, pool: &str) -> Result<Surveyed, Failure> {
        let gone = || Failure::new(Outcome::Unreachable, Stage::Balancer, "the balancer has stopped").not_started();
        let snapshot = self.balancer.upgrade().ok_or_else(gone)?.snapshot();
        let surveyed = match snapshot.pools.iter().find(|known| known.pool == pool) {
            Some(pool) => pick(pool),
            None => {
                let why = "the balancer knows no such pool: it answers 503".to_owned();
                Surveyed { why, ..Surveyed::default() }
            }
        };
        Ok(Surveyed { balancer: self.name.clone(), ..surveyed })
    }
}

impl Service<Survey> for Surveyor {
    fn call(&self, envelope: Envelope<Survey>) -> CallFuture<Survey> {
        Box::pin(std::future::ready(self.survey(&envelope.call.pool)))
    }
}

/// Whom the next call would go to, by the numbers of this moment.
fn pick(pool: &PoolSnapshot) -> Surveyed {
    let of = |state| pool.workers.iter().filter(move |worker| worker.state == state);
    let ready: Vec<&WorkerSnapshot> = of(State::Ready).collect();
    let (mut candidates, last_resort) =
        if ready.is_empty() { (of(State::Ejected).collect(), true) } else { (ready, false) };
    candidates.sort_by(|one, other| other.score.total_cmp(&one.score));
    let best = candidates.iter().find(|worker| worker.in_flight < worker.cap);
    let name = |worker: &WorkerSnapshot| format!("{}/{}", pool.pool, worker.worker);
    let why = match best {
        None if pool.workers.is_empty() => "the pool has no worker: the call waits for one, then 503".to_owned(),
        None if candidates.is_empty() => {
            "no worker takes calls (all drain): the call waits for one, then 503".to_owned()
        }
        None => format!(
            "every worker is at its cap: the call waits in the queue ({} wait, {} may)",
            pool.waiting, pool.queue_max
        ),
        Some(_) if pool.waiting > 0 => format!("{} calls wait before it in the queue", pool.waiting),
        Some(_) if last_resort => "every worker is out: the least bad one is used".to_owned(),
        Some(_) if candidates.len() == 1 => "it is the only worker that takes calls".to_owned(),
        Some(_) if candidates.len() > SCAN_ALL => {
            "it has the best score; with so many workers the better of two random ones is taken".to_owned()
        }
        Some(_) => "it has the best score: the lowest latency * (calls in flight + 1) / weight".to_owned(),
    };
    Surveyed {
        balancer: String::new(),
        worker: best.map(|worker| name(worker)).unwrap_or_default(),
        why,
        candidates: candidates.iter().take(MAX_CANDIDATES).map(|worker| candidate(name(worker), worker)).collect(),
        more: u32::try_from(candidates.len().saturating_sub(MAX_CANDIDATES)).unwrap_or(u32::MAX),
    }
}

fn candidate(name: String, worker: &WorkerSnapshot) -> Candidate {
    let WorkerSnapshot { score, in_flight, cap, latency_us, gain, .. } = *worker;
    Candidate { worker: name, score, in_flight, cap, latency_us, gain }
}

#[cfg(test)]
mod tests {
    use troupe_contracts::report::Load;

    use super::*;

    fn worker(number: u32, state: State, score: f32, in_flight: u32) -> WorkerSnapshot {
        WorkerSnapshot {
            worker: format!("w{number}"),
            instance: format!("i{number}"),
            state,
            reason: "",
            score,
            latency_us: 7.0,
            in_flight,
            foreign: 0,
            cap: 4,
            gain: 1.0,
            error_rate: 0.0,
            failures: 0,
            load: Load::default(),
        }
    }

    fn picked(waiting: u32, workers: Vec<WorkerSnapshot>) -> (String, String) {
        let pool = "api".to_owned();
        let pool = PoolSnapshot { pool, waiting, queue_max: 9, median_us: 0.0, p95_us: 0.0, all_out: false, workers };
        let Surveyed { worker, why, .. } = pick(&pool);
        (worker, why)
    }

    #[test]
    fn the_best_one_with_room_is_named_and_why() {
        let (ready, out, drains) = (State::Ready, State::Ejected, State::Draining);
        for (waiting, workers, expected, reason) in [
            (0, vec![worker(1, ready, 2.0, 0), worker(2, ready, 9.0, 1)], "api/w2", "the best score"),
            (0, vec![worker(1, ready, 2.0, 0), worker(2, ready, 9.0, 4)], "api/w1", "the best score"),
            (0, vec![worker(1, ready, 2.0, 0), worker(2, out, 9.0, 0)], "api/w1", "the only worker"),
            (0, vec![worker(1, out, 2.0, 0), worker(2, out, 9.0, 0)], "api/w2", "the least bad one"),
            (3, vec![worker(1, ready, 2.0, 0)], "api/w1", "3 calls wait"),
            (5, vec![worker(1, ready, 2.0, 4)], "", "waits in the queue (5 wait, 9 may)"),
            (0, vec![worker(1, drains, 2.0, 0)], "", "all drain"),
            (0, vec![], "", "has no worker"),
            (0, (0..9).map(|number| worker(number, ready, number as f32, 0)).collect(), "api/w8", "two random ones"),
        ] {
            let (worker, why) = picked(waiting, workers);
            assert!(worker == expected && why.contains(reason), "{worker}: {why}, not {expected}: {reason}");
        }
    }

    #[test]
    fn a_thousand_workers_are_counted_and_the_best_of_them_listed() {
        let workers = (0..1_000).map(|number| worker(number, State::Ready, number as f32, 0)).collect();
        let pool = "api".to_owned();
        let surveyed = pick(&PoolSnapshot {
            pool,
            waiting: 0,
            queue_max: 9,
            median_us: 0.0,
            p95_us: 0.0,
            all_out: false,
            workers,
        });
        assert_eq!((surveyed.candidates.len(), surveyed.more), (MAX_CANDIDATES, 950));
        assert_eq!(surveyed.candidates[0].worker, surveyed.worker);
    }
}
