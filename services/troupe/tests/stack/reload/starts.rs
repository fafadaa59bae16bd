//! Reloads of a process that was started by hand: where it found its file, what is asked for before it serves, and what it
//! is ready for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use troupe_testkit::http::{self, Response};
use troupe_testkit::{ports, processes, wait};

use super::{MORE, out, reload};
use crate::support::{binary, functions};

const SOON: Duration = Duration::from_secs(60);

/// `troupe run` in a directory with a configuration file, which nobody names.
struct Run {
    child: Child,
    stdout: BufReader<ChildStdout>,
    file: PathBuf,
    /// What the file says before a test adds to it.
    text: String,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Run {
    fn begin(home: &Path, arguments: &[&str], more: &str) -> Self {
        let (listen, admin) = (ports::free(), ports::free());
        let text = format!("gateway.listen = [\"{listen}\"]\nadmin.listen = \"{admin}\"\n{more}\n");
        let file = home.join("troupe.toml");
        fs::write(&file, &text).unwrap();
        let mut child = Command::new(binary())
            .arg("run")
            .args(arguments)
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, file, text, listen, admin }
    }

    fn add(&self, more: &str) {
        fs::write(&self.file, format!("{}{more}", self.text)).unwrap();
    }

    fn await_ready(&mut self) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(line.starts_with("ready "), "it did not come up: {line:?}");
    }

    fn get(&self, target: &str) -> Option<Response> {
        http::get(self.listen, target).ok()
    }

    fn asked(&self, target: &str) -> Option<Response> {
        http::get(self.admin, target).ok()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_file_that_was_found_at_the_start_is_missed_when_it_is_gone() {
    let home = tempfile::tempdir().unwrap();
    // Where the defaults look for them, too.
    fs::create_dir(home.path().join("functions")).unwrap();
    fs::copy(functions().join("hello.php"), home.path().join("functions/hello.php")).unwrap();
    let mut run = Run::begin(home.path(), &[], "");
    run.await_ready();
    run.add(MORE);
    assert_eq!(reload(run.admin, &[]).status.code(), Some(0));
    assert_eq!(run.get("/more").unwrap().status, 200);

    fs::rename(&run.file, home.path().join("away")).unwrap();
    let refused = reload(run.admin, &[]);
    assert_eq!(refused.status.code(), Some(78), "{}", out(&refused));
    assert!(out(&refused).contains("troupe.toml: there is no such file"), "{}", out(&refused));
    assert_eq!(run.get("/more").unwrap().status, 200, "the defaults know no such route");

    fs::rename(home.path().join("away"), &run.file).unwrap();
    assert_eq!(reload(run.admin, &[]).status.code(), Some(0));
}

#[test]
fn a_hangup_during_the_start_is_carried_out_when_it_is_complete() {
    let (home, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::copy(functions().join("hello.php"), root.path().join("hello.php")).unwrap();
    // The code boots when the test says so.
    fs::create_dir(root.path().join("vendor")).unwrap();
    let go = home.path().join("go");
    let boot =
        format!("<?php\nwhile (!file_exists('{}')) {{\n    clearstatcache();\n    usleep(10_000);\n}}\n", go.display());
    fs::write(root.path().join("vendor/autoload.php"), boot).unwrap();

    let pool = format!("php.default = {{ root = \"{}\", boot_timeout = \"2m\" }}", root.path().display());
    let mut run = Run::begin(home.path(), &[], &pool);
    wait::until("the admin listener", SOON, || run.asked("/livez"));
    let early = reload(run.admin, &[]);
    assert_eq!(early.status.code(), Some(69), "{}", out(&early));
    assert!(out(&early).contains("is still starting"), "{}", out(&early));
    run.add(MORE);
    processes::signal(run.child.id(), Signal::HUP);

    fs::write(&go, "").unwrap();
    run.await_ready();
    wait::until("the route that was added meanwhile", SOON, || {
        (run.get("/more").is_some_and(|answer| answer.status == 200)).then_some(())
    });
}

#[test]
fn a_balancer_is_ready_without_links_while_no_php_is_configured() {
    const UPSTREAM: &str =
        "[[route]]\npath = \"/{rest*}\"\nupstream = \"app\"\n[upstream.app]\nservers = [\"127.0.0.1:9\"]\n";
    const PHP: &str = "[php.default]\nroot = \"functions\"\n";
    let ready = |run: &Run, wanted: u16| {
        wait::until(&format!("{wanted} from /readyz"), SOON, || {
            run.asked("/readyz").filter(|answer| answer.status == wanted)
        })
    };
    for (before, after, end) in [(PHP, "", 200), ("", PHP, 503)] {
        let home = tempfile::tempdir().unwrap();
        let mesh = format!("mesh = {{ listen = \"{}\", peers.php-pool = [\"{}\"] }}", ports::free(), ports::free());
        let mut run = Run::begin(home.path(), &["--service", "balancer"], &format!("{mesh}\n{UPSTREAM}{before}"));
        run.await_ready();
        ready(&run, if end == 200 { 503 } else { 200 });
        run.text = run.text.replace(PHP, "");
        run.add(after);
        let done = reload(run.admin, &[]);
        assert!(out(&done).contains("taken php.default"), "{}", out(&done));
        let answer = ready(&run, end).text();
        assert_eq!(answer.contains("no link to a php-pool is up"), end == 503, "{answer}");
    }
}
