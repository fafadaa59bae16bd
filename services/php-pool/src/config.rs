//! `[php.<pool>]`: one pool of PHP processes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use troupe_node::config::{QueueConfig, text};
use troupe_node::units::{Duration, Percent, Size};

/// A pool of PHP processes that serve one directory of functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PhpPoolConfig {
    /// The directory of the functions.
    #[schemars(schema_with = "text::path")]
    pub root: PathBuf,
    /// The PHP binary: a name that is looked up in PATH, or a path with a slash in it.
    pub binary: String,
    /// How many processes run; min 0 scales to zero.
    pub processes: Processes,
    /// How long a process above min may be idle before it ends.
    pub idle_timeout: Duration,
    /// How long PHP may take to boot the code before the pool counts as broken.
    pub boot_timeout: Duration,
    /// Per call to its first byte, then between two flushes; inside the request's budget.
    pub timeout: Duration,
    /// Share of the processes that streams may hold; more streams get 503. A reply that is only long becomes a stream after `timeout`.
    pub max_streams: Percent,
    /// Calls after which a process is replaced, with jitter.
    #[schemars(range(min = 1))]
    pub max_requests: u32,
    /// PHP's own memory_limit.
    pub memory_limit: Size,
    /// Share of memory_limit beyond which a process is replaced after its call.
    pub memory_soft: Percent,
    /// Share of memory_limit beyond which a process is killed.
    pub memory_hard: Percent,
    /// What calls share: "shared" keeps statics between calls, "fork" is a fresh fork per call, "fresh" a fresh PHP per call.
    pub isolation: Isolation,
    /// How far PHP stands back when cores are scarce, from 0 to 19 (nice(2)): the front answers, and refuses, in time even while
    /// every function computes.
    #[schemars(range(max = 19))]
    pub nice: u8,
    /// The user PHP runs as; empty: the user of this process, with a loud warning when that is root.
    pub user: String,
    /// Where request bodies too large for memory are kept while a call runs; empty: the system's directory for temporary files.
    #[schemars(schema_with = "text::path")]
    pub spool_dir: PathBuf,
    /// Bytes that spooled bodies may take in all; more get 503.
    pub spool_quota: Size,
    /// php.ini settings of this pool.
    #[schemars(extend("x-names" = "lower"))]
    pub ini: BTreeMap<String, IniValue>,
    /// Environment variables that PHP sees beside the few it is given.
    #[schemars(extend("x-names" = "verbatim", "x-secret" = true))]
    pub env: BTreeMap<String, String>,
    /// Calls that wait for a process of this pool, in each balancer.
    pub queue: QueueConfig,
}

/// The bounds of the number of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Processes {
    /// Processes that are always there.
    #[schemars(range(max = 1024))]
    pub min: u16,
    /// Processes that may be there under load.
    #[schemars(range(min = 1, max = 1024))]
    pub max: u16,
}

/// What one call may leave behind for the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Isolation {
    /// Statics and constants stay; a listed set is reset.
    #[default]
    Shared,
    /// A fresh fork of the booted code per call.
    Fork,
    /// A fresh PHP per call.
    Fresh,
}

/// The value of a php.ini setting, as TOML has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string, a whole number or a boolean")]
#[schemars(inline)]
pub enum IniValue {
    /// `On` and `Off`.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// Anything else.
    Text(String),
}

impl Default for PhpPoolConfig {
    fn default() -> Self {
        Self {
            root: PathBuf::from("functions"),
            binary: "php".to_owned(),
            processes: Processes::default(),
            idle_timeout: Duration::from_secs(60),
            boot_timeout: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            max_streams: Percent::new(50),
            max_requests: 10_000,
            memory_limit: Size::from_mib(128),
            memory_soft: Percent::new(75),
            memory_hard: Percent::new(150),
            isolation: Isolation::Shared,
            nice: 5,
            user: String::new(),
            spool_dir: PathBuf::new(),
            spool_quota: Size::from_mib(1024),
            ini: BTreeMap::new(),
            env: BTreeMap::new(),
            queue: QueueConfig::default(),
        }
    }
}

impl Default for Processes {
    fn default() -> Self {
        Self { min: 2, max: 16 }
    }
}
