//! What nodes tell each other of the leases that they keep: soft state, never stored, and worth nothing once the node that
//! told it is not heard any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Member;
use super::peers::{KeptHealth, Peers};
use crate::catalog::{InstanceHealth, InstanceId, NodeId, ServiceKey};

/// How often a peer is told at most.
const PACE: Duration = Duration::from_millis(100);

/// How soon a node that broke off is asked again.
const AGAIN: Duration = Duration::from_millis(500);

type Healths = BTreeMap<InstanceId, InstanceHealth>;
type Services = BTreeMap<ServiceKey, Arc<Healths>>;

/// Where this node posts what there is to say of the leases that it keeps. Bounded by the live instances; who reads slowly
/// skips what was replaced meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<watch::Sender<Arc<Services>>>);

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::default())))
    }
}

impl Board {
    /// Replaces what is said of a service.
    pub(crate) fn post(&self, service: ServiceKey, instances: Healths) {
        self.0.send_if_modified(|services| {
            let before = services.get(&service);
            if before.map_or(instances.is_empty(), |before| **before == instances) {
                return false;
            }
            let services = Arc::make_mut(services);
            if instances.is_empty() {
                services.remove(&service);
            } else {
                services.insert(service, Arc::new(instances));
            }
            true
        });
    }

    /// What is said now, service by service, and then what changes. Ends with the board.
    pub(crate) fn read(&self) -> BoxStream<'static, KeptHealth> {
        let mut posted = self.0.subscribe();
        posted.mark_changed();
        let from = (posted, Arc::<Services>::default(), VecDeque::new());
        stream::unfold(from, |(mut posted, mut read, mut news)| async move {
            while news.is_empty() {
                posted.changed().await.ok()?;
                sleep(PACE).await;
                let now = Arc::clone(&posted.borrow_and_update());
                news = changes(&read, &now);
                read = now;
            }
            let next = news.pop_front()?;
            Some((next, (posted, read, news)))
        })
        .boxed()
    }
}

/// What is said otherwise now. A service that nothing is said of any more is told as that.
fn changes(was: &Services, is: &Services) -> VecDeque<KeptHealth> {
    let told = |service: &ServiceKey, instances: &Healths| KeptHealth {
        service: service.clone(),
        instances: instances.clone(),
    };
    let silent = was.keys().filter(|service| !is.contains_key(*service));
    let silent = silent.map(|service| told(service, &Healths::new()));
    let same = |service: &ServiceKey, now: &Arc<Healths>| was.get(service).is_some_and(|was| Arc::ptr_eq(was, now));
    let changed = is.iter().filter(|(service, now)| !same(service, now));
    silent.chain(changed.map(|(service, now)| told(service, now))).collect()
}

/// What is heard of other nodes.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A node says this of a service.
    Told(NodeId, KeptHealth),
    /// A node is not heard any more: what it told is worth nothing.
    Lost(NodeId),
}

/// Listens to other nodes, one stream each.
pub(crate) struct Listening {
    peers: Arc<dyn Peers>,
    me: Option<NodeId>,
    to: BTreeMap<NodeId, (Member, CancellationToken)>,
    streams: SelectAll<BoxStream<'static, Heard>>,
}

impl Listening {
    pub(crate) fn new(peers: Arc<dyn Peers>, me: Option<NodeId>) -> Self {
        Self { peers, me, to: BTreeMap::new(), streams: SelectAll::new() }
    }

    /// Listens to these from now on, and to nobody else; tells who is listened to no more.
    pub(crate) fn attend(&mut self, members: &BTreeMap<NodeId, Member>) -> Vec<NodeId> {
        let left: Vec<NodeId> = self
            .to
            .iter()
            .filter(|(node, (member, _))| members.get(node) != Some(member))
            .map(|(node, _)| *node)
            .collect();
        for node in &left {
            if let Some((_, stop)) = self.to.remove(node) {
                stop.cancel();
            }
        }
        for (node, member) in members {
            if Some(*node) != self.me && !self.to.contains_key(node) {
                let stop = CancellationToken::new();
                self.to.insert(*node, (*member, stop.clone()));
                let heard = listen(self.peers.clone(), *member).take_until(stop.cancelled_owned());
                self.streams.push(heard.boxed());
            }
        }
        left
    }

    /// What is heard next; never, where nobody is listened to. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Heard {
        match self.streams.next().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn try_next(&mut self) -> Option<Heard> {
        self.next().now_or_never()
    }
}

/// One node, for as long as it is wanted.
fn listen(peers: Arc<dyn Peers>, member: Member) -> BoxStream<'static, Heard> {
    let node = member.node;
    let from = (None::<BoxStream<'static, _>>, false);
    stream::unfold(from, move |(following, again)| {
        let peers = peers.clone();
        async move {
            if again {
                sleep(AGAIN).await;
            }
            let mut following = following.unwrap_or_else(|| peers.kept_health(member));
            match following.next().await {
                Some(Ok(told)) => Some((Heard::Told(node, told), (Some(following), false))),
                ended => {
                    if let Some(Err(error)) = ended {
                        tracing::debug!(%node, %error, "what a node tells broke off");
                    }
                    Some((Heard::Lost(node), (None, true)))
                }
            }
        }
    })
    .boxed()
}
