//! What is written decodes to what it was; what is damaged is an error or something valid, and never a panic.

use core::net::IpAddr;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::catalog::{
    AdminRule, AdminState, DescriptorDigest, Emptiness, Endpoint, GrpcService, History, IdempotencyLevel, Identity,
    IdentityKey, Incarnation, InstanceId, InstanceSpec, LeaseId, Metadata, Method, Namespace, NodeId, PastStart,
    Protocol, Registration, RemovalReason, Selector, ServiceKey, ServiceName, ServiceRecord, ServingStatus, StartNonce,
    Timestamp, Tombstone, Ttl, Version, Weight, Zone,
};

fn config() -> ProptestConfig {
    // Failing cases become named tests, not seeds in a file that nobody reads.
    ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() }
}

fn services() -> impl Strategy<Value = ServiceKey> {
    let name = "[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z0-9]{1,5})?";
    ("[a-z0-9-]{1,10}", name).prop_map(|(namespace, name)| ServiceKey {
        namespace: Namespace::parse(&namespace).unwrap(),
        name: ServiceName::parse(&name).unwrap(),
    })
}

fn instance_ids() -> impl Strategy<Value = InstanceId> {
    (1..=u128::MAX).prop_map(|id| InstanceId::new(Uuid::from_u128(id)).unwrap())
}

fn zones() -> impl Strategy<Value = Zone> {
    "[a-z0-9/ é]{0,12}".prop_map(|zone| Zone::parse(&zone).unwrap())
}

fn versions() -> impl Strategy<Value = Version> {
    "[a-z0-9/.+]{0,12}".prop_map(|version| Version::parse(&version).unwrap())
}

fn incarnations() -> impl Strategy<Value = Incarnation> {
    (1..=u64::MAX).prop_map(|number| Incarnation::new(number).unwrap())
}

fn moments() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(|nanos| Timestamp::since_epoch(Duration::from_nanos(nanos)))
}

fn nonces() -> impl Strategy<Value = StartNonce> {
    any::<[u8; 16]>().prop_map(StartNonce::new)
}

fn leases() -> impl Strategy<Value = LeaseId> {
    any::<[u8; 16]>().prop_map(LeaseId::new)
}

fn serving() -> impl Strategy<Value = ServingStatus> {
    prop_oneof![Just(ServingStatus::Serving), Just(ServingStatus::NotServing), Just(ServingStatus::Draining)]
}

fn callable(ip: &IpAddr) -> bool {
    Endpoint::new("grpc", Protocol::Grpc, *ip, 1).is_ok()
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let address = (any::<IpAddr>().prop_filter("can be called", callable), 1_u32..=65_535);
    let more = btree_map("[a-f0-9-]{1,5}", (any::<bool>(), address.clone()), 0..4);
    (address, more).prop_map(|((ip, port), more)| {
        let first = Endpoint::new("grpc", Protocol::Grpc, ip, port).unwrap();
        let more = more.into_iter().map(|(name, (grpc, (ip, port)))| {
            let protocol = if grpc { Protocol::Grpc } else { Protocol::Http };
            Endpoint::new(&name, protocol, ip, port).unwrap()
        });
        std::iter::once(first).chain(more).collect()
    })
}

fn grpc_services() -> impl Strategy<Value = Vec<GrpcService>> {
    let level = prop_oneof![
        Just(IdempotencyLevel::Unknown),
        Just(IdempotencyLevel::NoSideEffects),
        Just(IdempotencyLevel::Idempotent)
    ];
    let methods = vec(("[A-Za-z0-9_]{1,12}", level), 0..4);
    btree_map("[a-z.]{1,12}", (methods, serving()), 0..3).prop_map(|services| {
        let service = |(name, (methods, status)): (String, (Vec<(String, IdempotencyLevel)>, ServingStatus))| {
            let methods = methods.into_iter().map(|(name, level)| Method::new(&name, level).unwrap()).collect();
            GrpcService::new(&name, methods, status).unwrap()
        };
        services.into_iter().map(service).collect()
    })
}

fn specs() -> impl Strategy<Value = InstanceSpec> {
    let labels = btree_map("[a-z]{1,6}", "[a-zA-Z0-9 ]{0,10}", 0..4);
    let about = (zones(), 1_u32..=65_535, versions(), labels, option::of(any::<[u8; 32]>()));
    (endpoints(), grpc_services(), about).prop_map(|(endpoints, services, (zone, weight, version, labels, digest))| {
        let mut spec = InstanceSpec::new(endpoints).unwrap().with_grpc_services(services).unwrap();
        spec.zone = zone;
        spec.weight = Weight::from_wire(weight).unwrap();
        spec.version = version;
        spec.metadata = Metadata::new(labels).unwrap();
        spec.descriptor_digest = DescriptorDigest::from_wire(digest.as_ref().map_or(&[], |bytes| bytes)).unwrap();
        spec
    })
}

fn ttls() -> impl Strategy<Value = Ttl> {
    (2_000_000_000..=300_000_000_000_u64).prop_map(|nanos| Ttl::new(Duration::from_nanos(nanos)).unwrap())
}

fn registrations() -> impl Strategy<Value = Registration> {
    let owner = option::of(any::<u128>().prop_map(|id| NodeId::new(Uuid::from_u128(id))));
    (services(), incarnations(), nonces(), leases(), owner, ttls(), serving(), specs()).prop_map(
        |(service, incarnation, nonce, lease, owner, ttl, serving, spec)| Registration {
            service,
            incarnation,
            nonce,
            lease,
            owner,
            ttl,
            serving,
            spec,
        },
    )
}

fn tombstones() -> impl Strategy<Value = Tombstone> {
    let reason = prop_oneof![
        Just(RemovalReason::Deregistered),
        Just(RemovalReason::Expired),
        Just(RemovalReason::Superseded),
        Just(RemovalReason::Operator)
    ];
    (services(), incarnations(), nonces(), leases(), reason, moments()).prop_map(
        |(service, incarnation, nonce, lease, reason, until)| Tombstone {
            service,
            incarnation,
            nonce,
            lease,
            reason,
            until,
        },
    )
}

fn identities() -> impl Strategy<Value = Identity> {
    let past = (nonces(), leases(), incarnations(), moments());
    let past = past.prop_map(|(nonce, lease, incarnation, until)| PastStart { nonce, lease, incarnation, until });
    let live = option::of(registrations().prop_map(std::sync::Arc::new));
    (live, vec(tombstones(), 0..=Identity::TOMBSTONES_MAX), vec(past, 0..=Identity::PAST_MAX))
        .prop_map(|(live, tombstones, past)| Identity { live, tombstones: tombstones.into(), past: past.into() })
}

fn selectors() -> impl Strategy<Value = Selector> {
    prop_oneof![
        instance_ids().prop_map(Selector::Instance),
        zones().prop_map(Selector::Zone),
        versions().prop_map(Selector::Version)
    ]
}

fn rules() -> impl Strategy<Value = AdminRule> {
    let state = prop_oneof![Just(AdminState::Draining), Just(AdminState::Disabled)];
    (state, option::of(moments())).prop_map(|(state, until)| AdminRule { state, until })
}

/// An entry of any kind.
fn entries() -> impl Strategy<Value = Entry> {
    let emptiness = prop_oneof![Just(Emptiness::Lapsed), Just(Emptiness::Emptied)];
    let of = prop_oneof![
        (services(), emptiness)
            .prop_map(|(key, emptiness)| (Key::Service(key), Record::Service(ServiceRecord { emptiness }))),
        (services(), instance_ids(), identities()).prop_map(|(service, id, identity)| {
            (Key::Identity(IdentityKey { namespace: service.namespace, id }), Record::Identity(identity))
        }),
        (services(), selectors(), rules())
            .prop_map(|(key, selector, rule)| (Key::Rule(key, selector), Record::Rule(rule))),
        any::<u64>().prop_map(|floor| (Key::History, Record::History(History { floor: Revision::new(floor) }))),
    ];
    (of, any::<u64>(), any::<[u8; 16]>()).prop_map(|((key, record), revision, op)| Entry {
        key,
        record,
        revision: Revision::new(revision),
        op: OpId(op),
    })
}

fn encoded(entry: &Entry) -> (String, Vec<u8>) {
    (encode_key(&entry.key), encode_value(&entry.record, entry.revision, entry.op))
}

/// Whatever decodes is valid, so it encodes to something that decodes to the same.
fn is_error_or_sound(key: &[u8], value: &[u8]) {
    if let Ok(entry) = decode_entry(key, value) {
        let (key, value) = encoded(&entry);
        assert_eq!(decode_entry(key.as_bytes(), &value).as_ref(), Ok(&entry));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_written_decodes_to_what_it_was(entry in entries()) {
        let (key, value) = encoded(&entry);
        prop_assert_eq!(decode_stamp(&value), Ok((entry.revision, entry.op)));
        prop_assert_eq!(decode_entry(key.as_bytes(), &value), Ok(entry));
    }

    #[test]
    fn what_is_written_is_the_message_that_its_proto_describes(entry in entries()) {
        let (_, value) = encoded(&entry);
        prop_assert_eq!(pb::Stored::decode(&*value).unwrap().encode_to_vec(), value);
    }

    #[test]
    fn two_keys_are_never_one_text(one in entries(), other in entries()) {
        prop_assert_eq!(one.key == other.key, encode_key(&one.key) == encode_key(&other.key));
    }

    #[test]
    fn a_value_cut_short_or_with_a_flipped_bit_is_no_panic(entry in entries(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (key, value) = encoded(&entry);
        let at = at.index(value.len());
        is_error_or_sound(key.as_bytes(), &value[..at]);
        let mut flipped = value.clone();
        flipped[at] ^= 1_u8 << bit;
        is_error_or_sound(key.as_bytes(), &flipped);
        let mut flipped = key.clone().into_bytes();
        let at = at % flipped.len();
        flipped[at] ^= 1_u8 << bit;
        is_error_or_sound(&flipped, &value);
    }

    #[test]
    fn no_bytes_at_all_are_a_panic(key in vec(any::<u8>(), 0..80), value in vec(any::<u8>(), 0..400)) {
        is_error_or_sound(&key, &value);
        let _ = decode_value(&value);
    }

    #[test]
    fn a_field_of_a_later_version_is_skipped(entry in entries(), text in "[a-z]{0,20}") {
        let (key, mut value) = encoded(&entry);
        prost::encoding::string::encode(1_000, &text, &mut value);
        prop_assert_eq!(decode_entry(key.as_bytes(), &value), Ok(entry));
    }
}

#[test]
fn keys_are_readable() {
    let service = ServiceKey::parse("", "user-svc").unwrap();
    let id = InstanceId::parse("00000000-0000-7000-8000-000000000001").unwrap();
    let namespace = service.namespace.clone();
    for (key, text) in [
        (Key::Service(service.clone()), "service/default/user-svc"),
        (Key::Identity(IdentityKey { namespace, id }), "identity/default/00000000-0000-7000-8000-000000000001"),
        (
            Key::Rule(service.clone(), Selector::Instance(id)),
            "rule/default/user-svc/instance/00000000-0000-7000-8000-000000000001",
        ),
        (Key::Rule(service.clone(), Selector::Zone(Zone::parse("a/b").unwrap())), "rule/default/user-svc/zone/a/b"),
        (Key::Rule(service, Selector::Version(Version::parse("").unwrap())), "rule/default/user-svc/version/"),
        (Key::History, "history"),
    ] {
        assert_eq!(encode_key(&key), text);
        assert_eq!(decode_key(text.as_bytes()), Ok(key));
    }
}

#[test]
fn a_record_under_a_key_of_another_kind_is_refused() {
    let value = encode_value(&Record::Identity(Identity::default()), Revision::new(1), OpId([1; 16]));
    assert_eq!(decode_entry(b"service/default/user-svc", &value), Err(CodecError::WrongKind));
    let unknown = pb::Stored { revision: 1, op: vec![1; 16].into(), record: None }.encode_to_vec();
    assert_eq!(decode_value(&unknown), Err(CodecError::Missing { field: "record" }));
}
