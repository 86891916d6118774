//! How the nodes of a store reach each other.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};

use super::Member;
use crate::catalog::{Incarnation, InstanceHealth, InstanceId, LeaseId, LoadReport, ServiceKey};

/// How long a node may take to answer relayed beats: past it the one that asks takes the instances over itself.
pub(crate) const RELAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Most beats relayed in one request.
pub(crate) const RELAY_BATCH_MAX: usize = 1_000;

/// A beat that came to a node that does not keep the lease. What it says of the instance's serving status that node has
/// written itself.
#[derive(Clone, PartialEq, Debug)]
pub struct RelayedBeat {
    /// The lease to renew.
    pub lease: LeaseId,
    /// The incarnation it was granted to.
    pub incarnation: Incarnation,
    /// How busy the instance is; `None` is "as before".
    pub load: Option<LoadReport>,
}

/// What became of a relayed beat.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Relayed {
    /// The lease has a full TTL again.
    Renewed,
    /// There is no such lease, or it is on its way out.
    Gone,
    /// The node that was asked does not keep it either.
    Elsewhere,
}

/// What a node says of the leases that it keeps in one service. It replaces what it said of that service before; whoever is
/// not in it is ALIVE.
#[derive(Clone, PartialEq, Debug)]
pub struct KeptHealth {
    /// The service.
    pub service: ServiceKey,
    /// Instances that are not ALIVE or have reported load.
    pub instances: BTreeMap<InstanceId, InstanceHealth>,
}

/// A node was not reached, or did not answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the other node did not answer: {reason}")]
pub struct PeerError {
    /// In its words, or the transport's.
    pub reason: String,
}

/// A way to other nodes.
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// Hands beats to the node that keeps the leases, at most 1 000; one answer a beat, in order.
    fn relay(&self, to: Member, beats: Vec<RelayedBeat>) -> BoxFuture<'static, Result<Vec<Relayed>, PeerError>>;

    /// What a node says of the leases that it keeps, service by service, as it changes.
    fn kept_health(&self, of: Member) -> BoxStream<'static, Result<KeptHealth, PeerError>>;
}

/// No way, where there is nobody else.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn relay(&self, _: Member, _: Vec<RelayedBeat>) -> BoxFuture<'static, Result<Vec<Relayed>, PeerError>> {
        async { Err(PeerError { reason: "this registry has its store to itself".to_owned() }) }.boxed()
    }

    fn kept_health(&self, _: Member) -> BoxStream<'static, Result<KeptHealth, PeerError>> {
        stream::empty().boxed()
    }
}
