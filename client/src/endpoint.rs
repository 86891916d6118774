//! One endpoint of a service as the data path sees it: who it is, and the counters that calls keep on it.

mod trial;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
pub(crate) use trial::{Trial, TrialCell};
use uuid::Uuid;

use crate::Address;
use crate::balancer::Ewma;
use crate::clock::{self, Stamp};
use crate::resolver::{MethodLevels, ResolvedEndpoint};

/// Connectivity of an endpoint or of a whole channel, after gRPC's connectivity semantics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ConnectivityState {
    /// No connection, and none is being made.
    Idle,
    /// A connection is being made: dialled, or waiting for its first PONG.
    Connecting,
    /// A connection answered a PING and takes calls.
    Ready,
    /// The last attempt failed; the next one waits for its backoff.
    TransientFailure,
    /// Removed. Streams that were open may still finish.
    Shutdown,
}

impl ConnectivityState {
    fn from_repr(repr: u8) -> Self {
        [Self::Idle, Self::Connecting, Self::Ready, Self::TransientFailure]
            .into_iter()
            .find(|state| *state as u8 == repr)
            .unwrap_or(Self::Shutdown)
    }
}

impl fmt::Display for ConnectivityState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "IDLE",
            Self::Connecting => "CONNECTING",
            Self::Ready => "READY",
            Self::TransientFailure => "TRANSIENT_FAILURE",
            Self::Shutdown => "SHUTDOWN",
        })
    }
}

/// How long an endpoint that others are preferred to goes without a call, and how many calls pass it by. An average of its
/// latency only fades with time: after a few failures it would keep away for a minute who is well again. At most one call in a
/// hundred, and one in five seconds, is spent on asking.
const OVERDUE_PICKS: u64 = 100;
const OVERDUE_NANOS: u64 = 5_000_000_000;

/// Longest round trip that an endpoint begins with: between zones it is a few milliseconds.
const SEED_MAX: Duration = Duration::from_millis(10);

/// One endpoint. It lives as long as somebody counts on it: the manager while it is resolved, a guard while a call is in
/// flight, an [`EndpointHandle`] for as long as somebody looks.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) instance_id: Uuid,
    pub(crate) address: Address,
    /// What every stamp here counts from: the target's birth, so that a pick works out its own stamp once.
    origin: Instant,
    incarnation: AtomicU64,
    /// Read when an attempt has failed, and where a call may be sent to an endpoint that has failed others.
    methods: ArcSwap<MethodLevels>,
    state: AtomicU8,
    trial: TrialCell,
    /// Whether a call found every connection full since the manager last opened one.
    crowded: AtomicBool,
    failures: AtomicU64,
    ejections: AtomicU64,
    hot: Hot,
}

/// What every call writes, on cache lines of its own: neighbouring endpoints do not slow each other down.
///
/// Each number stands for itself and none says that another one is already written, so every access is relaxed. Two counters
/// that only rise take one addition each at the pick and at the end, where a count of calls in flight beside one of picks
/// would take three.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hot {
    started: AtomicU64,
    ended: AtomicU64,
    /// Nanoseconds since `origin` plus one; zero is never.
    last_pick: AtomicU64,
    /// The number of its last pick among those of the target.
    last_turn: AtomicU64,
    /// An [`Ewma`]; zero is not known. Written without a read-modify-write: of two samples at one moment one may be lost.
    latency: AtomicU64,
    /// Failures without an answer in between.
    row: AtomicU32,
}

impl Endpoint {
    /// `origin`: what its stamps count from.
    pub(crate) fn new(resolved: &ResolvedEndpoint, origin: Instant) -> Self {
        Self {
            instance_id: resolved.instance_id,
            address: resolved.address.clone(),
            origin,
            incarnation: AtomicU64::new(resolved.incarnation),
            methods: ArcSwap::new(resolved.methods.clone()),
            state: AtomicU8::new(ConnectivityState::Idle as u8),
            trial: TrialCell::default(),
            crowded: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            hot: Hot::default(),
        }
    }

    /// Takes what the resolver says now; `true` when the incarnation is another one.
    pub(crate) fn update(&self, resolved: &ResolvedEndpoint) -> bool {
        self.methods.store(resolved.methods.clone());
        self.incarnation.swap(resolved.incarnation, Ordering::Relaxed) != resolved.incarnation
    }

    pub(crate) fn methods(&self) -> Arc<MethodLevels> {
        self.methods.load_full()
    }

    pub(crate) fn set_state(&self, state: ConnectivityState) {
        self.state.store(state as u8, Ordering::Release);
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> ConnectivityState {
        ConnectivityState::from_repr(self.state.load(Ordering::Acquire))
    }

    /// Calls between their pick and their trailers. The ended are read first: a call that ends between the two reads is
    /// counted rather than missed.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        let ended = self.hot.ended.load(Ordering::Relaxed);
        let started = self.hot.started.load(Ordering::Relaxed);
        // There are never four thousand million.
        started.saturating_sub(ended) as u32
    }

    /// Counts a pick, the target's `turn`-th. Every entry is paired with one [`Endpoint::leave`]: the target's guard sees to
    /// it.
    #[inline]
    pub(crate) fn enter(&self, turn: u64, now: Stamp) {
        self.hot.started.fetch_add(1, Ordering::Relaxed);
        self.hot.last_turn.store(turn, Ordering::Relaxed);
        let nanos = now.nanos().saturating_add(1);
        // Two picks at one moment may leave the earlier one's time.
        if nanos > self.hot.last_pick.load(Ordering::Relaxed) {
            self.hot.last_pick.store(nanos, Ordering::Relaxed);
        }
    }

    pub(crate) fn leave(&self) {
        self.hot.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether so little is known of it by now that the target's `turn`-th pick should find out.
    #[inline]
    pub(crate) fn is_overdue(&self, turn: u64, now: Stamp) -> bool {
        turn.saturating_sub(self.hot.last_turn.load(Ordering::Relaxed)) >= OVERDUE_PICKS && {
            let nanos = self.hot.last_pick.load(Ordering::Relaxed);
            now.nanos().saturating_sub(nanos) >= OVERDUE_NANOS
        }
    }

    /// What a call costs here in time, in seconds.
    #[inline]
    pub(crate) fn latency(&self, now: Stamp) -> f32 {
        self.ewma().project(now.millis())
    }

    /// The first guess on a new connection: what came over the one before may have been another process's. A long round
    /// trip is believed only so far. It may be that of a process which has just been woken, and the first call tells, whereas
    /// who is thought slow gets none to prove the contrary.
    pub(crate) fn seed_latency(&self, rtt: Duration, now: Stamp) {
        self.begin_latency(rtt.min(SEED_MAX), now);
    }

    /// The average begins anew: what was counted before were failures.
    pub(crate) fn begin_latency(&self, took: Duration, now: Stamp) {
        self.set_ewma(Ewma::new(took.max(Ewma::FLOOR), now.millis()));
    }

    /// An answer began after this long.
    #[inline]
    pub(crate) fn answered(&self, took: Duration, now: Stamp) {
        self.learn(|ewma| ewma.sampled(took, now.millis()));
    }

    /// A call got no answer for this long, and will get none.
    pub(crate) fn waited(&self, at_least: Duration, now: Stamp) {
        self.learn(|ewma| ewma.raised(at_least, now.millis()));
    }

    /// A call ended with an answer of the service's own making, whatever it says; `true` for the first one after failures.
    pub(crate) fn succeeded(&self) -> bool {
        // Mostly there is nothing to write.
        let first = self.hot.row.load(Ordering::Relaxed) != 0;
        if first {
            self.hot.row.store(0, Ordering::Relaxed);
        }
        first
    }

    /// A call failed; returns how many have in a row.
    pub(crate) fn failed(&self, took: Duration, now: Stamp) -> u32 {
        self.penalise(took, now);
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.hot.row.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// An answer that came too easily: who refuses at once must not look fast.
    pub(crate) fn penalise(&self, took: Duration, now: Stamp) {
        self.learn(|ewma| ewma.failed(took, now.millis()));
    }

    /// Failures without an answer in between.
    pub(crate) fn failures_in_a_row(&self) -> u32 {
        self.hot.row.load(Ordering::Relaxed)
    }

    pub(crate) fn trial(&self) -> &TrialCell {
        &self.trial
    }

    /// The manager has ejected it.
    pub(crate) fn eject(&self) {
        self.trial.set(Trial::Off);
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// The manager trusts it again.
    pub(crate) fn acquit(&self) {
        self.forget_failures();
        self.trial.set(Trial::Off);
    }

    /// The failures so far are not held against it.
    pub(crate) fn forget_failures(&self) {
        self.hot.row.store(0, Ordering::Relaxed);
    }

    /// A call found every connection full; `true` for the first one to say so.
    pub(crate) fn crowd(&self) -> bool {
        !self.crowded.load(Ordering::Relaxed) && !self.crowded.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// There is another connection, or the connections have become fewer: who finds them full may say so again.
    pub(crate) fn uncrowd(&self) {
        self.crowded.store(false, Ordering::Relaxed);
    }

    fn ewma(&self) -> Ewma {
        Ewma::from_bits(self.hot.latency.load(Ordering::Relaxed))
    }

    fn set_ewma(&self, ewma: Ewma) {
        self.hot.latency.store(ewma.to_bits(), Ordering::Relaxed);
    }

    fn learn(&self, lesson: impl FnOnce(Ewma) -> Ewma) {
        let known = self.ewma();
        let learnt = lesson(known);
        if learnt != known {
            self.set_ewma(learnt);
        }
    }
}

/// A view on one endpoint of a channel. It stays readable after the endpoint was removed.
#[derive(Clone, Debug)]
pub struct EndpointHandle {
    endpoint: Arc<Endpoint>,
}

impl EndpointHandle {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint }
    }

    /// The running process behind the endpoint.
    pub fn instance_id(&self) -> Uuid {
        self.endpoint.instance_id
    }

    /// Where it answers.
    pub fn address(&self) -> &Address {
        &self.endpoint.address
    }

    /// Which start of the instance the registry knows now; 0 where no registry is asked.
    pub fn incarnation(&self) -> u64 {
        self.endpoint.incarnation()
    }

    /// Its connectivity now.
    pub fn state(&self) -> ConnectivityState {
        self.endpoint.state()
    }

    /// Calls sent to it so far, attempts counted one by one.
    pub fn picks(&self) -> u64 {
        self.endpoint.hot.started.load(Ordering::Relaxed)
    }

    /// When it was picked last, on tokio's clock.
    pub fn last_pick(&self) -> Option<Instant> {
        let nanos = self.endpoint.hot.last_pick.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.endpoint.origin + Duration::from_nanos(nanos))
    }

    /// Calls between their pick and their trailers.
    pub fn in_flight(&self) -> u32 {
        self.endpoint.in_flight()
    }

    /// How long it takes until it begins to answer, as the balancer sees it now: a peak-sensitive moving average in which a
    /// failure counts as a second. `None` until its first connection.
    pub fn latency(&self) -> Option<Duration> {
        let known = self.endpoint.hot.latency.load(Ordering::Relaxed) != 0;
        let now = Stamp::new(self.endpoint.origin, clock::now());
        known.then(|| Duration::from_secs_f32(self.endpoint.latency(now)))
    }

    /// Calls that failed so far by the endpoint's doing: UNAVAILABLE, INTERNAL, UNKNOWN or DATA_LOSS, or a stream or a
    /// connection that broke.
    pub fn failures(&self) -> u64 {
        self.endpoint.failures.load(Ordering::Relaxed)
    }

    /// Failures since its last other answer.
    pub fn failures_in_a_row(&self) -> u32 {
        self.endpoint.failures_in_a_row()
    }

    /// How often it was left alone for its failures so far.
    pub fn ejections(&self) -> u64 {
        self.endpoint.ejections.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::Standing;

    fn resolved(incarnation: u64) -> ResolvedEndpoint {
        ResolvedEndpoint {
            instance_id: Uuid::nil(),
            incarnation,
            address: "127.0.0.1:1".parse().unwrap(),
            zone: "".into(),
            weight: 100,
            standing: Standing::Alive,
            load: None,
            methods: Arc::default(),
            descriptor_digest: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handle_reads_what_calls_wrote() {
        let born = clock::now();
        let endpoint = Arc::new(Endpoint::new(&resolved(3), born));
        let handle = EndpointHandle::new(endpoint.clone());
        assert_eq!((handle.picks(), handle.last_pick(), handle.in_flight()), (0, None, 0));

        let later = born + Duration::from_secs(5);
        let stamp = |at| Stamp::new(born, at);
        endpoint.enter(1, stamp(later));
        endpoint.enter(2, stamp(born));
        assert_eq!((handle.picks(), handle.last_pick(), handle.in_flight()), (2, Some(later), 2));
        endpoint.leave();
        drop(endpoint);
        assert_eq!((handle.in_flight(), handle.incarnation()), (1, 3));
    }

    #[test]
    fn every_state_survives_its_atomic() {
        let endpoint = Endpoint::new(&resolved(0), clock::now());
        for state in [
            ConnectivityState::Idle,
            ConnectivityState::Connecting,
            ConnectivityState::Ready,
            ConnectivityState::TransientFailure,
            ConnectivityState::Shutdown,
        ] {
            endpoint.set_state(state);
            assert_eq!(endpoint.state(), state);
        }
    }

    #[test]
    fn failures_count_until_something_else_is_answered_and_look_slow() {
        let born = clock::now();
        let endpoint = Arc::new(Endpoint::new(&resolved(0), born));
        let handle = EndpointHandle::new(endpoint.clone());
        assert_eq!(handle.latency(), None);
        let now = Stamp::new(born, born);
        endpoint.seed_latency(Duration::from_millis(2), now);
        assert_eq!(endpoint.latency(now), 0.002);
        assert_eq!([0; 3].map(|_| endpoint.failed(Duration::from_micros(50), now)), [1, 2, 3]);
        assert_eq!(endpoint.latency(now), 1.0);
        assert!(endpoint.succeeded() && !endpoint.succeeded());
        assert_eq!((handle.failures(), handle.failures_in_a_row()), (3, 0));
    }
}
