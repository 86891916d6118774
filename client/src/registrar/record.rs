//! What is registered, as the wire has it: everything but identity and status, which change over time.

use std::net::SocketAddr;

use bytes::Bytes;
use mesh_api::registry::v1 as wire;
use prost::Message;
use prost_types::FileDescriptorSet;
use sha2::{Digest, Sha256};

use super::{InstanceSpec, Speaks};
use crate::resolver::{Idempotency, level_of, methods_of};

/// The request that every registration of this process starts from.
pub(super) fn record(
    spec: &InstanceSpec,
    namespace: &str,
    main: SocketAddr,
    admin: Option<SocketAddr>,
) -> wire::RegisterRequest {
    let main = match spec.speaks {
        Speaks::Grpc => endpoint("grpc", wire::Protocol::Grpc, main),
        Speaks::Http => endpoint("http", wire::Protocol::Http, main),
    };
    let admin = admin.map(|admin| endpoint("admin", wire::Protocol::Http, admin));
    wire::RegisterRequest {
        namespace: namespace.to_owned(),
        service: spec.service.clone(),
        endpoints: [Some(main), admin].into_iter().flatten().collect(),
        zone: spec.zone.clone(),
        weight: spec.weight.into(),
        version: spec.version.clone(),
        metadata: spec.metadata.clone(),
        descriptor_digest: digest(spec.descriptors),
        grpc_services: grpc_services(spec),
        ttl: spec.ttl.and_then(|ttl| ttl.try_into().ok()),
        ..Default::default()
    }
}

fn endpoint(name: &str, protocol: wire::Protocol, address: SocketAddr) -> wire::Endpoint {
    wire::Endpoint {
        name: name.to_owned(),
        protocol: protocol.into(),
        ip: address.ip().to_string(),
        port: address.port().into(),
    }
}

fn digest(descriptors: &[u8]) -> Bytes {
    if descriptors.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(&Sha256::digest(descriptors)) }
}

fn grpc_services(spec: &InstanceSpec) -> Vec<wire::GrpcService> {
    let set = FileDescriptorSet::decode(spec.descriptors).unwrap_or_else(|error| {
        tracing::warn!(%error, "the descriptor set cannot be read; services are registered without their methods");
        FileDescriptorSet::default()
    });
    let methods = |service: &str| -> Vec<wire::GrpcMethod> {
        methods_of(&set)
            .filter(|(of, _)| of == service)
            .map(|(_, method)| wire::GrpcMethod {
                name: method.name().to_owned(),
                idempotency_level: level(level_of(method)).into(),
            })
            .collect()
    };
    let service = |name: &String| wire::GrpcService {
        name: name.clone(),
        methods: methods(name),
        serving_status: wire::ServingStatus::Serving.into(),
    };
    spec.grpc_services.iter().map(service).collect()
}

fn level(level: Idempotency) -> wire::IdempotencyLevel {
    match level {
        Idempotency::Unknown => wire::IdempotencyLevel::Unspecified,
        Idempotency::NoSideEffects => wire::IdempotencyLevel::NoSideEffects,
        Idempotency::Idempotent => wire::IdempotencyLevel::Idempotent,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_record_carries_methods_levels_and_digest_of_the_descriptor_set() {
        let spec = InstanceSpec {
            descriptors: mesh_api::FILE_DESCRIPTOR_SET,
            grpc_services: vec!["mesh.registry.v1.RegistryService".into(), "no.such.Service".into()],
            ttl: Some(Duration::from_millis(2_500)),
            ..InstanceSpec::new("registry")
        };
        let record = record(&spec, "default", "127.0.0.1:1".parse().unwrap(), Some("[::1]:2".parse().unwrap()));
        assert_eq!(record.descriptor_digest.len(), 32);
        assert_eq!(record.ttl, Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }));
        assert_eq!(record.endpoints[1].ip, "::1");
        let [known, unknown] = &record.grpc_services[..] else { panic!("two services are served") };
        let resolve = known.methods.iter().find(|method| method.name == "Resolve").unwrap();
        assert_eq!(resolve.idempotency_level(), wire::IdempotencyLevel::NoSideEffects);
        assert!(unknown.methods.is_empty());
    }

    #[test]
    fn a_process_that_speaks_http_has_no_grpc_address() {
        let spec = InstanceSpec { speaks: Speaks::Http, ..InstanceSpec::new("gateway") };
        let record = record(&spec, "default", "127.0.0.1:1".parse().unwrap(), Some("127.0.0.1:2".parse().unwrap()));
        let told = record.endpoints.iter().map(|endpoint| (&*endpoint.name, endpoint.protocol(), endpoint.port));
        assert!(told.eq([("http", wire::Protocol::Http, 1), ("admin", wire::Protocol::Http, 2)]));
    }

    #[test]
    fn without_descriptors_there_is_no_digest() {
        let record = record(&InstanceSpec::new("a"), "default", "127.0.0.1:1".parse().unwrap(), None);
        assert!(record.descriptor_digest.is_empty());
        assert_eq!(record.endpoints.len(), 1);
    }
}
