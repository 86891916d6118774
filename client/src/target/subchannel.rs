//! A READY connection of an endpoint as calls see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ledger::Ledger;
use crate::conn::{Conn, Wire};
use crate::endpoint::Endpoint;

/// One of an endpoint's connections, READY when it was made.
#[derive(Debug)]
pub(crate) struct Subchannel {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) conn: Wire,
    pub(super) ledger: Arc<Ledger>,
    /// Whether a call has entered since somebody asked.
    used: AtomicBool,
    /// Whether a call was answered.
    served: AtomicBool,
}

impl Subchannel {
    pub(super) fn new(endpoint: Arc<Endpoint>, conn: Wire, ledger: Arc<Ledger>) -> Self {
        Self { endpoint, conn, ledger, used: AtomicBool::new(true), served: AtomicBool::new(false) }
    }

    /// Takes a place on the connection, if it still has one.
    pub(super) fn enter(&self) -> bool {
        let entered = self.conn.vitals().enter();
        if entered {
            self.used.store(true, Ordering::Relaxed);
        }
        entered
    }

    /// A call was answered.
    pub(super) fn serve(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Whether any call was answered.
    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether there are calls, or were some since this was asked last.
    pub(super) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed) || self.conn.vitals().is_busy()
    }
}
