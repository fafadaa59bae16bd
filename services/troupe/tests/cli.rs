//! The command line as people and scripts meet it: what it prints, and how it ends.

#![expect(
    clippy::unwrap_used,
    reason = "tests say what they expect by unwrapping; clippy knows only those inside of test functions"
)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use troupe_testkit::ports;

fn troupe(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_troupe"));
    // What the caller's environment sets is not what is tested.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TROUPE_")) {
        command.env_remove(name);
    }
    command.args(args).current_dir(directory).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// A directory as `troupe init` leaves it.
fn initialised() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let output = troupe(directory.path(), &["init", "."]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    directory
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let here = Path::new(".");
    let help = stdout(&troupe(here, &["--help"]));
    for code in ["0  done", "1  failed", "2  wrong usage", "69  ", "75  ", "78  "] {
        assert!(help.contains(code), "{code} is missing in\n{help}");
    }
    for command in [
        "run",
        "check",
        "init",
        "config",
        "health",
        "completion",
        "status",
        "workers",
        "drain",
        "undrain",
        "restart",
        "reload",
        "explain",
        "slow",
        "top",
    ] {
        let output = troupe(here, &[command, "--help"]);
        let examples = stdout(&output)
            .lines()
            .filter(|line| line.starts_with("  troupe ") || line.starts_with("  TROUPE_"))
            .count();
        assert_eq!(code(&output), Some(0));
        assert!((2..=4).contains(&examples), "{command} has {examples} examples");
    }
    let version = troupe(here, &["--version"]);
    assert_eq!(stdout(&version), format!("troupe {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2() {
    for args in [&["serve"][..], &[], &["run", "--service", "caches"], &["config", "show", "--no"]] {
        assert_eq!(code(&troupe(Path::new("."), args)), Some(2), "{args:?}");
    }
}

#[test]
fn init_writes_what_check_accepts_and_overwrites_nothing() {
    let directory = initialised();
    for file in ["troupe.toml", "functions/hello.php"] {
        assert!(directory.path().join(file).is_file(), "{file}");
    }
    let set = [format!("gateway.listen={}", ports::free()), format!("admin.listen={}", ports::free())];
    let output = troupe(directory.path(), &["check", "--set", &set[0], "--set", &set[1], "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), &answer["ok"]), (Some(0), &true.into()), "{answer}");

    std::fs::write(directory.path().join("troupe.toml"), "# mine\n").unwrap();
    std::fs::remove_file(directory.path().join("functions/hello.php")).unwrap();
    let output = troupe(directory.path(), &["init", "."]);
    assert_eq!(code(&output), Some(1));
    assert!(stderr(&output).contains("troupe.toml exists and is not overwritten"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(directory.path().join("troupe.toml")).unwrap(), "# mine\n");
    assert!(!directory.path().join("functions/hello.php").exists());
}

#[test]
fn wrong_configurations_end_with_78_and_name_the_line() {
    let directory = initialised();
    std::fs::write(directory.path().join("troupe.toml"), "[gateway]\n\nlistn = [\"127.0.0.1:8080\"]\n").unwrap();
    for args in [&["run"][..], &["check"], &["config", "show"], &["health"]] {
        let output = troupe(directory.path(), args);
        assert_eq!(code(&output), Some(78), "{args:?}");
        let said = stderr(&output);
        assert!(said.contains("troupe.toml:3") && said.contains("did you mean `listen`?"), "{args:?}: {said}");
        assert_eq!(stdout(&output), "", "{args:?}");
    }
    let output = troupe(directory.path(), &["check", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["problems"][0]["suggestion"], "listen");
    assert_eq!(answer["problems"][0]["place"], "troupe.toml:3:1");
    let output = troupe(directory.path(), &["run", "--config", "missing.toml"]);
    assert_eq!(code(&output), Some(78));
    assert!(stderr(&output).contains("missing.toml"), "{}", stderr(&output));
}

#[test]
fn functions_that_are_not_there_end_with_78() {
    let directory = tempfile::tempdir().unwrap();
    let output = troupe(directory.path(), &["run"]);
    assert_eq!(code(&output), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("there is no directory functions"), "{}", stderr(&output));
}

#[test]
fn a_user_that_is_not_there_ends_with_78_in_check_as_well() {
    let directory = initialised();
    for command in ["run", "check"] {
        let output = troupe(directory.path(), &[command, "--set", "php.default.user=nobody-here"]);
        assert_eq!(code(&output), Some(78), "{command}: {}", stderr(&output));
        assert!(stderr(&output).contains("there is no user nobody-here"), "{command}: {}", stderr(&output));
    }
}

#[test]
fn check_tells_a_busy_port_from_a_missing_php() {
    let directory = initialised();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("gateway.listen={}", taken.local_addr().unwrap());
    let admin = format!("admin.listen={}", ports::free());
    let output = troupe(directory.path(), &["check", "--set", &busy, "--set", &admin]);
    assert_eq!(code(&output), Some(75), "{}", stdout(&output));
    assert!(stdout(&output).contains("is busy (gateway.listen)"), "{}", stdout(&output));
    let set = ["--set", &busy, "--set", &admin, "--set", "php.default.binary=no-such-php"];
    let output = troupe(directory.path(), &[&["check"][..], &set].concat());
    assert_eq!(code(&output), Some(69), "{}", stdout(&output));
    assert!(stdout(&output).contains("`no-such-php` is not found"), "{}", stdout(&output));
}

#[test]
fn listeners_of_one_process_that_clash_end_with_78() {
    let directory = initialised();
    let (one, other) = (ports::free(), ports::free());
    let socket = format!("unix:{}", directory.path().join("links.sock").display());
    let (admin, mesh) = (format!("admin.listen={one}"), format!("mesh.listen={one}"));
    let (gateway, elsewhere, unix) =
        (format!("gateway.listen={one}"), format!("admin.listen={other}"), format!("mesh.listen={socket}"));
    for (services, set, said) in [
        ("balancer", [&admin, &mesh], "which `admin.listen` takes already"),
        ("gateway,php-pool", [&gateway, &mesh], "which `gateway.listen[0]` takes already"),
        ("balancer,cache", [&elsewhere, &mesh], "which both balancer and cache would take"),
        ("php-pool,metrics", [&elsewhere, &unix], "which both php-pool and metrics would take"),
    ] {
        for command in ["run", "check"] {
            let set = set.iter().flat_map(|set| ["--set", set.as_str()]).chain(["--set", "node.drain_delay=0s"]);
            let args: Vec<&str> = [command, "--service", services].into_iter().chain(set).collect();
            let output = troupe(directory.path(), &args);
            assert_eq!(code(&output), Some(78), "{args:?}: {}{}", stdout(&output), stderr(&output));
            assert!(stderr(&output).contains(said), "{args:?}: {}", stderr(&output));
        }
    }
    // The balancer of a gateway's process takes no links.
    let args = ["check", "--service", "gateway,balancer,cache", "--set", &elsewhere, "--set", &mesh];
    let free = format!("gateway.listen={}", ports::free());
    let output = troupe(directory.path(), &[&args[..], &["--set", &free]].concat());
    assert_eq!(code(&output), Some(0), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn check_dials_the_peers_that_the_services_would_call() {
    let directory = initialised();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap();
    let closed = ports::free();
    let admin = format!("admin.listen={}", ports::free());
    let peers = format!("mesh.peers.php-pool=[\"{there}\", \"{closed}\", \"php-pool.invalid:7402\"]");
    let metrics = format!("mesh.peers.metrics=[\"localhost:{}\"]", there.port());
    let mesh = format!("mesh.listen={}", ports::free());
    let set = ["--set", &admin, "--set", &peers, "--set", &metrics, "--set", &mesh, "--set", "mesh.discovery=dns"];
    let args = [&["check", "--service", "balancer"][..], &set].concat();
    let output = troupe(directory.path(), &[&args[..], &["--json"]].concat());
    assert_eq!(code(&output), Some(0), "a peer that is away is no error: {}", stdout(&output));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<_> = answer["checks"].as_array().unwrap().iter().filter(|row| row["check"] == "peer").collect();
    let expected = [
        ("ok", format!("php-pool at {there} accepts connections"), ""),
        (
            "warn",
            format!("php-pool at {closed} refuses connections"),
            "is it running (`troupe run --service php-pool`)",
        ),
        ("warn", "php-pool at php-pool.invalid:7402: ".to_owned(), "`getent hosts php-pool.invalid`"),
        // On some machines this name has another address as well.
        ("ok", format!("metrics at localhost:{} (127.0.0.1:{0}) accepts connections", there.port()), ""),
    ];
    for (outcome, said, help) in &expected {
        let row = rows.iter().find(|row| row["said"].as_str().unwrap().starts_with(said));
        let row = row.unwrap_or_else(|| panic!("no row says {said}: {answer}"));
        assert_eq!(row["outcome"], *outcome, "{row}");
        assert!(row["help"].as_str().unwrap_or_default().contains(help), "{row}");
        assert!(row["is"].is_string() && row["should_be"].is_string(), "{row}");
    }
    let shown = stdout(&troupe(directory.path(), &args));
    assert!(shown.contains(&format!("warn  peer           {}", expected[1].1)), "{shown}");
    drop(listener);

    let alone = stdout(&troupe(directory.path(), &[&["check"][..], &set].concat()));
    assert!(!alone.contains("  peer "), "one process with all services has none: {alone}");
}

#[test]
fn show_prints_what_loads_as_the_same_and_hides_secrets() {
    let directory = initialised();
    let set =
        ["--set", "gateway.max_head=16KiB", "--set", "php.api.root=functions", "--set", "php.default.root=functions"];
    let shown = troupe(directory.path(), &[&["config", "show"][..], &set].concat());
    assert_eq!(code(&shown), Some(0), "{}", stderr(&shown));
    std::fs::write(directory.path().join("again.toml"), &shown.stdout).unwrap();
    let again = troupe(directory.path(), &["config", "show", "--config", "again.toml"]);
    assert_eq!(stdout(&again), stdout(&shown));

    let set = ["--set", "php.default.env.DB_PASSWORD=hunter2"];
    for form in [&["config", "show"][..], &["config", "show", "--json"], &["config", "show", "--origin"]] {
        let output = troupe(directory.path(), &[form, &set].concat());
        let data = stdout(&output);
        let data = data.lines().map(|line| line.split(" # ").next().unwrap()).collect::<Vec<_>>().join("\n");
        assert!(data.contains("DB_PASSWORD") && !data.contains("hunter2"), "{data}");
    }
    let output = troupe(directory.path(), &["config", "show", "--origin", "--json", "--set", "gateway.max_head=16KiB"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["gateway.max_head"]["origin"], "--set gateway.max_head=16KiB");
    assert_eq!(answer["gateway.max_body"]["origin"], "default");
}

#[test]
fn the_schema_is_one() {
    let output = troupe(Path::new("."), &["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["properties"]["gateway"]["properties"]["max_head"]["format"], "size");
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn completion_scripts_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = troupe(Path::new("."), &["completion", shell]);
        assert!(code(&output) == Some(0) && stdout(&output).contains("completion"), "{shell}");
    }
}

#[test]
fn health_asks_the_admin_listener() {
    let nobody = troupe(Path::new("."), &["health", "--admin", &ports::free().to_string()]);
    assert_eq!(code(&nobody), Some(69), "{}", stderr(&nobody));
    assert!(stderr(&nobody).contains("nothing answers"), "{}", stderr(&nobody));
    for (status, body, end) in [("200 OK", "ready", 0), ("503 Service Unavailable", "draining", 69)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            let length = stream.read(&mut asked).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let output = troupe(Path::new("."), &["health", "--admin", &url]);
        let asked = server.join().unwrap();
        assert!(asked.starts_with("GET /readyz HTTP/1.1\r\n"), "{asked}");
        assert_eq!(code(&output), Some(end), "{}", stderr(&output));
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains(body), "{said}");
    }
}
