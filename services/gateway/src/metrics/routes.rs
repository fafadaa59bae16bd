//! One thread's counts by route.

use std::collections::HashMap;

use bytestring::ByteString;

use super::route::RouteCounts;
use super::totals::Totals;
use crate::router::RouteId;

/// The label of what no route answers.
const NO_ROUTE: &str = "none";
/// The label that routes without one of their own share.
pub(crate) const OTHER_ROUTES: &str = "_other";
/// The slot of [`OTHER_ROUTES`]; that of [`NO_ROUTE`] is the first.
const OTHER_SLOT: usize = 1;

/// See the module. Slots are never given up, so that what began before a reload ends in its own; nor are the series behind
/// them.
pub(super) struct Routes {
    slots: Vec<RouteCounts>,
    by_label: HashMap<ByteString, usize>,
    /// Slots by route number, of one routing table.
    table: u64,
    by_number: Vec<Option<usize>>,
}

impl Routes {
    pub(super) fn new() -> Self {
        let slots = vec![RouteCounts::new(NO_ROUTE), RouteCounts::new(OTHER_ROUTES)];
        Self { slots, by_label: HashMap::new(), table: 0, by_number: Vec::new() }
    }

    /// The slot of a route.
    pub(super) fn slot(&mut self, route: RouteId, label: &ByteString) -> usize {
        let RouteId { table, number, labelled } = route;
        if !labelled {
            return OTHER_SLOT;
        }
        if self.table != table {
            self.table = table;
            self.by_number.clear();
        }
        if let Some(Some(slot)) = self.by_number.get(number) {
            return *slot;
        }
        let slot = match self.by_label.get(label) {
            Some(slot) => *slot,
            None => {
                self.slots.push(RouteCounts::new(label));
                self.by_label.insert(label.clone(), self.slots.len() - 1);
                self.slots.len() - 1
            }
        };
        if self.by_number.len() <= number {
            self.by_number.resize(number + 1, None);
        }
        if let Some(place) = self.by_number.get_mut(number) {
            *place = Some(slot);
        }
        slot
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut RouteCounts> {
        self.slots.get_mut(slot)
    }

    /// The label that a slot's requests are counted under.
    pub(super) fn label(&self, slot: usize) -> &str {
        self.slots.get(slot).map_or(NO_ROUTE, RouteCounts::label)
    }

    pub(super) fn flush(&mut self, totals: &Totals) {
        for slot in &mut self.slots {
            slot.flush(totals);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::rc::Rc;
    use std::time::Instant;

    use bytes::Bytes;
    use troupe_node::metrics::Metrics as Process;

    use super::*;
    use crate::config::RouteConfig;
    use crate::metrics::{Metrics, ThreadMetrics};
    use crate::request::{BodyFrame, Incoming, Refused, Sampling, Trace};
    use crate::router::{Found, Labels, MAX_LABELS_GIVEN, MAX_ROUTE_LABELS, OwnPages, RouteTable};

    fn request() -> Incoming {
        Incoming::Refused(Refused {
            status: 200,
            why: "",
            close: false,
            body: BodyFrame::None,
            id: Bytes::from_static(b"id"),
            trace: Trace::new(None, 7, Sampling::default()),
            received: Instant::now(),
            remote: IpAddr::V4(Ipv4Addr::LOCALHOST),
        })
    }

    fn table(labels: &mut Labels, paths: impl Iterator<Item = String>) -> RouteTable {
        let route = |path| RouteConfig { path, function: Some("f".into()), ..RouteConfig::default() };
        let configs: Vec<_> = paths.map(route).collect();
        RouteTable::build_after(labels, &configs, OwnPages { health: false, dashboard: false }).unwrap()
    }

    /// Requests counted under a label.
    fn counted(text: &str, label: &str) -> Option<u64> {
        let series = format!("troupe_gateway_requests_total{{route=\"{label}\",method=\"_other\",status=\"2xx\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
    }

    /// Counts a request of the route at `path` on a thread.
    fn answer(thread: &Rc<ThreadMetrics>, table: &RouteTable, path: &str) {
        let Found::Route(matched) = table.find("", "GET", path) else { panic!("{path} is a route") };
        let mut ticket = thread.begin(&request());
        ticket.set_route(table.id(&matched), &matched.route.label);
        ticket.end(200, (0, 0), true, Instant::now());
    }

    #[test]
    fn all_threads_count_a_route_under_one_label_whatever_they_are_asked_for_first() {
        const ROUTES: usize = MAX_ROUTE_LABELS + 50;
        let (process, metrics) = (Process::detached(), Metrics::default());
        let paths = |prefix: &'static str| (0..ROUTES).map(move |number| format!("/{prefix}/{number}"));
        let mut labels = Labels::default();
        let text = metrics::with_local_recorder(process.registry(), || {
            let threads = [metrics.thread(), metrics.thread()];
            // The second time by other names, as after a reload.
            for prefix in ["a", "b"] {
                let table = table(&mut labels, paths(prefix));
                paths(prefix).for_each(|path| answer(&threads[0], &table, &path));
                paths(prefix).rev().for_each(|path| answer(&threads[1], &table, &path));
                threads.iter().for_each(|thread| thread.flush());
            }
            process.render()
        });
        for path in paths("a").take(MAX_ROUTE_LABELS).chain(paths("b").take(MAX_ROUTE_LABELS)) {
            assert_eq!(counted(&text, &path), Some(2), "{path}");
        }
        for path in paths("a").skip(MAX_ROUTE_LABELS).chain(paths("b").skip(MAX_ROUTE_LABELS)) {
            assert_eq!(counted(&text, &path), None, "{path}");
        }
        let beyond = 2 * 2 * (ROUTES - MAX_ROUTE_LABELS) as u64;
        assert_eq!(counted(&text, OTHER_ROUTES), Some(beyond));
    }
    #[test]
    fn reloads_without_end_give_out_so_many_labels_and_those_known_stay() {
        let (process, metrics) = (Process::detached(), Metrics::default());
        let mut labels = Labels::default();
        let (reloads, each) = (100, MAX_ROUTE_LABELS);
        let text = metrics::with_local_recorder(process.registry(), || {
            let threads = [metrics.thread(), metrics.thread()];
            for reload in 0..reloads {
                // One that is always there, behind those that are new each time.
                let new = || (1..each).map(move |number| format!("/{reload}/{number}"));
                let paths = || new().chain(["/kept".to_owned()]);
                let table = table(&mut labels, paths());
                paths().for_each(|path| answer(&threads[0], &table, &path));
                paths().rev().for_each(|path| answer(&threads[1], &table, &path));
                threads.iter().for_each(|thread| thread.flush());
            }
            process.render()
        });
        let given = text.lines().filter(|line| line.starts_with("troupe_gateway_requests_total{")).count();
        assert_eq!(given, MAX_LABELS_GIVEN + 1, "and that of the others");
        assert_eq!(counted(&text, "/kept"), Some(2 * reloads as u64), "it was given its label before");
        let apart = (MAX_LABELS_GIVEN - 1) as u64;
        let all_new = (reloads * (each - 1)) as u64;
        assert_eq!(counted(&text, OTHER_ROUTES), Some(2 * (all_new - apart)), "each is counted somewhere");
        let refused = text.lines().find(|line| line.starts_with("troupe_node_series_refused_total "));
        assert!(refused.is_none_or(|line| line.ends_with(" 0")), "{refused:?}");
    }
}
