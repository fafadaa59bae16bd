//! The threads of the processes, as the kernel sees them.

use std::fs;

use troupe_testkit::stack::{Plan, Stack};

use crate::support::{binary, functions};

/// The cores that each thread of `pid` whose name begins with `name` may run on.
fn cores(pid: u32, name: &str) -> Vec<String> {
    let mut cores = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        if fs::read_to_string(task.join("comm")).unwrap().starts_with(name) {
            let status = fs::read_to_string(task.join("status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
            cores.push(line.trim().to_owned());
        }
    }
    cores
}

#[test]
fn pinned_threads_have_a_core_each_and_php_has_all_of_them() {
    let config = "node.pin = [0]\nnode.threads = 1\n";
    let mut one = Stack::one_process(binary(), &functions(), config);
    let mut apart = Plan::apart().start(binary(), &functions(), config);
    let pid = one.instance("all").pid();
    assert_eq!(cores(pid, "gateway-"), ["0"]);
    for service in ["gateway", "balancer", "php-pool"] {
        let pid = apart.instance(service).pid();
        assert_eq!(cores(pid, &format!("{service}-")), ["0"], "{service}");
    }
    assert_ne!(cores(pid, "php-control"), ["0"], "what forks PHP is not pinned");
}

#[test]
fn a_core_that_is_not_there_is_named() {
    let directory = tempfile::TempDir::new().unwrap();
    let output = std::process::Command::new(binary())
        .args(["run", "--set", "node.pin=[60000]", "--set", &format!("php.default.root={}", functions().display())])
        .args(["--set", &format!("admin.listen={}", troupe_testkit::ports::free())])
        .args(["--set", &format!("gateway.listen=[\"{}\"]", troupe_testkit::ports::free())])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("60000") && said.contains("node.pin"), "{said}");
}
