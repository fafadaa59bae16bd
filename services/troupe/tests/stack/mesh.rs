//! The links between the services: who is let in, and over what.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use troupe_testkit::http::Connection;
use troupe_testkit::stack::Plan;
use troupe_testkit::{ports, processes, wait};

use crate::support::{binary, functions};

#[test]
fn a_wrong_key_makes_no_link_and_is_named() {
    let key = TempDir::new().unwrap();
    let path = key.path().join("other.key");
    std::fs::write(&path, "another key that is long enough for one").unwrap();
    let plan = Plan::apart().set("gateway", format!("mesh.key_file={:?}", path)).without_answer();
    let mut stack = plan.start(binary(), &functions(), "mesh.connect_wait = \"500ms\"\n");
    let gateway = stack.instance("gateway");
    wait::until("the gateway to say what is wrong", Duration::from_secs(10), || {
        gateway.log().contains("no link:").then_some(())
    });
    let failed = "troupe_mesh_failed_dials_total{peer=\"balancer\",cause=\"key\"} ";
    let metrics = gateway.admin("/metrics").unwrap().text();
    assert!(metrics.contains(failed) && metrics.matches("troupe_mesh_failed_dials_total{").count() == 1, "{metrics}");
    let ready = gateway.admin("/readyz").unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("balancer"), "{}", ready.text());
    for _ in 0..3 {
        let answer = stack.get("/api/hello");
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(!answer.header("retry-after").is_empty());
    }
    let log = stack.instance("gateway").log();
    let said: Vec<_> = log.lines().filter(|line| line.contains("no link:")).collect();
    assert_eq!(said.len(), 1, "one line, whatever number of threads and dials: {said:#?}");
    assert!(said.iter().all(|line| line.contains("key") && line.contains("error")), "{said:#?}");
    assert!(stack.instance("balancer").log().contains("no link with a peer"));
}

/// In the middle of a change of keys: the gateway shows the new one already, the balancer takes both, the php-pool knows the old one.
#[test]
fn a_second_key_is_taken_while_the_first_is_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("new.key");
    std::fs::write(&path, "the next key, which is as long as it has to be").unwrap();
    let plan = Plan::apart()
        .set("gateway", format!("mesh.key_file={path:?}"))
        .set("balancer", format!("mesh.second_key_file={path:?}"));
    let stack = plan.start(binary(), &functions(), "");
    assert_eq!(stack.get("/api/hello").status, 200);
    assert!(!stack.logs().contains("no link"), "{}", stack.logs());
}

#[test]
fn a_second_key_without_a_first_is_78() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("new.key"), "a key that is as long as it has to be").unwrap();
    let output = Command::new(binary())
        .args(["run", "--service", "gateway", "--set", "mesh.second_key_file=\"new.key\""])
        .args(["--set", &format!("admin.listen={}", ports::free())])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("mesh.second_key_file") && said.contains("mesh.key_file"), "{said}");
}

#[test]
fn listening_beyond_loopback_without_a_key_is_78() {
    let directory = TempDir::new().unwrap();
    let output = Command::new(binary())
        .args(["run", "--service", "php-pool", "--set", &format!("php.default.root={}", functions().display())])
        .args(["--set", "mesh.listen=0.0.0.0:0", "--set", &format!("admin.listen={}", ports::free())])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("key_file"), "{said}");
}

/// Two php-pools in containers have the same process id: their series were one.
#[test]
fn workers_are_named_after_host_and_process() {
    let mut stack = Plan::apart().start(binary(), &functions(), "");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let pid = stack.instance("php-pool").pid();
    let worker = format!("worker=\"php-pool@{}:{pid}\"", host.trim());
    let metrics = stack.instance("balancer").admin("/metrics").unwrap().text();
    assert!(metrics.contains(&worker), "{worker} is not in {metrics}");
}

#[test]
fn unix_sockets_carry_links() {
    let mut stack = Plan::apart().over_unix().start(binary(), &functions(), "");
    let response = stack.get("/api/hello?name=Ada");
    assert_eq!((response.status, response.json()["name"].as_str()), (200, Some("Ada")));
    let body = vec![7; 3_000_000];
    let response =
        stack.connect().request("POST", "/api/echo", &[("Content-Type", "application/x-raw")], &body).unwrap();
    assert_eq!(response.json()["length"], body.len());
    // A socket file that a dead process left is no obstacle.
    stack.instance("balancer").kill();
    stack.restart("balancer");
    stack.await_serving(Duration::from_secs(10));
}

#[test]
fn whoever_talks_nonsense_to_a_mesh_listener_is_let_go() {
    let mut stack = Plan::apart().start(binary(), &functions(), "");
    for service in ["balancer", "php-pool"] {
        let instance = stack.instance(service);
        let before = processes::descriptors(instance.pid());
        let address = instance.mesh().unwrap();
        let mut connections = Vec::new();
        for nonsense in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 4096], &[255; 4096], b"TRP", b""] {
            for _ in 0..20 {
                let mut connection = Connection::open(address).unwrap();
                // Whether or not all of it is read before the other side hangs up.
                let _ = connection.send(nonsense);
                connections.push(connection);
            }
        }
        assert_eq!(stack.get("/api/hello").status, 200, "beside nonsense to the {service}");
        // Those who say too little are let go when the time for a handshake is over.
        for mut connection in connections {
            connection.hear_out();
        }
        let pid = stack.instance(service).pid();
        wait::until("the descriptors to be closed", Duration::from_secs(20), || {
            (processes::descriptors(pid) <= before + 4).then_some(())
        });
    }
    assert!(!stack.logs().contains("panicked"), "{}", stack.logs());
}
