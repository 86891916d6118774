//! Reflection, v1 and v1alpha: what lets `grpcurl` and friends call a server without its proto files.

use tonic::service::Routes;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::Builder;

use crate::error::Error;

/// Both versions, as clients name them: older tools only speak v1alpha.
pub(crate) const SERVICES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// The descriptors of everything that every server serves.
pub(crate) const DESCRIPTORS: [&[u8]; 3] =
    [tonic_health::pb::FILE_DESCRIPTOR_SET, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];

/// Adds both versions to `routes`. `services` are listed; `descriptors` may describe more, and are served as they are
/// encoded, custom options included.
pub(crate) fn add(routes: Routes, services: &[String], descriptors: &[&'static [u8]]) -> Result<Routes, Error> {
    let builder = || {
        let mut builder = Builder::configure().include_reflection_service(false);
        for encoded in descriptors {
            builder = builder.register_encoded_file_descriptor_set(encoded);
        }
        services.iter().fold(builder, |builder, name| builder.with_service_name(name))
    };
    let broken = |error| Error::startup(format_args!("the descriptor set cannot be served: {error}"));
    let v1 = builder().build_v1().map_err(broken)?;
    let v1alpha = builder().build_v1alpha().map_err(broken)?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}
