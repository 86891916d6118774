//! One endpoint of a service as the data path sees it: who it is, and the counters that calls keep on it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use uuid::Uuid;

use crate::Address;
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

/// One endpoint. It lives as long as somebody counts on it: the manager while it is resolved, a guard while a call is in
/// flight, an [`EndpointHandle`] for as long as somebody looks.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) instance_id: Uuid,
    pub(crate) address: Address,
    /// What `last_pick` counts from.
    born: Instant,
    incarnation: AtomicU64,
    /// Read only when an attempt has failed.
    methods: ArcSwap<MethodLevels>,
    state: AtomicU8,
    hot: Hot,
}

/// What every call writes, on cache lines of its own: neighbouring endpoints do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hot {
    in_flight: AtomicU32,
    picks: AtomicU64,
    /// Nanoseconds since `born` plus one; zero is never.
    last_pick: AtomicU64,
}

impl Endpoint {
    pub(crate) fn new(resolved: &ResolvedEndpoint, born: Instant) -> Self {
        Self {
            instance_id: resolved.instance_id,
            address: resolved.address.clone(),
            born,
            incarnation: AtomicU64::new(resolved.incarnation),
            methods: ArcSwap::new(resolved.methods.clone()),
            state: AtomicU8::new(ConnectivityState::Idle as u8),
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

    pub(crate) fn in_flight(&self) -> u32 {
        self.hot.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a pick at `now`. Every entry is paired with one [`Endpoint::leave`]: `guard::InFlight` sees to it.
    pub(crate) fn enter(&self, now: Instant) {
        self.hot.in_flight.fetch_add(1, Ordering::Relaxed);
        self.hot.picks.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(now.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX - 1);
        self.hot.last_pick.fetch_max(nanos + 1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.hot.in_flight.fetch_sub(1, Ordering::Relaxed);
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
        self.endpoint.hot.picks.load(Ordering::Relaxed)
    }

    /// When it was picked last, on tokio's clock.
    pub fn last_pick(&self) -> Option<Instant> {
        let nanos = self.endpoint.hot.last_pick.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.endpoint.born + Duration::from_nanos(nanos))
    }

    /// Calls between their pick and their trailers.
    pub fn in_flight(&self) -> u32 {
        self.endpoint.in_flight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
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
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handle_reads_what_calls_wrote() {
        let born = clock::now();
        let endpoint = Arc::new(Endpoint::new(&resolved(3), born));
        let handle = EndpointHandle::new(endpoint.clone());
        assert_eq!((handle.picks(), handle.last_pick(), handle.in_flight()), (0, None, 0));

        let later = born + Duration::from_secs(5);
        endpoint.enter(later);
        endpoint.enter(born);
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
}
