//! The wire of Meshwork: every message and service of `proto/` as Rust types, and the descriptor set that reflection
//! serves.
//!
//! Generated code stays in its package's module. Written by hand are the `Debug` of messages that hold a secret, and
//! answers that are encoded once for many, and who may call what.

pub mod access;
pub mod encoded;
mod redact;

/// `mesh.registry.v1`: discovery.
pub mod registry {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("mesh.registry.v1");
    }

    /// The server of version 1 whose `Resolve` and `Watch` answer with bytes that are encoded already.
    pub mod v1_encoded {
        include!(concat!(env!("OUT_DIR"), "/encoded/mesh.registry.v1.rs"));
    }
}

/// `mesh.store.v1`: what a registry keeps, at rest.
pub mod store {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("mesh.store.v1");
    }
}

/// `shop.user.v1` and `shop.order.v1`: the two services that run on the mesh.
pub mod shop {
    /// `shop.user.v1`: accounts.
    pub mod user {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("shop.user.v1");
        }
    }
    /// `shop.order.v1`: orders.
    pub mod order {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("shop.order.v1");
        }
    }
}

/// The part of etcd's API that the house calls, for a store that several registries share. Foreign names, so none of the
/// house's rules for names.
pub mod etcd {
    /// Keys and events.
    #[allow(clippy::enum_variant_names, reason = "etcd's names")]
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    /// Services, requests and responses.
    #[allow(clippy::large_enum_variant, reason = "etcd's shapes")]
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }

    /// Its files, encoded as a `FileDescriptorSet`: which methods are safe to repeat. Nobody serves it.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/etcd.bin"));
}

/// Every proto file of the house, encoded as a `FileDescriptorSet` with its options and comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
