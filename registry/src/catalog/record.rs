//! What is stored: records under keys, and the proposals and commits that change them.

use std::sync::Arc;

use super::{
    AdminRule, Few, IdentityKey, Incarnation, InstanceSpec, LeaseId, NodeId, Removal, Revision, Selector, ServiceKey,
    ServingStatus, StartNonce, Timestamp, Ttl,
};

/// Where a record is stored.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// A service that is known, with or without instances.
    Service(ServiceKey),
    /// Everything about one instance id. One key, so that one expected revision guards takeover, fencing, removal and
    /// goodbye together.
    Identity(IdentityKey),
    /// What an operator wants of some instances of a service.
    Rule(ServiceKey, Selector),
    /// How far back removals are remembered. One key for the whole store.
    History,
}

/// What is stored under a [`Key`] of the same name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// Under [`Key::Service`].
    Service(ServiceRecord),
    /// Under [`Key::Identity`].
    Identity(Identity),
    /// Under [`Key::Rule`].
    Rule(AdminRule),
    /// Under [`Key::History`].
    History(History),
}

/// How far back the store remembers who is gone: every removal after `floor` still has its tombstone, or its id is live
/// again in the same service. Written together with whatever forgets a tombstone, so that after a restart a reader who
/// held an older revision is given a whole snapshot instead of a delta that lacks a removal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct History {
    /// Revision of the last removal that was forgotten. One above the record's own revision means that revision: who
    /// forgets something that is not committed yet cannot know better.
    pub floor: Revision,
}

/// A known service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServiceRecord {
    /// How it came to be without instances, whenever it has none.
    pub emptiness: Emptiness,
}

/// How a service lost its last instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Emptiness {
    /// By silence, or in a way nobody recorded. Callers do not believe it.
    Lapsed,
    /// By deregistration or by an operator. Callers believe it at once.
    Emptied,
}

/// Everything known about one instance id.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Identity {
    /// The start that holds the id now.
    pub live: Option<Arc<Registration>>,
    /// Removals that still hold, at most one per service and [`Identity::TOMBSTONES_MAX`] in all, oldest first.
    pub tombstones: Few<Tombstone>,
    /// Earlier starts, which stay fenced, oldest first; at most [`Identity::PAST_MAX`].
    pub past: Few<PastStart>,
}

impl Identity {
    /// Most tombstones of one id: it takes five services within ten minutes to lose one.
    pub const TOMBSTONES_MAX: usize = 4;
    /// Most earlier starts remembered; a start older than that is still fenced by the incarnation it holds.
    pub const PAST_MAX: usize = 8;

    /// Whether nothing is known any more, so that the key can go.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.live.is_none() && self.tombstones.is_empty() && self.past.is_empty()
    }

    /// Whether readers of the service that a tombstone is about learn from here what it says: it is kept, or a newer one
    /// of the same service, or the id is live there again.
    pub(super) fn still_tells(&self, stone: &Tombstone) -> bool {
        let live = self.live.iter().any(|live| live.service == stone.service);
        live || self.tombstones.iter().any(|kept| kept.service == stone.service)
    }
}

/// A live instance as it is stored. Holds the secrets that prove whose it is; readers get an
/// [`Instance`](super::Instance) instead.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Registration {
    /// The service it belongs to.
    pub service: ServiceKey,
    /// Which start it is.
    pub incarnation: Incarnation,
    /// What that start drew for itself.
    pub nonce: StartNonce,
    /// What its beats name.
    pub lease: LeaseId,
    /// Which registry process keeps its deadline and may let it expire; `None` on a store that only one process uses. A
    /// change of this alone is no change of the instance: readers are not told.
    pub owner: Option<NodeId>,
    /// TTL granted.
    pub ttl: Ttl,
    /// What it says of itself now.
    pub serving: ServingStatus,
    /// What it told at registration, and the statuses of its gRPC services since.
    pub spec: InstanceSpec,
}

impl Registration {
    /// Whether this is another in nothing but its owner.
    #[must_use]
    pub fn differs_in_owner_alone(&self, from: &Self) -> bool {
        self.owner != from.owner && *self == Self { owner: self.owner, ..from.clone() }
    }

    /// Takes what is equal in another registration of its service from there.
    pub(super) fn share(&mut self, sibling: &Self) {
        self.service.share(&sibling.service);
        self.spec.share(&sibling.spec);
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.spec.bytes()
    }
}

/// A start that lost its id to a newer one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PastStart {
    /// What it drew for itself.
    pub nonce: StartNonce,
    /// What its beats named.
    pub lease: LeaseId,
    /// Which start it was.
    pub incarnation: Incarnation,
    /// When this may be forgotten.
    pub until: Timestamp,
}

/// This incarnation is gone from this service and stays gone; a higher one is not meant.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tombstone {
    /// The service it left.
    pub service: ServiceKey,
    /// What is gone.
    pub incarnation: Incarnation,
    /// Which start it was.
    pub nonce: StartNonce,
    /// What its beats named.
    pub lease: LeaseId,
    /// Why.
    pub reason: RemovalReason,
    /// When this may be forgotten.
    pub until: Timestamp,
}

/// Why an instance is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RemovalReason {
    /// It said goodbye.
    Deregistered,
    /// Its lease ran out.
    Expired,
    /// A newer start took its id over under another service.
    Superseded,
    /// An operator removed it.
    Operator,
}

impl RemovalReason {
    /// What a service is recorded as when its last instance goes this way.
    #[must_use]
    pub fn leaves(self) -> Emptiness {
        match self {
            Self::Deregistered | Self::Operator => Emptiness::Emptied,
            // A start that moved to another service says nothing about who should serve the old one.
            Self::Expired | Self::Superseded => Emptiness::Lapsed,
        }
    }

    /// The reason as logs and metrics spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deregistered => "deregistered",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Operator => "operator",
        }
    }
}

/// Names one attempt to change the store, unguessably enough never to be drawn twice. Handing the same proposal in again
/// under the same op id is no second change: it tells what became of the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub [u8; 16]);

impl std::fmt::Debug for OpId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpId({:02x}{:02x}{:02x}{:02x})", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// What a proposal takes a key's last change to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Expected {
    /// The key does not exist.
    Absent,
    /// It was last changed at this revision.
    At(Revision),
    /// It was last changed by this proposal, which is handed in before this one and has no revision yet.
    By(OpId),
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Write {
    /// The key holds this from now on; key and record are of the same kind.
    Put(Key, Record),
    /// The key is gone.
    Delete(Key),
}

impl Write {
    /// The key that is changed.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

impl Write {
    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        let Self::Put(_, Record::Identity(identity)) = self else { return size_of::<Self>() };
        let live = identity.live.as_ref().map_or(0, |live| live.bytes());
        size_of::<Self>() + live + size_of_val(&*identity.tombstones) + size_of_val(&*identity.past)
    }
}

/// A change that is wanted: all of its writes or none, and only if every key named is as it was when it was decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Which attempt this is.
    pub op: OpId,
    /// What the decision rests on. Covers every key that is written, and others that were only read.
    pub expected: Vec<(Key, Expected)>,
    /// What changes; at most one write a key, never empty.
    pub writes: Vec<Write>,
}

/// A change that the store has made, durably, at a revision of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Higher than that of every commit before.
    pub revision: Revision,
    /// Whose proposal it was.
    pub op: OpId,
    /// What changed.
    pub writes: Vec<Write>,
}

impl Committed {
    /// About how much memory it takes. What it shares with the records themselves is counted as its own.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.writes.iter().map(Write::bytes).sum::<usize>()
    }

    /// Whether a removal that this commit makes is forgotten as soon as it is told, because its service or the whole
    /// catalog has all the tombstones it may have.
    #[must_use]
    pub fn forgets(&self, removal: &Removal, now: Timestamp) -> bool {
        let identities = self.writes.iter().filter_map(|write| match write {
            Write::Put(Key::Identity(key), Record::Identity(identity)) if key.id == removal.id => Some(identity),
            _ => None,
        });
        let mut stones = identities.flat_map(|identity| &identity.tombstones);
        stones.any(|stone| stone.incarnation == removal.incarnation && stone.until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Endpoint, Instance};
    use super::*;

    /// What an instance holds stands in memory as often as there are instances, and a word more is quickly added: DESIGN §8
    /// gives each 1 KiB in all. A figure that falls may fall here too.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_every_instance_holds_is_no_larger_than_it_was() {
        assert!(size_of::<Registration>() <= 168, "{}", size_of::<Registration>());
        assert!(size_of::<Instance>() <= 48, "{}", size_of::<Instance>());
        assert!(size_of::<Endpoint>() <= 32, "{}", size_of::<Endpoint>());
        assert!(size_of::<Identity>() <= 24, "{}", size_of::<Identity>());
        assert!(size_of::<IdentityKey>() <= 24, "{}", size_of::<IdentityKey>());
    }
}
