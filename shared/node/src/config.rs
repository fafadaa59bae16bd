//! Configuration: the sections every service's process needs, and the loader for a whole file.

mod sections;
pub mod text;

pub use sections::{AdminConfig, LogConfig, LogFormat, NodeConfig, Pin, QueueConfig, Threads};
