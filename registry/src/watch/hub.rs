//! The owner of all watchers.

use std::sync::Arc;

use futures_util::Stream;
use mesh_api::registry::v1::WatchRequest;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::metrics::Metrics;
use super::press::Press;
use super::queue::{Drain, queue};
use super::watcher::Watcher;
use crate::engine::Engine;
use crate::front::FrontError;

/// Most watch streams at a time. Each costs a task, its subscriptions and at most a queue.
const STREAMS_MAX: usize = 20_000;

/// What all watchers share. The task of each ends with its stream, with `ends`, or when the engine stops.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(super) engine: Engine,
    pub(super) press: Press,
    pub(super) ends: CancellationToken,
    pub(super) metrics: Metrics,
    streams: Arc<Semaphore>,
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
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            tasks: TaskTracker::new(),
        })
    }

    /// The hub's metric families.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Serves one watch stream: the requests come in here, the answers come out of what is returned.
    pub(crate) fn watch<R>(self: &Arc<Self>, requests: R) -> Result<Drain, FrontError>
    where
        R: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin + 'static,
    {
        let full = FrontError::TooManyStreams { kind: "watch", max: STREAMS_MAX };
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| full)?;
        let (feed, drain) = queue();
        let watcher = Watcher::new(Arc::clone(self), feed);
        self.tasks.spawn(async move {
            watcher.run(requests).await;
            drop(permit);
        });
        Ok(drain)
    }

    /// Resolves when every watcher's task has ended; they do once `ends` is cancelled.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
