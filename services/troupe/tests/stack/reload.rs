//! The configuration read anew while requests go on: whole and verified, or not at all.

mod pools;
mod starts;
mod upstreams;

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use troupe_testkit::load::{self, Load, Record};
use troupe_testkit::stack::Stack;
use troupe_testkit::wait;

use crate::support::{binary, functions};

const SOON: Duration = Duration::from_secs(20);

const MORE: &str = "
log.level = \"info,troupe_gateway=debug\"
gateway.max_body = \"1KiB\"
[[route]]
path = \"/api/{function*}\"
functions = \"default\"
[[route]]
path = \"/more\"
function = \"hello\"
";

/// The configuration file, before and with what is added.
struct File {
    path: std::path::PathBuf,
    before: String,
}

impl File {
    fn of(stack: &Stack) -> Self {
        let path = stack.home().join("troupe.toml");
        let before = fs::read_to_string(&path).unwrap();
        Self { path, before }
    }

    fn add(&self, more: &str) {
        fs::write(&self.path, format!("{}{more}", self.before)).unwrap();
    }
}

fn reload(admin: SocketAddr, args: &[&str]) -> Output {
    Command::new(binary()).arg("reload").args(["--admin", &format!("http://{admin}")]).args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn load(stack: &Stack) -> Load {
    load_of(stack, "/api/hello")
}

fn load_of(stack: &Stack, target: &'static str) -> Load {
    Load::start(&load::Plan {
        addresses: stack.addresses.clone(),
        clients: 2,
        method: "GET",
        body: b"",
        target,
        pause: Duration::from_millis(2),
    })
}

fn posted(stack: &Stack, bytes: usize) -> u16 {
    stack.connect().request("POST", "/api/echo", &[], &vec![b'x'; bytes]).unwrap().status
}

#[test]
fn routes_bounds_and_the_log_level_are_taken_and_the_rest_is_named() {
    for apart in [false, true] {
        let mut stack = match apart {
            true => Stack::apart(binary(), &functions(), ""),
            false => Stack::one_process(binary(), &functions(), ""),
        };
        let (file, admin) = (File::of(&stack), stack.instance("gateway").admin);
        let clients = load(&stack);
        assert_eq!((stack.get("/more").status, posted(&stack, 2_000)), (404, 200));

        file.add(&format!("cache.l1 = {{ size = \"1MiB\" }}\ngateway.disconnect_timeout = \"9s\"\n{MORE}"));
        let done = reload(admin, &[]);
        assert_eq!(done.status.code(), Some(0), "{}", out(&done));
        for part in [
            "taken gateway.max_body, log.level, route",
            "restart the process for cache.l1.size, gateway.disconnect_timeout",
        ] {
            assert!(out(&done).contains(part), "{part}: {}", out(&done));
        }
        assert_eq!((stack.get("/more").status, stack.get("/api/hello").status), (200, 200));
        wait::until("the bound to be in force", SOON, || (posted(&stack, 2_000) == 413).then_some(()));
        let explained = stack.instance("gateway").admin("/api/explain?method=GET&host=x&target=/more").unwrap().json();
        assert_eq!(explained["limits"]["max_body"], "1KiB", "{explained}");
        let status = stack.instance("gateway").admin("/api/status").unwrap().json();
        assert!(status["problems"].to_string().contains("takes a restart: cache.l1.size"), "{}", status["problems"]);

        // What was added is taken away again.
        file.add("");
        let done = reload(admin, &["--json"]);
        let told: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(told["configuration"]["needs_restart"], Value::Array(Vec::new()), "{told}");
        assert_eq!(stack.get("/more").status, 404);
        let status = stack.instance("gateway").admin("/api/status").unwrap().json();
        assert_eq!(status["problems"], Value::Array(Vec::new()));
        clients.run(50);
        let (records, _) = clients.stop();
        assert!(records.iter().all(Record::served), "a request was lost");
    }
}

#[test]
fn a_broken_configuration_changes_nothing_and_is_told_until_it_is_mended() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let (file, admin) = (File::of(&stack), stack.instance("all").admin);
    // Each has a good route beside what is wrong: nothing of it may be taken.
    for (wrong, said) in [
        ("gateway.max_boddy = \"1KiB\"\n", "max_boddy"),
        ("[php.more]\nroot = \"/nowhere/at/all\"\n", "/nowhere/at/all"),
        ("log.level = \"info,a[b=debug\"\n", "log.level"),
        ("gateway.health = false\n[[route]]\npath = \"/health\"\nfunction = \"hello\"\n", "restart of the process"),
    ] {
        file.add(&format!("{wrong}{}", MORE.replace("gateway.", "#").replace("log.", "#")));
        let refused = reload(admin, &[]);
        assert_eq!(refused.status.code(), Some(78), "{wrong}: {}", out(&refused));
        assert!(out(&refused).contains(said), "{said}: {}", out(&refused));
        assert_eq!((stack.get("/more").status, stack.get("/api/hello").status), (404, 200));
        let status = stack.instance("all").admin("/api/status").unwrap().json();
        assert!(status["problems"].to_string().contains("the old one goes on serving"), "{status}");
        wait::until("the dashboard to tell", SOON, || {
            let page = stack.instance("all").admin("/dashboard").unwrap().text();
            page.contains("the new configuration is broken").then_some(())
        });
        assert!(stack.instance("all").admin("/metrics").unwrap().text().contains("troupe_node_config_reload_ok 0\n"));
    }
    file.add("");
    assert_eq!(reload(admin, &[]).status.code(), Some(0));
    let status = stack.instance("all").admin("/api/status").unwrap().json();
    assert_eq!(status["problems"], Value::Array(Vec::new()));
    let text = stack.instance("all").admin("/metrics").unwrap().text();
    assert!(text.contains("troupe_node_config_reload_ok 1\n"), "{text}");
    assert!(text.contains("troupe_node_config_reloads_total{outcome=\"refused\"} 4\n"), "{text}");
}

#[test]
fn a_hangup_reloads_and_ends_nothing() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let file = File::of(&stack);
    let clients = load(&stack);
    file.add(MORE);
    stack.instance("all").signal(Signal::HUP);
    wait::until("the new route", SOON, || (stack.get("/more").status == 200).then_some(()));
    file.add("nonsense");
    stack.instance("all").signal(Signal::HUP);
    wait::until("the refusal to be logged", SOON, || {
        stack.instance("all").log().contains("the new configuration is broken").then_some(())
    });
    assert_eq!(stack.get("/more").status, 200);
    clients.run(50);
    let (records, _) = clients.stop();
    assert!(records.iter().all(Record::served), "a request was lost");
}
