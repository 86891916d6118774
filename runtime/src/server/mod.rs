//! The gRPC port: HTTP/2 with every limit set.

mod limits;

pub use limits::Limits;
