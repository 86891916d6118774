//! Beats on their way to the nodes that keep the leases: a queue a node, and one request in flight to each. While it is
//! under way others gather, so that a slow node gets larger requests and not more of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use super::Member;
use super::peers::{PeerError, Peers, RELAY_BATCH_MAX, RELAY_TIMEOUT, Relayed, RelayedBeat};
use crate::catalog::NodeId;

/// Beats that wait for one node. What comes on top is not relayed.
const QUEUE_MAX: usize = 20_000;

/// Beats that nobody waits for are not relayed on top of so many: they leave room for those whose answers are awaited, and
/// keep them waiting for two requests at most.
const TELLS_MAX: usize = 2_000;

/// A beat that was relayed, or was not: `None` says that the node was not reached.
pub(crate) struct Settled<T> {
    /// What was handed in with it.
    pub(crate) ticket: T,
    /// Which node was asked.
    pub(crate) asked: NodeId,
    /// What the node says.
    pub(crate) outcome: Option<Relayed>,
}

/// Beats on their way. `T` comes back with what became of each.
pub(crate) struct Relays<T> {
    peers: Arc<dyn Peers>,
    /// One for each node that something waits for or is under way to.
    queues: BTreeMap<NodeId, VecDeque<(RelayedBeat, T)>>,
    /// At most one a queue.
    running: FuturesUnordered<BoxFuture<'static, Answered<T>>>,
}

struct Answered<T> {
    to: Member,
    tickets: Vec<T>,
    answer: Result<Vec<Relayed>, PeerError>,
}

impl<T: Send + 'static> Relays<T> {
    pub(crate) fn new(peers: Arc<dyn Peers>) -> Self {
        Self { peers, queues: BTreeMap::new(), running: FuturesUnordered::new() }
    }

    /// Sends a beat as soon as the node has answered what is under way. Comes back where too many wait for it.
    pub(crate) fn push(&mut self, to: Member, beat: RelayedBeat, ticket: T) -> Result<(), T> {
        self.push_within(QUEUE_MAX, to, beat, ticket)
    }

    /// The same for a beat that nobody waits for: comes back sooner.
    pub(crate) fn tell(&mut self, to: Member, beat: RelayedBeat, ticket: T) -> Result<(), T> {
        self.push_within(TELLS_MAX, to, beat, ticket)
    }

    fn push_within(&mut self, max: usize, to: Member, beat: RelayedBeat, ticket: T) -> Result<(), T> {
        let idle = !self.queues.contains_key(&to.node);
        let queue = self.queues.entry(to.node).or_default();
        if queue.len() >= max {
            return Err(ticket);
        }
        queue.push_back((beat, ticket));
        if idle {
            self.send(to);
        }
        Ok(())
    }

    /// What became of the next beats; never, where none are under way. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Vec<Settled<T>> {
        match self.running.next().await {
            Some(answered) => self.settle(answered),
            None => std::future::pending().await,
        }
    }

    fn settle(&mut self, answered: Answered<T>) -> Vec<Settled<T>> {
        let Answered { to, tickets, answer } = answered;
        let outcomes = answer.and_then(|outcomes| match outcomes.len() == tickets.len() {
            true => Ok(outcomes),
            false => Err(PeerError { reason: format!("{} answers to {} beats", outcomes.len(), tickets.len()) }),
        });
        match outcomes {
            Ok(outcomes) => {
                self.send(to);
                let settled = tickets.into_iter().zip(outcomes);
                settled.map(|(ticket, outcome)| Settled { ticket, asked: to.node, outcome: Some(outcome) }).collect()
            }
            Err(error) => {
                // What waits would wait as long again, and the instances it came from cannot.
                let waiting = self.queues.remove(&to.node).unwrap_or_default();
                let beats = tickets.len() + waiting.len();
                tracing::warn!(node = %to.node, address = %to.address, %error, beats, "beats were not relayed");
                let unreached = tickets.into_iter().chain(waiting.into_iter().map(|(_, ticket)| ticket));
                unreached.map(|ticket| Settled { ticket, asked: to.node, outcome: None }).collect()
            }
        }
    }

    fn send(&mut self, to: Member) {
        let Some(queue) = self.queues.get_mut(&to.node) else { return };
        let batch = queue.drain(..queue.len().min(RELAY_BATCH_MAX));
        let (beats, tickets): (Vec<_>, Vec<_>) = batch.unzip();
        if beats.is_empty() {
            self.queues.remove(&to.node);
            return;
        }
        let asked = timeout(RELAY_TIMEOUT, self.peers.relay(to, beats));
        let request = async move {
            let late = |_| Err(PeerError { reason: format!("nothing came within {RELAY_TIMEOUT:?}") });
            let answer = asked.await.unwrap_or_else(late);
            Answered { to, tickets, answer }
        };
        self.running.push(request.boxed());
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use futures_util::stream::{self, BoxStream};
    use parking_lot::Mutex;

    use super::super::peers::KeptHealth;
    use super::*;
    use crate::catalog::LeaseId;
    use crate::catalog::kit::{incarnation, node};

    /// Answers after 100 ms, or never; notes the size of every request.
    #[derive(Clone, Debug, Default)]
    struct Other {
        dead: bool,
        requests: Arc<Mutex<Vec<usize>>>,
    }

    impl Peers for Other {
        fn relay(&self, _: Member, beats: Vec<RelayedBeat>) -> BoxFuture<'static, Result<Vec<Relayed>, PeerError>> {
            self.requests.lock().push(beats.len());
            let dead = self.dead;
            async move {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                if dead { std::future::pending().await } else { Ok(vec![Relayed::Renewed; beats.len()]) }
            }
            .boxed()
        }

        fn kept_health(&self, _: Member) -> BoxStream<'static, Result<KeptHealth, PeerError>> {
            stream::empty().boxed()
        }
    }

    fn member(number: u128) -> Member {
        Member { node: node(number), address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 7_400) }
    }

    fn beat() -> RelayedBeat {
        RelayedBeat { lease: LeaseId::new([1; 16]), incarnation: incarnation(1), load: None }
    }

    fn relays(other: &Other, beats: usize) -> Relays<usize> {
        let mut relays = Relays::new(Arc::new(other.clone()));
        for ticket in 0..beats {
            assert!(relays.push(member(1), beat(), ticket).is_ok());
        }
        relays
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_is_under_way_and_the_rest_gathers() {
        let other = Other::default();
        let mut relays = relays(&other, 2_500);
        let mut tickets = Vec::new();
        while tickets.len() < 2_500 {
            let settled = relays.next().await;
            assert!(settled.iter().all(|settled| settled.outcome == Some(Relayed::Renewed)));
            tickets.extend(settled.into_iter().map(|settled| settled.ticket));
        }
        assert!(tickets.is_sorted());
        assert_eq!(*other.requests.lock(), [1, 1_000, 1_000, 499]);
        assert!(relays.queues.is_empty(), "a node that nothing waits for costs nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_answer_keeps_nobody_waiting_for_longer_than_a_second() {
        let mut relays = relays(&Other { dead: true, ..Other::default() }, 2_500);
        let begun = mesh_runtime::clock::now();
        let settled = relays.next().await;
        assert_eq!((settled.len(), begun.elapsed()), (2_500, RELAY_TIMEOUT));
        assert!(settled.iter().all(|settled| settled.outcome.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_takes_no_more_and_other_nodes_are_not_held_up() {
        let mut relays = relays(&Other::default(), QUEUE_MAX + 1);
        assert_eq!(relays.push(member(1), beat(), 7), Err(7));
        assert_eq!(relays.push(member(2), beat(), 8), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_leaves_room_for_what_is_awaited() {
        let mut relays = relays(&Other::default(), 1);
        let told = (0..QUEUE_MAX).filter(|ticket| relays.tell(member(1), beat(), *ticket).is_ok()).count();
        assert_eq!(told, TELLS_MAX);
        assert_eq!(relays.push(member(1), beat(), 7), Ok(()));
    }
}
