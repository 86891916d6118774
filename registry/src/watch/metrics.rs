//! What the watch hub counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metric families of watching.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(super) streams: Gauge,
    pub(super) subscriptions: Gauge,
    pub(super) messages: Counter,
    pub(super) cuts: Counter,
}

impl Metrics {
    /// Adds every family to a registry of metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("registry_watch_streams", "Watch streams that are open", self.streams.clone());
        registry.register(
            "registry_watch_subscriptions",
            "Services followed, summed over all watch streams",
            self.subscriptions.clone(),
        );
        registry.register("registry_watch_messages", "Messages queued for watchers", self.messages.clone());
        registry.register("registry_watch_cuts", "Watch streams cut because nobody read them", self.cuts.clone());
    }
}
