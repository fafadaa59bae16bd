//! What holds of every command that asks a running Troupe: the token, and `--json`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use troupe_testkit::stack::Stack;
use troupe_testkit::{processes, wait};

use super::{SOON, ask, done, json, out, said, workers};
use crate::support::{binary, functions};

/// Every command that is asked of an admin listener, and takes a token there. In an order in which all of them can be done.
const COMMANDS: [&[&str]; 11] = [
    &["status"],
    &["workers"],
    &["top", "--interval", "200ms", "--count", "1"],
    &["slow"],
    &["explain", "GET", "/api/hello"],
    &["purge", "--all"],
    &["reload"],
    &["reload", "default"],
    &["restart", "default/local"],
    &["drain", "default/local", "--force"],
    &["undrain", "default/local"],
];

/// Wrong tokens that one address may show within a minute.
const WRONG: usize = 10;

/// The commands of the help that take `--admin`.
fn that_ask() -> Vec<String> {
    let help = |args: &[&str]| out(&Command::new(binary()).args(args).output().unwrap());
    let listed = help(&["--help"]);
    let (_, listed) = listed.split_once("Commands:\n").expect("a list of commands");
    let names = listed.lines().map_while(|line| line.strip_prefix("  "));
    let names = names.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help" && help(&[name, "--help"]).contains("--admin")).map(str::to_owned).collect()
}

#[test]
fn the_table_has_every_command_that_asks() {
    let mut listed = that_ask();
    // Probes carry no secrets: it asks for what is told to everybody.
    listed.retain(|name| name != "health");
    let mut tested: Vec<String> = COMMANDS.iter().map(|args| args[0].to_owned()).collect();
    listed.sort();
    tested.sort();
    tested.dedup();
    assert!(tested.len() > 8);
    assert_eq!(tested, listed);
}

/// A stack whose admin listener wants a token, its file, and one with another.
fn with_token() -> (TempDir, Stack, [String; 2]) {
    let home = TempDir::new().unwrap();
    let files = [("right", "correct-horse\n"), ("wrong", "battery-staple\n")].map(|(name, token)| {
        let path = home.path().join(name);
        std::fs::write(&path, token).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let config = format!("admin.token_file = {:?}\n", files[0]);
    let stack = Stack::one_process(binary(), &functions(), &config);
    (home, stack, files)
}

#[test]
fn every_command_needs_the_token_and_does_nothing_without() {
    for commands in COMMANDS.chunks(WRONG / 2) {
        let (_home, mut stack, [right, wrong]) = with_token();
        let admin = stack.instance("all").admin;
        assert_eq!(stack.get("/api/hello").status, 200);
        let before = processes::descendants(stack.instance("all").pid());
        for args in commands {
            for (token, hint) in [(None, "--token-file"), (Some(&wrong), "--token-file")] {
                let with: Vec<&str> = token.map_or(Vec::new(), |token| vec!["--token-file", token.as_str()]);
                let refused = ask(admin, &[args, &with[..]].concat());
                assert_eq!(refused.status.code(), Some(78), "{args:?} {with:?}: {}", said(&refused));
                assert!(said(&refused).contains(hint) && out(&refused).is_empty(), "{args:?}: {}", said(&refused));
            }
        }
        let with_right = |args: &[&str]| done(admin, &[args, &["--token-file", &right]].concat());
        let untouched: Value = serde_json::from_str(&with_right(&["workers", "--json"])).unwrap();
        let worker = &untouched["pools"][0]["workers"][0];
        assert_eq!((&worker["state"], &worker["load"]["restarts"]), (&"ready".into(), &0.into()), "{worker}");
        assert!(before.iter().all(|pid| processes::alive(*pid)), "a process was replaced");
        for args in commands {
            assert!(!with_right(args).is_empty(), "{args:?} says nothing");
        }
    }
}

#[test]
fn a_token_file_that_is_none_is_said_before_anybody_is_asked() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("empty"), "\n").unwrap();
    std::fs::write(path("two"), "two words\n").unwrap();
    let nobody = troupe_testkit::ports::free();
    for args in COMMANDS {
        for (file, why) in [("missing", "cannot be read"), ("empty", "is empty"), ("two", "more than one word")] {
            let refused = ask(nobody, &[args, &["--token-file", &path(file)]].concat());
            assert_eq!(refused.status.code(), Some(78), "{args:?} {file}: {}", said(&refused));
            assert!(said(&refused).contains(why) && said(&refused).contains(file), "{}", said(&refused));
        }
    }
}

#[test]
fn every_command_answers_in_json() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    assert_eq!(stack.get("/api/hello").status, 200);
    for args in COMMANDS {
        let answer = json(admin, args);
        assert!(answer.as_object().is_some_and(|members| !members.is_empty()), "{args:?}: {answer}");
    }
}

#[test]
fn drain_and_undrain_tell_programs_what_they_did() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    let state = || workers(admin)[0]["state"].clone();
    let drained = json(admin, &["drain", "default/local", "--force"]);
    assert_eq!((&drained["worker"], &drained["in_flight"]), (&"default/local".into(), &0.into()), "{drained}");
    assert_eq!(state(), "draining");
    let undrained = json(admin, &["undrain", "default/local"]);
    assert_eq!(undrained["worker"], "default/local", "{undrained}");
    wait::until("it to take calls", SOON, || (state() == "ready").then_some(()));
    // What is refused is no answer.
    let refused = ask(admin, &["drain", "nobody", "--json"]);
    assert_eq!((refused.status.code(), out(&refused).as_str()), (Some(1), ""), "{}", said(&refused));
}

#[test]
fn top_tells_programs_a_look_a_line() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    let text = done(admin, &["top", "--json", "--interval", "300ms", "--count", "2"]);
    let looks: Vec<Value> = serde_json::Deserializer::from_str(&text).into_iter().map(Result::unwrap).collect();
    assert_eq!(looks.len(), 2, "{text}");
    for look in &looks {
        assert_eq!(look["status"]["service"], "troupe", "{look}");
        assert_eq!(look["workers"]["pools"][0]["workers"][0]["name"], "default/local", "{look}");
        let rates = &look["rates"];
        assert!(rates["requests"].is_f64() && rates["cpu"].is_f64() && rates["errors"].is_object(), "{look}");
        assert!(rates["cache"]["requests"].is_f64(), "{look}");
    }
}

/// Starts `workers -w`, and gives what it has written until `enough` of it is there.
fn watched(admin: SocketAddr, more: &[&str], enough: impl Fn(&str) -> bool) -> String {
    let mut command = Command::new(binary());
    command.args(["workers", "-w", "--admin", &format!("http://{admin}")]).args(more);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut text = String::new();
    while !enough(&text) {
        let line = lines.next().unwrap_or_else(|| panic!("it ended: {text}")).unwrap();
        text.push_str(&line);
        text.push('\n');
    }
    child.kill().unwrap();
    child.wait().unwrap();
    text
}

#[test]
fn workers_are_watched_as_a_table_and_as_json() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    let table = watched(admin, &[], |text| text.matches("default/local").count() == 2);
    assert_eq!(table.matches("WORKER").count(), 2, "again and again: {table}");
    assert!(!table.contains('\x1b'), "a pipe is no terminal: {table:?}");
    let whole =
        |text: &str| serde_json::Deserializer::from_str(text).into_iter::<Value>().filter_map(Result::ok).count();
    let text = watched(admin, &["--json"], |text| whole(text) == 2);
    for look in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        assert_eq!(look.unwrap()["pools"][0]["workers"][0]["name"], "default/local", "{text}");
    }
}

/// The token is the configuration's, where the command is run beside it.
#[test]
fn a_command_finds_the_token_of_its_configuration() {
    let (_home, mut stack, _) = with_token();
    let admin = stack.instance("all").admin;
    let run = |folder: &Path| {
        let mut command = Command::new(binary());
        command.args(["status", "--json", "--config", "troupe.toml", "--set", &format!("admin.listen={admin}")]);
        command.current_dir(folder).output().unwrap()
    };
    let output = run(stack.home());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(out(&output).contains("\"ready\": true") || out(&output).contains("\"ready\":true"), "{}", out(&output));
}
