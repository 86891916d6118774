//! A store in memory: as consistent as any other, and gone with the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;

use super::log::{Bounds, Log};
use super::{Completeness, Entry, FollowError, Loaded, Outcome, Store, StoreError};
use crate::catalog::{
    Committed, Expected, Generation, Key, OpId, Position, Proposal, Record, Revision, StoreId, Write,
};

/// What is kept for those who follow: more than an engine hands in at once even if every registration in the group is as
/// large as the door lets in.
const BOUNDS: Bounds = Bounds { commits: 8_192, bytes: 64 * 1024 * 1024 };

/// Records in memory. Clones share them, so that a second engine on a clone is a second node on one store.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    log: Arc<Log>,
}

#[derive(Debug)]
struct Inner {
    position: Position,
    entries: BTreeMap<Key, Kept>,
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
        let inner = Mutex::new(Inner { position, entries: BTreeMap::new() });
        Self { shared: Arc::new(Shared { inner, log: Arc::new(Log::after(Revision::ZERO, BOUNDS)) }) }
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
        let mut inner = self.shared.inner.lock();
        let log = &self.shared.log;
        if let Some(revision) = log.became(proposal.op) {
            return Outcome::Committed(revision);
        }
        let as_expected = |(key, expected): &(Key, Expected)| inner.is_as(key, *expected, log);
        if !proposal.expected.iter().all(as_expected) {
            return Outcome::Conflict(inner.position.revision);
        }
        let committed = inner.commit(proposal);
        let revision = committed.revision;
        // Within the lock: commits are told in their order.
        log.extend(vec![Arc::new(committed)]);
        Outcome::Committed(revision)
    }

    /// The commit that a proposal lately became.
    #[must_use]
    pub fn became(&self, op: OpId) -> Option<Revision> {
        self.shared.log.became(op)
    }

    /// The last change that was committed.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.inner.lock().position.revision
    }
}

impl Inner {
    fn commit(&mut self, proposal: &Proposal) -> Committed {
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
        Committed { revision, op, writes: proposal.writes.clone() }
    }

    fn is_as(&self, key: &Key, expected: Expected, log: &Log) -> bool {
        match (self.entries.get(key), expected) {
            (None, Expected::Absent) => true,
            (Some(kept), Expected::At(revision)) => kept.revision == revision,
            (Some(kept), Expected::By(op)) => kept.op == op,
            (None, Expected::By(op)) => log.deleted_by(op, key),
            (None, Expected::At(_)) | (Some(_), Expected::Absent) => false,
        }
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
        Arc::clone(&self.shared.log).follow(after)
    }
}

#[cfg(test)]
mod tests;
