//! Two engines on one store: who keeps what, and what a node does that is not sure of itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::kit::{Rig, SECOND, beat_of, memory, settings};
use crate::catalog::kit::{asks, id, node};
use crate::catalog::{BeatOutcome, Granted, Liveness, NodeId};
use crate::cluster::{
    Authority, Cluster, Company, KeptHealth, Member, Membership, PeerError, Peers, Relayed, RelayedBeat,
};
use crate::engine::{Engine, EngineError, Metrics};
use crate::storage::{HostileStore, Hostility, Store};

/// Everything two nodes share beside the store.
#[derive(Clone, Debug, Default)]
struct Both {
    engines: Arc<Mutex<BTreeMap<NodeId, Engine>>>,
    apart: Arc<Mutex<bool>>,
}

#[derive(Debug)]
struct One(NodeId, Arc<watch::Sender<Arc<Membership>>>);

impl Cluster for One {
    fn node(&self) -> Option<NodeId> {
        Some(self.0)
    }

    fn membership(&self) -> watch::Receiver<Arc<Membership>> {
        self.1.subscribe()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

impl Both {
    fn engine(&self, of: Member) -> Result<Engine, PeerError> {
        let engine = self.engines.lock().get(&of.node).cloned();
        let reached = engine.filter(|_| !*self.apart.lock());
        reached.ok_or_else(|| PeerError { reason: "no way there".to_owned() })
    }
}

impl Peers for Both {
    fn relay(&self, to: Member, beats: Vec<RelayedBeat>) -> BoxFuture<'static, Result<Vec<Relayed>, PeerError>> {
        let engine = self.engine(to);
        async move { engine?.relayed(beats).await.map_err(|error| PeerError { reason: error.to_string() }) }.boxed()
    }

    fn kept_health(&self, of: Member) -> BoxStream<'static, Result<KeptHealth, PeerError>> {
        match self.engine(of) {
            Ok(engine) => engine.kept_health().map(Ok).boxed(),
            Err(error) => futures_util::stream::once(async { Err(error) }).boxed(),
        }
    }
}

struct Pair {
    both: Both,
    membership: Arc<watch::Sender<Arc<Membership>>>,
    one: Rig,
    two: Rig,
}

fn members(numbers: &[u128]) -> BTreeMap<NodeId, Member> {
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 7_400);
    numbers.iter().map(|number| (node(*number), Member { node: node(*number), address })).collect()
}

impl Pair {
    async fn new() -> Self {
        let store = memory();
        Self::on([Arc::new(store.clone()), Arc::new(store)]).await
    }

    /// One store, as each of them sees it.
    async fn on([first, second]: [Arc<dyn Store>; 2]) -> Self {
        let all = Membership { authority: Authority::Sure, members: members(&[1, 2]) };
        let (both, membership) = (Both::default(), Arc::new(watch::Sender::new(Arc::new(all))));
        let one = Self::start(1, &both, &membership, first).await;
        let two = Self::start(2, &both, &membership, second).await;
        Self { both, membership, one, two }
    }

    async fn start(
        number: u8,
        both: &Both,
        membership: &Arc<watch::Sender<Arc<Membership>>>,
        store: Arc<dyn Store>,
    ) -> Rig {
        let id = node(number.into());
        let cluster = Arc::new(One(id, Arc::clone(membership)));
        let (company, metrics) = (Company { cluster, peers: Arc::new(both.clone()) }, Metrics::default());
        let started = Engine::start_in(company, settings(number), store, metrics.clone()).await;
        let (engine, task) = started.unwrap();
        both.engines.lock().insert(id, engine.clone());
        Rig { engine, metrics, task }
    }

    fn becomes(&self, authority: Authority, who: &[u128]) {
        self.membership.send_replace(Arc::new(Membership { authority, members: members(who) }));
    }

    fn owner(&self) -> Option<NodeId> {
        self.two.users().instances().get(&id(1)).and_then(|instance| instance.owner())
    }

    /// Owner as the store has it: a new one is silent to readers.
    async fn keeper(&self, granted: &Granted) -> NodeId {
        let beat = beat_of(granted);
        let asked = || vec![RelayedBeat { lease: beat.lease, incarnation: beat.incarnation, load: None }];
        let here = self.one.engine.relayed(asked()).await.unwrap() == [Relayed::Renewed];
        if here { node(1) } else { node(2) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_to_another_node_renews_where_the_lease_is_kept() {
    let pair = Pair::new().await;
    let granted = pair.one.register(1).await;
    tokio::time::sleep(SECOND).await;
    for _ in 0..10 {
        tokio::time::sleep(3 * SECOND).await;
        assert_eq!(pair.two.beat(&granted).await, BeatOutcome::Renewed);
    }
    assert_eq!(pair.two.liveness(1), Some(Liveness::Alive));
    assert_eq!(pair.keeper(&granted).await, node(1), "a call moves nobody");
    assert_eq!(pair.owner(), Some(node(1)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_to_another_node_moves_the_lease_there() {
    let pair = Pair::new().await;
    let granted = pair.one.register(1).await;
    tokio::time::sleep(SECOND).await;
    let stream = pair.two.engine.stream_opened();
    assert_eq!(pair.two.beat_via(&granted, Some(stream)).await, BeatOutcome::Renewed);
    assert_eq!(pair.keeper(&granted).await, node(2));
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(pair.one.liveness(1), Some(Liveness::Stale), "the last one is kept, and its keeper says how it stands");
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_is_not_reached_loses_who_beats_elsewhere() {
    let pair = Pair::new().await;
    let granted = pair.one.register(1).await;
    tokio::time::sleep(SECOND).await;
    *pair.both.apart.lock() = true;
    assert_eq!(pair.two.beat(&granted).await, BeatOutcome::Renewed);
    assert_eq!(pair.keeper(&granted).await, node(2));
}

#[tokio::test(start_paused = true)]
async fn what_a_node_that_is_gone_kept_is_adopted_after_half_a_ttl() {
    let pair = Pair::new().await;
    let granted = pair.one.register(1).await;
    tokio::time::sleep(SECOND).await;
    pair.becomes(Authority::Sure, &[2]);
    tokio::time::sleep(4 * SECOND).await;
    assert_eq!(pair.keeper(&granted).await, node(1));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(pair.keeper(&granted).await, node(2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_sure_of_itself_writes_nothing_answers_beats_and_says_so() {
    let pair = Pair::new().await;
    let granted = pair.one.register(1).await;
    pair.becomes(Authority::Unsure, &[1, 2]);
    let begun = pair.one.engine.now();
    assert_eq!(pair.one.try_register(asks(2)).await, Err(EngineError::StoreUnavailable));
    assert!(pair.one.engine.now().since(begun) < SECOND);
    assert_eq!(pair.one.beat(&granted).await, BeatOutcome::Renewed);
    assert!(pair.one.engine.view().stale_since().is_some());
    // For as long as it takes; nobody expires, and nobody is adopted from whoever is not seen now.
    pair.becomes(Authority::Unsure, &[1]);
    tokio::time::sleep(120 * SECOND).await;
    assert_eq!(pair.one.liveness(1), Some(Liveness::Stale));
    pair.becomes(Authority::Sure, &[1, 2]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(pair.one.engine.view().stale_since(), None);
    assert_eq!(pair.one.liveness(1), Some(Liveness::Suspect), "a full TTL to be heard in");
    pair.one.register(2).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_node_is_sure_again_it_adopts_nobody_for_ten_seconds() {
    let pair = Pair::new().await;
    let granted = pair.one.register(1).await;
    pair.becomes(Authority::Unsure, &[1, 2]);
    tokio::time::sleep(20 * SECOND).await;
    pair.becomes(Authority::Sure, &[2]);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(pair.keeper(&granted).await, node(1));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(pair.keeper(&granted).await, node(2));
}

#[tokio::test(start_paused = true)]
async fn of_the_last_two_instances_two_nodes_do_not_let_both_go_at_once() {
    let slow = Hostility { foreign_writes: 0, delay_max_ms: 15, ..Hostility::COMPANY };
    for seed in 0..20 {
        let store = memory();
        let seen = |by: u64| HostileStore::new(store.clone(), 2 * seed + by, slow);
        let pair = Pair::on([Arc::new(seen(0)), Arc::new(seen(1))]).await;
        tokio::join!(pair.one.register(1), pair.two.register(2));
        tokio::time::sleep(60 * SECOND).await;
        let left = pair.one.users().instances().len();
        assert_eq!(left, 1, "seed {seed}: the last one is held for an hour");
        pair.one.task.stop().await;
        pair.two.task.stop().await;
    }
}

/// Beats for so many seconds, as one that keeps asking, and tells when it was refused first.
async fn refused_after(rig: &Rig, granted: &Granted, seconds: u64) -> Option<u64> {
    for second in 0..seconds {
        tokio::time::sleep(SECOND).await;
        match rig.engine.beat(vec![beat_of(granted)], None).await {
            Ok(beaten) => assert_eq!(beaten[0].outcome, BeatOutcome::Renewed),
            Err(error) => {
                assert_eq!(error, EngineError::StoreUnavailable);
                return Some(second);
            }
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_node_cut_off_from_the_store_and_from_all_others_sends_heartbeats_elsewhere() {
    let pair = Pair::new().await;
    let granted = pair.one.register(1).await;
    *pair.both.apart.lock() = true;
    assert_eq!(refused_after(&pair.one, &granted, 30).await, None, "it has the store");
    pair.becomes(Authority::Unsure, &[1, 2]);
    assert_eq!(refused_after(&pair.one, &granted, 30).await, Some(1), "the first one shows that nobody hears");
    assert_eq!(refused_after(&pair.one, &granted, 30).await, Some(0));

    // The beat that is passed on is refused, and shows that another node hears of it; those after it are answered.
    *pair.both.apart.lock() = false;
    assert_eq!(refused_after(&pair.one, &granted, 1).await, Some(0));
    assert_eq!(refused_after(&pair.one, &granted, 30).await, None);

    *pair.both.apart.lock() = true;
    assert!(refused_after(&pair.one, &granted, 30).await.is_some());
    pair.becomes(Authority::Sure, &[1, 2]);
    assert_eq!(refused_after(&pair.one, &granted, 30).await, None, "it has the store again");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_knows_no_other_answers_beats_for_as_long_as_the_store_is_gone() {
    let pair = Pair::new().await;
    let granted = pair.one.register(1).await;
    *pair.both.apart.lock() = true;
    pair.becomes(Authority::Unsure, &[1]);
    assert_eq!(refused_after(&pair.one, &granted, 120).await, None);
}
