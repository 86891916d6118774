//! The resolver over the registry's Watch stream: one stream per Mesh, whatever it follows.
//!
//! [`Watcher`] is the handle, [`Driver`] the one task behind it. The task owns the stream, hands what comes to the pure
//! [`Session`], and publishes what that concludes. Nothing that happens to the registry takes anything away from callers:
//! a broken or silent stream is opened again, for ever, and what was published stays.
//!
//! A subscription lasts as long as somebody holds its [`Resolutions`]. The task ends when the handle and all of them are
//! gone.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_api::registry::v1 as wire;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::decode::Decoder;
use super::known::{Keeper, Kept, StateFolder};
use super::news::Position;
use super::session::{Counters, Published, Request, SILENCE_MAX, Session};
use super::{Resolution, Resolutions};
use crate::clock;
use crate::entropy::Entropy;
use crate::reconnect::{self, Reconnect};
use crate::registries::{Round, Whose};

/// Services one Mesh follows at the same time, as many as a registry takes on one stream; one more is refused. At some 2 KiB
/// of state for a small service that is some MiB, and a process that calls more than this many services by name is fed
/// with names from outside.
pub(crate) const SERVICES_MAX: usize = 1_000;

/// Requests that wait for the stream to take them; what does not fit stays due in the session.
const REQUESTS_WAITING_MAX: usize = 4;

/// How the Watch stream of a Mesh is doing.
#[derive(Clone, Debug)]
pub struct WatchStatus {
    /// What the stream is doing.
    pub state: WatchState,
    /// When the registry was last heard; what callers use is no older than that. Absent: never.
    pub last_heard: Option<Instant>,
    /// Streams that were opened and got an answer.
    pub streams_opened: u64,
    /// Why the last stream ended.
    pub last_error: Option<Arc<str>>,
    /// What was received and not taken.
    pub counters: Counters,
}

/// What a Watch stream is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// Nothing is followed.
    Idle,
    /// There is no stream now; the last known good stays in use.
    Connecting,
    /// The registry answers.
    Following,
}

/// Follows services; the handle of the task.
#[derive(Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    _held: DropGuard,
}

/// Tells everybody who holds a service.
type Publisher = watch::Sender<Arc<Resolution>>;

#[derive(Debug)]
struct Shared {
    services: Mutex<BTreeMap<Arc<str>, Arc<Publisher>>>,
    added: Notify,
    status: Mutex<WatchStatus>,
}

impl Watcher {
    /// Starts the task on the current tokio runtime. It connects with the first service that is followed.
    pub(crate) fn spawn(
        registries: Round,
        namespace: Arc<str>,
        folder: Option<Arc<StateFolder>>,
        entropy: Entropy,
    ) -> Self {
        let status = WatchStatus {
            state: WatchState::Idle,
            last_heard: None,
            streams_opened: 0,
            last_error: None,
            counters: Counters::default(),
        };
        let shared = Arc::new(Shared { services: Mutex::default(), added: Notify::new(), status: Mutex::new(status) });
        let token = CancellationToken::new();
        let driver = Driver {
            reconnect: Reconnect::new(reconnect::CAP, registries.doors()),
            registries,
            decoder: Decoder::new(namespace.clone()),
            keeper: folder.map(|folder| Keeper::new(folder, namespace.clone())),
            vouched: UNIX_EPOCH,
            namespace,
            session: Session::default(),
            shared: shared.clone(),
            closed: FuturesUnordered::new(),
            entropy,
            link: Link::Down,
        };
        tokio::spawn(driver.run(token.clone()));
        Self { shared, _held: token.drop_guard() }
    }

    /// Follows a service for as long as the answer, or a clone of it, is held. `None` where [`SERVICES_MAX`] are.
    pub(crate) fn follow(&self, service: &str) -> Option<Resolutions> {
        let mut services = self.shared.services.lock();
        if let Some(sender) = services.get(service) {
            return Some(sender.subscribe());
        }
        if services.len() >= SERVICES_MAX {
            return None;
        }
        let (sender, receiver) = watch::channel(Arc::new(Resolution::unresolved()));
        services.insert(service.into(), Arc::new(sender));
        self.shared.added.notify_one();
        Some(receiver)
    }

    /// How the stream is doing.
    pub(crate) fn status(&self) -> WatchStatus {
        self.shared.status.lock().clone()
    }
}

/// Resolves when nobody holds the service any more.
type Closed = Pin<Box<dyn Future<Output = Arc<str>> + Send>>;

/// The task.
struct Driver {
    registries: Round,
    decoder: Decoder,
    namespace: Arc<str>,
    session: Session,
    /// With a state folder only.
    keeper: Option<Keeper>,
    /// When the registry was heard last, by the time of day.
    vouched: SystemTime,
    shared: Arc<Shared>,
    closed: FuturesUnordered<Closed>,
    reconnect: Reconnect,
    entropy: Entropy,
    link: Link,
}

/// The way to the registry.
enum Link {
    /// Nothing is followed, so nothing is needed.
    Down,
    /// Waits for the next attempt.
    Resting { until: Instant },
    /// There is a stream, or nearly.
    Up(Up),
}

struct Up {
    stream: Stream,
    requests: mpsc::Sender<wire::WatchRequest>,
    /// When the first message came.
    first_heard: Option<Instant>,
    /// When the last one came, or the attempt began.
    heard: Instant,
}

enum Stream {
    Opening(Pin<Box<dyn Future<Output = Result<Streaming<wire::WatchResponse>, Status>> + Send>>),
    Open(Box<Streaming<wire::WatchResponse>>),
}

/// What happened to the link.
enum Happened {
    Opened(Box<Streaming<wire::WatchResponse>>),
    Said(wire::WatchResponse),
    NotOpened(Status),
    Broke(Arc<str>),
    RoomForRequest,
    Rested,
}

impl Driver {
    async fn run(mut self, orphaned: CancellationToken) {
        let shared = self.shared.clone();
        loop {
            if orphaned.is_cancelled() && shared.services.lock().is_empty() {
                // Off this thread: what is behind is written on the way.
                tokio::task::spawn_blocking(move || drop(self));
                return;
            }
            tokio::select! {
                () = shared.added.notified() => self.take_added(),
                Some(service) = self.closed.next() => self.take_closed(service),
                () = orphaned.cancelled(), if !orphaned.is_cancelled() => {}
                happened = self.link.happens(&self.session) => self.take(happened),
                kept = keeps(&mut self.keeper) => self.take_kept(kept),
            }
        }
    }

    fn take_added(&mut self) {
        let now = clock::now();
        for (service, sender) in self.shared.services.lock().iter() {
            if !self.session.follows(service) {
                self.session.follow(service.clone(), now.into_std());
                if let Some(keeper) = &mut self.keeper {
                    keeper.read(service.clone());
                }
                self.closed.push(closed(service.clone(), sender.clone()));
            }
        }
        if matches!(self.link, Link::Down) && !self.session.is_empty() {
            self.open(now);
        }
    }

    fn take_closed(&mut self, service: Arc<str>) {
        let mut services = self.shared.services.lock();
        // Somebody may have asked for it again between its last receiver and here.
        match services.get(&service) {
            Some(sender) if sender.receiver_count() > 0 => self.closed.push(closed(service.clone(), sender.clone())),
            _ => {
                services.remove(&service);
                if let Some(keeper) = &mut self.keeper {
                    keeper.part(&service, self.session.known(&service), self.vouched);
                }
                self.session.release(&service);
            }
        }
        drop(services);
        if self.session.is_empty() {
            self.link = Link::Down;
            self.shared.status.lock().state = WatchState::Idle;
        }
    }

    fn take(&mut self, happened: Happened) {
        let now = clock::now();
        match (happened, &mut self.link) {
            (Happened::Rested, _) => self.open(now),
            (Happened::RoomForRequest, Link::Up(up)) => {
                if let Some(request) = self.session.next_request(now.into_std()) {
                    // There is room: this is the only sender and it has just been told so.
                    let _ = up.requests.try_send(encode(&self.namespace, request));
                }
            }
            (Happened::Opened(stream), Link::Up(up)) => up.stream = Stream::Open(stream),
            (Happened::Said(message), Link::Up(up)) => {
                if let Some(position) = &message.position
                    && let Whose::Strange { ours, .. } = self.registries.judge().answered(&position.store_id, now)
                {
                    let (registry, store) = (self.registries.name(), &position.store_id);
                    let reason = format!("{registry} answers out of store {store}, and this process goes by {ours}");
                    return self.lost(Duration::ZERO, reason.into(), now);
                }
                up.heard = now;
                let first = up.first_heard.is_none();
                up.first_heard.get_or_insert(now);
                self.take_message(message, first, now);
            }
            (Happened::NotOpened(status), Link::Up(_)) => {
                self.registries.refused(&status);
                self.take(Happened::Broke(explain(&status)));
            }
            (Happened::Broke(reason), Link::Up(up)) => {
                let held = up.first_heard.map_or(Duration::ZERO, |first| up.heard - first);
                self.lost(held, reason, now);
            }
            (_, Link::Down | Link::Resting { .. }) => {}
        }
    }

    /// Gives up the stream, which was of use for `held`; the next one is with the next registry.
    fn lost(&mut self, held: Duration, reason: Arc<str>, now: Instant) {
        let wait = self.reconnect.wait(held, &self.entropy);
        let registry = self.registries.name();
        tracing::debug!(%registry, %reason, wait_ms = wait.as_millis() as u64, "watch stream ended");
        self.registries.go_on();
        self.link = Link::Resting { until: now + wait };
        let mut status = self.shared.status.lock();
        status.state = WatchState::Connecting;
        status.last_error = Some(reason);
    }

    fn take_message(&mut self, message: wire::WatchResponse, first: bool, now: Instant) {
        let published = match self.decoder.news(message) {
            Ok(news) => self.session.received(news, now.into_std()),
            Err(malformed) => {
                tracing::debug!(%malformed, "watch message passed over");
                self.session.malformed();
                Vec::new()
            }
        };
        self.publish(published);
        self.vouched = clock::wall();
        self.keep(now);
        let mut status = self.shared.status.lock();
        if first {
            status.streams_opened += 1;
            status.state = WatchState::Following;
        }
        status.last_heard = Some(now);
        status.counters = self.session.counters();
    }

    /// Tells the keeper what has changed.
    fn keep(&mut self, now: Instant) {
        let unsaved = self.session.take_unsaved();
        let Some(keeper) = &mut self.keeper else { return };
        for service in unsaved {
            keeper.changed(service, now);
        }
        if keeper.refresh_is_due(now) {
            for service in self.session.vouched_for() {
                keeper.changed(service.clone(), now);
            }
        }
    }

    fn take_kept(&mut self, kept: Kept) {
        match (kept, &mut self.keeper) {
            (Kept::Known(service, known), _) => {
                let published = self.session.recall(&service, known, clock::now().into_std());
                self.publish(published.into_iter().collect());
            }
            (Kept::Due(service), Some(keeper)) => {
                let known = self.session.known(&service);
                keeper.write(service, known, self.vouched);
            }
            (Kept::Due(_), None) | (Kept::Nothing, _) => {}
        }
    }

    fn publish(&self, published: Vec<Published>) {
        let services = self.shared.services.lock();
        for (service, resolution) in published {
            if let Some(sender) = services.get(&service) {
                sender.send_replace(resolution);
            }
        }
    }

    fn open(&mut self, now: Instant) {
        self.session.opened(now.into_std());
        let (requests, receiver) = mpsc::channel(REQUESTS_WAITING_MAX);
        // The first request is there before the stream is: a registry may want to see it before it answers at all.
        if let Some(request) = self.session.next_request(now.into_std()) {
            let _ = requests.try_send(encode(&self.namespace, request));
        }
        let mut client = self.registries.client();
        let stream = Stream::Opening(Box::pin(async move {
            client.watch(ReceiverStream::new(receiver)).await.map(tonic::Response::into_inner)
        }));
        self.link = Link::Up(Up { stream, requests, first_heard: None, heard: now });
        self.shared.status.lock().state = WatchState::Connecting;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.last_words(|service| self.session.known(service), self.vouched);
        }
    }
}

/// What the keeper says; never anything, without one.
async fn keeps(keeper: &mut Option<Keeper>) -> Kept {
    match keeper {
        Some(keeper) => keeper.happens().await,
        None => std::future::pending().await,
    }
}

impl Link {
    /// Waits for the next thing to happen; dropping the wait loses nothing.
    async fn happens(&mut self, session: &Session) -> Happened {
        let up = match self {
            Self::Down => std::future::pending().await,
            Self::Resting { until } => {
                sleep_until(*until).await;
                return Happened::Rested;
            }
            Self::Up(up) => up,
        };
        let now = clock::now();
        let due = session.next_request_at(now.into_std()).map(Instant::from_std);
        let requests = up.requests.clone();
        tokio::select! {
            happened = up.stream.next() => happened,
            () = sleep_until(up.heard + SILENCE_MAX) => {
                Happened::Broke(format!("nothing heard for {} s", SILENCE_MAX.as_secs()).into())
            }
            () = room(&requests, due.unwrap_or(now)), if due.is_some() => Happened::RoomForRequest,
        }
    }
}

impl Stream {
    async fn next(&mut self) -> Happened {
        match self {
            Self::Opening(opening) => match opening.await {
                Ok(stream) => Happened::Opened(Box::new(stream)),
                Err(status) => Happened::NotOpened(status),
            },
            Self::Open(stream) => match stream.message().await {
                Ok(Some(message)) => Happened::Said(message),
                Ok(None) => Happened::Broke("the registry ended the stream".into()),
                Err(status) => Happened::Broke(explain(&status)),
            },
        }
    }
}

/// Waits until a request is due and the stream has room for it; for ever where the stream takes none any more, which the
/// stream itself will say.
async fn room(requests: &mpsc::Sender<wire::WatchRequest>, due: Instant) {
    sleep_until(due).await;
    if requests.reserve().await.is_err() {
        std::future::pending().await
    }
}

fn closed(service: Arc<str>, sender: Arc<Publisher>) -> Closed {
    Box::pin(async move {
        sender.closed().await;
        service
    })
}

fn explain(status: &Status) -> Arc<str> {
    format!("{:?}: {}", status.code(), status.message()).into()
}

fn encode(namespace: &str, request: Request) -> wire::WatchRequest {
    let subscribe = request.subscribe.into_iter().map(|(service, after)| wire::Subscription {
        namespace: namespace.to_owned(),
        service: service.to_string(),
        after: after.map(|Position { epoch, revision }| wire::Position {
            store_id: epoch.store.to_string(),
            generation: epoch.generation,
            revision,
        }),
    });
    let unsubscribe = request
        .unsubscribe
        .into_iter()
        .map(|service| wire::ServiceName { namespace: namespace.to_owned(), service: service.to_string() });
    wire::WatchRequest { subscribe: subscribe.collect(), unsubscribe: unsubscribe.collect() }
}

#[cfg(test)]
mod tests;
