//! A snapshot of one view in chunks, each encoded when somebody first asks for it and then the same for everybody.
//!
//! It is made of immutable shared lists, so that the chunks fit together whatever happens meanwhile.

use std::ops::Bound;

use bytes::Bytes;
use mesh_api::registry::v1 as pb;
use parking_lot::Mutex;
use pb::watch_response::Event;
use prost::Message as _;

use super::memo::Shelved;
use crate::catalog::{InstanceId, ServiceView};

/// Bytes after which a chunk takes no further entry. With one instance more (64 KiB at most, the size of a registration)
/// far below the 256 KiB that the protocol allows.
pub(crate) const CHUNK_BYTES: usize = 32 * 1024;

/// The chunks of one snapshot.
#[derive(Debug)]
pub(crate) struct Chunks {
    view: ServiceView,
    made: Mutex<Made>,
}

#[derive(Debug)]
struct Made {
    chunks: Vec<Bytes>,
    bytes: usize,
    /// `None` once the last chunk is made.
    next: Option<Part>,
}

/// Where the next chunk begins.
#[derive(Debug, Clone, Copy)]
enum Part {
    Instances(Bound<InstanceId>),
    Removals(Bound<InstanceId>),
}

/// One chunk: a response that lacks its position and whether the state is whole, which each receiver gets of its own.
pub(crate) struct Chunk {
    /// The bytes.
    pub(crate) bytes: Bytes,
    /// Whether it is the last one.
    pub(crate) last: bool,
}

impl Chunks {
    /// The snapshot of this view, of which nothing is encoded yet.
    pub(crate) fn of(view: ServiceView) -> Self {
        let next = Some(Part::Instances(Bound::Unbounded));
        Self { view, made: Mutex::new(Made { chunks: Vec::new(), bytes: 0, next }) }
    }

    /// A chunk; one behind the last is the last. Who asks for the next one that nobody has had encodes it, some 30 KiB,
    /// while others who want it wait.
    pub(crate) fn get(&self, index: usize) -> Chunk {
        let mut made = self.made.lock();
        while made.chunks.len() <= index
            && let Some(from) = made.next
        {
            let (chunk, next) = self.encode(made.chunks.len(), from);
            made.bytes += chunk.len();
            made.chunks.push(chunk);
            made.next = next;
        }
        let index = index.min(made.chunks.len() - 1);
        Chunk { bytes: made.chunks[index].clone(), last: made.next.is_none() && index + 1 == made.chunks.len() }
    }

    /// Encodes the chunk that begins here; instances first. Where the next one begins, if there is one.
    fn encode(&self, index: usize, from: Part) -> (Bytes, Option<Part>) {
        let mut chunk = pb::SnapshotChunk {
            index: super::count(index),
            presence: super::presence(self.view.presence()).into(),
            ..pb::SnapshotChunk::default()
        };
        let next = self.fill(&mut chunk, from);
        chunk.last = next.is_none();
        let key = self.view.key();
        let response = pb::WatchResponse {
            namespace: key.namespace.as_str().to_owned(),
            service: key.name.as_str().to_owned(),
            event: Some(Event::Snapshot(chunk)),
            ..pb::WatchResponse::default()
        };
        (response.encode_to_vec().into(), next)
    }

    fn fill(&self, chunk: &mut pb::SnapshotChunk, from: Part) -> Option<Part> {
        let mut bytes = 0;
        let removals = match from {
            Part::Removals(from) => from,
            Part::Instances(from) => {
                let mut last = from;
                for instance in self.view.instances().from(from) {
                    if bytes >= CHUNK_BYTES {
                        return Some(Part::Instances(last));
                    }
                    last = Bound::Excluded(instance.id());
                    let instance = super::instance(instance);
                    bytes += instance.encoded_len();
                    chunk.instances.push(instance);
                }
                Bound::Unbounded
            }
        };
        let mut last = removals;
        for removal in self.view.removals().from(removals) {
            if bytes >= CHUNK_BYTES {
                return Some(Part::Removals(last));
            }
            last = Bound::Excluded(removal.id);
            let removal = super::removal(removal);
            bytes += removal.encoded_len();
            chunk.removals.push(removal);
        }
        None
    }
}

impl Shelved for Chunks {
    fn bytes(&self) -> usize {
        self.made.lock().bytes
    }
}
