//! The owner of all watchers.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use mesh_api::registry::v1 as pb;
use mesh_runtime::clock;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;

use super::STALL_MAX;
use super::metrics::Metrics;
use super::pace::Pace;
use super::press::Press;
use super::seat::{Pull, Seat};
use super::watcher::Watcher;
use crate::engine::{Engine, Published};
use crate::front::{FrontError, Peer, Places, Quotas, Refusals};
use crate::wire;

/// How often the hub looks for watchers that take nothing.
const ROUND: Duration = Duration::from_secs(1);

/// What all watchers share. Each ends with its stream, with `ends`, when it takes nothing for too long, or when the engine
/// stops.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(super) engine: Engine,
    pub(super) press: Press,
    pub(super) pace: Pace,
    pub(super) metrics: Metrics,
    pub(super) refusals: Refusals,
    pub(super) subscriptions: Places,
    streams: Places,
    /// The watchers that are there, and some that have just gone: never more than twice as many as the places, and some.
    seats: Mutex<Seats>,
    keeper: TaskTracker,
}

#[derive(Default)]
struct Seats {
    all: Vec<Weak<Seat>>,
    /// So many when the gone ones were let go of last.
    kept: usize,
    /// No more are taken.
    closed: bool,
}

impl std::fmt::Debug for Seats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seats").field("all", &self.all.len()).field("closed", &self.closed).finish_non_exhaustive()
    }
}

/// Seats that may be gone before it is worth looking.
const GONE_MIN: usize = 64;

impl Hub {
    /// A hub over this engine whose watches end with `ends`. Must be called inside a tokio runtime: one task looks after all
    /// watchers until `ends`, or until the hub is dropped.
    pub(crate) fn new(engine: Engine, quotas: &Quotas, ends: CancellationToken) -> Arc<Self> {
        let hub = Arc::new(Self {
            engine,
            press: Press::default(),
            pace: Pace::default(),
            metrics: Metrics::default(),
            refusals: Refusals::default(),
            subscriptions: Places::new(quotas.watched_names),
            streams: Places::new(quotas.watch_streams),
            seats: Mutex::default(),
            keeper: TaskTracker::new(),
        });
        hub.keeper.spawn(keep(Arc::downgrade(&hub), ends));
        hub
    }

    /// The hub's metric families.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts what is refused here and elsewhere.
    pub(crate) fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Serves one watch stream of this peer: the requests come in here, the answers come out of what is returned.
    pub(crate) fn watch(
        self: &Arc<Self>,
        peer: Peer,
        requests: Streaming<pb::WatchRequest>,
    ) -> Result<Pull, FrontError> {
        let place = self.streams.take(peer).map_err(|full| {
            let why = FrontError::TooManyStreams { kind: "watch", full };
            self.refusals.count(&why);
            why
        })?;
        let seat = Seat::of(Watcher::new(Arc::clone(self), peer, requests, place));
        let mut seats = self.seats.lock();
        if seats.closed {
            drop(seats);
            seat.vacate(None);
            return Ok(Pull { seat });
        }
        if seats.all.len() >= 2 * seats.kept + GONE_MIN {
            seats.all.retain(|seat| seat.strong_count() > 0);
            seats.kept = seats.all.len();
        }
        seats.all.push(Arc::downgrade(&seat));
        Ok(Pull { seat })
    }

    /// What `Resolve` answers about a service, but for what is told anew each time; encoded once.
    pub(crate) fn resolved(&self, service: &Published) -> Bytes {
        let make = || {
            let instances = service.instances().values().map(|instance| wire::resolved_instance(service, instance));
            let (instances, presence) = (instances.collect(), wire::presence(service.presence()).into());
            pb::ResolveResponse { instances, presence, ..pb::ResolveResponse::default() }.encode_to_vec().into()
        };
        Bytes::clone(&service.memo().resolved(&self.press.shelf, make))
    }

    /// Cuts the watchers that take nothing although something waits for them.
    fn cut_stalled(&self) {
        let now = clock::now();
        let stalled: Vec<(Arc<Seat>, Duration)> = {
            let seats = self.seats.lock();
            let there = seats.all.iter().filter_map(Weak::upgrade);
            there
                .map(|seat| (seat.stalled(now), seat))
                .filter(|(for_, _)| *for_ >= STALL_MAX)
                .map(|(f, s)| (s, f))
                .collect()
        };
        for (seat, stalled) in stalled {
            if seat.vacate(Some(FrontError::SlowWatcher { stalled }.into())) {
                self.metrics.cuts.inc();
                tracing::warn!(stalled_s = stalled.as_secs(), "cut a watch stream that nobody reads");
            }
        }
    }

    /// Ends every watch, and those that still come.
    fn end_all(&self) {
        let all = {
            let mut seats = self.seats.lock();
            seats.closed = true;
            std::mem::take(&mut seats.all)
        };
        for seat in all.iter().filter_map(Weak::upgrade) {
            seat.vacate(None);
        }
    }

    /// Resolves when every watcher has ended; they do once `ends` is cancelled.
    pub(crate) async fn ended(&self) {
        self.keeper.close();
        self.keeper.wait().await;
    }
}

/// Looks after the watchers of a hub for as long as it is there.
async fn keep(hub: Weak<Hub>, ends: CancellationToken) {
    loop {
        let over = tokio::time::timeout(ROUND, ends.cancelled()).await.is_ok();
        let Some(hub) = hub.upgrade() else { return };
        if over {
            return hub.end_all();
        }
        hub.cut_stalled();
    }
}
