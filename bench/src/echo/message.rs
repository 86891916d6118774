//! The messages, as prost generates them, and the descriptor that says that the method may be repeated.

use prost::Message;
use prost_types::method_options::IdempotencyLevel;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions, ServiceDescriptorProto,
};

/// What is sent.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EchoRequest {
    /// Any bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) payload: Vec<u8>,
}

/// What comes back.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EchoResponse {
    /// The request's bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) payload: Vec<u8>,
    /// Which port answered, from 1, where that is asked for; 0, which takes no bytes, where it is not.
    #[prost(uint32, tag = "2")]
    pub(crate) served_by: u32,
}

/// An encoded descriptor set that declares the method idempotent: what a service's own build would hand to the mesh. Only
/// what the mesh reads of it is there.
pub(crate) fn descriptor_set() -> Vec<u8> {
    let (package, service) = super::SERVICE.rsplit_once('.').expect("the service's name has a package");
    let mut options = MethodOptions::default();
    options.set_idempotency_level(IdempotencyLevel::NoSideEffects);
    let method = MethodDescriptorProto {
        name: Some(super::METHOD.to_owned()),
        options: Some(options),
        ..MethodDescriptorProto::default()
    };
    let service = ServiceDescriptorProto {
        name: Some(service.to_owned()),
        method: vec![method],
        ..ServiceDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        package: Some(package.to_owned()),
        service: vec![service],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}
