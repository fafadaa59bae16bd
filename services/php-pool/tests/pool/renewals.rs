//! Processes and code are replaced while calls go on, and code that is broken changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use troupe_php_pool::config::Isolation;
use troupe_php_pool::{RenewError, Renewal};

use crate::support::*;

const OLD: (&str, &str) = ("version", "function () { usleep(2000); return 'old ' . getmypid(); }");
const NEW: (&str, &str) = ("version", "function () { usleep(2000); return 'new ' . getmypid(); }");
/// Longer than what is about to end is waited for.
const SLOW: (&str, &str) = ("slow", "function () { usleep(3500000); return 'done'; }");

/// Calls `version` from four clients until `until` is done; every answer.
async fn under_load<T>(stage: &Stage, until: impl Future<Output = T>) -> (Vec<String>, T) {
    let stop = std::rc::Rc::new(std::cell::Cell::new(false));
    let clients = (0..4).map(|_| {
        let (pool, stop) = (stage.handle(), stop.clone());
        async move {
            let mut answers = Vec::new();
            while !stop.get() {
                answers.push(get_text(&pool, "version").await);
            }
            answers
        }
    });
    let ended = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let end = until.await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.set(true);
        end
    };
    let (answers, end) = tokio::join!(join_all(clients), ended);
    (answers.into_iter().flatten().collect(), end)
}

fn pids(answers: &[String]) -> BTreeSet<&str> {
    answers.iter().filter_map(|answer| answer.split(' ').nth(1)).collect()
}

#[test]
fn a_restart_replaces_every_process_and_fails_no_call() {
    on_runtime(async {
        let stage = Stage::start(&[OLD, SLOW], |config| config.processes.min = 3).await;
        let pool = stage.handle();
        let (before, ()) = under_load(&stage, async {}).await;
        let before = pids(&before);
        // One that is in the middle of a call ends it.
        let slow = actix_rt::spawn({
            let pool = pool.clone();
            async move { get_text(&pool, "slow").await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (answers, renewed) = under_load(&stage, stage.pools.renew("default", Renewal::Processes)).await;
        let renewed = renewed.unwrap();
        assert!(renewed.replaced >= 3, "{renewed:?}");
        assert!(answers.iter().all(|answer| answer.starts_with("old ")), "{answers:?}");
        let (after, ()) = under_load(&stage, async {}).await;
        assert!(pids(&after).is_disjoint(&before), "{before:?} then {:?}", pids(&after));
        assert_eq!(slow.await.unwrap(), "done");
        eventually("the old ones end", || before.iter().all(|pid| !lives(pid))).await;
        assert_eq!(stage.load().restarts, 0, "a planned end is no failure");
        stage.pools.stop().await;
    });
}

#[test]
fn a_reload_brings_new_code_to_every_new_call_and_fails_none() {
    on_runtime(async {
        let stage = Stage::start(&[OLD, SLOW], |config| config.processes.min = 3).await;
        let pool = stage.handle();
        let slow = actix_rt::spawn({
            let pool = pool.clone();
            async move { get_text(&pool, "slow").await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        for round in 0..3 {
            let code = if round % 2 == 0 { NEW } else { OLD };
            write(stage.root.path(), &[code, ("added", "fn() => 'added'")]);
            let (answers, renewed) = under_load(&stage, stage.pools.renew("default", Renewal::Code)).await;
            assert_eq!(renewed.unwrap().functions, 3);
            assert!(answers.len() > 8, "{answers:?}");
            // What comes after the end of the reload comes from the new code, and nothing else does.
            let word = if round % 2 == 0 { "new " } else { "old " };
            let (after, ()) = under_load(&stage, async {}).await;
            assert!(after.iter().all(|answer| answer.starts_with(word)), "{round}: {after:?}");
            assert_eq!(get_text(&pool, "added").await, "added");
        }
        assert_eq!(slow.await.unwrap(), "done");
        std::fs::remove_file(stage.root.path().join("added.php")).unwrap();
        stage.pools.renew("default", Renewal::Code).await.unwrap();
        assert_eq!(get(&pool, "added").await.unwrap_err().status, Some(404));
        stage.until("as many as there should be", |load| load.processes >= 3).await;
        stage.pools.stop().await;
    });
}

#[test]
fn code_that_is_broken_leaves_the_old_serving_and_says_where() {
    on_runtime(async {
        let stage = Stage::start(&[OLD, HELLO], |_| {}).await;
        let pool = stage.handle();
        let broken = [("version", "function ( { }", "version.php:2"), ("hello", "42", "hello.php")];
        for (name, code, place) in broken {
            write(stage.root.path(), &[OLD, HELLO]);
            write(stage.root.path(), &[(name, code)]);
            let (answers, renewed) = under_load(&stage, stage.pools.renew("default", Renewal::Code)).await;
            let Err(RenewError::Broken(why)) = renewed else { panic!("{name}: {renewed:?}") };
            assert!(why.contains(place), "{why}");
            assert!(!answers.is_empty() && answers.iter().all(|answer| answer.starts_with("old ")), "{answers:?}");
        }
        // All of it is gone.
        for name in ["version", "hello"] {
            std::fs::remove_file(stage.root.path().join(format!("{name}.php"))).unwrap();
        }
        assert!(matches!(stage.pools.renew("default", Renewal::Code).await, Err(RenewError::Broken(_))));
        assert!(get_text(&pool, "version").await.starts_with("old "));
        // And repaired.
        write(stage.root.path(), &[NEW, HELLO]);
        stage.pools.renew("default", Renewal::Code).await.unwrap();
        assert!(get_text(&pool, "version").await.starts_with("new "));
        assert_eq!(stage.load().restarts, 0);
        assert_eq!(stage.pools.renew("none", Renewal::Code).await, Err(RenewError::NoPool("none".to_owned())));
        stage.pools.stop().await;
    });
}

#[test]
fn the_only_function_is_named_where_it_is_broken() {
    on_runtime(async {
        let stage = Stage::start(&[HELLO], |_| {}).await;
        write(stage.root.path(), &[("hello", "function ( {")]);
        let renewed = stage.pools.renew("default", Renewal::Code).await;
        assert!(matches!(&renewed, Err(RenewError::Broken(why)) if why.contains("hello.php:2")), "{renewed:?}");
        stage.pools.stop().await;
    });
}

#[test]
fn a_pool_whose_code_never_loaded_takes_a_reload_as_its_next_try() {
    on_runtime(async {
        let prelude = "vendor/autoload";
        let stage = Stage::start_unready(&[OLD, (prelude, "throw new Exception('no database')")], |_| {});
        assert_eq!(stage.pools.booted().await.len(), 1);
        let renewed = stage.pools.renew("default", Renewal::Code).await;
        assert!(matches!(&renewed, Err(RenewError::Down(why)) if why.contains("no database")), "{renewed:?}");
        write(stage.root.path(), &[(prelude, "1")]);
        stage.pools.renew("default", Renewal::Code).await.unwrap();
        assert!(get_text(&stage.handle(), "version").await.starts_with("old "));
        stage.pools.stop().await;
    });
}

/// The boot that was under way had read the files already, and what it brought was told as the new code.
#[test]
fn a_reload_during_a_boot_brings_what_has_changed_meanwhile() {
    // Loaded behind `version`; says that it is, and waits.
    let waits = "(function () {
        while (file_exists(__DIR__ . '/hold')) { touch(__DIR__ . '/held'); usleep(1000); clearstatcache(); }
        return fn() => 'waited';
    })()";
    for isolation in [Isolation::Shared, Isolation::Fresh] {
        on_runtime(async move {
            let stage = Stage::start_unready(&[OLD, ("waits", waits)], |config| {
                config.isolation = isolation;
                std::fs::write(config.root.join("hold"), "").unwrap();
            });
            let is_held = || stage.root.path().join("held").exists();
            eventually("the old code is read", is_held).await;
            write(stage.root.path(), &[NEW]);
            let reload = stage.pools.renew("default", Renewal::Code);
            let another = stage.pools.renew("default", Renewal::Code);
            std::fs::remove_file(stage.root.path().join("hold")).unwrap();
            assert!(reload.await.is_ok(), "{isolation:?}");
            assert_eq!(another.await, Err(RenewError::Busy), "{isolation:?}");
            assert!(get_text(&stage.handle(), "version").await.starts_with("new "), "{isolation:?}");
            assert_eq!(stage.load().restarts, 0, "{isolation:?}");
            stage.pools.stop().await;
        });
    }
}

#[test]
fn without_a_zygote_and_with_a_fork_for_each_call_it_works_as_well() {
    for isolation in [Isolation::Fresh, Isolation::Fork] {
        on_runtime(async move {
            let stage = Stage::start(&[OLD], |config| config.isolation = isolation).await;
            let pool = stage.handle();
            stage.pools.renew("default", Renewal::Processes).await.unwrap();
            write(stage.root.path(), &[NEW]);
            let (_, renewed) = under_load(&stage, stage.pools.renew("default", Renewal::Code)).await;
            renewed.unwrap();
            for _ in 0..6 {
                assert!(get_text(&pool, "version").await.starts_with("new "), "{isolation:?}");
            }
            stage.pools.stop().await;
        });
    }
}
