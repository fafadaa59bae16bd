//! Single values from outside of the file: `TROUPE_*` variables and `--set`.
//!
//! Both know the schema: a variable is text, and only the key says whether `5` is a number, a list of one or a name.

use serde_json::Value;

use super::nearest::{fold, nearest};
use super::problem::Problem;
use super::read::parse_toml;
use super::schema::{alternatives, keys, of_type, property};
use super::tree::{Node, Place, Shape, join};

/// What every variable of ours begins with.
pub(super) const PREFIX: &str = "TROUPE_";

/// What stands between two levels of a key in a variable's name.
const LEVEL: &str = "__";

/// A variable as a tree that leads to its value. `Ok(None)`: not a key's variable, or empty, which is unset.
///
/// `written` is the file, whose names of pools are recognised where `_` stands for `-`.
pub(super) fn variable(
    schema: &Value,
    name: &str,
    text: &str,
    written: Option<&Node>,
) -> Result<Option<Node>, Problem> {
    // `TROUPE_LOG` sets the log's level for one run; it is no key.
    let is_key = !text.is_empty() && name != crate::telemetry::LEVEL_VARIABLE;
    let Some(key) = name.strip_prefix(PREFIX).filter(|_| is_key) else {
        return Ok(None);
    };
    let place = Place::Environment(name.to_owned());
    if !key.contains(LEVEL) {
        // Orchestrators add names of their own (`TROUPE_SERVICE_HOST`, `TROUPE_PORT_8080_TCP`): only what is a key but
        // for its underscores is a mistake.
        return flat_name(schema, key).map_or(Ok(None), |problem| Err(problem.at(place)));
    }
    let steps = resolve(schema, key, written).map_err(|problem| problem.at(place.clone()))?;
    let value = coerce(steps.schema, text, &place);
    Ok(Some(Node::nest(&steps.path, value)))
}

/// A `key=value` of the command line as a tree. The value is TOML; what is not TOML is a bare word.
pub(super) fn assignment(schema: &Value, argument: &str) -> Result<Node, Problem> {
    let place = Place::Set(argument.to_owned());
    let wrong = |message: String| Problem::new("", message).at(place.clone());
    let Some((key, text)) = argument.split_once('=') else {
        return Err(wrong("no `=` between key and value".to_owned()));
    };
    if let Ok(tree) = parse_toml(argument)
        && !argument.contains('\n')
    {
        return Ok(placed(&tree, &place));
    }
    let path = parse_toml(&format!("{key} = 0")).map_err(|_| wrong(format!("`{}` is not a key", key.trim())))?;
    let mut steps = Vec::new();
    let mut at = &path;
    while let Some(entry) = at.entries().first() {
        steps.push(entry.key.clone());
        at = &entry.value;
    }
    let text = text.trim();
    if text.starts_with(['[', '{', '"', '\'']) {
        let said = parse_toml(&format!("v = {text}")).err().and_then(|problems| problems.into_iter().next());
        let said = said.map_or_else(|| "not TOML".to_owned(), |problem| problem.message);
        return Err(wrong(format!("the value of `{}` is {said}", key.trim())));
    }
    // An unknown key keeps its text; the check of the whole tree names it.
    let target = steps.iter().try_fold(schema, |schema, step| child(schema, step));
    let value = target
        .map_or_else(|| Node::new(Shape::Text(text.to_owned()), place.clone()), |schema| coerce(schema, text, &place));
    Ok(Node::nest(&steps, value))
}

/// Text as the value that the schema asks for; text stays text where nothing fits, and the check says so.
fn coerce(schema: &Value, text: &str, place: &Place) -> Node {
    let node = |shape| Node::new(shape, place.clone());
    let parts = alternatives(schema);
    let text = text.trim();
    if of_type(schema, "boolean").is_some()
        && let Ok(value) = text.parse::<bool>()
    {
        return node(Shape::Bool(value));
    }
    if of_type(schema, "integer").is_some()
        && let Ok(number) = text.replace('_', "").parse::<i64>()
    {
        return node(Shape::Integer(number));
    }
    if let Some(list) = of_type(schema, "array") {
        let is_word = parts.iter().any(|part| part.get("const").and_then(Value::as_str) == Some(text));
        if is_word {
            return node(Shape::Text(text.to_owned()));
        }
        if text.starts_with('[') {
            return structured(text, place);
        }
        let items = list.get("items").unwrap_or(&Value::Null);
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        return node(Shape::List(words.map(|word| coerce(items, word, place)).collect()));
    }
    if of_type(schema, "object").is_some() && text.starts_with('{') {
        return structured(text, place);
    }
    node(Shape::Text(text.to_owned()))
}

/// A list or table written as TOML; the text itself where it is none.
fn structured(text: &str, place: &Place) -> Node {
    let tree = parse_toml(&format!("v = {text}")).ok();
    let value = tree.as_ref().and_then(|tree| tree.get("v"));
    value.map_or_else(|| Node::new(Shape::Text(text.to_owned()), place.clone()), |value| placed(value, place))
}

/// The same tree, all of it at one place.
fn placed(node: &Node, place: &Place) -> Node {
    let shape = match &node.shape {
        Shape::List(items) => Shape::List(items.iter().map(|item| placed(item, place)).collect()),
        Shape::Table(entries) => {
            let mut entries = entries.clone();
            for entry in &mut entries {
                entry.place = place.clone();
                entry.value = placed(&entry.value, place);
            }
            Shape::Table(entries)
        }
        other => other.clone(),
    };
    Node::new(shape, place.clone())
}

fn child<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    let table = of_type(schema, "object")?;
    let known = table.get("properties").and_then(|properties| properties.get(key));
    known.or_else(|| table.get("additionalProperties").filter(|other| other.is_object()))
}

/// Where a variable's name leads.
struct Steps<'a> {
    path: Vec<String>,
    schema: &'a Value,
}

fn resolve<'a>(root: &'a Value, key: &str, written: Option<&Node>) -> Result<Steps<'a>, Problem> {
    let mut steps = Steps { path: Vec::new(), schema: root };
    let mut written = written;
    let mut rest = Some(key);
    let mut path = String::new();
    while let Some(left) = rest {
        let (name, more) = left.split_once(LEVEL).map_or((left, None), |(name, more)| (name, Some(more)));
        rest = more;
        let Some(table) = of_type(steps.schema, "object") else {
            let message = if of_type(steps.schema, "array").is_some() {
                format!("`{path}` is a list of tables, which no variable can set")
            } else {
                format!("`{path}` has no keys of its own")
            };
            let whole = join(&path, &name.to_lowercase());
            return Err(Problem::new(whole, message).help(format!("set it in the file, or with `--set {path}=...`")));
        };
        let (step, schema) = if let Some((step, schema)) = property(table, name) {
            (step.clone(), schema)
        } else if let Some(schema) = table.get("additionalProperties").filter(|other| other.is_object()) {
            let scalar = of_type(schema, "object").is_none();
            // Below a map of plain values all that is left is the name.
            let name = if scalar { left } else { name };
            rest = if scalar { None } else { rest };
            (free_name(steps.schema, name, written), schema)
        } else {
            let full = join(&path, &name.to_lowercase());
            let before = &key[..key.len() - left.len()];
            let after = more.map_or(String::new(), |more| format!("{LEVEL}{more}"));
            let meant =
                nearest(name, keys(table)).map(|near| format!("{PREFIX}{before}{}{after}", variable_part(near)));
            return Err(Problem::new(&full, format!("unknown key `{full}`")).suggest(meant));
        };
        written = written.and_then(|node| node.get(&step));
        path = join(&path, &step);
        steps.path.push(step);
        steps.schema = schema;
    }
    Ok(steps)
}

/// The name of a pool, setting or variable that a part of a variable's name stands for.
fn free_name(map: &Value, name: &str, written: Option<&Node>) -> String {
    match map.get("x-names").and_then(Value::as_str) {
        Some("verbatim") => name.to_owned(),
        Some("lower") => name.to_lowercase(),
        _ => {
            let existing = written.and_then(|node| node.entries().iter().find(|entry| fold(&entry.key) == fold(name)));
            existing.map_or_else(|| name.to_lowercase().replace('_', "-"), |entry| entry.key.clone())
        }
    }
}

/// The problem with a name like `GATEWAY_LISTEN`, if it is a key that lacks an underscore.
fn flat_name(schema: &Value, name: &str) -> Option<Problem> {
    let table = of_type(schema, "object")?;
    if let Some((section, schema)) = property(table, name) {
        let problem = Problem::new(section, format!("`{section}` is set key by key"));
        let list = of_type(schema, "array").is_some();
        let how = if list {
            format!("set it in the file, or with `--set {section}=...`")
        } else {
            format!("write {PREFIX}{}{LEVEL}KEY", variable_part(section))
        };
        return Some(problem.help(how));
    }
    let properties = table.get("properties")?.as_object()?;
    properties.iter().find_map(|(section, schema)| {
        let key = name.strip_prefix(&format!("{}_", variable_part(section)))?;
        let (key, _) = property(of_type(schema, "object")?, key)?;
        let full = join(section, key);
        let meant = format!("{PREFIX}{}{LEVEL}{}", variable_part(section), variable_part(key));
        Some(Problem::new(&full, format!("one underscore where `{full}` needs two")).suggest(Some(meant)))
    })
}

fn variable_part(key: &str) -> String {
    fold(key).to_uppercase()
}

/// The variable that sets a key.
#[must_use]
pub fn variable_for(path: &[&str]) -> String {
    let parts: Vec<String> = path.iter().map(|part| variable_part(part)).collect();
    format!("{PREFIX}{}", parts.join(LEVEL))
}
