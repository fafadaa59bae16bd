//! What is about to become stale is fetched anew before it is: nobody who asks again and again waits for a fetch.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use troupe_testkit::http::Connection;
use troupe_testkit::redis::Redis;
use troupe_testkit::upstream::Upstream;

use super::{BOUND, Origin, answer, in_redis, version};

/// What the origin says. The last sixteenth of it is when an answer may be refreshed: a second.
const LIFETIME: Duration = Duration::from_secs(16);
/// How long a fetch takes: the longer, the earlier the next one begins.
const FETCH: Duration = Duration::from_millis(300);

#[test]
fn an_answer_is_refreshed_before_it_is_stale_and_nobody_waits() {
    let redis = Redis::start();
    let fetches: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
    let noted = Arc::clone(&fetches);
    let server = Upstream::start(move |exchange| {
        exchange.read_body()?;
        let began = Instant::now();
        thread::sleep(FETCH);
        let number = {
            let mut fetches = noted.lock().unwrap();
            fetches.push((began, Instant::now()));
            fetches.len()
        };
        answer(exchange, &format!("max-age={}", LIFETIME.as_secs()), number as u64)
    });
    let origin = Origin { server, version: Arc::default() };
    let stack = in_redis(1, 1, &redis, &origin.config(""));
    let mut connection = Connection::open(stack.addresses[0]).unwrap();
    let mut ask = || connection.request("GET", "/a", &[], b"").unwrap();
    let (began, mut hits) = (Instant::now(), 0);
    assert_eq!(version(&ask()), 1);
    loop {
        let answer = ask();
        let status = answer.header("cache-status").to_owned();
        assert!(status.starts_with("troupe-l1; hit; ttl=") && !status.contains("ttl=-"), "after {hits} hits: {status}");
        hits += 1;
        if version(&answer) == 2 {
            break;
        }
        assert!(began.elapsed() < BOUND, "it is never fetched anew");
        thread::sleep(Duration::from_millis(5));
    }
    let fetches = fetches.lock().unwrap().clone();
    let [(_, first_was_there), (second_began, _)] = fetches.as_slice() else { panic!("{fetches:?}") };
    let after = second_began.duration_since(*first_was_there);
    assert!(after < LIFETIME, "it was stale by then: {after:?}");
    // Not before the last sixteenth: else the origin is asked for more than it has to be.
    assert!(after > LIFETIME - LIFETIME / 16 - FETCH, "{after:?}");
}
