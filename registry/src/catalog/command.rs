//! What the catalog can be asked to do, and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    AdminState, IdentityKey, Incarnation, InstanceId, InstanceSpec, LeaseId, LoadReport, NodeId, Position, Selector,
    ServiceKey, ServingStatus, StartNonce, StoreId, Ttl,
};

/// A change of what is stored. Renewals are none: they stay in [`Leases`](super::Leases).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Registers an instance, or changes what is registered.
    Register {
        /// What it asks.
        request: Register,
        /// The lease it gets if it needs a new one; drawn by the engine, unguessable.
        fresh: LeaseId,
    },
    /// An instance says that its serving status changed.
    Report(Report),
    /// An instance says goodbye.
    Deregister {
        /// Its lease.
        lease: LeaseId,
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// An operator removes an instance, whoever holds its id.
    Remove {
        /// The service it is looked for in.
        service: ServiceKey,
        /// Its id.
        id: InstanceId,
    },
    /// An instance of another node's beats on a stream here: its deadline is kept here from now on.
    Claim {
        /// Whose lease.
        identity: IdentityKey,
        /// Which one.
        lease: LeaseId,
    },
    /// The deadlines of instances whose owner is gone are kept here from now on, all or none of them: at most
    /// [`Orphan::ADOPTED_MAX`].
    Adopt(Vec<Orphan>),
    /// A lease of this node's ran out and its removal is not held back.
    Expire {
        /// Whose lease.
        identity: IdentityKey,
        /// Which one.
        lease: LeaseId,
    },
    /// An operator sets a rule or takes it back.
    SetRule(RuleSet),
    /// A rule's own end has come.
    EndRule {
        /// The service it belongs to.
        service: ServiceKey,
        /// Its key.
        selector: Selector,
    },
    /// Forgets a service without instances, and its rules.
    DeleteService {
        /// The service.
        service: ServiceKey,
    },
    /// Forgets what is remembered of some ids beyond its time.
    Forget {
        /// The ids, each once and [`Command::FORGET_MAX`] at most: all of them are one proposal.
        identities: Vec<IdentityKey>,
    },
}

/// An instance without an owner that is there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Orphan {
    /// Whose lease.
    pub identity: IdentityKey,
    /// Which one.
    pub lease: LeaseId,
    /// The node that is gone; `None` for a record of a time when there was one node only.
    pub of: Option<NodeId>,
}

impl Orphan {
    /// Most orphans adopted by one proposal: their keys are compared and written in one transaction, and etcd takes 128
    /// operations in one.
    pub const ADOPTED_MAX: usize = 100;
}

impl Command {
    /// Most ids forgotten together. A transaction of etcd takes 128 operations.
    pub const FORGET_MAX: usize = 100;
}

/// A registration as it is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Register {
    /// The service it belongs to.
    pub service: ServiceKey,
    /// Its id.
    pub id: InstanceId,
    /// What this start drew for itself.
    pub nonce: StartNonce,
    /// The incarnation it holds and the store that issued it; `None` for a start that holds none. One from another store
    /// counts as none.
    pub held: Option<(Incarnation, StoreId)>,
    /// What it says of itself now.
    pub serving: ServingStatus,
    /// Wanted TTL; `None` takes the registry's default.
    pub ttl: Option<Ttl>,
    /// Everything else.
    pub spec: InstanceSpec,
}

/// A lease granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    /// What beats and goodbye name.
    pub lease: LeaseId,
    /// Issued incarnation.
    pub incarnation: Incarnation,
    /// Granted TTL.
    pub ttl: Ttl,
    /// A position that includes the registration.
    pub position: Position,
}

/// One heartbeat.
#[derive(Clone, PartialEq, Debug)]
pub struct Beat {
    /// The lease to renew.
    pub lease: LeaseId,
    /// The incarnation it was granted to.
    pub incarnation: Incarnation,
    /// What the instance says of itself now; `None` is "as before".
    pub serving: Option<ServingStatus>,
    /// Status per gRPC service, only those that changed. Names that were not registered are passed over.
    pub services: BTreeMap<String, ServingStatus>,
    /// How busy it is; `None` is "as before".
    pub load: Option<LoadReport>,
}

/// What became of one heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beaten {
    /// The lease meant.
    pub lease: LeaseId,
    /// What became of it.
    pub outcome: BeatOutcome,
    /// What operators want of the instance; [`AdminState::Enabled`] where the lease is not renewed.
    pub admin: AdminState,
    /// How often to beat from now on; `None` where the lease is not renewed.
    pub interval: Option<Duration>,
}

/// Whether a lease was renewed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BeatOutcome {
    /// It has a full TTL again.
    Renewed,
    /// No such lease, or its instance is on its way out of the catalog: register again at once.
    UnknownLease,
    /// A newer start holds the id: take a new id.
    Fenced,
}

/// A change of what an instance says of itself, found in a heartbeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Who says it.
    pub identity: IdentityKey,
    /// The lease that proves it.
    pub lease: LeaseId,
    /// The instance's status, if it was said.
    pub serving: Option<ServingStatus>,
    /// Status per gRPC service, if any was said.
    pub services: BTreeMap<String, ServingStatus>,
}

/// An admin rule to set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleSet {
    /// The service whose instances are meant.
    pub service: ServiceKey,
    /// Which of them.
    pub selector: Selector,
    /// What is wanted; [`AdminState::Enabled`] takes the rule back.
    pub state: AdminState,
    /// How long it holds, 1 s to 30 days; `None` is for good.
    pub expires_in: Option<Duration>,
}

/// What a decided command answers, once its proposal is committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Of [`Command::Register`].
    Granted {
        /// The lease.
        lease: LeaseId,
        /// The incarnation.
        incarnation: Incarnation,
        /// The TTL.
        ttl: Ttl,
    },
    /// Of [`Command::SetRule`]: how many instances the selector means now.
    Selected(usize),
    /// Of everything else.
    Done,
}
