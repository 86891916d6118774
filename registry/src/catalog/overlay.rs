//! The state as it will be if the proposals decided so far are committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{
    AdminRule, Expected, History, Identity, IdentityKey, Incarnation, Instance, InstanceId, Key, LeaseId, OpId,
    Proposal, Record, Registration, Revision, Selector, ServiceKey, ServiceRecord, State, StoreId, Tombstone, Write,
};

/// A state with proposals on top that are not committed yet. Everything is decided against one of these: commands that
/// arrive together are decided one after the other and go to the store as one group.
#[derive(Debug)]
pub struct Overlay<'a> {
    state: &'a State,
    changed: BTreeMap<Key, (Option<Record>, OpId)>,
    /// Instances that come to a service or leave it.
    members: BTreeMap<ServiceKey, Moves>,
    leases: BTreeMap<LeaseId, IdentityKey>,
    rules: BTreeMap<ServiceKey, BTreeSet<Selector>>,
    live: isize,
    known: isize,
    tombstones: isize,
}

/// Who comes to a service and who leaves it.
#[derive(Debug, Default)]
struct Moves {
    to: BTreeMap<InstanceId, Option<Arc<Registration>>>,
    /// How many more are live than in the state.
    live: isize,
}

impl<'a> Overlay<'a> {
    /// A state with nothing on top.
    #[must_use]
    pub fn new(state: &'a State) -> Self {
        Self {
            state,
            changed: BTreeMap::new(),
            members: BTreeMap::new(),
            leases: BTreeMap::new(),
            rules: BTreeMap::new(),
            live: 0,
            known: 0,
            tombstones: 0,
        }
    }

    /// Puts a proposal on top.
    pub fn add(&mut self, proposal: &Proposal) {
        for write in &proposal.writes {
            match write.key() {
                Key::Service(service) => {
                    let knew = self.is_known(service);
                    self.write(write, proposal.op);
                    self.known += isize::from(self.is_known(service)) - isize::from(knew);
                }
                Key::Rule(service, selector) => {
                    self.rules.entry(service.clone()).or_default().insert(selector.clone());
                    self.write(write, proposal.op);
                }
                Key::History => self.write(write, proposal.op),
                Key::Identity(key) => {
                    let before = self.identity(key).cloned().unwrap_or_default();
                    self.write(write, proposal.op);
                    let after = self.identity(key).cloned().unwrap_or_default();
                    self.moved(key, &before, &after);
                }
            }
        }
    }

    fn write(&mut self, write: &Write, op: OpId) {
        let record = match write {
            Write::Put(_, record) => Some(record.clone()),
            Write::Delete(_) => None,
        };
        self.changed.insert(write.key().clone(), (record, op));
    }

    fn moved(&mut self, key: &IdentityKey, before: &Identity, after: &Identity) {
        self.tombstones += count(after.tombstones.len()) - count(before.tombstones.len());
        self.live += isize::from(after.live.is_some()) - isize::from(before.live.is_some());
        if let Some(was) = &before.live {
            self.moves(&was.service, key.id, None);
        }
        if let Some(is) = &after.live {
            self.moves(&is.service, key.id, Some(is.clone()));
            self.leases.insert(is.lease, key.clone());
        }
        for past in &after.past {
            self.leases.insert(past.lease, key.clone());
        }
    }

    fn moves(&mut self, service: &ServiceKey, id: InstanceId, to: Option<Arc<Registration>>) {
        let stored = self.state.services.get(service).is_some_and(|kept| kept.instances.contains_key(&id));
        let moves = self.members.entry(service.clone()).or_default();
        let is = to.is_some();
        let was = moves.to.insert(id, to).map_or(stored, |earlier| earlier.is_some());
        moves.live += isize::from(is) - isize::from(was);
    }

    /// Which store's incarnations are issued here.
    pub(super) fn store(&self) -> &StoreId {
        &self.state.position().store
    }

    /// The revision that everything is decided on.
    pub(super) fn revision(&self) -> Revision {
        self.state.position().revision
    }

    /// What a proposal that rests on this key has to expect of it.
    pub(super) fn expected(&self, key: &Key) -> Expected {
        if let Some((_, op)) = self.changed.get(key) {
            return Expected::By(*op);
        }
        let revision = match key {
            Key::Service(service) => {
                self.state.services.get(service).and_then(|kept| kept.record.as_ref()).map(|record| record.revision)
            }
            Key::Rule(service, selector) => {
                self.state.services.get(service).and_then(|kept| kept.rules.get(selector)).map(|rule| rule.revision)
            }
            Key::Identity(key) => self.state.identities.get(key).map(|identity| identity.revision),
            Key::History => self.state.history.as_ref().map(|history| history.revision),
        };
        revision.map_or(Expected::Absent, Expected::At)
    }

    pub(super) fn identity(&self, key: &IdentityKey) -> Option<&Identity> {
        match self.changed.get(&Key::Identity(key.clone())) {
            Some((Some(Record::Identity(identity)), _)) => Some(identity),
            Some(_) => None,
            None => self.state.identities.get(key).map(|kept| &kept.value),
        }
    }

    pub(super) fn rule(&self, service: &ServiceKey, selector: &Selector) -> Option<AdminRule> {
        match self.changed.get(&Key::Rule(service.clone(), selector.clone())) {
            Some((Some(Record::Rule(rule)), _)) => Some(*rule),
            Some(_) => None,
            None => self.state.services.get(service)?.rules.get(selector).map(|kept| kept.value),
        }
    }

    /// The selectors of a service's rules.
    pub(super) fn rules(&self, service: &ServiceKey) -> BTreeSet<Selector> {
        let stored = self.state.services.get(service).into_iter().flat_map(|kept| kept.rules.keys());
        let changed = self.rules.get(service).into_iter().flatten();
        stored.chain(changed).filter(|selector| self.rule(service, selector).is_some()).cloned().collect()
    }

    /// How far back removals are remembered.
    pub(super) fn history(&self) -> History {
        match self.changed.get(&Key::History) {
            Some((Some(Record::History(history)), _)) => *history,
            Some(_) => History::default(),
            None => self.state.history.as_ref().map(|kept| kept.value).unwrap_or_default(),
        }
    }

    /// The revision of the removal that a tombstone shows in its service; `None` where it is only about to be committed.
    pub(super) fn removed_at(&self, id: InstanceId, stone: &Tombstone) -> Option<Revision> {
        let shown = self.state.services.get(&stone.service)?.removals.get(&id)?;
        (shown.incarnation == stone.incarnation).then_some(shown.revision)
    }

    /// The record of a known service.
    pub(super) fn record(&self, service: &ServiceKey) -> Option<ServiceRecord> {
        match self.changed.get(&Key::Service(service.clone())) {
            Some((Some(Record::Service(record)), _)) => Some(*record),
            Some(_) => None,
            None => self.state.services.get(service)?.record.as_ref().map(|kept| kept.value),
        }
    }

    /// Whether a service is known, with or without instances.
    pub(super) fn is_known(&self, service: &ServiceKey) -> bool {
        self.record(service).is_some() || self.live_in(service) > 0
    }

    /// How many instances of a service are live.
    pub(super) fn live_in(&self, service: &ServiceKey) -> usize {
        let held = self.state.services.get(service).map_or(0, |kept| kept.instances.len());
        held.saturating_add_signed(self.members.get(service).map_or(0, |moves| moves.live))
    }

    /// The live instances of a service that do not drain; `None` where they are more than `max`. One that is about to come
    /// counts whatever it says of itself.
    pub(super) fn few_that_count(&self, service: &ServiceKey, max: usize) -> Option<Vec<InstanceId>> {
        let moves = self.members.get(service).map(|moves| &moves.to);
        let stored = self.state.services.get(service).into_iter().flat_map(|kept| kept.instances.values());
        let stored = stored.filter(|instance| !instance.is_draining()).map(|instance| instance.id());
        let stays = stored.filter(|id| moves.is_none_or(|moves| !moves.contains_key(id)));
        let moved = moves.into_iter().flatten().filter(|(_, to)| to.is_some()).map(|(id, _)| *id);
        let counted: Vec<InstanceId> = stays.chain(moved).take(max + 1).collect();
        (counted.len() <= max).then_some(counted)
    }

    /// A live instance of a service, whichever.
    pub(super) fn sibling(&self, service: &ServiceKey) -> Option<&Registration> {
        Some(&self.state.services.get(service)?.instances.values().next()?.registration)
    }

    /// How many live instances of a service a selector means.
    pub(super) fn selected(&self, service: &ServiceKey, selector: &Selector) -> usize {
        let moves = self.members.get(service).map(|moves| &moves.to);
        let stored = self.state.services.get(service).into_iter().flat_map(|kept| kept.instances.values());
        let unmoved = stored.filter(|instance| moves.is_none_or(|moves| !moves.contains_key(&instance.id())));
        let unmoved = unmoved.filter(|instance| selector.selects(instance)).count();
        let moved = moves.into_iter().flatten().filter_map(|(id, to)| Some((id, to.as_ref()?)));
        let moved = moved.filter(|(id, registration)| {
            let key = IdentityKey { namespace: service.namespace.clone(), id: **id };
            selector.selects(&Instance::of(key, (*registration).clone()))
        });
        unmoved + moved.count()
    }

    /// How many tombstones a service shows. Ones on top are not counted: the limit they are held against is no promise.
    pub(super) fn tombstones_in(&self, service: &ServiceKey) -> usize {
        self.state.services.get(service).map_or(0, |kept| kept.removals.len())
    }

    /// Who holds a lease, or held it until a newer start took the id.
    pub(super) fn lease_holder(&self, lease: LeaseId) -> Option<&IdentityKey> {
        self.leases.get(&lease).or_else(|| self.state.lease_holder(lease))
    }

    /// How many instances are live, over all services.
    pub(super) fn live(&self) -> usize {
        self.state.live().saturating_add_signed(self.live)
    }

    /// How many services are known.
    pub(super) fn known(&self) -> usize {
        self.state.known().saturating_add_signed(self.known)
    }

    /// How many tombstones are kept, over all ids.
    pub(super) fn tombstones(&self) -> usize {
        self.state.tombstones().saturating_add_signed(self.tombstones)
    }

    /// The highest incarnation that can have been issued for an id: every one is at most the revision of the commit that
    /// issued it, and one on top of the state stands in its identity.
    pub(super) fn issued(&self, identity: &Identity) -> u64 {
        let live = identity.live.iter().map(|live| live.incarnation);
        let gone = identity.tombstones.iter().map(|stone| stone.incarnation);
        let past = identity.past.iter().map(|past| past.incarnation);
        let known = live.chain(gone).chain(past).map(Incarnation::get).max().unwrap_or(0);
        known.max(self.revision().get())
    }
}

/// A length as a signed number; no map here comes near the limit.
fn count(length: usize) -> isize {
    isize::try_from(length).unwrap_or(isize::MAX)
}
