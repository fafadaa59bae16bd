//! The tables a request is looked up in: matchit's trees, arranged so that the most specific route wins.
//!
//! matchit refuses `{name}` and `{rest*}` in one place, which routes may well have. So patterns without `{rest*}` live
//! in one tree, and those with it in one tree for each depth at which it stands: within each tree nothing clashes, and
//! of the few winners the one with the highest rank is taken. The cost does not grow with the number of routes.

use std::collections::HashMap;

use super::pattern::{Pattern, Segment};

/// Routes of one host that take one method.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    exact: Tree,
    /// By the number of segments before `{rest*}`.
    rest: Vec<(usize, Tree)>,
}

#[derive(Debug, Default)]
struct Tree {
    paths: matchit::Router<usize>,
    leaves: Vec<Leaf>,
    by_key: HashMap<String, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaf {
    rank: u128,
    route: usize,
}

/// A route that matches, with what its pattern captured.
#[derive(Debug)]
pub(super) struct Hit<'table, 'path> {
    pub(super) rank: u128,
    pub(super) route: usize,
    params: matchit::Params<'table, 'path>,
}

impl<'path> Hit<'_, 'path> {
    /// What the segment at `position` captured.
    pub(super) fn name(&self, position: usize) -> Option<&'path str> {
        self.params
            .iter()
            .find(|(key, _)| key.strip_prefix('p').and_then(|text| text.parse().ok()) == Some(position))
            .map(|(_, value)| value)
    }

    /// What `{rest*}` captured.
    pub(super) fn rest(&self) -> Option<&'path str> {
        self.params.get("rest")
    }
}

impl PathTable {
    /// Adds a route. `rest_may_be_empty`: whether `/a/{rest*}` also takes `/a/`.
    pub(super) fn insert(&mut self, pattern: &Pattern, route: usize, rest_may_be_empty: bool) -> Result<(), String> {
        let leaf = Leaf { rank: pattern.rank(), route };
        if pattern.rest().is_none() {
            return self.exact.insert(pattern, leaf);
        }
        if rest_may_be_empty {
            self.exact.insert(&pattern.ending_with(&[Segment::Literal(String::new())]), leaf)?;
        }
        let depth = pattern.segments.len();
        let index = match self.rest.iter().position(|(at, _)| *at == depth) {
            Some(index) => index,
            None => {
                self.rest.push((depth, Tree::default()));
                self.rest.len() - 1
            }
        };
        match self.rest.get_mut(index) {
            Some((_, tree)) => tree.insert(pattern, leaf),
            None => Ok(()),
        }
    }

    /// The most specific route that matches `path`.
    pub(super) fn find<'table, 'path>(&'table self, path: &'path str) -> Option<Hit<'table, 'path>> {
        let mut best = self.exact.find(path);
        for (_, tree) in &self.rest {
            if let Some(hit) = tree.find(path)
                && best.as_ref().is_none_or(|best| hit.rank > best.rank)
            {
                best = Some(hit);
            }
        }
        best
    }
}

impl Tree {
    fn insert(&mut self, pattern: &Pattern, leaf: Leaf) -> Result<(), String> {
        let key = pattern.key();
        if let Some(&index) = self.by_key.get(&key) {
            // One route's `/a/` and another's `/a/{rest*}` meet here; the more specific one keeps the place.
            if let Some(place) = self.leaves.get_mut(index)
                && leaf.rank > place.rank
            {
                *place = leaf;
            }
            return Ok(());
        }
        self.paths.insert(pattern.for_matchit(), self.leaves.len()).map_err(|error| error.to_string())?;
        self.by_key.insert(key, self.leaves.len());
        self.leaves.push(leaf);
        Ok(())
    }

    fn find<'table, 'path>(&'table self, path: &'path str) -> Option<Hit<'table, 'path>> {
        let found = self.paths.at(path).ok()?;
        let leaf = self.leaves.get(*found.value)?;
        Some(Hit { rank: leaf.rank, route: leaf.route, params: found.params })
    }
}
