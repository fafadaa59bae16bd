//! Paths in the configuration: from which directory they are taken.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use troupe_node::config::{Sources, of_type, schema_of};

use super::super::{Config, load, ready};
use crate::services::{Service, Services};

/// Every key that is a path to whoever reads it, and whether its schema says so.
fn paths() -> BTreeSet<(String, bool)> {
    let mut found = BTreeSet::new();
    probe(&schema_of::<Config>(), "", &|value| value, &mut found);
    found
}

/// Goes through `schema`; `around` makes a whole configuration of a value that stands at `path`.
fn probe(schema: &Value, path: &str, around: &dyn Fn(Value) -> Value, found: &mut BTreeSet<(String, bool)>) {
    if let Some(table) = of_type(schema, "object") {
        let known = table["properties"].as_object().into_iter().flatten().map(|(key, schema)| (key.as_str(), schema));
        let named = table.get("additionalProperties").filter(|any| any.is_object()).map(|any| ("name", any));
        for (key, schema) in known.chain(named) {
            probe(schema, &format!("{path}.{key}"), &|value| around(json!({ key: value })), found);
        }
    }
    if let Some(items) = of_type(schema, "array").and_then(|list| list.get("items")) {
        probe(items, &format!("{path}[]"), &|value| around(json!([value])), found);
    }
    if let Some(text) = of_type(schema, "string") {
        // No schema knows what a text becomes; serde does, when it gets something else.
        let wrong = serde_json::from_value::<Config>(around(json!(1))).err().map(|error| error.to_string());
        if wrong.is_some_and(|wrong| wrong.contains("expected path string")) {
            found.insert((path.trim_start_matches('.').to_owned(), text["format"] == "path"));
        }
    }
}

#[test]
fn every_path_is_one_to_the_schema() {
    let paths = paths();
    for known in ["php.name.root", "mesh.key_file", "admin.token_file", "redis.password_file", "cache.store.file"] {
        assert!(paths.iter().any(|(path, _)| path == known), "{known} is not seen to be a path: {paths:?}");
    }
    let forgotten: Vec<_> = paths.iter().filter(|(_, said)| !said).map(|(path, _)| path).collect();
    assert!(forgotten.is_empty(), "without text::path they are taken from the working directory: {forgotten:?}");
}

/// A configuration file in a directory of its own.
fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("troupe.toml");
    std::fs::write(&file, text).unwrap();
    (directory, file)
}

#[test]
fn relative_paths_of_the_file_are_taken_from_its_directory() {
    let (directory, file) = written(
        "cache.store.file = \"cache.db\"\ncache.cdn.token_file = \"cdn.token\"\n\
         [php.default]\nbinary = \"./php\"\n[php.other-one]\nbinary = \"bin/php\"\n[php.third]\n",
    );
    let sources = |set: &[&str]| Sources {
        file: Some(file.clone()),
        set: set.iter().map(|&set| set.to_owned()).collect(),
        ..Sources::default()
    };
    let config = |set: &[&str]| load(&sources(set)).unwrap().config;
    let read = config(&[]);
    assert_eq!(read.cache.store.file, directory.path().join("cache.db"));
    assert_eq!(read.cache.cdn.token_file, directory.path().join("cdn.token"));
    assert_eq!(Path::new(&read.php["default"].binary), directory.path().join("php"));
    assert_eq!(Path::new(&read.php["other-one"].binary), directory.path().join("bin/php"));
    assert_eq!(read.php["third"].binary, "php", "a name is looked up in PATH");

    // PHP is started in the directory of its functions, so what is given elsewhere must be absolute as well.
    let set = config(&["php.third.binary=bin/php", "php.default.binary=php"]);
    assert_eq!(Path::new(&set.php["third"].binary), std::env::current_dir().unwrap().join("bin/php"));
    assert_eq!(set.php["default"].binary, "php");
}

#[test]
fn the_token_of_a_network_in_front_has_to_be_there() {
    let (directory, file) =
        written("cache.cdn = { preset = \"cloudflare\", zone = \"z\", token_file = \"cdn.token\" }\n");
    let check = |service| {
        let loaded = load(&Sources { file: Some(file.clone()), ..Sources::default() }).unwrap();
        ready(loaded, Services::named(&[service])).map(|_| ()).map_err(|problems| problems.to_string())
    };
    for service in [Service::Gateway, Service::Cache] {
        let missing = check(service).unwrap_err();
        assert!(missing.contains("troupe.toml:1:") && missing.contains("cdn.token cannot be read"), "{missing}");
    }
    assert_eq!(check(Service::Balancer), Ok(()), "it tells no network");
    std::fs::write(directory.path().join("cdn.token"), "word").unwrap();
    assert_eq!(check(Service::Gateway), Ok(()));
}
