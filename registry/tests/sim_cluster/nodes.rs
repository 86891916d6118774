//! The nodes, what lies between them, and between them and the store.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use registry::catalog::{Committed, NodeId, OpId, Proposal, Revision};
use registry::cluster::{Authority, Cluster, KeptHealth, Member, Membership, PeerError, Peers, Relayed, RelayedBeat};
use registry::engine::Engine;
use registry::storage::{FollowError, HostileStore, Loaded, Outcome, Store, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// TTL of a node's lease in the store, and how old it may be for the node to be sure of it.
pub(crate) const NODE_TTL: Duration = Duration::from_secs(10);
const SURE_FOR: Duration = Duration::from_millis(6_666);
/// How often a node renews it.
const RENEWED_EVERY: Duration = Duration::from_secs(2);

/// Number of a node's place; a node that comes back has the place and another id.
pub(crate) type Place = usize;

/// What does not get through. Pairs have the lower place first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cuts {
    pub(crate) from_store: BTreeSet<Place>,
    pub(crate) pairs: BTreeSet<(Place, Place)>,
    /// Who is down.
    pub(crate) down: BTreeSet<Place>,
}

impl Cuts {
    fn between(&self, a: Place, b: Place) -> bool {
        self.down.contains(&a) || self.down.contains(&b) || self.pairs.contains(&(a.min(b), a.max(b)))
    }
}

/// A node that runs.
struct Running {
    place: Place,
    engine: Option<Engine>,
    membership: Arc<watch::Sender<Arc<Membership>>>,
    renewed: Instant,
    unsure_since: Option<Instant>,
}

/// Everything between nodes; clones are the same.
#[derive(Clone)]
pub(crate) struct Net(Arc<Shared>);

struct Shared {
    cuts: watch::Sender<Cuts>,
    nodes: Mutex<BTreeMap<NodeId, Running>>,
    /// Leases of nodes that are down and have not run out.
    leases: Mutex<BTreeMap<NodeId, (Place, Instant)>>,
    rng: Mutex<StdRng>,
    /// Which node handed a proposal in first.
    pub(crate) ops: Mutex<BTreeMap<OpId, NodeId>>,
    faults: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net")
    }
}

fn member(node: NodeId, place: Place) -> Member {
    let port = 7_400 + u16::try_from(place).unwrap();
    Member { node, address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port) }
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Shared {
            cuts: watch::Sender::new(Cuts::default()),
            nodes: Mutex::default(),
            leases: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            ops: Mutex::default(),
            faults: Mutex::default(),
        }))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Cuts)) {
        self.0.cuts.send_modify(change);
        self.tick();
    }

    pub(crate) fn cuts(&self) -> Cuts {
        self.0.cuts.borrow().clone()
    }

    /// Which node handed a proposal in first.
    pub(crate) fn author(&self, op: OpId) -> Option<NodeId> {
        self.0.ops.lock().get(&op).copied()
    }

    /// What was seen that must not be.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.0.faults.lock().clone()
    }

    fn fault(&self, what: String) {
        self.0.faults.lock().push(what);
    }

    /// A node joins, at a place that nobody has.
    pub(crate) fn join(&self, node: NodeId, place: Place) -> ModelCluster {
        let nobody = Membership { authority: Authority::Sure, members: BTreeMap::new() };
        let membership = Arc::new(watch::Sender::new(Arc::new(nobody)));
        let now = mesh_runtime::clock::now();
        let running = Running { place, engine: None, membership: membership.clone(), renewed: now, unsure_since: None };
        self.0.nodes.lock().insert(node, running);
        self.tick();
        ModelCluster { node, membership }
    }

    pub(crate) fn started(&self, node: NodeId, engine: Engine) {
        self.0.nodes.lock().get_mut(&node).unwrap().engine = Some(engine);
    }

    /// A node is gone without a word; its lease is not.
    pub(crate) fn crash(&self, node: NodeId) {
        let gone = self.0.nodes.lock().remove(&node).unwrap();
        self.0.leases.lock().insert(node, (gone.place, gone.renewed));
    }

    /// What the passing of time does to leases and to what nodes know of them.
    pub(crate) fn tick(&self) {
        let now = mesh_runtime::clock::now();
        let cuts = self.cuts();
        let mut nodes = self.0.nodes.lock();
        let mut leases = self.0.leases.lock();
        leases.retain(|_, (_, renewed)| now - *renewed < NODE_TTL);
        for running in nodes.values_mut() {
            let reaches = !cuts.from_store.contains(&running.place);
            if reaches && (now - running.renewed >= RENEWED_EVERY || running.unsure_since.is_some()) {
                running.renewed = now;
            }
        }
        let alive = nodes.iter().filter(|(_, running)| now - running.renewed < NODE_TTL);
        let alive = alive.map(|(node, running)| (*node, running.place));
        let gone = leases.iter().map(|(node, (place, _))| (*node, *place));
        let members: BTreeMap<_, _> = alive.chain(gone).map(|(node, place)| (node, member(node, place))).collect();
        for running in nodes.values_mut() {
            let sure = now - running.renewed < SURE_FOR;
            running.unsure_since = if sure { None } else { running.unsure_since.or(Some(now)) };
            let reaches = !cuts.from_store.contains(&running.place);
            running.membership.send_if_modified(|known| {
                let authority = if sure { Authority::Sure } else { Authority::Unsure };
                let members = if reaches { members.clone() } else { known.members.clone() };
                let is = Membership { authority, members };
                let changed = **known != is;
                *known = Arc::new(is);
                changed
            });
        }
    }

    /// For how long a node has not been sure of itself.
    fn unsure_for(&self, node: NodeId) -> Option<Duration> {
        let since = self.0.nodes.lock().get(&node)?.unsure_since?;
        Some(mesh_runtime::clock::now() - since)
    }

    fn engine(&self, node: NodeId) -> Option<(Place, Engine)> {
        let nodes = self.0.nodes.lock();
        let running = nodes.get(&node)?;
        Some((running.place, running.engine.clone()?))
    }

    fn delay(&self, range_ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.0.rng.lock().random_range(range_ms))
    }
}

/// Who is there, as one node knows it.
#[derive(Debug)]
pub(crate) struct ModelCluster {
    node: NodeId,
    membership: Arc<watch::Sender<Arc<Membership>>>,
}

impl Cluster for ModelCluster {
    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn membership(&self) -> watch::Receiver<Arc<Membership>> {
        self.membership.subscribe()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// The way from one node to others.
#[derive(Clone, Debug)]
pub(crate) struct ModelPeers {
    pub(crate) net: Net,
    pub(crate) place: Place,
}

impl ModelPeers {
    fn reach(&self, to: Member) -> Option<Engine> {
        let (place, engine) = self.net.engine(to.node)?;
        (!self.net.cuts().between(self.place, place)).then_some(engine)
    }
}

fn unreached() -> PeerError {
    PeerError { reason: "no way there".to_owned() }
}

impl Peers for ModelPeers {
    fn relay(&self, to: Member, beats: Vec<RelayedBeat>) -> BoxFuture<'static, Result<Vec<Relayed>, PeerError>> {
        let this = self.clone();
        async move {
            sleep(this.net.delay(1..4)).await;
            let Some(engine) = this.reach(to) else {
                // Refused where there is nobody, and no answer where the way is cut.
                sleep(this.net.delay(1..2_000)).await;
                return Err(unreached());
            };
            let relayed = engine.relayed(beats).await.map_err(|_| unreached())?;
            sleep(this.net.delay(1..4)).await;
            this.reach(to).map(|_| relayed).ok_or_else(unreached)
        }
        .boxed()
    }

    fn kept_health(&self, of: Member) -> BoxStream<'static, Result<KeptHealth, PeerError>> {
        let Some(engine) = self.reach(of) else { return stream::once(async { Err(unreached()) }).boxed() };
        let from = (self.clone(), engine.kept_health(), self.net.0.cuts.subscribe());
        stream::unfold(from, move |(this, mut told, mut cuts)| async move {
            loop {
                tokio::select! {
                    biased;
                    _ = cuts.changed() => {
                        this.reach(of)?;
                    }
                    told_now = told.next() => return told_now.map(|told_now| (Ok(told_now), (this, told, cuts))),
                }
            }
        })
        .boxed()
    }
}

/// The store as one node sees it: hostile, and out of reach now and then.
#[derive(Debug)]
pub(crate) struct NodeStore {
    pub(crate) net: Net,
    pub(crate) node: NodeId,
    pub(crate) place: Place,
    pub(crate) inner: HostileStore,
}

impl NodeStore {
    fn is_cut(&self) -> bool {
        self.net.cuts().from_store.contains(&self.place)
    }

    /// What every proposal has to keep to.
    fn inspect(&self, proposals: &[Arc<Proposal>]) {
        for proposal in proposals {
            let fresh = self.net.0.ops.lock().insert(proposal.op, self.node).is_none();
            for write in &proposal.writes {
                if !proposal.expected.iter().any(|(key, _)| key == write.key()) {
                    self.net.fault(format!("{:?} is written and not compared", write.key()));
                }
            }
            // What was handed in before has to be asked about; nothing new may come.
            if fresh
                && let Some(long) = self.net.unsure_for(self.node).filter(|long| *long > Duration::from_millis(200))
            {
                self.net.fault(format!("{} wrote although unsure for {long:?}: {:?}", self.node, proposal.writes));
            }
        }
    }
}

impl Store for NodeStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        async {
            if self.is_cut() {
                sleep(self.net.delay(100..1_000)).await;
                return Err(StoreError { reason: "no way there".to_owned() });
            }
            self.inner.load().await
        }
        .boxed()
    }

    fn commit(&self, proposals: Vec<Arc<Proposal>>) -> BoxFuture<'_, Vec<Outcome>> {
        async move {
            self.inspect(&proposals);
            if self.is_cut() {
                sleep(self.net.delay(500..2_000)).await;
                return vec![Outcome::Unknown; proposals.len()];
            }
            let outcomes = self.inner.commit(proposals).await;
            // An answer does not get through either.
            if self.is_cut() { vec![Outcome::Unknown; outcomes.len()] } else { outcomes }
        }
        .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>> {
        let broken = || FollowError::Broken { reason: "no way there".to_owned() };
        if self.is_cut() {
            return stream::once(async move { Err(broken()) }).boxed();
        }
        let from = (self.inner.follow(after), self.net.0.cuts.subscribe(), self.place, true);
        stream::unfold(from, move |(mut feed, mut cuts, place, whole)| async move {
            if !whole {
                return None;
            }
            let news = tokio::select! {
                biased;
                _ = cuts.wait_for(|cuts| cuts.from_store.contains(&place)) => Err(broken()),
                news = feed.next() => news?,
            };
            let whole = news.is_ok();
            Some((news, (feed, cuts, place, whole)))
        })
        .boxed()
    }
}

pub(crate) fn node_id(seed: u64, number: u64) -> NodeId {
    NodeId::new(Uuid::from_u64_pair(seed, number))
}
