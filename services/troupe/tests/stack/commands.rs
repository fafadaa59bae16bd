//! The commands that ask a running Troupe, as people and scripts use them.

mod every;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use troupe_testkit::load::{Load, Plan};
use troupe_testkit::stack::{self, Stack};
use troupe_testkit::{http, ports, processes, wait};

use crate::support::{binary, functions};

const SOON: Duration = Duration::from_secs(20);

/// A command against an admin listener.
fn command(admin: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TROUPE_")) {
        command.env_remove(name);
    }
    command.args(args).arg("--admin").arg(format!("http://{admin}"));
    command
}

/// Runs it.
fn ask(admin: SocketAddr, args: &[&str]) -> Output {
    command(admin, args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// As [`ask`], for what must be done.
fn done(admin: SocketAddr, args: &[&str]) -> String {
    let output = ask(admin, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", out(&output), said(&output));
    out(&output)
}

fn json(admin: SocketAddr, args: &[&str]) -> Value {
    let text = done(admin, &[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

/// The workers of the pool `default`, by name.
fn workers(admin: SocketAddr) -> Vec<Value> {
    let all = json(admin, &["workers"]);
    all["pools"][0]["workers"].as_array().unwrap().clone()
}

#[test]
fn status_and_workers_show_what_runs_in_one_process() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    for _ in 0..20 {
        assert_eq!(stack.get("/api/hello").status, 200);
    }
    let admin = stack.instance("all").admin;
    wait::until("the counts to arrive", SOON, || {
        let status = json(admin, &["status"]);
        (status["gateway"]["requests"].as_u64()? >= 20).then_some(())
    });
    let status = json(admin, &["status"]);
    assert_eq!((&status["service"], &status["readiness"]["ready"]), (&"troupe".into(), &true.into()));
    assert_eq!(status["problems"], Value::Array(Vec::new()), "{status}");
    assert_eq!((&status["pools"][0]["pool"], &status["pools"][0]["ready"]), (&"default".into(), &1.into()));
    let found = status["php"][0]["functions"].as_array().unwrap();
    assert!(found.contains(&"hello".into()), "{status}");
    let text = wait::until("what PHP takes to be looked at", SOON, || {
        Some(done(admin, &["status"])).filter(|text| text.contains(" resident (PHP "))
    });
    for part in
        [", ready\n", " s of cpu (PHP ", "requests/s", "default: 1 of 1 workers ready", "functions", "problems  none"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let worker = &workers(admin)[0];
    assert_eq!((&worker["name"], &worker["state"]), (&"default/local".into(), &"ready".into()));
    assert!(worker["score"].as_f64().unwrap() > 0.0 && worker["load"]["slots"].as_u64().unwrap() > 0, "{worker}");
    let table = done(admin, &["workers"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("WORKER") && lines[1].starts_with("default/local  ready"), "{table}");
    assert!(lines.iter().all(|line| line.len() <= 100), "{table}");
}

/// As in `troupe top --csv | head -1`.
#[test]
fn commands_that_go_on_end_once_nobody_reads_them_any_more() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    for args in [
        &["top", "--csv", "--interval", "300ms"][..],
        &["top", "--json", "--interval", "300ms", "--count", "1000000"],
        &["top", "--interval", "300ms", "--count", "1000000"],
        &["workers", "-w"],
        &["workers", "-w", "--json"],
    ] {
        let mut child = command(admin, args).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(!first.is_empty(), "{args:?}");
        let ended = wait::until(&format!("the end of {args:?}"), SOON, || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0), "{args:?}");
    }
}

#[test]
fn top_draws_what_fits_the_terminal_and_writes_lines_for_spreadsheets() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    let load = Load::start(&Plan {
        addresses: stack.addresses.clone(),
        clients: 2,
        method: "GET",
        body: b"",
        target: "/api/hello",
        pause: Duration::from_millis(5),
    });
    wait::until("what PHP takes to be looked at", SOON, || {
        json(admin, &["status"])["php"][0]["resident_bytes"].as_u64().filter(|bytes| *bytes > 0)
    });
    let csv = done(admin, &["top", "--csv", "--interval", "400ms", "--count", "4"]);
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((lines.len(), &lines[0][..2]), (5, &["time", "requests_per_second"][..]), "{csv}");
    assert!(lines.iter().skip(1).any(|line| line[1].parse::<f64>().unwrap() > 0.0), "{csv}");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{csv}");
    assert_eq!(lines[0][12..], ["php_cpu_percent", "php_resident_bytes"], "{csv}");
    let known: Vec<f64> = lines[4].iter().map(|field| field.parse().unwrap()).collect();
    assert!(known[9] >= known[12] && known[10] > known[13] && known[13] > 0.0, "PHP's are parts: {csv}");
    // One picture where nobody watches.
    let once = done(admin, &["top", "--interval", "300ms"]);
    assert!(once.contains("latency") && once.contains("default/local") && !once.contains('\x1b'), "{once}");
    // In a terminal of 80 columns and 24 rows.
    let top = format!("{} top --interval 300ms -n 3 --admin http://{admin}", binary().display());
    let pty =
        Command::new("script").args(["-qec", &format!("stty cols 80 rows 24; {top}"), "/dev/null"]).output().unwrap();
    load.stop();
    let seen = out(&pty);
    assert_eq!(pty.status.code(), Some(0), "{seen}");
    let pictures: Vec<&str> = seen.split("\x1b[H").skip(1).collect();
    assert_eq!(pictures.len(), 3, "{seen:?}");
    for picture in pictures {
        let rows: Vec<&str> = picture.split("\x1b[K").map(|row| row.trim_matches(['\r', '\n'])).collect();
        assert!(rows.len() <= 24 && rows.iter().all(|row| row.chars().count() <= 80), "{picture:?}");
        for part in ["requests", "errors", "latency", "connections", "resources", "WORKER", "default/local"] {
            assert!(picture.contains(part), "{part} is missing in {picture:?}");
        }
    }
}

#[test]
fn each_process_apart_says_what_it_has_and_where_to_ask_for_the_rest() {
    let mut stack = Stack::apart(binary(), &functions(), "");
    let [gateway, balancer, php] = ["gateway", "balancer", "php-pool"].map(|service| stack.instance(service).admin);
    assert_eq!(json(gateway, &["status"])["links"][0]["service"], "balancer");
    let status = json(balancer, &["status"]);
    assert_eq!((&status["links"][0]["service"], &status["pools"][0]["ready"]), (&"php-pool".into(), &1.into()));
    assert_eq!(json(php, &["status"])["php"][0]["condition"], "up");
    assert!(workers(balancer)[0]["name"].as_str().unwrap().starts_with("default/php-pool@"));
    for (admin, args) in [
        (gateway, &["workers"][..]),
        (php, &["workers"]),
        (gateway, &["reload", "default"]),
        (gateway, &["drain", "x"]),
        (php, &["explain", "GET", "/api/hello"]),
        (balancer, &["slow"]),
    ] {
        let output = ask(admin, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
        assert!(
            said(&output).contains("runs in this process") && said(&output).contains("--service"),
            "{}",
            said(&output)
        );
    }
    // The port for requests is easily taken for the other one.
    let mistaken = ask(stack.address(), &["status"]);
    assert_eq!(mistaken.status.code(), Some(1), "{}", said(&mistaken));
    assert!(said(&mistaken).contains("no admin listener"), "{}", said(&mistaken));
    // When php-pool goes, the balancer says so in words.
    stack.instance("php-pool").kill();
    wait::until("the problem to be told", SOON, || {
        let problems = json(balancer, &["status"])["problems"].to_string();
        (problems.contains("no link to a php-pool") && problems.contains("pool default has no worker")).then_some(())
    });
}

#[test]
fn nobody_there_is_69_with_a_hint_and_no_resolver_error() {
    let nobody = ports::free();
    for args in [&["status"][..], &["workers"], &["drain", "x"], &["undrain", "x"], &["restart", "x"], &["reload"]] {
        let output = ask(nobody, args);
        assert_eq!(output.status.code(), Some(69), "{args:?}: {}", said(&output));
        assert!(said(&output).contains("is it running?") && said(&output).contains("troupe run"), "{}", said(&output));
        assert_eq!(out(&output), "");
    }
    let output =
        Command::new(binary()).args(["status", "--admin", "http://no-such-host.invalid:9090"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    assert!(
        said(&output).contains("the name has no address") && !said(&output).contains("lookup"),
        "{}",
        said(&output)
    );
}

#[test]
fn explain_tells_route_limits_and_worker_and_sends_nothing() {
    let config = "[[route]]\npath = \"/shop/{rest*}\"\nfunction = \"echo\"\nmethods = [\"GET\"]\n\
        [[route]]\npath = \"/api/{function*}\"\nfunctions = \"default\"\n\
        [[route]]\npath = \"/up/{rest*}\"\nupstream = \"app\"\n[upstream.app]\nservers = [\"127.0.0.1:1\"]\n";
    let mut stack = Stack::one_process(binary(), &functions(), config);
    let admin = stack.instance("all").admin;
    // What the stack was started with is counted when it is answered, which may be after.
    let requests = || json(admin, &["status"])["gateway"]["requests"].as_u64().filter(|requests| *requests > 0);
    let before = wait::until("the first request to be counted", SOON, requests);
    let explained = json(admin, &["explain", "get", "http://x.example/shop/./a?b=1"]);
    assert_eq!((&explained["normal_path"], &explained["route"]["index"]), (&"/shop/a".into(), &0.into()));
    assert_eq!((&explained["route"]["function"], &explained["route"]["path_info"]), (&"echo".into(), &"/a".into()));
    assert_eq!(
        (&explained["pick"]["worker"], &explained["limits"]["php_timeout"]),
        (&"default/local".into(), &"10s".into())
    );
    assert_eq!(json(admin, &["explain", "POST", "/shop/a"])["status"], 405);
    let upstream = json(admin, &["explain", "GET", "/up/x"]);
    assert_eq!((&upstream["route"]["pool"], &upstream["route"]["function"]), (&"upstream:app".into(), &Value::Null));
    assert!(upstream["limits"]["max_connections"].as_u64().is_some_and(|most| most > 0), "{upstream}");
    assert_eq!(
        (&upstream["limits"]["tunnel"], &json(admin, &["explain", "POST", "/up/x"])["limits"]["tunnel"]),
        (&"1h".into(), &Value::Null)
    );
    assert!(done(admin, &["explain", "GET", "/up/x"]).contains("a WebSocket handshake opens a tunnel"));
    let refused = ask(admin, &["restart", "upstream:app/127.0.0.1:1"]);
    assert!(refused.status.code() == Some(1) && said(&refused).contains("did not start"), "{}", said(&refused));
    let text = done(admin, &["explain", "GET", "/api/hello"]);
    for part in
        ["/api/{function*}", "function   hello", "default/local: it is the only worker", "30s to the first byte"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert_eq!(requests(), Some(before), "nothing was sent");

    // Without anybody there, the configuration explains the route.
    let offline = |args: &[&str]| Command::new(binary()).args(args).current_dir(stack.home()).output().unwrap();
    let output = offline(&["explain", "GET", "/shop/a", "--config", "troupe.toml", "--offline", "--json"]);
    let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&explained["route"]["index"], &explained["pick"]["worker"]), (&0.into(), &Value::Null));
    let nobody = format!("admin.listen={}", ports::free());
    let output = offline(&["explain", "GET", "/shop/a", "--config", "troupe.toml", "--set", &nobody]);
    assert_eq!(output.status.code(), Some(0));
    assert!(out(&output).contains("/shop/{rest*}") && said(&output).contains("by the configuration alone"));
}

#[test]
fn explain_names_the_worker_of_a_balancer_elsewhere_too_and_says_where_nobody_can() {
    let plan = stack::Plan::apart().two("php-pool");
    let mut stack = plan.start(binary(), &functions(), "balancer.slow_start = \"0s\"\n");
    let [gateway, balancer] = ["gateway", "balancer"].map(|service| stack.instance(service).admin);
    wait::until("both workers", SOON, || (workers(balancer).len() == 2).then_some(()));
    let calls = |stack: &mut Stack| {
        let page = stack.instance("balancer").admin("/metrics").unwrap().text();
        page.lines().find(|line| line.starts_with("troupe_balancer_call_seconds_count")).map(str::to_owned)
    };
    let counted = |stack: &mut Stack| calls(stack).filter(|line| !line.ends_with(" 0"));
    let before = wait::until("the first call to be counted", SOON, || counted(&mut stack));
    let explained = json(gateway, &["explain", "GET", "/api/hello"]);
    let pick = &explained["pick"];
    let named = |pick: &Value| pick["worker"].as_str().unwrap_or_else(|| panic!("{pick}")).to_owned();
    let chosen = named(pick);
    assert!(workers(balancer).iter().any(|worker| worker["name"] == chosen.as_str()), "{explained}");
    assert_eq!(pick["candidates"].as_array().map(Vec::len), Some(2), "{explained}");
    assert!(pick["balancer"].as_str().is_some_and(|name| name.starts_with("balancer@")), "{explained}");
    // It is the balancer's word of now: the one that is drained is no longer chosen.
    done(balancer, &["drain", &chosen]);
    let explained = wait::until("the other to be chosen", SOON, || {
        Some(json(gateway, &["explain", "GET", "/api/hello"])).filter(|explained| named(&explained["pick"]) != chosen)
    });
    let other = named(&explained["pick"]);
    let text = done(gateway, &["explain", "GET", "/api/hello"]);
    assert!(text.contains(&format!("{other}: it is the only worker that takes calls")), "{text}");
    assert!(text.contains("says the balancer balancer@"), "{text}");
    assert_eq!(calls(&mut stack), Some(before), "nothing was sent");
    // Without a balancer the rest is explained all the same.
    stack.instance("balancer").kill();
    let text = done(gateway, &["explain", "GET", "/api/hello"]);
    assert!(text.contains("function   hello") && text.contains("no balancer says whom: "), "{text}");
}

/// Which php-pool of a stack a PHP process belongs to.
fn owner(stack: &mut Stack, pid: u64) -> usize {
    let pids: Vec<u32> = (0..2).map(|index| stack.instance_at("php-pool", index).pid()).collect();
    pids.iter().position(|owner| processes::descendants(*owner).contains(&(pid as u32))).unwrap()
}

#[test]
fn drain_finishes_what_runs_and_lets_nothing_new_in_until_undrain() {
    let mut stack =
        stack::Plan::apart().two("php-pool").start(binary(), &functions(), "balancer.slow_start = \"0s\"\n");
    let balancer = stack.instance("balancer").admin;
    wait::until("both workers", SOON, || (workers(balancer).len() == 2).then_some(()));
    // A call that is with one of them; the other is drained after that one.
    let address = stack.address;
    let slow = thread::spawn(move || http::get(address, "/api/sleep?ms=3000").unwrap());
    let name = wait::until("the call to be with a worker", SOON, || {
        let all = workers(balancer);
        let busy = all.iter().find(|worker| worker["in_flight"].as_u64().is_some_and(|calls| calls > 0))?;
        busy["name"].as_str().map(str::to_owned)
    });
    let still = ask(balancer, &["drain", &name, "--wait", "0s"]);
    assert_eq!(still.status.code(), Some(75), "{}", said(&still));
    assert!(said(&still).contains("1 calls are still with it"), "{}", said(&still));
    let drained = slow_worker_is_left_alone(&mut stack, &name, balancer);
    assert!(done(balancer, &["drain", &name]).contains("is drained"), "waits for the end of the call");
    let slow = slow.join().unwrap();
    assert_eq!(slow.status, 200, "{}", slow.text());
    assert_eq!(owner(&mut stack, slow.json()["pid"].as_u64().unwrap()), drained);
    let shown = done(balancer, &["workers"]);
    assert!(shown.contains("draining") && shown.contains("an operator drains it"), "{shown}");
    // The last one is not drained by mistake.
    let other = workers(balancer).iter().find(|worker| worker["name"] != name.as_str()).unwrap()["name"].clone();
    let refused = ask(balancer, &["drain", other.as_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("--force"), "{}", said(&refused));
    let told =
        || json(balancer, &["status"])["problems"].to_string().contains("every worker of pool default is drained");
    assert!(!told());
    done(balancer, &["drain", "--force", other.as_str().unwrap()]);
    wait::until("nobody to serve to be told", SOON, || told().then_some(()));
    done(balancer, &["undrain", other.as_str().unwrap()]);
    wait::until("somebody to serve again", SOON, || (!told()).then_some(()));

    assert!(done(balancer, &["undrain", &name]).contains("takes calls again"));
    wait::until("both to answer again", SOON, || {
        let answers: Vec<u64> = (0..10).map(|_| stack.get("/api/sleep?ms=1").json()["pid"].as_u64().unwrap()).collect();
        let mut owners: Vec<usize> = answers.into_iter().map(|pid| owner(&mut stack, pid)).collect();
        owners.sort_unstable();
        owners.dedup();
        (owners.len() == 2).then_some(())
    });
    let unknown = ask(balancer, &["drain", "nobody"]);
    assert!(unknown.status.code() == Some(1) && said(&unknown).contains(&name), "{}", said(&unknown));
}

/// Calls go to the other worker only; which php-pool the drained one is.
fn slow_worker_is_left_alone(stack: &mut Stack, drained: &str, balancer: SocketAddr) -> usize {
    let pids: Vec<u64> = (0..20).map(|_| stack.get("/api/sleep?ms=1").json()["pid"].as_u64().unwrap()).collect();
    let owners: Vec<usize> = pids.into_iter().map(|pid| owner(stack, pid)).collect();
    assert!(owners.iter().all(|one| *one == owners[0]), "{owners:?}");
    let all = workers(balancer);
    let worker = all.iter().find(|worker| worker["name"] == drained).unwrap();
    assert_eq!((&worker["state"], &worker["in_flight"]), (&"draining".into(), &1.into()), "{worker}");
    1 - owners[0]
}

#[test]
fn a_php_pool_apart_drains_itself_for_all_its_balancers() {
    let mut stack = stack::Plan::apart().two("php-pool").two("balancer").start(binary(), &functions(), "");
    let php = stack.instance("php-pool").admin;
    let balancers = [0, 1].map(|index| stack.instance_at("balancer", index).admin);
    for balancer in balancers {
        wait::until("both workers", SOON, || (workers(balancer).len() == 2).then_some(()));
    }
    // Of another's name it is not drained itself.
    let mistaken = ask(php, &["drain", "default/php-pool@elsewhere:1"]);
    assert_eq!(mistaken.status.code(), Some(1), "{}", said(&mistaken));
    assert!(said(&mistaken).contains("is not this php-pool, which is php-pool@"), "{}", said(&mistaken));
    done(php, &["drain", "default"]);
    for balancer in balancers {
        wait::until("the balancer to hear of it", SOON, || {
            let states: Vec<Value> = workers(balancer).iter().map(|worker| worker["state"].clone()).collect();
            states.contains(&"draining".into()).then_some(())
        });
    }
    done(php, &["undrain", "default"]);
    for balancer in balancers {
        wait::until("the balancer to hear of that", SOON, || {
            workers(balancer).iter().all(|worker| worker["state"] == "ready").then_some(())
        });
    }
}

/// A directory of functions of its own, and a stack that serves it under load.
fn loaded(apart: bool, code: &str) -> (TempDir, Stack, Load) {
    let root = TempDir::new().unwrap();
    std::fs::write(root.path().join("hello.php"), "<?php\nreturn fn() => ['ok' => true];\n").unwrap();
    write(root.path(), code);
    let config = "gateway.access_log = false\n";
    let stack = match apart {
        true => Stack::apart(binary(), root.path(), config),
        false => Stack::one_process(binary(), root.path(), config),
    };
    let load = Load::start(&Plan {
        addresses: stack.addresses.clone(),
        clients: 8,
        method: "GET",
        body: b"",
        target: "/api/version",
        pause: Duration::from_millis(5),
    });
    load.run(50);
    (root, stack, load)
}

fn write(root: &Path, code: &str) {
    std::fs::write(root.join("version.php"), format!("<?php\nreturn {code};\n")).unwrap();
}

fn all_200(load: Load) {
    let (records, _) = load.stop();
    let failed: Vec<_> = records.iter().filter(|record| !record.served()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), records.len());
}

#[test]
fn restart_replaces_the_processes_without_a_failed_request() {
    for apart in [false, true] {
        let (_root, mut stack, load) = loaded(apart, "function () { usleep(20000); return getmypid(); }");
        let admin = stack.instance("balancer").admin;
        let name = workers(admin)[0]["name"].as_str().unwrap().to_owned();
        let php = stack.instance("php-pool").pid();
        let before = processes::descendants(php);
        let answer = json(admin, &["restart", &name]);
        assert!(answer["replaced"].as_u64().unwrap() >= 2, "{answer}");
        load.run(50);
        all_200(load);
        // All but the zygote.
        wait::until("the old processes to end", SOON, || {
            (before.iter().filter(|pid| processes::alive(**pid)).count() <= 1).then_some(())
        });
    }
}

#[test]
fn reload_brings_new_code_without_a_failed_request_and_refuses_broken_code() {
    for apart in [false, true] {
        let (root, mut stack, load) = loaded(apart, "fn() => 'one'");
        let admin = stack.instance("balancer").admin;
        for version in ["two", "three"] {
            write(root.path(), &format!("fn() => '{version}'"));
            let said = done(admin, &["reload"]);
            assert!(said.contains("new code, 2 functions"), "{said}");
            assert_eq!(stack.get("/api/version").text(), version);
            load.run(50);
        }
        write(root.path(), "fn() => 'four'; this is no PHP");
        let refused = ask(admin, &["reload", "default"]);
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        assert!(
            said(&refused).contains("version.php:2") && said(&refused).contains("old goes on"),
            "{}",
            said(&refused)
        );
        load.run(50);
        assert_eq!(stack.get("/api/version").text(), "three");
        all_200(load);
    }
}

#[test]
fn beyond_loopback_the_admin_listener_needs_a_token_and_asks_for_it() {
    let home = TempDir::new().unwrap();
    let root = format!("php.default.root={}", functions().display());
    let open = Command::new(binary())
        .args(["run", "--set", "admin.listen=0.0.0.0:0", "--set", &root])
        .current_dir(home.path())
        .output()
        .unwrap();
    assert_eq!(open.status.code(), Some(78), "{}", said(&open));
    assert!(said(&open).contains("admin.token_file") && said(&open).contains("openssl rand"), "{}", said(&open));

    let [token, wrong] = ["token", "wrong"].map(|name| home.path().join(name));
    std::fs::write(&token, "correct-horse\n").unwrap();
    std::fs::write(&wrong, "battery-staple\n").unwrap();
    let config = format!("admin.token_file = {token:?}\n");
    let mut stack = Stack::one_process(binary(), &functions(), &config);
    let admin = stack.instance("all").admin;
    let none = ask(admin, &["status"]);
    assert_eq!(none.status.code(), Some(78), "{}", said(&none));
    assert!(said(&none).contains("--token-file"), "{}", said(&none));
    assert_eq!(ask(admin, &["status", "--token-file", wrong.to_str().unwrap()]).status.code(), Some(78));
    assert_eq!(json(admin, &["status", "--token-file", token.to_str().unwrap()])["readiness"]["ready"], true);
    assert!(stack.instance("all").log().contains("wrong credentials for the admin listener"));
    // Probes carry no secrets, and a POST from a page somewhere else carries no guard.
    assert_eq!(stack.instance("all").admin("/readyz").unwrap().status, 200);
}
