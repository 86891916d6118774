//! `mesh.registry.v1.RegistryPeerService`: the door for the other processes of the store.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use mesh_api::registry::v1 as pb;
use pb::registry_peer_service_server::{RegistryPeerService, RegistryPeerServiceServer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::FrontError;
use crate::engine::Engine;
use crate::wire;

/// Longest message taken: a thousand beats with their load reports.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Most streams of soft state at a time, and most relayed requests in hand: one for each other process of the store, which
/// are a handful.
const PEERS_MAX: usize = 64;

/// The door for other processes of the store.
#[derive(Debug)]
pub(crate) struct PeerFront {
    engine: Engine,
    ends: CancellationToken,
    streams: Arc<Semaphore>,
    relays: Semaphore,
}

impl PeerFront {
    /// A door to this engine whose streams end with `ends`.
    pub(crate) fn new(engine: Engine, ends: CancellationToken) -> Self {
        Self { engine, ends, streams: Arc::new(Semaphore::new(PEERS_MAX)), relays: Semaphore::new(PEERS_MAX) }
    }

    /// The service with its limits.
    pub(crate) fn into_service(self) -> RegistryPeerServiceServer<Self> {
        RegistryPeerServiceServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Refuses processes of another store: their leases mean nothing here.
    fn admit(&self, store: &str) -> Result<(), FrontError> {
        let here = self.engine.view().position().store.clone();
        if here.as_str() == store {
            Ok(())
        } else {
            Err(FrontError::PeerOfOtherStore { asked: store.to_owned(), here })
        }
    }
}

#[tonic::async_trait]
impl RegistryPeerService for PeerFront {
    async fn relay(&self, request: Request<pb::RelayRequest>) -> Result<Response<pb::RelayResponse>, Status> {
        let pb::RelayRequest { store_id, beats } = request.into_inner();
        self.admit(&store_id)?;
        let _place = self.relays.try_acquire().map_err(|_| FrontError::TooManyPeers { max: PEERS_MAX })?;
        let beats = wire::relayed_beats(beats).map_err(FrontError::from)?;
        let relayed = self.engine.relayed(beats).await.map_err(FrontError::from)?;
        Ok(Response::new(wire::relay_response(&relayed)))
    }

    type SoftStatesStream = Pin<Box<dyn Stream<Item = Result<pb::SoftStatesResponse, Status>> + Send>>;

    async fn soft_states(
        &self,
        request: Request<pb::SoftStatesRequest>,
    ) -> Result<Response<Self::SoftStatesStream>, Status> {
        self.admit(&request.into_inner().store_id)?;
        let place = Arc::clone(&self.streams).try_acquire_owned();
        let place = place.map_err(|_| FrontError::TooManyPeers { max: PEERS_MAX })?;
        let told = self.engine.kept_health().map(move |kept| {
            let _held_for_as_long = &place;
            Ok(wire::kept_health(&kept))
        });
        Ok(Response::new(Box::pin(told.take_until(self.ends.clone().cancelled_owned()))))
    }
}
