//! Starting and stopping: signals, exit codes, what is said on stdout.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use troupe_testkit::stack::Stack;
use troupe_testkit::{ports, processes, wait};

use crate::support::{binary, functions, in_both};

fn run(directory: &TempDir, arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).current_dir(directory.path()).output().unwrap()
}

#[test]
fn ctrl_c_stops_everything() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let instance = stack.instance("all");
    let children = processes::descendants(instance.pid());
    instance.signal(Signal::INT);
    assert_eq!(instance.wait().code(), Some(0));
    wait::until("every PHP process to be gone", Duration::from_secs(10), || {
        children.iter().all(|pid| !processes::alive(*pid)).then_some(())
    });
}

#[test]
fn a_second_signal_is_at_once() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let mut connection = stack.connect();
    connection.send(b"GET /api/sleep?ms=9000 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let instance = stack.instance("all");
    instance.signal(Signal::TERM);
    wait::until("the drain to begin", Duration::from_secs(10), || {
        instance.log().contains("shutting down;").then_some(())
    });
    let start = std::time::Instant::now();
    instance.signal(Signal::TERM);
    assert_ne!(instance.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_busy_port_is_75_and_named() {
    let directory = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let root = format!("php.default.root={}", functions().display());
    let listen = format!("gateway.listen=[\"{address}\"]");
    let admin = format!("admin.listen={}", ports::free());
    let output = run(&directory, &["run", "--set", &root, "--set", &listen, "--set", &admin]);
    assert_eq!(output.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_bad_configuration_is_78() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("troupe.toml"), "[gateway]\nlisten_on = []\n").unwrap();
    let output = run(&directory, &["run"]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("troupe.toml:2") && said.contains("listen"), "{said}");
}

#[test]
fn no_php_is_69() {
    let directory = TempDir::new().unwrap();
    let root = format!("php.default.root={}", functions().display());
    let output = Command::new(binary())
        .args(["run", "--set", &root, "--set", &format!("gateway.listen=[\"{}\"]", ports::free())])
        .args(["--set", &format!("admin.listen={}", ports::free())])
        .env("PATH", "")
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("php"));
}

#[test]
fn a_broken_function_leaves_the_others_serving() {
    let directory = TempDir::new().unwrap();
    for entry in std::fs::read_dir(functions()).unwrap().flatten() {
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(directory.path().join("broken.php"), "<?php\nreturn 42;\n").unwrap();
    let stack = Stack::one_process(binary(), directory.path(), "");
    assert_eq!(stack.get("/api/hello").status, 200);
    assert_eq!(stack.get("/api/broken").status, 500);
    assert!(stack.logs().contains("broken.php"));
}

#[test]
fn health_and_readiness_answer() {
    in_both("", |stack| {
        assert_eq!(stack.get("/health").status, 200);
        assert_eq!(stack.get("/").status, 200);
    });
}

#[test]
fn what_init_says_to_ask_is_answered() {
    let directory = TempDir::new().unwrap();
    let output = run(&directory, &["init", "."]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let target = said.split("http://127.0.0.1:8080").nth(1).unwrap().trim_end().trim_end_matches('\'');
    let written = std::fs::read_to_string(directory.path().join("functions/hello.php")).unwrap();
    assert!(written.contains(&format!("Served at {}:", target.split('?').next().unwrap())), "{written}");
    let stack = Stack::one_process(binary(), &directory.path().join("functions"), "");
    let answer = stack.get(target);
    assert_eq!((answer.status, answer.text().contains("you")), (200, true), "{target}");
}
