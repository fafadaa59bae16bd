//! `troupe top` in a real terminal, where there is one to be had (tmux).

use std::process::{Command, Stdio};
use std::time::Duration;

use troupe_testkit::load::{Load, Plan};
use troupe_testkit::stack::Stack;
use troupe_testkit::wait;

use crate::support::{binary, functions};

const SOON: Duration = Duration::from_secs(20);

/// A terminal of 80 columns and 24 rows with a program in it.
struct Terminal(String);

impl Terminal {
    /// `None` on a machine without tmux.
    fn start(program: &str) -> Option<Self> {
        let terminal = Self(format!("troupe-test-{}", std::process::id()));
        let (started, _) = terminal.ask(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", program])?;
        assert!(started, "tmux is there and does not start");
        Some(terminal)
    }

    fn ask(&self, args: &[&str]) -> Option<(bool, String)> {
        let output = Command::new("tmux").args(["-L", &self.0]).args(args).stdin(Stdio::null()).output().ok()?;
        Some((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn shown(&self) -> String {
        self.ask(&["capture-pane", "-p"]).map_or_else(String::new, |(_, text)| text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The server of this socket alone.
        let _ = self.ask(&["kill-server"]);
    }
}

#[test]
fn top_lives_in_a_terminal_of_eighty_by_twenty_four_and_ends_by_a_key() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    let top = format!("{} top --interval 300ms --admin http://{admin}", binary().display());
    let Some(terminal) = Terminal::start(&top) else {
        eprintln!("tmux is not installed: top was not looked at");
        return;
    };
    let parts = ["requests", "errors", "latency", "connections", "resources", "WORKER", "default/local"];
    let quiet = wait::until("the whole picture", SOON, || {
        let shown = terminal.shown();
        parts.iter().all(|part| shown.contains(part)).then_some(shown)
    });
    for picture in [&quiet, &terminal.shown()] {
        assert!(picture.lines().count() <= 24, "{picture}");
        assert!(picture.lines().all(|line| line.chars().count() <= 80), "{picture}");
    }
    // It lives: what happens is seen without a key.
    let load = Load::start(&Plan {
        addresses: stack.addresses.clone(),
        clients: 2,
        method: "GET",
        target: "/api/hello",
        pause: Duration::from_millis(5),
    });
    let requests = |shown: &str| shown.lines().find(|line| line.contains("requests")).unwrap_or_default().to_owned();
    wait::until("the load to be seen", SOON, || (requests(&terminal.shown()) != requests(&quiet)).then_some(()));
    load.stop();
    // A Troupe that is gone is waited for, and said.
    stack.instance("all").kill();
    wait::until("its end to be seen", SOON, || terminal.shown().contains("nothing answers").then_some(()));
    stack.restart("all");
    wait::until("it to be seen again", SOON, || terminal.shown().contains("default/local").then_some(()));
    terminal.ask(&["send-keys", "C-c"]);
    wait::until("it to end", SOON, || (!terminal.ask(&["has-session"])?.0).then_some(()));
}
