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
use crate::front::{FrontError, Peer, Places, Quotas, Refusals};

/// What all watchers share. The task of each ends with its stream, with `ends`, or when the engine stops.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(super) engine: Engine,
    pub(super) press: Press,
    pub(super) ends: CancellationToken,
    pub(super) metrics: Metrics,
    pub(super) refusals: Refusals,
    pub(super) subscriptions: Places,
    streams: Places,
    tasks: TaskTracker,
}

impl Hub {
    /// A hub over this engine whose watches end with `ends`.
    pub(crate) fn new(engine: Engine, quotas: &Quotas, ends: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            engine,
            press: Press::new(),
            ends,
            metrics: Metrics::default(),
            refusals: Refusals::default(),
            subscriptions: Places::new(quotas.watched_names),
            streams: Places::new(quotas.watch_streams),
            tasks: TaskTracker::new(),
        })
    }

    /// The hub's metric families.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts what is refused here and elsewhere.
    pub(crate) fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Serves one watch stream of this peer: the requests come in here, the answers come out of what is returned.
    pub(crate) fn watch<R>(self: &Arc<Self>, peer: Peer, requests: R) -> Result<Drain, FrontError>
    where
        R: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin + 'static,
    {
        let place = self.streams.take(peer).map_err(|full| {
            let why = FrontError::TooManyStreams { kind: "watch", full };
            self.refusals.count(&why);
            why
        })?;
        let (feed, drain) = queue();
        let watcher = Watcher::new(Arc::clone(self), peer, feed);
        self.tasks.spawn(async move {
            watcher.run(requests).await;
            drop(place);
        });
        Ok(drain)
    }

    /// Resolves when every watcher's task has ended; they do once `ends` is cancelled.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
