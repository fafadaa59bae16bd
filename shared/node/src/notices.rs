//! What is wrong with this process until it is mended, in words, for people who ask.
//!
//! Whoever finds something wrong says so here under the name of the matter, and takes it back when it is mended.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Matters at once; one more is not kept. There are some per pool and a handful per process.
const MAX_MATTERS: usize = 512;

/// The notices of a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Notices(Arc<Mutex<BTreeMap<String, Notice>>>);

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether clients notice it; else they may, one day.
    pub urgent: bool,
    /// What it is, and what to do.
    pub text: String,
}

impl Notices {
    /// Something is wrong with `matter`; it replaces what was said of it.
    pub fn raise(&self, matter: &str, urgent: bool, text: impl Into<String>) {
        let mut notices = self.0.lock();
        if notices.len() < MAX_MATTERS || notices.contains_key(matter) {
            notices.insert(matter.to_owned(), Notice { urgent, text: text.into() });
        }
    }

    /// Nothing is wrong with `matter` any more.
    pub fn settle(&self, matter: &str) {
        self.0.lock().remove(matter);
    }

    /// All of them, by matter.
    pub fn list(&self) -> Vec<Notice> {
        self.0.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matter_has_one_notice_until_it_is_settled() {
        let notices = Notices::default();
        notices.raise("reload default", true, "broken");
        notices.raise("reload default", true, "still broken");
        notices.raise("backlog", false, "short");
        let list = notices.list();
        assert_eq!(list.iter().map(|notice| &*notice.text).collect::<Vec<_>>(), ["short", "still broken"]);
        notices.settle("reload default");
        notices.settle("what was never raised");
        assert_eq!(notices.list().len(), 1);
        for number in 0..2 * MAX_MATTERS {
            notices.raise(&number.to_string(), false, "x");
        }
        assert_eq!(notices.list().len(), MAX_MATTERS);
    }
}
