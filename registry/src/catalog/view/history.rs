//! The last changes of a service, shared between the views that hold them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Delta, Resume};
use crate::catalog::Revision;

/// Deltas in a full chunk. A new view copies one open chunk and the list of full ones, 64 pointers in all instead of the
/// whole ring.
const CHUNK: usize = 32;

/// Full chunks kept: with the open one between 992 and 1 023 deltas.
const CHUNKS_MAX: usize = 31;

/// A ring of at most 1 024 deltas, each building on the one before.
#[derive(Clone, Debug)]
pub(super) struct History {
    full: VecDeque<Arc<[Arc<Delta>]>>,
    open: Vec<Arc<Delta>>,
    /// Every change after this revision is in the ring.
    floor: Revision,
}

impl History {
    /// An empty history that begins at this revision.
    pub(super) fn since(floor: Revision) -> Self {
        Self { full: VecDeque::new(), open: Vec::new(), floor }
    }

    /// Adds the newest delta; the oldest ones go when the ring is full.
    pub(super) fn push(&mut self, delta: Delta) {
        self.open.push(Arc::new(delta));
        if self.open.len() == CHUNK {
            self.full.push_back(std::mem::take(&mut self.open).into());
        }
        if self.full.len() > CHUNKS_MAX
            && let Some(dropped) = self.full.pop_front()
            && let Some(last) = dropped.last()
        {
            self.floor = last.revision;
        }
    }

    /// The deltas after a revision, if all of them are here.
    pub(super) fn since_revision(&self, after: Revision) -> Resume {
        if after < self.floor {
            return Resume::Snapshot;
        }
        let all = self.full.iter().flat_map(|chunk| chunk.iter()).chain(&self.open);
        Resume::Deltas(all.filter(|delta| delta.revision > after).cloned().collect())
    }
}
