//! A lease whose time is up is another's: what its first holder brings after that is refused, whether the second has brought an
//! answer by then or not.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use troupe_testkit::redis::Redis;
use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::Upstream;
use troupe_testkit::wait;

use super::{BOUND, Origin, answer, embedded, get, in_redis, metric, version};

/// How long a gateway may fetch alone.
const LEASE: &str = "cache.store.lease = \"2s\"";
/// How long the first fetch takes: so long that a second one is begun meanwhile.
const FIRST: Duration = Duration::from_secs(5);
/// How long the second one takes where it is not at once: so long that the first ends before.
const SECOND: Duration = Duration::from_secs(8);

/// What was asked for, from the moment on at which it was.
type Asked = Arc<Mutex<Vec<String>>>;

fn times(asked: &Asked, target: &str) -> usize {
    asked.lock().unwrap().iter().filter(|other| *other == target).count()
}

/// An origin whose `n`-th answer for a URL is version `n`. The first takes long, and of what is `/under-way` the second, too.
fn slow_at_first() -> (Origin, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let server = Upstream::start(move |exchange| {
        exchange.read_body()?;
        let target = exchange.request.target().to_owned();
        noted.lock().unwrap().push(target.clone());
        // Nobody asks for the same at the same moment here.
        let version = times(&noted, &target);
        match version {
            1 => thread::sleep(FIRST),
            2 if target == "/under-way" => thread::sleep(SECOND),
            _ => {}
        }
        answer(exchange, "max-age=600", version as u64)
    });
    (Origin { server, version: Arc::default() }, asked)
}

fn the_late_holder_is_refused(asked: &Asked, stack: &Stack) {
    let refused = || metric(stack, "cache", "troupe_cache_stores_total{result=\"fenced\"}");
    let stored = || metric(stack, "cache", "troupe_cache_stores_total{result=\"stored\"}");
    for (target, refusals) in [("/done", 1.0), ("/under-way", 2.0)] {
        let (first, second, third) = (stack.addresses[0], stack.addresses[1], stack.addresses[2]);
        let held = thread::spawn(move || version(&get(first, target)));
        wait::until("the first to fetch", BOUND, || (times(asked, target) == 1).then_some(()));
        let successor = thread::spawn(move || version(&get(second, target)));
        assert_eq!(held.join().unwrap(), 1, "whoever waited for it is answered");
        assert_eq!(times(asked, target), 2, "a second fetch began before the first ended");
        wait::until("the first to be refused", BOUND, || (refused() == refusals).then_some(()));
        assert_eq!(successor.join().unwrap(), 2);
        // It is answered first, and stored then: whoever asked before that would fetch by itself, and rightly.
        wait::until("the second one's answer to be stored", BOUND, || (stored() >= refusals).then_some(()));
        let shared = wait::until("the second one's answer to be shared", BOUND, || {
            let answer = get(third, target);
            answer.header("cache-status").contains("hit").then_some(answer)
        });
        assert_eq!(version(&shared), 2, "{target}: what came late is nowhere but at its own gateway");
        assert_eq!(times(asked, target), 2, "{target}");
    }
}

#[test]
fn what_a_late_holder_brings_to_redis_is_refused() {
    let (redis, (origin, asked)) = (Redis::start(), slow_at_first());
    the_late_holder_is_refused(&asked, &in_redis(3, 2, &redis, &origin.config(LEASE)));
}

#[test]
fn what_a_late_holder_brings_to_memory_is_refused() {
    let (origin, asked) = slow_at_first();
    the_late_holder_is_refused(&asked, &embedded(3, &origin.config(LEASE)));
}
