//! The last commits of a store in this process, for those who follow it and for those who ask again what became of a
//! proposal.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::FollowError;
use crate::catalog::{Committed, Key, OpId, Revision, Write};

/// How much of its past a store keeps in memory. Who falls further behind loads anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Most commits.
    pub(super) commits: usize,
    /// Most bytes of them, about.
    pub(super) bytes: usize,
}

/// Commits in order, bounded. Those that were committed together last are kept whatever their size, so that no engine
/// loses sight of its own group.
#[derive(Debug)]
pub(super) struct Log {
    bounds: Bounds,
    inner: Mutex<Inner>,
    head: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Inner {
    commits: VecDeque<Arc<Committed>>,
    bytes: usize,
    /// Every commit after this revision is here.
    floor: Revision,
    /// What became of the op ids of these commits.
    ops: HashMap<OpId, Revision>,
}

impl Log {
    /// A log of what is committed after this revision.
    pub(super) fn after(revision: Revision, bounds: Bounds) -> Self {
        let inner = Inner { commits: VecDeque::new(), bytes: 0, floor: revision, ops: HashMap::new() };
        Self { bounds, inner: Mutex::new(inner), head: watch::Sender::new(revision) }
    }

    /// Adds what was committed together, and tells those who follow.
    pub(super) fn extend(&self, group: Vec<Arc<Committed>>) {
        let Some(last) = group.last().map(|committed| committed.revision) else { return };
        let mut inner = self.inner.lock();
        let fresh = group.len();
        for committed in group {
            inner.bytes += committed.bytes();
            inner.ops.insert(committed.op, committed.revision);
            inner.commits.push_back(committed);
        }
        while inner.commits.len() > fresh
            && (inner.commits.len() > self.bounds.commits || inner.bytes > self.bounds.bytes)
            && let Some(dropped) = inner.commits.pop_front()
        {
            inner.bytes -= dropped.bytes();
            inner.floor = dropped.revision;
            inner.ops.remove(&dropped.op);
        }
        drop(inner);
        self.head.send_if_modified(|head| std::mem::replace(head, last.max(*head)) < last);
    }

    /// The commit that a proposal lately became.
    pub(super) fn became(&self, op: OpId) -> Option<Revision> {
        self.inner.lock().ops.get(&op).copied()
    }

    /// Whether a key is gone by the hand of this proposal.
    pub(super) fn deleted_by(&self, op: OpId, key: &Key) -> bool {
        let inner = self.inner.lock();
        let Some(revision) = inner.ops.get(&op) else { return false };
        let index = inner.commits.partition_point(|committed| committed.revision < *revision);
        inner.commits.get(index).is_some_and(|committed| deletes(&committed.writes, key))
    }

    /// Every commit after a revision, as it happens.
    pub(super) fn follow(self: Arc<Self>, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>> {
        let head = self.head.subscribe();
        stream::unfold((self, head, Some(after)), |(log, mut head, at)| async move {
            let at = at?;
            loop {
                // Seen before looked at: a commit in between wakes the wait below.
                head.borrow_and_update();
                let found = log.next(at);
                match found {
                    Ok(Some(committed)) => {
                        let at = Some(committed.revision);
                        return Some((Ok(committed), (log, head, at)));
                    }
                    Err(compacted) => return Some((Err(compacted), (log, head, None))),
                    // Cannot fail: the sender lives in what this stream holds.
                    Ok(None) => head.changed().await.ok()?,
                }
            }
        })
        .boxed()
    }

    /// How many commits and op ids are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.commits.len(), inner.ops.len())
    }

    /// The first commit after a revision.
    fn next(&self, revision: Revision) -> Result<Option<Arc<Committed>>, FollowError> {
        let inner = self.inner.lock();
        if revision < inner.floor {
            return Err(FollowError::Compacted { oldest: inner.floor.next() });
        }
        let index = inner.commits.partition_point(|committed| committed.revision <= revision);
        Ok(inner.commits.get(index).cloned())
    }
}

/// Whether these writes delete the key.
pub(super) fn deletes(writes: &[Write], key: &Key) -> bool {
    writes.iter().any(|write| matches!(write, Write::Delete(deleted) if deleted == key))
}
