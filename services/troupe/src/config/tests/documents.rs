use std::path::{Path, PathBuf};

use serde_json::Value;
use troupe_node::config::{Sources, variable_for};

use super::super::{Config, document, load};
use super::leaves;

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Compares a file of the workspace with what the code says now; `UPDATE=1` writes it instead.
fn same(path: &str, text: &str) {
    let path = workspace(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == text, "{} is not what the code says; UPDATE=1 cargo test -p troupe writes it", path.display());
}

#[test]
fn the_documents_say_what_the_code_does() {
    same("troupe.toml", &document::toml());
    same("docs/configuration.md", &document::markdown());
}

#[test]
fn uncommenting_every_key_changes_nothing() {
    let text: String = document::toml()
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(text.contains("\n[[route]]\n") && text.contains("\nprocesses = {"), "{text}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("troupe.toml");
    std::fs::write(&file, text).unwrap();
    let mut loaded =
        load(&Sources { file: Some(file), ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems}"));
    let root = &mut loaded.config.php.get_mut("default").unwrap().root;
    *root = root.strip_prefix(directory.path()).unwrap().to_owned();
    assert_eq!(loaded.config, Config::default());
    for (path, _) in leaves() {
        // A table of free names has no place of its own before it has one.
        let section = path[..path.len() - 1].join(".");
        assert!(loaded.is_set(&path.join(".")), "{} of [{section}] is not in the file", path.join("."));
    }
}

#[test]
fn every_key_is_described() {
    let page = document::markdown();
    for (path, _) in leaves() {
        let sections = if path[0] == "php" { 2 } else { 1 };
        assert!(page.contains(&format!("| `{}` |", path[sections..].join("."))), "{}", path.join("."));
    }
    let undescribed: Vec<&str> = page.lines().filter(|line| line.ends_with("|  |")).collect();
    assert!(undescribed.is_empty(), "{undescribed:#?}");
}

#[test]
fn every_key_has_its_variable() {
    let mut environment = Vec::new();
    let mut expected = Vec::new();
    for (path, default) in leaves() {
        let (text, value) = match (path.join(".").as_str(), default) {
            // An empty variable is unset, so what is empty by default is set to something.
            ("php.default.user", _) => same_text("www-data"),
            ("mesh.listen" | "mesh.advertise", _) => same_text("127.0.0.1:7401"),
            ("cache.warm.schedule", _) => same_text("0 5 * * *"),
            // Only this one has instances register where the other key says.
            ("mesh.discovery", _) => same_text("redis"),
            (_, Value::String(text)) if text.is_empty() => same_text("/some/where"),
            (_, Value::String(text)) => same_text(&text),
            (_, Value::Array(items)) if !items.is_empty() => {
                (items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(","), Value::Array(items))
            }
            (_, other) => (other.to_string(), other),
        };
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        environment.push((variable_for(&parts), text));
        expected.push((path, value));
    }
    let loaded = load(&Sources { environment, directory: "/nowhere".into(), ..Sources::default() });
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    let config = serde_json::to_value(&loaded.config).unwrap();
    for (path, value) in expected {
        let found = config.pointer(&format!("/{}", path.join("/")));
        assert_eq!(found, Some(&value), "{}", path.join("."));
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        assert_eq!(loaded.origin(&path.join(".")), format!("environment variable {}", variable_for(&parts)));
    }
}

fn same_text(text: &str) -> (String, Value) {
    (text.to_owned(), Value::from(text))
}
