//! What readers see: immutable values, swapped by the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_runtime::{Refused, Slot, Slots};
use tokio::sync::watch;

use super::audit;
use super::error::EngineError;
use super::events::Events;
use super::follow::{Bell, Cell, Follow, Published};
use super::metrics::Metrics;
use crate::catalog::{
    Liveness, Namespace, Position, Presence, RemovalHoldReason, Revision, ServiceChange, ServiceKey, ServiceView,
    SoftState, State, Timestamp,
};

/// Most names that nobody registered and somebody follows. Names that were deleted while they were followed come on top;
/// those are bounded by the services and by who follows.
const UNKNOWN_FOLLOWED_MAX: u32 = 10_000;

/// Most of them on the account of one address; with IPv6, of one /64 network. A name is on the account of who followed it
/// first, until it is registered or nobody follows it any more: many callers of one host that wait for the same services
/// count once.
const UNKNOWN_FOLLOWED_PER_ADDRESS_MAX: u32 = 1_000;

/// How often the unknown names that nobody follows any more are let go of.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Everything there is to read. Services are looked up as they are now: at least as new as `position`, each whole.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) position: Position,
    pub(super) complete: bool,
    pub(super) stale_since: Option<Timestamp>,
    /// Where the state was when it began to count as whole; `None` where it was from the start.
    pub(super) warmed_at: Option<Revision>,
    /// Every service there is something to tell about: known ones, and deleted ones with removals that still hold.
    /// Replaced only when a name comes or goes.
    pub(super) services: Arc<BTreeMap<ServiceKey, Arc<Cell>>>,
}

impl View {
    /// The last change that is included everywhere.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Whether the state is whole; false for one TTL after a start without it. Until then what is missing here may live.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Since when this node does not reach the store that it shares with others: what it shows may have changed since.
    #[must_use]
    pub fn stale_since(&self) -> Option<Timestamp> {
        self.stale_since
    }

    /// A service by its name; `None` where there is nothing to tell about it. A view of [`Presence::Unknown`] means the
    /// same, but for the removals that it shows.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<Arc<Published>> {
        self.services.get(key).map(|cell| cell.view())
    }

    /// The known services of a namespace in the order of their names, from the first one after `after` on.
    pub fn services<'a>(
        &'a self,
        namespace: &'a Namespace,
        after: Option<&'a ServiceKey>,
    ) -> impl Iterator<Item = Arc<Published>> + 'a {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.services
            .range::<ServiceKey, _>((from, Bound::Unbounded))
            .skip_while(|(key, _)| key.namespace < *namespace)
            .take_while(|(key, _)| key.namespace == *namespace)
            .map(|(_, cell)| cell.view())
            .filter(|service| service.presence() != Presence::Unknown)
    }

    /// The changes of a service, if it is here.
    pub(super) fn follow(&self, key: &ServiceKey, bell: &Arc<Bell>, number: usize) -> Option<Follow> {
        self.services.get(key)?.follow(bell, number)
    }

    /// Whether what was told at this revision was told of a whole state. What was told before may lack what lived: who
    /// merged it has to be shown everything once.
    #[must_use]
    pub fn was_whole_at(&self, revision: Revision) -> bool {
        self.complete && self.warmed_at.is_none_or(|warmed_at| revision > warmed_at)
    }
}

/// How many instances of a service stand where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    suspect: i64,
    stale: i64,
    holding: i64,
}

impl Counts {
    fn of(soft: &SoftState) -> Self {
        let count = |liveness| soft.instances.values().filter(|health| health.liveness == liveness).count();
        Self {
            suspect: count(Liveness::Suspect).try_into().unwrap_or(i64::MAX),
            stale: count(Liveness::Stale).try_into().unwrap_or(i64::MAX),
            holding: soft.hold.is_some().into(),
        }
    }
}

/// A name that nobody registered and somebody follows.
struct Unknown {
    cell: Arc<Cell>,
    /// On whose account; `None` where it was known once.
    _slot: Option<Slot>,
}

/// The writing side of what readers see. Changes are gathered per service and go out together with [`Self::publish`].
pub(super) struct Publisher {
    view: Arc<ArcSwap<View>>,
    positions: watch::Sender<Position>,
    services: Arc<BTreeMap<ServiceKey, Arc<Cell>>>,
    /// Names that nobody registered and somebody follows. Not part of the view: they would be copied with it.
    unknown: BTreeMap<ServiceKey, Unknown>,
    /// How many of them there may be.
    unknown_slots: Slots,
    /// Services as they will be published next.
    pending: BTreeMap<ServiceKey, ServiceView>,
    position: Position,
    complete: bool,
    stale_since: Option<Timestamp>,
    /// Where the state was when it began to count as whole.
    warmed_at: Option<Revision>,
    /// When the unknown names were looked through last.
    swept: Timestamp,
    events: Events,
    metrics: Metrics,
}

impl Publisher {
    /// A publisher of this state, which is published.
    pub(super) fn new(state: &State, complete: bool, metrics: Metrics, events: Events, now: Timestamp) -> Self {
        let position = state.position().clone();
        let services = Arc::default();
        let empty = View { position: position.clone(), complete, stale_since: None, warmed_at: None, services };
        let mut publisher = Self {
            view: Arc::new(ArcSwap::from_pointee(empty)),
            positions: watch::Sender::new(position.clone()),
            services: Arc::default(),
            unknown: BTreeMap::new(),
            unknown_slots: Slots::new(UNKNOWN_FOLLOWED_MAX, UNKNOWN_FOLLOWED_PER_ADDRESS_MAX),
            pending: BTreeMap::new(),
            position,
            complete,
            stale_since: None,
            warmed_at: None,
            swept: now,
            events,
            metrics,
        };
        publisher.reloaded(state);
        publisher.publish(now);
        publisher
    }

    pub(super) fn view(&self) -> Arc<ArcSwap<View>> {
        self.view.clone()
    }

    pub(super) fn positions(&self) -> watch::Receiver<Position> {
        self.positions.subscribe()
    }

    /// Takes over what a commit changed in a service.
    pub(super) fn changed(&mut self, change: ServiceChange) {
        let before = self.current(&change.service);
        audit::changed(&before, &change);
        self.events.changed(&before, &change, &self.position);
        for removal in &change.gone {
            self.metrics.removals(removal.reason.as_str()).inc();
        }
        let fresh = change.upserts.iter().filter(|instance| {
            let was = before.instances().get(&instance.id());
            was.is_none_or(|was| was.incarnation() != instance.incarnation())
        });
        self.metrics.registrations.inc_by(fresh.count() as u64);
        let service = change.service.clone();
        self.pending.insert(service, before.advanced(change));
    }

    /// Takes over a state that was loaded anew.
    pub(super) fn reloaded(&mut self, state: &State) {
        let same = state.position().is_of(&self.position);
        if !same && self.complete {
            // What is told of this life is told of a whole state from its first revision on.
            self.warmed_at = None;
        }
        let here = self.services.keys().chain(self.unknown.keys());
        let names: BTreeSet<ServiceKey> = here.chain(state.services()).cloned().collect();
        for name in names {
            let (before, loaded) = (self.current(&name), state.view(&name));
            let view = if same { before.reloaded(loaded, state.position().revision) } else { before.replaced(loaded) };
            self.pending.insert(name, view);
        }
    }

    /// Takes over the soft state of a service.
    pub(super) fn soft(&mut self, service: ServiceKey, soft: SoftState) {
        let before = self.current(&service);
        audit::held(&service, before.soft().hold, soft.hold);
        self.events.held(&service, before.soft().hold, soft.hold, &self.position);
        self.count(before.soft(), &soft);
        if **before.soft() != soft {
            self.pending.insert(service, before.with_soft(Arc::new(soft)));
        }
    }

    /// Everything up to here is included.
    pub(super) fn reached(&mut self, position: &Position) {
        self.position = position.clone();
    }

    /// The state is whole from now on.
    pub(super) fn completed(&mut self) {
        self.complete = true;
        self.warmed_at = Some(self.position.revision);
    }

    /// Since when what readers see may be old; `None` while it is not.
    pub(super) fn unsure(&mut self, since: Option<Timestamp>) {
        self.stale_since = since;
    }

    /// Lets readers see what was gathered: first the services, then the position that includes them.
    pub(super) fn publish(&mut self, now: Timestamp) {
        for (name, view) in std::mem::take(&mut self.pending) {
            self.place(name, view);
        }
        self.sweep(now);
        let published = self.view.load();
        let same = published.position == self.position && published.complete == self.complete;
        let same = same && published.stale_since == self.stale_since;
        if same && Arc::ptr_eq(&published.services, &self.services) {
            return;
        }
        let replaced = !published.position.is_of(&self.position);
        let (position, services) = (self.position.clone(), self.services.clone());
        self.metrics.revision.set(position.revision.get().try_into().unwrap_or(i64::MAX));
        let (complete, stale_since, warmed_at) = (self.complete, self.stale_since, self.warmed_at);
        self.view.store(Arc::new(View { position: position.clone(), complete, stale_since, warmed_at, services }));
        if replaced {
            // Who looked before the position was there took the services for those of the former life, and looks again.
            for cell in self.services.values().chain(self.unknown.values().map(|unknown| &unknown.cell)) {
                cell.publish(Arc::new(Published::new(ServiceView::clone(&cell.view()))));
            }
        }
        self.positions.send_if_modified(|published| {
            let moved = *published != position;
            *published = position;
            moved
        });
    }

    /// Puts a service where readers find it, or takes it away from there once there is nothing to tell about it.
    fn place(&mut self, name: ServiceKey, view: ServiceView) {
        let nothing_to_tell = view.presence() == Presence::Unknown && view.removals().is_empty();
        let view = Arc::new(Published::new(view));
        let cell = match self.cell(&name).cloned() {
            Some(cell) => {
                cell.publish(view);
                cell
            }
            None => Arc::new(Cell::new(view)),
        };
        let listed = self.services.contains_key(&name);
        if nothing_to_tell {
            if listed {
                Arc::make_mut(&mut self.services).remove(&name);
            }
            if !cell.close_unless_followed() && listed {
                self.unknown.insert(name, Unknown { cell, _slot: None });
            }
        } else if !listed {
            self.unknown.remove(&name);
            Arc::make_mut(&mut self.services).insert(name, cell);
        }
    }

    /// The changes of a service, known or not, for somebody at this address. An unknown name costs the names that are
    /// published nothing.
    pub(super) fn follow(
        &mut self,
        service: &ServiceKey,
        bell: &Arc<Bell>,
        number: usize,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Follow, EngineError> {
        if let Some(follow) = self.cell(service).and_then(|cell| cell.follow(bell, number)) {
            return Ok(follow);
        }
        self.sweep(now);
        let slot = self.unknown_slots.take(from).map_err(|refused| match refused {
            Refused::Total => EngineError::TooManyFollowed { max: UNKNOWN_FOLLOWED_MAX, of_address: false },
            Refused::PerIp => EngineError::TooManyFollowed { max: UNKNOWN_FOLLOWED_PER_ADDRESS_MAX, of_address: true },
        })?;
        let cell = Arc::new(Cell::new(Arc::new(Published::new(self.current(service)))));
        self.unknown.insert(service.clone(), Unknown { cell: Arc::clone(&cell), _slot: Some(slot) });
        cell.follow(bell, number).ok_or(EngineError::Stopped)
    }

    /// Lets go of the unknown names that nobody follows any more.
    fn sweep(&mut self, now: Timestamp) {
        if now.since(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            self.unknown.retain(|_, unknown| !unknown.cell.close_unless_followed());
        }
    }

    fn cell(&self, service: &ServiceKey) -> Option<&Arc<Cell>> {
        self.services.get(service).or_else(|| self.unknown.get(service).map(|unknown| &unknown.cell))
    }

    fn current(&self, service: &ServiceKey) -> ServiceView {
        if let Some(view) = self.pending.get(service) {
            return view.clone();
        }
        match self.cell(service) {
            Some(cell) => ServiceView::clone(&cell.view()),
            None => ServiceView::unknown(service.clone(), self.position.revision),
        }
    }

    fn count(&self, before: &SoftState, after: &SoftState) {
        let (was, is) = (Counts::of(before), Counts::of(after));
        self.metrics.instances_suspect.inc_by(is.suspect - was.suspect);
        self.metrics.instances_stale.inc_by(is.stale - was.stale);
        self.metrics.services_holding.inc_by(is.holding - was.holding);

        let Some(hold) = after.hold else { return };
        let reason = match hold.reason {
            RemovalHoldReason::Rate => "held_rate",
            RemovalHoldReason::LastInstance => "held_last_instance",
            RemovalHoldReason::MajoritySilent => "held_majority_silent",
        };
        let stale = |soft: &SoftState, id| soft.instances.get(id).is_some_and(|h| h.liveness == Liveness::Stale);
        let newly = after.instances.keys().filter(|id| stale(after, id) && !stale(before, id)).count();
        if newly > 0 {
            self.metrics.expirations(reason).inc_by(newly as u64);
        }
    }
}
