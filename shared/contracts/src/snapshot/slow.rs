//! The slowest requests of a gateway, with where their time went.

use serde::{Deserialize, Serialize};

/// A request that took long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// For how long it had been over when it was told, in milliseconds: relative, since clocks differ.
    pub ago_ms: u64,
    /// From its complete head to the last byte handed to the connection, in microseconds.
    pub took_us: u64,
    /// Its method.
    pub method: String,
    /// The host it named.
    pub host: String,
    /// Its path, without the query.
    pub path: String,
    /// The route that answered.
    pub route: String,
    /// The status.
    pub status: u16,
    /// Its id.
    pub request_id: String,
    /// Its trace; empty where it has none.
    pub trace_id: String,
    /// The stage that failed; empty where none did.
    pub failed: String,
    /// Stages in the order in which it passed them, each with its microseconds.
    pub stages: Vec<(String, u32)>,
}

impl Slow {
    /// The most bytes that it takes on the wire.
    pub fn weight(&self) -> usize {
        let texts = [&self.method, &self.host, &self.path, &self.route, &self.request_id, &self.trace_id, &self.failed];
        let texts: usize = texts.iter().map(|text| text.len() + 3).sum();
        let stages: usize = self.stages.iter().map(|(stage, _)| stage.len() + 8).sum();
        texts + stages + 32
    }

    /// Whether it is the same request, told again.
    pub fn is(&self, other: &Self) -> bool {
        self.request_id == other.request_id && self.took_us == other.took_us && self.path == other.path
    }
}
