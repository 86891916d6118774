//! Where a store stands.

use bytes::Bytes;
use mesh_api::store::v1 as pb;
use prost::Message;

use crate::catalog::{Generation, OpId, Position, Revision, StoreId};
use crate::storage::Completeness;

/// Where a store stands; written with every group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::storage) struct Head {
    /// The last change.
    pub(in crate::storage) position: Position,
    /// What was committed together last, in order.
    pub(in crate::storage) last_group: Vec<(OpId, Revision)>,
    /// Whether this is all that there ever was.
    pub(in crate::storage) completeness: Completeness,
}

impl Head {
    /// That of a new store.
    pub(in crate::storage) fn new(store: StoreId) -> Self {
        let position = Position { store, generation: Generation(1), revision: Revision::ZERO };
        Self { position, last_group: Vec::new(), completeness: Completeness::Fresh }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let op = |(op, revision): &(OpId, Revision)| pb::CommittedOp {
            op: Bytes::copy_from_slice(&op.0),
            revision: revision.get(),
        };
        let head = pb::Head {
            store_id: self.position.store.as_str().to_owned(),
            generation: self.position.generation.0,
            revision: self.position.revision.get(),
            last_group: self.last_group.iter().map(op).collect(),
            complete: self.completeness == Completeness::Whole,
        };
        head.encode_to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let head = pb::Head::decode(bytes).ok()?;
        let op = |committed: &pb::CommittedOp| {
            Some((OpId(committed.op[..].try_into().ok()?), Revision::new(committed.revision)))
        };
        Some(Self {
            position: Position {
                store: StoreId::parse(&head.store_id).ok()?,
                generation: Generation(head.generation),
                revision: Revision::new(head.revision),
            },
            last_group: head.last_group.iter().map(op).collect::<Option<_>>()?,
            completeness: if head.complete { Completeness::Whole } else { Completeness::Fresh },
        })
    }

    /// What became of a proposal of the last group.
    pub(super) fn became(&self, op: OpId) -> Option<Revision> {
        self.last_group.iter().find(|(made, _)| *made == op).map(|(_, revision)| *revision)
    }
}
