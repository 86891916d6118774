//! The service that everybody calls: it answers with what it was sent.

mod message;
mod server;
mod stub;

pub(crate) use message::{EchoRequest, EchoResponse, descriptor_set};
pub(crate) use server::serve;
pub(crate) use stub::{Channel, EchoClient, Stub};

/// The service's full name.
pub(crate) const SERVICE: &str = "bench.v1.EchoService";
/// Its method.
pub(crate) const METHOD: &str = "Echo";
/// The method's path.
pub(crate) const PATH: &str = "/bench.v1.EchoService/Echo";
