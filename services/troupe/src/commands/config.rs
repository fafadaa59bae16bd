//! `troupe config show` and `troupe config schema`.

use serde_json::{Map, Value, json};
use troupe_node::config::{Loaded, of_type, schema_of};

use crate::cli::{ConfigCommand, SchemaArgs, ShowArgs};
use crate::config::document::{self, bare_or_quoted, inline};
use crate::config::{self, Config};
use crate::failure::CommandError;
use crate::output;

/// What stands for a value that is nobody's to read.
const MASK: &str = "***";

pub(super) fn run(command: ConfigCommand) -> Result<(), CommandError> {
    match command {
        ConfigCommand::Schema(SchemaArgs { markdown: true, .. }) => output::data(&document::markdown()),
        ConfigCommand::Schema(SchemaArgs { toml: true, .. }) => output::data(&document::toml()),
        ConfigCommand::Schema(_) => output::json(&schema_of::<Config>()),
        ConfigCommand::Show(args) => show(args),
    }
}

fn show(args: ShowArgs) -> Result<(), CommandError> {
    let loaded = config::load(&args.config.into_sources())?;
    let mut value = serde_json::to_value(&loaded.config)
        .map_err(|error| CommandError::failed(format!("cannot write the configuration down: {error}")))?;
    mask(&mut value, &schema_of::<Config>());
    match (args.json, args.origin) {
        (true, false) => output::json(&value),
        (true, true) => {
            let mut all = Map::new();
            for (path, value) in leaves(&value) {
                let origin = loaded.origin(&path);
                all.insert(path, json!({ "value": value, "origin": origin }));
            }
            output::json(&all)
        }
        (false, origin) => output::data(&as_toml(&value, &loaded, origin)),
    }
}

/// The configuration as a TOML file that loads as the same configuration.
fn as_toml(value: &Value, loaded: &Loaded<Config>, origin: bool) -> String {
    let mut text = String::new();
    for (section, value) in value.as_object().into_iter().flatten() {
        match value {
            // Pools by name.
            Value::Object(pools) if section == "php" => {
                for (name, pool) in pools {
                    let path = format!("{section}.{}", bare_or_quoted(name));
                    table(&mut text, &format!("[{path}]"), &path, pool, loaded, origin);
                }
            }
            Value::Object(_) => table(&mut text, &format!("[{section}]"), section, value, loaded, origin),
            Value::Array(items) if items.is_empty() => text.insert_str(0, &format!("{section} = []\n\n")),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    table(&mut text, &format!("[[{section}]]"), &format!("{section}[{index}]"), item, loaded, origin);
                }
            }
            _ => {}
        }
    }
    text
}

fn table(text: &mut String, header: &str, path: &str, value: &Value, loaded: &Loaded<Config>, origin: bool) {
    if !text.is_empty() && !text.ends_with("\n\n") {
        text.push('\n');
    }
    text.push_str(&format!("{header}\n"));
    for (key, value) in value.as_object().into_iter().flatten() {
        let line = format!("{} = {}", bare_or_quoted(key), inline(value));
        if origin {
            let origin = loaded.origin(&format!("{path}.{}", bare_or_quoted(key)));
            text.push_str(&format!("{line:<46} # {origin}\n"));
        } else {
            text.push_str(&format!("{line}\n"));
        }
    }
}

/// Every key of every section with its path; keys inside of a key stay together.
fn leaves(value: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (section, value) in value.as_object().into_iter().flatten() {
        let tables: Vec<(String, &Value)> = match value {
            Value::Object(pools) if section == "php" => {
                pools.iter().map(|(name, pool)| (format!("{section}.{}", bare_or_quoted(name)), pool)).collect()
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(n, item)| (format!("{section}[{n}]"), item)).collect()
            }
            _ => vec![(section.clone(), value)],
        };
        for (path, table) in tables {
            let keys = table.as_object().into_iter().flatten();
            found.extend(keys.map(|(key, value)| (format!("{path}.{}", bare_or_quoted(key)), value)));
        }
    }
    found
}

/// Hides the password of a URL, whatever else is wrong with it: all between the first colon behind the scheme and the last @.
fn mask_password(url: &mut String) {
    let from = url.find("://").map_or(0, |at| at + 3);
    let Some(to) = url.rfind('@').filter(|to| *to > from) else {
        return;
    };
    if let Some(colon) = url.get(from..to).and_then(|login| login.find(':')) {
        url.replace_range(from + colon + 1..to, MASK);
    }
}

/// Hides the values of tables that hold secrets, and passwords in URLs.
fn mask(value: &mut Value, schema: &Value) {
    if let (Value::String(text), Some("redis-url")) = (&mut *value, schema.get("format").and_then(Value::as_str)) {
        mask_password(text);
        return;
    }
    let secret = schema.get("x-secret").and_then(Value::as_bool).unwrap_or(false);
    let Some(entries) = value.as_object_mut() else {
        return;
    };
    let Some(table) = of_type(schema, "object") else {
        return;
    };
    for (key, value) in entries {
        if secret {
            *value = Value::from(MASK);
            continue;
        }
        let known = table.get("properties").and_then(|properties| properties.get(key));
        if let Some(schema) = known.or_else(|| table.get("additionalProperties")) {
            mask(value, schema);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_hidden() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://ada@redis:6379/1", "redis://ada@redis:6379/1"),
            ("redis://:hunter2@redis:6379", "redis://:***@redis:6379"),
            ("redis://ada:hunt:er@2@redis", "redis://ada:***@redis"),
            ("unix:///run/redis.sock", "unix:///run/redis.sock"),
            ("ada:hunter2@redis", "ada:***@redis"),
        ] {
            let mut value = serde_json::json!({ "redis": { "url": url } });
            mask(&mut value, &schema_of::<Config>());
            assert_eq!(value["redis"]["url"], shown, "{url}");
        }
    }
}
