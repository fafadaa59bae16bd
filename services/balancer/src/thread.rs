//! What a thread of the data path keeps: the pools it has seen, their tables, and its own ports.
//!
//! Nothing here is shared, so nothing here is locked. A view is renewed when the pool's generation has moved on.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytestring::ByteString;
use troupe_contracts::invoke::Invoke;
use troupe_mesh::port::Port;

use crate::instances::InstanceId;
use crate::pick::Table;
use crate::pool::Pool;

/// Calls a thread makes before it adds them to the pool's retry budget: the pool's line is shared by all threads.
const EARN_AFTER: u32 = 32;

/// All pools by name, published whole.
pub(crate) type Pools = ArcSwap<HashMap<String, Arc<Pool>>>;

/// Makes a thread's port to an instance.
type Resolve = Box<dyn Fn(&InstanceId) -> Port<Invoke>>;

/// A thread's ports, made when first needed.
pub(crate) struct Ports {
    resolve: Resolve,
    known: RefCell<HashMap<InstanceId, Port<Invoke>>>,
}

impl Ports {
    fn get(&self, id: &InstanceId) -> Port<Invoke> {
        if let Some(port) = self.known.borrow().get(id) {
            return port.clone();
        }
        let port = (self.resolve)(id);
        self.known.borrow_mut().insert(id.clone(), port.clone());
        port
    }

    /// Forgets ports to instances that no pool of this thread lists.
    fn keep(&self, listed: impl Fn(&InstanceId) -> bool) {
        self.known.borrow_mut().retain(|id, _| listed(id));
    }
}

/// One thread's pools.
pub(crate) struct ThreadPools {
    shared: Arc<Pools>,
    shard: usize,
    absent_wait: Duration,
    ports: Rc<Ports>,
    /// Most calls are for the pool of the call before.
    last: RefCell<Option<Rc<LocalPool>>>,
    known: RefCell<HashMap<ByteString, Rc<LocalPool>>>,
}

impl ThreadPools {
    pub(crate) fn new(shared: Arc<Pools>, shard: usize, absent_wait: Duration, resolve: Resolve) -> Self {
        let ports = Rc::new(Ports { resolve, known: RefCell::default() });
        Self { shared, shard, absent_wait, ports, last: RefCell::default(), known: RefCell::default() }
    }

    /// The pool of this name, if there is one.
    pub(crate) fn get(&self, name: &ByteString) -> Option<Rc<LocalPool>> {
        if let Some(last) = self.last.borrow().as_ref()
            && *last.pool.name == **name
        {
            return Some(Rc::clone(last));
        }
        let known = self.known.borrow().get(name).map(Rc::clone);
        let local = match known {
            Some(local) => local,
            None => self.meet(name)?,
        };
        *self.last.borrow_mut() = Some(Rc::clone(&local));
        Some(local)
    }

    fn meet(&self, name: &ByteString) -> Option<Rc<LocalPool>> {
        let pool = Arc::clone(self.shared.load().get(&**name)?);
        let local = Rc::new(LocalPool::new(pool, self.shard, self.absent_wait, Rc::clone(&self.ports)));
        // The name may be a slice of a larger buffer, which a key would keep alive.
        self.known.borrow_mut().insert(ByteString::from(&**name), Rc::clone(&local));
        Some(local)
    }

    /// Drops the ports of instances that are gone. Called when a view was renewed, which is rare.
    pub(crate) fn forget_the_gone(&self) {
        let known = self.known.borrow();
        self.ports.keep(|id| known.values().any(|local| local.lists(id)));
    }
}

/// One pool as one thread sees it.
pub(crate) struct LocalPool {
    pub(crate) pool: Arc<Pool>,
    pub(crate) shard: usize,
    /// How long a call waits for a worker while there is none.
    pub(crate) absent_wait: Duration,
    ports: Rc<Ports>,
    view: RefCell<Rc<View>>,
    turn: Cell<usize>,
    replies: Cell<usize>,
    unearned: Cell<u32>,
}

impl LocalPool {
    fn new(pool: Arc<Pool>, shard: usize, absent_wait: Duration, ports: Rc<Ports>) -> Self {
        let view = RefCell::new(Rc::new(View::new(pool.table(), Rc::clone(&ports))));
        // Threads begin at different workers.
        let (turn, replies, unearned) = (Cell::new(shard), Cell::new(0), Cell::new(0));
        Self { pool, shard, absent_wait, ports, view, turn, replies, unearned }
    }

    /// The newest table, with this thread's ports. `true`: it is a new one.
    pub(crate) fn view(&self) -> (Rc<View>, bool) {
        let mut view = self.view.borrow_mut();
        let renewed = view.table.generation != self.pool.generation();
        if renewed {
            *view = Rc::new(View::new(self.pool.table(), Rc::clone(&self.ports)));
        }
        (Rc::clone(&view), renewed)
    }

    /// This thread's port to an instance.
    pub(crate) fn port(&self, id: &InstanceId) -> Port<Invoke> {
        self.ports.get(id)
    }

    /// Counts calls up that pick a worker, for ties.
    pub(crate) fn next_turn(&self) -> usize {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.turn.get()
    }

    /// Counts replies up, for samples. Apart from the turns, which stand still while all calls come out of the queue.
    pub(crate) fn next_reply(&self) -> usize {
        self.replies.set(self.replies.get().wrapping_add(1));
        self.replies.get()
    }

    /// One more call for the retry budget.
    pub(crate) fn earn(&self) {
        let unearned = self.unearned.get() + 1;
        if unearned < EARN_AFTER {
            self.unearned.set(unearned);
        } else {
            self.unearned.set(0);
            self.pool.budget.earn(unearned);
        }
    }

    fn lists(&self, id: &InstanceId) -> bool {
        self.view.borrow().table.workers.iter().any(|worker| worker.instance == *id)
    }
}

/// A table and this thread's ports to the workers in it.
pub(crate) struct View {
    pub(crate) table: Arc<Table>,
    resolve: Rc<Ports>,
    ports: Box<[OnceCell<Port<Invoke>>]>,
}

impl View {
    fn new(table: Arc<Table>, resolve: Rc<Ports>) -> Self {
        let ports = table.workers.iter().map(|_| OnceCell::new()).collect();
        Self { table, resolve, ports }
    }

    pub(crate) fn port(&self, index: usize) -> &Port<Invoke> {
        self.ports[index].get_or_init(|| self.resolve.get(&self.table.workers[index].instance))
    }
}
