//! Which objects belong to a group.
//!
//! Each object pays for its place when it comes and when it goes; so a purge costs what it finds, whatever else is there.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::key::Key;
use crate::object::Object;

/// Parts of the index, each with a lock of its own.
const PARTS: usize = 16;

/// Objects by group; those of a group by number, so that an object that goes does not take its successor along.
type Part = HashMap<Box<str>, HashMap<u64, Arc<Key>>>;

#[derive(Debug)]
pub(super) struct GroupIndex {
    parts: Box<[Mutex<Part>]>,
    hasher: RandomState,
}

impl Default for GroupIndex {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl GroupIndex {
    pub(super) fn add(&self, key: &Arc<Key>, object: &Object) {
        for group in groups(object) {
            if let Some(part) = self.part(group) {
                part.lock().entry(group.into()).or_default().insert(object.id(), Arc::clone(key));
            }
        }
    }

    pub(super) fn remove(&self, object: &Object) {
        for group in groups(object) {
            let Some(part) = self.part(group) else { continue };
            let mut part = part.lock();
            if let Some(members) = part.get_mut(group) {
                members.remove(&object.id());
                if members.is_empty() {
                    part.remove(group);
                }
            }
        }
    }

    /// The keys of a group's objects.
    pub(super) fn members(&self, group: &str) -> Vec<Arc<Key>> {
        let Some(part) = self.part(group) else { return Vec::new() };
        part.lock().get(group).map(|members| members.values().cloned().collect()).unwrap_or_default()
    }

    /// How many groups have objects.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }

    fn part(&self, group: &str) -> Option<&Mutex<Part>> {
        self.parts.get(self.hasher.hash_one(group) as usize % PARTS)
    }
}

fn groups(object: &Object) -> impl Iterator<Item = &str> {
    object.variants().iter().flat_map(|entry| entry.terms().groups.iter().map(|group| &**group))
}
