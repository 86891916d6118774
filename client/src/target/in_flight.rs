//! The guard that counts one attempt of a call on its endpoint, and tells the endpoint how it went.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::Code;

use super::subchannel::Subchannel;
use crate::conn::{Conn, Wire};
use crate::endpoint::Endpoint;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server's own word, from trailers or from an answer of only a head.
    Code(Code),
    /// The connection broke under it.
    Lost,
    /// The server did not process it.
    Unprocessed,
    /// The stream was reset, or somebody broke the protocol.
    Broken,
    /// The caller wants it no more.
    Cancelled,
    /// The caller's own deadline passed.
    Expired,
}

/// A call in flight, from its pick until its trailers, its failure or its cancellation: dropping it is what ends the count,
/// so no path can forget to. Dropped without [`InFlight::end`] it was cancelled.
#[derive(Debug)]
pub(crate) struct InFlight {
    subchannel: Arc<Subchannel>,
    picked: Instant,
    sent: u64,
    received: u64,
}

impl InFlight {
    pub(super) fn new(subchannel: Arc<Subchannel>, picked: Instant) -> Self {
        Self { subchannel, picked, sent: 0, received: 0 }
    }

    pub(crate) fn conn(&self) -> &Wire {
        &self.subchannel.conn
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.subchannel.endpoint
    }

    /// The head of the answer came: that is what latency is measured by, since what follows it may be a long stream.
    pub(crate) fn answered(&mut self, now: Instant) {
        let _ = now.saturating_duration_since(self.picked);
    }

    /// So many bytes of messages went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// So many bytes of messages came.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// The attempt is over.
    pub(crate) fn end(self, outcome: Outcome, now: Instant) {
        let _ = (outcome, now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.subchannel.endpoint.leave();
        self.subchannel.conn.vitals().leave();
        self.subchannel.queue.wake_one();
    }
}
