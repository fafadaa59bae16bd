//! What an operator has an instance do by way of the metrics service.
//!
//! The metrics service calls nobody: an order waits there for the instance's next snapshot and rides on the answer; what
//! came of it is told in a later snapshot. An order is handed out once, so it is carried out once or not at all.

use serde::{Deserialize, Serialize};

/// An order to the balancer of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number at the metrics service that gave it.
    pub id: u64,
    /// What is to be done.
    pub act: Act,
    /// With which worker, as that balancer names it: `pool/worker`, or `pool/instance`.
    pub worker: String,
}

/// What may be done with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// No new calls.
    Drain,
    /// Calls again.
    Undrain,
    /// New PHP processes, one after another.
    Restart,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The order's number.
    pub id: u64,
    /// Whether it was done.
    pub done: bool,
    /// What was done, or why not.
    pub said: String,
}

impl Act {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Drain, Self::Undrain, Self::Restart];

    /// Its name in URLs and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Restart => "restart",
        }
    }
}
