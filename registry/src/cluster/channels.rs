//! The way to other nodes over gRPC: a channel of the mesh client's to each, with that one address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use mesh_api::registry::v1::SoftStatesRequest;
use mesh_api::registry::v1::registry_peer_service_client::RegistryPeerServiceClient;
use mesh_client::{Mesh, MeshChannel, Policy};
use parking_lot::Mutex;
use tonic::{Request, Status};

use super::Member;
use super::peers::{KeptHealth, PeerError, Peers, RELAY_TIMEOUT, Relayed, RelayedBeat};
use crate::catalog::StoreId;
use crate::wire;

/// What a registry calls itself: it refuses calls for anybody else.
const AUTHORITY: &str = "registry";

/// Channels kept. Past it all are made anew: nodes that are gone leave theirs behind.
const CHANNELS_MAX: usize = 64;

/// How long a request waits for a connection. Who is not there is taken over from rather than waited for.
const FAILFAST: Duration = Duration::from_millis(500);

/// Longest message: a service of 10 000 instances that all report load.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The nodes of one store, by their addresses.
#[derive(Clone, Debug)]
pub struct PeerChannels {
    store: StoreId,
    channels: Arc<Mutex<BTreeMap<SocketAddr, MeshChannel>>>,
}

impl PeerChannels {
    /// The nodes of this store.
    #[must_use]
    pub fn new(store: StoreId) -> Self {
        Self { store, channels: Arc::default() }
    }

    fn client(&self, to: Member) -> Result<RegistryPeerServiceClient<MeshChannel>, PeerError> {
        let mut channels = self.channels.lock();
        if channels.len() >= CHANNELS_MAX && !channels.contains_key(&to.address) {
            channels.clear();
        }
        let channel = match channels.get(&to.address) {
            Some(channel) => channel.clone(),
            None => {
                let policy = Policy { hedging: None, failfast: FAILFAST, ..Policy::default() };
                let built = Mesh::builder()
                    .static_service(AUTHORITY, [to.address.into()])
                    .descriptors(mesh_api::FILE_DESCRIPTOR_SET)
                    .default_policy(policy)
                    .build();
                let mesh = built.map_err(|error| PeerError { reason: error.to_string() })?;
                channels.entry(to.address).or_insert(mesh.channel(AUTHORITY)).clone()
            }
        };
        Ok(RegistryPeerServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}

impl Peers for PeerChannels {
    fn relay(&self, to: Member, beats: Vec<RelayedBeat>) -> BoxFuture<'static, Result<Vec<Relayed>, PeerError>> {
        let client = self.client(to);
        let mut request = Request::new(wire::relay_request(&self.store, &beats));
        request.set_timeout(RELAY_TIMEOUT);
        async move {
            let answer = client?.relay(request).await.map_err(error)?;
            wire::relayed(answer.get_ref())
        }
        .boxed()
    }

    fn kept_health(&self, of: Member) -> BoxStream<'static, Result<KeptHealth, PeerError>> {
        let client = self.client(of);
        let request = SoftStatesRequest { store_id: self.store.as_str().to_owned() };
        let told = async move {
            let told = client?.soft_states(request).await.map_err(error)?.into_inner();
            Ok(told.map_err(error).and_then(|told| std::future::ready(wire::told_health(told))))
        };
        stream::once(told).try_flatten().boxed()
    }
}

fn error(status: Status) -> PeerError {
    PeerError { reason: format!("{:?}: {}", status.code(), status.message()) }
}
