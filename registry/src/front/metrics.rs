//! What the gRPC door counts beside the runtime's own metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tonic::{Code, Status};

use super::FrontError;

/// The door's metric families.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(super) keep_alive_streams: Gauge,
    pub(super) refusals: Refusals,
}

/// Counts what is refused because something is full, whichever door or stream it was asked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Family<ByReason, Counter>);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

impl Refusals {
    /// Counts an error on its way out, if it is such a refusal.
    pub(crate) fn count(&self, error: &FrontError) {
        let verdict = error.verdict();
        if verdict.code == Code::ResourceExhausted {
            self.0.get_or_create(&ByReason { reason: verdict.reason }).inc();
        }
    }

    /// An error as it goes to the caller, counted.
    pub(super) fn status(&self, error: impl Into<FrontError>) -> Status {
        let error = error.into();
        self.count(&error);
        error.into()
    }
}

impl Metrics {
    /// Metrics that count refusals together with others.
    pub(super) fn of(refusals: Refusals) -> Self {
        Self { refusals, ..Self::default() }
    }

    /// Adds every family to a registry of metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "registry_keep_alive_streams",
            "Heartbeat streams that are open",
            self.keep_alive_streams.clone(),
        );
        registry.register(
            "registry_refusals",
            "What was refused with RESOURCE_EXHAUSTED because something is full, by reason",
            self.refusals.0.clone(),
        );
    }
}
