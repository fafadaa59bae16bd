//! The pools as one thread sees them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use troupe_contracts::invoke::Invoke;
use troupe_contracts::operate::{Action, Operate, Operated};
use troupe_contracts::report::Report;
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Stage};
use troupe_mesh::port::{CallFuture, Service};

use super::published::Published;
use super::{renew, report};
use crate::call;
use crate::control::{RenewError, Renewal, Renewed};
use crate::local::Local;

/// The pools, for one thread: answers [`Invoke`], [`Report`] and [`Operate`].
#[derive(Debug)]
pub struct PhpPool {
    published: Arc<Published>,
    thread: usize,
    /// The generation that `pools` is of.
    seen: Cell<u64>,
    pools: RefCell<Vec<Rc<Local>>>,
}

impl PhpPool {
    pub(super) fn new(published: &Arc<Published>, thread: usize) -> Self {
        let (seen, pools) = (Cell::new(0), RefCell::default());
        let pool = Self { published: Arc::clone(published), thread, seen, pools };
        pool.look();
        pool
    }

    fn find(&self, name: &str) -> Option<Rc<Local>> {
        if self.seen.get() != self.published.generation() {
            self.look();
        }
        self.pools.borrow().iter().find(|local| *local.pool.name == *name).map(Rc::clone)
    }

    /// Takes the pools that there are now. Calls that are with one that has gone keep it.
    fn look(&self) {
        self.seen.set(self.published.generation());
        let mut pools = self.pools.borrow_mut();
        let mine = |pool: &Arc<_>| {
            let known = pools.iter().find(|local| Arc::ptr_eq(&local.pool, pool)).map(Rc::clone);
            known.unwrap_or_else(|| Local::new(Arc::clone(pool), self.thread))
        };
        let now = self.published.list().iter().map(mine).collect();
        *pools = now;
    }
}

impl Service<Invoke> for PhpPool {
    fn call(&self, envelope: Envelope<Invoke>) -> CallFuture<Invoke> {
        match self.find(&envelope.call.pool) {
            Some(local) => Box::pin(call::invoke(local, envelope)),
            None => {
                let failure = Failure::refused(Stage::PhpPool, 404, "there is no such pool");
                Box::pin(std::future::ready(Err(failure)))
            }
        }
    }
}

impl Service<Report> for PhpPool {
    fn call(&self, _: Envelope<Report>) -> CallFuture<Report> {
        Box::pin(std::future::ready(Ok(report(&self.published.list()))))
    }
}

impl Service<Operate> for PhpPool {
    fn call(&self, envelope: Envelope<Operate>) -> CallFuture<Operate> {
        let Operate { pool, action } = envelope.call;
        let what = match action {
            Action::Restart => Renewal::Processes,
            Action::Reload => Renewal::Code,
        };
        let renewed = renew(self.published.find(&pool), &pool, what);
        Box::pin(async move { Ok(operated(renewed.await)) })
    }
}

fn operated(result: Result<Renewed, RenewError>) -> Operated {
    match result {
        Ok(Renewed { replaced, functions }) => {
            let functions = u32::try_from(functions).unwrap_or(u32::MAX);
            Operated { done: true, reason: String::new(), replaced, functions }
        }
        Err(error) => Operated { done: false, reason: error.to_string(), replaced: 0, functions: 0 },
    }
}
