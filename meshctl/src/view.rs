//! What a Watch has told about one service so far. PURE: answers in, changes out.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::registry::v1::watch_response::Event;
use mesh_api::registry::v1::{
    AdminState, Delta, Instance, Liveness, Position, Removal, RemovalHold, RemovalReason, ServiceError,
    ServicePresence, ServingStatus, SnapshotChunk, SoftState, WatchResponse,
};
use thiserror::Error;
use tonic::Code;

/// One service, as far as a watcher knows.
#[derive(Debug, Clone, Default)]
pub struct ServiceView {
    instances: BTreeMap<String, Instance>,
    liveness: BTreeMap<String, Liveness>,
    hold: Option<RemovalHold>,
    presence: ServicePresence,
    complete: bool,
    position: Option<Position>,
    /// Instances that only a former store has named: a registry that knows everything settles what became of them.
    unconfirmed: BTreeSet<String>,
    /// Chunks of a snapshot whose last one has not come.
    unfinished: Vec<SnapshotChunk>,
    /// How many streams have been opened for it.
    streams: u64,
}

/// One difference that an answer made.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An instance is new.
    Joined(Instance),
    /// What it says of itself changed, or what an operator wants of it, or where it is.
    Changed(Instance),
    /// An instance is gone.
    Left {
        /// As it was last known.
        instance: Instance,
        /// Why; unset where a snapshot simply no longer has it.
        reason: RemovalReason,
    },
    /// Its heartbeats came back, or are late.
    Liveness {
        /// Which instance.
        instance: Instance,
        /// What its heartbeats say now.
        now: Liveness,
    },
    /// Removals by silence are held back from here on, or no longer.
    Hold(Option<RemovalHold>),
    /// The service became known, was emptied, or has instances again.
    Presence(ServicePresence),
}

/// Why a view cannot go on from an answer: the watcher subscribes anew.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ViewError {
    /// A delta builds on something that this view has not seen.
    #[error("a change builds on revision {base}, but {held} is the last one seen")]
    Gap {
        /// Revision that the delta builds on.
        base: u64,
        /// Revision that is held.
        held: u64,
    },
    /// The registry refuses the subscription.
    #[error("the registry refuses to follow it: {reason}: {message}")]
    Refused {
        /// Whether it is worth asking again.
        outlook: Outlook,
        /// In capitals, as in `google.rpc.ErrorInfo`.
        reason: String,
        /// In words.
        message: String,
    },
}

/// What a refusal says of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// The registry cannot now: it is ending, or behind.
    Passing,
    /// The same subscription would be refused again.
    Lasting,
}

impl Outlook {
    /// UNAVAILABLE is how a registry says "not now", here as in any status.
    fn of(error: &ServiceError) -> Outlook {
        match Code::from_i32(error.code) {
            Code::Unavailable => Outlook::Passing,
            _ => Outlook::Lasting,
        }
    }
}

impl ServiceView {
    /// The instances by id.
    pub fn instances(&self) -> &BTreeMap<String, Instance> {
        &self.instances
    }

    /// Whether an instance with this id is listed.
    pub fn lists(&self, instance_id: &str) -> bool {
        self.instances.contains_key(instance_id)
    }

    /// What the heartbeats of an instance say; all that soft state does not mention are alive.
    pub fn liveness(&self, instance_id: &str) -> Liveness {
        self.liveness.get(instance_id).copied().unwrap_or(Liveness::Alive)
    }

    /// What operators want of an instance; unset for one that is not listed.
    pub fn admin_state(&self, instance_id: &str) -> AdminState {
        self.instances.get(instance_id).map_or(AdminState::Unspecified, Instance::admin_state)
    }

    /// What an instance says of itself; unset for one that is not listed.
    pub fn serving_status(&self, instance_id: &str) -> ServingStatus {
        self.instances.get(instance_id).map_or(ServingStatus::Unspecified, Instance::serving_status)
    }

    /// Whether removals by silence are held back.
    pub fn hold(&self) -> Option<&RemovalHold> {
        self.hold.as_ref()
    }

    /// Whether the service is known, and who emptied it.
    pub fn presence(&self) -> ServicePresence {
        self.presence
    }

    /// Whether the registry's state was complete at the last answer.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// The store that the last answer came from; a memory registry has another one after a restart.
    pub fn store_id(&self) -> &str {
        self.position.as_ref().map_or("", |position| &position.store_id)
    }

    /// How many streams this was told by, one after the other: a higher number is news from after a break.
    pub fn streams(&self) -> u64 {
        self.streams
    }

    /// A new stream begins: half a snapshot of the old one is worth nothing.
    pub fn stream_opened(&mut self) {
        self.streams += 1;
        self.unfinished.clear();
    }

    /// Takes one answer in, and says what it changed.
    pub fn apply(&mut self, answer: &WatchResponse) -> Result<Vec<Change>, ViewError> {
        let mut changes = Vec::new();
        match &answer.event {
            Some(Event::Snapshot(chunk)) => self.take_chunk(chunk, answer, &mut changes),
            Some(Event::Delta(delta)) => self.take_delta(delta, answer, &mut changes)?,
            Some(Event::SoftState(soft)) => self.take_soft_state(soft, &mut changes),
            Some(Event::Error(error)) => {
                return Err(ViewError::Refused {
                    outlook: Outlook::of(error),
                    reason: error.reason.clone(),
                    message: error.message.clone(),
                });
            }
            Some(Event::Bookmark(_)) | None => {}
        }
        self.complete = answer.complete;
        if self.complete {
            for id in std::mem::take(&mut self.unconfirmed) {
                self.forget(&id, RemovalReason::Unspecified, &mut changes);
            }
        }
        Ok(changes)
    }

    fn take_chunk(&mut self, chunk: &SnapshotChunk, answer: &WatchResponse, changes: &mut Vec<Change>) {
        if chunk.index == 0 {
            self.unfinished.clear();
        }
        self.unfinished.push(chunk.clone());
        if !chunk.last {
            return;
        }
        let chunks = std::mem::take(&mut self.unfinished);
        if self.is_older(answer.position.as_ref()) {
            return;
        }
        let removals: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.removals).cloned().collect();
        let listed: BTreeMap<_, _> = chunks
            .into_iter()
            .flat_map(|chunk| chunk.instances)
            .map(|instance| (instance.instance_id.clone(), instance))
            .collect();
        removals.iter().for_each(|removal| self.remove(removal, changes));
        // A registry that does not know everything yet names what is gone; what it leaves out it may only not know.
        let same_store = self.is_of_store(answer.position.as_ref());
        if answer.complete || !same_store {
            self.unconfirmed = self.instances.keys().filter(|id| !listed.contains_key(*id)).cloned().collect();
        }
        listed.into_values().for_each(|instance| self.upsert(instance, changes));
        self.finish(answer, chunk.presence(), changes);
    }

    fn take_delta(
        &mut self,
        delta: &Delta,
        answer: &WatchResponse,
        changes: &mut Vec<Change>,
    ) -> Result<(), ViewError> {
        if self.is_older(answer.position.as_ref()) {
            return Ok(());
        }
        let held = self.position.as_ref().map_or(0, |position| position.revision);
        if !self.is_of_store(answer.position.as_ref()) || delta.base_revision > held {
            return Err(ViewError::Gap { base: delta.base_revision, held });
        }
        delta.removals.iter().for_each(|removal| self.remove(removal, changes));
        delta.upserts.iter().cloned().for_each(|instance| self.upsert(instance, changes));
        self.finish(answer, delta.presence(), changes);
        Ok(())
    }

    fn take_soft_state(&mut self, soft: &SoftState, changes: &mut Vec<Change>) {
        let before = std::mem::take(&mut self.liveness);
        self.liveness = soft
            .instances
            .iter()
            .filter(|instance| !matches!(instance.liveness(), Liveness::Alive | Liveness::Unspecified))
            .map(|instance| (instance.instance_id.clone(), instance.liveness()))
            .collect();
        for (id, instance) in &self.instances {
            let now = self.liveness(id);
            if before.get(id).copied().unwrap_or(Liveness::Alive) != now {
                changes.push(Change::Liveness { instance: instance.clone(), now });
            }
        }
        let reason = |hold: &Option<RemovalHold>| hold.as_ref().map(|hold| hold.reason);
        if reason(&self.hold) != reason(&soft.removal_hold) {
            changes.push(Change::Hold(soft.removal_hold));
        }
        self.hold = soft.removal_hold;
    }

    fn finish(&mut self, answer: &WatchResponse, presence: ServicePresence, changes: &mut Vec<Change>) {
        self.position.clone_from(&answer.position);
        if self.presence != presence {
            self.presence = presence;
            changes.push(Change::Presence(presence));
        }
    }

    fn is_of_store(&self, position: Option<&Position>) -> bool {
        position.is_some_and(|position| position.store_id == self.store_id())
    }

    /// Under one store id a lower position is never news; positions of two stores are not compared.
    fn is_older(&self, position: Option<&Position>) -> bool {
        match (&self.position, position) {
            (Some(held), Some(offered)) if held.store_id == offered.store_id => {
                (offered.generation, offered.revision) < (held.generation, held.revision)
            }
            _ => false,
        }
    }

    fn upsert(&mut self, instance: Instance, changes: &mut Vec<Change>) {
        self.unconfirmed.remove(&instance.instance_id);
        match self.instances.insert(instance.instance_id.clone(), instance.clone()) {
            None => changes.push(Change::Joined(instance)),
            Some(before) if tells_the_same(&before, &instance) => {}
            Some(_) => changes.push(Change::Changed(instance)),
        }
    }

    fn remove(&mut self, removal: &Removal, changes: &mut Vec<Change>) {
        let id = &removal.instance_id;
        if self.instances.get(id).is_some_and(|held| held.incarnation <= removal.incarnation) {
            self.forget(id, removal.reason(), changes);
        }
    }

    fn forget(&mut self, id: &str, reason: RemovalReason, changes: &mut Vec<Change>) {
        self.liveness.remove(id);
        self.unconfirmed.remove(id);
        if let Some(instance) = self.instances.remove(id) {
            changes.push(Change::Left { instance, reason });
        }
    }
}

/// Whether nothing differs that an observer would be told of; revisions and incarnations differ after any restart.
fn tells_the_same(before: &Instance, after: &Instance) -> bool {
    let bare = |instance: &Instance| Instance { revision: 0, incarnation: 0, ..instance.clone() };
    bare(before) == bare(after)
}

#[cfg(test)]
mod tests;
