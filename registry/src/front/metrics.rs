//! What the gRPC door counts beside the runtime's own metrics.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The door's metric families.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(super) keep_alive_streams: Gauge,
}

impl Metrics {
    /// Adds every family to a registry of metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "registry_keep_alive_streams",
            "Heartbeat streams that are open",
            self.keep_alive_streams.clone(),
        );
    }
}
