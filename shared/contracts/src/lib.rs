//! The messages between the services: types, versions and their codecs; no I/O.
//!
//! | contract | caller → callee | what for |
//! |---|---|---|
//! | [`invoke::Invoke`] | gateway → balancer → php-pool | one HTTP request |
//! | [`report::Report`] | balancer → php-pool | which pools an instance has, and how loaded they are |
//! | [`survey::Survey`] | gateway → balancer | whom a call would go to, for people |
//! | [`operate::Operate`] | balancer → php-pool | an operator's order: restart, reload |
//! | [`snapshot::Snapshot`] | every service → metrics | what an instance counts and uses |
//! | [`cache`]'s five | gateway → cache | the second tier: look-ups, stores, leases, purges, watching |

pub mod cache;
pub mod invoke;
pub mod operate;
pub mod report;
pub mod snapshot;
pub mod survey;

mod bodiless;
mod envelope;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use troupe_mesh::contract::Contract;

    use crate::cache::{lease::Lease, lookup::Lookup, purge::Purge, store::Store, watch::Watch};
    use crate::{invoke::Invoke, operate::Operate, report::Report, snapshot::Snapshot, survey::Survey};

    /// A frame names its contract by this number alone, whichever service it reaches.
    #[test]
    fn every_contract_has_a_number_of_its_own() {
        let cache = [Lookup::ID, Store::ID, Lease::ID, Purge::ID, Watch::ID];
        let numbers = [[Invoke::ID, Operate::ID, Report::ID, Snapshot::ID, Survey::ID].as_slice(), &cache].concat();
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "{numbers:?}");
    }
}
