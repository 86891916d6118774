//! What is common to the calls of one target.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::config::TargetConfig;
use super::snapshot::Snapshot;
use super::waiting::WaitQueue;
use crate::metrics::CallStats;

/// What the manager writes and the calls read.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) ledger: Arc<Ledger>,
}

impl Shared {
    /// Replaces the snapshot, and has those who wait look at it where that may help them. Stored first: a call registers
    /// before it looks, so it is either woken or has seen the new one.
    pub(super) fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let former = self.snapshot.swap(snapshot.clone());
        if snapshot.is_news_after(&former) {
            self.ledger.queue.wake_all();
        }
    }
}

/// What the calls write. It knows nothing of the snapshot: connections hold it, and the snapshot holds connections.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The service's name.
    pub(crate) service: Arc<str>,
    pub(super) queue: WaitQueue,
    pub(crate) stats: CallStats,
}

impl Ledger {
    pub(super) fn new(config: &TargetConfig, born: Instant) -> Self {
        Self {
            service: config.service.clone(),
            queue: WaitQueue::new(config.policy.waiting_max),
            stats: CallStats::new(born),
        }
    }
}
