//! Several registry processes on one store: who they are, and whether this one may act.
//!
//! Every node serves reads, watches and heartbeats. The node that owns an instance's deadline is named in the instance's
//! record, so that the store decides who may let it expire.

mod channels;
mod etcd;
mod peers;
mod relay;
mod rendezvous;
mod soft;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::catalog::NodeId;

pub use channels::PeerChannels;
pub use etcd::EtcdCluster;
pub use peers::{KeptHealth, NoPeers, PeerError, Peers, Relayed, RelayedBeat};
pub(crate) use relay::{Relays, Settled};
pub(crate) use rendezvous::winner;
pub(crate) use soft::{Board, Heard, Listening};

/// Another registry process, or this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Where its gRPC port answers other nodes.
    pub address: SocketAddr,
}

/// Whether a node may conclude something from silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Authority {
    /// It holds its lease in the store: what it owns is its own.
    Sure,
    /// It does not know whether it still does: it expires nobody, adopts nobody, and says that its reads may be stale.
    Unsure,
}

/// Who is there, as far as this node knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// Whether this node may act.
    pub authority: Authority,
    /// Every node that holds a lease in the store, this one included while it does.
    pub members: BTreeMap<NodeId, Member>,
}

/// The nodes of one store.
pub trait Cluster: fmt::Debug + Send + Sync + 'static {
    /// This node; `None` where a store has one node only and nobody else can own anything.
    fn node(&self) -> Option<NodeId>;

    /// Who is there, as it changes.
    fn membership(&self) -> watch::Receiver<Arc<Membership>>;

    /// Gives up this node's lease at once, so that others need not wait for its end.
    fn leave(&self) -> BoxFuture<'_, ()>;
}

/// The nodes of a store, and the way to them.
#[derive(Clone, Debug)]
pub struct Company {
    /// Who is there.
    pub cluster: Arc<dyn Cluster>,
    /// How they are reached.
    pub peers: Arc<dyn Peers>,
}

impl Default for Company {
    /// Nobody else.
    fn default() -> Self {
        Self { cluster: Arc::new(Solo::default()), peers: Arc::new(NoPeers) }
    }
}

/// The one node of a store that nobody shares.
#[derive(Debug)]
pub struct Solo(watch::Sender<Arc<Membership>>);

impl Default for Solo {
    fn default() -> Self {
        let alone = Membership { authority: Authority::Sure, members: BTreeMap::new() };
        Self(watch::Sender::new(Arc::new(alone)))
    }
}

impl Cluster for Solo {
    fn node(&self) -> Option<NodeId> {
        None
    }

    fn membership(&self) -> watch::Receiver<Arc<Membership>> {
        self.0.subscribe()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}
