//! The last changes of a service, shared between the views that hold them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Delta, Resume};
use crate::catalog::Revision;

/// Deltas in a full chunk. A new view copies one open chunk and the list of full ones, 64 pointers in all instead of the
/// whole ring.
const CHUNK: usize = 32;

/// Full chunks kept: with the open one between 992 and 1 023 deltas, as long as they are small.
const CHUNKS_MAX: usize = 31;

/// Most bytes of all deltas together, about. A registration may have 64 KiB: a thousand of those in each of many services
/// would fill the memory. Who is further behind gets the whole state, which is hardly larger.
const BYTES_MAX: usize = 1024 * 1024;

/// A chunk of so many bytes is full too, so that at most a sixteenth of the ring goes at once.
const CHUNK_BYTES: usize = BYTES_MAX / 16;

/// A ring of at most 1 024 deltas and a MiB, each delta building on the one before. One that is larger than the ring by
/// itself empties it.
#[derive(Clone, Debug)]
pub(super) struct History {
    full: VecDeque<Chunk>,
    open: Vec<Arc<Delta>>,
    open_bytes: usize,
    /// Of the full chunks and the open one.
    bytes: usize,
    /// Every change after this revision is in the ring.
    floor: Revision,
}

#[derive(Clone, Debug)]
struct Chunk {
    deltas: Arc<[Arc<Delta>]>,
    bytes: usize,
}

impl History {
    /// An empty history that begins at this revision.
    pub(super) fn since(floor: Revision) -> Self {
        Self { full: VecDeque::new(), open: Vec::new(), open_bytes: 0, bytes: 0, floor }
    }

    /// Adds the newest delta; the oldest ones go when the ring is full.
    pub(super) fn push(&mut self, delta: Delta) {
        let bytes = delta.bytes();
        self.open.push(Arc::new(delta));
        self.open_bytes += bytes;
        self.bytes += bytes;
        if self.open.len() == CHUNK || self.open_bytes >= CHUNK_BYTES {
            let deltas = std::mem::take(&mut self.open).into();
            self.full.push_back(Chunk { deltas, bytes: std::mem::take(&mut self.open_bytes) });
        }
        while (self.full.len() > CHUNKS_MAX || self.bytes > BYTES_MAX)
            && let Some(dropped) = self.full.pop_front()
        {
            self.bytes -= dropped.bytes;
            self.floor = dropped.deltas.last().map_or(self.floor, |last| last.revision);
        }
    }

    /// The deltas after a revision, if all of them are here. Costs what was missed, not what is kept.
    pub(super) fn since_revision(&self, after: Revision) -> Resume {
        if after < self.floor {
            return Resume::Snapshot;
        }
        let full = self.full.iter().rev().flat_map(|chunk| chunk.deltas.iter().rev());
        let newest_first = self.open.iter().rev().chain(full);
        let mut missed: Vec<_> = newest_first.take_while(|delta| delta.revision > after).cloned().collect();
        missed.reverse();
        Resume::Deltas(missed)
    }
}
