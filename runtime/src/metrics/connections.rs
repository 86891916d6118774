//! Connections of the main port.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a connection was closed as soon as it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// All places are taken.
    Total,
    /// This peer has its share.
    PerIp,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl From<Refused> for Reason {
    fn from(refused: Refused) -> Self {
        let reason = match refused {
            Refused::Total => "total",
            Refused::PerIp => "per_ip",
        };
        Self { reason }
    }
}

/// What the accept loop counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections {
    open: Gauge,
    accepted: Counter,
    refused: Family<Reason, Counter>,
    accept_errors: Counter,
}

impl Connections {
    /// Registers the families, every reason at 0.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        for reason in [Refused::Total, Refused::PerIp] {
            drop(it.refused.get_or_create(&Reason::from(reason)));
        }
        registry.register("mesh_server_connections", "Open connections of the main port", it.open.clone());
        registry.register("mesh_server_connections_accepted", "Connections taken up", it.accepted.clone());
        let help = "Connections closed at once because a limit was reached";
        registry.register("mesh_server_connections_refused", help, it.refused.clone());
        let help = "Times that accepting failed, such as for want of file descriptors";
        registry.register("mesh_server_accept_errors", help, it.accept_errors.clone());
        it
    }

    /// A connection is taken up, and open until the guard goes.
    pub(crate) fn opened(&self) -> Open {
        self.accepted.inc();
        self.open.inc();
        Open(self.open.clone())
    }

    /// A connection was closed at once.
    pub(crate) fn refused(&self, reason: Refused) {
        self.refused.get_or_create(&Reason::from(reason)).inc();
    }

    /// Accepting failed.
    pub(crate) fn accept_failed(&self) {
        self.accept_errors.inc();
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
