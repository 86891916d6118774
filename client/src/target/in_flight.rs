//! The guard that counts one attempt of a call on its endpoint, and tells the endpoint how it went.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::Code;

use super::Wanted;
use super::subchannel::Subchannel;
use crate::clock;
use crate::conn::{Conn, Wire};
use crate::endpoint::Endpoint;
use crate::metrics::MethodIndex;

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

impl Outcome {
    /// What metrics call it (gRPC A66: the status that the caller would get).
    fn code(self) -> Code {
        match self {
            Self::Code(code) => code,
            Self::Lost | Self::Unprocessed => Code::Unavailable,
            Self::Broken => Code::Internal,
            Self::Cancelled => Code::Cancelled,
            Self::Expired => Code::DeadlineExceeded,
        }
    }
}

/// A call in flight, from its pick until its trailers, its failure or its cancellation: dropping it is what ends the count,
/// so no path can forget to. Dropped without [`InFlight::end`] it was given up: by its deadline, or by the caller.
#[derive(Debug)]
pub(crate) struct InFlight {
    subchannel: Arc<Subchannel>,
    picked: Instant,
    deadline: Option<Instant>,
    metric: MethodIndex,
    sent_bytes: u64,
    received_bytes: u64,
    /// Whether the end is booked.
    ended: bool,
}

impl InFlight {
    /// For a call that has entered `subchannel`.
    pub(super) fn new(subchannel: Arc<Subchannel>, wanted: &Wanted<'_>) -> Self {
        subchannel.ledger.stats.attempt_started(wanted.metric);
        Self {
            subchannel,
            picked: wanted.now,
            deadline: wanted.deadline,
            metric: wanted.metric,
            sent_bytes: 0,
            received_bytes: 0,
            ended: false,
        }
    }

    pub(crate) fn conn(&self) -> &Wire {
        &self.subchannel.conn
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.subchannel.endpoint
    }

    /// The head of the answer came: that is what latency is measured by, since what follows it may be a long stream.
    pub(crate) fn answered(&mut self, now: Instant) {
        let took = now.saturating_duration_since(self.picked);
        self.subchannel.ledger.stats.answered(now, took);
    }

    /// So many bytes of messages went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    /// So many bytes of messages came.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
    }

    /// The attempt is over; its place is given back when the guard is dropped. The first word stands.
    pub(crate) fn end(&mut self, outcome: Outcome, now: Instant) {
        if !self.ended {
            self.book(outcome, now);
        }
    }

    fn book(&mut self, outcome: Outcome, now: Instant) {
        self.ended = true;
        let took = now.saturating_duration_since(self.picked);
        let stats = &self.subchannel.ledger.stats;
        stats.attempt_ended(self.metric, outcome.code(), took, self.sent_bytes, self.received_bytes);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.ended {
            let now = clock::now();
            let expired = self.deadline.is_some_and(|at| at <= now);
            self.book(if expired { Outcome::Expired } else { Outcome::Cancelled }, now);
        }
        self.subchannel.endpoint.leave();
        self.subchannel.conn.vitals().leave();
        self.subchannel.ledger.queue.wake_one();
    }
}
