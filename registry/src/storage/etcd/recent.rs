//! What became of the proposals of the last while, as far as this process knows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::catalog::{Key, OpId, Revision, Write};

/// Commits remembered, this node's and everybody else's that it follows: more than the engine ever has in the store's hands.
const COMMITS_MAX: usize = 8_192;

/// Proposals of unknown outcome remembered: those of sixteen groups. One beyond is taken for new when it is handed in again.
const UNKNOWN_MAX: usize = 4_096;

/// A commit, as far as proposals that rest on it need to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Made {
    pub(super) revision: Revision,
    /// The keys that are gone by it; `None` where there are none, as is usual.
    deleted: Option<Arc<[Key]>>,
}

impl Made {
    pub(super) fn new(revision: Revision, writes: &[Write]) -> Self {
        let deleted = writes.iter().filter_map(|write| match write {
            Write::Delete(key) => Some(key.clone()),
            Write::Put(..) => None,
        });
        let deleted: Arc<[Key]> = deleted.collect();
        Self { revision, deleted: Some(deleted).filter(|deleted| !deleted.is_empty()) }
    }

    pub(super) fn has_deleted(&self, key: &Key) -> bool {
        self.deleted.as_ref().is_some_and(|deleted| deleted.contains(key))
    }
}

/// Op ids and what became of them.
#[derive(Debug, Default)]
pub(super) struct Recent {
    made: HashMap<OpId, Made>,
    made_order: VecDeque<OpId>,
    /// The revision that a proposal of unknown outcome was fenced at when it first went out.
    unknown: HashMap<OpId, Revision>,
    unknown_order: VecDeque<OpId>,
}

impl Recent {
    pub(super) fn made(&self, op: OpId) -> Option<&Made> {
        self.made.get(&op)
    }

    pub(super) fn add(&mut self, op: OpId, made: Made) {
        self.unknown.remove(&op);
        if self.made.insert(op, made).is_some() {
            return;
        }
        self.made_order.push_back(op);
        if self.made_order.len() > COMMITS_MAX
            && let Some(oldest) = self.made_order.pop_front()
        {
            self.made.remove(&oldest);
        }
    }

    /// Where a proposal was fenced that went out before and was never heard of.
    pub(super) fn fence(&self, op: OpId) -> Option<Revision> {
        self.unknown.get(&op).copied()
    }

    /// A proposal goes out: from now on it may be made.
    pub(super) fn goes_out(&mut self, op: OpId, fence: Revision) {
        if self.unknown.insert(op, fence).is_some() {
            return;
        }
        self.unknown_order.push_back(op);
        while self.unknown_order.len() > UNKNOWN_MAX
            && let Some(oldest) = self.unknown_order.pop_front()
        {
            self.unknown.remove(&oldest);
        }
    }

    /// A proposal that went out was certainly not made and will not be.
    pub(super) fn came_to_nothing(&mut self, op: OpId) {
        self.unknown.remove(&op);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::kit::service;

    fn op(number: usize) -> OpId {
        OpId((number as u128).to_be_bytes())
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut recent = Recent::default();
        for number in 0..=COMMITS_MAX {
            recent.add(op(number), Made::new(Revision::new(number as u64), &[]));
        }
        assert_eq!(recent.made(op(0)), None);
        assert!(recent.made(op(1)).is_some());
        for number in 0..=UNKNOWN_MAX {
            recent.goes_out(op(number + 100_000), Revision::new(5));
        }
        assert_eq!(recent.fence(op(100_000)), None);
        assert_eq!(recent.fence(op(100_001)), Some(Revision::new(5)));
    }

    #[test]
    fn what_was_made_is_not_unknown_and_knows_what_it_deleted() {
        let (mut recent, gone) = (Recent::default(), Key::Service(service("a")));
        recent.goes_out(op(1), Revision::new(5));
        recent.add(op(1), Made::new(Revision::new(6), &[Write::Delete(gone.clone())]));
        assert_eq!(recent.fence(op(1)), None);
        let made = recent.made(op(1)).unwrap();
        assert!(made.has_deleted(&gone) && !made.has_deleted(&Key::Service(service("b"))));
    }
}
