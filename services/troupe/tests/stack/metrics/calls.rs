//! How long workers take to answer, as the balancer sees it.

use std::time::Duration;

use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::Upstream;

use super::sum;
use crate::support::in_both;

const NAME: &str = "troupe_balancer_call_seconds";

/// The page of the process with the balancer.
fn page(stack: &mut Stack) -> String {
    stack.instance("balancer").admin("/metrics").expect("the admin listener answers").text()
}

/// Calls of a pool that were answered, those of them whose time was taken, and that time in sum.
fn answered(page: &str, pool: &str) -> [f64; 3] {
    [
        sum(page, &format!("troupe_balancer_calls_total{{pool=\"{pool}\",outcome=\"ok\"}}")),
        sum(page, &format!("{NAME}_count{{pool=\"{pool}\"}}")),
        sum(page, &format!("{NAME}_sum{{pool=\"{pool}\"}}")),
    ]
}

#[test]
fn each_answered_call_is_timed_once_whatever_answers_it() {
    const CALLS: usize = 8;
    const SLOW: Duration = Duration::from_millis(300);
    let server = Upstream::start(|exchange| {
        std::thread::sleep(SLOW);
        exchange.answer(200, "slow")
    });
    let config = format!(
        "[php.default]\ntimeout = \"2s\"\n[[route]]\npath = \"/api/{{function*}}\"\nfunctions = \"default\"\n\
         [[route]]\npath = \"/{{rest*}}\"\nupstream = \"app\"\n[upstream.app]\nservers = [\"{}\"]\n",
        server.address
    );
    in_both(&config, |stack| {
        let pools = ["default", "upstream:app"];
        let before = page(stack);
        for _ in 0..CALLS {
            assert_eq!(stack.get("/api/sleep?ms=200").status, 200);
        }
        // These fail, and bring no head of a reply.
        assert_eq!(stack.get("/api/throws").status, 500);
        assert_eq!(stack.get("/api/sleep?ms=5000").status, 504);
        for _ in 0..2 {
            assert_eq!(stack.get("/slow").status, 200);
        }
        let after = page(stack);
        for (pool, calls, least) in [(pools[0], CALLS as f64, 1.6), (pools[1], 2.0, 0.6)] {
            let [ok, count, took] = answered(&after, pool);
            let [ok_before, count_before, took_before] = answered(&before, pool);
            assert_eq!((count - count_before, ok - ok_before), (calls, calls), "{pool}\n{after}");
            // What PHP and the server slept, and not more than ten times that.
            let took = took - took_before;
            assert!((least..10.0 * least).contains(&took), "{pool}: {took}");
        }
        // The fixed bounds, and every call below the last of them.
        let last = |pool: &str| sum(&after, &format!("{NAME}_bucket{{pool=\"{pool}\",le=\"+Inf\"}}"));
        assert_eq!(pools.map(last), pools.map(|pool| answered(&after, pool)[1]), "{after}");
    });
}
