//! Domain types to messages.

use std::time::Duration;

use bytes::Bytes;
use mesh_api::registry::v1 as pb;

use super::decode::Named;
use crate::catalog::{
    AdminState, BeatOutcome, Beaten, Emptiness, Endpoint, Granted, GrpcService, IdempotencyLevel, Instance,
    InstanceHealth, InstanceId, Liveness, LoadReport, Position, Presence, Protocol, Removal, RemovalHold,
    RemovalHoldReason, RemovalReason, ServiceView, ServingStatus, SoftState, Timestamp,
};

pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    // Durations of the catalog end within a day or an hour; saturating is for the type's sake.
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

pub(crate) fn position(position: &Position) -> pb::Position {
    pb::Position {
        store_id: position.store.as_str().to_owned(),
        generation: position.generation.0,
        revision: position.revision.get(),
    }
}

pub(crate) fn granted(granted: &Granted) -> pb::RegisterResponse {
    pb::RegisterResponse {
        lease_id: Bytes::copy_from_slice(granted.lease.as_bytes()),
        incarnation: granted.incarnation.get(),
        ttl: Some(duration(granted.ttl.get())),
        heartbeat_interval: Some(duration(granted.ttl.heartbeat_interval())),
        position: Some(position(&granted.position)),
    }
}

/// One result per beat sent, in order; lease ids come back as they were sent. `beaten` answers those that named a lease.
pub(crate) fn beat_results(sent: Vec<(Bytes, Named)>, beaten: &[Beaten]) -> Vec<pb::BeatResult> {
    let mut beaten = beaten.iter();
    let mut result = |(lease_id, named)| {
        let answer = match named {
            Named::Lease => beaten.next(),
            Named::Nothing => None,
        };
        let outcome = match answer.map(|beaten| beaten.outcome) {
            Some(BeatOutcome::Renewed) => pb::BeatOutcome::Renewed,
            Some(BeatOutcome::Fenced) => pb::BeatOutcome::Fenced,
            Some(BeatOutcome::UnknownLease) | None => pb::BeatOutcome::UnknownLease,
        };
        let admin = answer.map_or(AdminState::Enabled, |beaten| beaten.admin);
        pb::BeatResult { lease_id, outcome: outcome.into(), admin_state: admin_state(admin).into() }
    };
    sent.into_iter().map(&mut result).collect()
}

/// An instance as it stands in snapshots and deltas: without what its heartbeats say.
pub(crate) fn instance(instance: &Instance) -> pb::Instance {
    let spec = instance.spec();
    pb::Instance {
        namespace: instance.service().namespace.as_str().to_owned(),
        service: instance.service().name.as_str().to_owned(),
        instance_id: instance.id().to_string(),
        incarnation: instance.incarnation().get(),
        endpoints: spec.endpoints().iter().map(endpoint).collect(),
        zone: spec.zone.as_str().to_owned(),
        weight: spec.weight.get().into(),
        version: spec.version.as_str().to_owned(),
        metadata: spec.metadata.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        descriptor_digest: spec
            .descriptor_digest
            .as_ref()
            .map(|digest| Bytes::copy_from_slice(digest.as_bytes()))
            .unwrap_or_default(),
        grpc_services: spec.grpc_services().iter().map(grpc_service).collect(),
        serving_status: serving_status(instance.serving()).into(),
        admin_state: admin_state(instance.admin()).into(),
        revision: instance.revision().get(),
        ttl: Some(duration(instance.ttl().get())),
        liveness: pb::Liveness::Unspecified.into(),
        pickable: false,
    }
}

/// An instance as `Resolve` shows it: with what its heartbeats say, and what follows from everything together.
pub(crate) fn resolved_instance(service: &ServiceView, of: &Instance) -> pb::Instance {
    pb::Instance { liveness: liveness(service.liveness(of)).into(), pickable: service.pickable(of), ..instance(of) }
}

fn endpoint(endpoint: &Endpoint) -> pb::Endpoint {
    let protocol = match endpoint.protocol() {
        Protocol::Grpc => pb::Protocol::Grpc,
        Protocol::Http => pb::Protocol::Http,
    };
    pb::Endpoint {
        name: endpoint.name().to_owned(),
        protocol: protocol.into(),
        ip: endpoint.address().ip().to_string(),
        port: endpoint.address().port().into(),
    }
}

fn grpc_service(service: &GrpcService) -> pb::GrpcService {
    let methods = service.methods().iter().map(|method| pb::GrpcMethod {
        name: method.name().to_owned(),
        idempotency_level: idempotency_level(method.idempotency()).into(),
    });
    pb::GrpcService {
        name: service.name().to_owned(),
        methods: methods.collect(),
        serving_status: serving_status(service.status()).into(),
    }
}

fn idempotency_level(level: IdempotencyLevel) -> pb::IdempotencyLevel {
    match level {
        IdempotencyLevel::Unknown => pb::IdempotencyLevel::Unspecified,
        IdempotencyLevel::NoSideEffects => pb::IdempotencyLevel::NoSideEffects,
        IdempotencyLevel::Idempotent => pb::IdempotencyLevel::Idempotent,
    }
}

fn serving_status(status: ServingStatus) -> pb::ServingStatus {
    match status {
        ServingStatus::Serving => pb::ServingStatus::Serving,
        ServingStatus::NotServing => pb::ServingStatus::NotServing,
        ServingStatus::Draining => pb::ServingStatus::Draining,
    }
}

fn admin_state(state: AdminState) -> pb::AdminState {
    match state {
        AdminState::Enabled => pb::AdminState::Enabled,
        AdminState::Draining => pb::AdminState::Draining,
        AdminState::Disabled => pb::AdminState::Disabled,
    }
}

fn liveness(liveness: Liveness) -> pb::Liveness {
    match liveness {
        Liveness::Alive => pb::Liveness::Alive,
        Liveness::Suspect => pb::Liveness::Suspect,
        Liveness::Stale => pb::Liveness::Stale,
    }
}

pub(crate) fn presence(presence: Presence) -> pb::ServicePresence {
    match presence {
        Presence::Unknown => pb::ServicePresence::Unknown,
        Presence::Populated => pb::ServicePresence::Populated,
        Presence::Empty(Emptiness::Emptied) => pb::ServicePresence::Emptied,
        Presence::Empty(Emptiness::Lapsed) => pb::ServicePresence::Lapsed,
    }
}

pub(crate) fn removal(removal: &Removal) -> pb::Removal {
    let reason = match removal.reason {
        RemovalReason::Deregistered => pb::RemovalReason::Deregistered,
        RemovalReason::Expired => pb::RemovalReason::Expired,
        RemovalReason::Superseded => pb::RemovalReason::Superseded,
        RemovalReason::Operator => pb::RemovalReason::Operator,
    };
    pb::Removal {
        instance_id: removal.id.to_string(),
        incarnation: removal.incarnation.get(),
        reason: reason.into(),
        revision: removal.revision.get(),
    }
}

/// A hold as seen at `now`: the wire tells what is left, since clocks of two machines do not compare.
pub(crate) fn removal_hold(hold: &RemovalHold, now: Timestamp) -> pb::RemovalHold {
    let reason = match hold.reason {
        RemovalHoldReason::Rate => pb::RemovalHoldReason::Rate,
        RemovalHoldReason::LastInstance => pb::RemovalHoldReason::LastInstance,
        RemovalHoldReason::MajoritySilent => pb::RemovalHoldReason::MajoritySilent,
    };
    pb::RemovalHold {
        reason: reason.into(),
        remaining: Some(duration(hold.until.since(now))),
        instances_held: count(hold.held),
    }
}

/// Whether load reports stand in a soft state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loads {
    Included,
    /// The list is too long for them; callers balance without.
    LeftOut,
}

pub(crate) fn soft_state(soft: &SoftState, loads: Loads, now: Timestamp) -> pb::SoftState {
    let listed = soft.instances.iter().filter(|(_, health)| match loads {
        Loads::Included => true,
        Loads::LeftOut => health.liveness != Liveness::Alive,
    });
    pb::SoftState {
        instances: listed.map(|(id, health)| instance_liveness(*id, health, loads)).collect(),
        removal_hold: soft.hold.as_ref().map(|hold| removal_hold(hold, now)),
    }
}

pub(super) fn instance_liveness(id: InstanceId, health: &InstanceHealth, loads: Loads) -> pb::InstanceLiveness {
    pb::InstanceLiveness {
        instance_id: id.to_string(),
        incarnation: health.incarnation.get(),
        liveness: liveness(health.liveness).into(),
        load: health.load.as_ref().filter(|_| loads == Loads::Included).map(load_report),
    }
}

pub(super) fn load_report(load: &LoadReport) -> pb::LoadReport {
    pb::LoadReport {
        cpu_utilization: load.cpu_utilization,
        requests_per_second: load.requests_per_second,
        errors_per_second: load.errors_per_second,
        requests_in_flight: load.requests_in_flight,
    }
}

/// One line about a service.
pub(crate) fn summary(service: &ServiceView, now: Timestamp) -> pb::ServiceSummary {
    let instances = service.instances().values();
    let with = |wanted: Liveness| instances.clone().filter(|instance| service.liveness(instance) == wanted).count();
    pb::ServiceSummary {
        namespace: service.key().namespace.as_str().to_owned(),
        service: service.key().name.as_str().to_owned(),
        presence: presence(service.presence()).into(),
        instances: count(service.instances().len()),
        instances_pickable: count(instances.clone().filter(|instance| service.pickable(instance)).count()),
        instances_suspect: count(with(Liveness::Suspect)),
        instances_stale: count(with(Liveness::Stale)),
        revision: service.revision().get(),
        removal_hold: service.soft().hold.as_ref().map(|hold| removal_hold(hold, now)),
    }
}

/// A count on the wire; the quotas end far below `u32::MAX`.
pub(crate) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
