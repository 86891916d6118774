//! The one task of a target: it owns the endpoints' state machines, starts the dials, and publishes snapshots.
//!
//! It works on states, not on events: whatever happened, it looks at everything and does what is due, so that nothing is
//! lost when much happens at once. Its work per change grows with the endpoints of the service; calls never wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::config::TargetConfig;
use super::ledger::Shared;
use super::publish::Publisher;
use super::records::Records;
use super::slot::{Change, Demand, Due, Reach, Slot};
use super::subchannel::Subchannel;
use super::{Key, one_per_address};
use crate::balancer::ejection::{Conduct, may_eject};
use crate::balancer::{Fitness, subset};
use crate::clock;
use crate::conn::{ConnectError, Wire, dial};
use crate::policy::Backoff;
use crate::resolver::{Resolution, ResolutionStatus, Resolutions, Standing};

/// How a dial ended.
type Dialled = (Key, Result<Wire, ConnectError>);

/// Shortest time between two looks that nothing but time asks for: a due time that never comes true must not make a task spin.
/// It is what a timer can tell apart.
const LOOK_MIN: Duration = Duration::from_millis(1);

pub(super) struct Manager {
    config: Arc<TargetConfig>,
    shared: Arc<Shared>,
    /// Ordered, so that one seed gives one sequence of dials.
    slots: BTreeMap<Key, Slot>,
    /// Lapsed endpoints that were given up, with the incarnation that was: kept while the resolver lists them.
    dropped: BTreeMap<Key, u64>,
    records: Records,
    status: ResolutionStatus,
    /// At most one per slot.
    dials: JoinSet<Dialled>,
    bell: Arc<Notify>,
    /// This caller's own order of the endpoints, where it connects to some of them only.
    subset_seed: u64,
    publisher: Publisher,
    last_error: Option<Arc<str>>,
}

impl Manager {
    pub(super) fn new(config: Arc<TargetConfig>, shared: Arc<Shared>) -> Self {
        Self {
            subset_seed: config.entropy.next(),
            publisher: Publisher::new(config.clone()),
            bell: shared.ledger.bell.clone(),
            config,
            shared,
            slots: BTreeMap::new(),
            dropped: BTreeMap::new(),
            records: Records::default(),
            status: ResolutionStatus::Unresolved,
            dials: JoinSet::new(),
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
            let now = clock::now();
            let due = [self.advance(now), self.judge(now), self.publish(now)].into_iter().flatten().min();
            let due = due.map(|due| due.max(now + LOOK_MIN));

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
        let age = self.age(now);
        self.status = resolution.status.clone();
        let listed: BTreeMap<Key, _> = one_per_address(&resolution.endpoints)
            .map(|endpoint| ((endpoint.instance_id, endpoint.address.clone()), endpoint))
            .collect();

        self.dropped.retain(|key, incarnation| {
            listed
                .get(key)
                .is_some_and(|endpoint| endpoint.standing == Standing::Lapsed && endpoint.incarnation == *incarnation)
        });
        for (key, slot) in self.slots.extract_if(.., |key, _| !listed.contains_key(key)) {
            self.records.keep(key, slot.endpoint.incarnation(), slot.record(), age);
        }
        for (key, endpoint) in listed {
            if self.dropped.contains_key(&key) {
                continue;
            }
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.update(endpoint, now, age);
                continue;
            }
            let backoff = Backoff::new(self.config.backoff_max);
            let mut slot = Slot::new(endpoint, backoff, self.shared.ledger.origin, now);
            if let Some(record) = self.records.take(&key, endpoint.incarnation) {
                slot.remember(record);
            }
            self.slots.insert(key, slot);
        }
        self.choose_subset(now);
    }

    /// Says which endpoints are connected to. Those that leave do not count: somebody takes their place.
    fn choose_subset(&mut self, now: Instant) {
        let Some(max) = self.config.policy.subset_max else { return };
        let mut staying: Vec<&mut Slot> =
            self.slots.values_mut().filter(|slot| slot.standing != Standing::Draining).collect();
        let names: Vec<Arc<str>> = staying.iter().map(|slot| slot.name.clone()).collect();
        let mut inside = subset(self.subset_seed, &names, max.into()).into_iter().peekable();
        for (index, slot) in staying.iter_mut().enumerate() {
            let taken = inside.next_if_eq(&index).is_some();
            slot.set_reach(if taken { Reach::Inside } else { Reach::Outside }, now);
        }
    }

    /// Books the end of a dial. Its slot may be gone; the connection then closes with its handle.
    fn settle(&mut self, dialled: Result<Dialled, JoinError>) {
        let now = clock::now();
        let age = self.age(now);
        let ledger = &self.shared.ledger;
        let demand = if ledger.queue.waiting() > 0 { Demand::Waiting } else { Demand::None };
        let (key, outcome) = match dialled {
            Ok(dialled) => dialled,
            Err(ended) => {
                // Called off with its slot, or the connector panicked: then the slot is still there and waits for it.
                if let Some(slot) = self.slots.values_mut().find(|slot| slot.awaits(ended.id())) {
                    tracing::error!(service = %self.config.service, address = %slot.name, "the connector panicked");
                    slot.failed(Some("the connector panicked".into()), demand, now, &self.config.entropy);
                }
                return;
            }
        };
        let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.reach == Reach::Inside) else { return };
        match outcome {
            Ok(conn) => {
                tracing::debug!(service = %self.config.service, instance = %key.0, address = %key.1, "endpoint ready");
                let subchannel = Subchannel::new(slot.endpoint.clone(), conn, ledger.clone());
                slot.connected(subchannel, ledger.stamp(now), now, age);
            }
            Err(error) => {
                tracing::debug!(service = %self.config.service, instance = %key.0, address = %key.1, %error, "connect failed");
                let why: Arc<str> = error.to_string().into();
                self.last_error = Some(format!("{}: {why}", key.1).into());
                slot.failed(Some(why), demand, now, &self.config.entropy);
            }
        }
    }

    /// Does what is due and returns when the next thing is.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut given_up = Vec::new();
        let connections_max = usize::from(self.config.policy.connections_per_endpoint.get());
        for (key, slot) in &mut self.slots {
            let look = slot.advance(now, connections_max, &self.config.entropy);
            next = next.into_iter().chain(look.next).min();
            if let Some(ending) = look.lost {
                tracing::debug!(service = %self.config.service, instance = %key.0, address = %key.1, %ending, "connection ended");
                let why: Arc<str> = ending.to_string().into();
                self.last_error = Some(format!("{}: {why}", key.1).into());
                slot.blame(why);
            }
            match look.due {
                Due::Nothing => {}
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
                // Another one may have its place in the subset, and is dialled at the next look.
                self.choose_subset(now);
                next = Some(now);
            }
        }
        next
    }

    /// Ejects who fails, and follows those who are out. Returns when the next look is due.
    fn judge(&mut self, now: Instant) -> Option<Instant> {
        let rule = self.config.policy.ejection?;
        let age = self.age(now);
        let service = &self.config.service;
        let mut next: Option<Instant> = None;
        let mut trials_open = false;
        for (key, slot) in &mut self.slots {
            let (change, look) = slot.advance_conduct(&rule, now, age);
            next = next.into_iter().chain(look).min();
            match change {
                Some(Change::Acquitted) => {
                    tracing::info!(%service, instance = %key.0, address = %key.1, "endpoint is well again");
                }
                Some(Change::EjectedAgain) => {
                    tracing::info!(%service, instance = %key.0, address = %key.1, "endpoint failed its trial");
                }
                Some(Change::TrialOpen) => trials_open = true,
                None => {}
            }
        }
        if trials_open {
            // No part of a snapshot, and no place that became free.
            self.shared.ledger.queue.wake_all();
        }

        // Who is gone is out of the way already, and would take the place of one that is there and fails.
        let judged = self.slots.values().filter(|slot| slot.is_judged());
        let judged_count = judged.clone().count();
        let mut ejected = judged.clone().filter(|slot| slot.conduct() != Conduct::Trusted).count();
        let mut fit = judged.filter(|slot| slot.fitness() == Fitness::Fit).count();
        for (key, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.is_judged()) {
            let failures = slot.endpoint.failures_in_a_row();
            if failures < rule.failures.max(1) || slot.conduct() != Conduct::Trusted {
                continue;
            }
            let is_fit = slot.fitness() == Fitness::Fit;
            let others = fit - usize::from(is_fit);
            if may_eject(&rule, judged_count, ejected, others) {
                tracing::info!(%service, instance = %key.0, address = %key.1, failures, "endpoint ejected");
                slot.eject(&rule, age);
                next = next.into_iter().chain(slot.advance_conduct(&rule, now, age).1).min();
                ejected += 1;
                fit = others;
            }
        }
        next
    }

    /// Hands the calls a new snapshot. Returns when it will be out of date by time alone.
    fn publish(&mut self, now: Instant) -> Option<Instant> {
        let slots: Vec<&Slot> = self.slots.values().collect();
        let (snapshot, until) =
            self.publisher.snapshot(&slots, &self.status, self.last_error.as_ref(), self.shared.ledger.origin, now);
        self.shared.publish(snapshot);
        until
    }

    /// What the times of ejections count from the target's birth.
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.shared.ledger.origin)
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
