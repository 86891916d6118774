//! The latest membership changes, for people who ask what happened: a ring in memory, written by the engine alone and read
//! without a lock.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::time::Clock;
use crate::catalog::{
    CatalogError, Command, Incarnation, Instance, InstanceId, NodeId, Position, Protocol, RemovalHold,
    RemovalHoldReason, RemovalReason, Revision, ServiceChange, ServiceKey, ServiceView, Timestamp,
};

/// How many events are remembered. Some 300 bytes each.
pub const EVENTS_MAX: usize = 1_000;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventKind {
    /// An instance is there.
    Registered,
    /// A newer start has the id of an instance.
    TakenOver,
    /// An instance says something else of itself.
    Updated,
    /// An instance's serving status changed.
    Serving,
    /// What operators want of an instance changed.
    Admin,
    /// An instance is gone.
    Removed,
    /// Removals by silence are held back in a service.
    HeldBack,
    /// They no longer are.
    Released,
    /// A start was refused: a newer one holds its id, or it has said goodbye under it.
    Fenced,
}

impl EventKind {
    /// How an instance differs from what it was.
    pub(super) fn of(was: Option<&Instance>, is: &Instance) -> Self {
        match was {
            None => Self::Registered,
            Some(was) if was.incarnation() != is.incarnation() => Self::TakenOver,
            Some(was) if was.admin() != is.admin() => Self::Admin,
            Some(was) if was.serving() != is.serving() => Self::Serving,
            Some(_) => Self::Updated,
        }
    }

    /// In a word or two.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::TakenOver => "taken over",
            Self::Updated => "updated",
            Self::Serving => "serving status",
            Self::Admin => "admin state",
            Self::Removed => "removed",
            Self::HeldBack => "held back",
            Self::Released => "released",
            Self::Fenced => "fenced",
        }
    }
}

/// Whom an event is about, beside the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Its id.
    pub id: InstanceId,
    /// Its incarnation; `None` for a start that was let hold none.
    pub incarnation: Option<Incarnation>,
    /// Where it answers gRPC, if that is known.
    pub address: Option<SocketAddr>,
}

/// One change of who is there, or one refusal that tells who fights for an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Rises by one with every event of this process, from 1.
    pub number: u64,
    /// When it was seen here.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// In which service.
    pub service: ServiceKey,
    /// To whom; `None` where the whole service is meant.
    pub subject: Option<Subject>,
    /// Why, in words.
    pub detail: Cow<'static, str>,
    /// The position that includes it, or for what is not stored, the one at which it was seen.
    pub position: Position,
    /// The node that saw it, where there are several.
    pub node: Option<NodeId>,
}

/// The ring. Cheap to clone; only the engine's task writes.
#[derive(Clone, Debug)]
pub struct Events(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    clock: Clock,
    node: Option<NodeId>,
    /// The event of number n is at n modulo the length.
    slots: Vec<ArcSwapOption<Event>>,
    latest: watch::Sender<u64>,
}

impl Events {
    /// A ring of a node in which nothing has happened.
    pub(super) fn new(clock: Clock, node: Option<NodeId>) -> Self {
        let slots = std::iter::repeat_with(ArcSwapOption::empty).take(EVENTS_MAX).collect();
        Self(Arc::new(Ring { clock, node, slots, latest: watch::Sender::new(0) }))
    }

    /// The number of the latest event, as it rises; 0 is none yet.
    #[must_use]
    pub fn latest(&self) -> watch::Receiver<u64> {
        self.0.latest.subscribe()
    }

    /// The events after this number, and how many more there were that are forgotten.
    #[must_use]
    pub fn after(&self, number: u64) -> (Vec<Arc<Event>>, u64) {
        let latest = *self.0.latest.borrow();
        let asked = latest.saturating_sub(number);
        let held = asked.min(EVENTS_MAX as u64);
        let read = (latest - held + 1..=latest).filter_map(|number| {
            // A newer one stands there where the engine was faster than this loop.
            self.0.slots[slot(number)].load_full().filter(|event| event.number == number)
        });
        let read: Vec<_> = read.collect();
        let missed = asked - read.len() as u64;
        (read, missed)
    }

    /// Only from the engine's task: numbers are given here.
    fn record(
        &self,
        kind: EventKind,
        service: ServiceKey,
        subject: Option<Subject>,
        detail: Cow<'static, str>,
        position: Position,
    ) {
        let Ring { clock, node, slots, latest } = &*self.0;
        let number = *latest.borrow() + 1;
        let event = Event { number, at: clock.now(), kind, service, subject, detail, position, node: *node };
        slots[slot(number)].store(Some(Arc::new(event)));
        latest.send_replace(number);
    }

    /// A commit changed a service of this store.
    pub(super) fn changed(&self, before: &ServiceView, change: &ServiceChange, store: &Position) {
        let at = |revision: Revision| Position { revision, ..store.clone() };
        for instance in &change.upserts {
            let was = before.instances().get(&instance.id()).map(|was| &**was);
            let kind = EventKind::of(was, instance);
            let detail = difference(kind, was, instance);
            self.record(kind, change.service.clone(), Some(subject(instance)), detail, at(change.revision));
        }
        for removal in &change.gone {
            let address = before.instances().get(&removal.id).and_then(|was| main_address(was));
            let subject = Subject { id: removal.id, incarnation: Some(removal.incarnation), address };
            let detail = Cow::Borrowed(why_removed(removal.reason));
            self.record(EventKind::Removed, change.service.clone(), Some(subject), detail, at(change.revision));
        }
    }

    /// A service may have begun or ceased to hold removals back.
    pub(super) fn held(
        &self,
        service: &ServiceKey,
        before: Option<RemovalHold>,
        after: Option<RemovalHold>,
        here: &Position,
    ) {
        let (kind, detail) = match (before.map(|hold| hold.reason), after) {
            (was, Some(hold)) if was != Some(hold.reason) => {
                (EventKind::HeldBack, format!("{}; {} kept as STALE", why_held(hold.reason), hold.held))
            }
            (Some(was), None) => (EventKind::Released, format!("was: {}", why_held(was))),
            _ => return,
        };
        self.record(kind, service.clone(), None, detail.into(), here.clone());
    }

    /// A command was refused; only who fights for an id is remembered, since nonsense must not push out what matters.
    pub(super) fn refused(&self, command: &Command, error: &CatalogError, here: &Position) {
        let Command::Register { request, .. } = command else { return };
        let detail = match error {
            CatalogError::Fenced { by } => format!("a newer start holds the id, incarnation {by}"),
            CatalogError::Departed { retry_in } => {
                format!("this start said goodbye; it may come back in {} s", retry_in.as_secs())
            }
            _ => return,
        };
        let address = request.spec.endpoints().iter().find(|endpoint| endpoint.protocol() == Protocol::Grpc);
        let incarnation = request.held.as_ref().map(|(held, _)| *held);
        let subject = Subject { id: request.id, incarnation, address: address.map(|endpoint| endpoint.address()) };
        // One that asks again and again is one event for as long as nothing else happens.
        let last = *self.0.latest.borrow();
        let repeated = self.0.slots[slot(last)].load();
        let same = |event: &Event| {
            event.kind == EventKind::Fenced && event.subject == Some(subject) && event.service == request.service
        };
        if !repeated.as_deref().is_some_and(same) {
            self.record(EventKind::Fenced, request.service.clone(), Some(subject), detail.into(), here.clone());
        }
    }
}

fn slot(number: u64) -> usize {
    usize::try_from(number % EVENTS_MAX as u64).expect("below a thousand")
}

fn subject(instance: &Instance) -> Subject {
    Subject { id: instance.id(), incarnation: Some(instance.incarnation()), address: main_address(instance) }
}

/// Where it is called: by gRPC, or where it does not speak that, at the first of its endpoints.
fn main_address(instance: &Instance) -> Option<SocketAddr> {
    let endpoints = instance.spec().endpoints();
    let grpc = endpoints.iter().find(|endpoint| endpoint.protocol() == Protocol::Grpc);
    grpc.or_else(|| endpoints.first()).map(|endpoint| endpoint.address())
}

fn difference(kind: EventKind, was: Option<&Instance>, is: &Instance) -> Cow<'static, str> {
    let (Some(was), true) = (was, kind != EventKind::Registered) else {
        let (version, zone) = (is.spec().version.as_str(), is.spec().zone.as_str());
        let said = [("version", version), ("zone", zone)].into_iter().filter(|(_, value)| !value.is_empty());
        let mut text = String::with_capacity(version.len() + zone.len() + "version , zone ".len());
        for (name, value) in said {
            let comma = if text.is_empty() { "" } else { ", " };
            text.extend([comma, name, " ", value]);
        }
        return text.into();
    };
    match kind {
        EventKind::TakenOver => format!("a newer start has the id; incarnation {} before", was.incarnation()).into(),
        EventKind::Admin => format!("{:?} to {:?}", was.admin(), is.admin()).into(),
        EventKind::Serving => format!("{:?} to {:?}", was.serving(), is.serving()).into(),
        _ if was.spec().endpoints() != is.spec().endpoints() => "other addresses".into(),
        _ if was.spec().version != is.spec().version => format!("version {}", is.spec().version.as_str()).into(),
        _ if was.spec().weight != is.spec().weight => "another weight".into(),
        _ if was.spec().grpc_services() != is.spec().grpc_services() => "its gRPC services or their status".into(),
        _ => "registered anew".into(),
    }
}

fn why_removed(reason: RemovalReason) -> &'static str {
    match reason {
        RemovalReason::Deregistered => "it said goodbye",
        RemovalReason::Expired => "its lease ran out: no heartbeat came",
        RemovalReason::Superseded => "a newer start has its id, in another service",
        RemovalReason::Operator => "an operator removed it",
    }
}

fn why_held(reason: RemovalHoldReason) -> &'static str {
    match reason {
        RemovalHoldReason::Rate => "this window's share of removals by silence is used up",
        RemovalHoldReason::LastInstance => "silence alone does not remove the last instance",
        RemovalHoldReason::MajoritySilent => "more than half fell silent together",
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::catalog::{Generation, StoreId};

    fn ring() -> Events {
        Events::new(Clock::starting_at(SystemTime::UNIX_EPOCH), None)
    }

    fn position() -> Position {
        let store = StoreId::parse("store").expect("a store id");
        Position { store, generation: Generation(0), revision: Revision::new(1) }
    }

    fn happen(events: &Events, count: u64) {
        for _ in 0..count {
            let service = ServiceKey::parse("", "user-svc").expect("a name");
            events.record(EventKind::Released, service, None, "".into(), position());
        }
    }

    fn numbers(events: &Events, after: u64) -> (Vec<u64>, u64) {
        let (read, missed) = events.after(after);
        (read.iter().map(|event| event.number).collect(), missed)
    }

    #[tokio::test]
    async fn the_latest_thousand_are_remembered_in_order() {
        let events = ring();
        assert_eq!(numbers(&events, 0), (vec![], 0));
        happen(&events, 3);
        assert_eq!(numbers(&events, 0), (vec![1, 2, 3], 0));
        assert_eq!(numbers(&events, 2), (vec![3], 0));
        assert_eq!(numbers(&events, 3), (vec![], 0));
        happen(&events, 1_000);
        let (read, missed) = numbers(&events, 1);
        assert_eq!((read.first(), read.last(), read.len(), missed), (Some(&4), Some(&1_003), 1_000, 2));
    }

    #[tokio::test]
    async fn a_number_from_another_life_of_the_process_is_no_harm() {
        let events = ring();
        happen(&events, 2);
        assert_eq!(numbers(&events, 77), (vec![], 0));
    }

    #[tokio::test]
    async fn who_follows_is_woken() {
        let events = ring();
        let mut latest = events.latest();
        happen(&events, 1);
        latest.changed().await.expect("the ring lives");
        assert_eq!(*latest.borrow_and_update(), 1);
    }
}
