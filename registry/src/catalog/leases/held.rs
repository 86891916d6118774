//! One lease: what is known of a live instance between its beats.

use std::sync::Arc;
use std::time::Duration;

use super::mass_expiry::WindowEnd;
use super::{Keeper, Renewal};
use crate::catalog::{
    AdminState, IdentityKey, Incarnation, Instance, InstanceHealth, InstanceId, LeaseId, Liveness, LoadReport,
    ServiceKey, ServingStatus, StreamId, Timestamp, Ttl,
};

/// How long after its stream broke an instance is still believed without a beat: a reconnect takes less.
pub(super) const BROKEN_STREAM_GRACE: Duration = Duration::from_millis(100);

/// Where a lease stands. DESIGN's EXPIRED is not among them: it is the absence of the lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Alive,
    Suspect,
    /// Its deadline passed; it goes when the service's mass expiry rules let it.
    Silent,
    /// Its removal is on its way to the store. A beat comes too late: whoever is told "renewed" must not be removed.
    Leaving(Exit),
    /// Another node keeps its deadline and says this of it. Nothing follows from the time here.
    Elsewhere(Liveness),
}

/// What a lease on its way out was counted as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// It was draining: nobody counts those.
    Free,
    /// It used a share of the window that ends then.
    Metered(WindowEnd),
}

/// The lease of one live instance. What a renewal answers stands here, so that it reads nothing else.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    pub(super) incarnation: Incarnation,
    pub(super) renewed: Timestamp,
    pub(super) ttl: Ttl,
    pub(super) phase: Phase,
    pub(super) carrier: Carrier,
    /// Whose it is, as the state has it.
    pub(super) instance: Arc<Instance>,
    pub(super) load: Option<Box<LoadReport>>,
    pub(super) serving: ServingStatus,
    pub(super) admin: AdminState,
    pub(super) draining: bool,
}

/// How a lease is renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carrier {
    /// By calls of their own, or not yet.
    Calls,
    /// On this stream.
    Stream(StreamId),
    /// By a stream that broke then; nothing came since.
    Broke(Timestamp),
}

impl Lease {
    /// A full lease for an instance that has just registered; its deadline is kept here or on another node.
    pub(super) fn granted(instance: &Arc<Instance>, kept: bool, now: Timestamp) -> Self {
        let registration = &instance.registration;
        Self {
            id: registration.lease,
            incarnation: registration.incarnation,
            renewed: now,
            ttl: registration.ttl,
            phase: if kept { Phase::Alive } else { Phase::Elsewhere(Liveness::Alive) },
            carrier: Carrier::Calls,
            instance: Arc::clone(instance),
            load: None,
            serving: registration.serving,
            admin: instance.admin,
            draining: instance.is_draining(),
        }
    }

    /// Takes over what the state says of the instance now.
    pub(super) fn sync(&mut self, instance: &Arc<Instance>) {
        self.ttl = instance.registration.ttl;
        self.serving = instance.registration.serving;
        self.admin = instance.admin;
        self.draining = instance.is_draining();
        self.instance = Arc::clone(instance);
    }

    pub(super) fn identity(&self) -> &IdentityKey {
        &self.instance.key
    }

    pub(super) fn instance_id(&self) -> InstanceId {
        self.instance.key.id
    }

    pub(super) fn service(&self) -> &ServiceKey {
        &self.instance.registration.service
    }

    /// What a renewal is answered with.
    pub(super) fn renewal(&self) -> Renewal<'_> {
        let keeper = if self.is_elsewhere() { Keeper::Elsewhere(self.instance.owner()) } else { Keeper::Here };
        Renewal { identity: self.identity(), serving: self.serving, admin: self.admin, ttl: self.ttl, keeper }
    }

    /// Its soft state, if there is anything to say.
    pub(super) fn health(&self) -> Option<InstanceHealth> {
        let (incarnation, liveness, load) = (self.incarnation, self.liveness(), self.load.as_deref().copied());
        (liveness != Liveness::Alive || load.is_some()).then_some(InstanceHealth { incarnation, liveness, load })
    }

    pub(super) fn deadline(&self) -> Timestamp {
        self.renewed.after(self.ttl.get())
    }

    /// When something has to be concluded if nothing comes; `None` where a service's rules decide.
    pub(super) fn review(&self) -> Option<Timestamp> {
        let late = self.renewed.after(self.ttl.late_after());
        match (self.phase, self.carrier) {
            (Phase::Alive, Carrier::Broke(at)) => Some(late.min(at.after(BROKEN_STREAM_GRACE))),
            (Phase::Alive, Carrier::Calls | Carrier::Stream(_)) => Some(late),
            (Phase::Suspect, _) => Some(self.deadline()),
            (Phase::Silent | Phase::Leaving(_) | Phase::Elsewhere(_), _) => None,
        }
    }

    pub(super) fn liveness(&self) -> Liveness {
        match self.phase {
            Phase::Alive => Liveness::Alive,
            Phase::Suspect => Liveness::Suspect,
            Phase::Silent | Phase::Leaving(_) => Liveness::Stale,
            Phase::Elsewhere(told) => told,
        }
    }

    /// Whether another node keeps its deadline.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self.phase, Phase::Elsewhere(_))
    }

    /// Whether it is past its deadline, by this node's knowledge or its keeper's.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.phase, Phase::Silent | Phase::Elsewhere(Liveness::Stale))
    }

    /// Whether it counts in the size of its service when removals by silence are metered.
    pub(super) fn counts(&self) -> bool {
        !self.draining && !matches!(self.phase, Phase::Leaving(_))
    }
}
