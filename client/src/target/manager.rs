//! The one task of a target: it owns the endpoints' state machines, starts the dials, and publishes snapshots.
//!
//! It works on states, not on events: whatever happened, it looks at everything and does what is due, so that nothing is
//! lost when much happens at once. Its work per change grows with the endpoints of the service; calls never wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::config::TargetConfig;
use super::ledger::Shared;
use super::one_per_address;
use super::slot::{Due, Slot};
use super::snapshot::{Candidate, Outlook, Snapshot};
use super::subchannel::Subchannel;
use crate::Address;
use crate::balancer::pickable;
use crate::clock;
use crate::conn::{Conn, ConnectError, Wire, dial};
use crate::endpoint::ConnectivityState;
use crate::policy::Backoff;
use crate::resolver::{Resolution, ResolutionStatus, Resolutions, Standing};

/// An endpoint is an instance at an address.
type Key = (Uuid, Address);

/// How a dial ended.
type Dialled = (Key, Result<Wire, ConnectError>);

pub(super) struct Manager {
    config: Arc<TargetConfig>,
    shared: Arc<Shared>,
    /// Ordered, so that one seed gives one sequence of dials.
    slots: BTreeMap<Key, Slot>,
    /// Lapsed endpoints that were given up, with the incarnation that was: kept while the resolver lists them.
    dropped: BTreeMap<Key, u64>,
    status: ResolutionStatus,
    /// At most one per slot.
    dials: JoinSet<Dialled>,
    bell: Arc<Notify>,
    last_error: Option<Arc<str>>,
}

impl Manager {
    pub(super) fn new(config: Arc<TargetConfig>, shared: Arc<Shared>) -> Self {
        Self {
            config,
            shared,
            slots: BTreeMap::new(),
            dropped: BTreeMap::new(),
            status: ResolutionStatus::Unresolved,
            dials: JoinSet::new(),
            bell: Arc::default(),
            last_error: None,
        }
    }

    /// Runs until the target is dropped. Connections with open streams outlive it.
    pub(super) async fn run(mut self, mut resolutions: Resolutions, dropped: CancellationToken) {
        let bell = self.bell.clone();
        let mut news = News::Resolution;
        let mut resolver_gone = false;
        loop {
            match news {
                News::ResolverGone => resolver_gone = true,
                News::Resolution => {
                    let resolution = resolutions.borrow_and_update().clone();
                    self.reconcile(&resolution);
                }
                News::Dialled(dialled) => {
                    self.settle(dialled);
                    // Dials that end together make one snapshot.
                    while let Some(dialled) = self.dials.try_join_next() {
                        self.settle(dialled);
                    }
                }
                News::Look => {}
            }
            let due = self.advance();
            self.publish();

            news = tokio::select! {
                () = dropped.cancelled() => return,
                changed = resolutions.changed(), if !resolver_gone => match changed {
                    Ok(()) => News::Resolution,
                    Err(_) => News::ResolverGone,
                },
                Some(dialled) = self.dials.join_next() => News::Dialled(dialled),
                () = bell.notified() => News::Look,
                () = at(due) => News::Look,
            };
        }
    }

    /// Brings the slots in line with what is resolved. What has not changed is left alone.
    fn reconcile(&mut self, resolution: &Resolution) {
        let now = clock::now();
        self.status = resolution.status.clone();
        let listed: BTreeMap<Key, _> = one_per_address(&resolution.endpoints)
            .map(|endpoint| ((endpoint.instance_id, endpoint.address.clone()), endpoint))
            .collect();

        self.dropped.retain(|key, incarnation| {
            listed
                .get(key)
                .is_some_and(|endpoint| endpoint.standing == Standing::Lapsed && endpoint.incarnation == *incarnation)
        });
        self.slots.retain(|key, _| listed.contains_key(key));
        for (key, endpoint) in listed {
            if self.dropped.contains_key(&key) {
                continue;
            }
            self.slots
                .entry(key)
                .and_modify(|slot| slot.update(endpoint, now))
                .or_insert_with(|| Slot::new(endpoint, Backoff::new(self.config.backoff_max), now));
        }
    }

    /// Books the end of a dial. Its slot may be gone; the connection then closes with its handle.
    fn settle(&mut self, dialled: Result<Dialled, JoinError>) {
        let now = clock::now();
        let (key, outcome) = match dialled {
            Ok(dialled) => dialled,
            Err(ended) => {
                // Called off with its slot, or the connector panicked: then the slot is still there and waits for it.
                if let Some(slot) = self.slots.values_mut().find(|slot| slot.awaits(ended.id())) {
                    tracing::error!(service = %self.config.service, address = %slot.endpoint.address, "the connector panicked");
                    slot.failed(now, &self.config.entropy);
                }
                return;
            }
        };
        let Some(slot) = self.slots.get_mut(&key) else { return };
        match outcome {
            Ok(conn) => {
                tracing::debug!(service = %self.config.service, instance = %key.0, address = %key.1, "endpoint ready");
                slot.connected(Subchannel::new(slot.endpoint.clone(), conn, self.shared.ledger.clone()), now);
            }
            Err(error) => {
                tracing::debug!(service = %self.config.service, instance = %key.0, address = %key.1, %error, "connect failed");
                self.last_error = Some(format!("{}: {error}", key.1).into());
                slot.failed(now, &self.config.entropy);
            }
        }
    }

    /// Does what is due and returns when the next thing is.
    fn advance(&mut self) -> Option<Instant> {
        let now = clock::now();
        let mut next: Option<Instant> = None;
        let mut given_up = Vec::new();
        for (key, slot) in &mut self.slots {
            let (due, lost) = slot.advance(now, &self.config.entropy);
            if let Some(ending) = lost {
                tracing::debug!(service = %self.config.service, instance = %key.0, address = %key.1, %ending, "connection ended");
                self.last_error = Some(format!("{}: {ending}", key.1).into());
            }
            match due {
                Due::At(at) => next = next.into_iter().chain(at).min(),
                Due::Drop => given_up.push(key.clone()),
                Due::Dial => {
                    let (key, config, bell) = (key.clone(), self.config.clone(), self.bell.clone());
                    let calm = slot.calm.clone();
                    slot.dialling(self.dials.spawn(async move {
                        let dialled = dial(config.connector.clone(), &key.1, config.conn, calm, bell).await;
                        (key, dialled)
                    }));
                }
            }
        }
        for key in given_up {
            if let Some(slot) = self.slots.remove(&key) {
                tracing::info!(service = %self.config.service, instance = %key.0, address = %key.1, "lapsed endpoint given up");
                self.dropped.insert(key, slot.endpoint.incarnation());
            }
        }
        next
    }

    /// Hands the calls a new snapshot.
    fn publish(&self) {
        let ready: Vec<_> = self.slots.values().filter_map(|slot| Some((slot, slot.candidate()?))).collect();
        let preferences: Vec<_> = ready.iter().map(|(_, (_, preference))| *preference).collect();
        let candidates: Box<[Candidate]> = pickable(&preferences)
            .into_iter()
            .map(|index| {
                let (slot, (subchannel, _)) = &ready[index];
                let limits = subchannel.conn.vitals().limits();
                Candidate { subchannel: Arc::clone(subchannel), weight: slot.weight, limits }
            })
            .collect();
        let state = self.state(&candidates);
        self.shared.publish(Snapshot {
            outlook: self.outlook(state),
            endpoints: self.slots.values().map(|slot| slot.endpoint.clone()).collect(),
            candidates,
            state,
        });
    }

    /// gRPC's aggregation: READY if any is; else CONNECTING if any may become so; else TRANSIENT_FAILURE, which sticks
    /// to an endpoint until it is READY.
    fn state(&self, candidates: &[Candidate]) -> ConnectivityState {
        let settled = matches!(self.status, ResolutionStatus::Empty | ResolutionStatus::Refused(_));
        let failing = self.slots.values().all(Slot::is_failing);
        match candidates {
            [_, ..] => ConnectivityState::Ready,
            [] if self.slots.is_empty() && !settled => ConnectivityState::Connecting,
            [] if failing => ConnectivityState::TransientFailure,
            [] => ConnectivityState::Connecting,
        }
    }

    fn outlook(&self, state: ConnectivityState) -> Outlook {
        match (&self.status, &self.last_error) {
            (ResolutionStatus::Empty, _) if self.slots.is_empty() => Outlook::Empty,
            (ResolutionStatus::Refused(reason), _) if self.slots.is_empty() => Outlook::Refused(reason.clone()),
            (ResolutionStatus::Unresolved, _) if self.slots.is_empty() => Outlook::Unresolved,
            (_, Some(error)) if state == ConnectivityState::TransientFailure => Outlook::Failing(error.clone()),
            _ => Outlook::Connecting,
        }
    }
}

/// Why the manager looks.
enum News {
    Resolution,
    /// There will be no other resolution; the last one stays good.
    ResolverGone,
    Dialled(Result<Dialled, JoinError>),
    Look,
}

/// Never, without an instant.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
