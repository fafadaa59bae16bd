//! A configuration file as a tree, with the bytes every key and value stands at.

mod toml;
mod yaml;

use std::path::Path;

use super::problem::Problem;
use super::tree::{Node, Place, Span};

pub(super) use toml::parse as parse_toml;

/// What is wrong with the text of a file.
type Syntax = Vec<Problem>;

/// Reads `text` in the format that the extension of `path` names; TOML where it names none.
pub(super) fn parse(path: &Path, text: &str) -> Result<Node, Syntax> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_lowercase();
    match extension.as_str() {
        "yaml" | "yml" => yaml::parse(text),
        "json" => yaml::parse_json(text),
        _ => toml::parse(text),
    }
}

fn syntax(message: impl Into<String>, span: Option<Span>) -> Problem {
    Problem::new("", message).at(Place::File(span))
}
