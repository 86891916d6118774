//! Messages to records. Everything goes through the constructors that a registration goes through, so that nothing
//! invalid comes in by the back door.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::registry::v1 as wire;
use mesh_api::store::v1 as pb;

use super::CodecError;
use crate::catalog::{
    AdminRule, AdminState, DescriptorDigest, Emptiness, Endpoint, GrpcService, History, IdempotencyLevel, Identity,
    Incarnation, InstanceSpec, Invalid, LeaseId, Metadata, Method, NodeId, PastStart, Protocol, Record, Registration,
    RemovalReason, Revision, ServiceKey, ServiceRecord, ServingStatus, StartNonce, Timestamp, Tombstone, Ttl, Version,
    Weight, Zone,
};

pub(super) fn record(record: pb::stored::Record) -> Result<Record, CodecError> {
    Ok(match record {
        pb::stored::Record::Service(record) => Record::Service(service(&record)?),
        pb::stored::Record::Identity(record) => Record::Identity(identity(*record)?),
        pb::stored::Record::Rule(record) => Record::Rule(rule(record)?),
        pb::stored::Record::History(record) => Record::History(History { floor: Revision::new(record.floor) }),
    })
}

fn service(record: &pb::ServiceRecord) -> Result<ServiceRecord, CodecError> {
    let emptiness = match pb::Emptiness::try_from(record.emptiness) {
        Ok(pb::Emptiness::Lapsed) => Emptiness::Lapsed,
        Ok(pb::Emptiness::Emptied) => Emptiness::Emptied,
        Ok(pb::Emptiness::Unspecified) | Err(_) => return Err(unknown("emptiness", record.emptiness)),
    };
    Ok(ServiceRecord { emptiness })
}

fn rule(rule: pb::AdminRule) -> Result<AdminRule, CodecError> {
    let state = match wire::AdminState::try_from(rule.state) {
        Ok(wire::AdminState::Draining) => AdminState::Draining,
        Ok(wire::AdminState::Disabled) => AdminState::Disabled,
        // No rule is stored that wants nothing.
        Ok(wire::AdminState::Enabled | wire::AdminState::Unspecified) | Err(_) => {
            return Err(unknown("state", rule.state));
        }
    };
    Ok(AdminRule { state, until: rule.until.map(timestamp).transpose()? })
}

fn identity(identity: pb::Identity) -> Result<Identity, CodecError> {
    Ok(Identity {
        live: identity.live.map(|live| registration(live).map(Arc::new)).transpose()?,
        tombstones: identity.tombstones.into_iter().map(tombstone).collect::<Result<_, _>>()?,
        past: identity.past.into_iter().map(past_start).collect::<Result<_, _>>()?,
    })
}

fn registration(stored: pb::Registration) -> Result<Registration, CodecError> {
    let endpoints = stored.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?;
    let services = stored.grpc_services.iter().map(grpc_service).collect::<Result<_, _>>()?;
    let mut spec = InstanceSpec::new(endpoints)?.with_grpc_services(services)?;
    spec.zone = Zone::parse(&stored.zone)?;
    spec.weight = Weight::from_wire(stored.weight)?;
    spec.version = Version::parse(&stored.version)?;
    spec.metadata = Metadata::new(stored.metadata)?;
    spec.descriptor_digest = DescriptorDigest::from_wire(&stored.descriptor_digest)?;
    let ttl = stored.ttl.ok_or(CodecError::Missing { field: "ttl" })?;
    Ok(Registration {
        service: ServiceKey::parse(&stored.namespace, &stored.service)?,
        incarnation: incarnation(stored.incarnation)?,
        nonce: StartNonce::from_wire(&stored.start_nonce)?,
        lease: lease(&stored.lease_id)?,
        owner: owner(&stored.owner)?,
        ttl: Ttl::new(span("ttl", ttl.seconds, ttl.nanos)?)?,
        serving: serving_status(stored.serving_status)?,
        spec,
    })
}

fn endpoint(endpoint: &wire::Endpoint) -> Result<Endpoint, CodecError> {
    let protocol = match wire::Protocol::try_from(endpoint.protocol) {
        Ok(wire::Protocol::Grpc) => Protocol::Grpc,
        Ok(wire::Protocol::Http) => Protocol::Http,
        Ok(wire::Protocol::Unspecified) | Err(_) => return Err(unknown("endpoints.protocol", endpoint.protocol)),
    };
    let ip = endpoint.ip.parse().map_err(|_| Invalid::name("endpoints.ip", &endpoint.ip, "an IPv4 or IPv6 address"))?;
    Ok(Endpoint::new(&endpoint.name, protocol, ip, endpoint.port)?)
}

fn grpc_service(service: &wire::GrpcService) -> Result<GrpcService, CodecError> {
    let methods = service.methods.iter().map(|method| {
        let level = match wire::IdempotencyLevel::try_from(method.idempotency_level) {
            Ok(wire::IdempotencyLevel::NoSideEffects) => IdempotencyLevel::NoSideEffects,
            Ok(wire::IdempotencyLevel::Idempotent) => IdempotencyLevel::Idempotent,
            // A level of a later version promises nothing that is understood here.
            Ok(wire::IdempotencyLevel::Unspecified) | Err(_) => IdempotencyLevel::Unknown,
        };
        Method::new(&method.name, level)
    });
    let status = serving_status(service.serving_status)?;
    Ok(GrpcService::new(&service.name, methods.collect::<Result<_, _>>()?, status)?)
}

fn tombstone(stored: pb::Tombstone) -> Result<Tombstone, CodecError> {
    let reason = match wire::RemovalReason::try_from(stored.reason) {
        Ok(wire::RemovalReason::Deregistered) => RemovalReason::Deregistered,
        Ok(wire::RemovalReason::Expired) => RemovalReason::Expired,
        Ok(wire::RemovalReason::Superseded) => RemovalReason::Superseded,
        Ok(wire::RemovalReason::Operator) => RemovalReason::Operator,
        Ok(wire::RemovalReason::Unspecified) | Err(_) => return Err(unknown("reason", stored.reason)),
    };
    Ok(Tombstone {
        service: ServiceKey::parse(&stored.namespace, &stored.service)?,
        incarnation: incarnation(stored.incarnation)?,
        nonce: StartNonce::from_wire(&stored.start_nonce)?,
        lease: lease(&stored.lease_id)?,
        reason,
        until: until(stored.until)?,
    })
}

fn past_start(stored: pb::PastStart) -> Result<PastStart, CodecError> {
    Ok(PastStart {
        nonce: StartNonce::from_wire(&stored.start_nonce)?,
        lease: lease(&stored.lease_id)?,
        incarnation: incarnation(stored.incarnation)?,
        until: until(stored.until)?,
    })
}

fn serving_status(status: i32) -> Result<ServingStatus, CodecError> {
    match wire::ServingStatus::try_from(status) {
        Ok(wire::ServingStatus::Serving) => Ok(ServingStatus::Serving),
        Ok(wire::ServingStatus::NotServing) => Ok(ServingStatus::NotServing),
        Ok(wire::ServingStatus::Draining) => Ok(ServingStatus::Draining),
        Ok(wire::ServingStatus::Unspecified) | Err(_) => Err(unknown("serving_status", status)),
    }
}

fn incarnation(number: u64) -> Result<Incarnation, CodecError> {
    Incarnation::new(number).ok_or(CodecError::Missing { field: "incarnation" })
}

fn lease(bytes: &[u8]) -> Result<LeaseId, CodecError> {
    LeaseId::from_wire(bytes).ok_or(CodecError::Length { field: "lease_id", bytes: bytes.len() })
}

fn owner(bytes: &[u8]) -> Result<Option<NodeId>, CodecError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    NodeId::from_wire(bytes).map(Some).ok_or(CodecError::Length { field: "owner", bytes: bytes.len() })
}

fn until(at: Option<prost_types::Timestamp>) -> Result<Timestamp, CodecError> {
    timestamp(at.ok_or(CodecError::Missing { field: "until" })?)
}

fn timestamp(at: prost_types::Timestamp) -> Result<Timestamp, CodecError> {
    span("until", at.seconds, at.nanos).map(Timestamp::since_epoch)
}

/// A time of zero or more.
fn span(field: &'static str, seconds: i64, nanos: i32) -> Result<Duration, CodecError> {
    let bad = CodecError::Unknown { field, number: seconds };
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(bad),
    }
}

fn unknown(field: &'static str, number: i32) -> CodecError {
    CodecError::Unknown { field, number: number.into() }
}
