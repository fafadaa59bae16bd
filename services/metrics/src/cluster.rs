//! All instances together: who is there, what they count in sum, the last 15 minutes, and what is wrong.
//!
//! Nothing here has a socket or a clock: snapshots and the time come from outside.

mod columns;
mod distribution;
mod history;
mod instance;
mod merged;
mod names;
mod problems;
mod view;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use metrics::{Key, Label};
use troupe_contracts::snapshot::{Act, Order, Outcome, Snapshot, Taken};
use troupe_node::metrics::{Description, Text};

use crate::describe::INSTANCE_UP;
use distribution::Distribution;
use history::History;
use instance::{Instance, MAX_ORDERS};
use merged::Merged;

pub(crate) use columns::COLUMNS;
pub(crate) use history::Frame;
#[cfg(test)]
pub(crate) use history::SECONDS;
pub(crate) use problems::{Level, Problem};
#[cfg(test)]
pub(crate) use view::LinkRow;
pub(crate) use view::{InstanceRow, SlowRow, View, WorkerRow};

/// Instances that are kept in mind; beyond, the one that has been lost for longest makes room, and a new one is refused
/// while none is lost.
pub(crate) const MAX_INSTANCES: usize = 512;
/// After so long without a snapshot an instance is lost.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(10);
/// After so long it is shown no more: the history does not reach back further. What it has counted is kept in mind while
/// there is room, so that one that comes back is not counted twice.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// An instance that is silent for so long no longer counts in the rates of the moment.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// Seconds over which quantiles are taken: long enough that a few requests make one.
const QUANTILES_OVER: usize = 10;

/// Seconds between two looks for series that no instance has any more.
const SWEEP_EVERY: u64 = 10;

/// Seconds between two renewals of how long ago things were.
const AGED_EVERY: u64 = 10;

/// The uid of a process's start.
type Uid = [u8; 16];

/// Why an order is not passed on, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no such instance.
    Unknown(String),
    /// It takes none now.
    Away(String),
}

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
    /// Number of the last order.
    orders: u64,
    /// What came of orders, until somebody fetches it.
    outcomes: Vec<Outcome>,
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
            orders: 0,
            outcomes: Vec::new(),
        }
    }

    /// Takes a part of an instance's reading.
    pub(crate) fn take(&mut self, mut snapshot: Snapshot, now: Instant) -> Taken {
        let uid = snapshot.source.uid;
        snapshot.outcomes.truncate(MAX_ORDERS);
        self.outcomes.append(&mut snapshot.outcomes);
        let leaving = snapshot.leaving;
        if !self.instances.contains_key(&uid) {
            if !snapshot.fresh {
                return Taken { anew: !leaving, ..Taken::default() };
            }
            if !self.make_room(now) {
                self.refused_instances += 1;
                return Taken::default();
            }
        }
        let instance = self.instances.entry(uid).or_insert_with(|| Instance::new(now));
        let last = snapshot.last;
        let anew = !instance.take(snapshot, &mut self.merged, now);
        if leaving {
            self.bid_farewell(uid, now);
            return Taken::default();
        }
        // With the last part alone: whoever sends the others does not wait for their answers' contents.
        let orders = if last { std::mem::take(&mut instance.orders) } else { Vec::new() };
        Taken { anew, orders }
    }

    /// Forgets an instance whose farewell has told what it counted at the last. Those that fell silent before it by its name are
    /// shown no more, either: it had taken their place. One that lives for all that is back with its next snapshot.
    fn bid_farewell(&mut self, uid: Uid, now: Instant) {
        let Some(gone) = self.instances.remove(&uid) else { return };
        let silent = self.instances.values_mut().filter(|other| other.silence(now) >= SILENT_AFTER);
        for other in silent.filter(|other| names::name(other) == names::name(&gone)) {
            other.miss_no_more();
        }
    }

    /// Has the balancer of the instance that calls itself `balancer` do something with a worker; the order's number.
    ///
    /// # Errors
    /// When there is no such instance, or it takes no orders now; in words.
    pub(crate) fn order(&mut self, act: Act, balancer: &str, worker: &str, now: Instant) -> Result<u64, Refused> {
        let mut named: Vec<&mut Instance> =
            self.instances.values_mut().filter(|instance| instance.source().instance == balancer).collect();
        let Some(silence) = named.iter().map(|instance| instance.silence(now)).min() else {
            return Err(Refused::Unknown(format!("no instance calls itself {balancer}")));
        };
        if silence >= SILENT_AFTER {
            let silent = silence.as_secs();
            return Err(Refused::Away(format!("{balancer} has not been heard of for {silent} s")));
        }
        // Those that crashed and came back by the same name, as in a container, were the same one.
        named.retain(|instance| instance.silence(now) < SILENT_AFTER);
        let [instance] = named.as_mut_slice() else {
            return Err(Refused::Away(format!(
                "several instances call themselves {balancer}: ask its own admin listener"
            )));
        };
        if instance.orders.len() >= MAX_ORDERS {
            return Err(Refused::Away(format!("too many orders wait for {balancer}")));
        }
        self.orders += 1;
        instance.orders.push(Order { id: self.orders, act, worker: worker.to_owned() });
        Ok(self.orders)
    }

    /// What came of orders since this was last asked.
    pub(crate) fn outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// A second has passed; `at_ms` is the time of day, in milliseconds since 1970.
    pub(crate) fn tick(&mut self, now: Instant, at_ms: u64) {
        self.ticks += 1;
        for instance in self.instances.values_mut().filter(|instance| instance.silence(now) >= FORGOTTEN_AFTER) {
            instance.forget();
        }
        if self.ticks.is_multiple_of(SWEEP_EVERY) {
            let instances = &self.instances;
            self.merged.sweep(|used| instances.values().for_each(|instance| instance.mark(used)));
        }
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
        let standing = names::standing(self.remembered(now), now);
        let lost = standing.iter().filter(|instance| instance.lost(now)).count();
        (standing.len() - lost, lost)
    }

    /// The instances that are not forgotten.
    fn remembered(&self, now: Instant) -> impl Iterator<Item = &Instance> + Clone {
        self.instances.values().filter(move |instance| instance.is_missed() && instance.silence(now) < FORGOTTEN_AFTER)
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
        // Ages that move on each second would have all else that is told with them told again.
        let aged = now.checked_sub(Duration::from_secs(self.ticks % AGED_EVERY)).unwrap_or(now);
        view::of(self.remembered(now), &self.merged, &self.history, (now, aged))
    }

    /// The merged view in Prometheus text: sums over all instances, and what each process uses.
    pub(crate) fn render(&self, descriptions: BTreeMap<String, Description>, now: Instant) -> String {
        let mut text = Text::new(descriptions);
        let live: Vec<&Instance> = self.instances.values().filter(|instance| !instance.lost(now)).collect();
        self.merged.render(&live, &mut text);
        let mut by_name: BTreeMap<&'static str, Vec<(Key, f64)>> = BTreeMap::new();
        for instance in names::one_of_each(self.remembered(now), now) {
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
