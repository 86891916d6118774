//! A READY connection of an endpoint as calls see it.

use std::sync::Arc;

use super::Wanted;
use super::in_flight::InFlight;
use super::ledger::Ledger;
use crate::conn::{Conn, Wire};
use crate::endpoint::Endpoint;

/// One endpoint's connection, READY when it was made.
#[derive(Debug)]
pub(crate) struct Subchannel {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) conn: Wire,
    pub(super) ledger: Arc<Ledger>,
}

impl Subchannel {
    pub(super) fn new(endpoint: Arc<Endpoint>, conn: Wire, ledger: Arc<Ledger>) -> Self {
        Self { endpoint, conn, ledger }
    }

    /// Takes a place for a call, if the connection still has one.
    pub(super) fn enter(self: &Arc<Self>, wanted: &Wanted<'_>) -> Option<InFlight> {
        if !self.conn.vitals().enter() {
            return None;
        }
        self.endpoint.enter(wanted.now);
        Some(InFlight::new(self.clone(), wanted))
    }
}
