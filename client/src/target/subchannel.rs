//! A READY connection of an endpoint, and the guard that counts a call on it.

use std::sync::Arc;

use tokio::time::Instant;

use super::waiting::WaitQueue;
use crate::conn::{Conn, Wire};
use crate::endpoint::Endpoint;

/// One endpoint's connection, READY when it was made.
#[derive(Debug)]
pub(crate) struct Subchannel {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) conn: Wire,
    queue: Arc<WaitQueue>,
}

impl Subchannel {
    pub(super) fn new(endpoint: Arc<Endpoint>, conn: Wire, queue: Arc<WaitQueue>) -> Self {
        Self { endpoint, conn, queue }
    }

    /// Takes a place for a call made at `now`, if the connection still has one.
    pub(super) fn enter(self: &Arc<Self>, now: Instant) -> Option<InFlight> {
        if !self.conn.vitals().enter() {
            return None;
        }
        self.endpoint.enter(now);
        Some(InFlight { subchannel: self.clone() })
    }
}

/// A call in flight, from its pick until its trailers, its failure or its cancellation: dropping it is what ends the count,
/// so no path can forget to.
#[derive(Debug)]
pub(crate) struct InFlight {
    subchannel: Arc<Subchannel>,
}

impl InFlight {
    pub(crate) fn conn(&self) -> &Wire {
        &self.subchannel.conn
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.subchannel.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.subchannel.endpoint.leave();
        self.subchannel.conn.vitals().leave();
        self.subchannel.queue.wake_one();
    }
}
