//! What a file of the state folder holds. PURE: bytes in, a record or the reason against it out.
//!
//! ```text
//! 8   "meshlkg\n"
//! 4   version of the format, big endian
//! 8   length of the body, big endian
//! 32  SHA-256 of everything else
//! ..  the body, a protobuf message
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::resolver::news::{Admin, Epoch, Instance, Position};
use crate::resolver::service::INSTANCES_MAX;
use crate::resolver::{DescriptorDigest, Idempotency, MethodLevels};
use crate::serving::ServingStatus;

/// What a file starts with.
const MAGIC: &[u8; 8] = b"meshlkg\n";
/// The format written here, and the latest one read here.
const VERSION: u32 = 1;
/// Magic, version, length and checksum.
const HEADER: usize = 8 + 4 + 8 + 32;
/// Largest file that is written or read: some ten times what 100 000 instances take, and what a start can afford.
pub(super) const FILE_MAX: usize = 64 << 20;
/// Oldest knowledge that is used (P02 of the reliability study): after a day without a registry, addresses may well be
/// somebody else's.
pub(super) const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What was known of a service when the registry vouched for it last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    /// What it holds for.
    pub position: Position,
    /// When the registry was heard last, by the time of day.
    pub vouched: SystemTime,
    pub instances: Vec<Known>,
}

/// One instance and the history in which its incarnation and revision count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub epoch: Epoch,
    pub instance: Instance,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("it is no regular file")]
    NotAFile,
    #[error("it belongs to user {owner}, and this process runs as {ours}")]
    OtherOwner { owner: u32, ours: u32 },
    #[error("others may write it (mode {mode:03o})")]
    WritableByOthers { mode: u32 },
    #[error("it has {bytes} bytes, more than {FILE_MAX}")]
    TooLarge { bytes: u64 },
    #[error("it does not start as such a file does")]
    NoRecord,
    #[error("its format has version {version}, and {VERSION} is the latest one known here")]
    Newer { version: u32 },
    #[error("it has {found} bytes and says {expected}")]
    Length { expected: u64, found: u64 },
    #[error("its checksum does not fit")]
    Checksum,
    #[error("its content is no message: {0}")]
    NoMessage(#[from] prost::DecodeError),
    #[error("its content is not valid: {0}")]
    Invalid(&'static str),
    #[error("it is about {service} in namespace {namespace}")]
    OtherService { namespace: Arc<str>, service: Arc<str> },
    #[error("the registry vouched for it {} h ago, and {} h is the limit", hours(.age), hours(&AGE_MAX))]
    TooOld { age: Duration },
    #[error("its date lies {} h in the future; one of two clocks is wrong", hours(.ahead))]
    Future { ahead: Duration },
}

impl Unusable {
    /// What its owner can do about it.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "run the version that wrote it, or remove it",
            Self::OtherOwner { .. } => "give each user a state folder of its own, or remove the file",
            Self::WritableByOthers { .. } => "find out who changed its mode, then remove it",
            Self::Future { .. } => "set the clock, or remove the file",
            Self::TooOld { .. } => "nothing: it is replaced once the registry is back",
            Self::Unreadable(_) => "look at the disk and at the file's mode",
            Self::OtherService { .. } => "rename it back, or remove it",
            Self::NotAFile
            | Self::TooLarge { .. }
            | Self::NoRecord
            | Self::Length { .. }
            | Self::Checksum
            | Self::NoMessage(_)
            | Self::Invalid(_) => "look at the disk; the file is set aside once the registry is back",
        }
    }
}

fn hours(time: &Duration) -> u64 {
    time.as_secs() / 3_600
}

impl Record {
    /// The bytes of its file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = Body::from(self).encode_to_vec();
        let mut file = Vec::with_capacity(HEADER + body.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&VERSION.to_be_bytes());
        file.extend_from_slice(&(body.len() as u64).to_be_bytes());
        let checksum = checksum(&file, &body);
        file.extend_from_slice(&checksum);
        file.extend_from_slice(&body);
        file
    }

    /// Reads a file.
    pub(super) fn decode(file: &[u8]) -> Result<Self, Unusable> {
        let (magic, rest) = file.split_first_chunk::<8>().ok_or(Unusable::NoRecord)?;
        if magic != MAGIC {
            return Err(Unusable::NoRecord);
        }
        let short = || Unusable::Length { expected: HEADER as u64, found: file.len() as u64 };
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        match u32::from_be_bytes(*version) {
            VERSION => {}
            0 => return Err(Unusable::NoRecord),
            version => return Err(Unusable::Newer { version }),
        }
        let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (sum, body) = rest.split_first_chunk::<32>().ok_or_else(short)?;
        let length = u64::from_be_bytes(*length);
        if length != body.len() as u64 {
            let expected = length.saturating_add(HEADER as u64);
            return Err(Unusable::Length { expected, found: file.len() as u64 });
        }
        if checksum(&file[..20], body) != *sum {
            return Err(Unusable::Checksum);
        }
        Body::decode(body)?.try_into()
    }

    /// Whether it may be used at this time of day.
    pub(super) fn check_age(&self, now: SystemTime) -> Result<Duration, Unusable> {
        match now.duration_since(self.vouched) {
            Ok(age) if age > AGE_MAX => Err(Unusable::TooOld { age }),
            Ok(age) => Ok(age),
            Err(ahead) if ahead.duration() > AGE_MAX => Err(Unusable::Future { ahead: ahead.duration() }),
            // A clock that was set back a little makes nothing old.
            Err(_) => Ok(Duration::ZERO),
        }
    }
}

fn checksum(header: &[u8], body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(header).chain_update(body).finalize().into()
}

/// The body. Fields are only added; a change that an older reader would misunderstand raises [`VERSION`].
#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    service: String,
    /// The position's first, then those that instances come from.
    #[prost(message, repeated, tag = "3")]
    epochs: Vec<EpochBody>,
    #[prost(uint64, tag = "4")]
    revision: u64,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "5")]
    vouched_ms: u64,
    /// Shared by instances: those of one service mostly serve the same methods.
    #[prost(message, repeated, tag = "6")]
    methods: Vec<MethodsBody>,
    #[prost(message, repeated, tag = "7")]
    instances: Vec<InstanceBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EpochBody {
    #[prost(string, tag = "1")]
    store: String,
    #[prost(uint64, tag = "2")]
    generation: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MethodsBody {
    /// Paths of methods that only read.
    #[prost(string, repeated, tag = "1")]
    no_side_effects: Vec<String>,
    /// Paths of methods that may be repeated.
    #[prost(string, repeated, tag = "2")]
    idempotent: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InstanceBody {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, tag = "3")]
    revision: u64,
    /// `IP:PORT`.
    #[prost(string, tag = "4")]
    address: String,
    #[prost(string, tag = "5")]
    zone: String,
    #[prost(uint32, tag = "6")]
    weight: u32,
    #[prost(enumeration = "ServingBody", tag = "7")]
    serving: i32,
    #[prost(enumeration = "AdminBody", tag = "8")]
    admin: i32,
    /// Index into `Body::methods`.
    #[prost(uint32, tag = "9")]
    methods: u32,
    /// Index into `Body::epochs`.
    #[prost(uint32, tag = "10")]
    epoch: u32,
    /// 32 bytes, or none.
    #[prost(bytes = "vec", tag = "11")]
    descriptors: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum ServingBody {
    Serving = 0,
    NotServing = 1,
    Draining = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum AdminBody {
    Enabled = 0,
    Draining = 1,
    Disabled = 2,
}

impl From<&Record> for Body {
    fn from(record: &Record) -> Self {
        let mut epochs = vec![record.position.epoch.clone()];
        let mut methods: Vec<Arc<MethodLevels>> = Vec::new();
        // By their place in memory: the decoder shares equal sets, and one that is not shared is only written twice.
        let mut seen: HashMap<*const MethodLevels, u32> = HashMap::new();
        let mut instances = Vec::with_capacity(record.instances.len());
        for Known { epoch, instance } in &record.instances {
            let at = epochs.iter().position(|known| known == epoch).unwrap_or_else(|| {
                epochs.push(epoch.clone());
                epochs.len() - 1
            });
            let set = *seen.entry(Arc::as_ptr(&instance.methods)).or_insert_with(|| {
                methods.push(instance.methods.clone());
                methods.len() as u32 - 1
            });
            instances.push(InstanceBody::of(instance, set, at as u32));
        }
        Self {
            namespace: record.namespace.to_string(),
            service: record.service.to_string(),
            epochs: epochs.into_iter().map(EpochBody::from).collect(),
            revision: record.position.revision,
            vouched_ms: record.vouched.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
            methods: methods.iter().map(|set| MethodsBody::from(&**set)).collect(),
            instances,
        }
    }
}

impl TryFrom<Body> for Record {
    type Error = Unusable;

    fn try_from(body: Body) -> Result<Self, Unusable> {
        if body.instances.len() > INSTANCES_MAX {
            return Err(Unusable::Invalid("too many instances"));
        }
        let epochs: Vec<Epoch> = body.epochs.into_iter().map(Epoch::from).collect();
        let methods: Vec<Arc<MethodLevels>> = body.methods.into_iter().map(|set| Arc::new(set.into())).collect();
        let epoch = epochs.first().ok_or(Unusable::Invalid("no position"))?.clone();
        let vouched = UNIX_EPOCH.checked_add(Duration::from_millis(body.vouched_ms));
        let known = |instance: InstanceBody| {
            let epoch = epochs.get(instance.epoch as usize).ok_or(Unusable::Invalid("an instance of no history"))?;
            let set = methods.get(instance.methods as usize).ok_or(Unusable::Invalid("methods that are not there"))?;
            Ok(Known { epoch: epoch.clone(), instance: instance.valid(set.clone()).ok_or(NO_INSTANCE)? })
        };
        Ok(Self {
            namespace: body.namespace.into(),
            service: body.service.into(),
            position: Position { epoch, revision: body.revision },
            vouched: vouched.ok_or(Unusable::Invalid("no date"))?,
            instances: body.instances.into_iter().map(known).collect::<Result<_, Unusable>>()?,
        })
    }
}

const NO_INSTANCE: Unusable = Unusable::Invalid("an instance that cannot be called");

impl InstanceBody {
    fn of(instance: &Instance, methods: u32, epoch: u32) -> Self {
        let serving = match instance.serving {
            ServingStatus::Serving => ServingBody::Serving,
            ServingStatus::NotServing => ServingBody::NotServing,
            ServingStatus::Draining => ServingBody::Draining,
        };
        let admin = match instance.admin {
            Admin::Enabled => AdminBody::Enabled,
            Admin::Draining => AdminBody::Draining,
            Admin::Disabled => AdminBody::Disabled,
        };
        Self {
            id: instance.id.as_bytes().to_vec(),
            incarnation: instance.incarnation,
            revision: instance.revision,
            address: instance.address.to_string(),
            zone: instance.zone.to_string(),
            weight: instance.weight.into(),
            serving: serving.into(),
            admin: admin.into(),
            methods,
            epoch,
            descriptors: instance.descriptors.map_or_else(Vec::new, |digest| digest.0.to_vec()),
        }
    }

    fn valid(self, methods: Arc<MethodLevels>) -> Option<Instance> {
        let address: SocketAddr = self.address.parse().ok().filter(is_callable)?;
        Some(Instance {
            id: Uuid::from_slice(&self.id).ok()?,
            incarnation: Some(self.incarnation).filter(|incarnation| *incarnation > 0)?,
            revision: self.revision,
            address,
            zone: self.zone.into(),
            weight: u16::try_from(self.weight).ok().filter(|weight| *weight > 0)?,
            serving: match ServingBody::try_from(self.serving).ok()? {
                ServingBody::Serving => ServingStatus::Serving,
                ServingBody::NotServing => ServingStatus::NotServing,
                ServingBody::Draining => ServingStatus::Draining,
            },
            admin: match AdminBody::try_from(self.admin).ok()? {
                AdminBody::Enabled => Admin::Enabled,
                AdminBody::Draining => Admin::Draining,
                AdminBody::Disabled => Admin::Disabled,
            },
            methods,
            descriptors: DescriptorDigest::from_slice(&self.descriptors),
        })
    }
}

fn is_callable(address: &SocketAddr) -> bool {
    let ip: IpAddr = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}

impl From<Epoch> for EpochBody {
    fn from(epoch: Epoch) -> Self {
        Self { store: epoch.store.to_string(), generation: epoch.generation }
    }
}

impl From<EpochBody> for Epoch {
    fn from(body: EpochBody) -> Self {
        Self { store: body.store.into(), generation: body.generation }
    }
}

impl From<&MethodLevels> for MethodsBody {
    fn from(levels: &MethodLevels) -> Self {
        let mut body = Self::default();
        for (path, level) in levels.iter() {
            match level {
                Idempotency::Unknown => {}
                Idempotency::NoSideEffects => body.no_side_effects.push(path.to_owned()),
                Idempotency::Idempotent => body.idempotent.push(path.to_owned()),
            }
        }
        body.no_side_effects.sort_unstable();
        body.idempotent.sort_unstable();
        body
    }
}

impl From<MethodsBody> for MethodLevels {
    fn from(body: MethodsBody) -> Self {
        let reads = body.no_side_effects.into_iter().map(|path| (path, Idempotency::NoSideEffects));
        let repeatable = body.idempotent.into_iter().map(|path| (path, Idempotency::Idempotent));
        reads.chain(repeatable).collect()
    }
}

#[cfg(test)]
pub(super) mod tests;
