//! How many calls one connection has open: a connection that was asked to go is given time while it has some.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The open calls of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenCalls(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: AtomicUsize,
    none_left: Notify,
}

/// One of them.
#[derive(Debug)]
pub(super) struct OpenCall(Arc<Shared>);

impl OpenCalls {
    pub(super) fn begin(&self) -> OpenCall {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        OpenCall(Arc::clone(&self.0))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
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
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_one();
        }
    }
}
