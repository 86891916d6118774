//! One service that is called: its connections, and the snapshot of them that calls pick from.
//!
//! [`Manager`] is the only writer: it follows the resolver, owns the endpoints' connectivity and publishes [`Snapshot`]s.
//! Calls read the latest snapshot and count on per-endpoint atomics; they meet the manager only in the [`WaitQueue`], when
//! nothing can be picked.

mod config;
mod explain;
mod in_flight;
mod ledger;
mod manager;
mod pick;
mod publish;
mod records;
mod slot;
mod snapshot;
mod subchannel;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub(crate) use config::{Outage, TargetConfig};
pub(crate) use in_flight::{InFlight, Outcome};
pub(crate) use ledger::Ledger;
use ledger::Shared;
use manager::Manager;
pub(crate) use pick::{Unplaced, Wanted};
pub(crate) use snapshot::Outlook;
use snapshot::Snapshot;
pub(crate) use waiting::{Full, WaitQueue};

use crate::Address;
use crate::clock::{self, Stamp};
use crate::endpoint::{ConnectivityState, Endpoint, EndpointHandle};
use crate::metrics::CallStats;
use crate::policy::{Policy, RetryBudget};
use crate::resolver::{Idempotency, Resolutions, ResolvedEndpoint};

/// An endpoint is an instance at an address.
type Key = (Uuid, Address);

/// One service, shared by every clone of its channel and every call on it.
#[derive(Debug)]
pub(crate) struct Target {
    config: Arc<TargetConfig>,
    shared: Arc<Shared>,
    budget: RetryBudget,
    _manager: DropGuard,
}

impl Target {
    /// Starts the target's manager on the current tokio runtime. It ends when the last channel and call are gone.
    pub(crate) fn spawn(config: TargetConfig, resolutions: Resolutions) -> Arc<Self> {
        let born = clock::now();
        let config = Arc::new(config);
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::unresolved(&config.policy.balancer)),
            ledger: Arc::new(Ledger::new(config.service.clone(), &config.policy, &config.entropy, born)),
        });
        let dropped = CancellationToken::new();
        tokio::spawn(Manager::new(config.clone(), shared.clone()).run(resolutions, dropped.clone()));
        Arc::new(Self { config, shared, budget: RetryBudget::default(), _manager: dropped.drop_guard() })
    }

    pub(crate) fn config(&self) -> &TargetConfig {
        &self.config
    }

    pub(crate) fn service(&self) -> &str {
        &self.config.service
    }

    pub(crate) fn state(&self) -> ConnectivityState {
        self.shared.snapshot.load().state
    }

    pub(crate) fn endpoints(&self) -> Vec<EndpointHandle> {
        let snapshot = self.shared.snapshot.load();
        snapshot.members.iter().map(|member| EndpointHandle::new(member.endpoint.clone())).collect()
    }

    pub(crate) fn outlook(&self) -> Outlook {
        self.shared.snapshot.load().outlook.clone()
    }

    /// Whether any endpoint is READY, with room or without.
    pub(crate) fn has_ready(&self) -> bool {
        !self.shared.snapshot.load().candidates.is_empty()
    }

    pub(crate) fn queue(&self) -> &WaitQueue {
        &self.shared.ledger.queue
    }

    /// What is measured of the calls to this service.
    pub(crate) fn stats(&self) -> &CallStats {
        &self.shared.ledger.stats
    }

    /// What the calls to this service write; it outlives the target with the last of them.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    pub(crate) fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.config.policy
    }

    /// After how long without an answer a call is worth sending to a second endpoint; `None`: never, or nobody knows yet
    /// what is slow here.
    pub(crate) fn hedge_delay(&self, now: Stamp) -> Option<Duration> {
        let hedging = self.config.policy.hedging?;
        Some(self.stats().p95(now)?.max(hedging.delay_min))
    }

    /// What is declared about repeating `method` at `endpoint`: by the caller, or else by the service's own record.
    pub(crate) fn idempotency(&self, method: &str, endpoint: &Endpoint) -> Idempotency {
        match self.config.methods.level(method) {
            Idempotency::Unknown => endpoint.methods().level(method),
            declared => declared,
        }
    }

    /// Whether `method` is known to be more than one message for one.
    pub(crate) fn is_streaming(&self, method: &str, endpoint: &Endpoint) -> bool {
        self.config.methods.is_streaming(method) || endpoint.methods().is_streaming(method)
    }
}

/// One endpoint for each address: two instances cannot listen on the same one, so all but the best known of them are
/// leftovers of instances that were there before.
fn one_per_address(endpoints: &[ResolvedEndpoint]) -> impl Iterator<Item = &ResolvedEndpoint> {
    let newer = |endpoint: &ResolvedEndpoint| (std::cmp::Reverse(endpoint.standing), endpoint.instance_id);
    let mut best: BTreeMap<&Address, &ResolvedEndpoint> = BTreeMap::new();
    for endpoint in endpoints {
        let held = best.entry(&endpoint.address).or_insert(endpoint);
        if newer(held) < newer(endpoint) {
            *held = endpoint;
        }
    }
    best.into_values()
}
