//! TOML, every syntax error at once.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::super::problem::Problem;
use super::super::tree::{Entry, Node, Place, Shape};
use super::syntax;

/// Reads a TOML document.
pub(in super::super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(first_of_each_line(text, &errors));
    }
    let span = table.span();
    let mut problems = Vec::new();
    let shape = shape_of_table(table.get_ref(), &mut problems);
    if problems.is_empty() { Ok(Node::new(shape, Place::File(Some(span)))) } else { Err(problems) }
}

/// What follows an error on its line mostly follows from it.
fn first_of_each_line(text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let line = |error: &toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        before.map(|before| before.matches('\n').count())
    };
    let mut lines = Vec::new();
    let mut problems = Vec::new();
    for error in errors {
        let line = line(error);
        if !lines.contains(&line) {
            lines.push(line);
            problems.push(syntax(format!("not TOML: {}", error.message()), error.span()));
        }
    }
    problems
}

fn shape_of_table(table: &DeTable<'_>, problems: &mut Vec<Problem>) -> Shape {
    let mut entries: Vec<(usize, Entry)> = table
        .iter()
        .map(|(key, value)| {
            let span = key.span();
            let entry = Entry {
                key: key.get_ref().to_string(),
                place: Place::File(Some(span.clone())),
                value: node(value, problems),
            };
            (span.start, entry)
        })
        .collect();
    // The map sorts by name; people read from top to bottom.
    entries.sort_by_key(|(start, _)| *start);
    Shape::Table(entries.into_iter().map(|(_, entry)| entry).collect())
}

fn shape_of_list(list: &DeArray<'_>, problems: &mut Vec<Problem>) -> Shape {
    Shape::List(list.iter().map(|value| node(value, problems)).collect())
}

fn node(value: &Spanned<DeValue<'_>>, problems: &mut Vec<Problem>) -> Node {
    let span = value.span();
    let shape = match value.get_ref() {
        DeValue::String(text) => Shape::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Shape::Integer(number),
            Err(_) => {
                problems.push(syntax(format!("the number {} is too large", number.as_str()), Some(span.clone())));
                Shape::Null
            }
        },
        DeValue::Float(number) => Shape::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Shape::Bool(*value),
        DeValue::Datetime(_) => Shape::Date,
        DeValue::Array(list) => shape_of_list(list, problems),
        DeValue::Table(table) => shape_of_table(table, problems),
    };
    Node::new(shape, Place::File(Some(span)))
}
