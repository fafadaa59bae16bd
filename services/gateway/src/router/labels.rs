//! Which routes are counted under a label of their own.

use std::collections::HashSet;

use bytestring::ByteString;

use crate::config::RouteConfig;

/// Routes of a table with a label of their own; those beyond share one. A scrape stays small with any number of routes.
pub(crate) const MAX_ROUTE_LABELS: usize = 200;

/// Labels of all tables that a gateway has had. Series of counters are never given up, so that reloads with new names would fill the
/// process's [`MAX_SERIES`](troupe_node::metrics::MAX_SERIES), and nothing new were counted any more. Twice a table's: all
/// routes may be renamed once; and twenty series of each, which is many, leave room for what else is counted.
pub(crate) const MAX_LABELS_GIVEN: usize = 2 * MAX_ROUTE_LABELS;

/// The labels that a gateway has given out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels {
    given: HashSet<ByteString>,
}

impl Labels {
    /// Each route's label, and whether it is counted under it, as those are that were given out before or that there is
    /// room for.
    ///
    /// Decided here, and not by what is asked for first: so all threads count a route under the same label, and so do all
    /// gateways that had the same configurations.
    pub(super) fn give(&mut self, configs: &[RouteConfig]) -> Vec<(ByteString, bool)> {
        let mut of_table = HashSet::new();
        let give = |config| {
            let label = label(config);
            let labelled = of_table.contains(&label)
                || of_table.len() < MAX_ROUTE_LABELS
                    && (self.given.contains(&label) || self.given.len() < MAX_LABELS_GIVEN);
            if labelled {
                self.given.insert(label.clone());
                of_table.insert(label.clone());
            }
            (label, labelled)
        };
        configs.iter().map(give).collect()
    }
}

fn label(config: &RouteConfig) -> ByteString {
    match &config.host {
        Some(host) => format!("{host}{}", config.path).into(),
        None => config.path.as_str().into(),
    }
}
