//! What heartbeats say of an instance, and what follows from it for callers.

use std::collections::BTreeMap;

use super::{AdminState, Incarnation, Instance, InstanceId, ServingStatus, Timestamp};

/// What the registry concludes from heartbeats. Never stored, without a revision. An instance that is EXPIRED is not
/// here any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Liveness {
    /// Renewed in time.
    #[default]
    Alive,
    /// Its heartbeat stream broke, or a beat is late by half an interval.
    Suspect,
    /// Its deadline passed but its removal is held back.
    Stale,
}

/// How busy an instance is, averaged since its last report. Not a number, negative and infinite values become 0.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct LoadReport {
    /// Processor time over available time; 1.0 is one full share.
    pub cpu_utilization: f64,
    /// Calls finished per second.
    pub requests_per_second: f64,
    /// Calls finished with an error of the server's making, per second.
    pub errors_per_second: f64,
    /// Calls in flight now.
    pub requests_in_flight: u32,
}

impl LoadReport {
    /// The report with every figure that is none set to 0, so that no reader has to expect one.
    #[must_use]
    pub fn sane(self) -> Self {
        let figure = |value: f64| if value.is_finite() && value > 0.0 { value } else { 0.0 };
        Self {
            cpu_utilization: figure(self.cpu_utilization),
            requests_per_second: figure(self.requests_per_second),
            errors_per_second: figure(self.errors_per_second),
            requests_in_flight: self.requests_in_flight,
        }
    }
}

/// The soft state of one instance.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct InstanceHealth {
    /// The incarnation meant.
    pub incarnation: Incarnation,
    /// What its heartbeats say.
    pub liveness: Liveness,
    /// Its last load report, where it sent one.
    pub load: Option<LoadReport>,
}

/// The whole soft state of a service; a new one replaces the last.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SoftState {
    /// Instances that are not ALIVE or have reported load; all others are ALIVE.
    pub instances: BTreeMap<InstanceId, InstanceHealth>,
    /// Set while removals by silence are held back.
    pub hold: Option<RemovalHold>,
}

impl SoftState {
    /// What the heartbeats of this incarnation say.
    #[must_use]
    pub fn liveness(&self, instance: &Instance) -> Liveness {
        let health = self.instances.get(&instance.id());
        health.filter(|health| health.incarnation == instance.incarnation()).map_or(Liveness::Alive, |h| h.liveness)
    }
}

/// Says that removals by silence are held back in a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemovalHold {
    /// The rule that holds.
    pub reason: RemovalHoldReason,
    /// When it ends at the latest; with [`RemovalHoldReason::Rate`] more may go then, not all.
    pub until: Timestamp,
    /// How many instances are kept as STALE.
    pub held: usize,
}

/// The rule that holds removals back (DESIGN §4, mass expiry).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RemovalHoldReason {
    /// (a) This window's share of removals is used up.
    Rate,
    /// (b) It is the last instance of the service.
    LastInstance,
    /// (c) More than half of the service fell silent together.
    MajoritySilent,
}

/// How a caller should treat an instance. Ordered: callers take from the highest that anybody has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// Not to be picked: it or an operator says so.
    Never,
    /// To be picked if nothing better is there: nobody knows whether it lives.
    Reserve,
    /// To be picked.
    First,
}

/// The one place where liveness, serving status and admin state become one answer.
#[must_use]
pub fn standing(liveness: Liveness, serving: ServingStatus, admin: AdminState) -> Standing {
    match (serving, admin, liveness) {
        (ServingStatus::NotServing | ServingStatus::Draining, _, _) => Standing::Never,
        (_, AdminState::Draining | AdminState::Disabled, _) => Standing::Never,
        (ServingStatus::Serving, AdminState::Enabled, Liveness::Alive) => Standing::First,
        (ServingStatus::Serving, AdminState::Enabled, Liveness::Suspect | Liveness::Stale) => Standing::Reserve,
    }
}
