//! `ListEvents`: what is remembered, and for who follows, what happens from there.
//!
//! There is no task and no queue: the transport pulls answers, and what happened meanwhile waits in the engine's ring. Who
//! reads so slowly that the ring goes round is told how much was missed.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use mesh_api::registry::v1 as pb;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Place;
use crate::catalog::{Invalid, Namespace, ServiceKey};
use crate::engine::{EVENTS_MAX, Event, Events};
use crate::wire::{self, Fault};

/// Which events are asked for.
#[derive(Debug)]
pub(super) struct Asked {
    namespace: Namespace,
    service: Option<ServiceKey>,
    limit: usize,
    follow: bool,
}

impl Asked {
    /// Reads a request.
    pub(super) fn of(request: &pb::ListEventsRequest) -> Result<Self, Fault> {
        let namespace = wire::namespace(&request.namespace)?;
        let service = match &*request.service {
            "" => None,
            name => Some(wire::service_key(&request.namespace, name)?),
        };
        let limit = match usize::try_from(request.limit) {
            Ok(0) => EVENTS_MAX,
            Ok(limit @ 1..=EVENTS_MAX) => limit,
            _ => return Err(Invalid::name("limit", &request.limit.to_string(), "0 to 1000").into()),
        };
        Ok(Self { namespace, service, limit, follow: request.follow })
    }

    fn wants(&self, event: &Event) -> bool {
        match &self.service {
            Some(service) => event.service == *service,
            None => event.service.namespace == self.namespace,
        }
    }

    fn pick(&self, events: &[Arc<Event>]) -> Vec<pb::MembershipEvent> {
        events.iter().filter(|event| self.wants(event)).map(|event| wire::event(event)).collect()
    }
}

pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<pb::ListEventsResponse, Status>> + Send>>;

/// A follower between two answers.
struct Following {
    events: Events,
    asked: Asked,
    latest: watch::Receiver<u64>,
    /// Everything up to here was answered.
    answered: u64,
    ends: CancellationToken,
    _place: Place,
}

/// Answers a request. A stream that follows ends with `ends`, and holds its place until then.
pub(super) fn answers(events: Events, asked: Asked, ends: CancellationToken, place: Place) -> Answers {
    let latest = events.latest();
    let (held, _) = events.after(0);
    let answered = held.last().map_or(0, |event| event.number);
    let mut picked = asked.pick(&held);
    picked.drain(..picked.len().saturating_sub(asked.limit));
    let first = Ok(pb::ListEventsResponse { events: picked, missed: 0 });
    if !asked.follow {
        return Box::pin(stream::iter([first]));
    }
    let following = Following { events, asked, latest, answered, ends, _place: place };
    let rest = stream::unfold(following, |mut following| async {
        let answer = following.next().await?;
        Some((Ok(answer), following))
    });
    Box::pin(futures_util::StreamExt::chain(stream::iter([first]), rest))
}

impl Following {
    async fn next(&mut self) -> Option<pb::ListEventsResponse> {
        loop {
            let (events, missed) = self.events.after(self.answered);
            self.answered = events.last().map_or(self.answered + missed, |event| event.number);
            let picked = self.asked.pick(&events);
            if !picked.is_empty() || missed > 0 {
                return Some(pb::ListEventsResponse { events: picked, missed });
            }
            tokio::select! {
                () = self.ends.cancelled() => return None,
                changed = self.latest.changed() => changed.ok()?,
            }
        }
    }
}
