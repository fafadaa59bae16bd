//! `troupe top` in a real terminal (tmux).

use std::process::{Command, Stdio};
use std::time::Duration;

use troupe_testkit::load::{Load, Plan};
use troupe_testkit::stack::Stack;
use troupe_testkit::tools::{self, TMUX};
use troupe_testkit::{ports, wait};

use crate::support::{binary, functions};

const SOON: Duration = Duration::from_secs(20);

/// A terminal of 80 columns and 24 rows with a program in it.
struct Terminal(String);

impl Terminal {
    fn start(program: &str) -> Self {
        let terminal = Self(format!("troupe-test-{}", std::process::id()));
        let (started, _) = terminal.ask(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", program]);
        assert!(started, "tmux is there and does not start");
        terminal
    }

    fn ask(&self, args: &[&str]) -> (bool, String) {
        let mut tmux = Command::new("tmux");
        let output = tmux.args(["-L", &self.0]).args(args).stdin(Stdio::null()).output().expect("tmux runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn shown(&self) -> String {
        self.ask(&["capture-pane", "-p"]).1
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The server of this socket alone.
        let _ = self.ask(&["kill-server"]);
    }
}

/// Whether the picture fits 80 columns and 24 rows.
fn fits(picture: &str) -> bool {
    picture.lines().count() <= 24 && picture.lines().all(|line| line.chars().count() <= 80)
}

#[test]
fn top_lives_in_a_terminal_of_eighty_by_twenty_four_and_ends_by_a_key() {
    if !tools::there(&TMUX) {
        return;
    }
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    let terminal = Terminal::start(&format!("{} top --interval 300ms --admin http://{admin}", binary().display()));
    let parts = ["requests", "errors", "latency", "connections", "resources", "WORKER", "default/local"];
    let quiet = wait::until("the whole picture", SOON, || {
        let shown = terminal.shown();
        parts.iter().all(|part| shown.contains(part)).then_some(shown)
    });
    for picture in [&quiet, &terminal.shown()] {
        assert!(fits(picture), "{picture}");
    }
    // It lives: what happens is seen without a key.
    let load = Load::start(&Plan {
        addresses: stack.addresses.clone(),
        clients: 2,
        method: "GET",
        body: b"",
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
    wait::until("it to end", SOON, || (!terminal.ask(&["has-session"]).0).then_some(()));
}

/// The five panels, with names that have no room and with something that fails.
#[test]
fn top_tells_causes_and_caches_and_marks_what_it_leaves_out() {
    if !tools::there(&TMUX) {
        return;
    }
    let long = "reports-of-the-whole-year";
    let config = format!(
        "gateway.request_timeout = \"500ms\"\n[[route]]\npath = \"/api/{{function*}}\"\nfunctions = \"{long}\"\ncache = {{ ttl = \"1s\" }}\n\
         [[route]]\npath = \"/slow\"\nfunctions = \"{long}\"\nfunction = \"sleep\"\n\
         [[route]]\npath = \"/away/{{rest*}}\"\nupstream = \"app\"\n[upstream.app]\nservers = [\"{}\"]\n\
         [php.{long}]\nroot = {:?}\n",
        ports::free(),
        functions(),
    );
    let mut stack = Stack::one_process(binary(), &functions(), &config);
    let admin = stack.instance("all").admin;
    let terminal = Terminal::start(&format!("{} top --interval 500ms --admin http://{admin}", binary().display()));
    let address = stack.addresses.clone();
    let load = |target: &'static str| {
        Load::start(&Plan {
            addresses: address.clone(),
            clients: 1,
            method: "GET",
            body: b"",
            target,
            pause: Duration::from_millis(20),
        })
    };
    let loads = [load("/api/hello"), load("/slow?ms=5000"), load("/away/x")];
    let line = |shown: &str, name: &str| {
        shown.lines().find(|line| line.starts_with(name)).map(str::to_owned).unwrap_or_default()
    };
    let shown = wait::until("all panels to be filled", SOON, || {
        let shown = terminal.shown();
        let (causes, cache) = (line(&shown, "causes"), line(&shown, "cache"));
        let full =
            causes.contains("deadline") && causes.contains("unreachable") && causes.contains("upstreams: refused");
        (full && cache.contains("% hits of ") && !cache.contains(" 0.0% hits")).then_some(shown)
    });
    assert!(fits(&shown), "{shown}");
    for panel in ["requests", "errors", "latency", "connections", "cache", "resources"] {
        assert!(!line(&shown, panel).is_empty(), "{panel} is missing in\n{shown}");
    }
    // Both workers are told apart by what is left of their names, and their figures are all there.
    let table: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("WORKER")).collect();
    assert!(table[0].ends_with("RESTARTS"), "{shown}");
    assert!(
        table.iter().any(|row| row.starts_with("reports") && row.contains("…") && row.contains("/local")),
        "{shown}"
    );
    assert!(table.iter().any(|row| row.starts_with("upstream") && row.contains('…')), "{shown}");
    for load in loads {
        load.stop();
    }
    // What is printed once fits as well.
    let troupe = |command: &str| format!("{} {command} --admin http://{admin}", binary().display());
    let both = format!("sh -c '{}; {}; sleep 60'", troupe("slow -n 5"), troupe("workers"));
    terminal.ask(&["respawn-pane", "-k", &both]);
    let shown = wait::until("both tables", SOON, || {
        let shown = terminal.shown();
        (shown.contains("wider terminal") && shown.contains("RESTARTS")).then_some(shown)
    });
    let lines: Vec<&str> = shown.lines().collect();
    let slow = lines.iter().position(|line| line.contains("MOST OF IT")).expect("a header");
    assert!(lines[slow + 6].starts_with("ids: "), "a row takes more than its line:\n{shown}");
    let workers = lines.iter().position(|line| line.starts_with("WORKER")).expect("a header");
    let whole = lines[workers + 1..workers + 4].iter().all(|row| row.contains("ready") || row.contains("ejected"));
    assert!(lines[workers].ends_with("RESTARTS") && whole, "{shown}");
}
