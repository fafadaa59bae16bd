//! How many processes there are.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use troupe_php_pool::config::Isolation;

use crate::support::*;

const SLOW: (&str, &str) = ("slow", "function () { usleep(100_000); return (string) getmypid(); }");

#[test]
fn processes_come_with_the_load_and_go_when_idle() {
    on_runtime(async {
        let stage = Stage::start(&[SLOW], |config| {
            config.processes.max = 6;
            config.idle_timeout = "300ms".parse().unwrap();
        })
        .await;
        let pool = stage.handle();
        stage.until("min", |load| load.processes == 2).await;
        for reply in join_all((0..6).map(|_| get(&pool, "slow"))).await {
            assert!(reply.is_ok(), "{reply:?}");
        }
        assert_eq!(stage.load().processes, 6);
        stage.until("min again", |load| load.processes == 2).await;
        assert!(get(&pool, "slow").await.is_ok());
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}

#[test]
fn a_slow_function_grows_the_pool_to_its_maximum_past_what_fast_ones_get() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let max = cores * 4 + 4;
    on_runtime(async {
        let stage = Stage::start(&[SLOW], |config| config.processes.max = max as u16).await;
        let pool = stage.handle();
        // The first wave is served by what a function of unknown pace may have, until its wait shows that it is slow.
        for reply in join_all((0..max).map(|_| get(&pool, "slow"))).await {
            assert!(reply.is_ok(), "{reply:?}");
        }
        assert_eq!(stage.load().processes, max as u32);
        stage.pools.stop().await;
    });
}

#[test]
fn fast_calls_that_wait_for_something_else_than_a_core_grow_the_pool() {
    let enough = std::thread::available_parallelism().unwrap().get() * 2;
    let max = enough + 60;
    let naps = ("nap", "function () { usleep(300); return 'rested'; }");
    on_runtime(async {
        let stage = Stage::start(&[naps], |config| config.processes.max = max as u16).await;
        let pool = stage.handle();
        stage.warm(&pool, "nap").await;
        let end = Instant::now() + PATIENCE;
        while stage.load().processes <= enough as u32 {
            assert!(Instant::now() < end, "{:?}", stage.load());
            // While the machine is too busy for it to be fast, fewer calls are let in.
            join_all((0..max * 5).map(|_| get(&pool, "nap"))).await;
        }
        stage.pools.stop().await;
    });
}

#[test]
fn a_pool_may_scale_to_zero_and_back() {
    on_runtime(async {
        let stage = Stage::start(&[SLOW], |config| {
            config.processes.min = 0;
            config.idle_timeout = "200ms".parse().unwrap();
        })
        .await;
        let pool = stage.handle();
        assert_eq!(stage.load().processes, 0);
        for _ in 0..2 {
            assert!(get(&pool, "slow").await.is_ok());
            stage.until("zero", |load| load.processes == 0).await;
        }
        stage.pools.stop().await;
    });
}

#[test]
fn processes_are_replaced_after_their_calls_without_a_failure() {
    on_runtime(async {
        let stage = Stage::start(&[("pid", "fn() => (string) getmypid()")], |config| config.max_requests = 10).await;
        let pool = stage.handle();
        let mut pids = std::collections::BTreeSet::new();
        for _ in 0..300 {
            for reply in join_all((0..2).map(|_| get(&pool, "pid"))).await {
                pids.insert(text(reply.unwrap().body).await);
            }
        }
        assert!(pids.len() >= 40, "{}", pids.len());
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}

#[test]
fn isolated_calls_share_nothing() {
    use troupe_php_pool::config::Isolation;
    on_runtime(async {
        for isolation in [Isolation::Fork, Isolation::Fresh] {
            let count = "function () { static $calls = 0; return (string) ++$calls; }";
            let stage = Stage::start(&[("count", count)], |config| config.isolation = isolation).await;
            let pool = stage.handle();
            for _ in 0..10 {
                assert_eq!(get_text(&pool, "count").await, "1", "{isolation:?}");
            }
            assert_eq!(stage.load().prefetch, 0);
            stage.pools.stop().await;
        }
    });
}

#[test]
fn streams_do_not_take_every_process() {
    let stream = "function () { while (true) { yield 'x'; usleep(10_000); } }";
    on_runtime(async move {
        let stage = Stage::start(&[("stream", stream), SLOW], |config| {
            config.processes.max = 4;
        })
        .await;
        let pool = stage.handle();
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut reply = get(&pool, "stream").await.unwrap();
            assert_eq!(reply.body.next().await.unwrap().unwrap(), "x");
            streams.push(reply);
        }
        let failure = get(&pool, "stream").await.unwrap_err();
        assert!(failure.reason.contains("streams"), "{failure:?}");
        assert!(get(&pool, "slow").await.is_ok());
        drop(streams);
        stage.until("the streams are over", |load| load.in_flight == 0).await;
        assert!(get(&pool, "stream").await.is_ok());
        stage.pools.stop().await;
    });
}

#[test]
fn a_reader_that_goes_away_stops_the_function_which_cleans_up() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("cleaned");
        let code = format!(
            "function () {{ try {{ while (true) {{ yield str_repeat('x', 1000); usleep(5_000); }} }} finally {{ touch('{}'); }} }}",
            mark.display()
        );
        let stage = Stage::start(&[("stream", &code)], |_| {}).await;
        let pool = stage.handle();
        let mut reply = get(&pool, "stream").await.unwrap();
        assert!(reply.body.next().await.unwrap().is_ok());
        drop(reply);
        eventually("its finally block ran", || mark.exists()).await;
        stage.until("replaced", |load| load.processes >= 2 && load.in_flight == 0).await;
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}

/// Each of them was replaced at once: clients that came and went had any number of processes started.
#[test]
fn streams_that_are_left_run_on_in_as_many_processes_as_there_may_be_streams() {
    let stream = "function () { echo getmypid(); flush(); sleep(100); }";
    on_runtime(async move {
        let stage = Stage::start(&[("stream", stream)], |config| {
            config.processes.max = 4;
            config.timeout = "90s".parse().unwrap();
        })
        .await;
        let pool = stage.handle();
        let mut left = Vec::new();
        for _ in 0..10 {
            let mut reply = get(&pool, "stream").await.unwrap();
            left.push(String::from_utf8(reply.body.next().await.unwrap().unwrap().to_vec()).unwrap());
            drop(reply);
            stage.until("it is left", |load| load.in_flight == 0).await;
        }
        let (first, last) = left.split_at(8);
        eventually("those left first are ended", || first.iter().all(|pid| !lives(pid))).await;
        assert!(last.iter().all(|pid| lives(pid)), "the others may find out by themselves");
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}

#[test]
fn a_function_whose_stream_was_left_takes_no_more_memory_than_another() {
    let hog = "function () {
        echo getmypid();
        flush();
        while (!file_exists($_GET['go'])) { usleep(1000); clearstatcache(); }
        $shm = shmop_open(ftok(__FILE__, 'l'), 'c', 0600, 96 << 20);
        shmop_delete($shm);
        for ($i = 0; $i < 96; $i++) { shmop_write($shm, str_repeat('x', 1 << 20), $i << 20); }
        sleep(100);
    }";
    on_runtime(async move {
        let stage = Stage::start(&[("hog", hog)], |config| {
            config.memory_limit = "32MiB".parse().unwrap();
            config.timeout = "90s".parse().unwrap();
        })
        .await;
        let go = stage.root.path().join("go");
        let mut reply = get(&stage.handle(), &format!("hog?go={}", go.display())).await.unwrap();
        let pid = String::from_utf8(reply.body.next().await.unwrap().unwrap().to_vec()).unwrap();
        drop(reply);
        stage.until("it is left", |load| load.in_flight == 0).await;
        assert!(lives(&pid));
        std::fs::write(go, "").unwrap();
        eventually("it is killed", || !lives(&pid)).await;
        stage.pools.stop().await;
    });
}

#[test]
fn a_stream_that_pauses_too_long_is_ended() {
    let stream = "function () { yield 'x'; sleep(100); yield 'y'; }";
    on_runtime(async move {
        let stage = Stage::start(&[("stream", stream)], |config| config.timeout = "300ms".parse().unwrap()).await;
        let pool = stage.handle();
        let mut reply = get(&pool, "stream").await.unwrap();
        assert_eq!(reply.body.next().await.unwrap().unwrap(), "x");
        assert!(reply.body.next().await.unwrap().is_err());
        stage.until("replaced", |load| load.restarts == 1 && load.in_flight == 0).await;
        stage.pools.stop().await;
    });
}

#[test]
fn a_large_reply_comes_whole_and_flat_in_memory() {
    const LEN: usize = 64 << 20;
    let large = "function () { for ($i = 0; $i < 1024; $i++) { yield str_repeat('x', 65536); } }";
    on_runtime(async move {
        let stage = Stage::start(&[("large", large)], |_| {}).await;
        let mut reply = get(&stage.handle(), "large").await.unwrap();
        let before = resident();
        let mut len = 0;
        while let Some(piece) = reply.body.next().await {
            len += piece.unwrap().len();
        }
        assert_eq!(len, LEN);
        assert!(resident().saturating_sub(before) < (LEN / 4) as u64);
        tokio::time::sleep(Duration::from_millis(10)).await;
        stage.pools.stop().await;
    });
}

#[test]
fn a_pool_that_cannot_load_leaves_the_others_alone() {
    use troupe_php_pool::config::PhpPoolConfig;
    use troupe_php_pool::{Options, PhpPools};
    on_runtime(async {
        let (sound, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(sound.path(), &[SLOW]);
        write(broken.path(), &[("vendor/autoload", "exit(3)"), SLOW]);
        let config =
            |root: &tempfile::TempDir| PhpPoolConfig { root: root.path().to_owned(), ..PhpPoolConfig::default() };
        let configs =
            [("default".to_owned(), config(&sound)), ("broken".to_owned(), config(&broken))].into_iter().collect();
        let pools = PhpPools::start(&configs, Options { threads: 1, development: false }).unwrap();
        let failed = pools.booted().await;
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(failed[0].0, "broken");
        let pool = pools.on_thread(0);
        for _ in 0..10 {
            assert!(get(&pool, "slow").await.is_ok());
        }
        pools.stop().await;
    });
}

#[test]
fn php_stands_back_behind_the_front() {
    let nice = "fn() => (string) pcntl_getpriority()";
    on_runtime(async move {
        for isolation in [Isolation::Shared, Isolation::Fresh] {
            let stage = Stage::start(&[("nice", nice)], |config| {
                config.nice = 7;
                config.isolation = isolation;
            })
            .await;
            let own = rustix::process::getpriority_process(None).unwrap();
            assert_eq!(get_text(&stage.handle(), "nice").await, (own + 7).min(19).to_string());
            stage.pools.stop().await;
        }
    });
}

/// While it is busy, the next process is there before the last call of the one before it.
#[test]
fn a_process_that_is_nearly_spent_has_its_successor() {
    let slow = "function () { usleep(50_000); return (string) getmypid(); }";
    on_runtime(async move {
        let stage = Stage::start(&[("slow", slow)], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
            config.max_requests = 32;
        })
        .await;
        let pool = stage.handle();
        let first = get_text(&pool, "slow").await;
        let most = std::cell::Cell::new(0);
        let until_another_answers = async { while get_text(&pool, "slow").await == first {} };
        let look = async {
            loop {
                most.set(most.get().max(stage.load().processes));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            () = until_another_answers => {}
            () = look => {}
        }
        assert_eq!(most.get(), 2, "the old and the new one");
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}
