//! Configuration: one typed root from a file, the environment and the command line.
//!
//! Layers, each over the one before: defaults, the file (TOML; YAML and JSON by extension), `TROUPE_*` variables, `--set`.
//! Every layer is checked by itself against the schema of the root, so that each mistake is reported at the place it was
//! made, and all of them at once; then the `config` crate merges them. The sections that belong to no service live here
//! too; what belongs to one lives in its crate, and the binary puts the root together.

mod assign;
mod layers;
mod nearest;
mod problem;
mod read;
mod redis;
mod schema;
mod sections;
pub mod text;
mod tree;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use assign::variable_for;
pub use nearest::nearest;
pub use problem::{Problem, ProblemRecord, Problems};
pub use redis::{RedisConfig, RedisMode};
pub use schema::{expected, of_type, schema_of};
pub use sections::{AdminConfig, LogConfig, LogFormat, NodeConfig, Pin, QueueConfig, Threads};
pub use tree::Place;

use layers::{Layers, Places};

/// The names that are looked for when no file is named, in this order.
pub const DEFAULT_FILES: [&str; 4] = ["troupe.toml", "troupe.yaml", "troupe.yml", "troupe.json"];

/// What a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that was named; it has to exist. None: the first of [`DEFAULT_FILES`] in `directory`, or none.
    pub file: Option<PathBuf>,
    /// Where the default files are looked for; empty is the working directory.
    pub directory: PathBuf,
    /// The environment, as names and values.
    pub environment: Vec<(String, String)>,
    /// `key=value` pairs of the command line, the last one winning.
    pub set: Vec<String>,
}

/// A configuration that holds, and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// The file it was read from; none: defaults.
    pub file: Option<PathBuf>,
    text: String,
    places: Places,
}

// === impl Sources ===

impl Sources {
    /// The sources of this process: its environment, and the default file of the working directory unless one is named.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, set: Vec<String>) -> Self {
        let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Self { file, directory: PathBuf::new(), environment, set }
    }
}

/// Loads a configuration.
///
/// `validate` finds what no schema can say (a route to a pool that is not there); it is asked only once the types hold,
/// and names keys, whose places are looked up here.
///
/// # Errors
///
/// Everything that is wrong, over all sources.
pub fn load<T>(sources: &Sources, validate: impl FnOnce(&T) -> Vec<Problem>) -> Result<Loaded<T>, Problems>
where
    T: Serialize + DeserializeOwned + JsonSchema,
{
    let schema = schema_of::<T>();
    let layers = Layers::read(sources, &schema)?;
    let places = layers.places();
    let file = layers.file.clone();
    let fail = |list| Problems { list, file: file.clone() };

    let config: T = layers.merge().map_err(|problem| fail(vec![places.locate(problem)]))?;
    let directory = file.as_ref().and_then(|(path, _)| path.parent()).unwrap_or(Path::new(""));
    let config = if directory.as_os_str().is_empty() {
        config
    } else {
        layers::anchor_paths(&config, &schema, directory, &places)
            .map_err(|problem| fail(vec![places.locate(problem)]))?
    };
    let (path, text) = file.clone().map_or((None, String::new()), |(path, text)| (Some(path), text));
    let loaded = Loaded { config, file: path, text, places };
    let problems = validate(&loaded.config);
    loaded.accept(problems)
}

// === impl Loaded ===

impl<T> Loaded<T> {
    /// Where the value of a key comes from.
    #[must_use]
    pub fn place(&self, key: &str) -> Place {
        self.places.of(key)
    }

    /// The same in words: `troupe.toml:3:1`, `environment variable TROUPE_…`, `--set …`, `default`.
    #[must_use]
    pub fn origin(&self, key: &str) -> String {
        problem::describe(&self.place(key), self.source())
    }

    /// Whether anything but the defaults sets a key.
    #[must_use]
    pub fn is_set(&self, key: &str) -> bool {
        self.places.is_set(key)
    }

    /// Turns problems that were found after loading into a report; gives the configuration back when there are none.
    ///
    /// # Errors
    ///
    /// The problems, with the places of their keys.
    pub fn accept(self, problems: Vec<Problem>) -> Result<Self, Problems> {
        if problems.is_empty() {
            return Ok(self);
        }
        let mut list: Vec<Problem> = problems.into_iter().map(|problem| self.places.locate(problem)).collect();
        problem::sort(&mut list);
        Err(Problems { list, file: self.file.map(|path| (path, self.text)) })
    }

    fn source(&self) -> Option<(&Path, &str)> {
        self.file.as_deref().map(|path| (path, self.text.as_str()))
    }
}

#[cfg(test)]
mod tests;
