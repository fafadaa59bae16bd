//! Code that is not as it should be, or not where it was, when it is loaded.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use troupe_mesh::failure::Outcome;
use troupe_php_pool::config::{IniValue, Isolation, PhpPoolConfig};
use troupe_php_pool::{RenewError, Renewal};

use crate::support::*;

const SHOP: (&str, &str) = ("shop", "(require_once __DIR__ . '/src/lib.php') ? shop(...) : null");
const RELEASE: (&str, &str) = ("release", "fn() => basename(__DIR__)");

fn write_code(root: &Path, name: &str, code: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, code).unwrap();
}

/// One process of PHP without root's rights, to which all of the pool's folder is open.
fn nobody(config: &mut PhpPoolConfig) {
    std::fs::set_permissions(&config.root, std::fs::Permissions::from_mode(0o755)).unwrap();
    config.user = "65534:65534".to_owned();
    (config.processes.min, config.processes.max) = (1, 1);
}

#[test]
fn a_function_that_breaks_by_what_it_loads_is_broken_itself() {
    on_runtime(async {
        let stage = Stage::start_unready(&[SHOP, HELLO], |_| {});
        let lib = |code| write_code(stage.root.path(), "src/lib.php", code);
        lib("<?php function shop() { return 'open'; } return true;");
        assert!(stage.pools.booted().await.is_empty());
        let pool = stage.handle();
        for broken in ["<?php function shop( { }", "<?php throw new Exception('no shop');"] {
            lib(broken);
            let renewed = stage.pools.renew("default", Renewal::Code).await;
            let Err(RenewError::Broken(why)) = renewed else { panic!("{broken}: {renewed:?}") };
            assert!(why.contains("src/lib.php:1"), "{why}");
            assert_eq!(get_text(&pool, "shop").await, "open");
        }
        stage.pools.stop().await;
    });
}

#[test]
fn a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    on_runtime(async {
        let stage = Stage::start(&[HELLO, ("api/pid", "fn() => (string) getmypid()")], nobody).await;
        let pool = stage.handle();
        let before = get_text(&pool, "api/pid").await;
        let folder = stage.root.path().join("api");
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        let renewed = stage.pools.renew("default", Renewal::Code).await;
        assert!(
            matches!(&renewed, Err(RenewError::Broken(why)) if why.contains("cannot read the folder")),
            "{renewed:?}"
        );
        assert_eq!(get_text(&pool, "api/pid").await, before, "the same process serves");
        stage.pools.stop().await;
    });
}

/// As deployments do it: `current` is switched to the new release, and the old one is cleared away.
#[test]
fn a_root_that_is_a_link_is_followed_anew_at_each_reload() {
    for isolation in [Isolation::Shared, Isolation::Fresh] {
        on_runtime(async move {
            let releases = tempfile::tempdir().unwrap();
            let current = releases.path().join("current");
            let switch_to = |release: &str| {
                write(&releases.path().join(release), &[RELEASE]);
                let next = releases.path().join("next");
                symlink(release, &next).unwrap();
                std::fs::rename(next, &current).unwrap();
            };
            switch_to("one");
            let stage = Stage::start(&[], |config| {
                config.root = current.clone();
                config.isolation = isolation;
            })
            .await;
            let pool = stage.handle();
            assert_eq!(get_text(&pool, "release").await, "one");
            switch_to("two");
            stage.pools.renew("default", Renewal::Code).await.unwrap();
            std::fs::remove_dir_all(releases.path().join("one")).unwrap();
            for _ in 0..3 {
                assert_eq!(get_text(&pool, "release").await, "two", "{isolation:?}");
            }
            stage.pools.stop().await;
        });
    }
}

/// Without a zygote each process finds the functions by itself, and one more or less makes other numbers of them.
#[test]
fn a_process_that_loads_other_code_than_was_reloaded_runs_no_other_function() {
    on_runtime(async {
        let named = |name: &str| format!("fn() => '{name}'");
        let (b, c) = (named("b"), named("c"));
        let stage = Stage::start(&[("b", &b), ("c", &c)], |config| {
            config.isolation = Isolation::Fresh;
            (config.processes.min, config.processes.max) = (1, 1);
        })
        .await;
        let pool = stage.handle();
        let told = async |name| match get(&pool, name).await {
            Ok(reply) => text(reply.body).await,
            Err(failure) => format!("{:?} {:?}", failure.outcome, failure.status),
        };
        // The first processes are of the old code.
        write(stage.root.path(), &[("a", &named("a"))]);
        for _ in 0..3 {
            assert_eq!([told("b").await, told("c").await], ["b", "c"]);
            assert_eq!(told("a").await, "Refused Some(404)", "nobody has reloaded");
        }
        write(stage.root.path(), &[("b", "function ( {")]);
        let renewed = stage.pools.renew("default", Renewal::Code).await;
        assert!(matches!(renewed, Err(RenewError::Broken(_))), "{renewed:?}");
        let broken = "Internal None";
        for _ in 0..3 {
            let answer = told("b").await;
            assert!(answer == "b" || answer == broken, "{answer}");
            assert_eq!(told("c").await, "c");
        }
        assert_eq!(told("b").await, broken, "as it is by now");
        stage.pools.stop().await;
    });
}

#[test]
fn a_buffer_that_cannot_be_ended_takes_nothing_of_the_next_call() {
    on_runtime(async {
        let hidden = "function () {
            ob_start(null, 0, PHP_OUTPUT_HANDLER_CLEANABLE | PHP_OUTPUT_HANDLER_FLUSHABLE);
            echo 'of one';
        }";
        let shown = "function () { echo 'of another'; ob_flush(); }";
        let stage = Stage::start(&[("hidden", hidden), ("shown", shown)], |config| {
            (config.processes.min, config.processes.max) = (1, 1);
        })
        .await;
        let pool = stage.handle();
        for _ in 0..3 {
            assert_eq!([get_text(&pool, "hidden").await, get_text(&pool, "shown").await], ["of one", "of another"]);
        }
        assert_eq!(stage.load().restarts, 0, "its process was replaced, not killed");
        stage.pools.stop().await;
    });
}

/// Asked what PHP can do, it must run none of the pool's code: here it would do so as this process's user.
#[test]
fn code_that_is_preloaded_is_loaded_by_the_pools_processes_alone() {
    on_runtime(async {
        let stage = Stage::start_unready(&[("loaded", "fn() => (string) preloaded()")], |config| {
            let preload = config.root.join("src/preload.php");
            write_code(&config.root, "src/preload.php", "<?php function preloaded() { return posix_geteuid(); }");
            config.ini.insert("opcache.preload".to_owned(), IniValue::Text(preload.display().to_string()));
            if rustix::process::geteuid().is_root() {
                nobody(config);
            }
        });
        assert!(stage.pools.booted().await.is_empty());
        let user = if rustix::process::geteuid().is_root() { 65_534 } else { rustix::process::geteuid().as_raw() };
        assert_eq!(get_text(&stage.handle(), "loaded").await, user.to_string());
        stage.pools.stop().await;
    });
}

#[test]
fn a_script_that_stands_before_php_hides_no_process() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("php");
        std::fs::write(&script, "#!/bin/sh\nphp \"$@\"\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let slow = "function () { file_put_contents($_GET['file'], getmypid()); sleep(60); }";
        let stage = Stage::start(&[("slow", slow)], |config| {
            config.binary = script.display().to_string();
            config.timeout = troupe_node::units::Duration::from_millis(500);
        })
        .await;
        let file = dir.path().join("pid");
        assert!(get(&stage.handle(), &format!("slow?file={}", file.display())).await.is_err());
        let pid = std::fs::read_to_string(file).unwrap();
        eventually("the process is killed", || !lives(&pid)).await;
        stage.pools.stop().await;
    });
}

#[test]
fn an_error_handler_that_throws_costs_no_function_and_no_process() {
    on_runtime(async {
        let stage = Stage::start_unready(&[PID, ("slow", "function () { sleep(1); return 'done'; }")], |config| {
            config.processes.min = 3;
        });
        let strict = "<?php set_error_handler(fn($level, $text) => throw new ErrorException($text)); return fn() => strlen($none);";
        write_code(stage.root.path(), "a.php", strict);
        assert!(stage.pools.booted().await.is_empty());
        let pool = stage.handle();
        assert!(get(&pool, "a").await.is_err(), "the handler is the functions' still");
        let slow = actix_rt::spawn({
            let pool = pool.clone();
            async move { get_text(&pool, "slow").await }
        });
        eventually("the slow call runs", || stage.load().busy > 0).await;
        signal(&get_text(&pool, "pid").await, rustix::process::Signal::KILL);
        stage.until("its end is seen", |load| load.restarts > 0).await;
        assert_eq!(slow.await.unwrap(), "done", "another process's end is nothing to it");
        stage.pools.stop().await;
    });
}

#[test]
fn an_error_with_a_page_for_a_message_is_one_function_less_and_no_more() {
    on_runtime(async {
        let stage = Stage::start_unready(&[HELLO], |_| {});
        write_code(stage.root.path(), "long.php", "<?php throw new Exception(str_repeat('x', 2 << 20));");
        assert!(stage.pools.booted().await.is_empty());
        assert_eq!(get(&stage.handle(), "hello").await.unwrap().head.status(), 200);
        stage.pools.stop().await;
    });
}

/// Without a zygote each process tells it in its first frame.
#[test]
fn errors_of_many_functions_keep_no_process_from_coming_up() {
    on_runtime(async {
        let stage = Stage::start_unready(&[HELLO], |config| {
            config.isolation = Isolation::Fresh;
            for number in 0..300 {
                let code = "<?php throw new Exception(str_repeat('x', 4096));";
                write_code(&config.root, &format!("broken-{number}.php"), code);
            }
        });
        assert_eq!(stage.pools.booted().await, []);
        let pool = stage.handle();
        assert_eq!(get(&pool, "hello").await.unwrap().head.status(), 200);
        assert_eq!(get(&pool, "broken-299").await.unwrap_err().outcome, Outcome::Internal, "it is known, and broken");
        stage.pools.stop().await;
    });
}

/// The message is cut, here in the middle of a letter; no JSON was made of what is left, and so none of all the rest.
#[test]
fn an_error_that_is_no_text_keeps_no_process_from_coming_up() {
    for isolation in [Isolation::Shared, Isolation::Fresh] {
        on_runtime(async move {
            let stage = Stage::start_unready(&[HELLO], |config| {
                config.isolation = isolation;
                write_code(&config.root, "long.php", "<?php throw new Exception('x' . str_repeat('é', 4096));");
            });
            assert_eq!(stage.pools.booted().await, [], "{isolation:?}");
            assert_eq!(get(&stage.handle(), "hello").await.unwrap().head.status(), 200, "{isolation:?}");
            stage.pools.stop().await;
        });
    }
}

#[test]
fn code_that_closes_standard_input_leaves_the_others_where_they_are() {
    on_runtime(async {
        let stage = Stage::start_unready(&[], |_| {});
        let code = "<?php fclose(fopen('php://stdin', 'r')); return fn() => readlink('/proc/self/fd/1') . ' ' . readlink('/proc/self/fd/2');";
        write_code(stage.root.path(), "where.php", code);
        assert!(stage.pools.booted().await.is_empty());
        let open = get_text(&stage.handle(), "where").await;
        let (output, error) = open.split_once(" /").unwrap();
        assert!(output.contains(".stdout") && error.contains(".stderr"), "{open}");
        stage.pools.stop().await;
    });
}

/// What is told as a process's number is killed with its whole group when that process is to go.
#[test]
fn no_process_but_the_zygotes_own_is_believed_to_be_one() {
    use std::os::unix::process::CommandExt as _;
    on_runtime(async {
        let mut bystander = std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        // The zygote is of the same user: what it has open can be opened, by a shell (PHP goes by the name, which is gone).
        let forge = "function () {
            $forged = 0;
            foreach (glob('/proc/' . posix_getppid() . '/fd/*') as $open) {
                if (str_contains((string) @readlink($open), 'ctl.out')) {
                    $events = popen(\"cat > $open\", 'w');
                    for ($id = 0; $id < 20; $id++) {
                        $event = ['event' => 'forked', 'id' => $id, 'pid' => (int) $_GET['pid']];
                        $forged += (int) (fwrite($events, json_encode($event) . \"\\n\") > 0);
                    }
                }
            }
            return (string) $forged;
        }";
        let stage = Stage::start(&[("forge", forge), ("slow", "function () { sleep(20); }")], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
            config.timeout = troupe_node::units::Duration::from_millis(500);
        })
        .await;
        let pool = stage.handle();
        assert_eq!(get_text(&pool, &format!("forge?pid={}", bystander.id())).await, "20");
        assert_eq!(get(&pool, "slow").await.unwrap_err().outcome, Outcome::Deadline);
        stage.until("the process is replaced", |load| load.restarts > 0 && load.processes == 1).await;
        assert!(bystander.try_wait().unwrap().is_none(), "it was killed in the other's place");
        bystander.kill().unwrap();
        bystander.wait().unwrap();
        stage.pools.stop().await;
    });
}
