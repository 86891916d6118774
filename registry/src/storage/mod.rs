//! Where records live. A store keeps them under their keys, gives every commit a revision, and tells everybody who
//! follows it what was committed, in order. It knows nothing of what the records mean.

pub mod codec;

mod backup;
mod etcd;
mod file;
mod hostile;
mod log;
mod memory;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::catalog::{Committed, Key, OpId, Position, Proposal, Record, Revision, State};

pub(crate) use backup::Control;
pub use backup::{BackupError, Summary, backup, restore, verify};
pub(crate) use etcd::{Backoff, Layout, Link, Watching, led, led_within};
pub use etcd::{EtcdAddress, EtcdStore};
pub use file::{Claim, Disk, Fault, FileStore, Folder, OpenError};
pub use hostile::{HostileStore, Hostility};
pub use memory::MemoryStore;

/// A place for records.
///
/// What every store holds to:
///
/// - a proposal is committed whole or not at all, and only if each key it expects something of is as expected;
/// - a committed proposal is durable, as far as the store is, before [`commit`](Self::commit) answers;
/// - revisions rise by at least one with every commit, whoever makes it, and never go back under one store id and
///   generation;
/// - [`follow`](Self::follow) yields every commit after a revision exactly once, in order, whoever made it, or ends in
///   an error;
/// - handing in a proposal under an op id that was committed lately answers with that commit and changes nothing.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Everything there is, as of one revision.
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>>;

    /// Tries proposals in order and answers each. One that fails does not stop those after it, but whatever expects it
    /// ([`Expected::By`](crate::catalog::Expected::By)) is not made either: it conflicts, is refused like the one that it
    /// expects, or is as unknown as that one.
    fn commit(&self, proposals: Vec<Arc<Proposal>>) -> BoxFuture<'_, Vec<Outcome>>;

    /// Every commit after this revision, as it happens.
    fn follow(&self, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>>;
}

/// What [`Store::load`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// As of when.
    pub position: Position,
    /// Whether this is all that there ever was.
    pub completeness: Completeness,
    /// The records, in the order of their keys.
    pub entries: Vec<Entry>,
}

impl Loaded {
    /// What the records amount to.
    #[must_use]
    pub fn into_state(self) -> State {
        let entries = self.entries.into_iter();
        State::load(self.position, entries.map(|entry| (entry.key, entry.record, entry.revision, entry.op)))
    }
}

/// A record in a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where it is.
    pub key: Key,
    /// What it is.
    pub record: Record,
    /// When it was last changed.
    pub revision: Revision,
    /// By which proposal.
    pub op: OpId,
}

/// Whether a store remembers what was before the process started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Completeness {
    /// It does: what is missing is gone.
    Whole,
    /// It does not: what is missing may live.
    Fresh,
}

/// What became of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was made, at this revision.
    Committed(Revision),
    /// A key was not as expected; nothing was changed. Whoever has followed up to this revision sees why.
    Conflict(Revision),
    /// The store does not take it now, and says why. Handing it in changed nothing; what became of an earlier time with
    /// an unknown outcome stays unknown.
    Refused(String),
    /// The store does not know: it may have been made, now or later. The op id tells.
    Unknown,
}

/// The store cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the store cannot be read: {reason}")]
pub struct StoreError {
    /// In its words.
    pub reason: String,
}

/// Why following ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FollowError {
    /// The revision asked for is gone: load again.
    #[error("commits before revision {oldest} are no longer kept")]
    Compacted {
        /// The oldest one that is kept.
        oldest: Revision,
    },
    /// The connection to the store broke: follow again.
    #[error("following the store broke off: {reason}")]
    Broken {
        /// In its words.
        reason: String,
    },
}
