//! Whether this instance should be sent traffic.
//!
//! Ready means: started, not draining, and every condition holds. Busy is not unready: an instance that is taken out of
//! rotation for being busy leaves its load to the others, which topples them too.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::Serialize;

/// The readiness of a process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    draining: bool,
    next: u64,
    conditions: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    name: String,
    unmet: Option<String>,
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether traffic should be sent here.
    pub ready: bool,
    /// Whether the start is complete.
    pub started: bool,
    /// Whether the process is on its way out.
    pub draining: bool,
    /// Each condition, in the order in which they were registered.
    pub conditions: Vec<ConditionReport>,
}

/// One condition in a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConditionReport {
    /// Who says so: `balancer.workers`.
    pub name: String,
    /// Whether it holds.
    pub met: bool,
    /// Why it does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Something that must hold for the process to be ready. Dropping it withdraws it.
#[derive(Debug)]
#[must_use = "the condition is withdrawn when this is dropped"]
pub struct Condition {
    id: u64,
    shared: Weak<Mutex<State>>,
}

impl Readiness {
    /// Not started, not draining, no conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// The start is complete: configuration loaded, listeners bound.
    pub fn started(&self) {
        self.shared.lock().started = true;
    }

    /// Whether the start is complete.
    pub fn is_started(&self) -> bool {
        self.shared.lock().started
    }

    /// The process is on its way out; there is no way back.
    pub fn drain(&self) {
        self.shared.lock().draining = true;
    }

    /// Whether the process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.shared.lock().draining
    }

    /// Adds a condition, unmet for `reason` until [`Condition::met`] is called.
    pub fn condition(&self, name: &str, reason: &str) -> Condition {
        let mut state = self.shared.lock();
        let id = state.next;
        state.next += 1;
        state.conditions.push(Entry { id, name: name.to_owned(), unmet: Some(reason.to_owned()) });
        Condition { id, shared: Arc::downgrade(&self.shared) }
    }

    /// Whether traffic should be sent here.
    pub fn is_ready(&self) -> bool {
        let state = self.shared.lock();
        state.started && !state.draining && state.conditions.iter().all(|entry| entry.unmet.is_none())
    }

    /// The readiness with its reasons.
    pub fn report(&self) -> Report {
        let ready = self.is_ready();
        let state = self.shared.lock();
        Report {
            ready,
            started: state.started,
            draining: state.draining,
            conditions: state
                .conditions
                .iter()
                .map(|entry| ConditionReport {
                    name: entry.name.clone(),
                    met: entry.unmet.is_none(),
                    reason: entry.unmet.clone(),
                })
                .collect(),
        }
    }
}

impl Condition {
    /// It holds.
    pub fn met(&self) {
        self.set(None);
    }

    /// It does not hold, because of `reason`.
    pub fn unmet(&self, reason: &str) {
        self.set(Some(reason));
    }

    fn set(&self, unmet: Option<&str>) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut state = shared.lock();
        let Some(entry) = state.conditions.iter_mut().find(|entry| entry.id == self.id) else {
            return;
        };
        if entry.unmet.as_deref() != unmet {
            let name = entry.name.as_str();
            match unmet {
                Some(reason) => tracing::warn!(condition = name, reason, "not ready"),
                None => tracing::info!(condition = name, "ready again"),
            }
            entry.unmet = unmet.map(str::to_owned);
        }
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().conditions.retain(|entry| entry.id != self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_start_conditions_and_no_drain() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready());
        readiness.started();
        assert!(readiness.is_ready());
        let workers = readiness.condition("balancer.workers", "no worker yet");
        assert!(!readiness.is_ready());
        workers.met();
        assert!(readiness.is_ready());
        workers.unmet("all workers are gone");
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.conditions[0].reason.as_deref(), Some("all workers are gone"));
        drop(workers);
        assert!(readiness.is_ready());
        readiness.drain();
        assert!(!readiness.is_ready());
        assert!(readiness.report().draining);
    }
}
