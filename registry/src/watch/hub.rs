//! The owner of all watchers.

use std::sync::Arc;

use futures_util::Stream;
use mesh_api::registry::v1::WatchRequest;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::metrics::Metrics;
use super::press::Press;
use super::queue::{Drain, queue};
use super::watcher::Watcher;
use crate::engine::Engine;
use crate::front::{FrontError, Peer, Places};

/// Most watch streams at a time. Each costs a task, its subscriptions and at most a queue.
const STREAMS_MAX: u32 = 20_000;
/// Most of them of one address: as many processes as its connections serve, two each, and one watch stream for each.
const STREAMS_PER_PEER_MAX: u32 = 1_024;
/// Most services followed, summed over all streams. Each costs about a KiB.
const SUBSCRIPTIONS_IN_ALL_MAX: u32 = 500_000;
/// Most of them of one address: fifty for each of its streams, and all of what one may have for fifty of them.
const SUBSCRIPTIONS_PER_PEER_MAX: u32 = 50_000;

/// What all watchers share. The task of each ends with its stream, with `ends`, or when the engine stops.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(super) engine: Engine,
    pub(super) press: Press,
    pub(super) ends: CancellationToken,
    pub(super) metrics: Metrics,
    pub(super) subscriptions: Places,
    streams: Places,
    tasks: TaskTracker,
}

impl Hub {
    /// A hub over this engine whose watches end with `ends`.
    pub(crate) fn new(engine: Engine, ends: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            engine,
            press: Press::new(),
            ends,
            metrics: Metrics::default(),
            subscriptions: Places::new(SUBSCRIPTIONS_IN_ALL_MAX, SUBSCRIPTIONS_PER_PEER_MAX),
            streams: Places::new(STREAMS_MAX, STREAMS_PER_PEER_MAX),
            tasks: TaskTracker::new(),
        })
    }

    /// The hub's metric families.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Serves one watch stream of this peer: the requests come in here, the answers come out of what is returned.
    pub(crate) fn watch<R>(self: &Arc<Self>, peer: Peer, requests: R) -> Result<Drain, FrontError>
    where
        R: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin + 'static,
    {
        let slot = self.streams.take(peer).map_err(|full| FrontError::TooManyStreams { kind: "watch", full })?;
        let (feed, drain) = queue();
        let watcher = Watcher::new(Arc::clone(self), peer, feed);
        self.tasks.spawn(async move {
            watcher.run(requests).await;
            drop(slot);
        });
        Ok(drain)
    }

    /// Resolves when every watcher's task has ended; they do once `ends` is cancelled.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
