//! One watch stream: what it follows, what is ready to be sent, and when to look again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use mesh_api::registry::v1 as pb;
use mesh_runtime::clock;
use tokio::time::{Duration, Instant, Sleep, sleep_until};
use tonic::{Status, Streaming};

use super::framed::Framed;
use super::hub::Hub;
use super::press::{Complete, Press};
use super::subscription::{Due, Next, Outlook, Subscription};
use super::{BOOKMARK_EVERY, SUBSCRIPTIONS_MAX};
use crate::catalog::{Invalid, Position, Revision, ServiceKey, Timestamp};
use crate::engine::{Bell, EngineError, Follow, Glance, Heard, Published, View};
use crate::front::{FrontError, Peer, Place};
use crate::wire::{self, Fault};

/// How often a stream looks whether the registry's state has become whole, while it is not.
const WARMING_LOOK: Duration = Duration::from_millis(250);

/// How long a timer may run whatever it is for: nothing that a stream waits for lies further ahead.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The state of one stream. It does something only when it is pulled; its bell wakes who pulls.
pub(super) struct Watcher {
    hub: Arc<Hub>,
    peer: Peer,
    bell: Arc<Bell>,
    /// The time, as of the last look at the clock: one for each pull that finds anything to do.
    now: Instant,
    /// Rings the bell, for whatever else this waits for.
    ringer: Waker,
    /// Messages that stand in no count yet.
    uncounted: u64,
    /// Further services that the bell rang for; emptied as soon as it is filled.
    rung: Vec<usize>,
    /// `None` once they are half-closed: the subscriptions stay.
    requests: Option<Streaming<pb::WatchRequest>>,
    /// Requests may be there that nobody looked for: there was something to send first.
    unread: bool,
    /// What a request wants that is not worked off; at most [`SUBSCRIPTIONS_MAX`].
    wanted: VecDeque<pb::Subscription>,
    /// A name that the engine is asked for, with what it is to be followed as.
    asking: Option<Asking>,
    names: BTreeMap<ServiceKey, usize>,
    /// By the numbers that the bell rings for them; at most [`SUBSCRIPTIONS_MAX`], with the free ones and the one that the
    /// engine is asked for.
    followed: Vec<Option<Followed>>,
    /// Places in `followed` that are free.
    free: Vec<usize>,
    /// In the order of sending: each service at most once, one bookmark, and the refusals of one request.
    ready: VecDeque<Job>,
    /// Services that wait for their time; each at most once.
    later: BTreeSet<(Instant, usize)>,
    /// When the next bookmark is due; `None` while one stands in `ready`.
    bookmark_at: Option<Instant>,
    /// What the last bookmark said, or was true at the start.
    complete: Complete,
    /// When to look next whether the state has become whole. Fixed, so that a busy stream does not put it off.
    warming_at: Instant,
    /// Runs until the earliest of these times, or an earlier one: it is only ever moved forward.
    timer: Pin<Box<Sleep>>,
    /// What it is set to; `None` once it has run out.
    timer_at: Option<Instant>,
    _place: Place,
}

struct Asking {
    newcomer: Newcomer,
    follow: BoxFuture<'static, Result<Follow, EngineError>>,
}

/// A service that is to be followed.
struct Newcomer {
    service: ServiceKey,
    after: Option<Position>,
    /// Its place in `followed`: its own from now on, as others may be forgotten before it is followed.
    number: usize,
    place: Place,
}

/// One followed service.
struct Followed {
    service: ServiceKey,
    subscription: Subscription,
    follow: Follow,
    stands: Stands,
    /// What is aimed at while messages of one turn go out. Fixed, so that a turn ends however fast the service changes.
    turn: Option<Turn>,
    /// When a snapshot of it may begin, where one is due.
    begins: Option<Instant>,
    /// The service changed during its turn.
    rung: bool,
    _place: Place,
}

struct Turn {
    here: Arc<View>,
    view: Arc<Published>,
}

/// A look at a service and at where the registry is.
struct Look {
    here: Glance<View>,
    view: Glance<Published>,
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
    Service(usize),
    Bookmark(Position, Complete),
    Refusal(Framed),
}

/// Why a stream ends from this side.
enum Ended {
    With(FrontError),
    /// The request stream broke or carried what is no message.
    Broken(Status),
}

impl Watcher {
    pub(super) fn new(hub: Arc<Hub>, peer: Peer, requests: Streaming<pb::WatchRequest>, place: Place) -> Self {
        let now = clock::now();
        let complete = Complete::from_wire(hub.engine.view().complete());
        hub.metrics.streams.inc();
        let bell = Arc::new(Bell::default());
        // The first pull looks at everything.
        bell.ring();
        Self {
            hub,
            peer,
            ringer: Waker::from(Arc::clone(&bell)),
            bell,
            now,
            uncounted: 0,
            rung: Vec::new(),
            requests: Some(requests),
            unread: false,
            wanted: VecDeque::new(),
            asking: None,
            names: BTreeMap::new(),
            followed: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            later: BTreeSet::new(),
            bookmark_at: Some(now + BOOKMARK_EVERY),
            complete,
            warming_at: now + WARMING_LOOK,
            timer: Box::pin(sleep_until(now + BOOKMARK_EVERY)),
            timer_at: None,
            _place: place,
        }
    }

    /// What wakes who pulls.
    pub(super) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Whether another message is there already.
    pub(super) fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next message, once there is one.
    pub(super) fn pull(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Framed, Status>>> {
        if !self.ready.is_empty() {
            self.now = clock::now();
        }
        loop {
            match self.next_message() {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Some(Ok(self.counted(message)))),
                Err(why) => return Poll::Ready(Some(Err(why.into()))),
            }
            let Heard { service, other } = self.bell.collect(&mut self.rung, context.waker());
            if other || self.unread || service.is_some() {
                self.now = clock::now();
            }
            if let (Some(number), [], false, false) = (service, &*self.rung, other, self.unread) {
                // One service changed, as nearly always: nothing stands in line before it.
                match self.at_once(number) {
                    Ok(None) => {}
                    Ok(Some(message)) => return Poll::Ready(Some(Ok(self.counted(message)))),
                    Err(why) => return Poll::Ready(Some(Err(why.into()))),
                }
            }
            let mut rung = std::mem::take(&mut self.rung);
            for number in service.into_iter().chain(rung.drain(..)) {
                self.consider(number, Haste::AsDue);
            }
            self.rung = rung;
            if other || std::mem::take(&mut self.unread) {
                match self.look_around() {
                    Ok(()) => {}
                    Err(Ended::With(why)) => return Poll::Ready(Some(Err(why.into()))),
                    Err(Ended::Broken(status)) => return Poll::Ready(Some(Err(status))),
                }
            }
            self.set_timer();
            if self.ready.is_empty() {
                return Poll::Pending;
            }
        }
    }

    fn counted(&mut self, message: Framed) -> Framed {
        self.uncounted += 1;
        message
    }

    /// Adds to the hub's count what was not added yet: with every bookmark, as thousands of streams would otherwise wait for
    /// one another at it.
    fn count(&mut self) {
        self.hub.metrics.messages.inc_by(std::mem::take(&mut self.uncounted));
    }

    /// Looks at whatever may have rung beside the services.
    fn look_around(&mut self) -> Result<(), Ended> {
        let ringer = self.ringer.clone();
        let mut context = Context::from_waker(&ringer);
        // A timer that has run out is set anew below.
        if self.timer.as_mut().poll(&mut context).is_ready() {
            self.timer_at = None;
        }
        self.look_at_the_clock();
        loop {
            self.work_off_wanted(&mut context).map_err(Ended::With)?;
            // Requests are read when all that was asked for is sent: what a request can ask for is bounded, and so is what
            // waits here.
            if self.asking.is_some() {
                return Ok(());
            }
            if !self.ready.is_empty() {
                self.unread = true;
                return Ok(());
            }
            let Some(requests) = &mut self.requests else { return Ok(()) };
            match requests.poll_next_unpin(&mut context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => self.requests = None,
                Poll::Ready(Some(Err(status))) => return Err(Ended::Broken(status)),
                Poll::Ready(Some(Ok(request))) => self.asked(request).map_err(Ended::With)?,
            }
        }
    }

    /// Takes a request: what it no longer wants, then what it wants.
    fn asked(&mut self, request: pb::WatchRequest) -> Result<(), FrontError> {
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
        self.wanted.extend(request.subscribe);
        Ok(())
    }

    /// Follows what is wanted, up to the first name that the engine has to be asked for.
    fn work_off_wanted(&mut self, context: &mut Context<'_>) -> Result<(), FrontError> {
        loop {
            if let Some(asking) = &mut self.asking {
                let Poll::Ready(follow) = asking.follow.poll_unpin(context) else { return Ok(()) };
                let Some(Asking { newcomer, follow: _ }) = self.asking.take() else { return Ok(()) };
                match follow {
                    Ok(follow) => self.add(newcomer, follow),
                    Err(EngineError::Stopped) => return Err(EngineError::Stopped.into()),
                    Err(why) => {
                        self.free.push(newcomer.number);
                        let (namespace, name) = (newcomer.service.namespace.as_str(), newcomer.service.name.as_str());
                        self.refuse(namespace.to_owned(), name.to_owned(), &FrontError::from(why));
                    }
                }
            }
            let Some(wanted) = self.wanted.pop_front() else { return Ok(()) };
            if let Err(why) = self.follow(&wanted) {
                self.refuse(wanted.namespace, wanted.service, &why);
            }
        }
    }

    fn follow(&mut self, wanted: &pb::Subscription) -> Result<(), FrontError> {
        let service = wire::service_key(&wanted.namespace, &wanted.service)?;
        let after = wanted.after.as_ref().map(wire::decode_position).transpose()?;
        self.forget(&service);
        if self.names.len() >= SUBSCRIPTIONS_MAX {
            return Err(FrontError::TooManySubscriptions { max: SUBSCRIPTIONS_MAX });
        }
        let place = self.hub.subscriptions.take(self.peer).map_err(|full| FrontError::TooManyFollowed { full })?;
        let number = self.free.pop().unwrap_or_else(|| {
            self.followed.push(None);
            self.followed.len() - 1
        });
        let follow = self.hub.engine.follow_known(&service, &self.bell, number);
        let newcomer = Newcomer { service, after, number, place };
        match follow {
            Some(follow) => self.add(newcomer, follow),
            None => {
                let (engine, from) = (&self.hub.engine, self.peer.address());
                let follow = engine.follow_unknown(&newcomer.service, &self.bell, number, from).boxed();
                self.asking = Some(Asking { newcomer, follow });
            }
        }
        Ok(())
    }

    fn add(&mut self, newcomer: Newcomer, follow: Follow) {
        let Newcomer { service, after, number, place } = newcomer;
        let here = self.hub.engine.view();
        let told = |revision: Revision| Complete::from_wire(here.was_whole_at(revision));
        let subscription = Subscription::resume(after, here.position(), told, self.now);
        self.names.insert(service.clone(), number);
        let stands = Stands::Aside;
        self.followed[number] = Some(Followed {
            service,
            subscription,
            follow,
            stands,
            turn: None,
            begins: None,
            rung: false,
            _place: place,
        });
        self.hub.metrics.subscriptions.inc();
        self.consider(number, Haste::AsDue);
    }

    fn forget(&mut self, service: &ServiceKey) {
        let Some(number) = self.names.remove(service) else { return };
        let Some(followed) = self.followed[number].take() else { return };
        self.free.push(number);
        match followed.stands {
            Stands::Aside => {}
            Stands::Later(at) => {
                self.later.remove(&(at, number));
            }
            Stands::Ready(_) => self.ready.retain(|job| !matches!(job, Job::Service(ready) if *ready == number)),
        }
        self.hub.metrics.subscriptions.dec();
    }

    fn refuse(&mut self, namespace: String, service: String, why: &FrontError) {
        self.hub.refusals.count(why);
        let here = self.hub.engine.view();
        let complete = Complete::from_wire(here.complete());
        self.ready.push_back(Job::Refusal(Press::refusal(namespace, service, here.position(), complete, why)));
    }

    /// Puts a service where it belongs: ready, later, or nowhere.
    fn consider(&mut self, number: usize, haste: Haste) {
        if self.place(number, haste).is_some() {
            self.ready.push_back(Job::Service(number));
        }
    }

    /// The next message of a service, if one is due now and the service does not stand in line for it already.
    fn at_once(&mut self, number: usize) -> Result<Option<Framed>, FrontError> {
        let Some(look) = self.place(number, Haste::AsDue) else { return Ok(None) };
        self.next_of(number, Some(look))
    }

    /// Says where a service stands from now on. Where it is ready and has to be put in line, or told: what was seen of it.
    fn place(&mut self, number: usize, haste: Haste) -> Option<Look> {
        let followed = self.followed.get_mut(number)?.as_mut()?;
        if let Stands::Ready(_) = followed.stands {
            followed.rung = true;
            if haste == Haste::Everything {
                // What it aims at is from before the bookmark's position.
                followed.turn = None;
                followed.stands = Stands::Ready(haste);
            }
            return None;
        }
        let look = followed.look(&self.hub);
        let outlook = look.outlook(&self.hub, self.now);
        let due = match followed.subscription.due(&outlook) {
            Due::Now if haste == Haste::AsDue && followed.subscription.begins_snapshot(&outlook) => {
                let at = *followed.begins.get_or_insert_with(|| self.hub.pace.reserve(outlook.now));
                if at > outlook.now { Due::At(at) } else { Due::Now }
            }
            due => due,
        };
        if due == Due::Now {
            followed.begins = None;
        }
        if let Stands::Later(at) = followed.stands {
            self.later.remove(&(at, number));
        }
        followed.stands = match (due, haste) {
            (Due::Idle, _) => Stands::Aside,
            (Due::At(at), Haste::AsDue) => {
                self.later.insert((at, number));
                Stands::Later(at)
            }
            (Due::At(_), Haste::Everything) | (Due::Now, _) => Stands::Ready(haste),
        };
        matches!(followed.stands, Stands::Ready(_)).then_some(look)
    }

    /// Works off what is ready, up to one message.
    fn next_message(&mut self) -> Result<Option<Framed>, FrontError> {
        while let Some(job) = self.ready.pop_front() {
            match job {
                Job::Refusal(message) => return Ok(Some(message)),
                Job::Bookmark(position, complete) => {
                    self.bookmark_at = Some(self.now + BOOKMARK_EVERY);
                    self.count();
                    let engine = &self.hub.engine;
                    let stale_for = engine.view().stale_since().map(|since| engine.now().since(since));
                    return Ok(Some(Press::bookmark(&position, complete, stale_for)));
                }
                Job::Service(number) => {
                    if let Some(message) = self.next_of(number, None)? {
                        return Ok(Some(message));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The next message of a service whose turn it is; it keeps its turn while there is more. `seen` is what was seen of it
    /// a moment ago, if anything was.
    fn next_of(&mut self, number: usize, seen: Option<Look>) -> Result<Option<Framed>, FrontError> {
        let Some(followed) = self.followed.get_mut(number).and_then(Option::as_mut) else { return Ok(None) };
        let Stands::Ready(haste) = followed.stands else { return Ok(None) };
        let look = followed.turn.take().map(Look::again).or(seen).unwrap_or_else(|| followed.look(&self.hub));
        let outlook = look.outlook(&self.hub, self.now);
        let message = match followed.subscription.next(&outlook, &self.hub.press) {
            Next::Send(message) => Some(message),
            Next::Rest => None,
            Next::Behind { asked } => {
                let why = FrontError::Behind { asked, here: look.here.position().clone() };
                let service = followed.service.clone();
                self.forget(&service);
                self.refuse(service.namespace.as_str().to_owned(), service.name.as_str().to_owned(), &why);
                return Ok(None);
            }
            Next::Slow { taken } => {
                self.hub.metrics.cuts.inc();
                tracing::warn!(service = %followed.service, taken_s = taken.as_secs(), "cut a watch stream that reads too slowly");
                return Err(FrontError::SlowSnapshot { taken });
            }
        };
        let due = followed.subscription.due(&outlook);
        // With nothing sent although something was due, that waits for its time, or is what the watcher has.
        let more = match due {
            Due::Idle => false,
            Due::At(_) => message.is_some() && haste == Haste::Everything,
            Due::Now => message.is_some(),
        };
        if more {
            followed.turn = Some(look.keep());
            self.ready.push_front(Job::Service(number));
            return Ok(message);
        }
        followed.stands = Stands::Aside;
        if let Due::At(at) = due {
            followed.stands = Stands::Later(at);
            self.later.insert((at, number));
        }
        if std::mem::take(&mut followed.rung) {
            self.consider(number, Haste::AsDue);
        }
        Ok(message)
    }

    /// Sees to it that the timer runs out when something is due that rings no bell of its own.
    fn set_timer(&mut self) {
        let warm = (self.complete == Complete::Warming).then_some(self.warming_at);
        let later = self.later.first().map(|(at, _)| *at);
        let next = [self.bookmark_at, warm, later].into_iter().flatten().min();
        let wanted = next.unwrap_or_else(|| self.now + LONGEST_SLEEP);
        if self.timer_at.is_none_or(|at| wanted < at) {
            self.timer.as_mut().reset(wanted);
            self.timer_at = Some(wanted);
            let mut context = Context::from_waker(&self.ringer);
            if self.timer.as_mut().poll(&mut context).is_ready() {
                self.bell.ring();
            }
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = self.now;
        while let Some((at, number)) = self.later.first().copied()
            && at <= now
        {
            self.later.pop_first();
            if let Some(followed) = self.followed.get_mut(number).and_then(Option::as_mut) {
                followed.stands = Stands::Aside;
            }
            self.consider(number, Haste::AsDue);
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
        for number in 0..self.followed.len() {
            self.consider(number, Haste::Everything);
        }
        self.complete = Complete::from_wire(view.complete());
        self.ready.push_back(Job::Bookmark(view.position().clone(), self.complete));
        self.bookmark_at = None;
    }
}

impl Followed {
    /// The service as it is now.
    fn look(&self, hub: &Hub) -> Look {
        // The position first: a view taken after it includes it.
        let here = hub.engine.glance();
        Look { view: self.follow.glance(), here }
    }
}

impl Look {
    /// What was seen at the beginning of a turn.
    fn again(turn: Turn) -> Self {
        Self { here: Glance::from_inner(turn.here), view: Glance::from_inner(turn.view) }
    }

    /// The same, to be kept for a turn.
    fn keep(self) -> Turn {
        Turn { here: Glance::into_inner(self.here), view: Glance::into_inner(self.view) }
    }

    fn outlook<'a>(&'a self, hub: &Hub, now: Instant) -> Outlook<'a> {
        // A clock that nobody looks at is not asked.
        let holds = self.view.soft().hold.is_some();
        Outlook {
            view: &self.view,
            here: self.here.position(),
            complete: Complete::from_wire(self.here.complete()),
            now,
            moment: if holds { hub.engine.now() } else { Timestamp::default() },
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.count();
        self.hub.metrics.streams.dec();
        self.hub.metrics.subscriptions.dec_by(i64::try_from(self.names.len()).unwrap_or(i64::MAX));
    }
}
