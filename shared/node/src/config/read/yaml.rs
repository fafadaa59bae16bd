//! YAML, and JSON, which is read twice: once by its own rules, once as the YAML it also is, for the places.

use yaml_rust2::Event;
use yaml_rust2::parser::Parser;
use yaml_rust2::scanner::TScalarStyle;

use super::super::problem::Problem;
use super::super::tree::{Entry, Node, Place, Shape, Span};
use super::syntax;

/// How deep values may be nested; the deepest key of ours is four levels down.
const MAX_DEPTH: usize = 32;

/// Reads a YAML document. Anchors and aliases are refused: they are a way to write a small file that is huge.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    Builder::new(text).document("YAML").map_err(|problem| vec![problem])
}

/// Reads a JSON document.
pub(super) fn parse_json(text: &str) -> Result<Node, Vec<Problem>> {
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        let offset = offset_of(text, error.line(), error.column().saturating_sub(1));
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        return Err(vec![syntax(format!("not JSON: {message}"), Some(offset..offset))]);
    }
    let (yaml, offsets) = as_yaml(text);
    Builder { text, parser: Parser::new_from_str(&yaml), offsets, open: Vec::new() }
        .document("JSON")
        .map_err(|problem| vec![problem])
}

/// JSON, whose rules `text` keeps, as YAML, and the byte of `text` at which each of its characters stands.
///
/// YAML has no tabs between tokens (inside of JSON's strings there are none), and no letters that are written as two escapes.
fn as_yaml(text: &str) -> (String, Vec<usize>) {
    let (mut yaml, mut offsets) = (String::with_capacity(text.len()), Vec::with_capacity(text.len() + 1));
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (letters, len) = match (first, surrogates(rest)) {
            ('\\', Some(letter)) => ([Some(letter), None], SURROGATES),
            // What is escaped begins no escape.
            ('\\', None) => ([Some(first), rest.chars().nth(1)], 1),
            ('\t', _) => ([Some(' '), None], 1),
            _ => ([Some(first), None], first.len_utf8()),
        };
        let mut at = text.len() - rest.len();
        for letter in letters.into_iter().flatten() {
            yaml.push(letter);
            offsets.push(at);
            at += len;
        }
        rest = text.get(at..).unwrap_or("");
    }
    offsets.push(text.len());
    (yaml, offsets)
}

/// Bytes of a letter that is written as two escapes.
const SURROGATES: usize = r"\ud83d\ude00".len();

/// The letter that two escapes at the start of `text` stand for together.
fn surrogates(text: &str) -> Option<char> {
    let unit = |at: usize| {
        let digits = text.get(at..at + SURROGATES / 2)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let units = [unit(0)?, unit(SURROGATES / 2)?];
    let letter = char::decode_utf16(units).next()?.ok()?;
    (letter.len_utf16() == 2).then_some(letter)
}

/// Builds the tree from the parser's events, without recursion.
struct Builder<'a> {
    text: &'a str,
    parser: Parser<std::str::Chars<'a>>,
    /// Byte offset of every character, for the parser counts those.
    offsets: Vec<usize>,
    open: Vec<Open>,
}

/// A list or table that has not ended yet.
struct Open {
    start: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Table(Vec<Entry>, Option<(String, Place)>),
}

impl<'a> Builder<'a> {
    fn new(text: &'a str) -> Self {
        let offsets = text.char_indices().map(|(offset, _)| offset).chain([text.len()]).collect();
        Self { text, parser: Parser::new_from_str(text), offsets, open: Vec::new() }
    }

    fn document(mut self, language: &str) -> Result<Node, Problem> {
        let mut root: Option<Node> = None;
        loop {
            let (event, marker) = self.parser.next_token().map_err(|error| {
                let offset = self.offset(error.marker().index());
                syntax(format!("not {language}: {}", error.info()), Some(offset..offset))
            })?;
            let start = self.offset(marker.index());
            let done = match event {
                Event::StreamEnd => {
                    let empty = || Node::new(Shape::Table(Vec::new()), Place::File(None));
                    return Ok(root.filter(|node| !matches!(node.shape, Shape::Null)).unwrap_or_else(empty));
                }
                Event::DocumentStart if root.is_some() => {
                    return Err(syntax("a second document begins here", Some(start..start)));
                }
                Event::Alias(_) => return Err(syntax("aliases are not accepted", Some(self.token(start)))),
                Event::Scalar(text, style, _, _) => self.scalar(text, style, start),
                Event::SequenceStart(..) => self.begin(start, Kind::List(Vec::new()))?,
                Event::MappingStart(..) => self.begin(start, Kind::Table(Vec::new(), None))?,
                Event::SequenceEnd | Event::MappingEnd => self.end(start),
                _ => None,
            };
            if let Some(node) = done {
                match self.open.last_mut() {
                    Some(open) => open.push(node)?,
                    None => root = Some(node),
                }
            }
        }
    }

    fn begin(&mut self, start: usize, kind: Kind) -> Result<Option<Node>, Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(syntax(format!("nested deeper than {MAX_DEPTH} levels"), Some(start..start)));
        }
        if let Some(Open { kind: Kind::Table(_, None), .. }) = self.open.last() {
            return Err(syntax("a key is a list or a table", Some(start..start)));
        }
        self.open.push(Open { start, kind });
        Ok(None)
    }

    fn end(&mut self, end: usize) -> Option<Node> {
        let Open { start, kind } = self.open.pop()?;
        let shape = match kind {
            Kind::List(items) => Shape::List(items),
            Kind::Table(entries, _) => Shape::Table(entries),
        };
        // Block style ends where the next thing begins; the first line is what one wants to see.
        let line_end = self.text.get(start..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |at| start + at);
        Some(Node::new(shape, Place::File(Some(start..line_end.min(end.max(start))))))
    }

    /// A value; nothing when it is a key, whose value is to come.
    fn scalar(&mut self, text: String, style: TScalarStyle, start: usize) -> Option<Node> {
        let place = Place::File(Some(self.token(start)));
        if let Some(Open { kind: Kind::Table(_, key @ None), .. }) = self.open.last_mut() {
            *key = Some((text, place));
            return None;
        }
        let shape = if style == TScalarStyle::Plain { plain(text) } else { Shape::Text(text) };
        Some(Node::new(shape, place))
    }

    /// The bytes of the scalar that starts at `start`: to its closing quote, else to the end of the plain word.
    fn token(&self, start: usize) -> Span {
        let rest = self.text.get(start..).unwrap_or("");
        let mut letters = rest.char_indices();
        let length = match letters.next() {
            Some((_, quote @ ('"' | '\''))) => {
                let mut escaped = false;
                letters
                    .find(|&(_, letter)| {
                        let closes = letter == quote && !escaped;
                        escaped = letter == '\\' && quote == '"' && !escaped;
                        closes
                    })
                    .map_or(rest.len(), |(at, quote)| at + quote.len_utf8())
            }
            _ => {
                let line = rest.lines().next().unwrap_or("");
                let ends = [": ", ":\t", " #", ",", "]", "}"].iter().filter_map(|end| line.find(end)).min();
                let word = line.get(..ends.unwrap_or(line.len())).unwrap_or(line);
                word.trim_end().strip_suffix(':').unwrap_or(word.trim_end()).len()
            }
        };
        start..start + length
    }

    fn offset(&self, index: usize) -> usize {
        self.offsets.get(index).copied().unwrap_or(self.text.len())
    }
}

impl Open {
    fn push(&mut self, node: Node) -> Result<(), Problem> {
        match &mut self.kind {
            Kind::List(items) => items.push(node),
            Kind::Table(entries, key) => {
                let (key, place) = key.take().ok_or_else(|| syntax("a value has no key", None))?;
                entries.push(Entry { key, place, value: node });
            }
        }
        Ok(())
    }
}

/// A word without quotes, by the rules of YAML 1.2's core schema: `yes` and `on` are strings.
fn plain(text: String) -> Shape {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Shape::Null,
        "true" | "True" | "TRUE" => return Shape::Bool(true),
        "false" | "False" | "FALSE" => return Shape::Bool(false),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return Shape::Integer(number);
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match text.parse::<f64>() {
        Ok(number) if numeric => Shape::Float(number),
        _ => Shape::Text(text),
    }
}

/// The byte at a line (from 1) and a column (from 0).
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let offset = (start + column).min(text.len());
    (0..=offset).rev().find(|&offset| text.is_char_boundary(offset)).unwrap_or(0)
}
