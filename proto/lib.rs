//! The wire of Meshwork: every message and service of `proto/` as Rust types, and the descriptor set that reflection
//! serves.
//!
//! Generated code stays in its package's module. What is written by hand stands in [`convert`]: the few conversions
//! between wire values and Rust's own that several crates need.

/// `mesh.registry.v1`: discovery.
pub mod registry {
    /// Version 1.
    #[expect(missing_docs, clippy::doc_lazy_continuation, reason = "generated; documented in the proto files")]
    pub mod v1 {
        tonic::include_proto!("mesh.registry.v1");
    }
}

/// Every proto file of the house, encoded as a `FileDescriptorSet` with its options and comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
