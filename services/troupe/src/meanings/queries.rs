//! The queries of the rules and the Grafana dashboards that come with Troupe name series that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use troupe_node::metrics::{Kind, described};

use super::describe;

fn docker(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docker").join(path)
}

/// Every series that a scrape may show.
fn series() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, description) in described(describe) {
        if description.kind == Kind::Histogram {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
        names.insert(name);
    }
    names
}

/// The series that the recording rules make.
fn recorded() -> BTreeSet<String> {
    let rules = fs::read_to_string(docker("prometheus/recording.yml")).unwrap();
    rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).map(str::to_owned).collect()
}

/// What of a text is the name of a series of ours.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_' || character == ':'))
        .filter(|word| word.starts_with("troupe_") || word.starts_with("troupe:"))
}

/// The queries of a dashboard, wherever they stand in it.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("expr").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| queries(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

fn check(place: &str, text: &str, known: &BTreeSet<String>) {
    for name in named(text) {
        assert!(known.contains(name), "{place} asks for {name}, which nothing counts: {text}");
    }
}

#[test]
fn rules_and_dashboards_ask_for_series_that_there_are() {
    let mut known = series();
    known.extend(recorded());
    let mut dashboards = 0;
    for entry in fs::read_dir(docker("grafana/dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let board: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut found = Vec::new();
        queries(&board, &mut found);
        assert!(found.len() > 20, "{}: {} queries", path.display(), found.len());
        for query in &found {
            check(&path.display().to_string(), query, &known);
        }
        let titles: Vec<&Value> = board["panels"].as_array().unwrap().iter().map(|panel| &panel["title"]).collect();
        assert!(titles.iter().all(|title| title.as_str().is_some_and(|title| !title.is_empty())), "{titles:?}");
        dashboards += 1;
    }
    assert!(dashboards > 0);
    for rules in ["recording.yml", "alerts.yml", "tests/alerts.yml", "tests/recording.yml"] {
        let rules = &format!("prometheus/{rules}");
        let text = fs::read_to_string(docker(rules)).unwrap();
        assert!(named(&text).count() > 10, "{rules}");
        text.lines().for_each(|line| check(rules, line, &known));
    }
}

#[test]
fn every_recording_rule_has_a_case_with_its_value() {
    let cases = fs::read_to_string(docker("prometheus/tests/recording.yml")).unwrap();
    let recorded = recorded();
    assert!(recorded.len() > 10, "{recorded:?}");
    for rule in &recorded {
        let queries = cases.lines().filter(|line| line.contains("expr: "));
        assert!(queries.flat_map(named).any(|name| name == rule), "{rule} has no case");
    }
    assert_eq!(cases.matches("expr: ").count(), cases.matches("exp_samples:").count());
}

#[test]
fn every_alert_says_what_to_do_and_has_a_case_that_fires_and_one_that_is_silent() {
    let alerts = fs::read_to_string(docker("prometheus/alerts.yml")).unwrap();
    let cases = fs::read_to_string(docker("prometheus/tests/alerts.yml")).unwrap();
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 15, "{names:?}");
    for part in ["severity: ", "summary: ", "description: "] {
        assert_eq!(alerts.matches(part).count(), names.len(), "{part}");
    }
    for name in names {
        for case in [format!("name: {name} fires\n"), format!("name: {name} is silent\n")] {
            assert_eq!(cases.matches(&case).count(), 1, "{case}");
        }
    }
}
