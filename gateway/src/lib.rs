//! gateway: REST/JSON and gRPC-Web in front of every registered service, from the descriptors that its instances serve.

pub mod transcode;
