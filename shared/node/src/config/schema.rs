//! Checks what was written against the schema of what may be written, and finds every mistake, not only the first.

use serde_json::Value;

use super::nearest::{fold, nearest};
use super::problem::Problem;
use super::text;
use super::tree::{Node, Place, Shape, element, join};

/// The schema of a configuration, every part in place.
#[must_use]
pub fn schema_of<T: schemars::JsonSchema>() -> Value {
    let settings = schemars::generate::SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The shapes a value may have: the parts of a choice, or the schema itself.
pub(super) fn alternatives(schema: &Value) -> Vec<&Value> {
    let choice = ["anyOf", "oneOf"].iter().find_map(|word| schema.get(word)?.as_array());
    choice.map_or_else(|| vec![schema], |parts| parts.iter().flat_map(alternatives).collect())
}

/// The alternative of `schema` that is of JSON type `kind`.
#[must_use]
pub fn of_type<'a>(schema: &'a Value, kind: &str) -> Option<&'a Value> {
    alternatives(schema).into_iter().find(|part| types(part).contains(&kind))
}

/// The key of a table that stands for `name` when case and `-` against `_` do not count.
pub(super) fn property<'a>(table: &'a Value, name: &str) -> Option<(&'a String, &'a Value)> {
    let properties = table.get("properties")?.as_object()?;
    properties.iter().find(|(key, _)| fold(key) == fold(name))
}

/// Finds what is wrong with `node` under `schema`.
pub(super) fn check(schema: &Value, node: &Node) -> Vec<Problem> {
    let mut checker = Checker { root: schema, problems: Vec::new() };
    checker.value(schema, node, "");
    checker.problems
}

/// What a value should be, in words: `a duration such as "250ms", "30s" or "5m"`.
#[must_use]
pub fn expected(schema: &Value) -> String {
    let words = words(schema);
    let mut forms: Vec<String> = Vec::new();
    if !words.is_empty() {
        forms.extend(words.iter().map(|word| format!("{word:?}")));
    }
    for part in alternatives(schema).into_iter().filter(|part| constants(part).is_empty()) {
        forms.extend(types(part).into_iter().filter_map(|kind| form(part, kind)));
    }
    match forms.as_slice() {
        [] => "something else".to_owned(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} or {last}", init.join(", ")),
    }
}

struct Checker<'a> {
    root: &'a Value,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn value(&mut self, schema: &Value, node: &Node, path: &str) {
        // A section whose keys are all commented out is nothing in YAML.
        if matches!(node.shape, Shape::Null) && of_type(schema, "object").is_some() {
            return;
        }
        let parts = alternatives(schema);
        if let Shape::Text(text) = &node.shape {
            let words = words(schema);
            if words.contains(&text.as_str()) {
                return;
            }
            if !words.is_empty() && !parts.iter().any(|part| is_free_text(part)) {
                let message = format!("`{path}` takes {}, not {}", expected(schema), node.shape);
                self.report(Problem::new(path, message).suggest(nearest(text, words)), &node.place);
                return;
            }
        }
        match parts.into_iter().find(|part| fits(part, &node.shape)) {
            Some(part) => self.fitting(part, node, path),
            None => self.mistyped(schema, node, path),
        }
    }

    fn mistyped(&mut self, schema: &Value, node: &Node, path: &str) {
        let place = &node.place;
        let unit = alternatives(schema).into_iter().find_map(|part| part.get("format")?.as_str());
        if let (Shape::Integer(_) | Shape::Float(_), Some("duration" | "size" | "percent" | "amount")) =
            (&node.shape, unit)
        {
            let message = format!("`{path}` is {}, which has no unit", node.shape);
            self.report(Problem::new(path, message).help(format!("write {}", expected(schema))), place);
            return;
        }
        let message = if path.is_empty() {
            format!("the configuration is {}, not a table", node.shape)
        } else {
            format!("`{path}` takes {}, not {}", expected(schema), node.shape)
        };
        // One value where a list belongs.
        let listed = match &node.shape {
            Shape::Text(text) if of_type(schema, "array").is_some() => Some(format!("[{text:?}]")),
            _ => None,
        };
        self.report(Problem::new(path, message).suggest(listed), place);
    }

    fn fitting(&mut self, schema: &Value, node: &Node, path: &str) {
        match &node.shape {
            Shape::Text(text) => {
                let format = schema.get("format").and_then(Value::as_str).unwrap_or("");
                if let Err(wrong) = text::check(format, text) {
                    self.report(Problem::new(path, format!("`{path}`: {wrong}")), &node.place);
                }
            }
            Shape::Integer(number) => {
                let (least, most) = bounds(schema);
                if !(least..=most).contains(number) {
                    let message = format!("`{path}` takes {}, not {number}", expected(schema));
                    self.report(Problem::new(path, message), &node.place);
                }
            }
            Shape::List(items) => {
                let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
                if (items.len() as u64) < least {
                    self.report(Problem::new(path, format!("`{path}` is empty")), &node.place);
                }
                if let Some(schema) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.value(schema, item, &element(path, index));
                    }
                }
            }
            Shape::Table(_) => self.table(schema, node, path),
            Shape::Null | Shape::Bool(_) | Shape::Float(_) | Shape::Date => {}
        }
    }

    fn table(&mut self, schema: &Value, node: &Node, path: &str) {
        let mut seen: Vec<&str> = Vec::new();
        for entry in node.entries() {
            let key = join(path, &entry.key);
            if seen.contains(&entry.key.as_str()) {
                self.report(Problem::new(&key, format!("`{key}` is set twice")), &entry.place);
                continue;
            }
            seen.push(&entry.key);
            let known = schema.get("properties").and_then(|properties| properties.get(&entry.key));
            let other = schema.get("additionalProperties").filter(|other| other.is_object());
            match known.or(other) {
                Some(schema) => self.value(schema, &entry.value, &key),
                None => self.unknown(schema, &entry.key, &entry.place, path),
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for missing in required.filter_map(Value::as_str).filter(|key| node.get(key).is_none()) {
            self.report(Problem::new(join(path, missing), format!("`{path}` has no `{missing}`")), &node.place);
        }
    }

    fn unknown(&mut self, table: &Value, key: &str, place: &Place, path: &str) {
        let full = join(path, key);
        let siblings = keys(table);
        let near = nearest(key, siblings.iter().copied()).map(str::to_owned);
        // A key that exists, but elsewhere.
        let meant = near.or_else(|| {
            let mut elsewhere = Vec::new();
            paths_of(self.root, key, "", &mut elsewhere);
            elsewhere.into_iter().next()
        });
        let known = siblings.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let problem = Problem::new(&full, format!("unknown key `{full}`"));
        let problem = if meant.is_none() && !known.is_empty() {
            let owner = if path.is_empty() { "the configuration".to_owned() } else { format!("`{path}`") };
            problem.help(format!("{owner} takes {known}"))
        } else {
            problem
        };
        self.report(problem.suggest(meant), place);
    }

    fn report(&mut self, problem: Problem, place: &Place) {
        self.problems.push(problem.at(place.clone()));
    }
}

/// The JSON types a part takes.
fn types(part: &Value) -> Vec<&str> {
    match part.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ if !constants(part).is_empty() => vec!["string"],
        _ => Vec::new(),
    }
}

fn fits(part: &Value, shape: &Shape) -> bool {
    let kind = match shape {
        Shape::Null => "null",
        Shape::Bool(_) => "boolean",
        Shape::Integer(_) => "integer",
        Shape::Float(_) => "number",
        Shape::Text(_) if !constants(part).is_empty() => return false,
        Shape::Text(_) => "string",
        Shape::Date => return false,
        Shape::List(_) => "array",
        Shape::Table(_) => "object",
    };
    types(part).contains(&kind)
}

fn is_free_text(part: &Value) -> bool {
    constants(part).is_empty() && types(part).contains(&"string")
}

/// The words a part stands for, when it stands for words.
fn constants(part: &Value) -> Vec<&str> {
    let one = part.get("const").and_then(Value::as_str);
    let several = part.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    one.into_iter().chain(several).collect()
}

fn words(schema: &Value) -> Vec<&str> {
    alternatives(schema).into_iter().flat_map(constants).collect()
}

/// The least and the most a whole number may be.
fn bounds(part: &Value) -> (i64, i64) {
    let widest = match part.get("format").and_then(Value::as_str) {
        Some("uint8") => i64::from(u8::MAX),
        Some("uint16") => i64::from(u16::MAX),
        Some("uint32") => i64::from(u32::MAX),
        _ => i64::MAX,
    };
    let bound =
        |word: &str| part.get(word).and_then(|bound| bound.as_i64().or_else(|| bound.as_f64().map(|f| f as i64)));
    (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(widest).min(widest))
}

fn form(part: &Value, kind: &str) -> Option<String> {
    let said = match kind {
        "string" => text::form(part.get("format").and_then(Value::as_str).unwrap_or("")).to_owned(),
        "integer" => match bounds(part) {
            (i64::MIN, i64::MAX) => "a whole number".to_owned(),
            (least, i64::MAX) => format!("a whole number from {least}"),
            (i64::MIN, most) => format!("a whole number up to {most}"),
            (least, most) => format!("a whole number from {least} to {most}"),
        },
        "number" => "a number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "array" => match part.get("items") {
            Some(items) if of_type(items, "object").is_none() => format!("a list of {}", plural(items)),
            _ => "a list".to_owned(),
        },
        "object" => "a table".to_owned(),
        _ => return None,
    };
    Some(said)
}

fn plural(items: &Value) -> &'static str {
    match types(items).first() {
        Some(&"integer") => "whole numbers",
        Some(&"string") => "strings",
        _ => "values",
    }
}

/// The keys that a table has by name.
pub(super) fn keys(table: &Value) -> Vec<&str> {
    let properties = table.get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

/// Every path at which a key of this name may stand, nearest to the top first.
fn paths_of(schema: &Value, key: &str, path: &str, found: &mut Vec<String>) {
    let Some(table) = of_type(schema, "object") else {
        return;
    };
    if let Some((name, _)) = property(table, key)
        && !path.is_empty()
    {
        found.push(join(path, name));
    }
    for (name, schema) in table.get("properties").and_then(Value::as_object).into_iter().flatten() {
        paths_of(schema, key, &join(path, name), found);
    }
    if let Some(schema) = table.get("additionalProperties").filter(|schema| schema.is_object()) {
        paths_of(schema, key, &format!("{path}.<name>"), found);
    }
}
