use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::read::parse;
use super::{Loaded, Problem, Problems, QueueConfig, Sources, Threads, load, text};
use crate::units::Duration;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Root {
    door: Door,
    pool: BTreeMap<String, Pool>,
    threads: Threads,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Door {
    names: Vec<String>,
    limit: u16,
    open: bool,
    wait: Duration,
    #[schemars(schema_with = "text::path")]
    key: PathBuf,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Pool {
    queue: QueueConfig,
    #[schemars(extend("x-names" = "verbatim"))]
    env: BTreeMap<String, String>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            names: vec!["front".to_owned()],
            limit: 7,
            open: true,
            wait: Duration::from_secs(5),
            key: "door.key".into(),
        }
    }
}

/// A file in a directory of its own.
struct Written(tempfile::TempDir);

impl Written {
    fn new(name: &str, text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(name), text).unwrap();
        Self(directory)
    }

    fn load(&self, environment: &[(&str, &str)], set: &[&str]) -> Result<Loaded<Root>, Problems> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let sources = Sources {
            file: None,
            directory: self.0.path().to_owned(),
            environment: environment.iter().map(owned).collect(),
            set: set.iter().map(|&set| set.to_owned()).collect(),
        };
        load(&sources, |_: &Root| Vec::new())
    }
}

#[test]
fn nothing_written_is_the_default() {
    let loaded = Written::new("other.toml", "x = 1").load(&[], &[]).unwrap();
    assert_eq!(loaded.config, Root::default());
    assert_eq!(loaded.file, None);
    assert_eq!(loaded.origin("door.wait"), "default");
}

#[test]
fn each_layer_wins_over_the_one_before() {
    let file = Written::new("troupe.toml", "[door]\nlimit = 1\nwait = \"1s\"\nopen = false\n");
    let environment =
        [("TROUPE_DOOR__WAIT", "2s"), ("TROUPE_DOOR__OPEN", "true"), ("HOME", "/"), ("TROUPE_DOOR__LIMIT", "")];
    let loaded = file.load(&environment, &["door.open=false"]).unwrap();
    let door = &loaded.config.door;
    assert_eq!((door.limit, door.wait, door.open), (1, Duration::from_secs(2), false));
    assert_eq!(door.names, ["front"]);
    assert!(loaded.origin("door.limit").ends_with("troupe.toml:2:9"), "{}", loaded.origin("door.limit"));
    assert_eq!(loaded.origin("door.wait"), "environment variable TROUPE_DOOR__WAIT");
    assert_eq!(loaded.origin("door.open"), "--set door.open=false");
    assert_eq!(loaded.origin("door.names"), "default");
    assert!(loaded.is_set("door.limit") && !loaded.is_set("door.names"));
}

#[test]
fn tables_merge_and_lists_replace() {
    let file = Written::new("troupe.toml", "[door]\nnames = [\"a\", \"b\", \"c\"]\n[pool.x.queue]\nmax = 5\n");
    let loaded = file.load(&[("TROUPE_POOL__X__QUEUE__WAIT", "9s")], &["door.names=[\"z\"]"]).unwrap();
    assert_eq!(loaded.config.door.names, ["z"]);
    assert_eq!(loaded.config.pool["x"].queue, QueueConfig { max: 5, wait: Duration::from_secs(9) });
}

#[test]
fn formats_say_the_same() {
    let toml = "threads = 4\n[door]\nnames = [\"a\", \"on\"]\nlimit = 3\nopen = false\nwait = \"1s\"\n[pool.my-pool]\nenv = { A = \"1\" }\n";
    let yaml = "# comment\nthreads: 4\ndoor:\n  names: [a, on]\n  limit: 3\n  open: false\n  wait: 1s\npool:\n  my-pool:\n    env:\n      A: '1'\n";
    let json = "{\"threads\": 4, \"door\": {\t\"names\": [\"a\", \"on\"], \"limit\": 3, \"open\": false, \"wait\": \"1s\"},\n\t\"pool\": {\"my-pool\": {\"env\": {\"A\": \"1\"}}}}";
    let read = |name, text| Written::new(name, text).load(&[], &[]).unwrap().config;
    let (mut toml, mut yaml, mut json) =
        (read("troupe.toml", toml), read("troupe.yaml", yaml), read("troupe.json", json));
    for root in [&mut toml, &mut yaml, &mut json] {
        assert!(root.door.key.is_absolute() && root.door.key.ends_with("door.key"), "{:?}", root.door.key);
        root.door.key = PathBuf::new();
    }
    assert_eq!(toml, yaml);
    assert_eq!(toml, json);
    assert_eq!(toml.pool["my-pool"].env["A"], "1");
}

#[test]
fn json_may_write_letters_as_pairs_of_surrogates() {
    let json = r#"{"door": {"names": ["\ud83d\ude00", "\\ud83d\\ude00\u00e9", "\uD83D\uDE00!"]},
        "pool": {"\ud83d\ude00": {"env": {"A": "1"}}}}"#;
    let config = Written::new("troupe.json", json).load(&[], &[]).unwrap().config;
    assert_eq!(config.door.names, ["😀", r"\ud83d\ude00é", "😀!"]);
    assert_eq!(config.pool["😀"].env["A"], "1");
    let wrong = r#"{"door": {"names": ["\ud83d\ude00"], "limt": 1}}"#;
    let records = Written::new("troupe.json", wrong).load(&[], &[]).unwrap_err().records();
    let column = wrong.find("\"limt").unwrap() + 1;
    assert!(records[0].place.ends_with(&format!("troupe.json:1:{column}")), "{}", records[0].place);
    let alone = Written::new("troupe.json", r#"{"door": {"names": ["\ud83d"]}}"#).load(&[], &[]).unwrap_err();
    assert!(alone.to_string().contains("not JSON"), "{alone}");
}

#[test]
fn names_in_variables_are_found_again() {
    let file = Written::new("troupe.toml", "[pool.my_pool]\n");
    let environment = [
        ("TROUPE_POOL__MY_POOL__QUEUE__MAX", "1"),
        ("TROUPE_POOL__NEW_POOL__QUEUE__MAX", "2"),
        ("TROUPE_POOL__NEW_POOL__ENV__APP__Key", "secret"),
    ];
    let config = file.load(&environment, &[]).unwrap().config;
    assert_eq!(config.pool["my_pool"].queue.max, 1);
    assert_eq!(config.pool["new-pool"].queue.max, 2);
    assert_eq!(config.pool["new-pool"].env["APP__Key"], "secret");
}

#[test]
fn paths_are_taken_from_where_they_are_written() {
    let file = Written::new("troupe.toml", "[door]\nkey = \"a.key\"\n");
    assert_eq!(file.load(&[], &[]).unwrap().config.door.key, file.0.path().join("a.key"));
    assert_eq!(file.load(&[], &["door.key=b.key"]).unwrap().config.door.key, PathBuf::from("b.key"));
    let unset = Written::new("troupe.toml", "");
    assert_eq!(unset.load(&[], &[]).unwrap().config.door.key, unset.0.path().join("door.key"));
}

#[test]
fn other_names_that_begin_alike_are_left_alone() {
    let file = Written::new("troupe.toml", "");
    let theirs = [("TROUPE_SERVICE_HOST", "10.0.0.1"), ("TROUPE_PORT_8080_TCP", "tcp://x"), ("TROUPE_CONFIG", "x")];
    assert_eq!(file.load(&theirs, &[]).unwrap().file, Some(file.0.path().join("troupe.toml")));
    let records = file.load(&[("TROUPE_DOOR_LIMIT", "3")], &[]).unwrap_err().records();
    assert_eq!(records[0].suggestion.as_deref(), Some("TROUPE_DOOR__LIMIT"));
}

#[test]
fn all_problems_of_all_layers_come_at_once() {
    let file = Written::new("troupe.toml", "[door]\nlimt = 1\nopen = 1\nwait = 5\n[dor]\n");
    let problems = file.load(&[("TROUPE_DOOR__NAMEZ", "a")], &["threads=none", "pool"]).unwrap_err();
    let said: Vec<String> = problems.records().into_iter().map(|record| record.message).collect();
    assert_eq!(
        said,
        [
            "unknown key `door.limt`",
            "`door.open` takes true or false, not the number 1",
            "`door.wait` is the number 5, which has no unit",
            "unknown key `dor`",
            "unknown key `door.namez`",
            "no `=` between key and value",
            "`threads` takes \"auto\" or a whole number from 1 to 1024, not the string \"none\"",
        ]
    );
}

#[test]
fn a_named_file_has_to_be_there() {
    let sources = Sources { file: Some("/nowhere/troupe.toml".into()), ..Sources::default() };
    let problems = load(&sources, |_: &Root| Vec::new()).unwrap_err();
    assert_eq!(problems.to_string(), "default: /nowhere/troupe.toml: there is no such file");
}

#[test]
fn rules_are_shown_where_their_key_stands() {
    let file = Written::new("troupe.toml", "[door]\nlimit = 1\n");
    let sources = Sources { directory: file.0.path().to_owned(), ..Sources::default() };
    let rule = |_: &Root| vec![Problem::new("door.limit", "one is not enough")];
    let report = load(&sources, rule).unwrap_err().render(false);
    assert!(report.contains("one is not enough") && report.contains("troupe.toml:2:9"), "{report}");
}

#[test]
fn of_many_problems_the_first_are_shown_and_the_rest_is_counted() {
    let wrong: String = (0..250).map(|number| format!("wrong{number} = 1\n")).collect();
    let problems = Written::new("troupe.toml", &wrong).load(&[], &[]).unwrap_err();
    assert_eq!((problems.len(), problems.records().len(), problems.left_out()), (250, 100, 150));
    let report = problems.render(false);
    assert_eq!(report.matches("unknown key").count(), 100);
    assert!(report.contains("and 150 more\n250 problems in the configuration"), "{report}");
    assert_eq!(problems.to_string().lines().count(), 101);

    let few = Written::new("troupe.toml", "wrong = 1\n").load(&[], &[]).unwrap_err();
    assert!(!few.render(false).contains("more") && few.left_out() == 0);
}

#[test]
fn log_levels_are_what_the_log_takes() {
    for level in ["info", "INFO", "off", "info,troupe_gateway=debug", "a::b=trace", "a[b]=debug"] {
        assert_eq!(text::check("log-filter", level), Ok(()), "{level}");
    }
    for level in ["", "loud", "troupe=loud", "info,a[b=debug", "a[b}=debug", "warn, a=debug"] {
        assert!(text::check("log-filter", level).is_err(), "{level}");
    }
}

#[test]
fn deep_and_cyclic_files_are_refused() {
    let refused = |name: &str, text: &str| Written::new(name, text).load(&[], &[]).unwrap_err().to_string();
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(5_000), close.repeat(5_000));
    let nested = format!("{}{}", "[".repeat(40), "]".repeat(40));
    assert!(refused("troupe.yaml", &nested).contains("nested deeper"));
    assert!(refused("troupe.toml", &format!("a = {}", deep("[", "]"))).contains("not TOML"));
    assert!(refused("troupe.yaml", &deep("[", "]")).contains("troupe.yaml:1:"));
    assert!(refused("troupe.json", &deep("[", "]")).contains("not JSON"));
    assert!(refused("troupe.yaml", "a: &x [1]\nb: *x\n").contains("aliases"));
}

proptest! {
    #[test]
    fn no_file_panics(text in "([a-z]{1,4}[:=] ?|\\[|\\]|\\{|\\}|\"|'|,|\n|\n  |- |#|&a|\\*a|1|µ|\\t){0,30}") {
        for name in ["x.toml", "x.yaml", "x.json"] {
            let written = std::path::Path::new(name);
            if let Err(problems) = parse(written, &text) {
                prop_assert!(!problems.is_empty());
                let problems = Problems { list: problems, file: Some((written.to_owned(), text.clone())) };
                prop_assert!(!problems.render(false).is_empty());
            }
        }
    }
}
