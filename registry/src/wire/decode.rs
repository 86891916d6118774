//! Messages to domain types. A message that cannot become one is a [`Fault`] that names the field.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use mesh_api::registry::v1 as pb;
use pb::deregister_request::Target;
use pb::selector::By;

use crate::catalog::{
    AdminState, Beat, DescriptorDigest, Endpoint, Generation, GrpcService, IdempotencyLevel, Incarnation, InstanceId,
    InstanceSpec, Invalid, LeaseId, LoadReport, Metadata, Method, Namespace, Position, Protocol, Register, Revision,
    RuleSet, Selector, ServiceKey, ServiceName, ServingStatus, StartNonce, StoreId, Ttl, Version, Weight, Zone,
};
use crate::engine::Departure;

/// What is wrong with a message before anybody was asked about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// A value that breaks its own rules.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A field without which the message means nothing.
    #[error("{field} is missing")]
    Missing {
        /// Path of the field in the request.
        field: &'static str,
    },
    /// An address that may be right where the caller stands, and is wrong for everybody else.
    #[error("endpoints.ip {ip} is loopback, and the caller {caller} is not on this machine")]
    LoopbackFromAfar {
        /// The address.
        ip: IpAddr,
        /// Who gave it.
        caller: IpAddr,
    },
    /// An address that means something else on every link.
    #[error("endpoints.ip {ip} is link-local: no other machine reaches it")]
    LinkLocal {
        /// The address.
        ip: IpAddr,
    },
}

impl Fault {
    /// Path of the field in the request, for `google.rpc.BadRequest`.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::Invalid(invalid) => invalid.field(),
            Self::Missing { field } => field,
            Self::LoopbackFromAfar { .. } | Self::LinkLocal { .. } => "endpoints.ip",
        }
    }
}

/// Which addresses a caller may register (S25): loopback only means the same to it and to us if it is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// On this machine, or in this process.
    Here,
    /// Somewhere else.
    Afar(IpAddr),
}

impl Reach {
    /// Where the peer of a connection stands; one without an address is a pipe within this process.
    pub(crate) fn of(peer: Option<SocketAddr>) -> Self {
        match peer.map(|peer| peer.ip().to_canonical()) {
            Some(ip) if !ip.is_loopback() => Self::Afar(ip),
            _ => Self::Here,
        }
    }

    fn admit(self, ip: IpAddr) -> Result<(), Fault> {
        let ip = ip.to_canonical();
        let link_local = match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        match self {
            _ if link_local => Err(Fault::LinkLocal { ip }),
            Self::Afar(caller) if ip.is_loopback() => Err(Fault::LoopbackFromAfar { ip, caller }),
            Self::Here | Self::Afar(_) => Ok(()),
        }
    }
}

/// Most beats in one message.
const BEATS_MAX: usize = 1000;

/// The service a message names.
pub(crate) fn service_key(namespace: &str, service: &str) -> Result<ServiceKey, Fault> {
    Ok(ServiceKey::parse(namespace, service)?)
}

/// A namespace, empty for the default one.
pub(crate) fn namespace(namespace: &str) -> Result<Namespace, Fault> {
    Ok(Namespace::parse(namespace)?)
}

/// A position that somebody was told before.
pub(crate) fn position(position: &pb::Position) -> Result<Position, Fault> {
    Ok(Position {
        store: StoreId::parse(&position.store_id)?,
        generation: Generation(position.generation),
        revision: Revision::new(position.revision),
    })
}

/// A page size: 1 to 1000, 0 and absent are 1000, more is cut to it.
pub(crate) fn page_size(asked: i32) -> Result<usize, Fault> {
    const MAX: usize = 1000;
    match usize::try_from(asked) {
        Ok(0) => Ok(MAX),
        Ok(asked) => Ok(asked.min(MAX)),
        Err(_) => Err(Invalid::name("page_size", &asked.to_string(), "1 to 1000, or 0 for 1000").into()),
    }
}

/// The service after which a page begins, from the token of the page before: its name.
pub(crate) fn page_token(namespace: &Namespace, token: &str) -> Result<ServiceKey, Fault> {
    let name = ServiceName::parse(token).map_err(|_| Invalid::name("page_token", token, "from a page before"))?;
    Ok(ServiceKey { namespace: namespace.clone(), name })
}

/// A registration from a caller with this reach.
pub(crate) fn register(request: pb::RegisterRequest, reach: Reach) -> Result<Register, Fault> {
    let service = service_key(&request.namespace, &request.service)?;
    let id = InstanceId::parse(&request.instance_id)?;
    let nonce = StartNonce::from_wire(&request.start_nonce)?;
    let held = match (Incarnation::new(request.held_incarnation), &*request.held_store_id) {
        // Without a store id nobody can tell what the number counts, so it counts as none.
        (None, _) | (_, "") => None,
        (Some(incarnation), store) => Some((incarnation, StoreId::parse(store)?)),
    };
    let serving = serving_status("serving_status", request.serving_status)?.unwrap_or_default();
    let ttl = match request.ttl {
        None => None,
        Some(asked) => Some(Ttl::new(duration("ttl", asked)?)?),
    };

    // Lists over their limit are refused by the constructors; until then the size of the message bounds what is copied.
    let endpoints = request.endpoints.iter().map(|asked| endpoint(asked, reach)).collect::<Result<_, _>>()?;
    let services = request.grpc_services.iter().map(grpc_service).collect::<Result<_, _>>()?;
    let mut spec = InstanceSpec::new(endpoints)?.with_grpc_services(services)?;
    spec.zone = Zone::parse(&request.zone)?;
    spec.weight = Weight::from_wire(request.weight)?;
    spec.version = Version::parse(&request.version)?;
    spec.metadata = Metadata::new(request.metadata)?;
    spec.descriptor_digest = DescriptorDigest::from_wire(&request.descriptor_digest)?;
    Ok(Register { service, id, nonce, held, serving, ttl, spec })
}

fn endpoint(endpoint: &pb::Endpoint, reach: Reach) -> Result<Endpoint, Fault> {
    let protocol = match pb::Protocol::try_from(endpoint.protocol) {
        Ok(pb::Protocol::Grpc) => Protocol::Grpc,
        Ok(pb::Protocol::Http) => Protocol::Http,
        Ok(pb::Protocol::Unspecified) | Err(_) => {
            return Err(unknown("endpoints.protocol", endpoint.protocol, "PROTOCOL_GRPC or PROTOCOL_HTTP"));
        }
    };
    let ip = endpoint.ip.parse().map_err(|_| Invalid::name("endpoints.ip", &endpoint.ip, "an IPv4 or IPv6 address"))?;
    let admitted = Endpoint::new(&endpoint.name, protocol, ip, endpoint.port)?;
    reach.admit(ip)?;
    Ok(admitted)
}

fn grpc_service(service: &pb::GrpcService) -> Result<GrpcService, Fault> {
    let methods = service.methods.iter().map(|method| {
        let level = match pb::IdempotencyLevel::try_from(method.idempotency_level) {
            Ok(pb::IdempotencyLevel::NoSideEffects) => IdempotencyLevel::NoSideEffects,
            Ok(pb::IdempotencyLevel::Idempotent) => IdempotencyLevel::Idempotent,
            // A level of a later protocol promises nothing that is understood here.
            Ok(pb::IdempotencyLevel::Unspecified) | Err(_) => IdempotencyLevel::Unknown,
        };
        Method::new(&method.name, level)
    });
    let status = serving_status("grpc_services.serving_status", service.serving_status)?.unwrap_or_default();
    Ok(GrpcService::new(&service.name, methods.collect::<Result<_, _>>()?, status)?)
}

/// A serving status; `None` where it is not given.
fn serving_status(field: &'static str, status: i32) -> Result<Option<ServingStatus>, Fault> {
    match pb::ServingStatus::try_from(status) {
        Ok(pb::ServingStatus::Unspecified) => Ok(None),
        Ok(pb::ServingStatus::Serving) => Ok(Some(ServingStatus::Serving)),
        Ok(pb::ServingStatus::NotServing) => Ok(Some(ServingStatus::NotServing)),
        Ok(pb::ServingStatus::Draining) => Ok(Some(ServingStatus::Draining)),
        Err(_) => Err(unknown(field, status, "a serving status")),
    }
}

/// A serving status in a beat; `None` is "as before". A status of a later protocol is too: the beat still says that its
/// instance lives, and shares its message with others.
fn status_of_beat(status: i32) -> Option<ServingStatus> {
    serving_status("beats", status).ok().flatten()
}

/// The beats of one message: those that name a lease, and where the answers to them belong.
#[derive(Debug)]
pub(crate) struct Beats {
    /// For the engine, in order.
    pub(crate) valid: Vec<Beat>,
    /// Per beat of the message, the lease id as it was sent and whether it is among the valid ones. The others name
    /// nothing that was ever granted, and are answered so.
    pub(crate) sent: Vec<(Bytes, Named)>,
}

/// Whether a beat names something that can have been granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Lease,
    Nothing,
}

/// The beats of one message, 1 to 1000.
pub(crate) fn beats(beats: Vec<pb::Beat>) -> Result<Beats, Fault> {
    if beats.is_empty() {
        return Err(Fault::Missing { field: "beats" });
    }
    if beats.len() > BEATS_MAX {
        return Err(Invalid::TooMany { field: "beats", count: beats.len(), max: BEATS_MAX }.into());
    }
    let mut decoded = Beats { valid: Vec::with_capacity(beats.len()), sent: Vec::with_capacity(beats.len()) };
    for beat in beats {
        let lease = LeaseId::from_wire(&beat.lease_id).zip(Incarnation::new(beat.incarnation));
        decoded.sent.push((beat.lease_id, if lease.is_some() { Named::Lease } else { Named::Nothing }));
        let Some((lease, incarnation)) = lease else { continue };
        let mut services = BTreeMap::new();
        for (name, status) in beat.grpc_service_statuses {
            if let Some(status) = status_of_beat(status) {
                services.insert(name, status);
            }
        }
        decoded.valid.push(Beat {
            lease,
            incarnation,
            serving: status_of_beat(beat.serving_status),
            services,
            load: beat.load.as_ref().map(load_report),
        });
    }
    Ok(decoded)
}

pub(super) fn load_report(load: &pb::LoadReport) -> LoadReport {
    LoadReport {
        cpu_utilization: load.cpu_utilization,
        requests_per_second: load.requests_per_second,
        errors_per_second: load.errors_per_second,
        requests_in_flight: load.requests_in_flight,
    }
    .sane()
}

/// Who leaves. A lease that cannot have been granted is refused: who sends it has lost its own, and would believe that it
/// is gone.
pub(crate) fn departure(request: pb::DeregisterRequest) -> Result<Departure, Fault> {
    match request.target {
        None => Err(Fault::Missing { field: "target" }),
        Some(Target::Lease(asked)) => {
            let lease = LeaseId::from_wire(&asked.lease_id).ok_or(Invalid::Length {
                field: "lease.lease_id",
                bytes: asked.lease_id.len(),
                rule: "exactly 16 bytes",
            })?;
            let incarnation =
                Incarnation::new(asked.incarnation).ok_or(Fault::Missing { field: "lease.incarnation" })?;
            Ok(Departure::Own { lease, incarnation })
        }
        Some(Target::Instance(asked)) => Ok(Departure::Operator {
            service: service_key(&asked.namespace, &asked.service)?,
            id: InstanceId::parse(&asked.instance_id)?,
        }),
    }
}

/// An admin rule to set or to take back. How long it may last is the catalog's to say.
pub(crate) fn admin_rule(request: pb::SetAdminStateRequest) -> Result<RuleSet, Fault> {
    let service = service_key(&request.namespace, &request.service)?;
    let selector = match request.selector.and_then(|selector| selector.by) {
        None => return Err(Fault::Missing { field: "selector" }),
        Some(By::InstanceId(id)) => Selector::Instance(InstanceId::parse(&id)?),
        Some(By::Zone(zone)) => Selector::Zone(Zone::parse(&zone)?),
        Some(By::Version(version)) => Selector::Version(Version::parse(&version)?),
    };
    let state = match pb::AdminState::try_from(request.state) {
        Ok(pb::AdminState::Enabled) => AdminState::Enabled,
        Ok(pb::AdminState::Draining) => AdminState::Draining,
        Ok(pb::AdminState::Disabled) => AdminState::Disabled,
        Ok(pb::AdminState::Unspecified) => return Err(Fault::Missing { field: "state" }),
        Err(_) => return Err(unknown("state", request.state, "an admin state")),
    };
    let expires_in = request.expires_in.map(|asked| duration("expires_in", asked)).transpose()?;
    Ok(RuleSet { service, selector, state, expires_in })
}

/// A duration that is none below zero.
fn duration(field: &'static str, asked: prost_types::Duration) -> Result<Duration, Fault> {
    Duration::try_from(asked).map_err(|_| {
        let text = format!("{}s {}ns", asked.seconds, asked.nanos);
        Invalid::name(field, &text, "a duration of zero or more").into()
    })
}

fn unknown(field: &'static str, number: i32, rule: &'static str) -> Fault {
    Invalid::name(field, &number.to_string(), rule).into()
}
