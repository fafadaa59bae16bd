//! What the relay adds to a call in one process: `relay CALLS [direct]` makes calls to a worker that answers at once,
//! through the balancer or (`direct`) without it, and says how long the fastest batch took per call.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use troupe_balancer::Balancer;
use troupe_balancer::config::{BalancerConfig, QueueConfig};
use troupe_balancer::instances;
use troupe_contracts::invoke::{Invoke, InvokeFlags, Reply, Times};
use troupe_contracts::report::{InstanceReport, Load, PoolReport, Report};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::port::{CallFuture, Port, Service};
use troupe_wire::head::{RequestHeadBuilder, RequestParts, ResponseHead, ResponseHeadBuilder, Scheme, Version};

const BATCHES: usize = 20;
const LOAD: Load = Load {
    slots: 64,
    prefetch: 0,
    in_flight: 1,
    waiting: 0,
    processes: 1,
    busy: 1,
    memory_permille: 0,
    restarts: 0,
    draining: false,
};

struct AtOnce(ResponseHead);

impl Service<Invoke> for AtOnce {
    fn call(&self, _: Envelope<Invoke>) -> CallFuture<Invoke> {
        let head = self.0.clone();
        Box::pin(async move { Ok(Reply { head, load: LOAD, times: Times::default(), body: Body::Empty }) })
    }
}

impl Service<Report> for AtOnce {
    fn call(&self, _: Envelope<Report>) -> CallFuture<Report> {
        let pools = vec![PoolReport { pool: "default".to_owned(), load: LOAD }];
        Box::pin(async move { Ok(InstanceReport { pools }) })
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let calls: usize = arguments.next().and_then(|calls| calls.parse().ok()).unwrap_or(100_000);
    let direct = arguments.next().is_some_and(|argument| argument == "direct");
    actix_rt::System::new().block_on(run(calls, direct));
}

async fn run(calls: usize, direct: bool) {
    let worker = Rc::new(AtOnce(ResponseHeadBuilder::default().finish(200)));
    let queues = BTreeMap::from([("default".to_owned(), QueueConfig::default())]);
    let reports = Rc::clone(&worker);
    let wait = Duration::from_secs(1);
    let balancer = Balancer::start(&BalancerConfig::default(), &queues, 1, wait, instances::only_local(), move |_| {
        Port::inline(Rc::clone(&reports) as Rc<dyn Service<Report>>)
    });
    while balancer.snapshot().pools.iter().all(|pool| pool.workers.is_empty()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let inline: Port<Invoke> = Port::inline(worker);
    let port = match direct {
        true => inline,
        false => Port::inline(balancer.on_thread(0, move |_| inline.clone())),
    };
    let template = template();
    let mut fastest = Duration::MAX;
    for _ in 0..BATCHES {
        let begun = Instant::now();
        for _ in 0..calls / BATCHES {
            assert!(
                port.call(Envelope::new(template.call.spare(), template.deadline)).await.is_ok(),
                "the worker always answers"
            );
        }
        fastest = fastest.min(begun.elapsed());
        tokio::task::yield_now().await;
    }
    let each = fastest.as_nanos() as f64 / (calls / BATCHES) as f64;
    assert!(each.is_finite());
    // The only output of a measuring tool.
    #[allow(clippy::print_stdout, reason = "this is what the example is for")]
    {
        println!("{each:.0} ns per call");
    }
}

fn template() -> Envelope<Invoke> {
    let parts = RequestParts {
        version: Version::Http11,
        scheme: Scheme::Http,
        method: "GET",
        target: "/api/hello?name=x",
        authority: "example.test",
        remote_addr: "192.0.2.1",
        remote_port: "1",
        local_addr: "192.0.2.2",
        local_port: "80",
    };
    let call = Invoke {
        pool: "default".into(),
        route: "/api/{function*}".into(),
        function: "hello".into(),
        flags: InvokeFlags { idempotent: true, ..InvokeFlags::default() },
        path_info: 10,
        queued: Duration::ZERO,
        head: RequestHeadBuilder::default().finish(&parts).expect("a small head"),
        body: Body::Empty,
    };
    Envelope::new(call, Deadline::after(Duration::from_secs(3_600)))
}
