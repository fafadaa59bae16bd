//! A configuration as it was written: values with the place each one stands at.

use std::fmt;
use std::ops::Range;

/// Bytes of the configuration file.
pub(super) type Span = Range<usize>;

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nobody set it.
    #[default]
    Default,
    /// The configuration file, at these bytes where they are known.
    File(Option<Range<usize>>),
    /// The environment variable of this name.
    Environment(String),
    /// A `--set` of the command line, as it was written.
    Set(String),
}

/// One value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) shape: Shape,
    pub(super) place: Place,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// A date or time, which TOML has and no key takes.
    Date,
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// One key of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

// === impl Node ===

impl Node {
    pub(super) fn new(shape: Shape, place: Place) -> Self {
        Self { shape, place }
    }

    /// A table that leads along `path` to `value`, every step of it at the value's place.
    pub(super) fn nest(path: &[String], value: Node) -> Self {
        path.iter().rev().fold(value, |value, key| {
            let place = value.place.clone();
            let entry = Entry { key: key.clone(), place: place.clone(), value };
            Self::new(Shape::Table(vec![entry]), place)
        })
    }

    /// The keys of a table; none of anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.shape {
            Shape::Table(entries) => entries,
            _ => &[],
        }
    }

    /// The value under a key, if this is a table that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }
}

impl fmt::Display for Shape {
    /// What the value is, as a message calls it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Bool(value) => write!(f, "`{value}`"),
            Self::Integer(value) => write!(f, "the number {value}"),
            Self::Float(value) => write!(f, "the number {value}"),
            Self::Text(value) if value.chars().count() > 60 => f.write_str("a long string"),
            Self::Text(value) => write!(f, "the string {value:?}"),
            Self::Date => f.write_str("a date"),
            Self::List(_) => f.write_str("a list"),
            Self::Table(_) => f.write_str("a table"),
        }
    }
}

/// The path of `key` inside `parent`, as TOML would write it.
pub(super) fn join(parent: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

/// The path of the element `index` of the list `parent`.
pub(super) fn element(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}
