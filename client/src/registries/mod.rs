//! The registries that are configured: which one a connection is with, which one comes next, and whose store they show.
//!
//! All of them are to be doors to one store. A connection begins at a random one and goes round in an order of its own, so
//! that processes spread over the registries and those of a dead one spread over the rest. The order is drawn anew for
//! each connection: watches and heartbeats of one process are mostly with different registries.

mod home;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) use home::Whose;
use home::{Asked, Home};

use crate::entropy::Entropy;
use crate::grpc::RegistryClient;

/// One configured registry, and how a connection to it is made.
pub(crate) struct Door {
    /// What logs call it.
    pub(crate) name: Arc<str>,
    /// Opens a connection of its own, which ends with the last clone of the client.
    pub(crate) connect: Box<dyn Fn() -> RegistryClient + Send + Sync>,
}

/// One connection's way round the registries. There is at least one.
pub(crate) struct Round {
    doors: Vec<Door>,
    at: usize,
    client: RegistryClient,
    stores: Arc<Stores>,
}

impl Round {
    /// Begins at a random one of `doors`, of which there must be at least one.
    pub(crate) fn new(mut doors: Vec<Door>, stores: Arc<Stores>, entropy: &Entropy) -> Self {
        // Fisher and Yates; the modulo's bias at so few doors is nothing.
        for last in (1..doors.len()).rev() {
            doors.swap(last, (entropy.next() % (last as u64 + 1)) as usize);
        }
        let client = (doors[0].connect)();
        Self { doors, at: 0, client, stores }
    }

    /// The way to the registry whose turn it is.
    pub(crate) fn client(&self) -> RegistryClient {
        self.client.clone()
    }

    /// How many there are.
    pub(crate) fn doors(&self) -> usize {
        self.doors.len()
    }

    /// What the registry whose turn it is, is called.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.doors[self.at].name
    }

    /// The next one's turn. Where there is no other the connection stays.
    pub(crate) fn go_on(&mut self) {
        if self.doors.len() > 1 {
            self.at = (self.at + 1) % self.doors.len();
            self.client = (self.doors[self.at].connect)();
        }
    }

    /// Who judges the answers of the registry whose turn it is.
    pub(crate) fn judge(&self) -> Judge {
        Judge { stores: self.stores.clone(), registry: self.name().clone(), doors: self.doors.len() }
    }

    /// The registry whose turn it is was asked, and this came instead of an answer: it may be that nobody is there.
    pub(crate) fn refused(&self, status: &Status) {
        if shows_nobody(status) {
            self.stores.home.lock().silent(self.name());
        }
    }
}

/// Whether a call that failed so has found nobody. A registry that is there but cannot now says when it can: a node that is
/// cut off from its store, or has no room.
fn shows_nobody(status: &Status) -> bool {
    let unanswered = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
    unanswered && status.get_details_retry_info().is_none()
}

/// Says of the answers of one registry whose store they speak of, and tells of a second one.
#[derive(Clone)]
pub(crate) struct Judge {
    stores: Arc<Stores>,
    registry: Arc<str>,
    doors: usize,
}

impl Judge {
    /// Whether this process has a store yet that another one could differ from, and another registry to go to then.
    pub(crate) fn may_object(&self) -> bool {
        self.doors > 1 && self.stores.home.lock().own().is_some()
    }

    /// Judges an answer that was read off `store` now; one that names none says nothing about it.
    pub(crate) fn answered(&self, store: &str, now: Instant) -> Whose {
        if store.is_empty() {
            return Whose::Ours;
        }
        let whose = self.stores.home.lock().answered(
            store,
            Asked { registry: &self.registry, doors: self.doors },
            now.into_std(),
        );
        let registry = &*self.registry;
        match &whose {
            Whose::Ours => {}
            Whose::Moved { from, before: false } => {
                tracing::info!(registry, store, %from, "the registry has another store now");
            }
            Whose::Moved { from, before: true } => {
                self.stores.seconds.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    registry,
                    store,
                    other = %from,
                    "two stores answer in turn behind the configured registry: give this process registries over one store"
                );
            }
            Whose::Strange { first: false, .. } => {
                self.stores.seconds.fetch_add(1, Ordering::Relaxed);
            }
            Whose::Strange { ours, first: true } => {
                self.stores.seconds.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    registry,
                    store,
                    %ours,
                    "a second store is behind the configured registries; nothing of it is taken and another registry is \
                     asked: give this process registries over one store"
                );
            }
        }
        whose
    }
}

/// Whose store this process goes by, shared by its connections, and how often another one answered.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    home: Mutex<Home>,
    seconds: AtomicU64,
}

impl Stores {
    /// How often a registry answered out of a second store.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Round {
    /// Over these clients, in this order.
    pub(crate) fn over(clients: Vec<RegistryClient>, stores: &Arc<Stores>) -> Self {
        let door = |(number, client): (usize, RegistryClient)| Door {
            name: format!("registry-{number}").into(),
            connect: Box::new(move || client.clone()),
        };
        let doors: Vec<_> = clients.into_iter().enumerate().map(door).collect();
        let client = (doors[0].connect)();
        Self { doors, at: 0, client, stores: stores.clone() }
    }

    /// With nowhere else to go.
    pub(crate) fn only(client: RegistryClient) -> Self {
        Self::over(vec![client], &Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fake_registry::registry;

    fn drawn(seed: u64) -> Vec<String> {
        let door = |name: &str| Door { name: name.into(), connect: Box::new(|| registry().0) };
        let mut round = Round::new(["a", "b", "c"].map(door).into(), Arc::default(), &Entropy::seeded(seed));
        let mut names = Vec::new();
        for _ in 0..6 {
            names.push(round.name().to_string());
            round.go_on();
        }
        names
    }

    #[test]
    fn a_registry_that_says_when_to_come_again_is_there() {
        let later = tonic_types::ErrorDetails::with_retry_info(Some(std::time::Duration::from_secs(1)));
        let cut_off = Status::with_error_details(Code::Unavailable, "no store", later);
        assert!(!shows_nobody(&cut_off));
        assert!(!shows_nobody(&Status::permission_denied("no")));
        assert!(shows_nobody(&Status::unavailable("connection refused")));
        assert!(shows_nobody(&Status::deadline_exceeded("nothing came")));
    }

    #[tokio::test]
    async fn every_connection_goes_round_in_an_order_of_its_own_and_all_orders_are_as_likely() {
        let mut orders: BTreeMap<Vec<String>, u32> = BTreeMap::new();
        for seed in 0..6_000 {
            let names = drawn(seed);
            assert_eq!(names[..3], names[3..], "the order stays");
            *orders.entry(names[..3].to_vec()).or_default() += 1;
        }
        assert_eq!(orders.len(), 6);
        assert!(orders.values().all(|times| (850..=1_150).contains(times)), "{orders:?}");
    }
}
