//! What bad configurations are answered: each file of `tests/bad-config` beside the report it gets.

use std::path::{Path, PathBuf};

use troupe_node::config::Sources;

use super::super::load;

/// Relative, because reports name the file as it was named.
const CASES: &str = "tests/bad-config";

fn sources(path: &Path) -> Sources {
    let lines = || std::fs::read_to_string(path).unwrap();
    let none = Sources { directory: "/nowhere".into(), ..Sources::default() };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("env") => {
            let pair =
                |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
            Sources { environment: lines().lines().map(pair).collect(), ..none }
        }
        Some("set") => Sources { set: lines().lines().map(str::to_owned).collect(), ..none },
        _ => Sources { file: Some(path.to_owned()), ..none },
    }
}

#[test]
fn bad_configurations_are_answered_as_recorded() {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(CASES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "txt"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let mut changed = Vec::new();
    for case in cases {
        let problems = load(&sources(&case)).map(|_| ()).expect_err(&format!("{} is accepted", case.display()));
        let report = problems.render(false);
        for record in problems.records() {
            assert!(!record.message.is_empty() && !record.message.ends_with('.'), "{}: {record:?}", case.display());
        }
        let stored = PathBuf::from(format!("{}.txt", case.display()));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&stored, &report).unwrap();
        }
        if std::fs::read_to_string(&stored).unwrap_or_default() != report {
            changed.push(format!("{}\n{report}", case.display()));
        }
    }
    assert!(changed.is_empty(), "UPDATE=1 cargo test -p troupe records these:\n{}", changed.join("\n"));
}
