//! Find, choose and call gRPC services; register, beat and drain your own.
//!
//! A [`Mesh`] knows where the registry is. [`Mesh::channel`] gives a [`MeshChannel`] that generated stubs take like a
//! `tonic::transport::Channel`, and that finds, balances, re-picks and retries by itself. [`Mesh::registrar`] gives the
//! [`Registrar`] that keeps this process known to others. Without a registry, [`MeshBuilder::static_service`] names the
//! addresses:
//!
//! ```
//! use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
//! use mesh_client::{ConnectivityState, Mesh};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mesh = Mesh::builder()
//!     .static_service("user-svc", ["127.0.0.1:7410".parse()?, "127.0.0.1:7412".parse()?])
//!     .descriptors(mesh_api::FILE_DESCRIPTOR_SET) // which methods may be repeated
//!     .build()?;
//! let channel = mesh.channel("user-svc"); // does not wait; the same name shares its connections
//! let users = UserServiceClient::new(channel.clone());
//! # let _ = users;
//! assert_ne!(channel.state(), ConnectivityState::Ready); // nobody listens there in this example
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! ```text
//! mesh         the way in: configuration, one target per service, one Watch stream per process
//! resolver/    service name to Resolution: over Watch (service, session: pure; watch: the task), or a fixed list
//! registrar/   register, beat, drain, leave (enrolment: pure; driver: the task)
//! registries/  several registries over one store: whose turn it is, and whose store answers (home: pure)
//! target/      one service's endpoints and connections, and the snapshot that calls pick from
//! balancer/    PURE: which endpoint gets the next call
//! policy/      deadline, retry and its budget, backoff
//! call/        one call from its request to its trailers     channel   the tower Service on top
//! conn/        HTTP/2 connections behind a private trait      context   what a call inherits from the request served
//! metrics/     what calls write down, and what a scrape reads     explain   why calls go where they go
//! ```
//!
//! # Invariants
//!
//! - Nothing here waits for the registry, and no failure of it takes an endpoint away: the last known good is used for as
//!   long as it lasts. An endpoint goes when a removal names it, when the record says who emptied the service, or when it
//!   has refused connections for a minute after the registry stopped listing it.
//! - A call goes to an endpoint whose connection has answered a PING, or it waits; it never opens a connection itself.
//! - Who fails calls in a row is left alone, never the last one, and comes back by one call that tries it.
//! - What may have been processed is sent again only where the method is declared safe to repeat, to another endpoint, and
//!   within a budget. What was provably not processed is always sent again.
//! - Reconnecting has no end and no tight loop: at once, then full jitter up to 5 s, and up to 1 s to the registry.
//! - Watches and heartbeats begin at a random registry each, and go on to the next at once when one fails them. Nothing of a
//!   second store behind them is ever mixed with what is known of the first.
//! - Every queue, map and list has a bound that is stated where it is declared.
//! - The clock is read in `clock` and randomness is drawn in `entropy`, and nowhere else.

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod address;
pub mod balancer;
mod call;
mod channel;
mod clock;
mod conn;
pub mod context;
mod endpoint;
mod entropy;
mod explain;
#[cfg(test)]
mod fake_registry;
mod grpc;
mod load;
mod mesh;
mod metrics;
mod policy;
mod reconnect;
mod registrar;
mod registries;
mod resolver;
#[cfg(test)]
mod rig;
mod serving;
mod target;

pub use address::{Address, AddressError};
pub use resolver::{Counters, ResolvedEndpoint, Standing, WatchState, WatchStatus};
pub use resolver::{
    DescriptorDigest, DescriptorError, Idempotency, MethodLevels, Resolution, ResolutionStatus, Resolutions,
    StateDirError,
};

pub use load::{EndpointLoad, LoadReport};
pub use mesh::{ConfigError, Mesh, MeshBuilder, PolicyFault, PolicyScope};
pub use registrar::{BoxFuture, InstanceSpec, Registrar, RegistrarHooks, RegistrarState, RegistrarStatus, Speaks};
pub use serving::ServingStatus;

pub use call::{CallFuture, HashKey, ResponseBody, WaitForReady};
pub use channel::MeshChannel;
pub use conn::{Connecting, Connector, Io, SocketConnector};
pub use endpoint::{ConnectivityState, EndpointHandle};
pub use explain::{EndpointExplanation, Explanation, Verdict};
pub use metrics::MeshMetrics;
pub use policy::{Balancer, Ejection, Hedging, Percent, PercentError, Policy, Retry, RingHash, SlowStart};
