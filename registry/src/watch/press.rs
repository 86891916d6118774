//! Where messages are made: each once, however many watchers get it.
//!
//! Watchers of a service that keep up all hold the same revision, so the next delta is the same message for all of them,
//! and so is a snapshot from scratch but for its position. What is everybody's is kept beside the view that it was made
//! of; what is a watcher's own stands before it, some fifty bytes.

use std::time::Duration;

use bytes::Bytes;
use mesh_api::registry::v1 as pb;
use pb::watch_response::Event;
use prost::Message as _;

use super::framed::Framed;
use super::{BOOKMARK_INTERVAL, DELTA_BYTES_MAX};
use crate::catalog::{Position, Revision, ServiceKey, Timestamp};
use crate::engine::Published;
use crate::front::FrontError;
use crate::wire::{self, Loads, Shelf};

/// Whether the registry's state was whole when something was taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Complete {
    Whole,
    Warming,
}

impl Complete {
    pub(super) fn from_wire(complete: bool) -> Self {
        if complete { Self::Whole } else { Self::Warming }
    }

    pub(super) fn to_wire(self) -> bool {
        self == Self::Whole
    }
}

/// Makes messages and shares them between watchers.
#[derive(Debug, Default)]
pub(super) struct Press {
    pub(super) shelf: Shelf,
}

impl Press {
    /// Everything that changed in a service since `base`; `None` where that is too much for one message.
    pub(super) fn delta(
        &self,
        view: &Published,
        base: Revision,
        changes: impl FnOnce() -> pb::Delta,
        store: &Position,
        complete: Complete,
    ) -> Option<Framed> {
        let make = || {
            let position = wire::position(&at(store, view.revision()));
            let own =
                pb::WatchResponse { position: Some(position), complete: complete.to_wire(), ..Default::default() };
            let event = Event::Delta(changes());
            Framed::message(&pb::WatchResponse { event: Some(event), ..about(view.key(), own) })
        };
        let message = Framed::whole(view.memo().delta(&self.shelf, (base, complete.to_wire()), make));
        (message.len() <= DELTA_BYTES_MAX).then_some(message)
    }

    /// The soft state of a service, beside the revision up to which the watcher holds the rest.
    pub(super) fn soft_state(
        &self,
        view: &Published,
        held: Revision,
        store: &Position,
        complete: Complete,
        now: Timestamp,
    ) -> Framed {
        let make = || {
            let of = |loads| {
                let event = Event::SoftState(wire::soft_state(view.soft(), loads, now));
                pb::WatchResponse { event: Some(event), ..about(view.key(), pb::WatchResponse::default()) }
            };
            let whole = of(Loads::Included);
            let told = if whole.encoded_len() <= DELTA_BYTES_MAX { whole } else { of(Loads::LeftOut) };
            told.encode_to_vec().into()
        };
        let shared = view.memo().soft(&self.shelf, view.soft().hold.map(|_| now), make);
        Framed::of(&own(&at(store, held), complete), Bytes::clone(&shared))
    }

    /// One chunk of a snapshot.
    pub(super) fn chunk(chunk: Bytes, revision: Revision, store: &Position, complete: Complete) -> Framed {
        Framed::of(&own(&at(store, revision), complete), chunk)
    }

    /// Everything followed is current up to this position, as far as this registry knows: it has not reached its store for
    /// so long.
    pub(super) fn bookmark(position: &Position, complete: Complete, stale_for: Option<Duration>) -> Framed {
        let bookmark = pb::Bookmark {
            interval: Some(wire::duration(BOOKMARK_INTERVAL)),
            stale: stale_for.is_some(),
            stale_for: stale_for.map(wire::duration),
        };
        let event = Some(Event::Bookmark(bookmark));
        Framed::whole(Framed::message(&pb::WatchResponse { event, ..own(position, complete) }))
    }

    /// One subscription is refused. The name is given back as it came: it may be no name at all.
    pub(super) fn refusal(
        namespace: String,
        service: String,
        position: &Position,
        complete: Complete,
        why: &FrontError,
    ) -> Framed {
        let verdict = why.verdict();
        let error = pb::ServiceError {
            code: verdict.code.into(),
            reason: verdict.reason.to_owned(),
            message: why.to_string(),
            retry_after: verdict.retry_after().map(wire::duration),
        };
        let event = Some(Event::Error(error));
        let refusal = pb::WatchResponse { namespace, service, event, ..own(position, complete) };
        Framed::whole(Framed::message(&refusal))
    }
}

fn at(store: &Position, revision: Revision) -> Position {
    Position { revision, ..store.clone() }
}

/// What a message says beside its event: the part of it that is its receiver's own.
fn own(position: &Position, complete: Complete) -> pb::WatchResponse {
    let (position, complete) = (Some(wire::position(position)), complete.to_wire());
    pb::WatchResponse { position, complete, ..pb::WatchResponse::default() }
}

fn about(service: &ServiceKey, response: pb::WatchResponse) -> pb::WatchResponse {
    let (namespace, service) = (service.namespace.as_str().to_owned(), service.name.as_str().to_owned());
    pb::WatchResponse { namespace, service, ..response }
}
