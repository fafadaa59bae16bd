//! What purges leave on the disk: when, by what they are about. It costs the same whatever there is of it, and answers are compared
//! with it when they are read again.

use std::collections::HashMap;

use redb::{AccessGuard, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition, WriteTransaction};
use troupe_contracts::cache::Url;
use troupe_contracts::cache::purge::Target;

use crate::key::Key;
use crate::service::convert::short_name;
use crate::time::Moment;

/// Names that purges are remembered by, about 60 bytes each; beyond that all that was fetched before counts as purged.
const MAX_NAMES: u64 = 1_000_000;
/// Beginnings of URLs that are remembered: each answer is compared with each.
const MAX_PREFIXES: u64 = 1_024;

/// Process, number of the purge in it, and the wall clock in milliseconds.
type Value = (u64, u64, u64);

const NAMES: TableDefinition<'_, u128, Value> = TableDefinition::new("purges");
const PREFIXES: TableDefinition<'_, &str, Value> = TableDefinition::new("purged-beginnings");

/// A moment among all purges: the process, and the number of purges in it.
pub(super) type At = (u64, u64);

/// The marks, open for writing.
pub(super) struct Marks<'a> {
    names: Table<'a, u128, Value>,
    prefixes: Table<'a, &'static str, Value>,
}

/// The marks as they are compared with.
#[derive(Debug, Default)]
pub(super) struct Purged {
    names: HashMap<u128, At>,
    prefixes: Vec<(String, At)>,
}

impl<'a> Marks<'a> {
    pub(super) fn of(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self { names: transaction.open_table(NAMES)?, prefixes: transaction.open_table(PREFIXES)? })
    }

    /// Notes that what was fetched before `at` is gone, as far as `target` is about it.
    pub(super) fn add(&mut self, target: &Target, at: At, now: Moment) -> Result<(), redb::Error> {
        let value = (at.0, at.1, now.millis());
        // Purges of several threads come in any order: the last one counts.
        let last = |before: Option<AccessGuard<'_, Value>>| before.map_or(value, |before| before.value().max(value));
        match target {
            Target::Nothing => {}
            Target::Prefix(url) => {
                let prefix = whole(url);
                let value = last(self.prefixes.get(&*prefix)?);
                self.prefixes.insert(&*prefix, value)?;
            }
            _ => {
                let name = name(target);
                let value = last(self.names.get(name)?);
                self.names.insert(name, value)?;
            }
        }
        // Too many to remember: everything counts as purged, and nothing else has to be said.
        if self.names.len()? > MAX_NAMES || self.prefixes.len()? > MAX_PREFIXES {
            let mut last = value;
            self.names.retain(|_, value| {
                last = last.max(value);
                false
            })?;
            self.prefixes.retain(|_, value| {
                last = last.max(value);
                false
            })?;
            self.names.insert(name(&Target::All), last)?;
        }
        Ok(())
    }

    /// Forgets marks from before `moment`, when nothing is there any more that they could be about.
    pub(super) fn forget_before(&mut self, moment: Moment) -> Result<(), redb::Error> {
        self.names.retain(|_, (_, _, made)| made >= moment.millis())?;
        self.prefixes.retain(|_, (_, _, made)| made >= moment.millis())?;
        Ok(())
    }

    pub(super) fn read(&self) -> Result<Purged, redb::Error> {
        let mut purged = Purged::default();
        for mark in self.names.iter()? {
            let (name, mark) = mark?;
            let (process, number, _) = mark.value();
            purged.names.insert(name.value(), (process, number));
        }
        for mark in self.prefixes.iter()? {
            let (prefix, mark) = mark?;
            let (process, number, _) = mark.value();
            purged.prefixes.push((prefix.value().to_owned(), (process, number)));
        }
        Ok(purged)
    }

    /// Marks that there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.names.len().unwrap() + self.prefixes.len().unwrap()
    }
}

impl Purged {
    /// Whether an answer that was `born` then has been purged since.
    pub(super) fn is_about(&self, url: &Url, groups: &[Box<str>], born: At) -> bool {
        let own = [Target::All, Target::Host(url.host.clone()), Target::Url(url.clone())];
        let of_groups = groups.iter().flat_map(|group| {
            let group = group.as_ref().to_owned();
            // An origin has no path.
            [Target::Group(group.clone(), None), Target::Group(group, Some(url.clone()))]
        });
        let mut targets = own.into_iter().chain(of_groups);
        let whole = whole(url);
        targets.any(|target| self.names.get(&name(&target)).is_some_and(|at| *at > born))
            || self.prefixes.iter().any(|(prefix, at)| *at > born && whole.starts_with(prefix.as_str()))
    }
}

fn whole(url: &Url) -> String {
    Key::from(url).to_string()
}

fn name(target: &Target) -> u128 {
    let scheme = |url: &Url| [u8::from(url.https)];
    u128::from_le_bytes(match target {
        Target::Nothing | Target::All | Target::Prefix(_) => short_name(&[b"all"]),
        Target::Host(host) => short_name(&[b"host", host.as_bytes()]),
        Target::Url(url) => short_name(&[b"url", &scheme(url), url.host.as_bytes(), url.target.as_bytes()]),
        Target::Group(group, None) => short_name(&[b"group", group.as_bytes()]),
        Target::Group(group, Some(url)) => short_name(&[b"group", group.as_bytes(), &scheme(url), url.host.as_bytes()]),
    })
}
