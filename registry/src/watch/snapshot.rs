//! A snapshot on its way out, chunk by chunk.
//!
//! It holds the immutable view that it began with, so that the chunks fit together whatever happens meanwhile, and works
//! out each chunk only when there is room for it.

use std::ops::Bound;
use std::sync::Arc;

use mesh_api::registry::v1 as pb;
use prost::Message as _;

use crate::catalog::{InstanceId, Revision, ServiceKey, ServiceView};
use crate::wire;

/// Bytes after which a chunk takes no further entry. Half of a watcher's queue, and with one instance more (64 KiB at
/// most, the size of a registration) far below the 256 KiB that the protocol allows.
pub(super) const CHUNK_BYTES: usize = 32 * 1024;

/// A snapshot of which some chunks are sent.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    view: Arc<ServiceView>,
    revision: Revision,
    complete: Complete,
    next: Part,
    index: u32,
}

/// Whether the registry's state was whole when something was taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Complete {
    Whole,
    Warming,
}

impl Complete {
    pub(super) fn from_wire(complete: bool) -> Self {
        if complete { Self::Whole } else { Self::Warming }
    }

    pub(super) fn to_wire(self) -> bool {
        self == Self::Whole
    }
}

/// Where the next chunk begins.
#[derive(Debug, Clone, Copy)]
enum Part {
    Instances(Bound<InstanceId>),
    Removals(Bound<InstanceId>),
}

impl Snapshot {
    /// A snapshot of this view, which holds at `revision`.
    pub(super) fn begin(view: Arc<ServiceView>, revision: Revision, complete: Complete) -> Self {
        Self { view, revision, complete, next: Part::Instances(Bound::Unbounded), index: 0 }
    }

    /// The service it is of.
    pub(super) fn service(&self) -> &ServiceKey {
        self.view.key()
    }

    /// Revision that holds once the last chunk is applied.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether the state was whole when it began.
    pub(super) fn complete(&self) -> Complete {
        self.complete
    }

    /// The next chunk, instances first; `last` tells the end, after which this is not called again.
    pub(super) fn next_chunk(&mut self) -> pb::SnapshotChunk {
        let mut chunk = pb::SnapshotChunk {
            index: self.index,
            presence: wire::presence(self.view.presence()).into(),
            ..pb::SnapshotChunk::default()
        };
        self.index += 1;
        let mut bytes = 0;
        if let Part::Instances(from) = self.next {
            for instance in self.view.instances().from(from) {
                if bytes >= CHUNK_BYTES {
                    return chunk;
                }
                let (id, instance) = (instance.id(), wire::instance(instance));
                bytes += instance.encoded_len();
                chunk.instances.push(instance);
                self.next = Part::Instances(Bound::Excluded(id));
            }
            self.next = Part::Removals(Bound::Unbounded);
        }
        if let Part::Removals(from) = self.next {
            for removal in self.view.removals().from(from) {
                if bytes >= CHUNK_BYTES {
                    return chunk;
                }
                let (id, removal) = (removal.id, wire::removal(removal));
                bytes += removal.encoded_len();
                chunk.removals.push(removal);
                self.next = Part::Removals(Bound::Excluded(id));
            }
        }
        chunk.last = true;
        chunk
    }
}
