//! One lease: what is known of a live instance between its beats.

use std::time::Duration;

use super::mass_expiry::WindowEnd;
use crate::catalog::{
    AdminState, IdentityKey, Incarnation, Instance, LeaseId, Liveness, LoadReport, ServiceKey, ServingStatus, StreamId,
    Timestamp, Ttl,
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
}

/// What a lease on its way out was counted as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// It was draining: nobody counts those.
    Free,
    /// It used a share of the window that ends then.
    Metered(WindowEnd),
}

/// The lease of one live instance.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) identity: IdentityKey,
    pub(super) service: ServiceKey,
    pub(super) id: LeaseId,
    pub(super) incarnation: Incarnation,
    pub(super) ttl: Ttl,
    pub(super) serving: ServingStatus,
    pub(super) admin: AdminState,
    pub(super) draining: bool,
    pub(super) renewed: Timestamp,
    pub(super) phase: Phase,
    pub(super) stream: Option<StreamId>,
    /// When its stream broke, if nothing came since.
    pub(super) broke: Option<Timestamp>,
    pub(super) load: Option<LoadReport>,
}

impl Lease {
    pub(super) fn deadline(&self) -> Timestamp {
        self.renewed.after(self.ttl.get())
    }

    /// When something has to be concluded if nothing comes; `None` where a service's rules decide.
    pub(super) fn review(&self) -> Option<Timestamp> {
        let late = self.renewed.after(self.ttl.late_after());
        match self.phase {
            Phase::Alive => Some(self.broke.map_or(late, |broke| late.min(broke.after(BROKEN_STREAM_GRACE)))),
            Phase::Suspect => Some(self.deadline()),
            Phase::Silent | Phase::Leaving(_) => None,
        }
    }

    pub(super) fn liveness(&self) -> Liveness {
        match self.phase {
            Phase::Alive => Liveness::Alive,
            Phase::Suspect => Liveness::Suspect,
            Phase::Silent | Phase::Leaving(_) => Liveness::Stale,
        }
    }

    /// A full lease for an instance that has just registered.
    pub(super) fn granted(instance: &Instance, now: Timestamp) -> Self {
        let registration = &instance.registration;
        Self {
            identity: instance.key.clone(),
            service: registration.service.clone(),
            id: registration.lease,
            incarnation: registration.incarnation,
            ttl: registration.ttl,
            serving: registration.serving,
            admin: instance.admin,
            draining: instance.is_draining(),
            renewed: now,
            phase: Phase::Alive,
            stream: None,
            broke: None,
            load: None,
        }
    }

    /// Whether it counts in the size of its service when removals by silence are metered.
    pub(super) fn counts(&self) -> bool {
        !self.draining && !matches!(self.phase, Phase::Leaving(_))
    }
}
