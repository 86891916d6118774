//! `mesh.registry.v1.RegistryService`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use mesh_api::encoded::Encoded;
use mesh_api::registry::v1 as pb;
use mesh_api::registry::v1_encoded::registry_service_server::{RegistryService, RegistryServiceServer};
use prost::Message as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::events;
use super::keep_alive::{self, Link};
use super::metrics::Metrics;
use super::pace::Pace;
use super::{FrontError, Peer, Places, Quotas};
use crate::catalog::{CatalogError, Position, Presence, StreamId};
use crate::engine::{Engine, View};
use crate::watch::{Hub, Pull};
use crate::wire::{self, Reach};

/// Longest message taken (S09): a thousand beats with their load reports.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Longest registration: whatever it carries is kept for as long as the instance lives and sent to every caller.
const REGISTER_BYTES_MAX: usize = 64 * 1024;
/// Longest answer of a plain call: what gRPC libraries take unless they are told otherwise. A whole service may be
/// longer, and then comes by `Watch`, in chunks.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a read waits for the position that it asks for.
const BEHIND_WAIT: Duration = Duration::from_secs(1);

/// The gRPC door.
#[derive(Debug)]
pub(crate) struct Front {
    engine: Engine,
    hub: Arc<Hub>,
    leaving: CancellationToken,
    ends: CancellationToken,
    keep_alive_streams: Places,
    event_streams: Places,
    registrations: Pace,
    metrics: Metrics,
}

impl Front {
    /// A door to this engine whose streams end with `ends`; those that end after `leaving` end as the registry's own act.
    pub(crate) fn new(
        engine: Engine,
        hub: Arc<Hub>,
        quotas: &Quotas,
        leaving: CancellationToken,
        ends: CancellationToken,
    ) -> Self {
        let keep_alive_streams = Places::new(quotas.heartbeat_streams);
        let event_streams = Places::new(quotas.event_streams);
        let registrations = Pace::new(quotas.registrations, quotas.registrations_per_address);
        let metrics = Metrics::of(hub.refusals());
        Self { engine, hub, leaving, ends, keep_alive_streams, event_streams, registrations, metrics }
    }

    /// An error as it goes to the caller, counted.
    fn refused(&self, error: impl Into<FrontError>) -> Status {
        self.metrics.refusals.status(error)
    }

    /// The door's metric families.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The service with its limits. It takes and sends no compressed messages (S09).
    pub(crate) fn into_service(self: Arc<Self>) -> RegistryServiceServer<Self> {
        RegistryServiceServer::from_arc(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What is published, once it includes a position.
    async fn view_including(&self, asked: Option<&pb::Position>) -> Result<Arc<View>, FrontError> {
        let Some(asked) = asked.map(wire::decode_position).transpose()? else { return Ok(self.engine.view()) };
        let mut positions = self.engine.positions();
        let included = |here: &Position| here.includes(&asked) != Some(false);
        let reached = timeout(BEHIND_WAIT, positions.wait_for(included)).await;
        let view = self.engine.view();
        let here = view.position();
        match (here.includes(&asked), reached) {
            (Some(true), _) => Ok(view),
            (None, _) => Err(FrontError::OtherStore { asked, here: here.clone() }),
            (Some(false), _) => Err(FrontError::Behind { asked, here: here.clone() }),
        }
    }
}

/// Renews leases and answers per beat, with the shortest interval over the leases renewed.
pub(super) async fn beat(
    engine: &Engine,
    beats: Vec<pb::Beat>,
    via: Option<StreamId>,
) -> Result<(Vec<pb::BeatResult>, Option<prost_types::Duration>), FrontError> {
    let beats = wire::beats(beats)?;
    let beaten = if beats.valid.is_empty() { Vec::new() } else { engine.beat(beats.valid, via).await? };
    let interval = beaten.iter().filter_map(|beaten| beaten.interval).min().map(wire::duration);
    Ok((wire::beat_results(beats.sent, &beaten), interval))
}

fn at(position: &Position) -> Option<pb::Position> {
    Some(wire::position(position))
}

#[tonic::async_trait]
impl RegistryService for Front {
    async fn register(&self, request: Request<pb::RegisterRequest>) -> Result<Response<pb::RegisterResponse>, Status> {
        let (reach, peer) = (Reach::of(request.remote_addr()), Peer::of(request.remote_addr()));
        let too_fast = |too_fast| self.refused(FrontError::TooManyRegistrations { too_fast });
        self.registrations.take(peer.address()).map_err(too_fast)?;
        let request = request.into_inner();
        let bytes = request.encoded_len();
        if bytes > REGISTER_BYTES_MAX {
            return Err(self.refused(FrontError::MessageTooLarge { bytes, max: REGISTER_BYTES_MAX }));
        }
        let request = wire::register(request, reach).map_err(|why| self.refused(why))?;
        let granted = self.engine.register(request).await.map_err(|why| self.refused(why))?;
        Ok(Response::new(wire::granted(&granted)))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        let (results, heartbeat_interval) =
            beat(&self.engine, request.into_inner().beats, None).await.map_err(|why| self.refused(why))?;
        Ok(Response::new(pb::HeartbeatResponse { results, heartbeat_interval }))
    }

    type KeepAliveStream = Pin<Box<dyn Stream<Item = Result<pb::KeepAliveResponse, Status>> + Send>>;

    async fn keep_alive(
        &self,
        request: Request<Streaming<pb::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let place = self.keep_alive_streams.take(Peer::of(request.remote_addr()));
        let place = place.map_err(|full| self.refused(FrontError::TooManyStreams { kind: "keep-alive", full }))?;
        let link =
            Link::open(self.engine.clone(), self.leaving.clone(), self.ends.clone(), self.metrics.clone(), place);
        Ok(Response::new(Box::pin(keep_alive::answers(link, request.into_inner()))))
    }

    async fn deregister(
        &self,
        request: Request<pb::DeregisterRequest>,
    ) -> Result<Response<pb::DeregisterResponse>, Status> {
        let who = wire::departure(request.into_inner()).map_err(|why| self.refused(why))?;
        let position = self.engine.deregister(who).await.map_err(|why| self.refused(why))?;
        Ok(Response::new(pb::DeregisterResponse { position: at(&position) }))
    }

    async fn set_admin_state(
        &self,
        request: Request<pb::SetAdminStateRequest>,
    ) -> Result<Response<pb::SetAdminStateResponse>, Status> {
        let rule = wire::admin_rule(request.into_inner()).map_err(|why| self.refused(why))?;
        let (position, selected) = self.engine.set_admin_state(rule).await.map_err(|why| self.refused(why))?;
        let instances_selected = wire::count(selected);
        Ok(Response::new(pb::SetAdminStateResponse { position: at(&position), instances_selected }))
    }

    async fn delete_service(
        &self,
        request: Request<pb::DeleteServiceRequest>,
    ) -> Result<Response<pb::DeleteServiceResponse>, Status> {
        let request = request.into_inner();
        let service = wire::service_key(&request.namespace, &request.service).map_err(|why| self.refused(why))?;
        let position = self.engine.delete_service(service).await.map_err(|why| self.refused(why))?;
        Ok(Response::new(pb::DeleteServiceResponse { position: at(&position) }))
    }

    async fn resolve(&self, request: Request<pb::ResolveRequest>) -> Result<Response<Encoded>, Status> {
        let request = request.into_inner();
        let key = wire::service_key(&request.namespace, &request.service).map_err(|why| self.refused(why))?;
        let view = self.view_including(request.at_least.as_ref()).await.map_err(|why| self.refused(why))?;
        let service = view.service(&key).filter(|service| service.presence() != Presence::Unknown);
        let service = service.ok_or_else(|| self.refused(CatalogError::UnknownService { service: key }))?;
        let revision = view.position().revision.max(service.revision());
        let hold = service.soft().hold.as_ref();
        let stale_for = view.stale_since().map(|since| wire::duration(self.engine.now().since(since)));
        let own = pb::ResolveResponse {
            stale: stale_for.is_some(),
            stale_for,
            position: at(&Position { revision, ..view.position().clone() }),
            complete: view.complete(),
            removal_hold: hold.map(|hold| wire::removal_hold(hold, self.engine.now())),
            ..pb::ResolveResponse::default()
        };
        let shared = self.hub.resolved(&service);
        let answer = Encoded::of(own.encode_to_vec().into(), shared);
        let bytes = answer.encoded_len();
        if bytes > ANSWER_BYTES_MAX {
            return Err(self.refused(FrontError::AnswerTooLarge { bytes, max: ANSWER_BYTES_MAX }));
        }
        Ok(Response::new(answer))
    }

    async fn list_services(
        &self,
        request: Request<pb::ListServicesRequest>,
    ) -> Result<Response<pb::ListServicesResponse>, Status> {
        let request = request.into_inner();
        let namespace = wire::namespace(&request.namespace).map_err(|why| self.refused(why))?;
        let size = wire::page_size(request.page_size).map_err(|why| self.refused(why))?;
        // The token is the last name of the page before: a page stays right when names come and go meanwhile.
        let after = match &*request.page_token {
            "" => None,
            name => Some(wire::page_token(&namespace, name).map_err(|why| self.refused(why))?),
        };
        let view = self.engine.view();
        let mut services: Vec<_> = view.services(&namespace, after.as_ref()).take(size + 1).collect();
        let more = services.len() > size;
        services.truncate(size);
        let next_page_token = match services.last() {
            Some(last) if more => last.key().name.as_str().to_owned(),
            _ => String::new(),
        };
        let now = self.engine.now();
        let stale_for = view.stale_since().map(|since| wire::duration(now.since(since)));
        Ok(Response::new(pb::ListServicesResponse {
            stale: stale_for.is_some(),
            stale_for,
            services: services.iter().map(|service| wire::summary(service, now)).collect(),
            position: at(view.position()),
            complete: view.complete(),
            next_page_token,
            process: Some(pb::RegistryProcess {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                now: Some(wire::timestamp(now)),
            }),
        }))
    }

    type ListEventsStream = events::Answers;

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        let peer = Peer::of(request.remote_addr());
        let asked = events::Asked::of(request.get_ref()).map_err(|why| self.refused(why))?;
        let place = self.event_streams.take(peer);
        let place = place.map_err(|full| self.refused(FrontError::TooManyStreams { kind: "event", full }))?;
        Ok(Response::new(events::answers(self.engine.events(), asked, self.ends.clone(), place)))
    }

    type WatchStream = Pull;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = Peer::of(request.remote_addr());
        // The hub counts what it refuses.
        Ok(self.hub.watch(peer, request.into_inner())?.response())
    }
}
