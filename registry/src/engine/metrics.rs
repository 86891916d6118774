//! What the engine counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What became of something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct ByOutcome {
    pub(super) outcome: &'static str,
}

/// Why something happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct ByReason {
    pub(super) reason: &'static str,
}

/// The engine's metric families. No label carries a name from outside, so their number is fixed.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) heartbeats: Family<ByOutcome, Counter>,
    pub(super) expirations: Family<ByReason, Counter>,
    pub(super) removals: Family<ByReason, Counter>,
    pub(super) removals_unremembered: Counter,
    pub(super) registrations: Counter,
    pub(super) commits: Family<ByOutcome, Counter>,
    pub(super) claims: Counter,
    pub(super) adoptions: Counter,
    pub(super) relayed: Family<ByOutcome, Counter>,
    pub(super) unsure: Gauge,
    pub(super) clock_gaps: Counter,
    pub(super) beat_refusals: Counter,
    pub(super) resyncs: Counter,
    pub(super) instances: Gauge,
    pub(super) instances_suspect: Gauge,
    pub(super) instances_stale: Gauge,
    pub(super) services: Gauge,
    pub(super) services_holding: Gauge,
    pub(super) revision: Gauge,
}

impl Metrics {
    pub(super) fn heartbeats(&self, outcome: &'static str) -> Counter {
        self.heartbeats.get_or_create(&ByOutcome { outcome }).clone()
    }

    pub(super) fn commits(&self, outcome: &'static str) -> Counter {
        self.commits.get_or_create(&ByOutcome { outcome }).clone()
    }

    pub(super) fn relayed(&self, outcome: &'static str) -> Counter {
        self.relayed.get_or_create(&ByOutcome { outcome }).clone()
    }

    pub(super) fn expirations(&self, reason: &'static str) -> Counter {
        self.expirations.get_or_create(&ByReason { reason }).clone()
    }

    pub(super) fn removals(&self, reason: &'static str) -> Counter {
        self.removals.get_or_create(&ByReason { reason }).clone()
    }

    /// Adds every family to a registry of metrics.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        let m = self;
        r.register("registry_heartbeats", "Heartbeats answered, by outcome", m.heartbeats.clone());
        r.register("registry_lease_expirations", "Leases that ran out: removed, or why held", m.expirations.clone());
        r.register("registry_removals", "Instances removed, by reason", m.removals.clone());
        r.register(
            "registry_removals_unremembered",
            "Removals told once and forgotten: too many tombstones",
            m.removals_unremembered.clone(),
        );
        r.register("registry_registrations", "Registrations that brought a new incarnation", m.registrations.clone());
        r.register("registry_commits", "Proposals handed to the store, by outcome", m.commits.clone());
        r.register("registry_ownership_claims", "Leases claimed from other nodes", m.claims.clone());
        r.register("registry_ownership_adoptions", "Proposals that adopted leases without a node", m.adoptions.clone());
        r.register("registry_relayed_heartbeats", "Heartbeats passed on to other nodes, by outcome", m.relayed.clone());
        r.register("registry_unsure", "1 while this node does not reach the store that it shares", m.unsure.clone());
        r.register(
            "registry_clock_gaps",
            "Times the expiry loop was late and gave all leases a full TTL",
            m.clock_gaps.clone(),
        );
        r.register(
            "registry_heartbeat_overloads",
            "Times heartbeats found their queue full and all leases got a full TTL",
            m.beat_refusals.clone(),
        );
        r.register("registry_store_resyncs", "Times the state was loaded again from the store", m.resyncs.clone());
        r.register("registry_instances", "Instances registered", m.instances.clone());
        r.register("registry_instances_suspect", "Instances that are SUSPECT", m.instances_suspect.clone());
        r.register("registry_instances_stale", "Instances that are STALE", m.instances_stale.clone());
        r.register("registry_services", "Services known", m.services.clone());
        r.register(
            "registry_services_holding",
            "Services with removals by silence held back",
            m.services_holding.clone(),
        );
        r.register("registry_revision", "Revision last applied", m.revision.clone());
    }
}
