//! Instances of one name: where it is made of the same host and process id again, as in a container, a process that was
//! started after a crash has the name of the one before.
//!
//! Uids tell them apart, but people and Prometheus know the name alone.

use std::collections::BTreeMap;
use std::time::Instant;

use super::instance::Instance;

/// Services, and the instance's name.
type Name<'a> = (String, &'a str);

/// All but those that are lost and have a successor: whom people know by that name is there.
pub(super) fn standing<'a>(instances: impl Iterator<Item = &'a Instance> + Clone, now: Instant) -> Vec<&'a Instance> {
    let last = last(instances.clone(), now);
    let stands = |instance: &&Instance| {
        !instance.lost(now) || last.get(&name(instance)).is_some_and(|last| std::ptr::eq(*last, *instance))
    };
    instances.filter(stands).collect()
}

/// One of each name, as no two series may be the same.
pub(super) fn one_of_each<'a>(
    instances: impl Iterator<Item = &'a Instance>,
    now: Instant,
) -> impl Iterator<Item = &'a Instance> {
    last(instances, now).into_values()
}

/// Of each name the one that was started last, of those that are not lost if there are any.
fn last<'a>(instances: impl Iterator<Item = &'a Instance>, now: Instant) -> BTreeMap<Name<'a>, &'a Instance> {
    let rank = |instance: &Instance| (!instance.lost(now), instance.started());
    let mut last = BTreeMap::new();
    for instance in instances {
        let known = last.entry(name(instance)).or_insert(instance);
        if rank(instance) > rank(known) {
            *known = instance;
        }
    }
    last
}

/// What an instance is called: by this, one that was started after a crash is the one before.
pub(super) fn name(instance: &Instance) -> Name<'_> {
    (instance.services(), &instance.source().instance)
}
