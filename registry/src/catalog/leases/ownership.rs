//! Leases of a store that several nodes share. There is one for every live instance on every node; the node that the record
//! names keeps the deadline, and the others know of it what that node tells.

use std::collections::BTreeMap;
use std::time::Duration;

use super::held::{Carrier, Exit, Phase};
use super::slab::Slot;
use super::{Leases, census};
use crate::catalog::{
    InstanceHealth, InstanceId, Liveness, NodeId, Registration, RemovalReason, ServiceKey, Timestamp,
};

impl Leases {
    /// No leases, of which this node is going to keep its own. `last_instance_hold` is how long silence alone does not
    /// remove the last instance of a service.
    #[must_use]
    pub fn of_node(node: Option<NodeId>, last_instance_hold: Duration) -> Self {
        Self { node, ..Self::new(last_instance_hold) }
    }

    /// Takes in what another node says of the leases that it keeps in a service: this of these, and ALIVE of all others.
    pub fn told(
        &mut self,
        by: NodeId,
        service: &ServiceKey,
        healths: &BTreeMap<InstanceId, InstanceHealth>,
        now: Timestamp,
    ) {
        let heard = self.heard.entry(by).or_default();
        if healths.is_empty() {
            heard.remove(service);
        } else {
            heard.insert(service.clone(), healths.clone());
        }
        let Some(attendance) = self.services.get(service) else { return };
        let (mut changed, mut silenced) = (false, false);
        for (id, slot) in &attendance.members {
            let Some(lease) = self.slots.get_mut(*slot) else { continue };
            let Phase::Elsewhere(was) = lease.phase else { continue };
            if lease.instance.owner() != Some(by) {
                continue;
            }
            let health = healths.get(id).filter(|health| health.incarnation == lease.incarnation);
            let (liveness, load) = health.map_or((Liveness::Alive, None), |health| (health.liveness, health.load));
            if liveness == was && load == lease.load.as_deref().copied() {
                continue;
            }
            lease.phase = Phase::Elsewhere(liveness);
            lease.load = load.map(|load| Box::new(load.sane()));
            silenced |= (liveness == Liveness::Stale) != (was == Liveness::Stale);
            changed = true;
        }
        if silenced && !attendance.silent.is_empty() {
            // The share that is silent is another one.
            self.service_reviews.file_by(service.clone(), now);
        }
        if changed {
            self.changed.insert(service.clone());
        }
    }

    /// A node says nothing any more: what it said last may have changed, so it counts no longer.
    pub fn untold(&mut self, by: NodeId, now: Timestamp) {
        let services: Vec<ServiceKey> = self.services.keys().cloned().collect();
        for service in services {
            self.told(by, &service, &BTreeMap::new(), now);
        }
        self.heard.remove(&by);
    }

    /// A lease is another keeper's now: what that one says of it counts, and it may have said so before the store told that
    /// it keeps it.
    pub(super) fn retell(&mut self, slot: Slot, now: Timestamp) {
        let Some(lease) = self.slots.get_mut(slot).filter(|lease| lease.is_elsewhere()) else { return };
        let heard = lease.instance.owner().and_then(|owner| self.heard.get(&owner)?.get(lease.service()));
        let health = heard.and_then(|healths| healths.get(&lease.instance_id()));
        let health = health.filter(|health| health.incarnation == lease.incarnation);
        let said = lease.health();
        lease.phase = Phase::Elsewhere(health.map_or(Liveness::Alive, |health| health.liveness));
        lease.load = health.and_then(|health| health.load).map(|load| Box::new(load.sane()));
        if said == lease.health() {
            return;
        }
        let service = lease.service().clone();
        if self.services.get(&service).is_some_and(|attendance| !attendance.silent.is_empty()) {
            self.service_reviews.file_by(service.clone(), now);
        }
        self.changed.insert(service);
    }

    /// What there is to say of the leases kept here in a service.
    #[must_use]
    pub fn kept_health(&self, service: &ServiceKey) -> BTreeMap<InstanceId, InstanceHealth> {
        let members = self.services.get(service).into_iter().flat_map(|attendance| &attendance.members);
        let kept = members.filter_map(|(id, slot)| Some((*id, self.slots.get(*slot)?)));
        let kept = kept.filter(|(_, lease)| !lease.is_elsewhere());
        kept.filter_map(|(id, lease)| Some((id, lease.health()?))).collect()
    }

    /// Whether the deadline of an instance is kept here.
    pub(super) fn keeps(&self, registration: &Registration) -> bool {
        self.node.is_none() || registration.owner == self.node
    }

    /// A lease is kept here from now on. When it was last renewed nobody here knows, so it gets a full TTL.
    pub(super) fn take_over(&mut self, slot: Slot, now: Timestamp) {
        let Some(lease) = self.slots.get_mut(slot) else { return };
        let told = std::mem::replace(&mut lease.phase, Phase::Alive);
        lease.renewed = now;
        let (service, review) = (lease.service().clone(), lease.review());
        if let Some(at) = review {
            self.reviews.file_by(slot, at);
        }
        if let Some(attendance) = self.services.get_mut(&service) {
            attendance.kept += 1;
            if !attendance.silent.is_empty() {
                self.service_reviews.file_by(service.clone(), now);
            }
        }
        if told != Phase::Elsewhere(Liveness::Alive) {
            self.changed.insert(service);
        }
    }

    /// A lease is kept elsewhere from now on.
    pub(super) fn hand_over(&mut self, slot: Slot, now: Timestamp) {
        let Some(lease) = self.slots.get_mut(slot) else { return };
        let said = lease.health().is_some();
        let was = std::mem::replace(&mut lease.phase, Phase::Elsewhere(Liveness::Alive));
        let carrier = std::mem::replace(&mut lease.carrier, Carrier::Calls);
        lease.load = None;
        let (service, silent) = (lease.service().clone(), (lease.renewed, lease.instance_id()));
        self.reviews.unfile(slot);
        self.detach(slot, carrier);
        if let Some(attendance) = self.services.get_mut(&service) {
            attendance.kept -= 1;
            attendance.silent.remove(&silent);
            if let Phase::Leaving(Exit::Metered(window)) = was {
                attendance.expiry.returned(window);
            }
            if attendance.hold.is_some() || !attendance.silent.is_empty() {
                self.service_reviews.file_by(service.clone(), now);
            }
        }
        if said {
            self.changed.insert(service);
        }
        self.retell(slot, now);
    }

    /// Counts a removal by silence that another node made against what may go in this window.
    pub(super) fn expired_elsewhere(&mut self, slot: Slot, reason: RemovalReason, now: Timestamp) {
        let Some(lease) = self.slots.get(slot).filter(|lease| lease.is_elsewhere() && !lease.draining) else { return };
        if reason != RemovalReason::Expired {
            return;
        }
        let service = lease.service().clone();
        let Some(attendance) = self.services.get(&service) else { return };
        let mut expiry = attendance.expiry;
        expiry.went_elsewhere(|| census(attendance, &self.slots), now);
        if let Some(attendance) = self.services.get_mut(&service) {
            attendance.expiry = expiry;
        }
    }
}
