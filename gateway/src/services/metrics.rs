//! What the gateway measures of the services that it knows.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The families. None has a label that comes from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    pub(super) services: Gauge<i64, AtomicI64>,
    pub(super) routes: Gauge<i64, AtomicI64>,
    pub(super) refused: Gauge<i64, AtomicI64>,
    reads: Family<Outcome, Counter>,
}

impl Metrics {
    /// Registers the families, every outcome at 0.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        let help = "Services whose descriptors are known, and whose routes are served";
        registry.register("gateway_services", help, it.services.clone());
        registry.register("gateway_routes", "HTTP routes that are served, of all services", it.routes.clone());
        let help = "Routes that are refused because another service claimed them before";
        registry.register("gateway_routes_refused", help, it.refused.clone());
        for outcome in [true, false] {
            drop(it.reads.get_or_create(&of(outcome)));
        }
        let help = "Times that the descriptors of a service were read, by outcome";
        registry.register("gateway_descriptor_reads", help, it.reads.clone());
        it
    }

    /// A service's descriptors were read, or not.
    pub(super) fn read(&self, well: bool) {
        self.reads.get_or_create(&of(well)).inc();
    }
}

fn of(well: bool) -> Outcome {
    Outcome { outcome: if well { "ok" } else { "failed" } }
}
