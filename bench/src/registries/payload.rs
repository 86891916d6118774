//! What is registered: the same record on both sides, byte for byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_api::registry::v1 as pb;
use prost::Message;

/// Instances of one service. An answer that resolves one carries them all.
pub(crate) const INSTANCES_PER_SERVICE: u64 = 100;
/// TTL of every lease, in seconds: the longest that ours grants, so that none runs out while something else is measured.
pub(crate) const TTL_SECONDS: i64 = 300;
/// Where the records lie in etcd.
const PREFIX: &str = "/registry/default";

/// One instance, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instance(pub(crate) u64);

impl Instance {
    /// The service it belongs to.
    pub(crate) fn service(self) -> Service {
        Service(self.0 / INSTANCES_PER_SERVICE)
    }

    /// Its id: scattered, as real ones are, and never nil.
    fn id(self) -> String {
        // The golden ratio's odd neighbour: distinct numbers stay distinct.
        let high = (self.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let low = high.rotate_left(29) ^ self.0;
        let (a, b, c, d) = (high >> 32, high >> 16 & 0xffff, high & 0xfff, low >> 48 & 0x3fff);
        format!("{a:08x}-{b:04x}-4{c:03x}-{:04x}-{:012x}", d | 0x8000, low & 0xffff_ffff_ffff)
    }

    /// The key of its record in etcd.
    pub(crate) fn key(self) -> String {
        format!("{}{}", self.service().prefix(), self.id())
    }

    /// What it registers. `change` tells one registration of an instance from the next; it stands in a field of the record,
    /// where whoever watches finds it again.
    pub(crate) fn registration(self, change: u32) -> pb::RegisterRequest {
        let endpoint = |name: &str, protocol: pb::Protocol, port: u32| pb::Endpoint {
            name: name.to_owned(),
            protocol: protocol.into(),
            ip: "127.0.0.1".to_owned(),
            port,
        };
        let method = |(name, level): (&str, pb::IdempotencyLevel)| pb::GrpcMethod {
            name: name.to_owned(),
            idempotency_level: level.into(),
        };
        use pb::IdempotencyLevel::{Idempotent, NoSideEffects, Unspecified};
        let methods = [
            ("GetUser", NoSideEffects),
            ("ListUsers", NoSideEffects),
            ("CreateUser", Idempotent),
            ("UpdateUser", Idempotent),
            ("DeleteUser", Idempotent),
            ("Login", Unspecified),
        ];
        let labels = [("team", "accounts"), ("commit", "191ba6f0c2d4")];
        pb::RegisterRequest {
            service: self.service().name(),
            instance_id: self.id(),
            start_nonce: Bytes::copy_from_slice(&[self.0.to_be_bytes(), (!self.0).to_be_bytes()].concat()),
            endpoints: vec![endpoint("grpc", pb::Protocol::Grpc, 7410), endpoint("admin", pb::Protocol::Http, 7411)],
            zone: format!("eu-1{}", ["a", "b", "c"][(self.0 % 3) as usize]),
            weight: 100 + change,
            version: "1.4.2+191ba6f".to_owned(),
            metadata: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            descriptor_digest: Bytes::from_static(&[0xa5; 32]),
            grpc_services: vec![pb::GrpcService {
                name: "shop.user.v1.UserService".to_owned(),
                methods: methods.map(method).into(),
                serving_status: pb::ServingStatus::Serving.into(),
            }],
            serving_status: pb::ServingStatus::Serving.into(),
            ttl: Some(prost_types::Duration { seconds: TTL_SECONDS, nanos: 0 }),
            ..Default::default()
        }
    }

    /// The record as etcd holds it: what ours is sent.
    pub(crate) fn record(self, change: u32) -> Vec<u8> {
        self.registration(change).encode_to_vec()
    }
}

/// Which change a record is of, by the field that [`Instance::registration`] puts it in.
pub(crate) fn change_of(weight: u32) -> u32 {
    weight.saturating_sub(100)
}

/// One service, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service(pub(crate) u64);

impl Service {
    /// Its name.
    pub(crate) fn name(self) -> String {
        format!("svc-{:05}", self.0)
    }

    /// What the keys of its instances begin with.
    pub(crate) fn prefix(self) -> String {
        format!("{PREFIX}/{}/", self.name())
    }

    /// The first key after them.
    pub(crate) fn prefix_end(self) -> String {
        format!("{PREFIX}/{}0", self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_record_is_of_the_size_that_is_said() {
        let bytes = Instance(12_345).record(7).len();
        assert!((280..=400).contains(&bytes), "{bytes}");
    }

    #[test]
    fn ids_differ_and_keys_lie_in_the_range_of_their_service() {
        let ids: HashSet<String> = (0..10_000).map(|number| Instance(number).id()).collect();
        assert_eq!(ids.len(), 10_000);
        let (key, service) = (Instance(4_242).key(), Service(42));
        assert!(key > service.prefix() && key < service.prefix_end(), "{key}");
    }
}
