//! The layers of a configuration: read, checked one by one, and merged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Map, Source, Value as Merged, ValueKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::{self, Problem, Problems};
use super::schema::{alternatives, check, of_type};
use super::tree::{Entry, Node, Place, Shape, element, join};
use super::{DEFAULT_FILES, Sources, assign, read};

/// The largest file that is read: a hundred thousand routes fit, a disk image named by mistake does not.
const MAX_FILE: u64 = 16 << 20;

/// Every layer above the defaults, lowest first, all of them checked.
pub(super) struct Layers {
    trees: Vec<Node>,
    pub(super) file: Option<(PathBuf, String)>,
}

/// Where each key was set, by its path.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(BTreeMap<String, Place>);

impl Layers {
    pub(super) fn read(sources: &Sources, schema: &Value) -> Result<Self, Problems> {
        let mut list = Vec::new();
        let mut trees = Vec::new();
        let file = match read_file(sources) {
            Ok(file) => file,
            Err(problem) => {
                list.push(problem);
                None
            }
        };
        if let Some((path, text)) = &file {
            match read::parse(path, text) {
                Ok(tree) => trees.push(tree),
                Err(problems) => list.extend(problems),
            }
        }
        let written = trees.first().cloned();
        let mut environment: Vec<&(String, String)> = sources.environment.iter().collect();
        environment.sort();
        for (name, text) in environment {
            match assign::variable(schema, name, text, written.as_ref()) {
                Ok(tree) => trees.extend(tree),
                Err(problem) => list.push(problem),
            }
        }
        for argument in &sources.set {
            match assign::assignment(schema, argument) {
                Ok(tree) => trees.push(tree),
                Err(problem) => list.push(problem),
            }
        }
        list.extend(trees.iter().flat_map(|tree| check(schema, tree)));
        if list.is_empty() {
            return Ok(Self { trees, file });
        }
        problem::sort(&mut list);
        Err(Problems { list, file })
    }

    /// Where every key is set, by the highest layer that does.
    pub(super) fn places(&self) -> Places {
        let mut places = Places::default();
        for tree in &self.trees {
            for entry in tree.entries() {
                places.add(&entry.key, &entry.place, &entry.value);
            }
        }
        places
    }

    /// The merged layers over the defaults, which `T` brings by itself.
    pub(super) fn merge<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let failed = |error: config::ConfigError| Problem::new("", format!("merging the layers failed: {error}"));
        let builder = self
            .trees
            .iter()
            .fold(config::Config::builder(), |builder, tree| builder.add_source(Layer(table(tree.entries()))));
        let all: Value = builder.build().and_then(config::Config::try_deserialize).map_err(failed)?;
        typed(all)
    }
}

impl Places {
    /// Where a key itself is set; the defaults when nothing sets it.
    pub(super) fn of(&self, key: &str) -> Place {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// Where a key is set, else what is around it: the place to show to people.
    fn near(&self, key: &str) -> Place {
        let mut key = key;
        loop {
            if let Some(place) = self.0.get(key) {
                return place.clone();
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return Place::Default,
            }
        }
    }

    pub(super) fn is_set(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn locate(&self, problem: Problem) -> Problem {
        match problem.place {
            Some(_) => problem,
            None => {
                let place = self.near(&problem.key);
                problem.at(place)
            }
        }
    }

    /// Values are pointed at; tables by their key, since they may fill the file.
    fn add(&mut self, path: &str, key_place: &Place, node: &Node) {
        match &node.shape {
            Shape::Table(entries) => {
                // What merges into a table does not move it.
                self.0.entry(path.to_owned()).or_insert_with(|| key_place.clone());
                for entry in entries {
                    self.add(&join(path, &entry.key), &entry.place, &entry.value);
                }
            }
            Shape::List(items) => {
                // A list replaces the one below it whole.
                let below = format!("{path}[");
                let replaced = self.0.range(below.clone()..).take_while(|(key, _)| key.starts_with(&below));
                for key in replaced.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                    self.0.remove(&key);
                }
                self.0.insert(path.to_owned(), key_place.clone());
                for (index, item) in items.iter().enumerate() {
                    self.add(&element(path, index), &item.place, item);
                }
            }
            _ => {
                self.0.insert(path.to_owned(), node.place.clone());
            }
        }
    }
}

/// Takes relative paths of the file, and those by default, from the file's directory.
pub(super) fn anchor_paths<T>(config: &T, schema: &Value, directory: &Path, places: &Places) -> Result<T, Problem>
where
    T: Serialize + DeserializeOwned,
{
    let failed = |error: serde_json::Error| Problem::new("", format!("writing the configuration down failed: {error}"));
    let mut value = serde_json::to_value(config).map_err(failed)?;
    anchor(&mut value, schema, "", directory, places);
    typed(value)
}

fn anchor(value: &mut Value, schema: &Value, path: &str, directory: &Path, places: &Places) {
    match value {
        Value::String(text) => {
            let is_path = alternatives(schema).iter().any(|part| part.get("format") == Some(&Value::from("path")));
            let from_file = matches!(places.of(path), Place::File(_) | Place::Default);
            if is_path && from_file && !text.is_empty() {
                *text = directory.join(&*text).to_string_lossy().into_owned();
            }
        }
        Value::Array(items) => {
            let Some(schema) = of_type(schema, "array").and_then(|list| list.get("items")) else {
                return;
            };
            for (index, item) in items.iter_mut().enumerate() {
                anchor(item, schema, &element(path, index), directory, places);
            }
        }
        Value::Object(entries) => {
            let Some(table) = of_type(schema, "object") else {
                return;
            };
            for (key, value) in entries {
                let known = table.get("properties").and_then(|properties| properties.get(key));
                if let Some(schema) = known.or_else(|| table.get("additionalProperties")) {
                    anchor(value, schema, &join(path, key), directory, places);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let key = error.path().to_string();
        let message = format!("`{key}`: {}", error.inner());
        Problem::new(if key == "." { String::new() } else { key }, message)
    })
}

fn read_file(sources: &Sources) -> Result<Option<(PathBuf, String)>, Problem> {
    let wrong =
        |path: &Path, message: String| Problem::new("", format!("{}: {message}", path.display())).at(Place::Default);
    let Some(path) = sources.file.clone().or_else(|| default_file(&sources.directory)) else {
        return Ok(None);
    };
    let size = std::fs::metadata(&path).map(|metadata| metadata.len());
    match size {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(wrong(&path, "there is no such file".to_owned())
                .help("`troupe init DIR` writes one; without --config the defaults serve functions/"));
        }
        Ok(size) if size > MAX_FILE => {
            return Err(wrong(&path, format!("{size} bytes are more than a configuration has ({MAX_FILE})")));
        }
        _ => {}
    }
    let bytes = std::fs::read(&path).map_err(|error| wrong(&path, format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(&path, "is not UTF-8 text".to_owned()))?;
    Ok(Some((path, text)))
}

fn default_file(directory: &Path) -> Option<PathBuf> {
    DEFAULT_FILES.iter().map(|name| directory.join(name)).find(|path| path.exists())
}

/// One layer, as the `config` crate takes it.
#[derive(Clone, Debug)]
struct Layer(Map<String, Merged>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Merged>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn merged(node: &Node) -> Merged {
    let kind = match &node.shape {
        Shape::Null | Shape::Date => ValueKind::Nil,
        Shape::Bool(value) => ValueKind::Boolean(*value),
        Shape::Integer(value) => ValueKind::I64(*value),
        Shape::Float(value) => ValueKind::Float(*value),
        Shape::Text(value) => ValueKind::String(value.clone()),
        Shape::List(items) => ValueKind::Array(items.iter().map(merged).collect()),
        Shape::Table(entries) => ValueKind::Table(table(entries)),
    };
    Merged::new(None, kind)
}

/// A table without the keys that are set to nothing.
fn table(entries: &[Entry]) -> Map<String, Merged> {
    let set = entries.iter().filter(|entry| !matches!(entry.value.shape, Shape::Null));
    set.map(|entry| (entry.key.clone(), merged(&entry.value))).collect()
}
