//! Pools are configured anew while calls go on: whole and verified, or not at all.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use troupe_mesh::body::Body;
use troupe_mesh::failure::Failure;
use troupe_php_pool::PhpPool;
use troupe_php_pool::config::{IniValue, Isolation, PhpPoolConfig, Processes};
use troupe_php_pool::error::ReloadError;

use crate::support::*;

const TOLD: (&str, &str) = (
    "told",
    "function () { static $calls = 0; $calls++; return getmypid() . ' ' . ini_get('precision') . ' ' . getenv('MOOD') . ' ' . $calls; }",
);
const SLOW: (&str, &str) = ("slow", "function () { usleep(1500000); return getmypid(); }");
const LONG: (&str, &str) = ("long", "function () { usleep(400000); return 'done'; }");

/// What differs in a configuration.
type Change<'a> = Box<dyn FnOnce(&mut PhpPoolConfig) + 'a>;

fn configs(stage: &Stage, configure: impl FnOnce(&mut PhpPoolConfig)) -> BTreeMap<String, PhpPoolConfig> {
    let mut config = PhpPoolConfig { root: stage.root.path().to_owned(), ..PhpPoolConfig::default() };
    configure(&mut config);
    BTreeMap::from([("default".to_owned(), config)])
}

async fn reload(stage: &Stage, configs: &BTreeMap<String, PhpPoolConfig>) -> Result<(), ReloadError> {
    let prepared = stage.pools.prepare(configs).await?;
    stage.pools.commit(prepared);
    stage.pools.retire(false);
    Ok(())
}

async fn of(pool: &Rc<PhpPool>, name: &str, function: &str) -> Result<u16, Failure> {
    let mut call = invoke(function, "GET", "/", &[], Body::Empty);
    call.pool = name.into();
    send(pool, call).await.map(|reply| reply.head.status())
}

fn processes(min: u16, max: u16) -> Processes {
    Processes { min, max }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn everything_that_is_said_of_a_pool_changes_and_no_call_fails() {
    on_runtime(async {
        let stage = Stage::start(&[TOLD, SLOW, LONG], |config| config.processes.min = 2).await;
        let pool = stage.handle();
        let slow = actix_rt::spawn({
            let pool = pool.clone();
            async move { get_text(&pool, "slow").await }
        });
        let stop = Rc::new(std::cell::Cell::new(false));
        let clients = (0..4).map(|_| {
            let (pool, stop) = (stage.handle(), stop.clone());
            actix_rt::spawn(async move {
                let mut answers = Vec::new();
                while !stop.get() {
                    answers.push(get_text(&pool, "told").await);
                }
                answers
            })
        });
        let clients: Vec<_> = clients.collect();
        tokio::time::sleep(Duration::from_millis(100)).await;

        let wanted = configs(&stage, |config| {
            config.processes.min = 3;
            config.processes.max = 5;
            config.ini.insert("precision".to_owned(), IniValue::Number(9));
            config.env.insert("MOOD".to_owned(), "new".to_owned());
            config.isolation = Isolation::Fork;
            config.timeout = troupe_node::units::Duration::from_millis(200);
        });
        reload(&stage, &wanted).await.unwrap();
        // The very next call, on every thread's handle, is as configured anew.
        let answer = get_text(&pool, "told").await;
        assert!(answer.contains(" 9 new 1"), "{answer}");
        let status = stage.pools.status();
        assert_eq!((status.len(), status[0].min, status[0].max), (1, 3, 5));
        assert!(get(&pool, "long").await.is_err(), "the new timeout is in force");
        // One that is in the middle of a call ends it, past the new timeout.
        let old = slow.await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.set(true);
        let answers: Vec<String> = join_all(clients).await.into_iter().flat_map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| answer.contains(" 14  ") || answer.contains(" 9 new 1")), "{answers:?}");
        until("the old processes to be gone", || !lives(&old)).await;
    });
}

#[test]
fn what_cannot_serve_changes_nothing_and_leaves_nothing_behind() {
    on_runtime(async {
        let stage = Stage::start(&[TOLD], |config| config.processes = processes(1, 1)).await;
        let pool = stage.handle();
        let before = get_text(&pool, "told").await;
        let pid = before.split(' ').next().unwrap().to_owned();
        let broken = tempfile::tempdir().unwrap();
        write(broken.path(), &[("told", "function ( {")]);
        let empty = tempfile::tempdir().unwrap();
        let crashing = tempfile::tempdir().unwrap();
        write(crashing.path(), &[TOLD]);
        std::fs::create_dir(crashing.path().join("vendor")).unwrap();
        std::fs::write(crashing.path().join("vendor/autoload.php"), "<?php throw new Exception('no luck');").unwrap();
        let right = |config: &mut PhpPoolConfig| config.processes = processes(1, 1);
        let wrong: [(&str, Change<'_>); 6] = [
            ("told.php", Box::new(|config| config.root = broken.path().to_owned())),
            ("no function", Box::new(|config| config.root = empty.path().to_owned())),
            ("no luck", Box::new(|config| config.root = crashing.path().to_owned())),
            ("cannot run", Box::new(|config| config.binary = "/nowhere/php".to_owned())),
            ("no user", Box::new(|config| config.user = "nobody-of-that-name".to_owned())),
            ("cannot make", Box::new(|config| config.spool_dir = "/nowhere/at/all".into())),
        ];
        for (said, change) in wrong {
            let mut all = configs(&stage, |config| {
                right(config);
                change(config);
            });
            // What is right beside it is not taken either.
            let more = PhpPoolConfig { root: stage.root.path().to_owned(), ..PhpPoolConfig::default() };
            all.insert("amore".to_owned(), more);
            let error = reload(&stage, &all).await.unwrap_err().to_string();
            assert!(error.contains(said), "{said}: {error}");
            assert_eq!(of(&pool, "amore", "told").await.unwrap_err().status, Some(404));
            assert!(get_text(&pool, "told").await.starts_with(&format!("{pid} ")), "the same process serves");
        }
        let names: Vec<String> = stage.pools.status().into_iter().map(|status| status.pool).collect();
        assert_eq!(names, ["default"]);
        // The same configuration again is no change at all.
        reload(&stage, &configs(&stage, right)).await.unwrap();
        assert!(get_text(&pool, "told").await.starts_with(&format!("{pid} ")));
    });
}

#[test]
fn pools_come_and_go_and_come_back() {
    on_runtime(async {
        let stage = Stage::start(&[TOLD], |config| config.processes = processes(1, 2)).await;
        let pool = stage.handle();
        let one = configs(&stage, |config| config.processes = processes(1, 2));
        let mut two = one.clone();
        two.insert("more".to_owned(), one["default"].clone());
        for _ in 0..2 {
            assert_eq!(of(&pool, "more", "told").await.unwrap_err().status, Some(404));
            reload(&stage, &two).await.unwrap();
            assert_eq!(of(&pool, "more", "told").await.unwrap(), 200);
            reload(&stage, &one).await.unwrap();
            assert_eq!(of(&pool, "more", "told").await.unwrap(), 200, "who was on the way there still arrives");
            until("the pool to be gone", || stage.pools.status().len() == 1).await;
        }
        // Taken back while it is about to go.
        reload(&stage, &two).await.unwrap();
        reload(&stage, &one).await.unwrap();
        reload(&stage, &two).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(of(&pool, "more", "told").await.unwrap(), 200);
    });
}

#[test]
fn a_pool_without_forks_is_configured_anew_as_well() {
    on_runtime(async {
        let fresh = |config: &mut PhpPoolConfig| {
            config.isolation = Isolation::Fresh;
            config.processes = processes(1, 2);
        };
        let stage = Stage::start(&[TOLD], fresh).await;
        let pool = stage.handle();
        assert!(get_text(&pool, "told").await.contains(" 14  1"));
        let wanted = configs(&stage, |config| {
            fresh(config);
            config.env.insert("MOOD".to_owned(), "new".to_owned());
        });
        reload(&stage, &wanted).await.unwrap();
        assert!(get_text(&pool, "told").await.contains(" 14 new 1"));
    });
}

/// What is edited is what the next call runs: no process has read the code before it.
#[test]
fn with_a_fresh_php_and_none_kept_each_call_runs_the_code_of_now() {
    on_runtime(async {
        let stage = Stage::start(&[("version", "function () { return '0'; }")], |config| {
            config.isolation = Isolation::Fresh;
            config.processes = processes(0, 4);
        })
        .await;
        let pool = stage.handle();
        // The one that showed that the code can be loaded has read it.
        until("no process to be there", || stage.pools.status()[0].load.processes == 0).await;
        for version in 1..=5 {
            assert_eq!(get_text(&pool, "version").await, (version - 1).to_string());
            // A spare would have read the code by then.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let body = format!("function () {{ return '{version}'; }}");
            write(stage.root.path(), &[("version", &body)]);
            assert_eq!(get_text(&pool, "version").await, version.to_string());
        }
    });
}
