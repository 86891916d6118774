//! Find, choose and call gRPC services; register, beat and drain your own.

mod resolver;

pub use resolver::{DescriptorError, Idempotency, MethodLevels, Resolution, ResolutionStatus, Resolutions};
pub use resolver::{ResolvedEndpoint, Standing};
