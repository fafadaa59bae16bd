//! Keeps the table of rules at the end of `docs/cache.md` true: each test it names is there, and says of which sections it is.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

const HEADING: &str = "## The rules and their tests";
/// Crates whose tests the table may name.
const CRATES: [&str; 3] = ["cache", "gateway", "troupe"];

#[test]
fn every_rule_has_a_test_that_names_its_section() {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(services.join("../docs/cache.md")).expect("reads the page");
    let (_, table) = page.split_once(HEADING).expect("the page has the table");
    let mut tests = HashMap::new();
    for name in CRATES {
        for folder in ["src", "tests"] {
            rust_files(&services.join(name).join(folder), &mut |text| read_tests(text, &mut tests));
        }
    }
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| rule "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    for row in rows {
        let [rule, sections, named] = row[..] else { panic!("three cells: {row:?}") };
        let named: Vec<&str> = named.split(", ").map(|name| name.trim_matches('`')).collect();
        let said: Vec<&String> =
            named.iter().map(|name| tests.get(*name).unwrap_or_else(|| panic!("{rule}: no test `{name}`"))).collect();
        for section in sections.split([' ', ',']).filter(|word| word.starts_with('§')) {
            assert!(said.iter().any(|said| names(said, section)), "{rule}: none of {named:?} names {section}");
        }
    }
}

/// Whether `text` names `section` itself, and not only one that begins like it.
fn names(text: &str, section: &str) -> bool {
    text.match_indices(section).any(|(at, _)| {
        let mut rest = text[at + section.len()..].chars();
        match rest.next() {
            Some('.') => !rest.next().is_some_and(|next| next.is_ascii_digit()),
            Some(next) => !next.is_ascii_digit(),
            None => true,
        }
    })
}

fn rust_files(folder: &PathBuf, read: &mut impl FnMut(&str)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            rust_files(&path, read);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            read(&fs::read_to_string(&path).expect("reads a source"));
        }
    }
}

/// The tests in a source, with what their comments say.
fn read_tests(text: &str, tests: &mut HashMap<String, String>) {
    let (mut said, mut is_test) = (String::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            said.push_str(words);
        } else if line.starts_with("#[") {
            is_test |= line.contains("test]");
        } else {
            let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            if let (Some(name), true) = (name, is_test) {
                tests.entry(name.to_owned()).or_default().push_str(&said);
            }
            said.clear();
            is_test = false;
        }
    }
}
