//! A store in memory: as consistent as any other, and gone with the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Completeness, Entry, FollowError, Loaded, Outcome, Store, StoreError};
use crate::catalog::{
    Committed, Expected, Generation, Key, OpId, Position, Proposal, Record, Revision, StoreId, Write,
};

/// Commits kept for those who follow, and op ids remembered. Who falls further behind loads anew.
const LOG_MAX: usize = 8_192;

/// Most bytes of those commits, about; past it the oldest go. More than an engine hands in at once even if every
/// registration in the group is as large as the door lets in, so that no engine loses sight of its own group.
const LOG_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Records in memory. Clones share them, so that a second engine on a clone is a second node on one store.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    head: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Inner {
    position: Position,
    entries: BTreeMap<Key, Kept>,
    /// The last commits, in order.
    log: VecDeque<Arc<Committed>>,
    log_bytes: usize,
    /// Every commit after this revision is in the log.
    floor: Revision,
    /// What became of the op ids in the log.
    ops: HashMap<OpId, Revision>,
}

#[derive(Debug)]
struct Kept {
    record: Record,
    revision: Revision,
    op: OpId,
}

impl MemoryStore {
    /// An empty store of this identity, which has to be a new one at each start.
    #[must_use]
    pub fn new(id: StoreId) -> Self {
        let position = Position { store: id, generation: Generation(1), revision: Revision::ZERO };
        let inner = Inner {
            position,
            entries: BTreeMap::new(),
            log: VecDeque::new(),
            log_bytes: 0,
            floor: Revision::ZERO,
            ops: HashMap::new(),
        };
        Self { shared: Arc::new(Shared { inner: Mutex::new(inner), head: watch::Sender::new(Revision::ZERO) }) }
    }

    /// What [`Store::load`] answers, at once.
    #[must_use]
    pub fn snapshot(&self) -> Loaded {
        let inner = self.shared.inner.lock();
        let entry = |(key, kept): (&Key, &Kept)| Entry {
            key: key.clone(),
            record: kept.record.clone(),
            revision: kept.revision,
            op: kept.op,
        };
        Loaded {
            position: inner.position.clone(),
            completeness: Completeness::Fresh,
            entries: inner.entries.iter().map(entry).collect(),
        }
    }

    /// Tries one proposal, at once.
    pub fn try_commit(&self, proposal: &Proposal) -> Outcome {
        let outcome = self.shared.inner.lock().commit(proposal);
        if let Outcome::Committed(revision) = outcome {
            self.shared.head.send_if_modified(|head| {
                let newer = *head < revision;
                *head = revision.max(*head);
                newer
            });
        }
        outcome
    }

    /// The commit that a proposal lately became.
    #[must_use]
    pub fn became(&self, op: OpId) -> Option<Revision> {
        self.shared.inner.lock().ops.get(&op).copied()
    }

    /// The last change that was committed.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.inner.lock().position.revision
    }
}

impl Inner {
    fn commit(&mut self, proposal: &Proposal) -> Outcome {
        if let Some(revision) = self.ops.get(&proposal.op) {
            return Outcome::Committed(*revision);
        }
        if !proposal.expected.iter().all(|(key, expected)| self.is_as(key, *expected)) {
            return Outcome::Conflict(self.position.revision);
        }
        let (revision, op) = (self.position.revision.next(), proposal.op);
        for write in &proposal.writes {
            match write {
                Write::Put(key, record) => {
                    self.entries.insert(key.clone(), Kept { record: record.clone(), revision, op });
                }
                Write::Delete(key) => {
                    self.entries.remove(key);
                }
            }
        }
        self.position.revision = revision;
        let committed = Committed { revision, op, writes: proposal.writes.clone() };
        self.log_bytes += committed.bytes();
        self.log.push_back(Arc::new(committed));
        self.ops.insert(op, revision);
        while (self.log.len() > LOG_MAX || self.log_bytes > LOG_BYTES_MAX)
            && let Some(dropped) = self.log.pop_front()
        {
            self.log_bytes -= dropped.bytes();
            self.floor = dropped.revision;
            self.ops.remove(&dropped.op);
        }
        Outcome::Committed(revision)
    }

    fn is_as(&self, key: &Key, expected: Expected) -> bool {
        match (self.entries.get(key), expected) {
            (None, Expected::Absent) => true,
            (Some(kept), Expected::At(revision)) => kept.revision == revision,
            (Some(kept), Expected::By(op)) => kept.op == op,
            (None, Expected::By(op)) => self.deleted_by(op, key),
            (None, Expected::At(_)) | (Some(_), Expected::Absent) => false,
        }
    }

    /// Whether a key is gone by the hand of this proposal.
    fn deleted_by(&self, op: OpId, key: &Key) -> bool {
        let Some(revision) = self.ops.get(&op) else { return false };
        let index = self.log.partition_point(|committed| committed.revision < *revision);
        let committed = self.log.get(index);
        committed.is_some_and(|committed| committed.writes.contains(&Write::Delete(key.clone())))
    }

    /// The first commit after a revision.
    fn after(&self, revision: Revision) -> Result<Option<Arc<Committed>>, FollowError> {
        if revision < self.floor {
            return Err(FollowError::Compacted { oldest: self.floor.next() });
        }
        let index = self.log.partition_point(|committed| committed.revision <= revision);
        Ok(self.log.get(index).cloned())
    }
}

impl Store for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        async { Ok(self.snapshot()) }.boxed()
    }

    fn commit(&self, proposals: Vec<Arc<Proposal>>) -> BoxFuture<'_, Vec<Outcome>> {
        async move { proposals.iter().map(|proposal| self.try_commit(proposal)).collect() }.boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>> {
        let from = (self.shared.clone(), self.shared.head.subscribe(), Some(after));
        stream::unfold(from, |(shared, mut head, at)| async move {
            let at = at?;
            loop {
                // Seen before looked at: a commit in between wakes the wait below.
                head.borrow_and_update();
                let found = shared.inner.lock().after(at);
                match found {
                    Ok(Some(committed)) => {
                        let at = Some(committed.revision);
                        return Some((Ok(committed), (shared, head, at)));
                    }
                    Err(compacted) => return Some((Err(compacted), (shared, head, None))),
                    // Cannot fail: the sender lives in what this stream holds.
                    Ok(None) => head.changed().await.ok()?,
                }
            }
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests;
