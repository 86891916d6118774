//! Where messages are made: each once, however many watchers get it.
//!
//! Watchers of a service that keep up all hold the same revision, so the next delta is the same message for all of them.
//! The last few are kept in a small direct-mapped table; a watcher that misses it makes its own.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use parking_lot::Mutex;
use pb::watch_response::Event;

use super::message::Message;
use super::snapshot::{Complete, Snapshot};
use super::{BOOKMARK_INTERVAL, DELTA_BYTES_MAX};
use crate::catalog::{Position, Revision, ServiceKey, ServiceView, SoftState, Timestamp};
use crate::front::FrontError;
use crate::wire::{self, Loads};

/// Slots of the table. Two busy services that share a slot only cost each other some sharing.
const SLOTS: usize = 256;
/// Longest message that is kept: 4 MiB for the whole table.
const SHARED_BYTES_MAX: usize = 16 * 1024;

/// Makes messages and shares them between watchers.
#[derive(Debug)]
pub(super) struct Press {
    slots: Vec<Mutex<Option<(Imprint, Message)>>>,
}

/// What a message follows from entirely.
#[derive(Debug, Clone)]
struct Imprint {
    service: ServiceKey,
    position: Position,
    complete: Complete,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Delta {
        base: Revision,
    },
    /// Told apart by identity: the pointer is held, so it cannot come to mean another state.
    Soft(Arc<SoftState>),
}

impl Imprint {
    fn matches(&self, other: &Self) -> bool {
        let same_kind = match (&self.kind, &other.kind) {
            (Kind::Delta { base }, Kind::Delta { base: other }) => base == other,
            (Kind::Soft(soft), Kind::Soft(other)) => Arc::ptr_eq(soft, other),
            (Kind::Delta { .. }, Kind::Soft(_)) | (Kind::Soft(_), Kind::Delta { .. }) => false,
        };
        same_kind && self.complete == other.complete && self.position == other.position && self.service == other.service
    }

    fn slot(&self) -> usize {
        let mut hasher = DefaultHasher::new();
        self.service.hash(&mut hasher);
        std::mem::discriminant(&self.kind).hash(&mut hasher);
        usize::try_from(hasher.finish() % SLOTS as u64).expect("a remainder of 256 fits")
    }
}

impl Press {
    pub(super) fn new() -> Self {
        Self { slots: std::iter::repeat_with(Mutex::default).take(SLOTS).collect() }
    }

    /// The next chunk of a snapshot, and whether it is the last one.
    pub(super) fn chunk(snapshot: &mut Snapshot, store: &Position) -> (Message, End) {
        let chunk = snapshot.next_chunk();
        let end = if chunk.last { End::Last } else { End::More };
        let position = at(store, snapshot.revision());
        (about(snapshot.service(), &position, snapshot.complete(), Event::Snapshot(chunk)), end)
    }

    /// What changed in a service since `base`; `None` where that is too much for one message.
    pub(super) fn delta(
        &self,
        view: &ServiceView,
        base: Revision,
        changes: impl FnOnce() -> pb::Delta,
        store: &Position,
        complete: Complete,
    ) -> Option<Message> {
        let position = at(store, view.revision());
        let imprint =
            Imprint { service: view.key().clone(), position: position.clone(), complete, kind: Kind::Delta { base } };
        let message = self.shared(imprint, || about(view.key(), &position, complete, Event::Delta(changes())));
        (message.bytes() <= DELTA_BYTES_MAX).then_some(message)
    }

    /// The soft state of a service, beside the revision up to which the watcher holds the rest.
    pub(super) fn soft_state(
        &self,
        view: &ServiceView,
        held: Revision,
        store: &Position,
        complete: Complete,
        now: Timestamp,
    ) -> Message {
        let position = at(store, held);
        let make = || {
            let of = |loads| {
                about(view.key(), &position, complete, Event::SoftState(wire::soft_state(view.soft(), loads, now)))
            };
            let whole = of(Loads::Included);
            if whole.bytes() <= DELTA_BYTES_MAX { whole } else { of(Loads::LeftOut) }
        };
        if view.soft().hold.is_some() {
            // What is left of a hold changes with every look at it.
            return make();
        }
        let kind = Kind::Soft(Arc::clone(view.soft()));
        self.shared(Imprint { service: view.key().clone(), position: position.clone(), complete, kind }, make)
    }

    /// Everything followed is current up to this position, as far as this registry knows: it has not reached its store for
    /// so long.
    pub(super) fn bookmark(position: &Position, complete: Complete, stale_for: Option<Duration>) -> Message {
        let bookmark = pb::Bookmark {
            interval: Some(wire::duration(BOOKMARK_INTERVAL)),
            stale: stale_for.is_some(),
            stale_for: stale_for.map(wire::duration),
        };
        Message::new(pb::WatchResponse {
            position: Some(wire::position(position)),
            complete: complete.to_wire(),
            event: Some(Event::Bookmark(bookmark)),
            ..pb::WatchResponse::default()
        })
    }

    /// One subscription is refused. The name is given back as it came: it may be no name at all.
    pub(super) fn refusal(
        namespace: String,
        service: String,
        position: &Position,
        complete: Complete,
        why: &FrontError,
    ) -> Message {
        let verdict = why.verdict();
        let error = pb::ServiceError {
            code: verdict.code.into(),
            reason: verdict.reason.to_owned(),
            message: why.to_string(),
            retry_after: verdict.retry_after().map(wire::duration),
        };
        Message::new(pb::WatchResponse {
            namespace,
            service,
            position: Some(wire::position(position)),
            complete: complete.to_wire(),
            event: Some(Event::Error(error)),
        })
    }

    fn shared(&self, imprint: Imprint, make: impl FnOnce() -> Message) -> Message {
        let slot = &self.slots[imprint.slot()];
        if let Some((held, message)) = &*slot.lock()
            && held.matches(&imprint)
        {
            return message.clone();
        }
        let message = make();
        if message.bytes() <= SHARED_BYTES_MAX {
            *slot.lock() = Some((imprint, message.clone()));
        }
        message
    }
}

/// Whether more chunks follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    More,
    Last,
}

fn at(store: &Position, revision: Revision) -> Position {
    Position { revision, ..store.clone() }
}

fn about(service: &ServiceKey, position: &Position, complete: Complete, event: Event) -> Message {
    Message::new(pb::WatchResponse {
        namespace: service.namespace.as_str().to_owned(),
        service: service.name.as_str().to_owned(),
        position: Some(wire::position(position)),
        complete: complete.to_wire(),
        event: Some(event),
    })
}
