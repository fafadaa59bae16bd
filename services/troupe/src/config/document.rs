//! The configuration described by itself: every key with its meaning, form and default, taken from the schema.
//!
//! `troupe.toml` and `docs/configuration.md` are written from here, so that they cannot say anything else than the code.

use serde_json::{Map, Value};
use troupe_node::config::{expected, of_type, schema_of, variable_for};

use super::Config;

/// One table of the file.
struct Section {
    /// `gateway`, `php.default`.
    path: Vec<String>,
    kind: Kind,
    meaning: String,
    keys: Vec<Key>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `[name]`
    Table,
    /// `[[name]]`
    List,
    /// `[map.name]`, one for each name people choose.
    Named,
    /// The same, of which there is none by default.
    Example,
}

/// One key of a section, or one inside a key.
struct Key {
    name: String,
    meaning: String,
    form: String,
    /// None: not set.
    default: Option<Value>,
    inside: Vec<Key>,
}

/// The commented file: each key with its meaning and default, commented out.
pub(crate) fn toml() -> String {
    let mut file = String::from(
        "# Troupe's configuration. Every key is here, commented out, with its default: an empty file is the same.\n\
         # Durations and sizes have units (\"250ms\", \"64MiB\"). A variable sets a key as well, \
         TROUPE_GATEWAY__MAX_HEAD=\"16KiB\",\n# and so does --set gateway.max_head=16KiB. \
         docs/configuration.md describes all of it; `troupe check` checks it.\n",
    );
    for section in sections() {
        let header = match section.kind {
            Kind::Table | Kind::Named => format!("[{}]", section.path.join(".")),
            // What nobody has by default has keys it cannot do without.
            Kind::Example => format!("# [{}]", section.path.join(".")),
            // A route that is not commented out needs its path.
            Kind::List => format!("#[[{}]]", section.path.join(".")),
        };
        file.push_str(&format!("\n{}{header}\n", comment(&section.meaning)));
        for key in &section.keys {
            file.push_str(&comment(&key.meaning));
            for inner in &key.inside {
                file.push_str(&comment(&format!("  {}: {}", inner.name, inner.meaning)));
            }
            match &key.default {
                Some(value) if section.kind == Kind::Example => {
                    file.push_str(&format!("# {} = {}\n", key.name, inline(value)));
                }
                Some(value) => file.push_str(&format!("#{} = {}\n", key.name, inline(value))),
                None => file.push_str(&comment(&format!("({} is not set; it takes {})", key.name, key.form))),
            }
        }
    }
    file
}

/// The reference page.
pub(crate) fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         <!-- Written by `troupe config schema --markdown` from the code; a test compares them. -->\n\n\
         Layers, each over the one before: defaults, the file, `TROUPE_*` variables, `--set key=value`.\n\n\
         - The file is the one `--config` names, else the first of `troupe.toml`, `troupe.yaml`, `troupe.yml` and `troupe.json` in the working\n  directory, else none: every key has a default, and an empty file serves `functions/`.\n\
         - Durations (`\"250ms\"`, `\"30s\"`, `\"1h 30m\"`), sizes (`\"32KiB\"`, `\"64MiB\"`, `\"10MB\"`) and shares (`\"50%\"`) are strings with units; a bare number is an error.\n\
         - Relative paths in the file, and those by default, are taken from the file's directory; those of variables and `--set` from the working directory.\n\
         - In a variable `__` stands between levels and `_` for `-` in names: `TROUPE_MESH__PEERS__PHP_POOL`. Lists are separated by commas\n  or written as TOML. A variable that is empty is unset. `[[route]]` is set in the file, or with `--set 'route=[{ path = \"/\", … }]'`.\n\
         - `--set` takes a TOML value; a bare word is a string.\n\
         - Whatever is wrong is reported at once, with its place, and ends the program with exit code 78. `troupe check` does just that;\n  `troupe config show --origin` prints what holds and where each value comes from.\n",
    );
    for section in sections() {
        let (title, path) = match section.kind {
            Kind::Table => (format!("[{}]", section.path.join(".")), section.path.clone()),
            Kind::List => (format!("[[{}]]", section.path.join(".")), section.path.clone()),
            Kind::Named | Kind::Example => {
                (format!("[{}.NAME]", section.path[0]), vec![section.path[0].clone(), "name".to_owned()])
            }
        };
        page.push_str(&format!("\n## `{title}`\n\n{}\n\n", prose(&section.meaning)));
        page.push_str("| key | takes | default | meaning |\n|---|---|---|---|\n");
        for key in &section.keys {
            row(&mut page, "", key);
        }
        if section.kind != Kind::List {
            let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
            path.push(section.keys.first().map_or("key", |key| key.name.as_str()));
            page.push_str(&format!("\nAs a variable: `{}`.\n", variable_for(&path)));
        }
    }
    page
}

fn row(page: &mut String, before: &str, key: &Key) {
    let name = format!("{before}{}", key.name);
    let default = key.default.as_ref().map_or_else(|| "not set".to_owned(), |value| format!("`{}`", inline(value)));
    let cell = |text: &str| prose(text).replace('|', "\\|");
    page.push_str(&format!("| `{name}` | {} | {} | {} |\n", cell(&key.form), cell(&default), cell(&key.meaning)));
    for inner in &key.inside {
        row(page, &format!("{name}."), inner);
    }
}

/// A value as TOML writes it on one line.
pub(crate) fn inline(value: &Value) -> String {
    match value {
        // JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
        Value::String(_) => value.to_string().replace('\u{7f}', "\\u007F"),
        Value::Null => "\"\"".to_owned(),
        Value::Bool(_) => value.to_string(),
        Value::Number(number) => grouped(&number.to_string()),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| format!("{} = {}", bare_or_quoted(key), inline(value));
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A key as TOML writes it.
pub(crate) fn bare_or_quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { key.to_owned() } else { inline(&Value::from(key)) }
}

/// Thousands apart, as people count them.
fn grouped(digits: &str) -> String {
    if digits.len() < 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits.to_owned();
    }
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

fn sections() -> Vec<Section> {
    let schema = schema_of::<Config>();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut sections = Vec::new();
    for (name, schema) in properties(&schema) {
        let value = defaults.get(name).cloned().unwrap_or_default();
        let (path, kind, table, default) = if let Some(list) = of_type(schema, "array") {
            let item = list.get("items").unwrap_or(&Value::Null);
            (vec![name.clone()], Kind::List, item, value.get(0).cloned())
        } else if let Some(item) = schema.get("additionalProperties").filter(|item| item.is_object()) {
            match value.get("default").cloned() {
                Some(default) => (vec![name.clone(), "default".to_owned()], Kind::Named, item, Some(default)),
                None => (vec![name.clone(), "app".to_owned()], Kind::Example, item, None),
            }
        } else {
            (vec![name.clone()], Kind::Table, schema, Some(value))
        };
        let meaning = description(table);
        sections.push(Section { path, kind, meaning, keys: keys_of(table, &default.unwrap_or_default()) });
    }
    sections
}

fn keys_of(table: &Value, defaults: &Value) -> Vec<Key> {
    let key = |(name, schema): (&String, &Value)| {
        let default = defaults.get(name).or_else(|| schema.get("default")).filter(|value| !value.is_null()).cloned();
        let inner = of_type(schema, "object").filter(|table| table.get("properties").is_some());
        Key {
            name: name.clone(),
            meaning: description(schema),
            form: expected(schema),
            inside: inner.map(|table| keys_of(table, default.as_ref().unwrap_or(&Value::Null))).unwrap_or_default(),
            default,
        }
    };
    properties(table).map(key).collect()
}

fn properties(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// The doc comment, on one line.
fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or("");
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "")
}

/// Keeps what would be a tag or a template in Markdown as it is.
fn prose(text: &str) -> String {
    text.replace('<', "&lt;")
}

/// A comment, wrapped.
fn comment(text: &str) -> String {
    const WIDTH: usize = 110;
    let indent = if text.starts_with("  ") { "#   " } else { "# " };
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.len() + 1 + word.len() > WIDTH {
            lines.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push_str(&format!("{indent}{line}\n"));
    }
    lines
}
