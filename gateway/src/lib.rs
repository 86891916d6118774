//! gateway: REST/JSON and gRPC-Web in front of every registered service, from the descriptors that its instances serve.

pub mod front;
mod published;
pub mod services;
pub mod transcode;

pub use published::{Known, Published};
