//! One service as readers see it: an immutable value that is replaced, never changed.

use std::sync::{Arc, OnceLock};

use super::{
    Emptiness, Incarnation, Instance, InstanceId, Liveness, RemovalReason, Revision, Roster, ServiceKey, SoftState,
    Standing, standing,
};

/// Tells "known with no instances" from "unknown", and who emptied it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Presence {
    /// Nobody has registered under this name, or it was deleted.
    Unknown,
    /// It has instances.
    Populated,
    /// It has none, for the reason recorded.
    Empty(Emptiness),
}

/// An instance that is gone, as readers see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Removal {
    /// Its id.
    pub id: InstanceId,
    /// The incarnation that is gone; a higher one is not.
    pub incarnation: Incarnation,
    /// Why.
    pub reason: RemovalReason,
    /// Revision of the removal.
    pub revision: Revision,
}

/// What one commit changed in one service, and the service after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceChange {
    /// The service.
    pub service: ServiceKey,
    /// Revision of the commit.
    pub revision: Revision,
    /// New and changed instances, in the order of their ids.
    pub upserts: Vec<Arc<Instance>>,
    /// Instances that changed in nothing but their owner, in the order of their ids.
    pub owned: Vec<Arc<Instance>>,
    /// Whether nothing changed that readers see.
    pub silent: bool,
    /// Instances that are gone, in the order of their ids.
    pub gone: Vec<Removal>,
    /// Presence after.
    pub presence: Presence,
    /// Every removal after this revision still holds after, unless its id is back.
    pub floor: Revision,
    /// All instances after.
    pub instances: Roster<Arc<Instance>>,
    /// All removals that still hold after.
    pub removals: Roster<Removal>,
}

/// How a reader that holds a revision of a service gets to the current one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// There is nothing that it has not seen.
    Current,
    /// By what changed since: the instances and the removals of a later revision. Together they are all of it.
    Delta,
    /// By the whole state: a removal that it may not have seen was forgotten meanwhile.
    Snapshot,
}

/// The state of one service.
///
/// `revision` is the position that a snapshot of it carries. It is the store's revision at the service's last change, or
/// at the moment since which this registry knows the service to be as it is; so it is never below anything a reader was
/// told about this service before.
///
/// There is no list of past changes: every instance and every removal knows when it changed, so what a reader has missed
/// since any revision is found in the state itself, down to the `floor`.
#[derive(Clone, Debug)]
pub struct ServiceView {
    key: ServiceKey,
    revision: Revision,
    floor: Revision,
    presence: Presence,
    instances: Roster<Arc<Instance>>,
    removals: Roster<Removal>,
    soft: Arc<SoftState>,
    /// Worked out when it is asked for first.
    best: OnceLock<Standing>,
}

impl ServiceView {
    /// A service nobody knows, as of this revision. Who held anything earlier of it is told all of the nothing there is.
    #[must_use]
    pub fn unknown(key: ServiceKey, revision: Revision) -> Self {
        Self::of(key, revision, revision, Presence::Unknown, Roster::default(), Roster::default())
    }

    /// A service as it is at this revision, with every removal after `floor` whose id is not back.
    #[must_use]
    pub fn of(
        key: ServiceKey,
        revision: Revision,
        floor: Revision,
        presence: Presence,
        instances: Roster<Arc<Instance>>,
        removals: Roster<Removal>,
    ) -> Self {
        let (soft, best) = (Arc::default(), OnceLock::new());
        Self { key, revision, floor, presence, instances, removals, soft, best }
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// The revision that a snapshot of it carries.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether it is known, and who emptied it.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// Its instances, by id.
    #[must_use]
    pub fn instances(&self) -> &Roster<Arc<Instance>> {
        &self.instances
    }

    /// Removals that still hold, by id. An id stands either here or among the instances, never in both.
    #[must_use]
    pub fn removals(&self) -> &Roster<Removal> {
        &self.removals
    }

    /// What is not stored about it. Two views with the same pointer here have the same soft state.
    #[must_use]
    pub fn soft(&self) -> &Arc<SoftState> {
        &self.soft
    }

    /// What the heartbeats of this instance say.
    #[must_use]
    pub fn liveness(&self, instance: &Instance) -> Liveness {
        self.soft.liveness(instance)
    }

    /// Whether callers should pick this instance: it has the best standing of the service, and that is one to be picked.
    #[must_use]
    pub fn pickable(&self, instance: &Instance) -> bool {
        let best = *self.best.get_or_init(|| self.best_standing());
        best > Standing::Never && self.standing(instance) == best
    }

    /// How callers should treat this instance.
    #[must_use]
    pub fn standing(&self, instance: &Instance) -> Standing {
        standing(self.liveness(instance), instance.serving(), instance.admin())
    }

    /// How a reader that holds this service at `after` gets to here.
    #[must_use]
    pub fn since(&self, after: Revision) -> Resume {
        match after {
            after if after >= self.revision => Resume::Current,
            after if after >= self.floor => Resume::Delta,
            _ => Resume::Snapshot,
        }
    }

    /// The service after one commit. A change that no reader could see (something beyond its time was forgotten) leaves
    /// the revision as it is.
    #[must_use]
    pub(crate) fn advanced(&self, change: ServiceChange) -> Self {
        let ServiceChange { revision, upserts, gone, presence, floor, instances, removals, .. } = change;
        let seen = !(upserts.is_empty() && gone.is_empty() && presence == self.presence);
        Self {
            key: self.key.clone(),
            revision: if seen { revision } else { self.revision },
            floor: self.floor.max(floor),
            presence,
            instances,
            removals,
            soft: self.soft.clone(),
            best: OnceLock::new(),
        }
    }

    /// The service as a state that was loaded anew shows it. What went without leaving a removal is told by snapshot.
    /// Both are of one life of one store; between two lives see [`Self::replaced`].
    #[must_use]
    pub(crate) fn reloaded(&self, loaded: Self, position: Revision) -> Self {
        let told = |id: &InstanceId| loaded.instances.contains_key(id) || loaded.removals.contains_key(id);
        let lost = self.instances.keys().any(|id| !told(&id));
        let floor = self.floor.max(if lost { position } else { loaded.floor });
        let revision = if lost { position } else { loaded.revision };
        Self { revision: revision.max(self.revision), floor, soft: self.soft.clone(), ..loaded }
    }

    /// The service as another store, or another life of the same, has it. The revisions of the two count different things.
    #[must_use]
    pub(crate) fn replaced(&self, loaded: Self) -> Self {
        loaded.with_soft(self.soft.clone())
    }

    /// The service with another soft state.
    #[must_use]
    pub(crate) fn with_soft(&self, soft: Arc<SoftState>) -> Self {
        Self { soft, best: OnceLock::new(), ..self.clone() }
    }

    fn best_standing(&self) -> Standing {
        self.instances.values().map(|instance| self.standing(instance)).max().unwrap_or(Standing::Never)
    }
}

#[cfg(test)]
mod tests;
