//! Find, choose and call gRPC services; register, beat and drain your own.

pub mod balancer;
mod call;
mod channel;
mod clock;
mod conn;
pub mod context;
mod endpoint;
mod entropy;
#[cfg(test)]
mod fake_registry;
mod grpc;
mod mesh;
mod policy;
mod reconnect;
mod registrar;
mod resolver;
#[cfg(test)]
mod rig;
mod serving;
mod target;

pub use resolver::{Counters, ResolvedEndpoint, Standing, WatchState, WatchStatus};
pub use resolver::{DescriptorError, Idempotency, MethodLevels, Resolution, ResolutionStatus, Resolutions};

pub use mesh::{ConfigError, Mesh, MeshBuilder};
pub use registrar::{BoxFuture, InstanceSpec, Registrar, RegistrarHooks, RegistrarState, RegistrarStatus};
pub use serving::ServingStatus;

pub use call::{CallFuture, ResponseBody, WaitForReady};
pub use channel::MeshChannel;
pub use conn::{Connecting, Connector, Io, TcpConnector};
pub use endpoint::{ConnectivityState, EndpointHandle};
