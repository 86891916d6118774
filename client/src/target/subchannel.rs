//! A READY connection of an endpoint, as calls see it.

use std::sync::Arc;

use tokio::time::Instant;

use super::in_flight::InFlight;
use super::waiting::WaitQueue;
use crate::conn::{Conn, Wire};
use crate::endpoint::Endpoint;

/// One endpoint's connection, READY when it was made.
#[derive(Debug)]
pub(crate) struct Subchannel {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) conn: Wire,
    pub(super) queue: Arc<WaitQueue>,
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
        Some(InFlight::new(self.clone(), now))
    }
}
