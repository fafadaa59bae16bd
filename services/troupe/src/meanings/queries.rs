//! The queries of the rules and the Grafana dashboards that come with Troupe name series that there are.

use std::collections::{BTreeMap, BTreeSet};
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

/// Labels that Prometheus gives to what it scrapes, and to buckets.
const OF_PROMETHEUS: [&str; 4] = ["job", "instance", "service", "le"];

/// The words in backquotes of what a name means: its labels, and the values of those that have few.
fn words(meaning: &str) -> impl Iterator<Item = &str> {
    meaning.split('`').skip(1).step_by(2)
}

/// What each series may have in a query, by the series' name: its labels and their values. Those of recording rules have what the
/// series have that they are made of, and what they set themselves.
fn vocabulary() -> BTreeMap<String, BTreeSet<String>> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, description) in described(describe) {
        let words: BTreeSet<String> = words(&description.meaning).map(str::to_owned).collect();
        for part in ["_bucket", "_sum", "_count", ""] {
            known.insert(format!("{name}{part}"), words.clone());
        }
    }
    let rules = fs::read_to_string(docker("prometheus/recording.yml")).unwrap();
    for rule in rules.split("- record: ").skip(1) {
        let name = rule.lines().next().unwrap_or_default().trim().to_owned();
        let made_of = named(rule.split_once("expr:").map_or("", |(_, query)| query)).flat_map(|series| &known[series]);
        let set = rule.split("label_replace(").skip(1).flat_map(|set| set.split('"').skip(1).step_by(2));
        let set = set.filter(|word| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        let words = made_of.cloned().chain(set.map(str::to_owned)).collect();
        known.insert(name, words);
    }
    known
}

/// The labels that a query asks for by name: `(name, the series it is asked of, the values)`.
fn asked(query: &str) -> Vec<(String, String, Vec<String>)> {
    let mut asked = Vec::new();
    for (before, rest) in query.match_indices('{').map(|(at, _)| query.split_at(at)) {
        let series = named(before).last().unwrap_or_default().to_owned();
        let (matchers, _) = rest.trim_start_matches('{').split_once('}').unwrap_or_default();
        for matcher in matchers.split("\",").filter(|matcher| !matcher.trim().is_empty()) {
            let (name, value) = matcher.split_once('=').unwrap_or((matcher, ""));
            let values = value.trim_matches(['~', '"']).split('|').map(str::to_owned).collect();
            asked.push((name.trim_matches(['!', ' ']).to_owned(), series.clone(), values));
        }
    }
    for (group, rest) in query.split("by (").skip(1).filter_map(|rest| rest.split_once(')')) {
        let series = named(rest).next().unwrap_or_default();
        asked.extend(group.split(',').map(|name| (name.trim().to_owned(), series.to_owned(), Vec::new())));
    }
    asked
}

/// Asserts that what a query asks for is what its series have, and that `shown` is what one of them has.
fn check_labels(place: &str, query: &str, shown: &[String], known: &BTreeMap<String, BTreeSet<String>>) {
    let own = |name: &str| !OF_PROMETHEUS.contains(&name);
    for (name, series, values) in asked(query).into_iter().filter(|(name, ..)| own(name)) {
        let words = known.get(&series).unwrap_or_else(|| panic!("{place}: {series} is not there: {query}"));
        assert!(words.contains(&name), "{place}: {series} has no label {name}: {query}");
        for value in &values {
            assert!(words.contains(value), "{place}: the label {name} of {series} is never {value}: {query}");
        }
    }
    for name in shown.iter().filter(|name| own(name)) {
        let there = named(query).any(|series| known.get(series).is_some_and(|words| words.contains(name)));
        assert!(there, "{place}: shows the label {name}, which nothing in it has: {query}");
    }
}

/// The names in double braces of a text that is filled in: a legend's, an annotation's.
fn filled_in(text: &str) -> Vec<String> {
    let braces = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
    let name = |(inside, _): (&str, &str)| {
        let name = inside.trim().strip_prefix("$labels.").unwrap_or(inside).trim().to_owned();
        (!name.starts_with('$')).then_some(name)
    };
    braces.filter_map(name).collect()
}

#[test]
fn rules_and_dashboards_ask_for_labels_and_values_that_there_are() {
    let known = vocabulary();
    let mut checked = 0;
    for entry in fs::read_dir(docker("grafana/dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let board: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().unwrap_or_default();
                let legend = filled_in(target["legendFormat"].as_str().unwrap_or_default());
                check_labels(&panel["title"].to_string(), query, &legend, &known);
                checked += 1;
            }
        }
    }
    for (rules, begins) in [("prometheus/recording.yml", "- record: "), ("prometheus/alerts.yml", "- alert: ")] {
        let text = fs::read_to_string(docker(rules)).unwrap();
        for rule in text.split(begins).skip(1) {
            let (_, rest) = rule.split_once("expr:").expect("a rule has a query");
            let end = ["for: ", "labels: ", "      #", "\n  - name: "].iter().filter_map(|key| rest.find(key)).min();
            let query = rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest);
            check_labels(
                &format!("{rules}: {}", rule.lines().next().unwrap_or_default()),
                query,
                &filled_in(rule),
                &known,
            );
            checked += 1;
        }
    }
    assert!(checked > 80, "{checked}");
}

#[test]
fn a_query_is_taken_apart_into_labels_and_values() {
    let query = "sum by (pool, le) (rate(troupe_a_total{reason=~\"died|memory\",pool!=\"x\"}[5m])) / troupe_b";
    let of = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
    let expected = [
        ("reason".to_owned(), "troupe_a_total".to_owned(), of("died|memory")),
        ("pool".to_owned(), "troupe_a_total".to_owned(), of("x")),
        ("pool".to_owned(), "troupe_a_total".to_owned(), Vec::new()),
        ("le".to_owned(), "troupe_a_total".to_owned(), Vec::new()),
    ];
    assert_eq!(asked(query), expected);
    assert_eq!(filled_in("{{pool}}: {{ $labels.cause }} {{ $value }}"), ["pool", "cause"]);
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
