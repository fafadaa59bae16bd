//! All instances together: who is there, what they count in sum, the last 15 minutes, and what is wrong.
//!
//! Nothing here has a socket or a clock: snapshots and the time come from outside.

mod columns;
mod distribution;
mod history;
mod instance;
mod merged;
mod problems;
mod view;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use metrics::{Key, Label};
use troupe_contracts::snapshot::{Snapshot, Taken};
use troupe_node::metrics::{Description, Text};

use crate::describe::INSTANCE_UP;
use distribution::Distribution;
use history::History;
use instance::Instance;
use merged::Merged;

pub(crate) use columns::COLUMNS;
pub(crate) use history::Frame;
pub(crate) use problems::{Level, Problem};
pub(crate) use view::{InstanceRow, View, WorkerRow};

/// Instances that are kept in mind; beyond, the one that has been lost for longest makes room, and a new one is refused
/// while none is lost.
pub(crate) const MAX_INSTANCES: usize = 512;
/// After so long without a snapshot an instance is lost.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(10);
/// After so long it is forgotten: the history does not reach back further.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// An instance that is silent for so long no longer counts in the rates of the moment.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// Seconds over which quantiles are taken: long enough that a few requests make one.
const QUANTILES_OVER: usize = 10;

/// The uid of a process's start.
type Uid = [u8; 16];

/// All instances together.
#[derive(Debug)]
pub(crate) struct Cluster {
    instances: BTreeMap<Uid, Instance>,
    merged: Merged,
    history: History,
    /// Requests' durations in each of the last seconds.
    durations: Vec<Distribution>,
    ticks: u64,
    refused_instances: u64,
}

impl Cluster {
    /// Nobody is known yet.
    pub(crate) fn new() -> Self {
        Self {
            instances: BTreeMap::new(),
            merged: Merged::default(),
            history: History::default(),
            durations: Vec::new(),
            ticks: 0,
            refused_instances: 0,
        }
    }

    /// Takes a part of an instance's reading.
    pub(crate) fn take(&mut self, snapshot: Snapshot, now: Instant) -> Taken {
        let uid = snapshot.source.uid;
        if snapshot.leaving {
            self.instances.remove(&uid);
            return Taken::default();
        }
        if !self.instances.contains_key(&uid) {
            if !snapshot.fresh {
                return Taken { anew: true };
            }
            if !self.make_room(now) {
                self.refused_instances += 1;
                return Taken::default();
            }
        }
        let instance = self.instances.entry(uid).or_insert_with(|| Instance::new(now));
        Taken { anew: !instance.take(snapshot, &mut self.merged, now) }
    }

    /// A second has passed; `at_ms` is the time of day, in milliseconds since 1970.
    pub(crate) fn tick(&mut self, now: Instant, at_ms: u64) {
        self.ticks += 1;
        self.instances.retain(|_, instance| instance.silence(now) < FORGOTTEN_AFTER);
        let mut values = vec![0f32; COLUMNS.len()];
        let mut durations = Distribution::default();
        for instance in self.instances.values().filter(|instance| instance.silence(now) < SILENT_AFTER) {
            instance.add_to(&mut values, &self.merged);
            durations.merge(instance.durations());
        }
        if self.durations.len() >= QUANTILES_OVER {
            self.durations.remove(0);
        }
        self.durations.push(durations);
        let mut lately = Distribution::default();
        for second in &self.durations {
            lately.merge(second);
        }
        columns::fill_quantiles(&mut values, &lately);
        self.history.push(Frame { at_ms, values: values.into() });
    }

    /// How many seconds have been worked out.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// The history.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Instances that are up, and those that are lost.
    pub(crate) fn counts(&self, now: Instant) -> (usize, usize) {
        let lost = self.instances.values().filter(|instance| instance.lost(now)).count();
        (self.instances.len() - lost, lost)
    }

    /// Series of the merged view.
    pub(crate) fn series(&self) -> usize {
        self.merged.len()
    }

    /// What found no room: instances, series.
    pub(crate) fn refused(&self) -> (u64, u64) {
        (self.refused_instances, self.merged.refused())
    }

    /// What people see of the moment.
    pub(crate) fn view(&self, now: Instant) -> View {
        view::of(self.instances.values(), &self.merged, &self.history, now)
    }

    /// The merged view in Prometheus text: sums over all instances, and what each process uses.
    pub(crate) fn render(&self, descriptions: BTreeMap<String, Description>, now: Instant) -> String {
        let mut text = Text::new(descriptions);
        let live: Vec<&Instance> = self.instances.values().filter(|instance| !instance.lost(now)).collect();
        self.merged.render(&live, &mut text);
        let mut by_name: BTreeMap<&'static str, Vec<(Key, f64)>> = BTreeMap::new();
        for instance in self.instances.values() {
            let lost = instance.lost(now);
            let key = |name: &'static str| {
                let labels = vec![
                    Label::new("service", instance.services()),
                    Label::new("instance", instance.source().instance.clone()),
                ];
                Key::from_parts(name, labels)
            };
            by_name.entry(INSTANCE_UP).or_default().push((key(INSTANCE_UP), if lost { 0.0 } else { 1.0 }));
            for (name, value) in instance.figures().into_iter().filter(|_| !lost) {
                by_name.entry(name).or_default().push((key(name), value));
            }
        }
        for (key, value) in by_name.into_values().flatten() {
            text.value(&key, value);
        }
        text.finish()
    }

    fn make_room(&mut self, now: Instant) -> bool {
        if self.instances.len() < MAX_INSTANCES {
            return true;
        }
        let lost = self.instances.iter().filter(|(_, instance)| instance.lost(now));
        let Some(uid) = lost.max_by_key(|(_, instance)| instance.silence(now)).map(|(uid, _)| *uid) else {
            return false;
        };
        self.instances.remove(&uid);
        true
    }
}

#[cfg(test)]
mod tests;
