//! Events as messages.

use mesh_api::registry::v1 as pb;

use super::encode;
use crate::catalog::Timestamp;
use crate::engine::{Event, EventKind};

/// An event as a message.
pub(crate) fn event(event: &Event) -> pb::MembershipEvent {
    let subject = event.subject;
    pb::MembershipEvent {
        number: event.number,
        time: Some(timestamp(event.at)),
        kind: kind(event.kind).into(),
        namespace: event.service.namespace.as_str().to_owned(),
        service: event.service.name.as_str().to_owned(),
        instance_id: subject.map(|subject| subject.id.to_string()).unwrap_or_default(),
        incarnation: subject.and_then(|subject| subject.incarnation).map_or(0, |incarnation| incarnation.get()),
        address: subject.and_then(|subject| subject.address).map(|address| address.to_string()).unwrap_or_default(),
        node: event.node.map(|node| node.to_string()).unwrap_or_default(),
        detail: event.detail.clone().into_owned(),
        position: Some(encode::position(&event.position)),
    }
}

/// A moment as a message.
pub(crate) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let since_epoch = at.as_duration();
    prost_types::Timestamp {
        // A timestamp ends in the year 2554.
        seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since_epoch.subsec_nanos()).expect("below a billion"),
    }
}

fn kind(kind: EventKind) -> pb::EventKind {
    match kind {
        EventKind::Registered => pb::EventKind::Registered,
        EventKind::TakenOver => pb::EventKind::TakenOver,
        EventKind::Updated => pb::EventKind::Updated,
        EventKind::Serving => pb::EventKind::Serving,
        EventKind::Admin => pb::EventKind::Admin,
        EventKind::Removed => pb::EventKind::Removed,
        EventKind::HeldBack => pb::EventKind::HeldBack,
        EventKind::Released => pb::EventKind::Released,
        EventKind::Fenced => pb::EventKind::Fenced,
    }
}
