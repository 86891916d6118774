//! The only change of a [`State`]: what the store says was committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Kept, Service, State};
use crate::catalog::{
    AdminRule, AdminState, Committed, History, Identity, IdentityKey, Instance, InstanceId, Key, OpId, Position,
    Presence, Record, Registration, Removal, RemovalReason, Revision, Selector, ServiceChange, ServiceKey,
    ServiceRecord, Timestamp, Write,
};

/// What a commit has touched in one service so far.
struct Touched {
    /// Presence of the service before.
    before: Presence,
    upserts: BTreeSet<InstanceId>,
    gone: BTreeMap<InstanceId, Removal>,
    /// Instances that changed in nothing but their owner.
    owned: BTreeSet<InstanceId>,
    /// Whether something may have changed that readers see.
    told: bool,
}

impl Touched {
    /// Nothing so far of a service that is as it was.
    fn of(service: &Service) -> Self {
        let (upserts, gone, owned) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        Self { before: service.presence(), upserts, gone, owned, told: false }
    }
}

type Changes = BTreeMap<ServiceKey, Touched>;

/// When and by whom a record is changed.
#[derive(Clone, Copy)]
struct Stamp {
    revision: Revision,
    op: OpId,
}

impl Stamp {
    fn keep<T>(self, value: T) -> Kept<T> {
        Kept { value, revision: self.revision, op: self.op }
    }
}

impl State {
    /// The state that a store's records amount to, as of this position.
    #[must_use]
    pub fn load(position: Position, records: impl IntoIterator<Item = (Key, Record, Revision, OpId)>) -> Self {
        let mut state = Self::empty(position);
        let mut discarded = Changes::new();
        let (identities, others): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|(key, ..)| matches!(key, Key::Identity(_)));
        // Rules before instances: an instance's admin state is derived when it is put.
        for (key, record, revision, op) in others.into_iter().chain(identities) {
            state.write(Write::Put(key, record), Stamp { revision, op }, &mut discarded);
        }
        for service in state.services.values_mut() {
            service.floor = state.floor;
            // A service without a record was deleted, and nothing tells when.
            let told = service.record.as_ref().map_or(state.position.revision, |record| record.revision);
            let seen = service.instances.highest().max(service.removals.highest());
            service.revision = told.max(seen).max(state.floor);
        }
        state
    }

    /// Takes in what was committed and tells what that changed, service by service. A commit that is included already
    /// changes nothing.
    pub fn apply(&mut self, committed: &Committed) -> Vec<ServiceChange> {
        if committed.revision <= self.position.revision {
            return Vec::new();
        }
        self.position.revision = committed.revision;
        let stamp = Stamp { revision: committed.revision, op: committed.op };
        let mut changes = Changes::new();
        for write in &committed.writes {
            self.write(write.clone(), stamp, &mut changes);
        }
        changes.into_iter().map(|(service, touched)| self.change(service, stamp.revision, touched)).collect()
    }

    fn write(&mut self, write: Write, stamp: Stamp, changes: &mut Changes) {
        match write {
            Write::Put(Key::Service(key), Record::Service(record)) => {
                self.put_service(key, Some(stamp.keep(record)), changes)
            }
            Write::Delete(Key::Service(key)) => self.put_service(key, None, changes),
            Write::Put(Key::Rule(key, selector), Record::Rule(rule)) => {
                self.put_rule(key, selector, Some(stamp.keep(rule)), stamp.revision, changes);
            }
            Write::Delete(Key::Rule(key, selector)) => self.put_rule(key, selector, None, stamp.revision, changes),
            Write::Put(Key::Identity(key), Record::Identity(identity)) => {
                self.put_identity(key, identity, stamp, changes)
            }
            Write::Delete(Key::Identity(key)) => self.put_identity(key, Identity::default(), stamp, changes),
            Write::Put(Key::History, Record::History(History { floor })) => {
                let floor = floor.min(stamp.revision);
                self.history = Some(stamp.keep(History { floor }));
                self.floor = self.floor.max(floor);
            }
            Write::Delete(Key::History) => self.history = None,
            // A record under another kind's key says nothing that could be understood; a foreign writer's at most.
            Write::Put(Key::Service(_) | Key::Rule(..) | Key::Identity(_) | Key::History, _) => {}
        }
    }

    fn put_service(&mut self, key: ServiceKey, record: Option<Kept<ServiceRecord>>, changes: &mut Changes) {
        self.with_service(key, changes, |service, _| service.record = record);
    }

    fn put_rule(
        &mut self,
        key: ServiceKey,
        selector: Selector,
        rule: Option<Kept<AdminRule>>,
        revision: Revision,
        changes: &mut Changes,
    ) {
        let ends = |rule: &Kept<AdminRule>| rule.value.until;
        if let Some(at) = rule.as_ref().and_then(ends) {
            self.rule_ends.insert((at, key.clone(), selector.clone()));
        }
        let until = rule.as_ref().and_then(ends);
        let before = self.with_service(key.clone(), changes, |service, touched| {
            let before = match rule {
                Some(rule) => service.rules.insert(selector.clone(), rule),
                None => service.rules.remove(&selector),
            };
            for (id, admin) in service.readministered(&selector) {
                if let Some(instance) = service.instances.get(&id) {
                    let changed = Instance { admin, revision, ..Instance::clone(instance) };
                    service.instances.insert(Arc::new(changed));
                    touched.upserts.insert(id);
                }
            }
            before
        });
        if let Some(at) = before.as_ref().and_then(ends)
            && until != Some(at)
        {
            self.rule_ends.remove(&(at, key, selector));
        }
    }

    fn put_identity(&mut self, mut key: IdentityKey, mut identity: Identity, stamp: Stamp, changes: &mut Changes) {
        if let Some(live) = &mut identity.live
            && let Some(sibling) =
                self.services.get(&live.service).and_then(|service| service.instances.values().next())
        {
            // One that was decided here shares already; one from a store or another node does not.
            if !live.service.shares(&sibling.registration.service) {
                Arc::make_mut(live).share(&sibling.registration);
            }
            key.namespace = live.service.namespace.clone();
        }
        let before = self.identities.remove(&key).map(|kept| kept.value).unwrap_or_default();
        self.unindex(&key, &before);

        let (was, is) = (before.live.as_ref(), identity.live.as_ref());
        if let Some(was) = was
            && is.is_none_or(|is| is.service != was.service)
        {
            self.bury(&key, was, &identity, stamp.revision, changes);
        }
        match (was, is) {
            (Some(was), Some(is)) if is.differs_in_owner_alone(was) => self.rehome(&key, is, changes),
            (was, Some(is)) if was != Some(is) => self.settle(&key, is, stamp.revision, changes),
            _ => {}
        }
        self.remember(&key, &before, &identity, stamp.revision, changes);

        self.index(&key, &identity);
        if !identity.is_blank() {
            self.identities.insert(key, stamp.keep(identity));
        }
    }

    /// Takes an instance out of its service.
    fn bury(
        &mut self,
        key: &IdentityKey,
        was: &Registration,
        identity: &Identity,
        revision: Revision,
        changes: &mut Changes,
    ) {
        let stone = identity.tombstones.iter().find(|t| t.service == was.service && t.incarnation == was.incarnation);
        // Every removal we propose leaves a tombstone; a foreign one may not, and then the careful reason is silence.
        let reason = stone.map_or(RemovalReason::Expired, |stone| stone.reason);
        let removal = Removal { id: key.id, incarnation: was.incarnation, reason, revision };
        self.with_service(was.service.clone(), changes, |service, touched| {
            service.instances.remove(&key.id);
            touched.upserts.remove(&key.id);
            touched.gone.insert(key.id, removal);
        });
        if stone.is_none() {
            self.forget(&was.service, revision);
        }
    }

    /// Puts an instance into its service, or its change.
    fn settle(&mut self, key: &IdentityKey, is: &Arc<Registration>, revision: Revision, changes: &mut Changes) {
        let mut instance =
            Instance { key: key.clone(), registration: is.clone(), admin: AdminState::Enabled, revision };
        self.with_service(is.service.clone(), changes, |service, touched| {
            instance.admin = service.admin(&instance);
            // A rule that came after the instance stands in the service's record: what a load finds changed then too.
            instance.revision = revision.max(service.record.as_ref().map_or(revision, |record| record.revision));
            service.instances.insert(Arc::new(instance));
            touched.gone.remove(&key.id);
            touched.upserts.insert(key.id);
        });
    }

    /// Notes who keeps an instance's deadline now. Readers are not told, so the instance keeps its revision.
    fn rehome(&mut self, key: &IdentityKey, is: &Arc<Registration>, changes: &mut Changes) {
        let Some(service) = self.services.get_mut(&is.service) else { return };
        if let Some(instance) = service.instances.get(&key.id) {
            let rehomed = Instance { registration: is.clone(), ..Instance::clone(instance) };
            service.instances.insert(Arc::new(rehomed));
            changes.entry(is.service.clone()).or_insert_with(|| Touched::of(service)).owned.insert(key.id);
        }
    }

    /// Brings the removals that services show in line with the tombstones kept for this id.
    fn remember(
        &mut self,
        key: &IdentityKey,
        before: &Identity,
        after: &Identity,
        revision: Revision,
        changes: &mut Changes,
    ) {
        let services: BTreeSet<ServiceKey> =
            before.tombstones.iter().chain(&after.tombstones).map(|stone| stone.service.clone()).collect();
        for service in services {
            let stone = after.tombstones.iter().rfind(|stone| stone.service == service);
            let shown = self.services.get(&service).and_then(|kept| kept.removals.get(&key.id)).copied();
            let wanted = stone.map(|stone| Removal {
                id: key.id,
                incarnation: stone.incarnation,
                reason: stone.reason,
                revision: shown.filter(|shown| shown.incarnation == stone.incarnation).map_or(revision, |s| s.revision),
            });
            if shown == wanted {
                continue;
            }
            let lost = shown.filter(|_| wanted.is_none() && self.instance(&service, key.id).is_none());
            self.with_service(service.clone(), changes, |service, _| match wanted {
                Some(removal) => _ = service.removals.insert(removal),
                None => _ = service.removals.remove(&key.id),
            });
            if let Some(removal) = lost {
                self.forget(&service, removal.revision);
            }
        }
        self.tombstones = self.tombstones + after.tombstones.len() - before.tombstones.len();
    }

    /// Who held this service at an earlier revision has to take a snapshot: a removal of this revision is told no more.
    fn forget(&mut self, service: &ServiceKey, revision: Revision) {
        self.floor = self.floor.max(revision);
        if let Some(service) = self.services.get_mut(service) {
            service.floor = service.floor.max(revision);
        }
    }

    fn index(&mut self, key: &IdentityKey, identity: &Identity) {
        for lease in identity.live.iter().map(|live| live.lease).chain(identity.past.iter().map(|past| past.lease)) {
            self.leases.insert(lease, key.clone());
        }
        if let Some(at) = identity.forget_at() {
            self.forgets.insert((at, key.clone()));
        }
    }

    fn unindex(&mut self, key: &IdentityKey, identity: &Identity) {
        for lease in identity.live.iter().map(|live| live.lease).chain(identity.past.iter().map(|past| past.lease)) {
            self.leases.remove(&lease);
        }
        if let Some(at) = identity.forget_at() {
            self.forgets.remove(&(at, key.clone()));
        }
    }

    /// Changes a service and keeps the counts that depend on it; one that nothing is left of goes.
    fn with_service<T>(
        &mut self,
        key: ServiceKey,
        changes: &mut Changes,
        change: impl FnOnce(&mut Service, &mut Touched) -> T,
    ) -> T {
        let (floor, revision) = (self.floor, self.position.revision);
        let begun = || Service { floor, revision, ..Service::default() };
        let service = self.services.entry(key.clone()).or_insert_with(begun);
        let touched = changes.entry(key.clone()).or_insert_with(|| Touched::of(service));
        touched.told = true;
        let (knew, had) = (service.is_known(), service.instances.len());
        let result = change(service, touched);
        let (knows, has, blank) = (service.is_known(), service.instances.len(), service.is_blank());
        self.known = self.known + usize::from(knows) - usize::from(knew);
        self.live = self.live + has - had;
        if blank {
            self.services.remove(&key);
        }
        result
    }

    fn change(&mut self, service: ServiceKey, revision: Revision, touched: Touched) -> ServiceChange {
        let mut gone_by_now = Service { floor: self.floor, ..Service::default() };
        let kept = self.services.get_mut(&service).unwrap_or(&mut gone_by_now);
        let presence = kept.presence();
        if !touched.upserts.is_empty() || !touched.gone.is_empty() || presence != touched.before {
            kept.revision = revision;
        }
        let now = |ids: &BTreeSet<InstanceId>| ids.iter().filter_map(|id| kept.instances.get(id).cloned()).collect();
        ServiceChange {
            service,
            revision,
            upserts: now(&touched.upserts),
            owned: now(&touched.owned),
            silent: !touched.told,
            gone: touched.gone.into_values().collect(),
            presence,
            floor: kept.floor,
            instances: kept.instances.clone(),
            removals: kept.removals.clone(),
        }
    }
}

impl Service {
    /// The instances whose admin state a change of this selector's rule changes, and what it becomes.
    fn readministered(&self, selector: &Selector) -> Vec<(InstanceId, AdminState)> {
        let selected = self.instances.values().filter(|instance| selector.selects(instance));
        selected
            .map(|instance| (instance, self.admin(instance)))
            .filter(|(instance, admin)| instance.admin != *admin)
            .map(|(instance, admin)| (instance.id(), admin))
            .collect()
    }
}

impl Identity {
    /// When the first thing remembered here is beyond its time.
    fn forget_at(&self) -> Option<Timestamp> {
        let stones = self.tombstones.iter().map(|stone| stone.until);
        stones.chain(self.past.iter().map(|past| past.until)).min()
    }
}
