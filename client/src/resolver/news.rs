//! What a Watch stream says, as values that are already valid.
//!
//! The wire ends in [`super::decode`]; from here on nothing knows of protobuf. An entry that could not be understood is
//! kept as [`Entry::Bad`], so that it costs itself and not the update that it came in.

use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::{DescriptorDigest, MethodLevels};
use crate::load::LoadReport;
use crate::serving::ServingStatus;

/// One message of the stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct News {
    /// Where the registry stands once this is applied.
    pub position: Position,
    /// Whether the registry knows everything.
    pub completeness: Completeness,
    /// What it says.
    pub event: Event,
}

/// A point in the history of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Which history.
    pub epoch: Epoch,
    /// How far in it.
    pub revision: u64,
}

impl Position {
    /// Whether both are of one store and `self` lies before `other`.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.epoch.store == other.epoch.store
            && (self.epoch.generation, self.revision) < (other.epoch.generation, other.revision)
    }
}

/// One uninterrupted history of a store: revisions and incarnations compare within it and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    /// Identity of the store, opaque.
    pub store: Arc<str>,
    /// Rises when the store is restored from a backup.
    pub generation: u64,
}

/// Whether what the registry lists is everything there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// It is.
    Complete,
    /// The registry has just started without its state: what it lists is there, what it does not list may be there too.
    Warming,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// Part of the whole state of a service.
    Snapshot(Arc<str>, Chunk),
    /// A change of a service.
    Delta(Arc<str>, Delta),
    /// The whole soft state of a service.
    Soft(Arc<str>, Vec<SoftEntry>),
    /// The subscription of a service is refused.
    Refused(Arc<str>, Refusal),
    /// Nothing new, and the stream lives.
    Bookmark,
}

/// Why a subscription is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In words.
    pub reason: Arc<str>,
    /// Whether it will pass by itself.
    pub outlook: RefusalOutlook,
}

/// Whether a refusal will pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalOutlook {
    /// The registry is behind, or on its way out.
    Passing,
    /// The name, or how much is asked for, is refused.
    Lasting,
}

/// A part of a snapshot; all parts are applied together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chunk {
    /// 0 for the first.
    pub index: u32,
    /// Whether it completes the snapshot.
    pub last: bool,
    /// What the service as a whole is.
    pub presence: Presence,
    /// Instances.
    pub entries: Vec<Entry>,
    /// Removals that still hold.
    pub removals: Vec<Removal>,
}

/// What changed after `base`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Delta {
    /// Revision that it builds on.
    pub base: u64,
    /// What the service as a whole is after the change.
    pub presence: Presence,
    /// New and changed instances.
    pub entries: Vec<Entry>,
    /// Instances that are gone.
    pub removals: Vec<Removal>,
}

/// One listed instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    /// Understood.
    Good(Instance),
    /// Not understood; the id where at least that could be read.
    Bad(Option<Uuid>),
}

/// A running process as far as a caller needs to know it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instance {
    pub id: Uuid,
    /// Which start of it; at least 1.
    pub incarnation: u64,
    /// Revision of its last change.
    pub revision: u64,
    /// Where it answers gRPC.
    pub address: SocketAddr,
    pub zone: Arc<str>,
    /// At least 1.
    pub weight: u16,
    pub serving: ServingStatus,
    pub admin: Admin,
    pub methods: Arc<MethodLevels>,
    pub descriptors: Option<DescriptorDigest>,
}

/// What operators want of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admin {
    Enabled,
    Draining,
    Disabled,
}

/// What heartbeats say of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Alive,
    Suspect,
    Stale,
}

/// What the record of a service says of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Nobody has registered under the name, or the service was deleted.
    Unknown,
    /// It has instances.
    Populated,
    /// Its last instance left by deregistration or by an operator.
    Emptied,
    /// Its last instance went by silence.
    Lapsed,
}

/// A tombstone: this incarnation is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub id: Uuid,
    pub incarnation: u64,
    pub revision: u64,
    pub cause: Cause,
}

/// Why an instance is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Somebody said so: the instance, its successor or an operator.
    Told,
    /// Its lease ran out.
    Silence,
}

/// Soft state of one instance; who is not listed is alive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SoftEntry {
    pub id: Uuid,
    pub incarnation: u64,
    pub liveness: Liveness,
    pub load: Option<LoadReport>,
}
