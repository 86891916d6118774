//! What an instance says of itself when it registers, and the instance as the catalog shows it.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::name::is_label;
use super::record::Registration;
use super::text::Text;
use super::{AdminState, IdentityKey, Incarnation, InstanceId, Invalid, NodeId, Orphan, Revision, ServiceKey, Ttl};

/// Whether a text holds a control character, which has no business in a log line or a table.
fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Takes free text of at most `max` bytes without control characters.
fn free_text(field: &'static str, text: &str, max: usize, rule: &'static str) -> Result<Text, Invalid> {
    if text.len() > max || has_control(text) {
        return Err(Invalid::name(field, text, rule));
    }
    Ok(text.into())
}

/// Where an instance runs, such as `eu-1a`; empty is unknown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Zone(Text);

impl Zone {
    /// Takes up to 63 bytes.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        free_text("zone", text, 63, "up to 63 bytes without control characters").map(Self)
    }

    /// The zone as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Version of the software, free text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Version(Text);

impl Version {
    /// Takes up to 64 bytes.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        free_text("version", text, 64, "up to 64 bytes without control characters").map(Self)
    }

    /// The version as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Share of the calls relative to the siblings, 1 to 65535.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Weight(u16);

impl Weight {
    /// What 0 on the wire means.
    pub const DEFAULT: Self = Self(100);

    /// Takes a weight from the wire; 0 is the default.
    pub fn from_wire(weight: u32) -> Result<Self, Invalid> {
        match u16::try_from(weight) {
            Ok(0) => Ok(Self::DEFAULT),
            Ok(weight) => Ok(Self(weight)),
            Err(_) => Err(Invalid::WeightOutOfRange { asked: weight }),
        }
    }

    /// The weight, 1 or more.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What an endpoint speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// HTTP/1.1, as of an admin port.
    Http,
}

/// One address of an instance.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint {
    name: Text,
    protocol: Protocol,
    // Half the size of a socket address, which has room for what IPv6 scopes need.
    ip: IpAddr,
    port: u16,
}

impl Endpoint {
    /// Takes an endpoint. Whether a loopback address is acceptable depends on who asks, so the door decides that.
    pub fn new(name: &str, protocol: Protocol, ip: IpAddr, port: u32) -> Result<Self, Invalid> {
        if !is_label(name) {
            return Err(Invalid::name("endpoints.name", name, "1 to 63 bytes of [a-z0-9-]"));
        }
        // An IPv4 address in IPv6 clothing would slip past every check that is written for IPv4.
        let ip = ip.to_canonical();
        let nowhere = ip.is_unspecified() || ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if nowhere {
            return Err(Invalid::Address { ip });
        }
        match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(Self { name: name.into(), protocol, ip, port }),
            _ => Err(Invalid::Port { port }),
        }
    }

    /// What it is for, unique within the instance.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// Free labels: at most 32 keys, 8 KiB together. Two texts, one of the keys and one of the values, so that the instances
/// of a service can share the one or both.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Metadata {
    /// Ordered, each ended by an [`Self::END`].
    keys: Text,
    /// In the order of their keys, likewise.
    values: Text,
}

impl Metadata {
    /// Most keys.
    pub const KEYS_MAX: usize = 32;
    /// Most bytes of all keys and values together.
    pub const BYTES_MAX: usize = 8 * 1024;

    /// Ends a key or a value. A control character, so none of them holds it.
    const END: char = '\0';

    /// Takes labels within the limits. Keys are not empty.
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, Invalid> {
        if labels.len() > Self::KEYS_MAX {
            return Err(Invalid::TooMany { field: "metadata", count: labels.len(), max: Self::KEYS_MAX });
        }
        let bytes = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > Self::BYTES_MAX {
            return Err(Invalid::Length { field: "metadata", bytes, rule: "at most 8192 bytes of keys and values" });
        }
        if let Some((key, _)) =
            labels.iter().find(|(key, value)| key.is_empty() || has_control(key) || has_control(value))
        {
            return Err(Invalid::name("metadata", key, "keys that are not empty, and no control characters"));
        }
        if labels.is_empty() {
            return Ok(Self::default());
        }
        let (mut keys, mut values) = (String::new(), String::new());
        for (key, value) in &labels {
            keys.push_str(key);
            keys.push(Self::END);
            values.push_str(value);
            values.push(Self::END);
        }
        Ok(Self { keys: keys.as_str().into(), values: values.as_str().into() })
    }

    /// The labels, ordered by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.split_terminator(Self::END).zip(self.values.split_terminator(Self::END))
    }
}

/// SHA-256 of an instance's protobuf descriptor set. The instances of a service mostly share one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DescriptorDigest(Arc<[u8; 32]>);

impl DescriptorDigest {
    /// Takes 32 bytes, or none where the instance gave none.
    pub fn from_wire(bytes: &[u8]) -> Result<Option<Self>, Invalid> {
        if bytes.is_empty() {
            return Ok(None);
        }
        bytes.try_into().map(|digest| Some(Self(Arc::new(digest)))).map_err(|_| Invalid::Length {
            field: "descriptor_digest",
            bytes: bytes.len(),
            rule: "32 bytes, or none",
        })
    }

    /// The digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DescriptorDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DescriptorDigest({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// What an instance, or one gRPC service in it, says of itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum ServingStatus {
    /// Takes calls.
    #[default]
    Serving,
    /// Alive, but asks callers to stay away.
    NotServing,
    /// On its way out: finishes what it has, takes nothing new.
    Draining,
}

/// Whether a method may be sent twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum IdempotencyLevel {
    /// Not declared: a call that may have been processed is not repeated.
    #[default]
    Unknown,
    /// Reads only.
    NoSideEffects,
    /// Writes, but twice is as good as once.
    Idempotent,
}

/// One method of a served gRPC service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Method {
    name: Text,
    idempotency: IdempotencyLevel,
}

impl Method {
    /// Takes a method name of 1 to 128 bytes of `[A-Za-z0-9_]`.
    pub fn new(name: &str, idempotency: IdempotencyLevel) -> Result<Self, Invalid> {
        let valid = (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            return Err(Invalid::name("grpc_services.methods.name", name, "1 to 128 bytes of [A-Za-z0-9_]"));
        }
        Ok(Self { name: name.into(), idempotency })
    }

    /// Its name without its service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether callers may repeat it.
    #[must_use]
    pub fn idempotency(&self) -> IdempotencyLevel {
        self.idempotency
    }
}

/// One gRPC service that an instance serves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GrpcService {
    name: Text,
    methods: Arc<[Method]>,
    pub(super) status: ServingStatus,
}

impl GrpcService {
    /// Most methods of one service.
    pub const METHODS_MAX: usize = 128;

    /// Takes a full name such as `shop.user.v1.UserService`, 1 to 253 bytes of `[A-Za-z0-9_.]`.
    pub fn new(name: &str, methods: Vec<Method>, status: ServingStatus) -> Result<Self, Invalid> {
        let valid = (1..=253).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
        if !valid {
            return Err(Invalid::name("grpc_services.name", name, "1 to 253 bytes of [A-Za-z0-9_.]"));
        }
        if methods.len() > Self::METHODS_MAX {
            let (count, max) = (methods.len(), Self::METHODS_MAX);
            return Err(Invalid::TooMany { field: "grpc_services.methods", count, max });
        }
        Ok(Self { name: name.into(), methods: methods.into(), status })
    }

    /// Its full name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its methods.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Its own status, as `grpc.health.v1` answers for this name.
    #[must_use]
    pub fn status(&self) -> ServingStatus {
        self.status
    }
}

/// Everything an instance tells at registration, but who it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InstanceSpec {
    endpoints: Box<[Endpoint]>,
    /// Where it runs.
    pub zone: Zone,
    /// Its share of the calls.
    pub weight: Weight,
    /// Version of its software.
    pub version: Version,
    /// Free labels.
    pub metadata: Metadata,
    /// Digest of its descriptor set, where it gave one.
    pub descriptor_digest: Option<DescriptorDigest>,
    grpc_services: Arc<[GrpcService]>,
}

impl InstanceSpec {
    /// Most endpoints.
    pub const ENDPOINTS_MAX: usize = 16;
    /// Most gRPC services.
    pub const GRPC_SERVICES_MAX: usize = 32;

    /// A spec of 1 to 16 endpoints with unique names; everything else at its default. Without a gRPC endpoint it is listed and
    /// watched over like any other, and no channel of the mesh leads there: a gateway is such a one.
    pub fn new(endpoints: Vec<Endpoint>) -> Result<Self, Invalid> {
        if endpoints.len() > Self::ENDPOINTS_MAX {
            return Err(Invalid::TooMany { field: "endpoints", count: endpoints.len(), max: Self::ENDPOINTS_MAX });
        }
        if endpoints.is_empty() {
            return Err(Invalid::NoEndpoint);
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = endpoints.iter().find(|endpoint| !names.insert(endpoint.name())) {
            return Err(Invalid::name("endpoints.name", twice.name(), "unique within the instance"));
        }
        Ok(Self {
            endpoints: endpoints.into(),
            zone: Zone::default(),
            weight: Weight::DEFAULT,
            version: Version::default(),
            metadata: Metadata::default(),
            descriptor_digest: None,
            grpc_services: Arc::default(),
        })
    }

    /// The same spec with these gRPC services, at most 32 with unique names. Any at all need a gRPC endpoint.
    pub fn with_grpc_services(mut self, services: Vec<GrpcService>) -> Result<Self, Invalid> {
        if services.len() > Self::GRPC_SERVICES_MAX {
            let (count, max) = (services.len(), Self::GRPC_SERVICES_MAX);
            return Err(Invalid::TooMany { field: "grpc_services", count, max });
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = services.iter().find(|service| !names.insert(service.name())) {
            return Err(Invalid::name("grpc_services.name", twice.name(), "unique within the instance"));
        }
        if !services.is_empty() && !self.endpoints.iter().any(|endpoint| endpoint.protocol == Protocol::Grpc) {
            return Err(Invalid::NoGrpcEndpoint);
        }
        self.grpc_services = services.into();
        Ok(self)
    }

    /// Its addresses.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The gRPC services it serves.
    #[must_use]
    pub fn grpc_services(&self) -> &[GrpcService] {
        &self.grpc_services
    }

    /// About how much memory it takes: its texts and the entries that hold them.
    pub(crate) fn bytes(&self) -> usize {
        let endpoints = self.endpoints.iter().map(|endpoint| size_of::<Endpoint>() + endpoint.name.len());
        let labels = std::iter::once(self.metadata.keys.len() + self.metadata.values.len());
        let methods = self.grpc_services.iter().flat_map(|service| service.methods.iter());
        let methods = methods.map(|method| size_of::<Method>() + method.name.len());
        let services = self.grpc_services.iter().map(|service| size_of::<GrpcService>() + service.name.len());
        let lists = endpoints.chain(labels).chain(methods).chain(services).sum::<usize>();
        size_of::<Self>() + self.zone.0.len() + self.version.0.len() + lists
    }

    /// Takes over the statuses that are named and known here; whether anything changed.
    pub(super) fn report(&mut self, statuses: &BTreeMap<String, ServingStatus>) -> bool {
        let news = |service: &GrpcService| statuses.get(&*service.name).is_some_and(|said| *said != service.status);
        let changed = self.grpc_services.iter().any(news);
        if changed {
            for service in Arc::make_mut(&mut self.grpc_services) {
                service.status = statuses.get(&*service.name).copied().unwrap_or(service.status);
            }
        }
        changed
    }

    /// Takes what is equal in a sibling from there: instances of one service mostly differ in their addresses alone, and
    /// there may be many of them.
    pub(super) fn share(&mut self, sibling: &Self) {
        self.zone.0.share(&sibling.zone.0);
        self.version.0.share(&sibling.version.0);
        self.metadata.keys.share(&sibling.metadata.keys);
        self.metadata.values.share(&sibling.metadata.values);
        if self.descriptor_digest == sibling.descriptor_digest {
            self.descriptor_digest.clone_from(&sibling.descriptor_digest);
        }
        for (mine, its) in self.endpoints.iter_mut().zip(&sibling.endpoints) {
            mine.name.share(&its.name);
        }
        if self.grpc_services == sibling.grpc_services {
            self.grpc_services = Arc::clone(&sibling.grpc_services);
            return;
        }
        for (mine, its) in Arc::make_mut(&mut self.grpc_services).iter_mut().zip(&*sibling.grpc_services) {
            mine.name.share(&its.name);
            if mine.methods == its.methods {
                mine.methods = Arc::clone(&its.methods);
            }
        }
    }
}

/// A live instance as readers see it: what it registered, and what operators want of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    pub(super) key: IdentityKey,
    pub(super) registration: Arc<Registration>,
    pub(super) admin: AdminState,
    pub(super) revision: Revision,
}

impl Instance {
    /// An instance that no operator has objected to and no commit has placed yet.
    pub(super) fn of(key: IdentityKey, registration: Arc<Registration>) -> Self {
        Self { key, registration, admin: AdminState::Enabled, revision: Revision::ZERO }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.key.id
    }

    /// The service it belongs to.
    #[must_use]
    pub fn service(&self) -> &ServiceKey {
        &self.registration.service
    }

    /// Its incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.registration.incarnation
    }

    /// What it told of itself.
    #[must_use]
    pub fn spec(&self) -> &InstanceSpec {
        &self.registration.spec
    }

    /// What it says of itself now.
    #[must_use]
    pub fn serving(&self) -> ServingStatus {
        self.registration.serving
    }

    /// What operators want of it: the strictest rule that selects it.
    #[must_use]
    pub fn admin(&self) -> AdminState {
        self.admin
    }

    /// TTL of its lease.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        self.registration.ttl
    }

    /// Revision of its last change, a change of its admin state included.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Which registry process keeps its deadline; `None` on a store that only one uses.
    #[must_use]
    pub fn owner(&self) -> Option<NodeId> {
        self.registration.owner
    }

    /// What adopting it rests on.
    #[must_use]
    pub fn as_orphan(&self) -> Orphan {
        Orphan { identity: self.key.clone(), lease: self.registration.lease, of: self.registration.owner }
    }

    /// Whether it is on its way out, by its own word or an operator's. Such an instance neither counts in a service's
    /// size when removals by silence are metered, nor is it held back by them.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.serving() == ServingStatus::Draining || self.admin != AdminState::Enabled
    }
}

#[cfg(test)]
mod tests;
