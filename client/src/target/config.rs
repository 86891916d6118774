//! What a target is made of; `Mesh` fills it in.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;

use crate::conn::{ConnSettings, Connector, SocketConnector};
use crate::entropy::Entropy;
use crate::policy::Policy;
use crate::resolver::MethodLevels;

/// Everything that one target needs to know beforehand.
#[derive(Clone, Debug)]
pub(crate) struct TargetConfig {
    /// The service's name: what logs and errors call it.
    pub(crate) service: Arc<str>,
    /// What `:authority` says: the service's name, so that a server at a reused address can refuse a stranger's call.
    pub(crate) authority: Authority,
    /// How byte streams are opened.
    pub(crate) connector: Arc<dyn Connector>,
    /// How connections are made and watched.
    pub(crate) conn: ConnSettings,
    /// Longest pause between two attempts to connect to one endpoint.
    pub(crate) backoff_max: Duration,
    /// Idempotency of methods as the caller declares it; asked before the service record.
    pub(crate) methods: Arc<MethodLevels>,
    /// How calls are balanced, repeated and bounded.
    pub(crate) policy: Policy,
    /// The zone the caller runs in; empty is unknown.
    pub(crate) zone: Arc<str>,
    /// What calls are told while the endpoints cannot be connected to.
    pub(crate) outage: Outage,
    /// Picks and jitter.
    pub(crate) entropy: Entropy,
}

/// What a call is told while every attempt to connect fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Nothing, until its failfast time or deadline.
    WaitedOut,
    /// That it is so, once the first attempts have failed: the caller has somewhere else to go.
    Told,
}

/// Longest pause between two attempts to connect: an instance that comes back late is found within this.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

impl TargetConfig {
    /// The defaults, over the operating system's sockets.
    pub(crate) fn new(service: &str, authority: Authority, entropy: Entropy) -> Self {
        Self {
            service: service.into(),
            authority,
            connector: Arc::new(SocketConnector),
            conn: ConnSettings::default(),
            backoff_max: BACKOFF_MAX,
            methods: Arc::default(),
            policy: Policy::default(),
            zone: "".into(),
            outage: Outage::WaitedOut,
            entropy,
        }
    }
}
