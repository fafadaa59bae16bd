//! The HTTP server: actix's acceptor, threads and HTTP/1 dispatcher behind a gate of our own. Nothing outside this
//! module knows actix.

mod conn;
mod guard;
mod intake;
mod listen;
mod reply;
mod seats;
mod service;
mod stream;
mod thread;
mod warming;

use std::cell::RefCell;
use std::ffi::CString;
use std::future::ready;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive};
use actix_server::Server;
use actix_service::{ServiceFactory, ServiceFactoryExt as _, fn_factory, fn_service};
use tokio::net::TcpStream;
use troupe_contracts::invoke::Invoke;
use troupe_mesh::port::Port;

pub(crate) use guard::Reject;
pub(crate) use listen::listen;
pub(crate) use seats::Seats;
pub(crate) use warming::{Noted, Predictor};

use crate::cache::config::WarmConfig;
use crate::cache::l2::PortsFactory;
use crate::config::GatewayConfig;
use crate::front::{Front, Shared};
use crate::metrics::Metrics;
use crate::request::{Ends, Reception};
use conn::Conn;
use service::Handler;
use stream::GuardedStream;
use thread::Thread;

/// Seconds after which actix would give up a drain by itself; [`crate::Running::drain`] has a timeout of its own.
const LONGEST_DRAIN: u64 = 24 * 60 * 60;

/// Most HTTP threads: what actix takes.
pub(crate) const MAX_THREADS: usize = 512;

/// Makes a thread's way to the workers; called once on each HTTP thread, with the thread's number.
pub type PortFactory = Arc<dyn Fn(usize) -> Port<Invoke> + Send + Sync>;

/// What a thread is made of.
#[derive(Clone)]
pub(crate) struct Blueprint {
    pub(crate) config: Arc<GatewayConfig>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Metrics,
    pub(crate) ports: PortFactory,
    pub(crate) dashboard: Option<PortFactory>,
    /// Makes a thread's ports to the cache's second tier, where there is one.
    pub(crate) l2: Option<PortsFactory>,
    pub(crate) threads: usize,
    pub(crate) seats: Arc<Seats>,
    /// What is fetched before anybody asks for it.
    pub(crate) warm: WarmConfig,
    pub(crate) predictor: Option<Arc<Predictor>>,
}

thread_local! {
    /// The state of this thread, shared by the services of all its listeners.
    static THREAD: RefCell<Weak<Thread>> = const { RefCell::new(Weak::new()) };
}

/// Makes the server; it runs when it is polled, inside an actix system.
pub(crate) fn build(listeners: Vec<std::net::TcpListener>, blueprint: &Blueprint) -> std::io::Result<Server> {
    let threads = blueprint.threads;
    let per_thread = (blueprint.config.max_connections as usize).div_ceil(threads);
    let mut builder = Server::build()
        .workers(threads)
        .max_concurrent_connections(per_thread)
        .disable_signals()
        .shutdown_timeout(LONGEST_DRAIN);
    for listener in listeners {
        let blueprint = blueprint.clone();
        builder = builder.listen("gateway", listener, move || connection_service(&blueprint))?;
    }
    Ok(builder.run())
}

/// What is done with a client's connection, on the thread that calls this.
fn connection_service(
    blueprint: &Blueprint,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<> {
    let thread = thread_state(blueprint);
    let handlers = Rc::clone(&thread);
    let http = HttpService::build()
        // The gate's clock watches heads and idle connections; actix's timers would cost each request one.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(blueprint.config.disconnect_timeout.get())
        .h1_allow_half_closed(false)
        .on_connect_ext(|io: &GuardedStream, data| {
            data.insert(Rc::clone(io.conn()));
        })
        .h1(fn_factory(move || ready(Ok::<_, ()>(Handler(Rc::clone(&handlers))))));
    fn_service(move |socket: TcpStream| {
        let opened = socket.peer_addr().and_then(|remote| Ok(Ends::new(remote, socket.local_addr()?)));
        ready(match opened {
            Ok(ends) => {
                let remote = ends.remote;
                let stream = GuardedStream::new(socket, Rc::clone(&thread), Rc::new(Conn::new(ends)));
                Ok((stream, Some(remote)))
            }
            // The client left before it was served.
            Err(error) => Err(DispatchError::Io(error)),
        })
    })
    .and_then(http)
}

/// This thread's state; made with its port when the first of its listeners asks.
fn thread_state(blueprint: &Blueprint) -> Rc<Thread> {
    if let Some(thread) = THREAD.with_borrow(Weak::upgrade) {
        return thread;
    }
    let seat = blueprint.seats.take();
    let seat_index = seat.index();
    name_thread(seat_index);
    let port = (blueprint.ports)(seat.index());
    let Blueprint { config, .. } = blueprint;
    let reception = Reception::new(config.trusted_proxies.clone(), config.trace_sampled.into());
    let metrics = blueprint.metrics.thread();
    let dashboard = blueprint.dashboard.as_ref().map(|ports| ports(seat.index()));
    let l2 = blueprint.shared.cache.as_ref().and_then(|cache| cache.on_thread(blueprint.l2.as_ref()?(seat.index())));
    let noted = blueprint.predictor.as_ref().map(|predictor| predictor.noted());
    let front = Front::new(Arc::clone(&blueprint.shared), reception, port, dashboard, l2, noted);
    let config = Arc::clone(&blueprint.shared.tuning.borrow());
    let thread = Rc::new(Thread::new(front, metrics, &config, seat));
    actix_rt::spawn(thread::housekeep(
        Rc::downgrade(&thread),
        blueprint.shared.drain.subscribe(),
        blueprint.shared.tuning.subscribe(),
    ));
    if seat_index == 0 && blueprint.shared.cache.is_some() {
        let predictor = blueprint.predictor.clone();
        actix_rt::spawn(warming::run(Rc::downgrade(&thread), blueprint.warm.clone(), predictor));
    }
    THREAD.set(Rc::downgrade(&thread));
    thread
}

fn name_thread(index: usize) {
    if let Ok(name) = CString::new(format!("gateway-{index}")) {
        // The name is for people who look at `top`; without it all works the same.
        let _ = rustix::thread::set_name(&name);
    }
}
