//! How many calls one connection has open: a connection that was asked to go is given time while it has some.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The half of the counts that tells how many are open: a connection has far fewer than four thousand million.
const OPEN: u64 = u32::MAX as u64;
/// One call begun.
const BEGUN: u64 = OPEN + 1;

/// The open calls of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenCalls(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Open ones in the lower half; in the upper half those that have begun, round and round.
    counts: AtomicU64,
    none_left: Notify,
}

/// One of them.
#[derive(Debug)]
pub(super) struct OpenCall(Arc<Shared>);

impl OpenCalls {
    pub(super) fn begin(&self) -> OpenCall {
        self.0.counts.fetch_add(BEGUN + 1, Ordering::AcqRel);
        OpenCall(Arc::clone(&self.0))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.counts.load(Ordering::Acquire) & OPEN == 0
    }

    /// Changes with every call that begins.
    pub(super) fn begun(&self) -> u64 {
        self.0.counts.load(Ordering::Acquire) & !OPEN
    }

    /// Resolves at a moment at which no call is open.
    pub(super) async fn none_left(&self) {
        while !self.is_empty() {
            // `notify_one` leaves a permit, so an end between the check and the wait is not missed.
            self.0.none_left.notified().await;
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if self.0.counts.fetch_sub(1, Ordering::AcqRel) & OPEN == 1 {
            self.0.none_left.notify_one();
        }
    }
}
