//! Calls that stand in the pipe of a busy process, behind the running one.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use troupe_mesh::body::Body;
use troupe_mesh::failure::Outcome;

use crate::support::*;

#[test]
fn fast_calls_are_written_behind_each_other() {
    on_runtime(async {
        let stage = Stage::start(&[HELLO, PID], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
        })
        .await;
        let pool = stage.handle();
        for _ in 0..500 {
            stage.warm(&pool, "hello").await;
            let (a, b) = tokio::join!(get_text(&pool, "hello?name=a"), get_text(&pool, "hello?name=b"));
            assert!(a.contains("\"a\"") && b.contains("\"b\""), "{a} {b}");
        }
        stage.pools.stop().await;
    });
}

/// A frame that a pipe does not pass on in one piece cannot sit: it waits for a process, while others sit down.
#[test]
fn a_call_that_is_too_long_for_a_seat_is_not_passed_by_for_ever() {
    on_runtime(async {
        let stage = Stage::start(&[("length", "fn() => strlen($_SERVER['HTTP_X_LONG'] ?? '') . ''")], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
        })
        .await;
        let pool = stage.handle();
        stage.warm(&pool, "length").await;
        let over = Rc::new(Cell::new(false));
        // Together with the long one they have a place each.
        let small = (0..14).map(|_| {
            let (pool, over) = (pool.clone(), over.clone());
            async move {
                while !over.get() {
                    assert_eq!(get_text(&pool, "length").await, "0");
                }
            }
        });
        let long = async {
            let value = "x".repeat(6000);
            for _ in 0..20 {
                let call = invoke("length", "GET", "/length", &[("X-Long", &value)], Body::Empty);
                assert_eq!(text(send(&pool, call).await.unwrap().body).await, "6000");
            }
            over.set(true);
        };
        tokio::join!(join_all(small), long);
        stage.pools.stop().await;
    });
}

#[test]
fn a_call_behind_one_that_dies_runs_elsewhere() {
    let fickle = "function () { if (isset($_GET['die'])) { usleep(2000); posix_kill(getmypid(), SIGKILL); sleep(10); } return 'ok'; }";
    on_runtime(async move {
        let stage = Stage::start(&[("fickle", fickle)], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
        })
        .await;
        let pool = stage.handle();
        for round in 0..20 {
            stage.warm(&pool, "fickle").await;
            let (dies, behind) = tokio::join!(get(&pool, "fickle?die"), get(&pool, "fickle"));
            assert_eq!(dies.unwrap_err().outcome, Outcome::Broken, "{round}");
            assert_eq!(text(behind.unwrap().body).await, "ok");
        }
        stage.pools.stop().await;
    });
}

#[test]
fn callers_that_go_away_while_fast_calls_are_prefetched_mix_up_nothing() {
    on_runtime(async {
        let stage = Stage::start(&[("echo", "fn() => $_GET['n']")], |config| {
            config.processes.min = 2;
            config.processes.max = 2;
        })
        .await;
        let pool = stage.handle();
        stage.warm(&pool, "echo?n=0").await;
        for round in 0..300 {
            let calls = (0..4).map(|n| {
                let pool = std::rc::Rc::clone(&pool);
                async move {
                    let function = format!("echo?n={round}-{n}");
                    let patience = Duration::from_micros(if n % 2 == 0 { 30 * (round % 20) } else { 10_000_000 });
                    match tokio::time::timeout(patience, get(&pool, &function)).await {
                        Ok(Ok(reply)) => assert_eq!(text(reply.body).await, format!("{round}-{n}")),
                        Ok(Err(failure)) => assert_eq!(failure.outcome, Outcome::Overloaded),
                        Err(_) => {}
                    }
                }
            });
            join_all(calls).await;
        }
        stage.until("all idle", |load| load.in_flight == 0 && load.busy == 0 && load.waiting == 0).await;
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}

/// Eight calls at once, as many as a process and its seats take: the first turns out to be slow, and some of the others sit behind it before that is known.
#[test]
fn calls_behind_one_that_turns_out_slow_are_taken_back_and_run_elsewhere() {
    let fickle = "function () { if (isset($_GET['slow'])) { sleep(2); return 'slow'; } return 'ok'; }";
    on_runtime(async move {
        let stage = Stage::start(&[("fickle", fickle)], |config| {
            config.processes.min = 2;
            config.processes.max = 2;
        })
        .await;
        let pool = stage.handle();
        for round in 0..3 {
            stage.warm(&pool, "fickle").await;
            let quick = Cell::new(0);
            let slow = async {
                assert_eq!(get_text(&pool, "fickle?slow").await, "slow");
                assert_eq!(quick.get(), 7, "{round}: calls have waited for a slow one");
            };
            let others = (0..7).map(|_| async {
                assert_eq!(get_text(&pool, "fickle").await, "ok");
                quick.set(quick.get() + 1);
            });
            tokio::join!(slow, join_all(others));
        }
        stage.until("all idle", |load| load.in_flight == 0 && load.busy == 0 && load.waiting == 0).await;
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}

/// With one process there is nowhere else to go: they wait for it, and none is lost or run twice.
#[test]
fn calls_taken_back_from_the_only_process_run_once_after_the_slow_one() {
    let counts =
        "function () { static $n = 0; $n++; if (isset($_GET['slow'])) { usleep(300_000); } return (string) $n; }";
    on_runtime(async move {
        let stage = Stage::start(&[("counts", counts)], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
        })
        .await;
        let pool = stage.handle();
        stage.warm(&pool, "counts").await;
        let first: u32 = get_text(&pool, "counts?slow").await.parse().unwrap();
        let calls = (0..8).map(|n| {
            let pool = Rc::clone(&pool);
            async move { get_text(&pool, if n == 0 { "counts?slow" } else { "counts" }).await.parse::<u32>().unwrap() }
        });
        let mut numbers = join_all(calls).await;
        numbers.sort_unstable();
        assert_eq!(numbers, (first + 1..first + 9).collect::<Vec<_>>());
        stage.pools.stop().await;
    });
}

/// A process that gets no core for a while has not read its running call either when those behind it are taken back.
#[test]
fn a_call_that_its_process_has_not_read_yet_is_not_lost() {
    on_runtime(async {
        let stage = Stage::start(&[("echo", "fn() => $_GET['n']"), PID], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
        })
        .await;
        let pool = stage.handle();
        let pid = get_text(&pool, "pid").await;
        for round in 0..5 {
            stage.warm(&pool, "echo?n=0").await;
            signal(&pid, Signal::STOP);
            let calls = (0..6).map(|n| {
                let pool = Rc::clone(&pool);
                async move { assert_eq!(get_text(&pool, &format!("echo?n={round}-{n}")).await, format!("{round}-{n}")) }
            });
            let wakes = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                signal(&pid, Signal::CONT);
            };
            tokio::join!(join_all(calls), wakes);
        }
        assert_eq!(get_text(&pool, "pid").await, pid, "nothing timed out");
        stage.pools.stop().await;
    });
}
