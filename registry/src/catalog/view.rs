//! One service as readers see it: an immutable value that is replaced, never changed.

mod history;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Emptiness, Incarnation, Instance, InstanceId, Liveness, RemovalReason, Revision, ServiceKey, SoftState, Standing,
    standing,
};
use history::History;

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

/// What one commit changed in one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delta {
    /// Revision of the service before: that of the view or delta it builds on.
    pub base: Revision,
    /// Revision of the service after.
    pub revision: Revision,
    /// New and changed instances, whole, in the order of their ids.
    pub upserts: Vec<Arc<Instance>>,
    /// Instances that are gone, in the order of their ids.
    pub removals: Vec<Removal>,
    /// Presence of the service after.
    pub presence: Presence,
}

impl Delta {
    /// About how much memory it takes. What it shares with others is counted as its own.
    fn bytes(&self) -> usize {
        let upserts = self.upserts.iter().map(|instance| instance.bytes());
        size_of::<Self>() + upserts.sum::<usize>() + size_of_val(&*self.removals)
    }
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
    /// All instances after.
    pub instances: Arc<BTreeMap<InstanceId, Arc<Instance>>>,
    /// All removals that still hold after.
    pub removals: Arc<BTreeMap<InstanceId, Removal>>,
}

/// How a reader that holds a revision of a service gets to the current one.
#[derive(Clone, Debug)]
pub enum Resume {
    /// There is nothing that it has not seen.
    Current,
    /// By these deltas, oldest first. The first one's base may lie below the revision held, where commits to other
    /// services were between; it never lies above.
    Deltas(Vec<Arc<Delta>>),
    /// By the whole state: the history does not reach back that far.
    Snapshot,
}

/// The state of one service.
///
/// `revision` is the position that a snapshot of it carries. It is the store's revision at the service's last change, or
/// at the moment since which this registry knows the service to be as it is; so it is never below anything a reader was
/// told about this service before.
#[derive(Clone, Debug)]
pub struct ServiceView {
    key: ServiceKey,
    revision: Revision,
    presence: Presence,
    instances: Arc<BTreeMap<InstanceId, Arc<Instance>>>,
    removals: Arc<BTreeMap<InstanceId, Removal>>,
    history: History,
    soft: Arc<SoftState>,
    best: Standing,
}

impl ServiceView {
    /// A service nobody knows, as of this revision.
    #[must_use]
    pub fn unknown(key: ServiceKey, revision: Revision) -> Self {
        Self::of(key, revision, Presence::Unknown, Arc::default(), Arc::default())
    }

    /// A service as it is at this revision; its history begins here.
    #[must_use]
    pub fn of(
        key: ServiceKey,
        revision: Revision,
        presence: Presence,
        instances: Arc<BTreeMap<InstanceId, Arc<Instance>>>,
        removals: Arc<BTreeMap<InstanceId, Removal>>,
    ) -> Self {
        let mut view = Self {
            key,
            revision,
            presence,
            instances,
            removals,
            history: History::since(revision),
            soft: Arc::default(),
            best: Standing::Never,
        };
        view.best = view.best_standing();
        view
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
    pub fn instances(&self) -> &BTreeMap<InstanceId, Arc<Instance>> {
        &self.instances
    }

    /// Removals that still hold, by id. An id stands either here or among the instances, never in both.
    #[must_use]
    pub fn removals(&self) -> &BTreeMap<InstanceId, Removal> {
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
        self.best > Standing::Never && self.standing(instance) == self.best
    }

    /// How callers should treat this instance.
    #[must_use]
    pub fn standing(&self, instance: &Instance) -> Standing {
        standing(self.liveness(instance), instance.serving(), instance.admin())
    }

    /// How a reader that holds this service at `after` gets to here.
    #[must_use]
    pub fn since(&self, after: Revision) -> Resume {
        if after >= self.revision { Resume::Current } else { self.history.since_revision(after) }
    }

    /// The service after one commit. A change that no reader could see (something beyond its time was forgotten) leaves
    /// the revision as it is.
    #[must_use]
    pub(crate) fn advanced(&self, change: ServiceChange) -> Self {
        let ServiceChange { service: _, revision, upserts, owned: _, silent: _, gone, presence, instances, removals } =
            change;
        let mut next = Self { instances, removals, ..self.clone() };
        if !(upserts.is_empty() && gone.is_empty() && presence == self.presence) {
            next.history.push(Delta { base: self.revision, revision, upserts, removals: gone, presence });
            next.revision = revision;
            next.presence = presence;
            next.best = next.best_standing();
        }
        next
    }

    /// The service with another soft state.
    #[must_use]
    pub(crate) fn with_soft(&self, soft: Arc<SoftState>) -> Self {
        let mut next = Self { soft, ..self.clone() };
        next.best = next.best_standing();
        next
    }

    fn best_standing(&self) -> Standing {
        self.instances.values().map(|instance| self.standing(instance)).max().unwrap_or(Standing::Never)
    }
}

#[cfg(test)]
mod tests;
