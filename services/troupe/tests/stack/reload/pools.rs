//! PHP pools are configured anew while requests go on.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use troupe_testkit::load::Load;
use troupe_testkit::stack::Stack;
use troupe_testkit::wait;

use super::{File, SOON, load, load_of, out, reload};
use crate::support::{binary, functions};

const ROUTES: &str = "
[[route]]
path = \"/api/{function*}\"
functions = \"default\"
[[route]]
path = \"/more/{function*}\"
functions = \"more\"
";

const TOLD: &str = "fn() => ini_get('precision') . ' ' . getenv('MOOD')";

/// A directory with one function, `told`.
fn code(body: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), body);
    root
}

fn write(root: &Path, body: &str) {
    fs::write(root.join("told.php"), format!("<?php return {body};")).unwrap();
}

fn more(root: &TempDir, keys: &str) -> String {
    let root = root.path().display();
    format!("{ROUTES}[php.more]\nroot = \"{root}\"\nprocesses = {{ min = 1, max = 3 }}\n{keys}\n")
}

/// Reads the configuration anew in every process that it concerns: first what routes lead to, and on the way back last.
fn reload_all(stack: &mut Stack, coming: bool) {
    let mut services = vec!["php-pool", "balancer", "gateway"];
    if !coming {
        services.reverse();
    }
    for service in services {
        let done = reload(stack.instance(service).admin, &[]);
        assert_eq!(done.status.code(), Some(0), "{service}: {}", out(&done));
    }
}

fn none_lost(clients: Load) {
    let (records, _) = clients.stop();
    let lost: Vec<_> = records.iter().filter(|record| !record.served()).collect();
    assert!(lost.is_empty(), "of {} requests were lost {lost:?}", records.len());
}

fn pools(stack: &mut Stack) -> String {
    let told = stack.instance("balancer").admin("/api/workers").unwrap().json();
    told["pools"].as_array().unwrap().iter().map(|pool| pool["pool"].as_str().unwrap().to_owned() + " ").collect()
}

#[test]
fn a_pool_comes_changes_and_goes_and_no_request_is_lost() {
    for apart in [false, true] {
        let mut stack = match apart {
            true => Stack::apart(binary(), &functions(), ""),
            false => Stack::one_process(binary(), &functions(), ""),
        };
        let (file, root) = (File::of(&stack), code(TOLD));
        let clients = load(&stack);

        // It comes, with its route.
        file.add(&more(&root, ""));
        reload_all(&mut stack, true);
        let beside = load_of(&stack, "/more/told");
        assert_eq!(stack.get("/more/told").body, b"14 ");
        beside.run(20);

        // It is configured anew: the very next request shows it.
        for (keys, body) in [
            ("ini = { precision = 9 }\nenv = { MOOD = \"new\" }", "9 new"),
            ("isolation = \"fork\"\nmax_requests = 7\ntimeout = \"9s\"\nqueue.max = 77", "14 "),
            ("isolation = \"fresh\"\nenv = { MOOD = \"fresh\" }", "14 fresh"),
        ] {
            file.add(&more(&root, keys));
            let done = reload(stack.instance("php-pool").admin, &[]);
            assert_eq!(done.status.code(), Some(0), "{}", out(&done));
            assert!(out(&done).contains("taken php.more."), "{}", out(&done));
            assert_eq!(stack.get("/more/told").body, body.as_bytes());
            beside.run(20);
        }
        file.add(&more(&root, "").replace("max = 3", "max = 6"));
        reload_all(&mut stack, true);
        wait::until("the balancer to know of more processes", SOON, || {
            let told = stack.instance("balancer").admin("/api/workers").unwrap().json().to_string();
            told.contains("\"slots\":6").then_some(())
        });
        beside.run(20);
        none_lost(beside);

        // It goes.
        file.add("");
        reload_all(&mut stack, false);
        assert_eq!(stack.get("/more/told").status, 404);
        wait::until("the pool to be gone", SOON, || (pools(&mut stack) == "default ").then_some(()));
        clients.run(20);
        none_lost(clients);
        let status = stack.instance("php-pool").admin("/api/status").unwrap().json();
        assert_eq!(status["problems"], serde_json::Value::Array(Vec::new()), "{status}");
    }
}

#[test]
fn a_pool_that_cannot_serve_changes_nothing() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let (file, root) = (File::of(&stack), code(TOLD));
    let admin = stack.instance("all").admin;
    file.add(&more(&root, ""));
    reload_all(&mut stack, true);
    let clients = load_of(&stack, "/more/told");
    clients.run(10);
    let broken = code("function ( {");
    for (wrong, said) in [
        (more(&broken, ""), "told.php"),
        (more(&root, "binary = \"/nowhere/php\""), "cannot run /nowhere/php"),
        (more(&root, "user = \"nobody-of-that-name\""), "no user nobody-of-that-name"),
    ] {
        // What is right beside it is not taken either.
        file.add(&format!("gateway.max_body = \"1KiB\"\n{}", wrong.replace("/api/{", "/other/{")));
        let refused = reload(admin, &[]);
        assert_eq!(refused.status.code(), Some(78), "{}", out(&refused));
        assert!(out(&refused).contains(said), "{said}: {}", out(&refused));
        assert_eq!((stack.get("/more/told").body.as_slice(), stack.get("/api/hello").status), (&b"14 "[..], 200));
        let status = stack.instance("all").admin("/api/status").unwrap().json();
        assert!(status["problems"].to_string().contains("the old one goes on serving"), "{status}");
        assert_eq!(pools(&mut stack), "default more ");
    }
    clients.run(10);
    none_lost(clients);
}

#[test]
fn a_request_under_way_ends_with_the_process_that_has_it() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let root = code("function () { usleep(2000000); return getenv('MOOD'); }");
    let file = File::of(&stack);
    file.add(&more(&root, "env = { MOOD = \"old\" }"));
    reload_all(&mut stack, true);
    let mut client = stack.connect();
    let pending = std::thread::spawn(move || client.request("GET", "/more/told", &[], b"").unwrap());
    wait::until("the request to run", SOON, || {
        let told = stack.instance("all").admin("/api/workers").unwrap().json().to_string();
        told.contains("\"in_flight\":1").then_some(())
    });
    write(root.path(), "fn() => getenv('MOOD')");
    file.add(&more(&root, "env = { MOOD = \"new\" }\ntimeout = \"1s\""));
    reload_all(&mut stack, true);
    assert_eq!(stack.get("/more/told").body, b"new");
    let answer = pending.join().unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"old"[..]));
}
