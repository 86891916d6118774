//! Everything that is stored, indexed for deciding and for reading.

mod apply;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::drawn::DrawnMap;
use super::{
    AdminRule, AdminState, Command, GrpcService, History, Identity, IdentityKey, Instance, InstanceId, LeaseId, OpId,
    Position, Presence, Removal, Revision, Roster, Selector, ServiceKey, ServiceRecord, ServiceView, ServingStatus,
    Timestamp,
};

/// A record as it stands in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kept<T> {
    pub(super) value: T,
    /// When it was last changed.
    pub(super) revision: Revision,
    /// By which proposal.
    pub(super) op: OpId,
}

/// A service: its records, and what follows from them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Service {
    pub(super) record: Option<Kept<ServiceRecord>>,
    pub(super) rules: BTreeMap<Selector, Kept<AdminRule>>,
    /// Live instances. Shared with the view that was published last.
    pub(super) instances: Roster<Arc<Instance>>,
    /// Removals that still hold, of ids that are not live here.
    pub(super) removals: Roster<Removal>,
    /// When a reader could last see a change.
    pub(super) revision: Revision,
    /// Every removal after this revision is among `removals`, unless its id is live here again.
    pub(super) floor: Revision,
}

impl Service {
    /// Whether it is known. A live instance makes it so even without a record, which is what remains when a
    /// registration and a deletion on two nodes pass each other.
    fn is_known(&self) -> bool {
        self.record.is_some() || !self.instances.is_empty()
    }

    fn presence(&self) -> Presence {
        match &self.record {
            _ if !self.instances.is_empty() => Presence::Populated,
            Some(record) => Presence::Empty(record.value.emptiness),
            None => Presence::Unknown,
        }
    }

    fn is_blank(&self) -> bool {
        self.record.is_none() && self.rules.is_empty() && self.instances.is_empty() && self.removals.is_empty()
    }

    /// What operators want of an instance: the strictest rule that selects it.
    fn admin(&self, instance: &Instance) -> AdminState {
        let selecting = self.rules.iter().filter(|(selector, _)| selector.selects(instance));
        selecting.map(|(_, rule)| rule.value.state).max().unwrap_or_default()
    }
}

/// The stored half of the catalog: what the store's commits up to one position amount to. Changed by
/// [`apply`](Self::apply) alone, so the same commits always give the same state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    position: Position,
    pub(super) identities: BTreeMap<IdentityKey, Kept<Identity>>,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    pub(super) history: Option<Kept<History>>,
    /// The floor of every service that is not here any more, and of all of them after a load.
    floor: Revision,
    /// Who holds a lease, or held it until a newer start took the id.
    leases: DrawnMap<LeaseId, IdentityKey>,
    /// When something is to be forgotten, earliest first; at most one entry an id.
    forgets: BTreeSet<(Timestamp, IdentityKey)>,
    /// When a rule ends, earliest first; at most one entry a rule.
    rule_ends: BTreeSet<(Timestamp, ServiceKey, Selector)>,
    live: usize,
    known: usize,
    tombstones: usize,
}

impl State {
    /// The state of a store that was never written to.
    #[must_use]
    pub fn empty(position: Position) -> Self {
        Self {
            position,
            identities: BTreeMap::new(),
            services: BTreeMap::new(),
            history: None,
            floor: Revision::ZERO,
            leases: DrawnMap::default(),
            forgets: BTreeSet::new(),
            rule_ends: BTreeSet::new(),
            live: 0,
            known: 0,
            tombstones: 0,
        }
    }

    /// The last change that is included.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// How many instances are live, over all services.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live
    }

    /// How many services are known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.known
    }

    /// How many tombstones are kept, over all ids.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// Who holds this lease, or held it until a newer start took the id.
    #[must_use]
    pub fn lease_holder(&self, lease: LeaseId) -> Option<&IdentityKey> {
        self.leases.get(&lease)
    }

    /// Whether this lease belonged to a start that lost its id to a newer one.
    #[must_use]
    pub fn is_fenced(&self, lease: LeaseId) -> bool {
        let holder = self.lease_holder(lease).and_then(|key| self.identities.get(key));
        holder.is_some_and(|identity| identity.value.past.iter().any(|past| past.lease == lease))
    }

    /// Whether statuses of gRPC services say anything that is not known of a live instance.
    #[must_use]
    pub fn reports_news(&self, identity: &IdentityKey, statuses: &BTreeMap<String, ServingStatus>) -> bool {
        let live = || self.identities.get(identity)?.value.live.as_ref();
        let differs =
            |service: &GrpcService| statuses.get(service.name()).is_some_and(|said| *said != service.status());
        !statuses.is_empty() && live().is_some_and(|live| live.spec.grpc_services().iter().any(differs))
    }

    /// A live instance of a service.
    #[must_use]
    pub fn instance(&self, service: &ServiceKey, id: InstanceId) -> Option<&Arc<Instance>> {
        self.services.get(service)?.instances.get(&id)
    }

    /// Every live instance, by service and id.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.services.values().flat_map(|service| service.instances.values())
    }

    /// The services there is something to tell about: known ones, and deleted ones with removals that still hold.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// A service as readers see it.
    #[must_use]
    pub fn view(&self, key: &ServiceKey) -> ServiceView {
        match self.services.get(key) {
            None => ServiceView::unknown(key.clone(), self.position.revision),
            Some(service) => {
                let (instances, removals) = (service.instances.clone(), service.removals.clone());
                ServiceView::of(key.clone(), service.revision, service.floor, service.presence(), instances, removals)
            }
        }
    }

    /// When the next rule ends or the next thing is to be forgotten.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        let forget = self.forgets.first().map(|(at, _)| *at);
        let rule = self.rule_ends.first().map(|(at, ..)| *at);
        [forget, rule].into_iter().flatten().min()
    }

    /// The commands that time alone asks for now, about at most `max` rules and ids.
    #[must_use]
    pub fn ended(&self, now: Timestamp, max: usize) -> Vec<Command> {
        let rules = self
            .rule_ends
            .iter()
            .take_while(|(at, ..)| *at <= now)
            .map(|(_, service, selector)| Command::EndRule { service: service.clone(), selector: selector.clone() });
        let mut commands: Vec<Command> = rules.take(max).collect();
        let forgets = self.forgets.iter().take_while(|(at, _)| *at <= now);
        let forgets: Vec<_> = forgets.take(max - commands.len()).map(|(_, identity)| identity.clone()).collect();
        let forgets = forgets.chunks(Command::FORGET_MAX).map(<[IdentityKey]>::to_vec);
        commands.extend(forgets.map(|identities| Command::Forget { identities }));
        commands
    }
}
