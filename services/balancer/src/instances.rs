//! Which instances there are, php-pools and upstream servers: an abstract source, fed by the wiring.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use tokio::sync::watch;
use troupe_contracts::invoke::UPSTREAM;

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

    /// Whether it is an upstream server.
    pub(crate) fn is_upstream(&self) -> bool {
        self.0.starts_with(UPSTREAM)
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

/// One php-pool instance, or one upstream server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// What people see.
    pub name: Arc<str>,
    /// Its share beside the others' at equal speed; 1 unless somebody has said otherwise.
    pub weight: u32,
}

impl Instance {
    /// An instance of weight 1.
    pub fn new(id: InstanceId, name: Arc<str>) -> Self {
        Self { id, name, weight: 1 }
    }

    /// The instance in this process.
    pub fn local() -> Self {
        Self::new(InstanceId::local(), Arc::from("local"))
    }

    /// The same instance with this weight.
    #[must_use]
    pub fn weighing(self, weight: u32) -> Self {
        Self { weight, ..self }
    }
}

/// The instances now, and each change. When the sender is gone, the last set stays.
pub type Instances = watch::Receiver<Arc<[Instance]>>;

/// A source that never changes: the instance in this process.
pub fn only_local() -> Instances {
    watch::channel(Arc::from([Instance::local()])).1
}
