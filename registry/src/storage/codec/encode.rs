//! Records to messages.

use std::time::Duration;

use bytes::Bytes;
use mesh_api::registry::v1 as wire;
use mesh_api::store::v1 as pb;

use crate::catalog::{
    AdminRule, AdminState, Emptiness, Endpoint, GrpcService, IdempotencyLevel, Identity, LeaseId, PastStart, Protocol,
    Record, Registration, RemovalReason, ServiceRecord, ServingStatus, StartNonce, Timestamp, Tombstone,
};

pub(super) fn record(record: &Record) -> pb::stored::Record {
    match record {
        Record::Service(record) => pb::stored::Record::Service(service(record)),
        Record::Identity(record) => pb::stored::Record::Identity(Box::new(identity(record))),
        Record::Rule(record) => pb::stored::Record::Rule(rule(record)),
        Record::History(record) => pb::stored::Record::History(pb::History { floor: record.floor.get() }),
    }
}

fn service(record: &ServiceRecord) -> pb::ServiceRecord {
    let emptiness = match record.emptiness {
        Emptiness::Lapsed => pb::Emptiness::Lapsed,
        Emptiness::Emptied => pb::Emptiness::Emptied,
    };
    pb::ServiceRecord { emptiness: emptiness.into() }
}

fn rule(rule: &AdminRule) -> pb::AdminRule {
    let state = match rule.state {
        AdminState::Enabled => wire::AdminState::Enabled,
        AdminState::Draining => wire::AdminState::Draining,
        AdminState::Disabled => wire::AdminState::Disabled,
    };
    pb::AdminRule { state: state.into(), until: rule.until.map(timestamp) }
}

fn identity(identity: &Identity) -> pb::Identity {
    pb::Identity {
        live: identity.live.as_deref().map(registration),
        tombstones: identity.tombstones.iter().map(tombstone).collect(),
        past: identity.past.iter().map(past_start).collect(),
    }
}

fn registration(registration: &Registration) -> pb::Registration {
    let spec = &registration.spec;
    pb::Registration {
        namespace: registration.service.namespace.as_str().to_owned(),
        service: registration.service.name.as_str().to_owned(),
        incarnation: registration.incarnation.get(),
        start_nonce: nonce(&registration.nonce),
        lease_id: lease(&registration.lease),
        ttl: Some(duration(registration.ttl.get())),
        serving_status: serving_status(registration.serving).into(),
        endpoints: spec.endpoints().iter().map(endpoint).collect(),
        zone: spec.zone.as_str().to_owned(),
        weight: spec.weight.get().into(),
        version: spec.version.as_str().to_owned(),
        metadata: spec.metadata.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        descriptor_digest: spec
            .descriptor_digest
            .map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(digest.as_bytes())),
        grpc_services: spec.grpc_services().iter().map(grpc_service).collect(),
        owner: registration.owner.map_or_else(Bytes::new, |owner| Bytes::copy_from_slice(owner.as_bytes())),
    }
}

fn endpoint(endpoint: &Endpoint) -> wire::Endpoint {
    let protocol = match endpoint.protocol() {
        Protocol::Grpc => wire::Protocol::Grpc,
        Protocol::Http => wire::Protocol::Http,
    };
    wire::Endpoint {
        name: endpoint.name().to_owned(),
        protocol: protocol.into(),
        ip: endpoint.address().ip().to_string(),
        port: endpoint.address().port().into(),
    }
}

fn grpc_service(service: &GrpcService) -> wire::GrpcService {
    let methods = service.methods().iter().map(|method| {
        let level = match method.idempotency() {
            IdempotencyLevel::Unknown => wire::IdempotencyLevel::Unspecified,
            IdempotencyLevel::NoSideEffects => wire::IdempotencyLevel::NoSideEffects,
            IdempotencyLevel::Idempotent => wire::IdempotencyLevel::Idempotent,
        };
        wire::GrpcMethod { name: method.name().to_owned(), idempotency_level: level.into() }
    });
    wire::GrpcService {
        name: service.name().to_owned(),
        methods: methods.collect(),
        serving_status: serving_status(service.status()).into(),
    }
}

fn tombstone(tombstone: &Tombstone) -> pb::Tombstone {
    let reason = match tombstone.reason {
        RemovalReason::Deregistered => wire::RemovalReason::Deregistered,
        RemovalReason::Expired => wire::RemovalReason::Expired,
        RemovalReason::Superseded => wire::RemovalReason::Superseded,
        RemovalReason::Operator => wire::RemovalReason::Operator,
    };
    pb::Tombstone {
        namespace: tombstone.service.namespace.as_str().to_owned(),
        service: tombstone.service.name.as_str().to_owned(),
        incarnation: tombstone.incarnation.get(),
        start_nonce: nonce(&tombstone.nonce),
        lease_id: lease(&tombstone.lease),
        reason: reason.into(),
        until: Some(timestamp(tombstone.until)),
    }
}

fn past_start(past: &PastStart) -> pb::PastStart {
    pb::PastStart {
        start_nonce: nonce(&past.nonce),
        lease_id: lease(&past.lease),
        incarnation: past.incarnation.get(),
        until: Some(timestamp(past.until)),
    }
}

fn serving_status(status: ServingStatus) -> wire::ServingStatus {
    match status {
        ServingStatus::Serving => wire::ServingStatus::Serving,
        ServingStatus::NotServing => wire::ServingStatus::NotServing,
        ServingStatus::Draining => wire::ServingStatus::Draining,
    }
}

fn nonce(nonce: &StartNonce) -> Bytes {
    Bytes::copy_from_slice(nonce.as_bytes())
}

fn lease(lease: &LeaseId) -> Bytes {
    Bytes::copy_from_slice(lease.as_bytes())
}

/// Exact: a moment of the catalog is 64 bits of nanoseconds, whose seconds fit.
fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let prost_types::Duration { seconds, nanos } = duration(at.as_duration());
    prost_types::Timestamp { seconds, nanos }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}
