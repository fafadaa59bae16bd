//! Which php-pool instances there are: an abstract source, fed by the wiring.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use tokio::sync::watch;

/// Identifies an instance for as long as it is listed: the name of the only one in this process, or its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// An id from whatever tells instances apart.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The one instance that lives in this process.
    pub fn local() -> Self {
        Self::new("local")
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for InstanceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// One php-pool instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// What people see.
    pub name: Arc<str>,
}

impl Instance {
    /// The instance in this process.
    pub fn local() -> Self {
        Self { id: InstanceId::local(), name: Arc::from("local") }
    }
}

/// The instances now, and each change. When the sender is gone, the last set stays.
pub type Instances = watch::Receiver<Arc<[Instance]>>;

/// A source that never changes: the instance in this process.
pub fn only_local() -> Instances {
    watch::channel(Arc::from([Instance::local()])).1
}
