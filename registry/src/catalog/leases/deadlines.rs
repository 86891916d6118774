//! When to look at what, where there is little of it: services with somebody silent. Leases have the [wheel](super::wheel).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::catalog::Timestamp;

/// Items filed under the time at which they are due, each at most once. Items due together come in their own order, which
/// keeps a replay the same.
#[derive(Debug)]
pub(super) struct Deadlines<T> {
    queue: BTreeSet<(Timestamp, T)>,
    filed: HashMap<T, Timestamp>,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Self { queue: BTreeSet::new(), filed: HashMap::new() }
    }
}

impl<T: Ord + Hash + Clone> Deadlines<T> {
    /// Files an item, in place of where it was filed before.
    pub(super) fn file(&mut self, item: T, at: Timestamp) {
        if let Some(before) = self.filed.insert(item.clone(), at) {
            self.queue.remove(&(before, item.clone()));
        }
        self.queue.insert((at, item));
    }

    /// Files an item unless it is filed for an earlier time.
    pub(super) fn file_by(&mut self, item: T, at: Timestamp) {
        if self.filed.get(&item).is_none_or(|filed| *filed > at) {
            self.file(item, at);
        }
    }

    /// Takes an item out.
    pub(super) fn unfile(&mut self, item: &T) {
        if let Some(at) = self.filed.remove(item) {
            self.queue.remove(&(at, item.clone()));
        }
    }

    /// Takes out the first item that is due.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<T> {
        if self.queue.first()?.0 > now {
            return None;
        }
        let (_, item) = self.queue.pop_first()?;
        self.filed.remove(&item);
        Some(item)
    }

    /// When the next item is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// How many items are filed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.queue.len(), self.filed.len());
        self.queue.len()
    }
}
