//! The wire's Watch messages as [`News`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_api::registry::v1::{self as wire, watch_response};
use uuid::Uuid;

use super::news::{
    Admin, Cause, Chunk, Completeness, Delta, Entry, Epoch, Event, Instance, Liveness, News, Position, Presence,
    Refusal, RefusalOutlook, Removal, SoftEntry,
};
use super::{DescriptorDigest, Idempotency, MethodLevels};
use crate::load::LoadReport;
use crate::serving::ServingStatus;

/// Sets of method levels kept to be shared. Instances of one service mostly serve the same methods; a rolling update
/// adds a second set for a while.
const SHARED_SETS_MAX: usize = 16;

/// Weight of an instance that gives none.
const DEFAULT_WEIGHT: u16 = 100;

/// A message that says nothing that can be acted on. It is counted and passed over; the stream goes on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("message without a position")]
    NoPosition,
    #[error("message of no kind that is known here")]
    UnknownEvent,
    #[error("message about namespace {0:?}, which nobody asked for")]
    ForeignNamespace(String),
}

/// Turns messages of one stream into values, sharing what repeats.
pub(crate) struct Decoder {
    namespace: Arc<str>,
    sets: Vec<Arc<MethodLevels>>,
}

impl Decoder {
    /// For a stream that follows services of `namespace`.
    pub(crate) fn new(namespace: Arc<str>) -> Self {
        Self { namespace, sets: Vec::new() }
    }

    /// Decodes one message.
    pub(crate) fn news(&mut self, message: wire::WatchResponse) -> Result<News, Malformed> {
        let completeness = if message.complete { Completeness::Complete } else { Completeness::Warming };
        let event = message.event.ok_or(Malformed::UnknownEvent)?;
        let position = match (message.position, &event) {
            (Some(given), _) => position(given),
            // A refusal holds for no position.
            (None, watch_response::Event::Error(_)) => position(wire::Position::default()),
            (None, _) => return Err(Malformed::NoPosition),
        };
        if message.namespace != *self.namespace && !message.namespace.is_empty() {
            return Err(Malformed::ForeignNamespace(message.namespace));
        }
        let service: Arc<str> = message.service.into();
        let event = match event {
            watch_response::Event::Snapshot(chunk) => Event::Snapshot(
                service.clone(),
                Chunk {
                    index: chunk.index,
                    last: chunk.last,
                    presence: presence(chunk.presence()),
                    removals: chunk.removals.iter().filter_map(removal).collect(),
                    entries: self.entries(&service, chunk.instances),
                },
            ),
            watch_response::Event::Delta(delta) => Event::Delta(
                service.clone(),
                Delta {
                    base: delta.base_revision,
                    presence: presence(delta.presence()),
                    removals: delta.removals.iter().filter_map(removal).collect(),
                    entries: self.entries(&service, delta.upserts),
                },
            ),
            watch_response::Event::SoftState(soft) => {
                Event::Soft(service, soft.instances.iter().filter_map(soft_entry).collect())
            }
            watch_response::Event::Error(error) => {
                let outlook = match tonic::Code::from_i32(error.code) {
                    tonic::Code::Unavailable => RefusalOutlook::Passing,
                    _ => RefusalOutlook::Lasting,
                };
                let reason = format!("{} ({})", error.message, error.reason).into();
                Event::Refused(service, Refusal { reason, outlook })
            }
            watch_response::Event::Bookmark(_) => Event::Bookmark,
        };
        Ok(News { position, completeness, event })
    }

    fn entries(&mut self, service: &str, instances: Vec<wire::Instance>) -> Vec<Entry> {
        instances
            .into_iter()
            .map(|instance| {
                let id = Uuid::try_parse(&instance.instance_id).ok();
                id.and_then(|id| self.instance(service, id, &instance)).map_or(Entry::Bad(id), Entry::Good)
            })
            .collect()
    }

    /// `None` for an instance that cannot be called or is not of this service.
    fn instance(&mut self, service: &str, id: Uuid, instance: &wire::Instance) -> Option<Instance> {
        let weight = match instance.weight {
            0 => DEFAULT_WEIGHT,
            given => u16::try_from(given).ok()?,
        };
        let ours = instance.service == service && instance.incarnation > 0;
        let address = grpc_address(&instance.endpoints)?;
        ours.then(|| Instance {
            id,
            incarnation: instance.incarnation,
            revision: instance.revision,
            address,
            zone: instance.zone.as_str().into(),
            weight,
            serving: serving(instance.serving_status()),
            admin: admin(instance.admin_state()),
            methods: self.methods(&instance.grpc_services),
            descriptors: DescriptorDigest::from_slice(&instance.descriptor_digest),
        })
    }

    fn methods(&mut self, services: &[wire::GrpcService]) -> Arc<MethodLevels> {
        let mut levels = MethodLevels::default();
        for service in services {
            for method in &service.methods {
                levels.declare(&service.name, &method.name, idempotency(method.idempotency_level()));
            }
        }
        if let Some(shared) = self.sets.iter().find(|set| ***set == levels) {
            return Arc::clone(shared);
        }
        if self.sets.len() == SHARED_SETS_MAX {
            self.sets.remove(0);
        }
        let levels = Arc::new(levels);
        self.sets.push(Arc::clone(&levels));
        levels
    }
}

/// The first gRPC endpoint, if it can be dialled.
fn grpc_address(endpoints: &[wire::Endpoint]) -> Option<SocketAddr> {
    let endpoint = endpoints.iter().find(|endpoint| endpoint.protocol() == wire::Protocol::Grpc)?;
    let ip: IpAddr = endpoint.ip.parse().ok()?;
    let port = u16::try_from(endpoint.port).ok().filter(|&port| port != 0)?;
    (!ip.is_unspecified() && !ip.is_multicast()).then(|| SocketAddr::new(ip, port))
}

/// A position off the wire.
pub(crate) fn position(position: wire::Position) -> Position {
    let epoch = Epoch { store: position.store_id.into(), generation: position.generation };
    Position { epoch, revision: position.revision }
}

/// A removal whose id cannot be read removes nobody.
fn removal(removal: &wire::Removal) -> Option<Removal> {
    let cause = match removal.reason() {
        wire::RemovalReason::Deregistered | wire::RemovalReason::Superseded | wire::RemovalReason::Operator => {
            Cause::Told
        }
        wire::RemovalReason::Expired | wire::RemovalReason::Unspecified => Cause::Silence,
    };
    let id = Uuid::try_parse(&removal.instance_id).ok()?;
    Some(Removal { id, incarnation: removal.incarnation, revision: removal.revision, cause })
}

fn soft_entry(entry: &wire::InstanceLiveness) -> Option<SoftEntry> {
    let liveness = match entry.liveness() {
        wire::Liveness::Suspect => Liveness::Suspect,
        wire::Liveness::Stale => Liveness::Stale,
        wire::Liveness::Alive | wire::Liveness::Unspecified => Liveness::Alive,
    };
    let id = Uuid::try_parse(&entry.instance_id).ok()?;
    let load = entry.load.map(|load| {
        LoadReport {
            cpu_utilization: load.cpu_utilization,
            requests_per_second: load.requests_per_second,
            errors_per_second: load.errors_per_second,
            requests_in_flight: load.requests_in_flight,
        }
        .sane()
    });
    Some(SoftEntry { id, incarnation: entry.incarnation, liveness, load })
}

fn presence(presence: wire::ServicePresence) -> Presence {
    match presence {
        wire::ServicePresence::Unknown => Presence::Unknown,
        wire::ServicePresence::Emptied => Presence::Emptied,
        wire::ServicePresence::Lapsed => Presence::Lapsed,
        // Of an empty list it is the reading that believes least.
        wire::ServicePresence::Populated | wire::ServicePresence::Unspecified => Presence::Populated,
    }
}

fn serving(status: wire::ServingStatus) -> ServingStatus {
    match status {
        wire::ServingStatus::Serving | wire::ServingStatus::Unspecified => ServingStatus::Serving,
        wire::ServingStatus::NotServing => ServingStatus::NotServing,
        wire::ServingStatus::Draining => ServingStatus::Draining,
    }
}

fn admin(state: wire::AdminState) -> Admin {
    match state {
        wire::AdminState::Enabled | wire::AdminState::Unspecified => Admin::Enabled,
        wire::AdminState::Draining => Admin::Draining,
        wire::AdminState::Disabled => Admin::Disabled,
    }
}

fn idempotency(level: wire::IdempotencyLevel) -> Idempotency {
    match level {
        wire::IdempotencyLevel::NoSideEffects => Idempotency::NoSideEffects,
        wire::IdempotencyLevel::Idempotent => Idempotency::Idempotent,
        wire::IdempotencyLevel::Unspecified => Idempotency::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> wire::Instance {
        let endpoint = |protocol: wire::Protocol, port| wire::Endpoint {
            name: "x".into(),
            protocol: protocol.into(),
            ip: "127.0.0.1".into(),
            port,
        };
        wire::Instance {
            service: "user-svc".into(),
            instance_id: Uuid::from_u128(7).to_string(),
            incarnation: 3,
            endpoints: vec![endpoint(wire::Protocol::Http, 80), endpoint(wire::Protocol::Grpc, 7410)],
            ..Default::default()
        }
    }

    fn decode(instance: wire::Instance) -> Entry {
        Decoder::new("default".into()).entries("user-svc", vec![instance]).remove(0)
    }

    #[test]
    fn the_grpc_endpoint_is_the_one_that_is_called() {
        let Entry::Good(instance) = decode(instance()) else { panic!("a good instance is refused") };
        assert_eq!(instance.address, "127.0.0.1:7410".parse().unwrap());
        assert_eq!(instance.weight, 100);
        assert_eq!(instance.serving, ServingStatus::Serving);
    }

    #[test]
    fn a_digest_is_32_bytes_or_none() {
        let of = |descriptor_digest: Vec<u8>| {
            let Entry::Good(instance) =
                decode(wire::Instance { descriptor_digest: descriptor_digest.into(), ..instance() })
            else {
                panic!("a good instance is refused")
            };
            instance.descriptors
        };
        assert_eq!((of(vec![7; 32]), of(vec![7; 31]), of(vec![])), (Some(DescriptorDigest([7; 32])), None, None));
    }

    #[test]
    fn an_instance_that_cannot_be_called_is_bad_and_keeps_its_name() {
        type Spoil = fn(&mut wire::Instance);
        let spoilt: [Spoil; 8] = [
            |i| i.endpoints[1].port = 0,
            |i| i.endpoints[1].port = 65_536,
            |i| i.endpoints[1].ip = "user-svc.local".into(),
            |i| i.endpoints[1].ip = "0.0.0.0".into(),
            |i| i.endpoints.clear(),
            |i| i.incarnation = 0,
            |i| i.weight = 65_536,
            |i| i.service = "order-svc".into(),
        ];
        for spoil in spoilt {
            let mut instance = instance();
            spoil(&mut instance);
            assert_eq!(decode(instance), Entry::Bad(Some(Uuid::from_u128(7))));
        }
        assert_eq!(decode(wire::Instance { instance_id: "no id".into(), ..instance() }), Entry::Bad(None));
    }

    #[test]
    fn equal_method_levels_are_shared() {
        let method = wire::GrpcMethod { name: "Get".into(), idempotency_level: 1 };
        let service = wire::GrpcService { name: "a.B".into(), methods: vec![method], serving_status: 0 };
        let mut decoder = Decoder::new("default".into());
        let first = decoder.methods(std::slice::from_ref(&service));
        assert!(Arc::ptr_eq(&first, &decoder.methods(&[service])));
        assert_eq!(first.level("/a.B/Get"), Idempotency::NoSideEffects);
    }

    #[test]
    fn a_message_that_says_nothing_is_malformed() {
        let mut decoder = Decoder::new("default".into());
        let empty = wire::WatchResponse::default();
        assert_eq!(decoder.news(empty.clone()), Err(Malformed::UnknownEvent));
        let bookmark = watch_response::Event::Bookmark(wire::Bookmark::default());
        let nowhere = wire::WatchResponse { event: Some(bookmark), ..empty };
        assert_eq!(decoder.news(nowhere), Err(Malformed::NoPosition));
    }
}
