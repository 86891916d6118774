//! What is not stored: who renewed when, and what to conclude from it (DESIGN §4).
//!
//! A lease is ALIVE until a beat is late by half an interval or its stream broke and nothing came within 100 ms; then
//! SUSPECT; past its deadline it is silent, and then it goes or is held back as STALE. Renewing is O(1): it moves the
//! lease's own time, and the deadline that was filed for it is looked at again when it comes.

mod deadlines;
mod held;
mod links;
mod mass_expiry;
mod ownership;
mod slab;
mod suspicion;
mod wheel;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::drawn::DrawnMap;
use super::{
    AdminState, IdentityKey, Incarnation, Instance, InstanceHealth, InstanceId, LeaseId, LoadReport, NodeId,
    RemovalHold, ServiceChange, ServiceKey, ServingStatus, SoftState, State, StreamId, Timestamp, Ttl,
};
use deadlines::Deadlines;
use held::{Carrier, Exit, Lease, Phase};
use links::{Head, Links};
use mass_expiry::{Census, MassExpiry, Ruling};
use slab::{Slab, Slot};
use suspicion::Suspicions;
use wheel::Wheel;

/// How often a service's changed load reports are told; its liveness is told at once.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// How soon a removal that could not be committed is tried again.
const REMOVAL_RETRY: Duration = Duration::from_secs(1);

/// The leases of one service, and the rules that hold for them together.
#[derive(Debug, Default)]
struct Attendance {
    members: BTreeMap<InstanceId, Slot>,
    /// How many of them are kept here.
    kept: usize,
    /// Past their deadline, the longest silent first.
    silent: BTreeSet<(Timestamp, InstanceId)>,
    suspicions: Suspicions,
    expiry: MassExpiry,
    hold: Option<RemovalHold>,
    /// No removal is tried before this: the last one could not be committed.
    retry: Option<Timestamp>,
}

/// A lease that was renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renewal<'a> {
    /// Whose it is.
    pub identity: &'a IdentityKey,
    /// What its instance is known to say of itself.
    pub serving: ServingStatus,
    /// What operators want of it.
    pub admin: AdminState,
    /// Its TTL.
    pub ttl: Ttl,
    /// Who keeps its deadline.
    pub keeper: Keeper,
}

/// Which node keeps a lease's deadline. Only that one renews it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeper {
    /// This one.
    Here,
    /// Another one, by the record; `None` where the record names nobody.
    Elsewhere(Option<NodeId>),
}

/// A lease that ran out and whose removal is not held back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lapse {
    /// Whose lease.
    pub identity: IdentityKey,
    /// Which one.
    pub lease: LeaseId,
}

/// Every lease of the catalog. Follows the [`State`] change by change and holds exactly one lease per live instance, so
/// the state's limits bound it too.
#[derive(Debug)]
pub struct Leases {
    last_instance_hold: Duration,
    /// Whose leases are kept here; `None` keeps all.
    node: Option<NodeId>,
    /// What other nodes said last of the leases that they keep.
    heard: BTreeMap<NodeId, BTreeMap<ServiceKey, BTreeMap<InstanceId, InstanceHealth>>>,
    slots: Slab<Lease>,
    by_lease: DrawnMap<LeaseId, Slot>,
    /// The leases whose last beat came on a stream: where their list begins, and the lists.
    streams: DrawnMap<StreamId, Head>,
    carried: Links,
    services: BTreeMap<ServiceKey, Attendance>,
    reviews: Wheel,
    service_reviews: Deadlines<ServiceKey>,
    /// Services whose soft state is to be told now.
    changed: BTreeSet<ServiceKey>,
    /// Services whose load reports are to be told when the interval is over.
    loaded: BTreeSet<ServiceKey>,
    tell_loads: Option<Timestamp>,
    /// Before this nobody becomes SUSPECT: the registry itself stalled.
    forgiving: Option<Timestamp>,
}

impl Leases {
    /// No leases. `last_instance_hold` is how long silence alone does not remove the last instance of a service.
    #[must_use]
    pub fn new(last_instance_hold: Duration) -> Self {
        Self {
            last_instance_hold,
            node: None,
            heard: BTreeMap::new(),
            slots: Slab::default(),
            by_lease: DrawnMap::default(),
            streams: DrawnMap::default(),
            carried: Links::default(),
            services: BTreeMap::new(),
            reviews: Wheel::default(),
            service_reviews: Deadlines::default(),
            changed: BTreeSet::new(),
            loaded: BTreeSet::new(),
            tell_loads: None,
            forgiving: None,
        }
    }

    /// Follows a change of the state: new instances get a lease with a full TTL, gone ones lose theirs.
    pub fn follow(&mut self, change: &ServiceChange, now: Timestamp) {
        for removal in &change.gone {
            let Some(slot) = self.member(&change.service, removal.id) else { continue };
            if self.slots.get(slot).is_some_and(|lease| lease.incarnation == removal.incarnation) {
                self.expired_elsewhere(slot, removal.reason, now);
                self.end(slot);
            }
        }
        for instance in change.upserts.iter().chain(&change.owned) {
            self.sync(instance, now);
        }
    }

    /// Brings the leases in line with a state that was loaded anew. Leases that go on keep their deadlines.
    pub fn reconcile(&mut self, state: &State, now: Timestamp) {
        let live = |lease: &Lease| {
            let instance = state.instance(lease.service(), lease.instance_id());
            instance.is_some_and(|instance| instance.registration.lease == lease.id)
        };
        let gone: Vec<Slot> = self.slots.iter().filter(|(_, lease)| !live(lease)).map(|(slot, _)| slot).collect();
        for slot in gone {
            self.end(slot);
        }
        for instance in state.instances() {
            self.sync(instance, now);
        }
    }

    /// Renews a lease that is kept here, and tells who keeps it otherwise; `None` where it is not here, is another incarnation's, or is on its way out.
    pub fn renew(
        &mut self,
        lease: LeaseId,
        incarnation: Incarnation,
        via: Option<StreamId>,
        load: Option<LoadReport>,
        now: Timestamp,
    ) -> Option<Renewal<'_>> {
        let slot = *self.by_lease.get(&lease)?;
        let held = self.slots.get_mut(slot)?;
        if held.incarnation != incarnation || matches!(held.phase, Phase::Leaving(_)) {
            return None;
        }
        if held.is_elsewhere() {
            return Some(self.slots.get(slot)?.renewal());
        }
        let before = std::mem::replace(&mut held.renewed, now);
        if let Some(load) = load {
            match &mut held.load {
                Some(told) => **told = load.sane(),
                none => *none = Some(Box::new(load.sane())),
            }
            if !self.loaded.contains(held.service()) {
                self.loaded.insert(held.service().clone());
                self.tell_loads.get_or_insert(now.after(LOAD_INTERVAL));
            }
        }
        let recovered = std::mem::replace(&mut held.phase, Phase::Alive);
        match (via, held.carrier) {
            (Some(stream), carrier) if carrier != Carrier::Stream(stream) => self.attach(slot, stream),
            (None, Carrier::Broke(_)) => held.carrier = Carrier::Calls,
            _ => {}
        }
        if recovered != Phase::Alive {
            self.recover(slot, recovered, before);
        }
        Some(self.slots.get(slot)?.renewal())
    }

    /// A heartbeat stream broke from its other side. What it carried is SUSPECT unless something comes soon.
    pub fn stream_broke(&mut self, stream: StreamId, now: Timestamp) {
        let mut carried = self.streams.remove(&stream).unwrap_or(Head::EMPTY);
        while let Some(slot) = self.carried.pop(&mut carried) {
            let Some(lease) = self.slots.get_mut(slot) else { continue };
            lease.carrier = Carrier::Calls;
            if lease.phase == Phase::Alive {
                lease.carrier = Carrier::Broke(now);
                self.reviews.file_by(slot, now.after(held::BROKEN_STREAM_GRACE));
            }
        }
    }

    /// The registry itself ended a heartbeat stream: that says nothing about what it carried.
    pub fn stream_ended(&mut self, stream: StreamId) {
        let mut carried = self.streams.remove(&stream).unwrap_or(Head::EMPTY);
        while let Some(slot) = self.carried.pop(&mut carried) {
            if let Some(lease) = self.slots.get_mut(slot) {
                lease.carrier = Carrier::Calls;
            }
        }
    }

    /// The registry stalled for so long. What was sent to it meanwhile is still to be read, so for as long again nobody
    /// becomes SUSPECT: that never follows from the registry's own act.
    pub fn forgive(&mut self, stall: Duration, now: Timestamp) {
        self.forgiving = self.forgiving.max(Some(now.after(stall)));
    }

    /// Gives every lease a full TTL anew: after a start, or when the registry was late itself and cannot tell who else
    /// was. Who was SUSPECT stays so, who was STALE is SUSPECT again. Who is on its way out stays there until told
    /// otherwise by [`stays`](Self::stays): its removal may be in the store's hands.
    pub fn extend_all(&mut self, now: Timestamp) {
        let slots: Vec<Slot> = self.slots.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(lease) = self.slots.get_mut(slot).filter(|lease| !lease.is_elsewhere()) else { continue };
            lease.renewed = now;
            if matches!(lease.carrier, Carrier::Broke(_)) {
                lease.carrier = Carrier::Calls;
            }
            if lease.phase == Phase::Silent {
                lease.phase = Phase::Suspect;
                self.changed.insert(lease.service().clone());
            }
            // Filed by: what is filed for an earlier time is looked at then, and filed again.
            if let Some(at) = lease.review() {
                self.reviews.file_by(slot, at);
            }
        }
        for (service, attendance) in &mut self.services {
            attendance.silent.clear();
            attendance.expiry = MassExpiry::default();
            if attendance.hold.take().is_some() {
                self.changed.insert(service.clone());
            }
            self.service_reviews.unfile(service);
        }
    }

    /// Concludes what follows from the time alone, and tells whose removal is to be written now. Every lease named stays
    /// on its way out until its removal comes back through [`follow`](Self::follow) or [`stays`](Self::stays).
    pub fn advance(&mut self, now: Timestamp) -> Vec<Lapse> {
        let slots = &self.slots;
        self.reviews.turn(now, |slot| slots.get(slot)?.review());
        while let Some(slot) = self.reviews.pop_due(now) {
            self.review(slot, now);
        }
        let mut lapses = Vec::new();
        while let Some(service) = self.service_reviews.pop_due(now) {
            self.release(&service, now, &mut lapses);
        }
        if self.tell_loads.is_some_and(|at| at <= now) {
            self.tell_loads = None;
            self.changed.append(&mut self.loaded);
        }
        lapses
    }

    /// The removal of a lease could not be committed: its instance is STALE, and the removal is tried again later.
    pub fn stays(&mut self, lapse: &Lapse, now: Timestamp) {
        let Some(slot) = self.by_lease.get(&lapse.lease).copied() else { return };
        let Some(lease) = self.slots.get_mut(slot) else { return };
        let Phase::Leaving(exit) = lease.phase else { return };
        let (service, renewed, id) = (lease.service().clone(), lease.renewed, lease.instance_id());
        let attendance = self.services.entry(service.clone()).or_default();
        if let Exit::Metered(window) = exit {
            attendance.expiry.returned(window);
        }
        self.changed.insert(service.clone());
        if lease.deadline() > now {
            // All leases were extended meanwhile.
            lease.phase = Phase::Suspect;
            return self.reviews.file(slot, lease.deadline());
        }
        lease.phase = Phase::Silent;
        attendance.silent.insert((renewed, id));
        attendance.retry = Some(now.after(REMOVAL_RETRY));
        self.service_reviews.file(service, now.after(REMOVAL_RETRY));
    }

    /// When [`advance`](Self::advance) has something to conclude.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        [self.reviews.next(), self.service_reviews.next(), self.tell_loads].into_iter().flatten().min()
    }

    /// The services whose soft state changed since the last call, and how it is now.
    pub fn take_changed(&mut self) -> Vec<(ServiceKey, SoftState)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|service| {
                let soft = self.soft_state(&service);
                (service, soft)
            })
            .collect()
    }

    /// What is not stored about a service.
    #[must_use]
    pub fn soft_state(&self, service: &ServiceKey) -> SoftState {
        let Some(attendance) = self.services.get(service) else { return SoftState::default() };
        let leases = attendance.members.iter().filter_map(|(id, slot)| Some((*id, self.slots.get(*slot)?)));
        let told = leases.filter_map(|(id, lease)| Some((id, lease.health()?)));
        SoftState { instances: told.collect(), hold: attendance.hold }
    }

    /// How many leases there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_lease.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_lease.is_empty()
    }

    /// The lease of an instance of a service.
    fn member(&self, service: &ServiceKey, id: InstanceId) -> Option<Slot> {
        self.services.get(service)?.members.get(&id).copied()
    }

    /// Takes over what the state says of an instance.
    fn sync(&mut self, instance: &Arc<Instance>, now: Timestamp) {
        let registration = &instance.registration;
        let keeps = self.keeps(registration);
        let held = self.member(&registration.service, instance.id());
        let Some((slot, lease)) = held.and_then(|slot| Some((slot, self.slots.get_mut(slot)?))) else {
            return self.grant(instance, now);
        };
        if lease.id != registration.lease {
            self.end(slot);
            return self.grant(instance, now);
        }
        let kept = !lease.is_elsewhere();
        if keeps != kept {
            lease.sync(instance);
            return if keeps { self.take_over(slot, now) } else { self.hand_over(slot, now) };
        }
        if !kept && lease.instance.owner() != registration.owner {
            lease.sync(instance);
            return self.retell(slot, now);
        }
        let shorter = registration.ttl < lease.ttl;
        let counted = lease.counts();
        lease.sync(instance);
        let (recounted, review) = (lease.counts() != counted, lease.review());
        if let Some(at) = review.filter(|_| shorter) {
            self.reviews.file_by(slot, at);
        }
        let silence = |attendance: &Attendance| !attendance.silent.is_empty();
        if recounted && self.services.get(&registration.service).is_some_and(silence) {
            // Draining ones go without being counted: this changes the share that is silent, and who is the last.
            self.service_reviews.file_by(registration.service.clone(), now);
        }
    }

    fn grant(&mut self, instance: &Arc<Instance>, now: Timestamp) {
        let registration = &instance.registration;
        let keeps = self.keeps(registration);
        let lease = Lease::granted(instance, keeps, now);
        let review = lease.review();
        let slot = self.slots.insert(lease);
        self.by_lease.insert(registration.lease, slot);
        let attendance = self.services.entry(registration.service.clone()).or_default();
        attendance.members.insert(instance.id(), slot);
        attendance.kept += usize::from(keeps);
        if !attendance.silent.is_empty() {
            // One more changes the share that is silent, and who is the last.
            self.service_reviews.file_by(registration.service.clone(), now);
        }
        if let Some(at) = review {
            self.reviews.file(slot, at);
        }
        if !keeps {
            self.retell(slot, now);
        }
    }

    fn end(&mut self, slot: Slot) {
        self.reviews.unfile(slot);
        let Some(lease) = self.slots.remove(slot) else { return };
        self.detach(slot, lease.carrier);
        self.by_lease.remove(&lease.id);
        let service = lease.service();
        let Some(attendance) = self.services.get_mut(service) else { return };
        attendance.members.remove(&lease.instance_id());
        attendance.kept -= usize::from(!lease.is_elsewhere());
        attendance.silent.remove(&(lease.renewed, lease.instance_id()));
        if lease.health().is_some() {
            self.changed.insert(service.clone());
        }
        if attendance.members.is_empty() {
            self.services.remove(service);
            self.service_reviews.unfile(service);
            self.loaded.remove(service);
        } else if !attendance.silent.is_empty() || attendance.hold.is_some() {
            // One less changes the share that is silent, and who is the last.
            self.service_reviews.file_by(service.clone(), lease.renewed);
        }
    }

    /// Notes which stream a lease's beats come on.
    fn attach(&mut self, slot: Slot, stream: StreamId) {
        let Some(lease) = self.slots.get_mut(slot) else { return };
        let before = std::mem::replace(&mut lease.carrier, Carrier::Stream(stream));
        self.detach(slot, before);
        self.carried.push(self.streams.entry(stream).or_insert(Head::EMPTY), slot);
    }

    /// Takes a lease off the stream that carried it.
    fn detach(&mut self, slot: Slot, from: Carrier) {
        let Carrier::Stream(stream) = from else { return };
        let Some(head) = self.streams.get_mut(&stream) else { return };
        self.carried.remove(head, slot);
        if head.is_empty() {
            self.streams.remove(&stream);
        }
    }

    /// A lease that was not ALIVE has been renewed.
    fn recover(&mut self, slot: Slot, from: Phase, silent_since: Timestamp) {
        let Some(lease) = self.slots.get(slot) else { return };
        let (service, id, now) = (lease.service().clone(), lease.instance_id(), lease.renewed);
        if let Some(at) = lease.review() {
            self.reviews.file_by(slot, at);
        }
        self.changed.insert(service.clone());
        if from == Phase::Silent
            && let Some(attendance) = self.services.get_mut(&service)
        {
            attendance.silent.remove(&(silent_since, id));
            self.service_reviews.file_by(service, now);
        }
    }

    /// Looks at one lease whose time has come.
    fn review(&mut self, slot: Slot, now: Timestamp) {
        let Some(lease) = self.slots.get_mut(slot) else { return };
        let Some(due) = lease.review() else { return };
        if due > now {
            // It was renewed since this was filed.
            return self.reviews.file(slot, due);
        }
        let Some(attendance) = self.services.get_mut(lease.service()) else { return };
        let deadline = lease.deadline();
        if now >= deadline {
            lease.phase = Phase::Silent;
            attendance.silent.insert((lease.renewed, lease.instance_id()));
            self.changed.insert(lease.service().clone());
            return self.service_reviews.file_by(lease.service().clone(), now);
        }
        if let Some(until) = self.forgiving.filter(|until| *until > now) {
            return self.reviews.file(slot, until.min(deadline));
        }
        match attendance.suspicions.take(attendance.kept, now) {
            Ok(()) => {
                lease.phase = Phase::Suspect;
                self.changed.insert(lease.service().clone());
                self.reviews.file(slot, deadline);
            }
            Err(next) => self.reviews.file(slot, next.min(deadline)),
        }
    }

    /// Lets the silent ones of a service go as far as the mass expiry rules allow, the longest silent first.
    fn release(&mut self, service: &ServiceKey, now: Timestamp, lapses: &mut Vec<Lapse>) {
        let Some(attendance) = self.services.get_mut(service) else { return };
        if let Some(retry) = attendance.retry.take_if(|retry| *retry > now) {
            attendance.retry = Some(retry);
            return self.service_reviews.file_by(service.clone(), retry);
        }
        attendance.retry = None;

        let mut census = census(attendance, &self.slots);

        let mut hold = None;
        let mut held = 0;
        for (since, id) in attendance.silent.clone() {
            let slot = attendance.members.get(&id).copied();
            let Some(lease) = slot.and_then(|slot| self.slots.get_mut(slot)) else { continue };
            let mut exit = Exit::Free;
            if !lease.draining {
                let last_until = lease.deadline().after(self.last_instance_hold);
                // The first ruling to hold holds all that have been silent for less long.
                if hold.is_none()
                    && let Ruling::Hold { reason, until } = attendance.expiry.ask(census, last_until, now)
                {
                    hold = Some((reason, until));
                }
                if hold.is_some() {
                    held += 1;
                    continue;
                }
                exit = Exit::Metered(attendance.expiry.went(now));
                census.instances -= 1;
                census.silent -= 1;
            }
            lease.phase = Phase::Leaving(exit);
            attendance.silent.remove(&(since, id));
            lapses.push(Lapse { identity: lease.identity().clone(), lease: lease.id });
        }

        if census.silent == 0 {
            attendance.expiry.nobody_silent();
        }
        let hold = hold.map(|(reason, until)| RemovalHold { reason, until, held });
        if let Some(hold) = hold {
            self.service_reviews.file_by(service.clone(), hold.until);
        }
        if attendance.hold != hold {
            attendance.hold = hold;
            self.changed.insert(service.clone());
        }
    }
}

/// A service as it is now, on all nodes together. Those on their way out already are no longer part of it.
fn census(attendance: &Attendance, slots: &Slab<Lease>) -> Census {
    let counted = attendance.members.values().filter_map(|slot| slots.get(*slot));
    let counted: Vec<&Lease> = counted.filter(|lease| lease.counts()).collect();
    Census {
        instances: counted.len(),
        silent: counted.iter().filter(|lease| lease.is_silent()).count(),
        longest_ttl: counted.iter().map(|lease| lease.ttl.get()).max().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
