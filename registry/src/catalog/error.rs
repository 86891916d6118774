//! What can be wrong with a value, and what can be in a command's way.

use core::net::IpAddr;
use std::time::Duration;

use super::{Incarnation, ServiceKey, Ttl};

/// A value that breaks its own rules, whatever the state is. The caller has to change it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Invalid {
    /// Text that is not what its field takes.
    #[error("{field} {value:?} is not {rule}")]
    Text {
        /// Path of the field in the request.
        field: &'static str,
        /// The value, cut to a length that a log can bear.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// Bytes of a wrong length.
    #[error("{field} has {bytes} bytes, not {rule}")]
    Length {
        /// Path of the field in the request.
        field: &'static str,
        /// How many there were.
        bytes: usize,
        /// What is allowed.
        rule: &'static str,
    },
    /// A list with too many entries.
    #[error("{field} has {count} entries, at most {max} are allowed")]
    TooMany {
        /// Path of the field in the request.
        field: &'static str,
        /// How many there were.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// A TTL outside its range.
    #[error("ttl {asked:?} is outside {:?} to {:?}", Ttl::RANGE.start(), Ttl::RANGE.end())]
    TtlOutOfRange {
        /// What was asked for.
        asked: Duration,
    },
    /// A weight above its range.
    #[error("weight {asked} is above 65535")]
    WeightOutOfRange {
        /// What was asked for.
        asked: u32,
    },
    /// An admin rule's life outside its range.
    #[error("expires_in {asked:?} is outside 1s to 30 days")]
    ExpiryOutOfRange {
        /// What was asked for.
        asked: Duration,
    },
    /// An address that nobody can call.
    #[error("endpoints.ip {ip} is not an address that can be called")]
    Address {
        /// The address.
        ip: IpAddr,
    },
    /// A port that is none.
    #[error("endpoints.port {port} is outside 1 to 65535")]
    Port {
        /// The port.
        port: u32,
    },
    /// No endpoint at all.
    #[error("endpoints is empty, 1 to 16 are taken")]
    NoEndpoint,
    /// gRPC services, and no endpoint that speaks gRPC.
    #[error("endpoints has none that speaks gRPC, and grpc_services has some")]
    NoGrpcEndpoint,
}

impl Invalid {
    /// A text that breaks `rule`, quoted in part.
    #[must_use]
    pub fn name(field: &'static str, value: &str, rule: &'static str) -> Self {
        Self::Text { field, value: value.chars().take(80).collect(), rule }
    }

    /// Path of the field in the request, for `google.rpc.BadRequest`.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Text { field, .. } | Self::Length { field, .. } | Self::TooMany { field, .. } => field,
            Self::TtlOutOfRange { .. } => "ttl",
            Self::WeightOutOfRange { .. } => "weight",
            Self::ExpiryOutOfRange { .. } => "expires_in",
            Self::Address { .. } => "endpoints.ip",
            Self::Port { .. } => "endpoints.port",
            Self::NoEndpoint | Self::NoGrpcEndpoint => "endpoints",
        }
    }
}

/// Why a command is refused in this state. Each variant is something that a caller does differently about.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CatalogError {
    /// The value itself is wrong: change it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A newer start holds the id: take a new id.
    #[error("a newer start holds this instance id, incarnation {by}")]
    Fenced {
        /// The incarnation that holds it.
        by: Incarnation,
    },
    /// This start said goodbye: take a new id or a new nonce, or come back later.
    #[error("this start has deregistered and cannot come back for {retry_in:?}")]
    Departed {
        /// How long the goodbye still holds.
        retry_in: Duration,
    },
    /// No such service.
    #[error("service {service} is not known")]
    UnknownService {
        /// The name looked up.
        service: ServiceKey,
    },
    /// A service with live instances is not deleted: stop or deregister them first.
    #[error("service {service} has {instances} live instances")]
    ServiceInUse {
        /// The service.
        service: ServiceKey,
        /// How many live in it.
        instances: usize,
    },
    /// The service is full.
    #[error("service {service} has {max} instances already")]
    TooManyInstancesOfService {
        /// The service.
        service: ServiceKey,
        /// How many there may be.
        max: usize,
    },
    /// The registry is full.
    #[error("the registry holds {max} instances already")]
    TooManyInstances {
        /// How many there may be.
        max: usize,
    },
    /// The registry knows no more names.
    #[error("the registry knows {max} services already")]
    TooManyServices {
        /// How many there may be.
        max: usize,
    },
    /// The service has no room for another rule.
    #[error("service {service} has {max} admin rules already")]
    TooManyRules {
        /// The service.
        service: ServiceKey,
        /// How many there may be.
        max: usize,
    },
}
