//! The handle that the front doors hold.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::error::{EngineError, Lane};
use super::events::Events;
use super::follow::{Bell, Follow, Following, Glance};
use super::publish::View;
use super::time::Clock;
use crate::catalog::{
    Beat, Beaten, Granted, Incarnation, InstanceId, LeaseId, Position, Register, RuleSet, ServiceKey, StreamId,
    Timestamp,
};
use crate::cluster::{Board, KeptHealth, Relayed, RelayedBeat};

/// Who ended a heartbeat stream. Only the other side's end says something about the instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Closed {
    /// The connection broke or the instance ended the stream.
    ByPeer,
    /// The registry did: restart, GOAWAY, connection age, admission.
    ByUs,
}

/// What changes the store. Each waits for its commit.
#[derive(Debug)]
pub(super) enum WriteRequest {
    Register(Register, Reply<Granted>),
    Deregister(Departure, Reply<Position>),
    SetRule(RuleSet, Reply<(Position, usize)>),
    DeleteService(ServiceKey, Reply<Position>),
}

/// Who leaves, and on whose word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Departure {
    /// The instance's own: reason DEREGISTERED, and this start cannot come back for 10 minutes.
    Own {
        /// Its lease.
        lease: LeaseId,
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// An operator's: reason OPERATOR. A live process registers again at its next beat.
    Operator {
        /// The service it is looked for in.
        service: ServiceKey,
        /// Its id.
        id: InstanceId,
    },
}

/// One message of heartbeats.
#[derive(Debug)]
pub(super) struct BeatRequest {
    pub(super) beats: Vec<Beat>,
    pub(super) via: Option<StreamId>,
    pub(super) reply: Reply<Vec<Beaten>>,
}

/// What neither renews nor writes.
#[derive(Debug)]
pub(super) enum Notice {
    StreamClosed(StreamId, Closed),
    /// Beats that another node passed on; each node has one such request under way.
    Relayed(Vec<RelayedBeat>, Reply<Vec<Relayed>>),
    /// Somebody at this address wants to follow what may not be known, by this number on this bell.
    Follow(ServiceKey, Arc<Bell>, usize, IpAddr, Reply<Follow>),
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// A handle to the one task that owns the catalog. Cheap to clone. Reads come from what it last published and never wait
/// for it; everything else is a message in a bounded lane, refused with [`EngineError::Overloaded`] when that is full.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) beats: mpsc::Sender<BeatRequest>,
    pub(super) departures: mpsc::Sender<WriteRequest>,
    pub(super) registrations: mpsc::Sender<WriteRequest>,
    pub(super) operations: mpsc::Sender<WriteRequest>,
    pub(super) notices: mpsc::UnboundedSender<Notice>,
    pub(super) view: Arc<ArcSwap<View>>,
    pub(super) positions: watch::Receiver<Position>,
    pub(super) streams: Arc<AtomicU64>,
    pub(super) clock: Clock,
    /// Says that renewals were lost for want of room, so that nobody expires for it.
    pub(super) beats_refused: Arc<AtomicBool>,
    pub(super) events: Events,
    pub(super) board: Board,
}

impl Engine {
    /// Registers an instance, or changes what is registered. Done once it is committed and published.
    pub async fn register(&self, request: Register) -> Result<Granted, EngineError> {
        self.write(Lane::Registrations, |reply| WriteRequest::Register(request, reply)).await
    }

    /// Renews leases; one answer per beat, in order. `via` is the heartbeat stream they came on, if they did.
    ///
    /// A changed serving status is written, and the answer waits for that to be settled; if the store refuses, the lease
    /// is renewed all the same and the engine tries the write again by itself. A node that is cut off from the store and from
    /// every other node answers with [`EngineError::StoreUnavailable`]. A message that finds its lane full is
    /// refused, and because nobody can tell whose beats are lost with it, every lease then gets a full TTL anew.
    pub async fn beat(&self, beats: Vec<Beat>, via: Option<StreamId>) -> Result<Vec<Beaten>, EngineError> {
        let (reply, answer) = oneshot::channel();
        let request = BeatRequest { beats, via, reply };
        self.beats.try_send(request).map_err(|refused| {
            self.beats_refused.store(true, Ordering::Relaxed);
            EngineError::from_lane(&refused, Lane::Beats)
        })?;
        answer.await.map_err(|_| EngineError::Stopped)?
    }

    /// Renews leases for another node that their beats came to; one answer per beat, in order.
    pub async fn relayed(&self, beats: Vec<RelayedBeat>) -> Result<Vec<Relayed>, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.notices.send(Notice::Relayed(beats, reply)).map_err(|_| EngineError::Stopped)?;
        answer.await.map_err(|_| EngineError::Stopped)?
    }

    /// What there is to say of the leases that this node keeps, for other nodes: everything, and then what changes.
    #[must_use]
    pub fn kept_health(&self) -> BoxStream<'static, KeptHealth> {
        self.board.read()
    }

    /// Announces a heartbeat stream. Each is closed exactly once with [`Self::stream_closed`].
    #[must_use]
    pub fn stream_opened(&self) -> StreamId {
        StreamId::new(self.streams.fetch_add(1, Ordering::Relaxed))
    }

    /// Says that a heartbeat stream is over, and who ended it. Never waits: the lane it takes is bounded by the number of
    /// streams that are open, which the front door bounds.
    pub fn stream_closed(&self, stream: StreamId, how: Closed) {
        // An engine that has stopped has no streams either.
        let _ = self.notices.send(Notice::StreamClosed(stream, how));
    }

    /// Removes an instance. One that is gone already is fine; the position includes the removal.
    pub async fn deregister(&self, who: Departure) -> Result<Position, EngineError> {
        self.write(Lane::Departures, |reply| WriteRequest::Deregister(who, reply)).await
    }

    /// Sets or takes back an admin rule; the position includes it, and the number is how many instances it means now.
    pub async fn set_admin_state(&self, rule: RuleSet) -> Result<(Position, usize), EngineError> {
        self.write(Lane::Operations, |reply| WriteRequest::SetRule(rule, reply)).await
    }

    /// Forgets a service without instances, and its rules. An unknown one is fine.
    pub async fn delete_service(&self, service: ServiceKey) -> Result<Position, EngineError> {
        self.write(Lane::Operations, |reply| WriteRequest::DeleteService(service, reply)).await
    }

    /// Everything, as it was last published.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// The same, for who is done with it at once.
    #[must_use]
    pub fn glance(&self) -> Glance<View> {
        self.view.load()
    }

    /// The published position as it moves, for who waits until a revision is here. A view taken after a position was seen
    /// includes it.
    #[must_use]
    pub fn positions(&self) -> watch::Receiver<Position> {
        self.positions.clone()
    }

    /// The state of one service as it changes, known or not: a name nobody knows can be followed too, and those are
    /// bounded.
    pub async fn follow(&self, service: &ServiceKey) -> Result<Following, EngineError> {
        let bell = Arc::new(Bell::default());
        let follow = match self.follow_known(service, &bell, 0) {
            Some(follow) => follow,
            None => self.follow_unknown(service, &bell, 0, Ipv4Addr::UNSPECIFIED.into()).await?,
        };
        Ok(Following::new(follow, bell))
    }

    /// Follows a service that is published, with a bell that rings for many; `number` is what it rings for this one.
    pub fn follow_known(&self, service: &ServiceKey, bell: &Arc<Bell>, number: usize) -> Option<Follow> {
        self.view.load().follow(service, bell, number)
    }

    /// The same for one that was not published a moment ago, for somebody at this address.
    pub fn follow_unknown(
        &self,
        service: &ServiceKey,
        bell: &Arc<Bell>,
        number: usize,
        from: IpAddr,
    ) -> impl Future<Output = Result<Follow, EngineError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let notice = Notice::Follow(service.clone(), Arc::clone(bell), number, from, reply);
        let asked = self.notices.send(notice).map_err(|_| EngineError::Stopped);
        async move {
            asked?;
            answer.await.map_err(|_| EngineError::Stopped)?
        }
    }

    /// The latest membership changes.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// The engine's time, in which every [`Timestamp`] of a view is given.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn write<T>(&self, lane: Lane, request: impl FnOnce(Reply<T>) -> WriteRequest) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        let queue = match lane {
            Lane::Departures => &self.departures,
            Lane::Registrations => &self.registrations,
            Lane::Beats | Lane::Operations => &self.operations,
        };
        queue.try_send(request(reply)).map_err(|refused| EngineError::from_lane(&refused, lane))?;
        answer.await.map_err(|_| EngineError::Stopped)?
    }
}
