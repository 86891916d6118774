//! What may be chosen for the calls to one service.

use std::num::NonZeroU8;
use std::time::Duration;

use http::HeaderName;
use tonic::Code;

/// How calls to a service are balanced, repeated and bounded. Every field has a default that suits most services:
///
/// ```
/// use mesh_client::{Balancer, Policy};
///
/// let policy = Policy { balancer: Balancer::RoundRobin, ..Policy::default() };
/// assert!(policy.hedging.is_some());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which READY endpoint gets the next call.
    pub balancer: Balancer,
    /// Whether endpoints of the caller's own zone go before others. Without effect while the caller's zone is not known.
    pub zone_first: bool,
    /// How many endpoints one caller connects to at most (gRFC A68); absent: all of them. 1 to 65535.
    ///
    /// A service of thousands that is called by thousands would otherwise hold millions of connections.
    pub subset_max: Option<u16>,
    /// How an endpoint that has just become READY is led up to its share; absent: it has all of it at once.
    pub slow_start: Option<SlowStart>,
    /// With fewer than this share of the endpoints fit to be picked, all connected ones are picked: then it is more likely
    /// that the judgement is wrong than that most of a service is. Envoy's default is 50; 0 turns it off.
    pub panic_threshold: Percent,
    /// When an endpoint that fails calls is left alone for a while; absent: never.
    pub ejection: Option<Ejection>,
    /// When a failed call is sent again.
    pub retry: Retry,
    /// When a slow call is sent a second time; absent: never.
    pub hedging: Option<Hedging>,
    /// Calls between their pick and their trailers, over all endpoints; one more is UNAVAILABLE and not retried (gRFC A32).
    pub in_flight_max: u32,
    /// Calls that wait for an endpoint; one more is RESOURCE_EXHAUSTED.
    pub waiting_max: usize,
    /// How long a call waits while nothing is READY, unless it says `wait_for_ready`.
    pub failfast: Duration,
    /// Connections to one endpoint: another one is opened when those there are have as many streams as the server allows,
    /// and the oldest with room is used (gRFC A105).
    pub connections_per_endpoint: NonZeroU8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            balancer: Balancer::PeakEwma,
            zone_first: true,
            subset_max: Some(100),
            slow_start: None,
            panic_threshold: Percent::new(50).expect("50 is a percentage"),
            ejection: Some(Ejection::default()),
            retry: Retry::default(),
            hedging: Some(Hedging::default()),
            in_flight_max: 10_000,
            waiting_max: 10_000,
            failfast: Duration::from_secs(3),
            connections_per_endpoint: NonZeroU8::MIN.saturating_add(3),
        }
    }
}

/// Which READY endpoint gets the next call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balancer {
    /// The better of two drawn at random, by expected time to an answer: a peak-sensitive moving average of the latency, times
    /// the calls in flight (Finagle's peak EWMA). Fast failures count as slow answers.
    #[default]
    PeakEwma,
    /// The less busy of two drawn at random (gRFC A48).
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// One after the other, in proportion to weights: what load reports say an endpoint can take (gRFC A58), else the weight
    /// that it registered with.
    WeightedRoundRobin,
    /// Any, in proportion to the registered weights.
    Random,
    /// The same endpoint for the same key, for as long as it is there and not overloaded (gRFC A42).
    RingHash(RingHash),
}

/// How keys are placed on endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingHash {
    /// The request header that holds the key, where the call carries no [`HashKey`](crate::HashKey). A call with neither goes
    /// to a random place on the ring.
    pub key_header: Option<HeaderName>,
    /// How much more than its share of the calls in flight an endpoint takes before its calls go on to the next one on the
    /// ring (consistent hashing with bounded loads, Mirrokni et al. 2018). 100 to 10 000; 125 is the paper's example.
    pub bound_percent: u16,
}

impl Default for RingHash {
    fn default() -> Self {
        Self { key_header: None, bound_percent: 125 }
    }
}

/// How an endpoint is led up to its share (gRFC A100).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long that takes.
    pub window: Duration,
    /// The share it begins with.
    pub share_min: Percent,
}

impl Default for SlowStart {
    /// Half a minute from a tenth of its share.
    fn default() -> Self {
        Self { window: Duration::from_secs(30), share_min: Percent::new(10).expect("10 is a percentage") }
    }
}

/// When an endpoint is left alone: after failures in a row. It comes back by one call that may try.
///
/// A failure is UNAVAILABLE, INTERNAL, UNKNOWN or DATA_LOSS from the server, or a connection that broke under the call. Any
/// other status is an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row that eject; Envoy's default is 5.
    pub failures: u32,
    /// How long the first ejection lasts; each further one in a row twice as long.
    pub base: Duration,
    /// The longest it gets.
    pub max: Duration,
    /// Largest share of the connected endpoints ejected at once. The last one never is, and one always may be.
    pub share_max: Percent,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: 5,
            base: Duration::from_secs(5),
            max: Duration::from_secs(60),
            share_max: Percent::new(50).expect("50 is a percentage"),
        }
    }
}

/// When a call that a server may have processed is sent again: never, unless its method is declared safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts of one call, the first included; 1 turns retries off, gRFC A6 allows 5.
    pub attempts_max: u32,
    /// Statuses that are tried again. An answer with messages is never given up for another one.
    pub codes: Vec<Code>,
    /// Ceiling of the pause before an endpoint that failed the call is tried again; doubles each time, full jitter. Another
    /// endpoint is tried at once.
    pub backoff_base: Duration,
    /// Where the doubling ends.
    pub backoff_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            codes: vec![Code::Unavailable, Code::Internal],
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
        }
    }
}

/// When a unary call is sent to a second endpoint beside the first: its method is declared safe to repeat, and no answer has
/// begun after the 95th percentile of the service's latencies, and not before `delay_min`. Within the retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedging {
    /// Shortest time to the second attempt.
    pub delay_min: Duration,
}

impl Default for Hedging {
    fn default() -> Self {
        Self { delay_min: Duration::from_millis(50) }
    }
}

/// A share of a whole, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

/// A number is no percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} % is not between 0 and 100")]
pub struct PercentError(u8);

impl Percent {
    /// Checks that it is one.
    pub fn new(percent: u8) -> Result<Self, PercentError> {
        if percent <= 100 { Ok(Self(percent)) } else { Err(PercentError(percent)) }
    }

    /// The number, 0 to 100.
    pub fn get(self) -> u8 {
        self.0
    }
}
