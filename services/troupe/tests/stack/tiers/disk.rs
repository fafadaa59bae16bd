//! The embedded store's copy on disk: what was stored is there again after a kill, and what was purged is not.

use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{fs, io};

use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::wait;

use super::coherence::{QUERIES, Readers, admins, churn};
use super::{BOUND, Origin, await_live, embedded, get, metric, purge, purge_until_done, version};

/// A folder for a cache's file, and the setting that names it.
fn on_disk() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let setting = format!("cache.store.file = {:?}", folder.path().join("cache"));
    (folder, setting)
}

fn await_written(stack: &Stack, service: &str, answers: f64) {
    wait::until("it to be on the disk", BOUND, || {
        (metric(stack, service, "troupe_cache_disk_writes_total{result=\"written\"}") >= answers).then_some(())
    });
}

/// Kills the cache service and the gateway, which then has nothing of its own, and starts both again.
fn killed_and_back(stack: &mut Stack) {
    for service in ["cache", "gateway"] {
        stack.instance(service).kill();
        stack.restart(service);
    }
    await_live(stack);
    stack.await_serving(BOUND);
}

#[test]
fn what_was_stored_is_there_after_a_kill_and_what_was_purged_is_not() {
    let (_folder, setting) = on_disk();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = embedded(1, &origin.config(&setting));
    let address = stack.address;
    let mut written = 0.0;
    for (n, query) in QUERIES.iter().enumerate() {
        let current = n as u64 + 1;
        assert_eq!(version(&get(address, "/a")), current);
        written += 1.0;
        await_written(&stack, "cache", written);
        let asked = origin.asked("/a");
        killed_and_back(&mut stack);
        written = 0.0;
        let again = get(address, "/a");
        assert!(again.header("cache-status").starts_with("troupe-l2; hit"), "{:?}", again.headers);
        assert_eq!((version(&again), origin.asked("/a")), (current, asked));

        origin.version.store(current + 1, Ordering::SeqCst);
        // Killed right behind its answer.
        purge_until_done(stack.instance("gateway").admin, query);
        killed_and_back(&mut stack);
        assert_eq!(version(&get(address, "/a")), current + 1, "{query}");
        written += 1.0;
        await_written(&stack, "cache", written);
        purge_until_done(stack.instance("gateway").admin, "url=http://troupe.test/a");
    }
}

#[test]
fn what_is_purged_stays_purged_while_a_service_with_a_disk_is_killed() {
    let (_folder, setting) = on_disk();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let setting = format!("{setting}\ngateway.max_requests_per_connection = 100_000_000");
    let mut stack = embedded(3, &origin.config(&setting));
    let readers = Readers::start(&stack.addresses, "/a");
    let admins = admins(&stack);
    for _ in 0..4 {
        stack.instance("cache").kill();
        stack.restart("cache");
        churn(&origin, &readers, 10, |version| {
            purge_until_done(admins[version as usize % admins.len()], QUERIES[version as usize % QUERIES.len()]);
        });
    }
    assert!(readers.stop() > 40);
}

#[test]
fn a_service_that_stops_in_order_loses_nothing() {
    let (_folder, setting) = on_disk();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = embedded(1, &origin.config(&setting));
    for n in 0..20 {
        assert_eq!(version(&get(stack.address, &format!("/{n}"))), 1);
    }
    wait::until("all of it to be stored", BOUND, || {
        (metric(&stack, "cache", "troupe_cache_stores_total{result=\"stored\"}") >= 20.0).then_some(())
    });
    stack.instance("cache").signal(rustix::process::Signal::TERM);
    assert!(stack.instance("cache").wait().success(), "{}", stack.instance("cache").log());
    stack.restart("cache");
    killed_and_back(&mut stack);
    for n in 0..20 {
        let again = get(stack.address, &format!("/{n}"));
        assert!(again.header("cache-status").starts_with("troupe-l2; hit"), "{n}: {:?}", again.headers);
    }
}

#[test]
fn one_process_keeps_its_cache_over_a_restart() {
    let (_folder, setting) = on_disk();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let config = format!("redis.timeout = \"500ms\"\n{}", origin.config(&setting));
    let mut stack = Stack::one_process(crate::support::binary(), &crate::support::functions(), &config);
    await_live(&stack);
    assert_eq!(version(&get(stack.address, "/a")), 1);
    await_written(&stack, "gateway", 1.0);
    stack.instance("gateway").kill();
    stack.restart("gateway");
    await_live(&stack);
    let again = get(stack.address, "/a");
    assert!(again.header("cache-status").starts_with("troupe-l2; hit"), "{:?}", again.headers);
    assert_eq!((version(&again), origin.asked("/a")), (1, 1));
    origin.version.store(2, Ordering::SeqCst);
    purge_until_done(stack.instance("gateway").admin, "group=things");
    stack.instance("gateway").kill();
    stack.restart("gateway");
    await_live(&stack);
    assert_eq!(version(&get(stack.address, "/a")), 2);
}

#[test]
fn a_file_of_something_else_is_moved_aside_and_said() -> io::Result<()> {
    let (folder, setting) = on_disk();
    fs::write(folder.path().join("cache"), "somebody's notes")?;
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = embedded(1, &origin.config(&setting));
    assert_eq!(fs::read_to_string(folder.path().join("cache.aside"))?, "somebody's notes");
    let log = stack.instance("cache").log();
    assert!(log.contains("it was moved aside, and the cache begins empty"), "{log}");
    assert_eq!(version(&get(stack.address, "/a")), 1);
    await_written(&stack, "cache", 1.0);
    assert_eq!(purge(stack.instance("cache").admin, "all=true").status, 200);
    Ok(())
}

#[test]
fn what_has_to_make_room_is_counted_in_memory_and_on_disk() {
    const SIZE: usize = 64 * 1024;
    const URLS: usize = 100;
    let server = Upstream::start(|exchange| {
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {SIZE}\r\n\r\n");
        exchange.send([head.as_bytes(), &[b'x'; SIZE]].concat())?;
        Ok(Then::Keep)
    });
    let origin = Origin { server, version: std::sync::Arc::default() };
    let (_folder, on_disk) = on_disk();
    let stack = embedded(1, &origin.config(&format!("cache.l1.size = \"0B\"\ncache.store.size = \"2MiB\"\n{on_disk}")));
    for n in 0..URLS {
        assert_eq!(get(stack.address, &format!("/{n}")).body.len(), SIZE);
    }
    await_written(&stack, "cache", URLS as f64);
    // 32 of them fit either at most.
    for store in ["memory", "disk"] {
        wait::until("what made room to be counted", BOUND, || {
            let evicted = metric(&stack, "cache", &format!("troupe_cache_evicted_total{{store=\"{store}\"}}"));
            assert!(evicted <= URLS as f64, "{store}: {evicted}");
            (evicted >= (URLS - 32) as f64).then_some(())
        });
    }
    assert!(metric(&stack, "cache", "troupe_cache_objects") <= 32.0);
}
