//! One watch stream: what it follows, what is ready to be sent, and when to look again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, Stream};
use mesh_api::registry::v1 as pb;
use mesh_runtime::clock;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};
use tonic::Status;

use super::hub::Hub;
use super::message::Message;
use super::press::Press;
use super::queue::Feed;
use super::snapshot::Complete;
use super::subscription::{Due, Next, Outlook, Subscription};
use super::{BOOKMARK_EVERY, STALL_MAX, SUBSCRIPTIONS_MAX};
use crate::catalog::{Invalid, Position, ServiceKey, ServiceView};
use crate::engine::{EngineError, View};
use crate::front::{FrontError, Peer, Place};
use crate::wire::{self, Fault};

/// How often a stream looks whether the registry's state has become whole, while it is not.
const WARMING_LOOK: Duration = Duration::from_millis(250);

/// The state of one stream; [`Watcher::run`] is its task.
pub(super) struct Watcher {
    hub: Arc<Hub>,
    peer: Peer,
    feed: Feed,
    /// At most [`SUBSCRIPTIONS_MAX`].
    followed: BTreeMap<ServiceKey, Followed>,
    /// Resolves when a followed service changed.
    changes: FuturesUnordered<BoxFuture<'static, Option<Change>>>,
    /// In the order of sending: each service at most once, one bookmark, and the refusals of one request.
    ready: VecDeque<Job>,
    /// Services that wait for their time; each at most once.
    later: BTreeSet<(Instant, ServiceKey)>,
    /// Counts subscriptions, so that a change which belongs to an earlier one is told apart.
    rounds: u64,
    /// When the next bookmark is due; `None` while one stands in `ready`.
    bookmark_at: Option<Instant>,
    /// What the last bookmark said, or was true at the start.
    complete: Complete,
    /// When to look next whether the state has become whole. Fixed, so that a busy stream does not put it off.
    warming_at: Instant,
    progress: Progress,
}

/// One followed service.
struct Followed {
    round: u64,
    subscription: Subscription,
    view: watch::Receiver<Arc<ServiceView>>,
    stands: Stands,
    listening: AbortHandle,
    _place: Place,
}

/// Where a service waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// Nowhere: it is sent, up to its next change.
    Aside,
    /// In `later`, under this time.
    Later(Instant),
    /// In `ready`.
    Ready(Haste),
}

/// Whether a service whose turn has come still lets changes gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    AsDue,
    /// No: a bookmark stands behind it and says that all is sent.
    Everything,
}

enum Job {
    Service(ServiceKey),
    Bookmark(Position, Complete),
    Refusal(Message),
}

/// News of a followed service; the receiver comes back to listen on, unless the name was forgotten.
struct Change {
    service: ServiceKey,
    round: u64,
    receiver: Result<watch::Receiver<Arc<ServiceView>>, Forgotten>,
}

struct Forgotten;

/// When the watcher last took something, or had nothing to take.
struct Progress {
    taken: u64,
    at: Instant,
}

/// Why a stream ends from this side.
enum Ended {
    /// The watcher hung up, or the registry ends its watches.
    Quietly,
    With(FrontError),
    /// The request stream broke or carried what is no message.
    Broken(Status),
}

impl Watcher {
    pub(super) fn new(hub: Arc<Hub>, peer: Peer, feed: Feed) -> Self {
        let now = clock::now();
        let complete = Complete::from_wire(hub.engine.view().complete());
        hub.metrics.streams.inc();
        Self {
            hub,
            peer,
            feed,
            followed: BTreeMap::new(),
            changes: FuturesUnordered::new(),
            ready: VecDeque::new(),
            later: BTreeSet::new(),
            rounds: 0,
            bookmark_at: Some(now + BOOKMARK_EVERY),
            complete,
            warming_at: now + WARMING_LOOK,
            progress: Progress { taken: 0, at: now },
        }
    }

    /// Serves the stream to its end.
    pub(super) async fn run<R>(mut self, requests: R)
    where
        R: Stream<Item = Result<pb::WatchRequest, Status>> + Send + Unpin,
    {
        match self.serve(requests).await {
            Ended::Quietly => {}
            Ended::With(why) => {
                if matches!(why, FrontError::SlowWatcher { .. }) {
                    self.hub.metrics.cuts.inc();
                    tracing::warn!(services = self.followed.len(), "cut a watch stream that nobody reads");
                }
                self.feed.cut(why.into());
            }
            Ended::Broken(status) => self.feed.cut(status),
        }
    }

    async fn serve<R>(&mut self, requests: R) -> Ended
    where
        R: Stream<Item = Result<pb::WatchRequest, Status>> + Send + Unpin,
    {
        // Fused: a half-closed request stream is done, and the subscriptions stay.
        let mut requests = requests.fuse();
        let ends = self.hub.ends.clone();
        loop {
            self.feed_while_there_is_room();
            if let Err(why) = self.check_progress() {
                return Ended::With(why);
            }
            let wake = self.wakes_at();
            // Requests are read when all that was asked for is sent: what a request can ask for is bounded, and so is what
            // waits here.
            let may_ask = self.ready.is_empty() && !requests.is_done();
            tokio::select! {
                () = ends.cancelled() => return Ended::Quietly,
                () = self.feed.room() => {
                    if self.feed.is_abandoned() {
                        return Ended::Quietly;
                    }
                }
                Some(change) = self.changes.next(), if !self.changes.is_empty() => {
                    let Some(change) = change else { continue };
                    if let Err(why) = self.changed(change).await {
                        return Ended::With(why);
                    }
                }
                request = requests.next(), if may_ask => match request {
                    None => {}
                    Some(Err(status)) => return Ended::Broken(status),
                    Some(Ok(request)) => {
                        if let Err(why) = self.asked(request).await {
                            return Ended::With(why);
                        }
                    }
                },
                () = sleep_until(wake) => self.look_at_the_clock(),
            }
        }
    }

    /// Takes a request: what it no longer wants, then what it wants.
    async fn asked(&mut self, request: pb::WatchRequest) -> Result<(), FrontError> {
        let count = request.subscribe.len() + request.unsubscribe.len();
        if count > SUBSCRIPTIONS_MAX {
            return Err(Fault::from(Invalid::TooMany { field: "subscribe", count, max: SUBSCRIPTIONS_MAX }).into());
        }
        for name in request.unsubscribe {
            // A name that is none is followed by nobody.
            if let Ok(service) = wire::service_key(&name.namespace, &name.service) {
                self.forget(&service);
            }
        }
        for wanted in request.subscribe {
            match self.follow(&wanted).await {
                Ok(()) => {}
                Err(FrontError::Engine(EngineError::Stopped)) => return Err(EngineError::Stopped.into()),
                Err(why) => self.refuse(wanted.namespace, wanted.service, &why),
            }
        }
        Ok(())
    }

    async fn follow(&mut self, wanted: &pb::Subscription) -> Result<(), FrontError> {
        let service = wire::service_key(&wanted.namespace, &wanted.service)?;
        let after = wanted.after.as_ref().map(wire::decode_position).transpose()?;
        self.forget(&service);
        if self.followed.len() >= SUBSCRIPTIONS_MAX {
            return Err(FrontError::TooManySubscriptions { max: SUBSCRIPTIONS_MAX });
        }
        let place = self.hub.subscriptions.take(self.peer).map_err(|full| FrontError::TooManyFollowed { full })?;
        let receiver = self.hub.engine.follow(&service).await?;
        let here = self.hub.engine.view();
        let complete = Complete::from_wire(here.complete());
        let subscription = Subscription::resume(after, here.position(), complete, clock::now());
        self.add(service, subscription, receiver, place);
        Ok(())
    }

    fn add(
        &mut self,
        service: ServiceKey,
        subscription: Subscription,
        view: watch::Receiver<Arc<ServiceView>>,
        place: Place,
    ) {
        self.rounds += 1;
        let round = self.rounds;
        let listening = self.listen(service.clone(), round, view.clone());
        let followed = Followed { round, subscription, view, stands: Stands::Aside, listening, _place: place };
        self.followed.insert(service.clone(), followed);
        self.hub.metrics.subscriptions.inc();
        self.consider(&service, Haste::AsDue);
    }

    fn listen(&self, service: ServiceKey, round: u64, mut receiver: watch::Receiver<Arc<ServiceView>>) -> AbortHandle {
        let (handle, registration) = AbortHandle::new_pair();
        let change = async move {
            let receiver = receiver.changed().await.map(|()| receiver).map_err(|_| Forgotten);
            Change { service, round, receiver }
        };
        self.changes.push(Abortable::new(change, registration).map(Result::ok).boxed());
        handle
    }

    fn forget(&mut self, service: &ServiceKey) {
        let Some(followed) = self.followed.remove(service) else { return };
        followed.listening.abort();
        match followed.stands {
            Stands::Aside => {}
            Stands::Later(at) => {
                self.later.remove(&(at, service.clone()));
            }
            Stands::Ready(_) => self.ready.retain(|job| !matches!(job, Job::Service(ready) if ready == service)),
        }
        self.hub.metrics.subscriptions.dec();
    }

    fn refuse(&mut self, namespace: String, service: String, why: &FrontError) {
        self.hub.refusals.count(why);
        let here = self.hub.engine.view();
        let complete = Complete::from_wire(here.complete());
        self.ready.push_back(Job::Refusal(Press::refusal(namespace, service, here.position(), complete, why)));
    }

    /// A followed service changed.
    async fn changed(&mut self, change: Change) -> Result<(), FrontError> {
        let Change { service, round, receiver } = change;
        let current = self.followed.get(&service).is_some_and(|followed| followed.round == round);
        if !current {
            return Ok(());
        }
        let receiver = match receiver {
            Ok(receiver) => receiver,
            // Forgotten between two looks, and perhaps known again: the same subscription goes on with what is there now.
            Err(Forgotten) => match self.hub.engine.follow(&service).await {
                Ok(receiver) => receiver,
                Err(EngineError::Stopped) => return Err(EngineError::Stopped.into()),
                Err(why) => {
                    self.forget(&service);
                    self.refuse(
                        service.namespace.as_str().to_owned(),
                        service.name.as_str().to_owned(),
                        &FrontError::from(why),
                    );
                    return Ok(());
                }
            },
        };
        let listening = self.listen(service.clone(), round, receiver.clone());
        if let Some(followed) = self.followed.get_mut(&service) {
            followed.view = receiver;
            followed.listening = listening;
        }
        self.consider(&service, Haste::AsDue);
        Ok(())
    }

    /// Puts a service where it belongs: ready, later, or nowhere.
    fn consider(&mut self, service: &ServiceKey, haste: Haste) {
        let Some(followed) = self.followed.get_mut(service) else { return };
        let due = followed.look(&self.hub, |subscription, outlook| subscription.due(outlook));
        let due = match (due, haste) {
            (Due::At(_), Haste::Everything) => Due::Now,
            (due, _) => due,
        };
        match (followed.stands, due) {
            (Stands::Ready(_), _) => {
                if haste == Haste::Everything {
                    followed.stands = Stands::Ready(haste);
                }
                return;
            }
            (Stands::Later(at), _) => {
                self.later.remove(&(at, service.clone()));
            }
            (Stands::Aside, _) => {}
        }
        followed.stands = match due {
            Due::Idle => Stands::Aside,
            Due::At(at) => {
                self.later.insert((at, service.clone()));
                Stands::Later(at)
            }
            Due::Now => {
                self.ready.push_back(Job::Service(service.clone()));
                Stands::Ready(haste)
            }
        };
    }

    /// Works off what is ready until the watcher has enough to read.
    fn feed_while_there_is_room(&mut self) {
        while self.feed.backlog().has_room() {
            let Some(job) = self.ready.pop_front() else { return };
            match job {
                Job::Refusal(message) => self.push(message),
                Job::Bookmark(position, complete) => {
                    let engine = &self.hub.engine;
                    let stale_for = engine.view().stale_since().map(|since| engine.now().since(since));
                    self.push(Press::bookmark(&position, complete, stale_for));
                    self.bookmark_at = Some(clock::now() + BOOKMARK_EVERY);
                }
                Job::Service(service) => self.feed_service(service),
            }
        }
    }

    /// Sends what one service has, until that is all or the watcher has enough to read.
    fn feed_service(&mut self, service: ServiceKey) {
        let Some(followed) = self.followed.get_mut(&service) else { return };
        let Stands::Ready(haste) = followed.stands else { return };
        let hub = Arc::clone(&self.hub);
        // One look for the whole turn: with a fixed aim this ends, however fast the service changes.
        let view = hub.engine.view();
        let latest = followed.view.borrow().clone();
        let outlook = outlook(&hub, &view, &latest);
        loop {
            let due = followed.subscription.due(&outlook);
            if due == Due::Idle || (due > Due::Now && haste == Haste::AsDue) {
                break;
            }
            match followed.subscription.next(&outlook, &hub.press) {
                Next::Send(message) => {
                    hub.metrics.messages.inc();
                    self.feed.push(message);
                }
                Next::Rest => break,
                Next::Behind { asked } => {
                    let why = FrontError::Behind { asked, here: view.position().clone() };
                    self.forget(&service);
                    self.refuse(service.namespace.as_str().to_owned(), service.name.as_str().to_owned(), &why);
                    return;
                }
            }
            if !self.feed.backlog().has_room() {
                self.ready.push_front(Job::Service(service));
                return;
            }
        }
        followed.stands = Stands::Aside;
        self.consider(&service, Haste::AsDue);
    }

    fn push(&self, message: Message) {
        self.hub.metrics.messages.inc();
        self.feed.push(message);
    }

    /// Whether the watcher still reads.
    fn check_progress(&mut self) -> Result<(), FrontError> {
        let (backlog, now) = (self.feed.backlog(), clock::now());
        if backlog.is_empty() || backlog.taken != self.progress.taken {
            self.progress = Progress { taken: backlog.taken, at: now };
        }
        let stalled = now - self.progress.at;
        if stalled >= STALL_MAX { Err(FrontError::SlowWatcher { stalled }) } else { Ok(()) }
    }

    /// When something is due that rings no bell of its own.
    fn wakes_at(&self) -> Instant {
        let now = clock::now();
        let stalls = (!self.feed.backlog().is_empty()).then(|| self.progress.at + STALL_MAX);
        let warm = (self.complete == Complete::Warming).then_some(self.warming_at);
        let later = self.later.first().map(|(at, _)| *at);
        [self.bookmark_at, stalls, warm, later].into_iter().flatten().min().unwrap_or(now + STALL_MAX)
    }

    fn look_at_the_clock(&mut self) {
        let now = clock::now();
        while let Some((at, service)) = self.later.first().cloned()
            && at <= now
        {
            self.later.pop_first();
            if let Some(followed) = self.followed.get_mut(&service) {
                followed.stands = Stands::Aside;
            }
            self.consider(&service, Haste::AsDue);
        }
        if self.warming_at <= now {
            self.warming_at = now + WARMING_LOOK;
        }
        let turned_whole = self.complete == Complete::Warming && self.hub.engine.view().complete();
        if self.bookmark_at.is_some_and(|at| at <= now || turned_whole) {
            self.mark();
        }
    }

    /// Lines up a bookmark behind everything that has to be sent before it is true.
    fn mark(&mut self) {
        let view = self.hub.engine.view();
        let services: Vec<ServiceKey> = self.followed.keys().cloned().collect();
        for service in services {
            self.consider(&service, Haste::Everything);
        }
        self.complete = Complete::from_wire(view.complete());
        self.ready.push_back(Job::Bookmark(view.position().clone(), self.complete));
        self.bookmark_at = None;
    }
}

impl Followed {
    /// Looks at the service as it is now.
    fn look<T>(&mut self, hub: &Hub, with: impl FnOnce(&mut Subscription, &Outlook<'_>) -> T) -> T {
        // The position first: a view taken after it includes it.
        let view = hub.engine.view();
        let latest = self.view.borrow().clone();
        with(&mut self.subscription, &outlook(hub, &view, &latest))
    }
}

fn outlook<'a>(hub: &Hub, view: &'a View, latest: &'a Arc<ServiceView>) -> Outlook<'a> {
    Outlook {
        view: latest,
        here: view.position(),
        complete: Complete::from_wire(view.complete()),
        now: clock::now(),
        moment: hub.engine.now(),
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.metrics.streams.dec();
        self.hub.metrics.subscriptions.dec_by(i64::try_from(self.followed.len()).unwrap_or(i64::MAX));
    }
}
