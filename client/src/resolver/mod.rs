//! Service name to endpoints: what a channel is told about the instances it may call.
//!
//! A resolver publishes a [`Resolution`] per service on a [`Resolutions`] channel, always whole, and the data path takes
//! the latest one. Two exist: one for lists known beforehand, and one over the registry's Watch stream.

mod decode;
mod fixed;
mod known;
mod methods;
mod news;
mod service;
mod session;
mod watch;

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::Address;
use crate::load::EndpointLoad;

pub(crate) use fixed::{HostPort, constant, follow};
pub use known::StateDirError;
pub(crate) use known::StateFolder;
pub use methods::{DescriptorError, Idempotency, MethodLevels};
pub(crate) use methods::{level_of, methods_of};
pub use session::Counters;
pub(crate) use watch::{SERVICES_MAX, Watcher};
pub use watch::{WatchState, WatchStatus};

/// The latest [`Resolution`] of one service. It starts as [`ResolutionStatus::Unresolved`]; a closed sender means that no
/// news will come, and the last value stays good. Dropping every receiver releases the subscription.
pub type Resolutions = tokio::sync::watch::Receiver<Arc<Resolution>>;

/// All that is known about one service now. It always replaces the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// The endpoints that may be called or are still finishing, in the order of their instance ids. An endpoint that is
    /// missing here is gone: no new picks, its streams may finish.
    pub endpoints: Vec<ResolvedEndpoint>,
    /// What an empty list means.
    pub status: ResolutionStatus,
}

impl Resolution {
    /// Nothing known yet: calls wait.
    pub fn unresolved() -> Self {
        Self { endpoints: Vec::new(), status: ResolutionStatus::Unresolved }
    }
}

/// How far a [`Resolution`] can be taken at its word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolutionStatus {
    /// No answer yet; calls wait for one, for as long as failfast and their deadline allow.
    Unresolved,
    /// The endpoints are what is known.
    Resolved,
    /// There is nobody, and that is believed: the registry does not know the name, or its last instance left by
    /// deregistration or by an operator. Calls wait for somebody to come, as before the first answer.
    Empty,
    /// The name cannot be followed, and nothing was known about it; calls fail at once with this reason.
    Refused(Arc<str>),
}

/// One instance at the address that answers gRPC.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedEndpoint {
    /// The running process.
    pub instance_id: Uuid,
    /// Which start of it; another number under the same id is another process, whatever is lower or higher.
    pub incarnation: u64,
    /// Where it answers gRPC.
    pub address: Address,
    /// Where it runs; empty is unknown.
    pub zone: Arc<str>,
    /// Share of the calls relative to its siblings, at least 1; 100 is the default.
    pub weight: u16,
    /// Whether to pick it.
    pub standing: Standing,
    /// How busy it says it is; absent where it does not say.
    pub load: Option<EndpointLoad>,
    /// What the service record says about its methods; shared between the instances of a service.
    pub methods: Arc<MethodLevels>,
    /// Which descriptors its record says it serves; absent where it says nothing.
    pub descriptor_digest: Option<DescriptorDigest>,
}

/// SHA-256 of the descriptor set that an instance serves. Equal digests are equal descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DescriptorDigest(pub [u8; 32]);

impl DescriptorDigest {
    /// Of its bytes; `None` where there are not 32 of them, as in the record of an instance that gives none.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// In hexadecimal digits.
impl fmt::Display for DescriptorDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Whether an endpoint is to be picked: liveness, its own serving status and the operators' wish taken together.
/// Derived in one place, by the registry resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// Pick it.
    Alive,
    /// A heartbeat is late: a PONG within 250 ms on the connection that is held counts as [`Standing::Alive`] here; else
    /// pick it only if there is nothing better.
    Suspect,
    /// Its deadline passed and the registry holds its removal back; or it is known from an earlier process and the
    /// registry has not said anything yet: as [`Standing::Suspect`].
    Stale,
    /// The registry no longer lists it, and did not say who removed it: not believed. Probe it, pick it as
    /// [`Standing::Suspect`], and drop it after 60 s of refused connects. It stays listed here until a removal names it;
    /// who has dropped it leaves it dropped for as long as it is `Lapsed` under this incarnation.
    Lapsed,
    /// Streams finish, no new picks.
    Draining,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pure_parts_name_neither_transport_nor_runtime_nor_clock() {
        let pure = [
            ("news.rs", include_str!("news.rs")),
            ("service.rs", include_str!("service.rs")),
            ("session.rs", include_str!("session.rs")),
            ("known/record.rs", include_str!("known/record.rs")),
            ("home.rs", include_str!("../registries/home.rs")),
            ("enrolment.rs", include_str!("../registrar/enrolment.rs")),
        ];
        for (file, source) in pure {
            for foreign in ["tokio", "tonic", "mesh_api", "crate::clock", "std::fs"] {
                assert!(!source.contains(foreign), "{file} names {foreign}");
            }
        }
    }
}
