//! Everything that can happen to a process, and that nobody but its own call notices.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Outcome, Stage as At, Started};
use troupe_mesh::port::Service as _;

use crate::support::*;

const HANG: (&str, &str) = ("hang", "function () { while (true) { sleep(100); } }");
const SUICIDE: (&str, &str) = ("suicide", "function () { posix_kill(getmypid(), SIGKILL); sleep(10); }");

#[test]
fn a_process_killed_in_a_call_is_a_502_and_replaced() {
    on_runtime(async {
        let stage = Stage::start(&[SUICIDE, PID], |_| {}).await;
        let pool = stage.handle();
        let failure = get(&pool, "suicide").await.unwrap_err();
        assert_eq!((failure.outcome, failure.stage, failure.started), (Outcome::Broken, At::Php, Started::Maybe));
        for _ in 0..10 {
            assert!(get(&pool, "pid").await.is_ok());
        }
        stage.until("replaced and counted", |load| load.processes == 2 && load.restarts == 1).await;
        stage.pools.stop().await;
    });
}

/// What a call leaves is taken away behind its reply, when the next one stands in the pipe already.
#[test]
fn a_process_that_dies_of_what_a_call_left_costs_the_next_one_nothing() {
    let leaves = "function () {
        $GLOBALS['left'] = new class { function __destruct() { usleep(100_000); posix_kill(getmypid(), SIGKILL); } };
        return 'left';
    }";
    let length = "fn() => (string) strlen(file_get_contents('php://input'))";
    on_runtime(async move {
        let stage = Stage::start(&[("leaves", leaves), ("length", length)], |config| {
            (config.processes.min, config.processes.max) = (1, 1);
        })
        .await;
        let pool = stage.handle();
        // The longer one takes several packets of the pipe.
        for (round, len) in [100, 20_000, 100, 20_000].into_iter().enumerate() {
            assert_eq!(get_text(&pool, "leaves").await, "left");
            let next = send(&pool, invoke("length", "POST", "/length", &[], full(vec![b'x'; len]))).await;
            assert_eq!(text(next.unwrap().body).await, len.to_string());
            stage.until("its end is seen", |load| load.restarts as usize == round + 1).await;
        }
        stage.pools.stop().await;
    });
}

#[test]
fn a_call_that_takes_too_long_is_a_504_and_the_others_do_not_notice() {
    on_runtime(async {
        let stage = Stage::start(&[HANG, PID], |config| config.timeout = "500ms".parse().unwrap()).await;
        let pool = stage.handle();
        let begun = Instant::now();
        let others = async {
            let mut calls = 0;
            while begun.elapsed() < Duration::from_millis(700) {
                get(&pool, "pid").await.unwrap();
                calls += 1;
            }
            calls
        };
        let (hung, calls) = tokio::join!(get(&pool, "hang"), others);
        let failure = hung.unwrap_err();
        assert_eq!((failure.outcome, failure.stage), (Outcome::Deadline, At::Php));
        assert!(calls > 50, "{calls}");
        stage.until("replaced", |load| load.processes >= 2 && load.restarts == 1 && load.in_flight == 0).await;
        stage.pools.stop().await;
    });
}

#[test]
fn exit_is_a_reply() {
    on_runtime(async {
        let stage =
            Stage::start(&[("leave", "function () { http_response_code(403); echo 'x'; exit; }"), PID], |_| {}).await;
        let pool = stage.handle();
        for _ in 0..20 {
            let reply = get(&pool, "leave").await.unwrap();
            assert_eq!(reply.head.status(), 403);
            assert_eq!(text(reply.body).await, "x");
        }
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}

#[test]
fn errors_are_500_and_tell_the_log_where() {
    let functions = [
        ("throws", "fn() => throw new RuntimeException('no luck')"),
        ("fatal", "function () { eval('abstract final class X {}'); }"),
        ("memory", "function () { $a = []; while (true) { $a[] = str_repeat('x', 1 << 20); } }"),
        PID,
    ];
    on_runtime(async move {
        let stage = Stage::start(&functions, |config| config.memory_limit = "16MiB".parse().unwrap()).await;
        let pool = stage.handle();
        for (function, word) in [("throws", "no luck"), ("memory", "Allowed memory size")] {
            let failure = get(&pool, function).await.unwrap_err();
            assert_eq!((failure.outcome, failure.stage), (Outcome::Internal, At::Php), "{failure:?}");
            let detail = failure.detail.unwrap();
            assert!(detail.contains(word) && detail.contains(".php:"), "{detail}");
            assert!(!failure.reason.contains(word));
        }
        assert!(get(&pool, "fatal").await.is_err());
        assert!(get(&pool, "pid").await.is_ok());
        stage.until("all there", |load| load.processes >= 2).await;
        stage.pools.stop().await;
    });
}

#[test]
fn more_memory_than_memory_hard_is_the_end() {
    let hog = "function () { $shm = shmop_open(0x7457, 'n', 0600, 96 << 20) ?: shmop_open(0x7457, 'c', 0600, 96 << 20); shmop_delete($shm); \
               for ($i = 0; $i < 96; $i++) { shmop_write($shm, str_repeat('x', 1 << 20), $i << 20); } sleep(20); return 'kept'; }";
    on_runtime(async move {
        let stage = Stage::start(&[("hog", hog), PID], |config| {
            config.memory_limit = "32MiB".parse().unwrap();
            config.timeout = "25s".parse().unwrap();
        })
        .await;
        let pool = stage.handle();
        let failure = get(&pool, "hog").await.unwrap_err();
        assert_eq!(failure.outcome, Outcome::Broken, "{failure:?}");
        assert!(failure.reason.contains("memory"), "{failure:?}");
        assert!(get(&pool, "pid").await.is_ok());
        stage.pools.stop().await;
    });
}

#[test]
fn a_caller_that_goes_away_leaves_the_process_in_order() {
    let steps = "function () { usleep(300_000); return $_GET['n']; }";
    on_runtime(async move {
        let stage = Stage::start(&[("steps", steps), PID], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
        })
        .await;
        let pool = stage.handle();
        let pid = get_text(&pool, "pid").await;
        for _ in 0..3 {
            let given_up = tokio::time::timeout(Duration::from_millis(5), get(&pool, "steps?n=1")).await;
            assert!(given_up.is_err());
            stage.until("the call has ended", |load| load.in_flight == 0 && load.busy == 0).await;
            assert_eq!(get_text(&pool, "steps?n=2").await, "2");
        }
        assert_eq!(get_text(&pool, "pid").await, pid);
        stage.pools.stop().await;
    });
}

#[test]
fn an_idle_process_that_is_killed_costs_no_call() {
    on_runtime(async {
        let stage = Stage::start(&[PID], |_| {}).await;
        let pool = stage.handle();
        for _ in 0..20 {
            let pid = get_text(&pool, "pid").await;
            kill(&pid);
            eventually("it is dead", || !lives(&pid)).await;
            assert!(get(&pool, "pid").await.is_ok());
        }
        stage.pools.stop().await;
    });
}

#[test]
fn a_zygote_that_is_killed_is_replaced_with_all_its_processes() {
    on_runtime(async {
        let stage = Stage::start(&[("both", "fn() => getmypid() . ' ' . posix_getppid()")], |_| {}).await;
        let pool = stage.handle();
        let first = get_text(&pool, "both").await;
        let (process, zygote) = first.split_once(' ').unwrap();
        kill(zygote);
        eventually("its processes are gone", || !lives(process)).await;
        let deadline = Instant::now() + PATIENCE;
        let second = loop {
            match get(&pool, "both").await {
                Ok(reply) => break text(reply.body).await,
                Err(failure) => assert_eq!(failure.outcome, Outcome::Overloaded, "{failure:?}"),
            }
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_ne!(second.split_once(' ').unwrap().1, zygote);
        stage.pools.stop().await;
    });
}

#[test]
fn a_thousand_deaths_leave_no_zombie_and_no_descriptor() {
    const DEATHS: usize = 1_000;
    on_runtime(async {
        let stage = Stage::start(&[SUICIDE, PID], |config| {
            config.processes.min = 4;
            config.processes.max = 8;
        })
        .await;
        let pool = stage.handle();
        get(&pool, "pid").await.unwrap();
        let before = descriptors();
        let mut died = 0;
        while died < DEATHS {
            for reply in join_all((0..4).map(|_| get(&pool, "suicide"))).await {
                match reply.unwrap_err() {
                    failure if failure.outcome == Outcome::Broken => died += 1,
                    failure => assert_eq!(failure.outcome, Outcome::Overloaded, "{failure:?}"),
                }
            }
        }
        assert!(get(&pool, "pid").await.is_ok());
        stage.until("all buried", |load| load.restarts as usize == DEATHS && load.processes >= 4).await;
        assert_eq!(zombies(), 0);
        eventually("the descriptors are back", || descriptors() < before + 40).await;
        stage.pools.stop().await;
    });
}

#[test]
fn code_that_does_not_load_is_a_503_until_it_does() {
    on_runtime(async {
        let stage = Stage::start_unready(&[PID], |config| {
            write(&config.root, &[("vendor/autoload", "throw new Exception('no autoloader today')")]);
        });
        let failed = stage.pools.booted().await;
        assert!(failed[0].1.contains("no autoloader today") && failed[0].1.contains("autoload.php:2"), "{failed:?}");
        let pool = stage.handle();
        let failure = get(&pool, "pid").await.unwrap_err();
        assert_eq!((failure.outcome, failure.started), (Outcome::Overloaded, Started::No));
        assert!(!failure.reason.contains("autoload"), "{failure:?}");
        std::fs::remove_file(stage.root.path().join("vendor/autoload.php")).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while get(&pool, "pid").await.is_err() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stage.pools.stop().await;
    });
}

#[test]
fn an_expired_call_in_a_pipe_is_not_started() {
    on_runtime(async {
        let touch = "function () { if (isset($_GET['sleep'])) { usleep(200_000); } else { touch($_GET['file'] ?? '/dev/null'); } return 'ok'; }";
        let stage = Stage::start(&[("touch", touch)], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
        })
        .await;
        let pool = stage.handle();
        stage.warm(&pool, "touch").await;
        let file = stage.root.path().join("touched");
        let target = format!("/touch?file={}", file.display());
        let late = pool.call(Envelope::new(
            invoke("touch", "GET", &target, &[], Body::Empty),
            Deadline::after(Duration::from_millis(50)),
        ));
        let (first, second) = tokio::join!(get(&pool, "touch?sleep"), late);
        assert!(first.is_ok());
        let failure = second.unwrap_err();
        assert_eq!((failure.outcome, failure.stage, failure.started), (Outcome::Deadline, At::PhpPool, Started::No));
        stage.until("drained", |load| load.busy == 0).await;
        assert!(!file.exists());
        assert_eq!(get_text(&pool, "touch").await, "ok");
        stage.pools.stop().await;
    });
}

/// Its reply had no time to say that it was not started: the process was killed as if it hung.
#[test]
fn a_call_that_expires_in_its_seat_costs_no_process() {
    on_runtime(async {
        let nap = "function () { usleep((int) ($_GET['for'] ?? 0)); return 'ok'; }";
        let stage = Stage::start(&[("nap", nap)], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
        })
        .await;
        let pool = stage.handle();
        for _ in 0..5 {
            stage.warm(&pool, "nap").await;
            let late = pool.call(Envelope::new(
                invoke("nap", "GET", "/nap", &[], Body::Empty),
                Deadline::after(Duration::from_millis(4)),
            ));
            let (first, second) = tokio::join!(get(&pool, "nap?for=12000"), late);
            assert!(first.is_ok(), "{first:?}");
            assert_eq!(second.unwrap_err().started, Started::No);
            stage.until("drained", |load| load.busy == 0).await;
        }
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}

/// Dropped where nothing takes it, the turn of a call that nobody waits for was handed on to itself until the stack was full.
#[test]
fn a_call_that_nobody_waits_for_may_outlive_its_thread() {
    on_runtime(async {
        let stage = Stage::start(&[("slow", "function () { usleep(500_000); return 'ok'; }")], |_| {}).await;
        let pool = stage.handle();
        let calls: Vec<_> =
            (0..2).map(|_| pool.clone()).map(|pool| actix_rt::spawn(async move { get(&pool, "slow").await })).collect();
        stage.until("under way", |load| load.busy == 2).await;
        if let Some(first) = calls.first() {
            first.abort();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        // The runtime ends here, with one call that was left, and one that is waited for.
    });
}

#[test]
fn when_the_pools_process_is_killed_nothing_of_it_stays() {
    use troupe_php_pool::config::Isolation;
    const DIR: &str = "TROUPE_TEST_DIR";
    const MODE: &str = "TROUPE_TEST_MODE";
    const HANG: &str = "function () { file_put_contents($_GET['file'], getmypid()); while (true) { sleep(100); } }";
    if let Some(dir) = std::env::var_os(DIR) {
        let file = std::path::Path::new(&dir).join("hung").display().to_string();
        let mode = std::env::var(MODE).unwrap();
        let isolation = if mode == "fresh" { Isolation::Fresh } else { Isolation::Shared };
        on_runtime(async move {
            if mode == "loading" {
                let endless =
                    format!("(function () {{ file_put_contents('{file}', getmypid()); while (true) {{}} }})()");
                let stage = Stage::start_unready(&[("endless", &endless)], |_| {});
                stage.pools.booted().await;
            }
            // The process that is to be killed: with an idle PHP process, and one in a call.
            let stage = Stage::start(&[("hang", HANG)], |config| config.isolation = isolation).await;
            let _ = get(&stage.handle(), &format!("hang?file={file}")).await;
        });
        return;
    }
    for (mode, least) in [("shared", 2), ("fresh", 2), ("loading", 1)] {
        on_runtime(async {
            let dir = tempfile::tempdir().unwrap();
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "deaths::when_the_pools_process_is_killed_nothing_of_it_stays", "--nocapture"]);
            command.env(DIR, dir.path()).env(MODE, mode);
            let mut child = command.spawn().unwrap();
            let id = child.id().to_string();
            let mut hung = String::new();
            eventually("it serves", || {
                hung = std::fs::read_to_string(dir.path().join("hung")).unwrap_or_default();
                !hung.is_empty() && family(&id).len() >= least
            })
            .await;
            let family = family(&id);
            assert!(family.contains(&hung), "{mode}: {hung} {family:?}");
            let begun = Instant::now();
            child.kill().unwrap();
            child.wait().unwrap();
            eventually("all are gone", || family.iter().all(|pid| !lives(pid))).await;
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        });
    }
}

#[test]
fn php_runs_as_the_user_it_is_told_to() {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    on_runtime(async {
        let functions = [
            ("who", "fn() => posix_geteuid() . ' ' . posix_getegid() . ' ' . implode(',', posix_getgroups())"),
            ("len", "fn() => (string) strlen(file_get_contents('php://input'))"),
        ];
        let stage = Stage::start(&functions, |config| {
            std::fs::set_permissions(&config.root, std::fs::Permissions::from_mode(0o755)).unwrap();
            config.user = "65534:65534".to_owned();
        })
        .await;
        let pool = stage.handle();
        assert_eq!(get_text(&pool, "who").await.split(',').next(), Some("65534 65534 "), "no group of root's is left");
        let reply = send(&pool, invoke("len", "PUT", "/", &[], full(vec![0; 1 << 20]))).await.unwrap();
        assert_eq!(text(reply.body).await, (1 << 20).to_string());
        stage.pools.stop().await;
    });
}

fn kill(pid: &str) {
    signal(pid, rustix::process::Signal::KILL);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn stats() -> Vec<(String, String, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().into_string().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut rest = stat.rsplit(") ").next()?.split(' ');
            Some((pid, rest.next()?.to_owned(), rest.next()?.to_owned()))
        })
        .filter(|(pid, ..)| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}

/// All processes that `ancestor` has started, and those that they have.
fn family(ancestor: &str) -> Vec<String> {
    let stats = stats();
    let mut family = vec![ancestor.to_owned()];
    let mut at = 0;
    while let Some(parent) = family.get(at).cloned() {
        family.extend(stats.iter().filter(|(.., ppid)| *ppid == parent).map(|(pid, ..)| pid.clone()));
        at += 1;
    }
    family.remove(0);
    family
}

/// Zombies below this process.
fn zombies() -> usize {
    let family = family(&std::process::id().to_string());
    stats().iter().filter(|(pid, state, _)| state == "Z" && family.contains(pid)).count()
}
