//! Find, choose and call gRPC services; register, beat and drain your own.

mod call;
mod channel;
mod clock;
mod conn;
mod endpoint;
mod entropy;
mod resolver;
mod target;

pub use resolver::{DescriptorError, Idempotency, MethodLevels, Resolution, ResolutionStatus, Resolutions};
pub use resolver::{ResolvedEndpoint, Standing};

pub use call::{CallFuture, ResponseBody, WaitForReady};
pub use channel::MeshChannel;
pub use conn::{Connecting, Connector, Io, TcpConnector};
pub use endpoint::{ConnectivityState, EndpointHandle};
